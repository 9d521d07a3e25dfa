from __future__ import annotations

from typing import Any

import jax
import pytest

from tests.bridges.gradients.coupling import (
    CASES,
    LOGPROBS,
    assert_needs_every_datum,
    assert_same_as_by_hand,
    assert_true_in_the_model,
)
from tinker_actors.bridges.jax import loss
from tinker_actors.errors import InputError


def coupled(_: Any, logprobs: Any) -> Any:
    """The loss in jax."""
    sums = [one.sum() for one in logprobs]
    margin = sums[0] - sums[1]
    return jax.nn.softplus(-0.1 * margin) + sum(one.mean() ** 2 for one in logprobs), {"margin:mean": margin}


def compiled(_: Any, logprobs: Any) -> Any:
    """The same, compiled by the user."""
    return jax.jit(lambda leaves: coupled(None, leaves))(logprobs)


def branching(data: Any, logprobs: Any) -> Any:
    """The same, with a branch on a value: the function is not traced in the abstract."""
    return coupled(data, logprobs) if logprobs[0].sum() < 0 else (0.0, {})


@pytest.mark.parametrize("function", [coupled, compiled, branching])
def test_it_is_what_is_written_by_hand(function: Any) -> None:
    """Loss, metrics and gradients of a loss that couples all datums."""
    assert_same_as_by_hand(loss(function))


@pytest.mark.requirement("R125")
@CASES
async def test_the_models_gradient_is_that_of_the_loss(autojump_clock: Any, data: Any) -> None:
    """By finite differences through a real model."""
    await assert_true_in_the_model(loss(coupled), data)


@pytest.mark.lesson("L9")
@pytest.mark.parametrize("wrap", [lambda function: function, jax.jit], ids=["plain", "compiled"])
def test_every_datum_must_have_a_gradient(wrap: Any) -> None:
    """Also within a compiled function; zeros by intention are fine."""

    def bridge(function: Any) -> Any:
        inner = wrap(lambda leaves: function(None, leaves))
        return loss(lambda _, leaves: inner(leaves))

    assert_needs_every_datum(bridge, jax.numpy.sum, lambda one: jax.lax.stop_gradient(one).sum())


def test_what_the_function_returns_is_checked() -> None:
    """Something else than a pair is refused."""
    with pytest.raises(InputError, match="must be a pair"):
        loss(lambda *_: 1.0)([], LOGPROBS)
