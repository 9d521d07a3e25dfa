"""Dense tensors as they cross the network: numpy arrays with one of two dtypes."""

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

import attrs
import numpy as np
import numpy.typing as npt

from tinker_actors.errors import InputError

__all__ = ["TENSOR_DTYPES", "TensorData", "TensorDtype", "TensorLike", "tensor_from"]

TensorDtype = Literal["int64", "float32"]
TENSOR_DTYPES: tuple[TensorDtype, ...] = ("int64", "float32")
AnyArray: TypeAlias = npt.NDArray[np.int64] | npt.NDArray[np.float32]


def _frozen_array(value: npt.ArrayLike) -> AnyArray:
    """Return `value` as a read-only array of its own, so that a batch in line cannot change afterwards."""
    array: AnyArray = np.array(value)
    array.setflags(write=False)
    return array


@attrs.frozen
class TensorData:
    """A dense tensor.

    Attributes:
        data: the values; any shape, dtype float32 or int64, read-only.
        dtype: `"int64"` or `"float32"`.
        shape: the dimensions.

    Raises:
        InputError: another dtype, or data that does not fill the shape.
    """

    data: AnyArray = attrs.field(converter=_frozen_array, eq=attrs.cmp_using(eq=np.array_equal))
    dtype: TensorDtype
    shape: tuple[int, ...]

    def __attrs_post_init__(self) -> None:
        if self.dtype not in TENSOR_DTYPES:
            raise InputError("dtype", self.dtype, f"must be one of {', '.join(TENSOR_DTYPES)}")
        if self.data.size != math.prod(self.shape):
            raise InputError("shape", list(self.shape), f"does not hold {self.data.size} values")
        array = self.data.astype(self.dtype, copy=False).reshape(self.shape)
        array.setflags(write=False)
        object.__setattr__(self, "data", array)

    @classmethod
    def from_numpy(cls, array: npt.ArrayLike) -> "TensorData":
        """Make a tensor from an array; floats become float32, signed integers int64.

        Raises:
            InputError: unsigned, boolean or other kinds of values.
        """
        value = np.asarray(array)
        dtype: TensorDtype | None = {"f": "float32", "i": "int64"}.get(value.dtype.kind)  # type: ignore[assignment]  # the two literals above
        if dtype is None:
            raise InputError("dtype", str(value.dtype), "only signed integers and floats can be sent")
        return cls(value.astype(dtype), dtype, value.shape)

    def to_numpy(self) -> AnyArray:
        """Return the values as a read-only array of `shape`."""
        return self.data

    def tolist(self) -> list[float] | list[int]:
        """Return the values as nested lists."""
        values: list[float] | list[int] = self.data.tolist()
        return values


TensorLike: TypeAlias = TensorData | npt.NDArray[np.generic] | Sequence[float] | Sequence[int]

# tinker 0.38.0 types/datum.py: a plain list gets its dtype from the key it stands under.
_DTYPE_BY_KEY: dict[str, TensorDtype] = {
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

    Raises:
        InputError: a ragged or non-numeric list, an unknown key for a plain list, an unfit dtype.
    """
    field = f"loss_fn_inputs[{key!r}]"
    if isinstance(value, TensorData):
        return value
    try:
        if isinstance(value, np.ndarray):
            return TensorData.from_numpy(value)
        dtype = _DTYPE_BY_KEY.get(key)
        if dtype is None:
            known = ", ".join(_DTYPE_BY_KEY)
            raise InputError(field, value, f"a plain list needs one of the keys {known}; else pass a TensorData")
        array = np.asarray(value)
        if dtype == "int64" and array.size and array.dtype.kind not in "iu":
            raise InputError(field, value, "must hold integers")
        return TensorData(array.astype(dtype), dtype, array.shape)
    except InputError as error:
        if error.field.startswith("loss_fn_inputs"):
            raise
        raise InputError(f"{field}.{error.field}", error.value, error.why) from error
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(field, value, "must be numbers of a rectangular shape") from error
