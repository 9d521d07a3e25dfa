"""Losses written in torch.

    from tinker_actors.bridges import torch as torch_bridge

    def loss_fn(data, logprobs):                  # Tinker's own form
        loss = -sum(one.sum() for one in logprobs)
        return loss, {"my:sum": loss.item()}

    await training.forward_backward_custom(data, torch_bridge.loss(loss_fn))

It needs the extra `torch`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tinker_actors.errors import InputError
from tinker_actors.rl.losses import LossFn
from tinker_actors.types import CustomLoss, Datum

from .gradient import DifferentiableLoss, check_reached, require, split

__all__ = ["loss"]


def loss(function: DifferentiableLoss) -> LossFn:
    """Return a loss for `forward_backward_custom` from one in torch.

    Args:
        function: takes the batch and, for each datum, a float32 leaf tensor of its targets' log probabilities; returns
            (a tensor of one number, metrics). `backward()` is called on the loss, so parameters of the function's own
            that require a gradient get theirs as well.

    Returns:
        a loss that raises `InputError` if what the function returns is no such pair, or if there is no gradient by
        the log probabilities of some datum.

    Raises:
        ConfigError: torch is not installed.
    """
    torch = require("torch")

    def loss_fn(data: Sequence[Datum], logprobs: Sequence[npt.NDArray[np.float32]]) -> CustomLoss:
        with torch.enable_grad():
            leaves = [
                torch.tensor(one, dtype=torch.float32, requires_grad=True) for one in map(np.array, logprobs)
            ]
            value, metrics = split(function(data, leaves))
            if not isinstance(value, torch.Tensor):
                raise InputError("loss_fn(...)[0]", value, "must be a tensor")
            if not value.requires_grad:
                raise InputError(
                    "loss_fn(...)[0]", value.tolist(), "does not depend on the log probabilities"
                )
            value.backward()
        check_reached(logprobs, [index for index, leaf in enumerate(leaves) if leaf.grad is not None])
        return CustomLoss(
            value.item(),
            [leaf.grad.numpy() for leaf in leaves],
            {name: _number(torch, metric) for name, metric in metrics.items()},
        )

    return loss_fn


def _number(torch: Any, metric: Any) -> Any:
    return metric.detach().cpu().numpy() if isinstance(metric, torch.Tensor) else metric
