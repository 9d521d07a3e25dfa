"""Tensors as they cross the network: numpy arrays with one of two dtypes. Nothing is coerced on the way."""

import importlib
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias, cast

import attrs
import numpy as np
import numpy.typing as npt

from tinker_actors.errors import InputError
from tinker_actors.wire.array import exact_array
from tinker_actors.wire.field import ARRAY

__all__ = [
    "INPUT_DTYPES",
    "TENSOR_DTYPES",
    "TensorData",
    "TensorDtype",
    "TensorLike",
    "tensor_from",
]

TensorDtype = Literal["int64", "float32"]
TENSOR_DTYPES: tuple[TensorDtype, ...] = ("int64", "float32")
AnyArray: TypeAlias = npt.NDArray[np.int64] | npt.NDArray[np.float32]


def _as_given(value: npt.ArrayLike) -> AnyArray:
    """Let the constructor take whatever numpy takes; which array becomes of it depends on the dtype."""
    return cast("AnyArray", value)


def _shape_as_given(shape: Sequence[int] | None) -> tuple[int, ...]:
    return cast("tuple[int, ...]", shape)


def _indices_as_given(indices: npt.ArrayLike | None) -> npt.NDArray[np.int64] | None:
    return cast("npt.NDArray[np.int64] | None", indices)


class TorchTensor(Protocol):
    """What is used of a tensor of torch, so that nobody needs the package to send one."""

    def detach(self) -> Any: ...


def _torch_array(tensor: object) -> npt.ArrayLike:
    if not hasattr(tensor, "detach"):
        raise InputError("tensor", tensor, "must be a tensor of torch; from_numpy takes arrays and lists")
    plain = cast("Any", tensor).detach().cpu()
    return cast("npt.ArrayLike", (plain.float() if plain.is_floating_point() else plain).numpy())


@attrs.frozen
class TensorData:
    """A tensor, dense or in compressed sparse rows (CSR).

    Attributes:
        data: the values; any shape, dtype float32 or int64, read-only, apart from what the caller gave. Of a
            sparse tensor the listed ones, shape (n,).
        dtype: `"int64"` or `"float32"`.
        shape: the dimensions; that of `data` if none is given, which a sparse tensor does not allow.
        sparse_crow_indices: of a sparse tensor, where each row's values start in `data`, and their number at the
            end: int64, shape (rows + 1,).
        sparse_col_indices: of a sparse tensor, the column of each value: int64, shape (n,).

    Raises:
        InputError: another dtype, values that are not of it (see `exact_array`), data that does not fill the
            shape, indices that do not fit it.
    """

    data: AnyArray = attrs.field(converter=_as_given, eq=ARRAY, hash=False)
    dtype: TensorDtype
    shape: tuple[int, ...] = attrs.field(converter=_shape_as_given, default=None)
    sparse_crow_indices: npt.NDArray[np.int64] | None = attrs.field(
        converter=_indices_as_given, default=None, eq=ARRAY, hash=False
    )
    sparse_col_indices: npt.NDArray[np.int64] | None = attrs.field(
        converter=_indices_as_given, default=None, eq=ARRAY, hash=False
    )

    def __attrs_post_init__(self) -> None:
        dtype: object = self.dtype  # it may be anything
        if not isinstance(dtype, str) or dtype not in TENSOR_DTYPES:
            raise InputError("dtype", dtype, f"must be one of {', '.join(TENSOR_DTYPES)}")
        exact = (
            exact_array("data", self.data, "int64")
            if dtype == "int64"
            else exact_array("data", self.data, "float32")
        )
        if self.sparse_crow_indices is None and self.sparse_col_indices is None:
            array = _shaped(exact, self.shape)
            shape = array.shape
        else:
            array, shape = self._take_indices(exact)
        object.__setattr__(self, "data", array)
        object.__setattr__(self, "shape", shape)

    def _take_indices(
        self, values: npt.NDArray[np.generic]
    ) -> tuple[npt.NDArray[np.generic], tuple[int, ...]]:
        shape = _dimensions(self.shape)
        if len(shape) != 2:
            raise InputError("shape", list(shape), "a sparse tensor has rows and columns")
        crow = _indices("sparse_crow_indices", self.sparse_crow_indices)
        col = _indices("sparse_col_indices", self.sparse_col_indices)
        _check_csr(values.size, crow, col, shape)
        object.__setattr__(self, "sparse_crow_indices", crow)
        object.__setattr__(self, "sparse_col_indices", col)
        return values.reshape(-1), shape

    @property
    def is_sparse(self) -> bool:
        """Whether only some of the values are listed."""
        return self.sparse_crow_indices is not None

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
        return cls(value, dtype)

    @classmethod
    def from_torch(cls, tensor: TorchTensor) -> "TensorData":
        """Make a tensor from one of torch, wherever it lies and whether it has a gradient or not.

        Raises:
            InputError: no tensor of torch, or as `from_numpy`.
        """
        return cls.from_numpy(_torch_array(tensor))

    @classmethod
    def from_torch_sparse(cls, tensor: TorchTensor, pad_value: int = 0) -> "TensorData":
        """Make a tensor from one of torch that mostly holds one value; see `from_sparse`."""
        return cls.from_sparse(_torch_array(tensor), pad_value)

    @classmethod
    def from_sparse(cls, array: npt.ArrayLike, pad_value: int = 0) -> "TensorData":
        """Make a tensor from an array that mostly holds one value.

        It becomes sparse if it has two dimensions and the indices take less room than the values that are left
        out; else it is dense.

        Args:
            array: see `from_numpy`.
            pad_value: the value that need not be listed.

        Raises:
            InputError: see `from_numpy`; a pad value that is no integer.
        """
        pad: object = pad_value  # it may be anything
        if isinstance(pad, bool) or not isinstance(pad, numbers.Integral):
            raise InputError("pad_value", pad, "must be an integer")
        dense = cls.from_numpy(array)
        if len(dense.shape) != 2:
            return dense
        listed = dense.data != pad_value
        rows, columns = dense.shape
        # tinker 0.38.0 types/tensor_data.py: from_torch_sparse
        if rows + 1 + 2 * int(np.count_nonzero(listed)) >= rows * columns:
            return dense
        crow = np.zeros(rows + 1, np.int64)
        np.cumsum(np.count_nonzero(listed, axis=1), out=crow[1:])
        return cls(dense.data[listed], dense.dtype, dense.shape, crow, np.nonzero(listed)[1])

    def to_numpy(self, pad_value: float = 0) -> AnyArray:
        """Return the values as a read-only array of `shape`.

        Args:
            pad_value: what stands where a sparse tensor lists no value.
        """
        if self.sparse_crow_indices is None:
            return self.data
        array = cast("AnyArray", np.full(self.shape, pad_value, self.data.dtype))
        rows = np.repeat(np.arange(self.shape[0]), np.diff(self.sparse_crow_indices))
        array[rows, self.sparse_col_indices] = self.data
        array.setflags(write=False)
        return array

    def to_torch(self, pad_value: float = 0) -> Any:
        """Return the values as a torch tensor of `shape`, which is the caller's own.

        Args:
            pad_value: what stands where a sparse tensor lists no value.

        Raises:
            ImportError: torch is not installed.
        """
        return importlib.import_module("torch").from_numpy(self.to_numpy(pad_value).copy())

    def tolist(self, pad_value: float = 0) -> list[float] | list[int]:
        """Return the values as nested lists; a tensor without dimensions gives its one number.

        Args:
            pad_value: what stands where a sparse tensor lists no value.
        """
        values: list[float] | list[int] = self.to_numpy(pad_value).tolist()
        return values


_DTYPE_BY_KIND: Mapping[str, TensorDtype] = {"f": "float32", "i": "int64"}


def _dimensions(shape: object) -> tuple[int, ...]:
    if not isinstance(shape, Sequence) or isinstance(shape, str):
        raise InputError("shape", shape, "must be a list of dimensions")
    for axis, length in enumerate(shape):
        if isinstance(length, bool) or not isinstance(length, numbers.Integral) or length < 0:
            raise InputError(f"shape[{axis}]", length, "must be an integer that is not negative")
    return tuple([int(length) for length in shape])


def _shaped(array: npt.NDArray[np.generic], shape: object) -> npt.NDArray[np.generic]:
    if shape is None:
        return array
    dimensions = _dimensions(shape)
    try:
        return array.reshape(dimensions)
    except ValueError as error:  # the sizes differ, or a dimension is beyond what numpy can have
        raise InputError("shape", list(dimensions), f"does not hold {array.size} values") from error


def _indices(field: str, values: npt.ArrayLike | None) -> npt.NDArray[np.int64]:
    if values is None:
        raise InputError(field, None, "a sparse tensor has indices of rows and of columns")
    array = exact_array(field, values, "int64")
    if array.ndim != 1:
        raise InputError(field, values, "must be a flat list of integers")
    return array


def _check_csr(
    size: int, crow: npt.NDArray[np.int64], col: npt.NDArray[np.int64], shape: tuple[int, ...]
) -> None:
    """Want indices by which each listed value has a place in `shape`."""
    rows, columns = shape
    if crow.size != rows + 1:
        raise InputError("sparse_crow_indices", crow.size, f"{rows} rows take {rows + 1} indices")
    if crow[0] != 0 or crow[-1] != size or (np.diff(crow) < 0).any():
        raise InputError("sparse_crow_indices", crow, f"must rise from 0 to {size}, the number of values")
    if col.size != size:
        raise InputError("sparse_col_indices", col.size, f"{size} values take {size} indices")
    outside = (col < 0) | (col >= columns)
    if outside.any():
        index = int(outside.argmax())
        raise InputError(f"sparse_col_indices[{index}]", int(col[index]), f"there are {columns} columns")


TensorLike: TypeAlias = (
    TensorData
    | TorchTensor
    | npt.NDArray[np.generic]
    | Sequence[float]
    | Sequence[int]
    | Sequence[Sequence[float]]
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

    A `TensorData` stays, an array or a tensor of torch keeps its kind of number, and a list gets the dtype that belongs
    to the key.

    Raises:
        InputError: a ragged or non-numeric list, an unknown key for a plain list, an unfit dtype.
    """
    if isinstance(value, TensorData):
        return value
    field = f"loss_fn_inputs[{key!r}]"
    if hasattr(value, "detach"):
        value = np.asarray(_torch_array(value))
    if not isinstance(value, np.ndarray) and key not in INPUT_DTYPES:
        known = ", ".join(INPUT_DTYPES)
        raise InputError(field, value, f"a plain list needs one of the keys {known}; else pass a TensorData")
    try:
        if isinstance(value, np.ndarray):
            return TensorData.from_numpy(value)
        return TensorData(cast("npt.ArrayLike", value), INPUT_DTYPES[key])
    except InputError as error:
        place = error.field.removeprefix("data") if error.field.startswith("data") else f".{error.field}"
        raise InputError(f"{field}{place}", error.value, error.why) from error
