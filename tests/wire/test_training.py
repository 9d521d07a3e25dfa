from __future__ import annotations

from tinker_actors.wire.input import Datum, ModelInput
from tinker_actors.wire.optimizer import AdamParams
from tinker_actors.wire.tensor import TensorData
from tinker_actors.wire.training import LOSS_FNS, ForwardBackwardInput, ForwardBackwardOutput


def test_the_defaults_of_adam_are_tinkers() -> None:
    """The numbers of tinker 0.38.0."""
    assert AdamParams() == AdamParams(
        learning_rate=1e-4, beta1=0.9, beta2=0.95, eps=1e-12, weight_decay=0.0, grad_clip_norm=0.0
    )


def test_the_losses_are_tinkers() -> None:
    """All eight names, no others."""
    assert LOSS_FNS == (
        "cross_entropy",
        "importance_sampling",
        "ppo",
        "cispo",
        "dro",
        "gspo",
        "stable_reinforce",
        "custom",
    )


def test_batches_and_outputs_do_not_share_the_callers_lists() -> None:
    """A list that is changed later changes nothing that was made of it."""
    data = [Datum(ModelInput.from_ints([1]))]
    output = {"logprobs": TensorData([0.0], "float32")}
    outputs = [output]
    batch, result = ForwardBackwardInput(data, "ppo"), ForwardBackwardOutput("x", outputs)
    data.clear()
    output.clear()
    outputs.clear()
    assert len(batch.data) == 1
    assert list(result.loss_fn_outputs[0]) == ["logprobs"]
    assert result.metrics == {}
