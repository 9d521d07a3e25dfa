from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinker_actors.errors import InputError
from tinker_actors.local.conversion import adam_params, check_optimizer, examples, sample_job, sample_response
from tinker_actors.local.sample import SampledSequence, SampleResult
from tinker_actors.wire.chunk import ImageChunk
from tinker_actors.wire.input import Datum, ModelInput
from tinker_actors.wire.optimizer import (
    ADAM_CONFIG,
    AdamParams,
    DimuonOptimizerConfig,
    DimuonParams,
    OptimizerConfigBase,
    OptimParamsBase,
)
from tinker_actors.wire.sampling import SampleRequest, SamplingParams
from tinker_actors.wire.tensor import TensorData
from tinker_actors.wire.training import ForwardBackwardInput


def refused(make: Any, *arguments: Any) -> tuple[str, object]:
    with pytest.raises(InputError) as caught:
        make(*arguments)
    return caught.value.field, caught.value.value


def test_adam_is_the_only_optimizer_here() -> None:
    """Whoever asks for another is told so, when the model is made and when it is stepped."""
    assert adam_params(AdamParams(beta1=0.5)).beta1 == 0.5
    check_optimizer(ADAM_CONFIG)
    for params in (DimuonParams(learning_rate=0.1), OptimParamsBase("sgd")):
        assert refused(adam_params, params) == ("optimizer_params.type", params.type)
    for config in (DimuonOptimizerConfig(), OptimizerConfigBase("sgd")):
        assert refused(check_optimizer, config) == ("optimizer_config.type", config.type)


def sample(**fields: Any) -> SampleRequest:
    return SampleRequest(
        **{"prompt": ModelInput.from_ints([1, 2]), "sampling_params": SamplingParams(), **fields}
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("topk_sample_logprobs", 1),
        ("target_prompt_logprobs", TensorData([[1]], "int64")),
        ("prompt_alt_tokens_k", 2),
        ("prompt_logprobs_last_n", 1),
        ("record_stability_info", True),
    ],
)
def test_what_is_not_offered_is_not_left_out_in_silence(name: str, value: object) -> None:
    """A sample that asks for it is refused by its name; not asking is no asking."""
    assert refused(sample_job, sample(**{name: value}), 0, 1) == (name, value)
    assert sample_job(sample(record_stability_info=False), 0, 1).prompt.tolist() == [1, 2]


def test_images_cannot_be_read() -> None:
    """The models are of text alone."""
    image = ModelInput([ImageChunk(b"", "png", 1)])
    assert refused(sample_job, sample(prompt=image), 0, 1)[0] == "chunks[0]"
    assert refused(examples, ForwardBackwardInput([Datum(image)], "cross_entropy"))[0] == "chunks[0]"


def test_a_sparse_tensor_is_filled_up() -> None:
    """The trainer sees what the client meant."""
    sparse = TensorData([5], "int64", (1, 9), [0, 1], [2])
    (example,) = examples(
        ForwardBackwardInput([Datum(ModelInput.from_ints([1]), {"target_tokens": sparse})], "cross_entropy")
    )
    assert example.loss_inputs["target_tokens"].tolist() == [[0, 0, 5, 0, 0, 0, 0, 0, 0]]


def test_what_a_decoder_came_to_travels_as_it_is() -> None:
    """Its missing numbers and empty cells are those of the wire."""
    result = SampleResult(
        0,
        [SampledSequence([3], np.array([-0.5], np.float32), "stop")],
        np.array([np.nan, -1.0], np.float32),
        (np.array([[0], [2]], np.int32), np.array([[-99999.0], [-1.0]], np.float32)),
    )
    response = sample_response(result)
    assert response.prompt_logprobs == [None, -1.0]
    assert response.topk_prompt_logprobs == [None, [(2, -1.0)]]
    assert response.sequences[0].tokens == [3]
    assert sample_response(SampleResult(0, [])).topk_prompt_logprobs is None
