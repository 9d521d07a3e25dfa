from __future__ import annotations

from typing import Any, get_args

import attrs
import numpy as np
import pytest

from tests.wire.refusals import refusal
from tinker_actors.wire.codec import decode, encode
from tinker_actors.wire.input import ModelInput
from tinker_actors.wire.likeliest import TopkLogprobs
from tinker_actors.wire.sampling import (
    SampledSequence,
    SampleRequest,
    SampleResponse,
    SamplingParams,
    StopReason,
)
from tinker_actors.wire.tensor import TensorData


def test_the_defaults_of_sampling_are_tinkers() -> None:
    """The values of tinker 0.38.0: no limit, no seed, temperature 1, everything else off."""
    assert SamplingParams() == SamplingParams(
        max_tokens=None, seed=None, stop=None, temperature=1.0, top_k=-1, top_p=1.0
    )


def test_a_sequence_gives_its_numbers_as_plain_lists() -> None:
    """Integers and floats of Python's own, whatever the arrays hold."""
    sequence = SampledSequence("stop", np.array([3, 4], np.int32), np.array([-0.5, -1.5], np.float32))
    assert sequence.tokens == [3, 4]
    assert sequence.logprobs == [-0.5, -1.5]
    assert [type(value) for value in (*sequence.tokens, *(sequence.logprobs or ()))] == [
        int,
        int,
        float,
        float,
    ]
    assert SampledSequence("length", np.array([3], np.int32)).logprobs is None


def test_sequences_are_compared_by_their_values() -> None:
    """Arrays are compared as a whole; without log probabilities is not with them."""
    one = SampledSequence("stop", np.array([3], np.int32), np.array([-0.5], np.float32))
    assert one == SampledSequence("stop", np.array([3], np.int32), np.array([-0.5], np.float32))
    assert one != SampledSequence("stop", np.array([4], np.int32), np.array([-0.5], np.float32))
    assert one != SampledSequence("stop", np.array([3], np.int32))
    assert one != SampledSequence("length", np.array([3], np.int32), np.array([-0.5], np.float32))


@pytest.mark.requirement("R80")
def test_the_defaults_of_a_request_are_tinkers() -> None:
    """One sample; not asked for prompt log probabilities is not the same as asked for none."""
    request = SampleRequest(prompt=ModelInput.empty(), sampling_params=SamplingParams())
    assert (request.num_samples, request.prompt_logprobs, request.topk_prompt_logprobs) == (1, None, 0)
    assert (request.topk_sample_logprobs, request.prompt_alt_tokens_k, request.prompt_logprobs_last_n) == (
        0,
        0,
        None,
    )
    assert request.record_stability_info is None


@pytest.mark.requirement("R87")
def test_stop_reasons_are_length_and_stop_and_others_are_kept() -> None:
    """A service that comes to have another reason does not break the result."""
    assert get_args(StopReason) == ("length", "stop")
    body = b'{"sequences":[{"stop_reason":"content","tokens":[1]}]}'
    assert decode(SampleResponse, body, strict=False).sequences[0].stop_reason == "content"


TOPK = TopkLogprobs.from_lists([None, [(3, -0.5)]])


def test_a_response_gives_its_arrays_as_lists() -> None:
    """Where there is no number there is None; what was not asked for is None as a whole."""
    values = np.array([np.nan, -1.0], np.float32)
    sequence = SampledSequence("stop", np.array([3], np.int32), topk_logprobs_np=TOPK)
    response = SampleResponse((sequence,), values, TOPK)
    assert response.prompt_logprobs == [None, -1.0]
    assert response.topk_prompt_logprobs == sequence.topk_logprobs == [None, [(3, -0.5)]]
    nothing = SampleResponse((SampledSequence("stop", np.zeros(0, np.int32)),))
    assert (nothing.prompt_logprobs, nothing.topk_prompt_logprobs) == (None, None)
    assert (nothing.sequences[0].topk_logprobs, nothing.prompt_cache_hit_tokens) == (None, 0)


def test_a_response_is_equal_to_itself_read_back() -> None:
    """Missing numbers are like missing numbers."""
    values = np.array([np.nan, -1.0], np.float32)
    response = SampleResponse((), values, TOPK)
    assert decode(SampleResponse, encode(response), strict=True) == response
    assert response != SampleResponse((), np.array([0.0, -1.0], np.float32), TOPK)


@pytest.mark.parametrize(
    ("fields", "field", "value"),
    [
        ({"target_prompt_logprobs": TensorData([1], "int64")}, "target_prompt_logprobs", ("int64", (1,))),
        (
            {"target_prompt_logprobs": TensorData([[1.0]], "float32")},
            "target_prompt_logprobs",
            ("float32", (1, 1)),
        ),
        ({"prompt_alt_tokens_k": -1}, "prompt_alt_tokens_k", -1),
        ({"topk_prompt_logprobs": -1}, "topk_prompt_logprobs", -1),
        ({"topk_prompt_logprobs": True}, "topk_prompt_logprobs", True),
        ({"topk_sample_logprobs": 1.5}, "topk_sample_logprobs", 1.5),
        ({"prompt_logprobs_last_n": 0}, "prompt_logprobs_last_n", 0),
    ],
    ids=range(7),
)
def test_a_request_that_no_service_can_take_is_refused(fields: Any, field: str, value: object) -> None:
    """Targets that are no matrix of token ids, negative numbers."""
    made = {"prompt": ModelInput.empty(), "sampling_params": SamplingParams(), **fields}
    assert refusal(SampleRequest, **made) == (field, value)


def test_a_sequence_under_another_name_is_the_same_otherwise() -> None:
    """Every field of it goes along."""
    topk = TopkLogprobs(np.array([[1]], np.int32), np.array([[-1.0]], np.float32))
    tokens, logprobs = np.array([1], np.int32), np.array([-1.0], np.float32)
    sequence = SampledSequence("stop", tokens, logprobs, topk, "before")
    renamed = sequence.renamed("after")
    assert renamed.sequence_id == "after"
    for field in attrs.fields(SampledSequence):
        if field.name != "sequence_id":
            assert getattr(renamed, field.name) is getattr(sequence, field.name) is not None
