"""One loss in the words of each package, with what they have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinker_actors as ta
from tests.rl.slopes import FLAT, MIXED, coupled, coupled_value, open_trained
from tinker_actors.errors import InputError
from tinker_actors.rl.losses import compose
from tinker_actors.rl.regularizers import L2

LOGPROBS = [
    np.array([-1.0, -2.0], np.float32),
    np.array([[-0.5, -3.0]], np.float32),
    np.array([-1.5], np.float32),
]
for _one in LOGPROBS:
    _one.setflags(write=False)  # as they come


def assert_same_as_by_hand(loss_fn: Any) -> None:
    """Compare a bridged `coupled` with the one whose gradients are written by hand."""
    found, wanted = loss_fn([], LOGPROBS).checked(LOGPROBS), coupled([], LOGPROBS)
    assert found.loss == pytest.approx(wanted.loss, rel=1e-6)
    assert found.metrics == pytest.approx({"margin:mean": wanted.metrics["margin:mean"]})
    for one, other in zip(found.gradients, wanted.gradients, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


async def assert_true_in_the_model(loss_fn: Any, data: list[ta.Datum]) -> None:
    """Train a real model on it: the gradient is the slope of the loss, alone and composed."""
    async with open_trained() as trained:
        await trained.check(data, loss_fn, coupled_value)
        await (await trained.training.optim_step(ta.AdamParams(learning_rate=1e-2)))
        penalty = L2(0.1, center=-2.0)
        await trained.check(
            data,
            compose(loss_fn, penalty),
            lambda logprobs: coupled_value(logprobs) + 0.1 * penalty(data, logprobs).loss,
        )


def assert_needs_every_datum(bridge: Callable[[Any], Any], of: Callable[[Any], Any], detached: Any) -> None:
    """A datum that the loss does not read, or only detached, or only for metrics, is refused; times 0 is not."""
    for unused in (lambda _: 0.0, detached):
        loss_fn = bridge(
            lambda _, lp, unused=unused: (of(lp[0]) + unused(lp[1]) + of(lp[2]), {"a:sum": of(lp[1])})
        )
        with pytest.raises(InputError) as caught:
            loss_fn([], LOGPROBS)
        assert caught.value.field == "logprobs[1]"
    loss_fn = bridge(lambda _, lp: (of(lp[0]) + 0 * of(lp[1]) + of(lp[2]), {}))
    assert not np.asarray(loss_fn([], LOGPROBS).gradients[1]).any()
    assert np.asarray(loss_fn([], LOGPROBS).gradients[0]).all()


CASES = pytest.mark.parametrize("data", [FLAT, MIXED], ids=["1-D", "1-D, 2-D and sparse"])
