"""Dense tensors as they cross the network: numpy arrays with one of two dtypes. Nothing is coerced on the way."""

import math
import numbers
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, TypeAlias, cast, overload

import attrs
import numpy as np
import numpy.typing as npt

from tinker_actors.errors import InputError

__all__ = [
    "INPUT_DTYPES",
    "TENSOR_DTYPES",
    "TensorData",
    "TensorDtype",
    "TensorLike",
    "exact_array",
    "flat_array",
    "tensor_from",
]

TensorDtype = Literal["int64", "float32"]
TENSOR_DTYPES: tuple[TensorDtype, ...] = ("int64", "float32")
AnyArray: TypeAlias = npt.NDArray[np.int64] | npt.NDArray[np.float32]

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
    """Return `values` as a new, read-only array of `dtype`.

    Floats are rounded to float32; everything else arrives as it is. Long lists are not walked in Python.

    Raises:
        InputError: ragged lists, and values that are no numbers (booleans are none), no integers where these are
            wanted, or too large; `field` is extended by the place of the first one, such as `tokens[3]`.
    """
    array = flat_array(values)
    if array is None:
        array = _any_array(field, values, dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        result = array.astype(dtype)
    if array.size and not (array.dtype.kind in _KINDS[dtype] and _same_range(array, result)):
        raise _refusal(field, values, dtype)
    result.setflags(write=False)
    return result


def flat_array(values: object) -> npt.NDArray[np.generic] | None:
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
        return np.fromiter(values, np.int64 if first is int else np.float64, len(kinds))
    except OverflowError:  # an integer of more than 64 bits
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


def _as_given(value: npt.ArrayLike) -> AnyArray:
    """Let the constructor take whatever numpy takes; which array becomes of it depends on the dtype."""
    return cast("AnyArray", value)


def _shape_as_given(shape: Sequence[int] | None) -> tuple[int, ...]:
    return cast("tuple[int, ...]", shape)


@attrs.frozen
class TensorData:
    """A dense tensor.

    Attributes:
        data: the values; any shape, dtype float32 or int64, read-only, apart from what the caller gave.
        dtype: `"int64"` or `"float32"`.
        shape: the dimensions; that of `data` if none is given.

    Raises:
        InputError: another dtype, values that are not of it (see `exact_array`), or data that does not fill the
            shape.
    """

    data: AnyArray = attrs.field(converter=_as_given, eq=attrs.cmp_using(eq=np.array_equal))
    dtype: TensorDtype
    shape: tuple[int, ...] = attrs.field(converter=_shape_as_given, default=None)

    def __attrs_post_init__(self) -> None:
        dtype: object = self.dtype  # it may be anything
        if not isinstance(dtype, str) or dtype not in TENSOR_DTYPES:
            raise InputError("dtype", dtype, f"must be one of {', '.join(TENSOR_DTYPES)}")
        exact = (
            exact_array("data", self.data, "int64")
            if dtype == "int64"
            else exact_array("data", self.data, "float32")
        )
        array = _shaped(exact, self.shape)
        object.__setattr__(self, "data", array)
        object.__setattr__(self, "shape", array.shape)

    @classmethod
    def from_numpy(cls, array: npt.ArrayLike) -> "TensorData":
        """Make a tensor from an array; floats become float32, signed integers int64.

        Raises:
            InputError: unsigned, boolean or other kinds of values, or a float beyond float32.
        """
        value = np.asarray(array)
        dtype = _DTYPE_BY_KIND.get(value.dtype.kind)
        if dtype is None:
            raise InputError("dtype", str(value.dtype), "only signed integers and floats can be sent")
        return cls(value, dtype, value.shape)

    def to_numpy(self) -> AnyArray:
        """Return the values as a read-only array of `shape`."""
        return self.data

    def tolist(self) -> list[float] | list[int]:
        """Return the values as nested lists; a tensor without dimensions gives its one number."""
        values: list[float] | list[int] = self.data.tolist()
        return values


_DTYPE_BY_KIND: Mapping[str, TensorDtype] = {"f": "float32", "i": "int64"}


def _shaped(array: npt.NDArray[np.generic], shape: object) -> npt.NDArray[np.generic]:
    if shape is None:
        return array
    if not isinstance(shape, Sequence) or isinstance(shape, str):
        raise InputError("shape", shape, "must be a list of dimensions")
    for axis, length in enumerate(shape):
        if isinstance(length, bool) or not isinstance(length, numbers.Integral) or length < 0:
            raise InputError(f"shape[{axis}]", length, "must be an integer that is not negative")
    try:
        return array.reshape([int(length) for length in shape])
    except ValueError as error:  # the sizes differ, or a dimension is beyond what numpy can have
        raise InputError("shape", list(shape), f"does not hold {array.size} values") from error


TensorLike: TypeAlias = (
    TensorData | npt.NDArray[np.generic] | Sequence[float] | Sequence[int] | Sequence[Sequence[float]]
)

# tinker 0.38.0 types/datum.py: a plain list gets its dtype from the key it stands under.
INPUT_DTYPES: Mapping[str, TensorDtype] = {
    "target_tokens": "int64",
    "weights": "float32",
    "advantages": "float32",
    "logprobs": "float32",
    "clip_low_threshold": "float32",
    "clip_high_threshold": "float32",
    "sequence_ratio_mask": "float32",
}


def tensor_from(key: str, value: TensorLike) -> TensorData:
    """Turn what a user wrote under `key` of `loss_fn_inputs` into a tensor.

    A `TensorData` stays, an array keeps its kind of number, and a list gets the dtype that belongs to the key.

    Raises:
        InputError: a ragged or non-numeric list, an unknown key for a plain list, an unfit dtype.
    """
    if isinstance(value, TensorData):
        return value
    field = f"loss_fn_inputs[{key!r}]"
    if not isinstance(value, np.ndarray) and key not in INPUT_DTYPES:
        known = ", ".join(INPUT_DTYPES)
        raise InputError(field, value, f"a plain list needs one of the keys {known}; else pass a TensorData")
    try:
        if isinstance(value, np.ndarray):
            return TensorData.from_numpy(value)
        return TensorData(value, INPUT_DTYPES[key])
    except InputError as error:
        place = error.field.removeprefix("data") if error.field.startswith("data") else f".{error.field}"
        raise InputError(f"{field}{place}", error.value, error.why) from error
