from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.wire.protobuf.schema import OFFICIAL
from tinker_actors.errors import DecodeError, InputError
from tinker_actors.wire.protobuf import decode, encode
from tinker_actors.wire.sampling import SampledSequence, SampleResponse


def read(**fields: Any) -> SampleResponse:
    return decode(SampleResponse, OFFICIAL["SampleResponse"](**fields).SerializeToString())


def test_what_is_empty_is_none() -> None:
    """Log probabilities of no bytes and matrices without cells are not there; tokens of no bytes are none."""
    response = read(
        sequences=[{"logprobs": b"", "topk_sampled_logprobs": {"k": 3}}],
        prompt_logprobs=b"",
        topk_prompt_logprobs={"length": 2},
    )
    (sequence,) = response.sequences
    assert (sequence.tokens, sequence.logprobs, sequence.topk_logprobs) == ([], None, None)
    assert (response.prompt_logprobs, response.topk_prompt_logprobs) == (None, None)
    assert response.prompt_cache_hit_tokens == 0


@pytest.mark.requirement("R87")
@pytest.mark.parametrize(
    ("number", "reason"),
    [(0, "stop"), (1, "length"), (2, "unknown:2"), (-1, "unknown:-1"), (2**31 - 1, "unknown:2147483647")],
)
def test_a_stop_reason_that_is_not_known_is_kept(number: int, reason: str) -> None:
    """A newer service's reason does not lose the sample, and goes out again as it came."""
    response = read(sequences=[{"stop_reason": number}])
    assert response.sequences[0].stop_reason == reason
    assert OFFICIAL["SampleResponse"].FromString(encode(response)).sequences[0].stop_reason == number


@pytest.mark.parametrize(
    "reason", ["", "eos", "unknown:", "unknown:x", "unknown:99999999999", "unknown:2147483648"]
)
def test_a_stop_reason_without_a_number_cannot_be_written(reason: str) -> None:
    """The error says which sequence it was."""
    sequence = SampledSequence(reason, np.array([1], np.int32))
    with pytest.raises(InputError) as caught:
        encode(SampleResponse((SampledSequence("stop", np.array([], np.int32)), sequence)))
    assert caught.value.field == "sequences[1].stop_reason"


def test_names_of_sequences_are_not_on_the_wire() -> None:
    """They come with the submission, and are put in by whoever has them."""
    named = SampledSequence("stop", np.array([1], np.int32), sequence_id="s")
    (sequence,) = decode(SampleResponse, encode(SampleResponse((named,)))).sequences
    assert sequence.sequence_id is None


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        (
            {"sequences": [{}, {"tokens": b"123"}]},
            "3 bytes do not hold whole values of 4 @ $.sequences[1].tokens",
        ),
        ({"sequences": [{"logprobs": b"12345"}]}, "@ $.sequences[0].logprobs"),
        (
            {"sequences": [{"topk_sampled_logprobs": {"k": 1, "length": 1}}]},
            "@ $.sequences[0].topk_sampled_logprobs",
        ),
        ({"prompt_logprobs": b"1"}, "@ $.prompt_logprobs"),
        ({"topk_prompt_logprobs": {"k": 1, "length": 1}}, "@ $.topk_prompt_logprobs"),
        ({"target_prompt_logprobs": {}}, "unknown dtype 0 @ $.target_prompt_logprobs.dtype"),
        ({"prompt_alt_tokens": {}}, "unknown dtype 0 @ $.prompt_alt_tokens.tokens.dtype"),
        (
            {"prompt_alt_tokens": {"tokens": {"dtype": 2}}},
            "unknown dtype 0 @ $.prompt_alt_tokens.logprobs.dtype",
        ),
    ],
)
def test_what_is_no_sample_is_refused_with_its_place(fields: Any, what: str) -> None:
    """Each problem says where it is."""
    with pytest.raises(DecodeError) as caught:
        read(**fields)
    (found,) = caught.value.problems
    assert found.endswith(what)
