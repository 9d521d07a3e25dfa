"""A loss of the user's own: what is sent for it, and what its function may return. Pure.

A custom loss C is a function of the targets' log probabilities lp, and any service can train on its gradient: the
service's cross_entropy is ``-sum(w * lp)``, so with the weights ``w = -dC/dlp`` its gradient by the model's weights is
``sum(dC/dlp * dlp/dtheta)``, which is that of C. So there are two passes over the same targets:

    forward     cross_entropy with weights 0: gives lp
    function    the user's: lp to the loss C, its gradients dC/dlp, and metrics
    backward    cross_entropy with weights -dC/dlp

It is exact if the model does not change between the passes. All other inputs of the loss stay here. Weights are dense
float32 of the targets' shape in both passes, so both weigh the same and are cut into the same chunks.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, cast

import attrs
import numpy as np
import numpy.typing as npt

from tinker_actors.errors import APIResponseValidationError, InputError
from tinker_actors.protocol.batch import check_batch
from tinker_actors.wire.input import Datum
from tinker_actors.wire.tensor import TensorData
from tinker_actors.wire.training import ForwardBackwardOutput

__all__ = [
    "CustomLoss",
    "CustomLossFn",
    "Logprobs",
    "backward_data",
    "check_function",
    "checked_loss",
    "forward_data",
    "logprobs_of",
    "with_metrics",
]

Logprobs: TypeAlias = npt.NDArray[np.float32]

_LOSS, _SURROGATE = "loss:sum", "surrogate_loss:sum"  # tinker 0.38.0 lib/public_interfaces/training_client.py
_RESULT = "loss_fn(...)"


@attrs.frozen(eq=False)
class CustomLoss:
    """What a loss function of the user's own returns.

    Attributes:
        loss: its value, a finite number.
        gradients: its derivative by each log probability: per datum an array of the shape of the datum's logprobs,
            of finite numbers. The result's metrics and the model's gradient follow from them, so they must be true.
        metrics: more numbers for the result, by names such as `margin:mean`.
    """

    loss: float
    gradients: Sequence[npt.ArrayLike]
    metrics: Mapping[str, float] = attrs.field(factory=dict[str, float])

    def checked(self, logprobs: Sequence[Logprobs], *, field: str = _RESULT) -> CustomLoss:
        """Check it against the log probabilities it was computed from.

        Args:
            logprobs: those of each datum.
            field: how errors call this.

        Returns:
            the same, with the gradients as float32 arrays and Python's own floats.

        Raises:
            InputError: the loss is no finite number; there is not one gradient for each datum, or one is of another
                shape than its logprobs or holds a value that is not finite in float32; a metric is no finite number.
        """
        given = cast("object", self.gradients)  # it may be anything
        if not isinstance(given, Sequence | np.ndarray):
            raise InputError(f"{field}.gradients", given, "must be a list of arrays, one for each datum")
        gradients = cast("Sequence[object]", given)
        if len(gradients) != len(logprobs):
            raise InputError(f"len({field}.gradients)", len(gradients), f"there are {len(logprobs)} datums")
        return CustomLoss(
            _number(f"{field}.loss", self.loss),
            tuple(
                _gradient(f"{field}.gradients[{index}]", gradient, logprobs[index].shape)
                for index, gradient in enumerate(gradients)
            ),
            _metrics(f"{field}.metrics", self.metrics),
        )


CustomLossFn: TypeAlias = Callable[[Sequence[Datum], Sequence[Logprobs]], CustomLoss]
"""A loss of the user's own: (the batch, the log probabilities of each datum's targets) to value and gradients."""


def check_function(function: object) -> None:
    """Check what shall be called.

    Raises:
        InputError: it cannot be called, or is async: it runs in a thread that has no loop.
    """
    if not callable(function) or inspect.iscoroutinefunction(function):
        raise InputError("loss_fn", function, "must be a plain function of (data, logprobs)")


# --- what is sent ----------------------------------------------------------------------------------------


def forward_data(data: Sequence[Datum]) -> tuple[Datum, ...]:
    """Return what is sent to learn the log probabilities: the targets, and weights of 0.

    Raises:
        InputError: an empty batch, a datum without targets, targets that are not int64 of shape (n,) or (n, k) for
            n tokens of input.
    """
    if not len(data):
        raise InputError("data", data, "the batch is empty")
    stripped = tuple(_stripped(f"data[{index}]", datum) for index, datum in enumerate(data))
    check_batch(stripped, "cross_entropy", None)
    return stripped


def _stripped(field: str, datum: object) -> Datum:
    if not isinstance(datum, Datum):
        raise InputError(field, datum, "must be a Datum")
    inputs = f"{field}.loss_fn_inputs"
    targets = datum.loss_fn_inputs.get("target_tokens")
    if targets is None:
        raise InputError(inputs, sorted(datum.loss_fn_inputs), "'target_tokens' is missing")
    if len(targets.shape) not in (1, 2) or 0 in targets.shape:
        why = "must be (tokens,), or (tokens, k) for k targets at each"
        raise InputError(f"{inputs}['target_tokens'].shape", targets.shape, why)
    return _weighted(datum, np.zeros(targets.shape, np.float32))


def _weighted(datum: Datum, weights: Logprobs) -> Datum:
    inputs = {
        "target_tokens": datum.loss_fn_inputs["target_tokens"],
        "weights": TensorData(weights, "float32"),
    }
    return attrs.evolve(datum, loss_fn_inputs=inputs)


def backward_data(forward: Sequence[Datum], loss: CustomLoss) -> tuple[Datum, ...]:
    """Return what is sent to have the gradient accumulated.

    Args:
        forward: what `forward_data` returned.
        loss: what `checked_loss` returned.
    """
    gradients = cast("Sequence[Logprobs]", loss.gradients)
    return tuple(_weighted(datum, -gradient) for datum, gradient in zip(forward, gradients, strict=True))


# --- what comes back -------------------------------------------------------------------------------------


def logprobs_of(forward: Sequence[Datum], output: ForwardBackwardOutput) -> tuple[Logprobs, ...]:
    """Return the log probabilities of the targets of each datum: float32, of the targets' shape, read-only.

    Raises:
        APIResponseValidationError: there are none, or not one for each target, or one is not finite.
    """
    outputs = output.loss_fn_outputs
    if len(outputs) != len(forward):
        raise APIResponseValidationError(f"the service gave {len(outputs)} outputs for {len(forward)} datums")
    return tuple(
        _logprobs(f"loss_fn_outputs[{index}]", datum, outputs[index]) for index, datum in enumerate(forward)
    )


def _logprobs(field: str, datum: Datum, output: Mapping[str, TensorData]) -> Logprobs:
    if "logprobs" not in output:
        raise APIResponseValidationError(f"{field} has no logprobs")
    given = output["logprobs"].to_numpy().astype(np.float32, copy=False)
    shape = datum.loss_fn_inputs["target_tokens"].shape
    if given.size != math.prod(shape):
        raise APIResponseValidationError(f"{field}['logprobs'] has shape {given.shape}, its targets {shape}")
    if not np.isfinite(given).all():
        raise APIResponseValidationError(f"{field}['logprobs'] holds a value that is not finite")
    logprobs = given.reshape(shape)  # some services give them flat
    logprobs.setflags(write=False)
    return logprobs


# --- what the user's function returned -------------------------------------------------------------------


def checked_loss(result: object, logprobs: Sequence[Logprobs]) -> CustomLoss:
    """Check what a user's function returned; see `CustomLoss.checked`.

    Raises:
        InputError: it is no `CustomLoss`, or one that is not good.
    """
    if not isinstance(result, CustomLoss):
        why = "must be a CustomLoss; tinker_actors.bridges makes one of a function of torch, jax or autograd"
        raise InputError(_RESULT, result, why)
    return result.checked(logprobs)


def _array(field: str, value: object) -> npt.NDArray[np.generic]:
    try:
        array = np.asarray(value)
    except (
        Exception
    ) as error:  # a ragged list, or a tensor that still has its graph: whatever its class raises
        raise InputError(field, value, f"is no array: {error}") from error
    if array.dtype.kind not in "fiu":
        raise InputError(field, value, f"must be real numbers, not {array.dtype}")
    return array


def _number(field: str, value: object) -> float:
    array = _array(field, value)
    if array.shape != ():
        raise InputError(field, value, f"must be one number, not an array of shape {array.shape}")
    number = float(array)
    if not math.isfinite(number):
        raise InputError(field, number, "must be finite")
    return number


def _gradient(field: str, value: object, shape: tuple[int, ...]) -> Logprobs:
    array = _array(field, value)
    if array.shape != shape:
        raise InputError(f"{field}.shape", array.shape, f"the datum's logprobs have shape {shape}")
    with np.errstate(over="ignore"):
        gradient = array.astype(np.float32)
    good = np.isfinite(gradient)
    if not good.all():
        place = tuple(int(axis) for axis in np.argwhere(~good)[0])
        where = "".join(f"[{axis}]" for axis in place)
        raise InputError(f"{field}{where}", float(array[place]), "must be finite in float32")
    return gradient


def _metrics(field: str, given: object) -> dict[str, float]:
    if not isinstance(given, Mapping):
        raise InputError(field, given, "must map names to numbers")
    metrics: dict[str, float] = {}
    for name, value in cast("Mapping[object, object]", given).items():
        if not isinstance(name, str) or not name:
            raise InputError(field, name, "names must be strings that are not empty")
        metrics[name] = _number(f"{field}[{name!r}]", value)
    return metrics


def with_metrics(output: ForwardBackwardOutput, loss: CustomLoss) -> ForwardBackwardOutput:
    """Return the backward pass's output with the user's loss and metrics in it.

    `loss:sum` is the user's loss; what the service computed with the weights it was sent is `surrogate_loss:sum`.
    """
    metrics = dict(output.metrics)
    if _LOSS in metrics:
        metrics[_SURROGATE] = metrics.pop(_LOSS)
    return attrs.evolve(output, metrics={**metrics, **loss.metrics, _LOSS: loss.loss})
