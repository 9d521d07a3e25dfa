"""Losses of the user's own for `forward_backward_custom`, and how regularizers are added to one.

    loss_fn = compose(cross_entropy, L2(0.01), KL(0.1, reference="reference"))
    pending = await training.forward_backward_custom(data, loss_fn)

A loss function takes the batch and, for each datum, the log probabilities of its targets, and returns a
`CustomLoss`: value, gradients and metrics. All losses are sums over tokens, as the service's own.

What `compose` makes reports each part: its value, what it contributes (weight times value), and the L2 norm of its
gradient by the log probabilities, over the whole batch, before and after the weight. Names of metrics have one colon.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import attrs
import numpy as np
import numpy.typing as npt

from tinker_actors.errors import InputError
from tinker_actors.types import CustomLoss, Datum

__all__ = ["Composition", "LossFn", "Regularizer", "compose", "cross_entropy", "importance_sampling"]

Array: TypeAlias = npt.NDArray[np.float32]
LossFn: TypeAlias = Callable[[Sequence[Datum], Sequence[Array]], CustomLoss]
"""(the batch, the log probabilities of each datum's targets) to value, gradients and metrics."""


class Regularizer(Protocol):
    """A loss that is added to another one.

    Attributes:
        name: how its metrics are called; unique in a composition.
        weight: what its value and its gradient are multiplied by; not negative.
    """

    @property
    def name(self) -> str:
        """How its metrics are called."""
        ...

    @property
    def weight(self) -> float:
        """What its value and its gradient are multiplied by."""
        ...

    def __call__(self, data: Sequence[Datum], logprobs: Sequence[Array]) -> CustomLoss:
        """Return value and gradients before the weight."""
        ...


# --- two of the service's losses, as functions of the user's own -----------------------------------------------------


def _input(data: Sequence[Datum], index: int, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    field = f"data[{index}].loss_fn_inputs"
    tensor = data[index].loss_fn_inputs.get(name)
    if tensor is None:
        raise InputError(field, sorted(data[index].loss_fn_inputs), f"{name!r} is missing")
    if tensor.shape != shape:
        raise InputError(f"{field}[{name!r}].shape", tensor.shape, f"the targets have shape {shape}")
    return tensor.to_numpy().astype(np.float64)


def cross_entropy(data: Sequence[Datum], logprobs: Sequence[Array]) -> CustomLoss:
    """Return ``-sum(weights * lp)``, the service's loss of the same name.

    Raises:
        InputError: a datum without `weights` in the shape of its targets.
    """
    weights = [_input(data, index, "weights", one.shape) for index, one in enumerate(logprobs)]
    return CustomLoss(
        -sum(float((w * lp).sum()) for w, lp in zip(weights, logprobs, strict=True)), [-w for w in weights]
    )


def importance_sampling(data: Sequence[Datum], logprobs: Sequence[Array]) -> CustomLoss:
    """Return ``-sum(exp(lp - q) * advantages)`` with q the input `logprobs`, the service's loss of the same name.

    Raises:
        InputError: a datum without `logprobs` and `advantages` in the shape of its targets.
    """
    terms: list[npt.NDArray[np.float64]] = []
    for index, lp in enumerate(logprobs):
        sampled, advantages = (_input(data, index, name, lp.shape) for name in ("logprobs", "advantages"))
        with np.errstate(over="ignore", invalid="ignore"):  # it is refused with its place
            terms.append(-np.exp(lp - sampled) * advantages)
    return CustomLoss(sum(float(term.sum()) for term in terms), terms)


# --- composition -----------------------------------------------------------------------------------------------------


def _norm(gradients: Iterable[npt.NDArray[Any]]) -> float:
    squares = (float(np.square(gradient, dtype=np.float64).sum()) for gradient in gradients)
    return math.sqrt(sum(squares))


@attrs.frozen(eq=False)
class _Part:
    """One part of a composition, computed and checked."""

    name: str
    weight: float
    loss: CustomLoss

    def metrics(self) -> dict[str, float]:
        norm = _norm(np.asarray(gradient) for gradient in self.loss.gradients)
        return {
            f"{self.name}:sum": self.loss.loss,
            f"{self.name}_contribution:sum": self.weight * self.loss.loss,
            f"{self.name}_grad_norm:mean": norm,
            f"{self.name}_weighted_grad_norm:mean": self.weight * norm,
        }


def _computed(
    name: str, weight: float, function: LossFn, data: Sequence[Datum], logprobs: Sequence[Array]
) -> _Part:
    try:
        loss: object = function(data, logprobs)
    except Exception as error:
        error.add_note(f"raised by the part {name!r} of a composed loss")
        raise
    if not isinstance(loss, CustomLoss):
        raise InputError(f"{name}(...)", loss, "must be a CustomLoss")
    return _Part(name, weight, loss.checked(logprobs, field=f"{name}(...)"))


@attrs.frozen(eq=False)
class Composition:
    """A base loss and what is added to it; made by `compose`."""

    base: LossFn
    regularizers: tuple[Regularizer, ...]

    def __call__(self, data: Sequence[Datum], logprobs: Sequence[Array]) -> CustomLoss:
        """Compute all parts, and their weighted sum.

        Raises:
            InputError: a part returned what is no loss, or a metric has the name of another one.
            Exception: what a part raised, with a note that names it. No part is ever left out.
        """
        parts = [_computed("base", 1.0, self.base, data, logprobs)]
        parts += [_computed(one.name, float(one.weight), one, data, logprobs) for one in self.regularizers]
        total = [
            np.sum(
                [part.weight * np.asarray(part.loss.gradients[index], np.float64) for part in parts], axis=0
            )
            for index in range(len(logprobs))
        ]
        value = sum(part.weight * part.loss.loss for part in parts)
        own = {"total_grad_norm:mean": _norm(total)}
        return CustomLoss(value, total, _merged([part.loss.metrics for part in parts], parts, own))


def _merged(
    given: Sequence[Mapping[str, float]], parts: Sequence[_Part], own: dict[str, float]
) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for more in (*(part.metrics() for part in parts), own, *given):
        for name, value in more.items():
            if name in metrics:
                raise InputError("metrics", name, "two parts of the loss report it")
            metrics[name] = value
    return metrics


def compose(base: LossFn, *regularizers: Regularizer) -> Composition:
    """Return the loss ``base + sum(weight * regularizer)``.

    Its metrics, for the part `base` and for each regularizer by its name: `<name>:sum`, the value;
    `<name>_contribution:sum`, weight times value; `<name>_grad_norm:mean` and `<name>_weighted_grad_norm:mean`, the
    L2 norm of the gradient by the log probabilities of the whole batch; and `total_grad_norm:mean`. Metrics of the
    parts' own are passed on.

    Args:
        base: the loss itself.
        regularizers: what is added, each with a name and a weight of its own; see `regularizers`.

    Raises:
        InputError: a name that is empty, taken, or has a colon; a weight that is negative or not finite; something
            that cannot be called.
    """
    if not callable(base):
        raise InputError("base", base, "must be a function of (data, logprobs)")
    taken = {"base", "total", "loss", "surrogate_loss"}  # `loss:sum` is the whole
    for index, one in enumerate(regularizers):
        field = f"regularizers[{index}]"
        if not callable(one):
            raise InputError(field, one, "must be a function of (data, logprobs)")
        name, weight = getattr(one, "name", None), getattr(one, "weight", None)
        if not isinstance(name, str) or not name or ":" in name:
            raise InputError(f"{field}.name", name, "must be a text without a colon")
        if name in taken:
            raise InputError(f"{field}.name", name, "is taken")
        check_weight(f"{field}.weight", weight)
        taken.add(name)
    return Composition(base, tuple(regularizers))


def check_weight(field: str, weight: object) -> None:
    """Check what a part is multiplied by.

    Raises:
        InputError: it is no finite number, or negative.
    """
    number = check_number(field, weight)
    if number < 0:
        raise InputError(field, weight, "must not be negative")


def check_number(field: str, value: object) -> float:
    """Return a setting as a float.

    Raises:
        InputError: it is no finite number.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise InputError(field, value, "must be a finite number")
    return float(value)
