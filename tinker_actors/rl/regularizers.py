"""Terms that are added to a loss, with their gradients. All are sums over the targets of a batch.

Each is made with its weight and says in `name` how its metrics are called. With lp the model's log probability of a
target, and m its `mask` (1 without one), they are

    L2        sum m * d**2                        d = lp - center, cut to [-clip, clip]
    KL        sum m * (q * (lq - lp) - q + p)     forward: KL(reference || model)
              sum m * (p * (lp - lq) - p + q)     reverse: KL(model || reference)
    Entropy   sum m * p * lp                      the negative entropy: a positive weight keeps the model open

with p = exp(lp), and lq, q = exp(lq) the reference's. For targets of shape (n, k) the sum over a position's k targets
is that of the k most likely tokens, say, and the whole over the vocabulary if all of it stands there. For targets
(n,) it is the target's own term alone. Both divergences are written so that this holds for any set of targets: they
are never negative, 0 only where model and reference agree, and over the whole vocabulary the last two terms cancel.
The entropy of some targets is a lower bound of the whole.

They compute in float64, and what they cannot compute they refuse: a gradient is true, or there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import attrs
import numpy as np
import numpy.typing as npt

from tinker_actors.errors import InputError
from tinker_actors.types import CustomLoss, Datum, TensorData

from .losses import check_number, check_weight

__all__ = ["KL", "L2", "Entropy"]

Array: TypeAlias = npt.NDArray[np.float32]
Exact: TypeAlias = npt.NDArray[np.float64]
Direction = Literal["forward", "reverse"]


def _weight(instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    check_weight(f"{type(instance).__name__}.{attribute.name}", value)


def _finite(instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    check_number(f"{type(instance).__name__}.{attribute.name}", value)


def _positive(instance: object, attribute: attrs.Attribute[float | None], value: float | None) -> None:
    field = f"{type(instance).__name__}.{attribute.name}"
    if value is not None and check_number(field, value) <= 0:
        raise InputError(field, value, "must be above 0")


def _direction(instance: object, attribute: attrs.Attribute[Direction], value: Direction) -> None:
    given: object = value  # it may be anything
    if given not in ("forward", "reverse"):
        raise InputError(
            f"{type(instance).__name__}.{attribute.name}", given, "must be 'forward' or 'reverse'"
        )


def _field(data: Sequence[Datum], index: int, name: str, shape: tuple[int, ...]) -> Exact:
    """Return a loss input of one datum, which must be there for each."""
    inputs = data[index].loss_fn_inputs
    field = f"data[{index}].loss_fn_inputs"
    if name not in inputs:
        raise InputError(field, sorted(inputs), f"{name!r} is missing")
    return _shaped(f"{field}[{name!r}]", inputs[name], shape)


def _shaped(field: str, value: TensorData | npt.ArrayLike, shape: tuple[int, ...]) -> Exact:
    try:
        array = np.asarray(value.to_numpy() if isinstance(value, TensorData) else value, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(field, value, f"is no array of numbers: {error}") from error
    if array.shape != shape:
        raise InputError(f"{field}.shape", array.shape, f"the targets have shape {shape}")
    if not np.isfinite(array).all():
        raise InputError(field, value, "must be finite")
    return array


def _mask(data: Sequence[Datum], index: int, name: str | None, shape: tuple[int, ...]) -> Exact:
    return np.ones(shape) if name is None else _field(data, index, name, shape)


@attrs.frozen(eq=False)
class L2:
    """Hold log probabilities near a value.

    Attributes:
        weight: what it is multiplied by; finite, not negative.
        center: the value.
        clip: a log probability further away than this counts as one at this distance, and has no gradient; None is
            no limit.
        mask: the loss input that says how much each target counts, such as `weights`; None counts all alike.
        name: how its metrics are called.

    Raises:
        InputError: a number out of its range.
    """

    weight: float = attrs.field(validator=_weight)
    center: float = attrs.field(default=0.0, validator=_finite, kw_only=True)
    clip: float | None = attrs.field(default=None, validator=_positive, kw_only=True)
    mask: str | None = attrs.field(default=None, kw_only=True)
    name: str = attrs.field(default="l2", kw_only=True)

    def __call__(self, data: Sequence[Datum], logprobs: Sequence[Array]) -> CustomLoss:
        """Return value and gradients before the weight.

        Raises:
            InputError: a datum has no mask of its targets' shape.
        """
        value, gradients = 0.0, []
        for index, one in enumerate(logprobs):
            mask = _mask(data, index, self.mask, one.shape)
            away = one.astype(np.float64) - self.center
            slope = 2 * mask * away
            if self.clip is not None:
                slope[np.abs(away) > self.clip] = 0.0
                away = np.clip(away, -self.clip, self.clip)
            value += float((mask * away**2).sum())
            gradients.append(slope)
        return CustomLoss(value, gradients)


@attrs.frozen(eq=False)
class KL:
    """Hold the model near a reference.

    Attributes:
        weight: what it is multiplied by; finite, not negative.
        reference: the reference's log probabilities of the same targets: a loss input of *each* datum, by its name, or
            the arrays themselves, one for each datum of the batch.
        direction: `forward`, KL(reference || model), spreads the model over all that the reference does; `reverse`,
            KL(model || reference), keeps it within that.
        symmetric: the mean of both directions.
        mask: the loss input that says how much each target counts; None counts all alike.
        name: how its metrics are called.

    Raises:
        InputError: a number out of its range, or an unknown direction.
    """

    weight: float = attrs.field(validator=_weight)
    reference: str | Sequence[npt.ArrayLike] = attrs.field(kw_only=True, repr=False)
    direction: Direction = attrs.field(default="reverse", validator=_direction, kw_only=True)
    symmetric: bool = attrs.field(default=False, kw_only=True)
    mask: str | None = attrs.field(default=None, kw_only=True)
    name: str = attrs.field(default="kl", kw_only=True)

    def __call__(self, data: Sequence[Datum], logprobs: Sequence[Array]) -> CustomLoss:
        """Return value and gradients before the weight.

        Raises:
            InputError: a datum has no reference, or no mask, of its targets' shape.
        """
        forward = 0.5 if self.symmetric else float(self.direction == "forward")
        value, gradients = 0.0, []
        for index, one in enumerate(logprobs):
            mask = _mask(data, index, self.mask, one.shape)
            lp, lq = one.astype(np.float64), self._reference(data, index, len(logprobs), one.shape)
            p, q = np.exp(lp), np.exp(lq)
            away = lp - lq
            terms = forward * (p - q - q * away) + (1 - forward) * (q - p + p * away)
            value += float(
                (mask * np.maximum(terms, 0.0)).sum()
            )  # where they cancel, rounding may leave less
            gradients.append(mask * (forward * (p - q) + (1 - forward) * p * away))
        return CustomLoss(value, gradients)

    def _reference(self, data: Sequence[Datum], index: int, count: int, shape: tuple[int, ...]) -> Exact:
        if isinstance(self.reference, str):
            return _field(data, index, self.reference, shape)
        if len(self.reference) != count:
            raise InputError("len(KL.reference)", len(self.reference), f"there are {count} datums")
        return _shaped(f"KL.reference[{index}]", self.reference[index], shape)


@attrs.frozen(eq=False)
class Entropy:
    """Keep the model open: reward entropy. Its value is the *negative* entropy.

    Attributes:
        weight: what it is multiplied by; finite, not negative.
        mask: the loss input that says how much each target counts; None counts all alike.
        name: how its metrics are called.

    Raises:
        InputError: a number out of its range.
    """

    weight: float = attrs.field(validator=_weight)
    mask: str | None = attrs.field(default=None, kw_only=True)
    name: str = attrs.field(default="entropy", kw_only=True)

    def __call__(self, data: Sequence[Datum], logprobs: Sequence[Array]) -> CustomLoss:
        """Return value and gradients before the weight.

        Raises:
            InputError: a datum has no mask of its targets' shape.
        """
        value, gradients = 0.0, []
        for index, one in enumerate(logprobs):
            mask, lp = _mask(data, index, self.mask, one.shape), one.astype(np.float64)
            p = np.exp(lp)
            value += float((mask * p * lp).sum())
            gradients.append(mask * p * (lp + 1))
        return CustomLoss(value, gradients)
