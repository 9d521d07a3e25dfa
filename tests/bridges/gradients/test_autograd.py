from __future__ import annotations

from typing import Any

import autograd.numpy as np
import pytest
from autograd.tracer import getval

from tests.bridges.gradients.coupling import (
    CASES,
    LOGPROBS,
    assert_needs_every_datum,
    assert_same_as_by_hand,
    assert_true_in_the_model,
)
from tinker_actors.bridges.autograd import loss
from tinker_actors.errors import InputError


def coupled(_: Any, logprobs: Any) -> Any:
    """The loss in numpy, as autograd wraps it."""
    sums = [np.sum(one) for one in logprobs]
    margin = sums[0] - sums[1]
    value = np.logaddexp(0.0, -0.1 * margin) + sum(np.mean(one) ** 2 for one in logprobs)
    return value, {"margin:mean": margin}


def test_it_is_what_is_written_by_hand() -> None:
    """Loss, metrics and gradients of a loss that couples all datums."""
    assert_same_as_by_hand(loss(coupled))


@pytest.mark.requirement("R125")
@CASES
async def test_the_models_gradient_is_that_of_the_loss(autojump_clock: Any, data: Any) -> None:
    """By finite differences through a real model."""
    await assert_true_in_the_model(loss(coupled), data)


@pytest.mark.lesson("L9")
def test_every_datum_must_have_a_gradient() -> None:
    """Zeros by intention are fine."""
    assert_needs_every_datum(loss, np.sum, lambda one: np.sum(getval(one)))


@pytest.mark.parametrize(
    ("function", "words"),
    [(lambda *_: 1.0, "must be a pair"), (lambda *_: (1.0, {}), "does not depend on the log probabilities")],
    ids=map(str, range(2)),
)
def test_what_the_function_returns_is_checked(function: Any, words: str) -> None:
    """Something else than (a number with its trace, metrics) is refused."""
    with pytest.raises(InputError, match=words):
        loss(function)([], LOGPROBS)
