"""Checks of what a user wants to train or sample with, made before a byte is sent."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import attrs
import numpy as np

from tinker_actors.errors import InputError
from tinker_actors.wire.input import Datum, ModelInput
from tinker_actors.wire.optimizer import AdamParams, DimuonParams, OptimParamsBase
from tinker_actors.wire.sampling import SamplingParams
from tinker_actors.wire.tensor import INPUT_DTYPES, TensorData
from tinker_actors.wire.training import LOSS_FNS, LossFnType

__all__ = [
    "check_adam",
    "check_batch",
    "check_flag",
    "check_name",
    "check_optim",
    "check_prompt",
    "check_sampling",
]

# tinker docs: the inputs each loss reads. What the other losses read is checked by the service alone.
_REQUIRED_INPUTS: Mapping[str, tuple[str, ...]] = {
    "cross_entropy": ("target_tokens", "weights"),
    "importance_sampling": ("target_tokens", "logprobs", "advantages"),
    "ppo": ("target_tokens", "logprobs", "advantages"),
    "cispo": ("target_tokens", "logprobs", "advantages"),
    "dro": ("target_tokens", "logprobs", "advantages"),
    "gspo": ("target_tokens", "logprobs", "advantages", "sequence_ratio_mask"),
}
_NAME_LIMIT = 128
_NAME_SIGNS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")
_COUNT_LIMIT = 2**31  # counts are int32 in the API's protobuf form
_INTEGER_LIMIT = 2**63  # beyond it, JSON integers are not read exactly


def _integer(value: object) -> int | None:
    """Return an integer, numpy's included; None if it is none, or of more than 64 bits."""
    if type(value) is int:  # every sample passes here: abstract classes take their time
        return value if -_INTEGER_LIMIT <= value < _INTEGER_LIMIT else None
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        return None
    number = int(value)
    return number if -_INTEGER_LIMIT <= number < _INTEGER_LIMIT else None


def _finite(value: object) -> float | None:
    """Return a number, numpy's included; None if it is none, or cannot be sent."""
    if type(value) is float:
        return value if math.isfinite(value) else None
    if isinstance(value, numbers.Rational):  # integers and booleans; fractions have no JSON form
        integer = _integer(value)
        return None if integer is None else float(integer)
    if not isinstance(value, numbers.Real):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _is_count(value: object) -> bool:
    number = _integer(value)
    return number is not None and 1 <= number < _COUNT_LIMIT


def _check_text(field: str, text: str) -> None:
    """Refuse half characters, which have no UTF-8 form."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(field, text, "cannot be written in UTF-8") from error


# --- batches ---------------------------------------------------------------------------------------------


def check_batch(
    data: Sequence[Datum], loss_fn: str, loss_fn_config: Mapping[str, float | str] | None
) -> LossFnType:
    """Check a training batch.

    Returns:
        the loss's name, now known to be one.

    Raises:
        InputError: an empty batch, an unknown loss, a setting of it that cannot be sent; a missing or misshapen
            input, one of the wrong dtype, a value that is not finite.
    """
    if callable(loss_fn):
        raise InputError("loss_fn", loss_fn, "a loss of your own goes to forward_backward_custom")
    if not isinstance(cast("object", loss_fn), str) or loss_fn not in LOSS_FNS:
        raise InputError("loss_fn", loss_fn, f"must be one of {', '.join(LOSS_FNS)}")
    if not len(data):
        raise InputError("data", data, "the batch is empty")
    required = _REQUIRED_INPUTS.get(loss_fn, ())
    with np.errstate(over="ignore", invalid="ignore"):  # of the sums of squares
        for index, datum in enumerate(data):
            _check_datum(f"data[{index}]", datum, required)
    _check_config(loss_fn_config)
    return cast("LossFnType", loss_fn)


def _check_config(config: object) -> None:
    if config is None:
        return
    if not isinstance(config, Mapping):
        raise InputError("loss_fn_config", config, "must map names to numbers or strings")
    for key, value in cast("Mapping[object, object]", config).items():
        if not isinstance(key, str):
            raise InputError("loss_fn_config", key, "names must be strings")
        field = f"loss_fn_config[{key!r}]"
        if isinstance(value, str):
            _check_text(field, value)
        elif _finite(value) is None:
            raise InputError(field, value, "must be a finite number or a string")


def _check_datum(field: str, datum: object, required: Sequence[str]) -> None:
    if not isinstance(datum, Datum):
        raise InputError(field, datum, "must be a Datum")
    length = datum.model_input.length
    if length == 0:
        raise InputError(f"{field}.model_input", datum.model_input, "has no tokens")
    inputs = datum.loss_fn_inputs
    for key in required:
        if key not in inputs:
            why = f"{key!r} is missing; this loss needs {', '.join(required)}"
            raise InputError(f"{field}.loss_fn_inputs", sorted(inputs), why)
    for key, tensor in inputs.items():
        place = f"{field}.loss_fn_inputs[{key!r}]"
        if required:
            _check_layout(place, tensor, length, INPUT_DTYPES.get(key))
        _check_values(place, tensor)


def _check_layout(field: str, tensor: TensorData, length: int, dtype: str | None) -> None:
    if dtype is not None and tensor.dtype != dtype:
        raise InputError(f"{field}.dtype", tensor.dtype, f"must be {dtype}")
    if not tensor.shape or tensor.shape[0] != length:
        raise InputError(f"{field}.shape", tensor.shape, f"the model input has {length} tokens")


def _check_values(field: str, tensor: TensorData) -> None:
    if tensor.dtype != "float32":
        return
    flat = tensor.data.reshape(-1)
    if math.isfinite(flat.dot(flat)):  # a sum of squares hides nothing, and takes a quarter of the time
        return
    good = np.isfinite(tensor.data)
    if bool(good.all()):
        return
    place = tuple(int(axis) for axis in np.argwhere(~good)[0])
    where = "".join(f"[{axis}]" for axis in place)
    raise InputError(f"{field}{where}", float(tensor.data[place]), "must be finite")


def check_adam(params: object) -> None:
    """Check optimizer settings.

    Raises:
        InputError: a value that is not a finite number, or out of its range.
    """
    if not isinstance(params, AdamParams):
        raise InputError("adam_params", params, "must be AdamParams")
    for name in (setting.name for setting in attrs.fields(AdamParams)):
        value = getattr(params, name)
        field, number = f"adam_params.{name}", _finite(value)
        if number is None:
            raise InputError(field, value, "must be a finite number")
        if number < 0:
            raise InputError(field, value, "must not be negative")
        if name in ("beta1", "beta2") and number >= 1:
            raise InputError(field, value, "must be below 1")


def check_optim(params: object) -> None:
    """Check the settings of one optimizer step, whichever optimizer's they are.

    Raises:
        InputError: no settings at all, or one of Adam's is out of its range; the others check themselves.
    """
    if isinstance(params, AdamParams):
        check_adam(params)
    elif not isinstance(params, DimuonParams | OptimParamsBase):
        raise InputError("optim_params", params, "must be AdamParams, DimuonParams or OptimParamsBase")


def check_flag(field: str, value: object) -> None:
    """Check a yes or no, which services want to be one: a text such as `"no"` would count as yes.

    Raises:
        InputError: it is neither True nor False.
    """
    if not isinstance(value, bool):
        raise InputError(field, value, "must be True or False")


# --- samples ---------------------------------------------------------------------------------------------


def check_prompt(prompt: object, num_samples: object, topk_prompt_logprobs: object = 0) -> None:
    """Check what is to be continued, how often, and what shall be told of the prompt.

    Raises:
        InputError: no tokens, fewer than one sample, or a number of likely tokens that is none.
    """
    if not isinstance(prompt, ModelInput):
        raise InputError("prompt", prompt, "must be a ModelInput")
    if prompt.length == 0:
        raise InputError("prompt", prompt, "has no tokens")
    if not _is_count(num_samples):
        raise InputError("num_samples", num_samples, "must be a positive integer of 32 bits")
    if _integer(topk_prompt_logprobs) != 0 and not _is_count(topk_prompt_logprobs):
        raise InputError(
            "topk_prompt_logprobs", topk_prompt_logprobs, "must be 0 or a positive integer of 32 bits"
        )


def check_sampling(params: object) -> None:
    """Check how tokens are to be drawn.

    Raises:
        InputError: a value of another type, or out of its range.
    """
    if not isinstance(params, SamplingParams):
        raise InputError("sampling_params", params, "must be SamplingParams")
    for name, (good, why) in _SAMPLING_RULES.items():
        value = getattr(params, name)
        if not good(value):
            raise InputError(f"sampling_params.{name}", value, f"must be {why}")
    _check_stop("sampling_params.stop", params.stop)


def _is_seed(value: object) -> bool:
    number = _integer(value)
    return number is not None and number >= 0


def _is_temperature(value: object) -> bool:
    number = _finite(value)
    return number is not None and number >= 0


def _is_share(value: object) -> bool:
    number = _finite(value)
    return number is not None and 0 < number <= 1


_SAMPLING_RULES: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "max_tokens": (lambda value: value is None or _is_count(value), "an integer, at least 1"),
    "seed": (lambda value: value is None or _is_seed(value), "an integer in [0, 2**63)"),
    "temperature": (_is_temperature, "a finite number that is not negative"),
    "top_k": (
        lambda value: _is_count(value) or _integer(value) == -1,
        "an integer, at least 1, or -1 for off",
    ),
    "top_p": (_is_share, "a number above 0 and at most 1"),
}


def _check_stop(field: str, stop: object) -> None:
    if stop is None:
        return
    if isinstance(stop, str):
        _check_text(field, stop)
        return
    if not isinstance(stop, list | tuple):
        raise InputError(field, stop, "must be a string, a list of strings or a list of token ids")
    items = cast("Sequence[object]", stop)
    texts = [item for item in items if isinstance(item, str)]
    for index, item in enumerate(items):
        place = f"{field}[{index}]"
        if isinstance(item, str) and len(texts) == len(items):
            _check_text(place, item)
        elif not _is_token(item):
            raise InputError(place, item, "must be a token id, or every stop a string")


def _is_token(value: object) -> bool:
    number = _integer(value)
    return number is not None and 0 <= number < _COUNT_LIMIT


def check_name(field: str, name: object) -> None:
    """Check the name of a checkpoint.

    Raises:
        InputError: empty, too long, or nothing that can stand in a path.
    """
    good = isinstance(name, str) and 0 < len(name) <= _NAME_LIMIT and _NAME_SIGNS.issuperset(name)
    if not good or name in (".", ".."):
        why = f"must be 1 to {_NAME_LIMIT} letters, digits, '_', '-' or '.', and neither '.' nor '..'"
        raise InputError(field, name, why)
