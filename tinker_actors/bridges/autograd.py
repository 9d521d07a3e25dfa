"""Losses written in numpy, differentiated by autograd.

    import autograd.numpy as np
    from tinker_actors.bridges import autograd as autograd_bridge

    def loss_fn(data, logprobs):                  # Tinker's own form
        loss = -sum(np.sum(one) for one in logprobs)
        return loss, {"my:sum": loss}

    await training.forward_backward_custom(data, autograd_bridge.loss(loss_fn))

It needs the extra `autograd`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tinker_actors.errors import InputError
from tinker_actors.rl.losses import LossFn
from tinker_actors.types import CustomLoss, Datum

from .gradient import DifferentiableLoss, check_reached, require, split

__all__ = ["loss"]


def loss(function: DifferentiableLoss) -> LossFn:
    """Return a loss for `forward_backward_custom` from one in numpy, as autograd wraps it.

    Args:
        function: takes the batch and, for each datum, a float64 array of its targets' log probabilities; returns
            (one number, metrics). What it does with them has to come from `autograd.numpy`.

    Returns:
        a loss that raises `InputError` if what the function returns is no such pair, or if there is no gradient by
        the log probabilities of some datum.

    Raises:
        ConfigError: autograd is not installed.
    """
    autograd = require("autograd")
    marker, plain = _marker(), require("autograd.tracer").getval

    def loss_fn(data: Sequence[Datum], logprobs: Sequence[npt.NDArray[np.float32]]) -> CustomLoss:
        reached: set[int] = set()
        metrics: dict[str, Any] = {}

        def differentiated(leaves: list[Any]) -> Any:
            value, more = split(
                function(data, [marker(leaf, index, reached) for index, leaf in enumerate(leaves)])
            )
            metrics.update({name: plain(metric) for name, metric in more.items()})
            if plain(value) is value:
                raise InputError("loss_fn(...)[0]", value, "does not depend on the log probabilities")
            return value

        leaves = [one.astype(np.float64) for one in logprobs]
        value, gradients = autograd.value_and_grad(differentiated)(leaves)
        check_reached(logprobs, reached)
        return CustomLoss(value, list(gradients), metrics)

    return loss_fn


def _marker() -> Callable[[Any, int, set[int]], Any]:
    """Return an identity that notes whether a derivative comes back through it: else autograd gives zeros."""
    extend = require("autograd.extend")

    def passed(_: Any, __: Any, index: int, reached: set[int]) -> Callable[[Any], Any]:
        def backward(derivative: Any) -> Any:
            reached.add(index)
            return derivative

        return backward

    identity = extend.primitive(lambda leaf, _index, _reached: leaf)
    extend.defvjp(identity, passed, None, None)
    marker: Callable[[Any, int, set[int]], Any] = identity
    return marker
