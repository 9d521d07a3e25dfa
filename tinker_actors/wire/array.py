"""Arrays of exactly one dtype, made of what users and JSON give, without a guess and without a walk in Python."""

import math
import numbers
from collections.abc import Iterator, Mapping
from typing import Literal, overload

import numpy as np
import numpy.typing as npt

from tinker_actors.errors import InputError

__all__ = ["exact_array", "flat_array"]

_KINDS: Mapping[str, str] = {
    "int32": "iu",
    "int64": "iu",
    "float32": "iuf",
}  # numpy's kinds that may become it
_WANTED: Mapping[str, str] = {
    "int32": "must be an integer of 32 bits",
    "int64": "must be an integer of 64 bits",
    "float32": "must be a number within float32",
}


@overload
def exact_array(field: str, values: npt.ArrayLike, dtype: Literal["int32"]) -> npt.NDArray[np.int32]: ...
@overload
def exact_array(field: str, values: npt.ArrayLike, dtype: Literal["int64"]) -> npt.NDArray[np.int64]: ...
@overload
def exact_array(field: str, values: npt.ArrayLike, dtype: Literal["float32"]) -> npt.NDArray[np.float32]: ...
def exact_array(field: str, values: npt.ArrayLike, dtype: str) -> npt.NDArray[np.generic]:
    """Return `values` as a read-only array of `dtype` that nobody else can change.

    Floats are rounded to float32; everything else arrives as it is. Long lists are not walked in Python. There is
    one copy at most, and none of an array of the dtype that cannot be written.

    Raises:
        InputError: ragged lists, and values that are no numbers (booleans are none), no integers where these are
            wanted, or too large; `field` is extended by the place of the first one, such as `tokens[3]`.
    """
    if isinstance(values, np.ndarray) and values.dtype == dtype and values.dtype.isnative:
        return values if _is_constant(values) else _read_only(np.array(values, order="C"))
    array = flat_array(values, np.int32 if dtype == "int32" else np.int64)
    if array is not None and array.dtype == dtype:
        return _read_only(array)
    if array is None:
        array = _any_array(field, values, dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        result = array.astype(dtype)
    if array.size and not (array.dtype.kind in _KINDS[dtype] and _same_range(array, result)):
        raise _refusal(field, values, dtype)
    return _read_only(result)


def _read_only(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    array.setflags(write=False)
    return array


def _is_constant(array: npt.NDArray[np.generic]) -> bool:
    """Whether neither the array nor what it is a part of can be written, so that it need not be copied."""
    flags = array.flags
    if flags.writeable or not flags.c_contiguous:
        return False
    base = array.base
    if isinstance(base, np.ndarray):  # a part of another array, which is never itself a part
        if base.flags.writeable:
            return False
        base = base.base
    return base is None or isinstance(base, bytes)


def flat_array(values: object, integers: type[np.signedinteger] = np.int64) -> npt.NDArray[np.generic] | None:
    """Return a flat list of nothing but integers, or nothing but floats, as a new array; of others None.

    This is what tokens and log probabilities are, and it is twice as fast as to let numpy find that out.
    """
    if not isinstance(values, list | tuple):
        return None
    kinds = list(map(type, values))
    first = kinds[0] if kinds else int
    if first not in (int, float) or kinds.count(first) != len(kinds):
        return None
    try:
        return np.fromiter(values, integers if first is int else np.float64, len(kinds))
    except OverflowError:  # an integer of more bits
        return None


def _any_array(field: str, values: npt.ArrayLike, dtype: str) -> npt.NDArray[np.generic]:
    """Return what numpy makes of `values`, if it need not guess."""
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, OverflowError) as error:
        raise _refusal(field, values, dtype) from error
    if array.size and (array.dtype.kind not in "iuf" or _holds_bool(values)):
        raise _refusal(field, values, dtype)
    return array


def _same_range(array: npt.NDArray[np.generic], result: npt.NDArray[np.generic]) -> bool:
    """Whether no value wrapped around or became infinite."""
    if np.can_cast(array.dtype, result.dtype):
        return True
    if result.dtype.kind == "i":
        return bool(np.array_equal(array, result))
    return bool(np.array_equal(np.isfinite(array), np.isfinite(result)))


def _holds_bool(values: object) -> bool:
    """Whether there is a boolean among numbers, where numpy would take it for 0 or 1."""
    if not isinstance(values, list | tuple):
        return False
    kinds = set(map(type, values))
    if kinds & {bool, np.bool_}:
        return True
    return bool(kinds & {list, tuple}) and any(map(_holds_bool, values))


def _refusal(field: str, values: object, dtype: str) -> InputError:
    """Find the first value that cannot be sent."""
    for place, value in _leaves(field, values):
        if not _fits(value, dtype):
            return InputError(place, value, _WANTED[dtype])
    return InputError(field, values, "must be numbers in a rectangular shape")


def _leaves(field: str, values: object) -> Iterator[tuple[str, object]]:
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if isinstance(values, list | tuple):
        for index, value in enumerate(values):
            yield from _leaves(f"{field}[{index}]", value)
    else:
        yield field, values


def _fits(value: object, dtype: str) -> bool:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    if dtype == "float32":
        return _fits_float32(value)
    bounds = np.iinfo(dtype)
    return isinstance(value, numbers.Integral) and bounds.min <= int(value) <= bounds.max


def _fits_float32(value: numbers.Real) -> bool:
    try:
        number = float(value)
    except OverflowError:  # an integer beyond every float
        return False
    with np.errstate(over="ignore"):
        return bool(np.isfinite(np.float32(number))) or not math.isfinite(number)
