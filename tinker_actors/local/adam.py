"""Adam with decoupled weight decay (AdamW) over one flat vector.

With g the gradient, clipped to `grad_clip_norm` if that is not 0, and t counting steps from 1::

    m = beta1 * m + (1 - beta1) * g            v = beta2 * v + (1 - beta2) * g²
    w -= learning_rate * (weight_decay * w + m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps))

The decay uses the weights from before the step. A step without a gradient is a step with a gradient of zeros:
t advances, the moments fade and what momentum is left moves the weights.
"""

from __future__ import annotations

import math

import attrs
import numpy as np

from tinker_actors.errors import InputError

from .transformer import Array

__all__ = ["AdamParams", "AdamState"]


@attrs.frozen
class AdamParams:
    """One step's parameters; the defaults are Tinker's.

    Attributes:
        learning_rate: may change from step to step.
        beta1: how much of the first moment stays, from 0 to below 1.
        beta2: the same of the second moment.
        eps: keeps the divisor from 0.
        weight_decay: decoupled; 0 is off.
        grad_clip_norm: longest gradient (its 2-norm over all arrays together); 0 is off.

    Raises:
        InputError: a value is not finite or out of its range.
    """

    learning_rate: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-12
    weight_decay: float = 0.0
    grad_clip_norm: float = 0.0

    def __attrs_post_init__(self) -> None:
        for field in attrs.fields(AdamParams):
            value = getattr(self, field.name)
            if not math.isfinite(value):
                raise InputError(f"adam_params.{field.name}", value, "must be finite")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"adam_params.{name}", getattr(self, name), "must be at least 0 and below 1")
        for name in ("eps", "weight_decay", "grad_clip_norm"):
            if getattr(self, name) < 0:
                raise InputError(f"adam_params.{name}", getattr(self, name), "must not be negative")


@attrs.define(eq=False)
class AdamState:
    """What Adam remembers between steps.

    Attributes:
        first: m, the flat first moment.
        second: v, the flat second moment.
        steps: t, the number of steps taken.
    """

    first: Array
    second: Array
    steps: int = 0

    @classmethod
    def fresh(cls, like: Array) -> AdamState:
        """Return the state before any step."""
        return cls(np.zeros_like(like), np.zeros_like(like))

    def step(self, weights: Array, gradient: Array, params: AdamParams) -> Array:
        """Take one step and return the new weights; `weights` and `gradient` are left as they were."""
        gradient = gradient * _clip_factor(gradient, params.grad_clip_norm)
        self.steps += 1
        self.first = params.beta1 * self.first + (1 - params.beta1) * gradient
        self.second = params.beta2 * self.second + (1 - params.beta2) * np.square(gradient)
        mean = self.first / (1 - params.beta1**self.steps)
        root = np.sqrt(self.second / (1 - params.beta2**self.steps))
        root += params.eps
        # 0 / (0 + 0) with eps = 0: a weight that never had a gradient stays.
        update = np.divide(mean, root, out=np.zeros_like(mean), where=root != 0)
        return np.asarray(weights - params.learning_rate * (update + params.weight_decay * weights))


def norm(flat: Array) -> float:
    """Return the 2-norm, summed in float64."""
    wide = flat.astype(np.float64)
    return math.sqrt(float((wide * wide).sum()))


def _clip_factor(gradient: Array, longest: float) -> float:
    length = norm(gradient) if longest else 0.0
    return longest / length if length > longest else 1.0
