"""Checks of what a user wants to train or sample with, made before a byte is sent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

import attrs
import numpy as np

from tinker_actors.errors import InputError
from tinker_actors.wire.input import Datum, ModelInput
from tinker_actors.wire.sampling import SamplingParams
from tinker_actors.wire.tensor import TensorData
from tinker_actors.wire.training import LOSS_FNS, AdamParams, LossFnType

__all__ = ["check_adam", "check_batch", "check_name", "check_prompt", "check_sampling"]

# tinker docs: the inputs each loss reads. Losses that are not here are checked by the service alone.
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


def check_batch(
    data: Sequence[Datum], loss_fn: str, loss_fn_config: Mapping[str, float | str] | None
) -> LossFnType:
    """Check a training batch.

    Returns:
        the loss's name, now known to be one.

    Raises:
        InputError: an empty batch, an unknown loss, a missing or misshapen input, a value that is not finite.
    """
    if loss_fn not in LOSS_FNS:
        raise InputError("loss_fn", loss_fn, f"must be one of {', '.join(LOSS_FNS)}")
    if not len(data):
        raise InputError("data", data, "the batch is empty")
    for index, datum in enumerate(data):
        _check_datum(f"data[{index}]", datum, _REQUIRED_INPUTS.get(loss_fn, ()))
    for key, value in (loss_fn_config or {}).items():
        if not isinstance(value, str):
            _check_finite(f"loss_fn_config[{key!r}]", value)
    return cast("LossFnType", loss_fn)


def _check_datum(field: str, datum: object, required: tuple[str, ...]) -> None:
    if not isinstance(datum, Datum):
        raise InputError(field, datum, "must be a Datum")
    length = datum.model_input.length
    if length == 0:
        raise InputError(f"{field}.model_input", datum.model_input, "has no tokens")
    for key in required:
        if key not in datum.loss_fn_inputs:
            have = sorted(datum.loss_fn_inputs)
            raise InputError(f"{field}.loss_fn_inputs", have, f"{key!r} is missing; this loss needs {required}")
    for key, tensor in datum.loss_fn_inputs.items():
        _check_tensor(f"{field}.loss_fn_inputs[{key!r}]", tensor, length)


def _check_tensor(field: str, tensor: TensorData, length: int) -> None:
    if not tensor.shape or tensor.shape[0] != length:
        raise InputError(f"{field}.shape", tensor.shape, f"the model input has {length} tokens")
    if tensor.dtype != "float32":
        return
    good = np.isfinite(tensor.data)
    if not good.all():
        place = tuple(int(axis) for axis in np.argwhere(~good)[0])
        where = "".join(f"[{axis}]" for axis in place)
        raise InputError(f"{field}{where}", float(tensor.data[place]), "must be finite")


def _check_finite(field: str, value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise InputError(field, value, "must be a finite number")


def check_adam(params: object) -> None:
    """Check optimizer settings.

    Raises:
        InputError: a value that is not finite, or out of its range.
    """
    if not isinstance(params, AdamParams):
        raise InputError("adam_params", params, "must be AdamParams")
    for name, value in attrs.asdict(params).items():
        _check_finite(f"adam_params.{name}", value)
        if value < 0:
            raise InputError(f"adam_params.{name}", value, "must not be negative")
    for name in ("beta1", "beta2"):
        if getattr(params, name) >= 1:
            raise InputError(f"adam_params.{name}", getattr(params, name), "must be below 1")


def check_prompt(prompt: object, num_samples: object) -> None:
    """Check what is to be continued, and how often.

    Raises:
        InputError: no tokens, or fewer than one sample.
    """
    if not isinstance(prompt, ModelInput):
        raise InputError("prompt", prompt, "must be a ModelInput")
    if prompt.length == 0:
        raise InputError("prompt", prompt, "has no tokens")
    if isinstance(num_samples, bool) or not isinstance(num_samples, int) or num_samples < 1:
        raise InputError("num_samples", num_samples, "must be a positive integer")


def check_sampling(params: object) -> None:
    """Check how tokens are to be drawn.

    Raises:
        InputError: a value out of its range.
    """
    if not isinstance(params, SamplingParams):
        raise InputError("sampling_params", params, "must be SamplingParams")
    _check_finite("sampling_params.temperature", params.temperature)
    _check_finite("sampling_params.top_p", params.top_p)
    rules: tuple[tuple[str, object, bool, str], ...] = (
        ("max_tokens", params.max_tokens, params.max_tokens is None or params.max_tokens >= 1, "at least 1"),
        ("temperature", params.temperature, params.temperature >= 0, "not negative"),
        ("top_k", params.top_k, params.top_k == -1 or params.top_k >= 1, "at least 1, or -1 for off"),
        ("top_p", params.top_p, 0 < params.top_p <= 1, "above 0 and at most 1"),
        ("seed", params.seed, params.seed is None or 0 <= params.seed < 2**63, "in [0, 2**63)"),
    )
    for name, value, good, why in rules:
        if not good:
            raise InputError(f"sampling_params.{name}", value, f"must be {why}")


def check_name(field: str, name: object) -> None:
    """Check the name of a checkpoint.

    Raises:
        InputError: empty, too long, or with signs that cannot stand in a path.
    """
    if not isinstance(name, str) or not name or len(name) > _NAME_LIMIT or not set(name) <= _NAME_SIGNS:
        why = f"must be 1 to {_NAME_LIMIT} letters, digits, '_', '-' or '.'"
        raise InputError(field, name, why)
