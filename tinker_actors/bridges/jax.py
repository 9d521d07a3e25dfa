"""Losses written in jax.

    from tinker_actors.bridges import jax as jax_bridge

    def loss_fn(data, logprobs):                  # Tinker's own form
        loss = -sum(one.sum() for one in logprobs)
        return loss, {"my:sum": loss}

    await training.forward_backward_custom(data, jax_bridge.loss(loss_fn))

It needs the extra `jax`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tinker_actors.rl.losses import LossFn
from tinker_actors.types import CustomLoss, Datum

from .gradient import DifferentiableLoss, check_reached, require, split

__all__ = ["loss"]


def loss(function: DifferentiableLoss) -> LossFn:
    """Return a loss for `forward_backward_custom` from one in jax.

    Args:
        function: takes the batch and, for each datum, an array of its targets' log probabilities; returns (an array of
            one number, metrics). It is called for each batch; what of it shall be compiled it has compiled itself.

    Returns:
        a loss that raises `InputError` if what the function returns is no such pair, or if there is no gradient by
        the log probabilities of some datum.

    Raises:
        ConfigError: jax is not installed.
    """
    jax = require("jax")

    def loss_fn(data: Sequence[Datum], logprobs: Sequence[npt.NDArray[np.float32]]) -> CustomLoss:
        reached: set[int] = set()

        def differentiated(leaves: list[Any]) -> tuple[Any, dict[str, Any]]:
            marked = [_marker(jax, reached, index)(leaf) for index, leaf in enumerate(leaves)]
            return split(function(data, marked))

        leaves = [jax.numpy.asarray(one) for one in logprobs]
        (value, metrics), gradients = jax.value_and_grad(differentiated, has_aux=True)(leaves)
        check_reached(logprobs, reached)
        return CustomLoss(value, [np.asarray(gradient) for gradient in gradients], metrics)

    return loss_fn


def _marker(jax: Any, reached: set[int], index: int) -> Any:
    """Return an identity that notes whether a derivative comes back through it: jax gives zeros where none does."""

    def forward(leaf: Any) -> tuple[Any, None]:
        return leaf, None

    def backward(_: None, derivative: Any) -> tuple[Any]:
        reached.add(index)
        return (derivative,)

    identity = jax.custom_vjp(lambda leaf: leaf)
    identity.defvjp(forward, backward)
    return identity
