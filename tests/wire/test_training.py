from __future__ import annotations

import pytest

from tests.wire.refusals import refusal
from tinker_actors.wire.codec import decode
from tinker_actors.wire.input import Datum, ModelInput
from tinker_actors.wire.tensor import TensorData
from tinker_actors.wire.training import LOSS_FNS, ForwardBackwardInput, ForwardBackwardOutput


@pytest.mark.requirement("R88")
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


@pytest.mark.requirement("R88")
def test_an_unknown_loss_is_refused_by_the_names_there_are() -> None:
    """Where it is written, and not by the service."""
    assert refusal(ForwardBackwardInput, [], "kl_divergence") == ("loss_fn", "kl_divergence")
    with pytest.raises(ValueError, match="must be one of 'cross_entropy', 'importance_sampling', 'ppo'"):
        ForwardBackwardInput([], "kl_divergence")  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.requirement("R89")
def test_an_output_need_not_say_its_type() -> None:
    """Then it is empty."""
    body = b'{"loss_fn_outputs":[{"logprobs":{"data":[-1.0],"dtype":"float32","shape":[1]}}]%s}'
    for rest, kind in ((b"", ""), (b',"loss_fn_output_type":"ArrayRecord"', "ArrayRecord")):
        output = decode(ForwardBackwardOutput, body % rest, strict=False)
        assert output.loss_fn_output_type == kind
        assert output.loss_fn_outputs[0]["logprobs"].tolist() == [-1.0]
