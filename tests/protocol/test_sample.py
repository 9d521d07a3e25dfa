"""What may be asked for beside the sequences, and what an answer must have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinker_actors.errors import InputError, ServiceTooOld
from tinker_actors.protocol.sample import check_extras, complete, leading_none
from tinker_actors.wire.likeliest import PromptAltTokens
from tinker_actors.wire.sampling import SampleResponse
from tinker_actors.wire.tensor import TensorData

NOTHING: dict[str, Any] = {
    "include_prompt_logprobs": False,
    "topk_sample_logprobs": 0,
    "target_prompt_logprobs": None,
    "prompt_alt_tokens_k": 0,
    "prompt_logprobs_last_n": None,
}


def tensor(*shape: int, dtype: str = "int64") -> TensorData:
    return TensorData.from_numpy(np.zeros(shape, dtype))


def response(*values: float, alt: bool = False) -> SampleResponse:
    tokens = PromptAltTokens(np.zeros((2, 1), np.int64), np.zeros((2, 1), np.float32)) if alt else None
    prompt = np.array(values, np.float32) if values else None
    return SampleResponse((), prompt_logprobs_np=prompt, prompt_alt_tokens=tokens)


@pytest.mark.parametrize(
    "extras",
    [
        {},
        {"topk_sample_logprobs": 3},
        {"target_prompt_logprobs": tensor(2, 1)},
        {"prompt_alt_tokens_k": 2},
        {"prompt_logprobs_last_n": 1, "include_prompt_logprobs": True},
    ],
)
def test_what_goes_together_passes(extras: dict[str, Any]) -> None:
    """Nothing, and each thing alone."""
    check_extras(**NOTHING | extras)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("topk_sample_logprobs", -1),
        ("topk_sample_logprobs", True),
        ("prompt_alt_tokens_k", -1),
        ("prompt_alt_tokens_k", 1.5),
        ("prompt_logprobs_last_n", 0),
        ("prompt_logprobs_last_n", "3"),
        ("target_prompt_logprobs", tensor(2, 1, dtype="float32")),
        ("target_prompt_logprobs", tensor(2)),
        ("target_prompt_logprobs", [[1]]),
    ],
)
def test_what_cannot_be_asked_for_is_refused_by_its_name(field: str, value: Any) -> None:
    """Before a byte is sent."""
    with pytest.raises(InputError) as caught:
        check_extras(**NOTHING | {"include_prompt_logprobs": True, field: value})
    assert caught.value.field == field


def test_the_last_n_of_nothing_cannot_be_asked_for() -> None:
    """It cuts the prompt's log probabilities, so these must be wanted."""
    with pytest.raises(InputError, match="include_prompt_logprobs"):
        check_extras(**NOTHING | {"prompt_logprobs_last_n": 2})


def test_an_answer_that_has_everything_is_left_as_it_is() -> None:
    """The same object."""
    for answer, last_n in [(response(), None), (response(np.nan, -1.0, -2.0, alt=True), None)]:
        assert complete(answer, 3, alt_tokens=answer.prompt_alt_tokens is not None, last_n=last_n) is answer
    short = response(np.nan, np.nan, -2.0)
    assert complete(short, 3, alt_tokens=False, last_n=1) is short
    assert complete(response(-1.0), 3, alt_tokens=False, last_n=1).prompt_logprobs == [-1.0]


def test_a_service_that_is_too_old_is_told_apart() -> None:
    """It answers without what was asked for, or with what was not; the error names the argument."""
    with pytest.raises(ServiceTooOld) as caught:
        complete(response(), 3, alt_tokens=True, last_n=None)
    assert caught.value.field == "prompt_alt_tokens_k"
    with pytest.raises(ServiceTooOld, match="prompt_logprobs_last_n"):
        complete(response(np.nan, -1.0, -2.0), 3, alt_tokens=False, last_n=1)


def test_a_value_that_a_service_leaves_out_is_filled_in() -> None:
    """Some give n - 1 log probabilities for n tokens; the first token has none."""
    padded = complete(response(-1.0, -2.0), 3, alt_tokens=False, last_n=None)
    assert padded.prompt_logprobs == [None, -1.0, -2.0]
    odd = complete(response(-1.0), 3, alt_tokens=False, last_n=None)
    assert odd.prompt_logprobs == [-1.0]


def test_the_first_token_has_no_log_probability() -> None:
    """Whatever a service makes up for it."""
    assert leading_none([-3.0, -1.0]) == [None, -1.0]
