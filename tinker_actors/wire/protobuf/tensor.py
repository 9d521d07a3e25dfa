"""Tensors and matrices of likeliest tokens, between protobuf and the wire types."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tinker_actors.errors import InputError
from tinker_actors.wire.likeliest import TopkLogprobs
from tinker_actors.wire.tensor import TensorData, TensorDtype

from .field import (
    FLOAT32,
    INT32,
    INT64,
    Fields,
    Malformed,
    array,
    integer,
    integers,
    merged,
    message_key,
    oneof,
    scan,
    varint_key,
    within,
)
from .message import Message, varint

__all__ = [
    "ARRAY_DTYPES",
    "dense",
    "dtype_field",
    "numbers",
    "octets",
    "read_tensor",
    "read_topk",
    "shape_field",
    "shaped",
    "write_tensor",
    "write_topk",
]

_CODES: Final[Mapping[TensorDtype, int]] = {"float32": 1, "int64": 2}
ARRAY_DTYPES: Final[Mapping[TensorDtype, np.dtype[Any]]] = {"float32": FLOAT32, "int64": INT64}
_UINT16 = np.dtype("<u2")
_DTYPES: Mapping[int, tuple[TensorDtype, np.dtype[Any]]] = {
    1: ("float32", FLOAT32),
    2: ("int64", INT64),
    3: ("int64", INT32),
    4: ("float32", _UINT16),  # bfloat16: the upper half of a float32
}

# Tensor
_DENSE = message_key(1)
_SPARSE = message_key(2)
_DTYPE = varint_key(3)
_SHAPE = message_key(4)
# SparseCsr
_VALUES = message_key(1)
_CROW = message_key(2)
_COL = message_key(3)
# TopkLogprobs
_TOKEN_IDS = message_key(1)
_LOGPROBS = message_key(2)
_K = varint_key(3)
_LENGTH = varint_key(4)


# Attributes of a frozen class, set without its constructor's checks, which cost more than all the rest.
_set_data, _set_dtype, _set_shape, _set_crow, _set_col = (
    vars(TensorData)[name].__set__
    for name in ("data", "dtype", "shape", "sparse_crow_indices", "sparse_col_indices")
)
_new = TensorData.__new__


def dense(values: npt.NDArray[Any], dtype: TensorDtype) -> TensorData:
    """Return a tensor of an array that is already what a tensor promises: of the dtype, read-only, contiguous."""
    tensor = _new(TensorData)
    _set_data(tensor, values)
    _set_dtype(tensor, dtype)
    _set_shape(tensor, values.shape)
    _set_crow(tensor, None)
    _set_col(tensor, None)
    return tensor


# --- reading ---------------------------------------------------------------------------------------------


def numbers(data: bytes, start: int, end: int, code: int) -> tuple[npt.NDArray[Any], TensorDtype, int]:
    """Return bytes as an array of one of the two dtypes, that dtype, and the size of a value on the wire.

    Raises:
        Malformed: an unknown dtype, or a part of a value too many.
    """
    known = _DTYPES.get(code)
    if known is None:
        raise Malformed(f"unknown dtype {code}", ".dtype")
    dtype, written = known
    values = array(data, start, end, written)
    if written is INT32:
        values = values.astype(INT64)
    elif written is _UINT16:
        values = (values.astype("<u4") << 16).view(FLOAT32)
    values.setflags(write=False)
    return values, dtype, written.itemsize


def read_tensor(data: bytes, start: int, end: int) -> TensorData:
    """Read a `Tensor`.

    Raises:
        Malformed: values, indices and shape that do not make a tensor.
    """
    fields = scan(data, start, end)
    code = integer(fields, _DTYPE)
    shape = tuple(integers(data, fields, _SHAPE, ".shape"))
    member, places = oneof(fields, _DENSE, _SPARSE) or (_DENSE, [(start, start)])
    if member == _SPARSE:
        return _read_sparse(merged(data, places), code, shape)
    values, dtype, _ = numbers(data, *places[-1], code)
    if not shape and values.size != 1:
        shape = values.shape  # it was not said
    if shape == values.shape:
        return dense(values, dtype)
    try:
        return dense(shaped(values, shape), dtype)
    except Malformed as error:
        raise error.under(".shape") from error


def shaped(values: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return the same values with these dimensions.

    Raises:
        Malformed: these dimensions hold more or less, or numpy cannot have them.
    """
    if min(shape, default=0) < 0 or math.prod(shape) != values.size:
        raise Malformed(f"{list(shape)} does not hold {values.size} values")
    try:
        return values.reshape(shape)
    except ValueError as error:  # more dimensions than numpy knows, or longer ones
        raise Malformed(str(error)) from error


def _read_sparse(place: tuple[bytes, int, int], code: int, shape: tuple[int, ...]) -> TensorData:
    data, start, end = place
    fields = scan(data, start, end)
    values, dtype, _ = numbers(data, *octets(fields, _VALUES), code)
    crow, col = (array(data, *octets(fields, number), INT64) for number in (_CROW, _COL))
    try:
        return TensorData(values, dtype, shape, crow, col)
    except InputError as error:
        raise within("", error) from error


def octets(fields: Fields, key: int) -> tuple[int, int]:
    """Return where a field's bytes lie; an empty place if it is not there."""
    places = fields.get(key)
    return (0, 0) if places is None else places[-1]


def read_topk(data: bytes, start: int, end: int) -> TopkLogprobs | None:
    """Read a `TopkLogprobs`; one without cells is None.

    Raises:
        Malformed: bytes that are not as many cells as it says.
    """
    fields = scan(data, start, end)
    shape = integer(fields, _LENGTH), integer(fields, _K)
    if 0 in shape:
        return None
    ids = array(data, *octets(fields, _TOKEN_IDS), INT32)
    logprobs = array(data, *octets(fields, _LOGPROBS), FLOAT32)
    if min(shape) < 0 or not shape[0] * shape[1] == ids.size == logprobs.size:
        raise Malformed(
            f"{shape[0]} x {shape[1]} is not {ids.size} token ids and {logprobs.size} log probabilities"
        )
    return TopkLogprobs(ids.reshape(shape), logprobs.reshape(shape))


# --- writing ---------------------------------------------------------------------------------------------


def shape_field(key: int, shape: Sequence[int]) -> bytes:
    """Write dimensions as a packed list; of none there is nothing to write."""
    if not shape:
        return b""
    packed = b"".join(map(varint, shape))
    return varint(key) + varint(len(packed)) + packed


def dtype_field(key: int, dtype: TensorDtype) -> bytes:
    """Write a dtype."""
    return bytes((key, _CODES[dtype]))


def write_tensor(tensor: TensorData) -> Message:
    """Write a `Tensor`."""
    message = Message()
    dtype = ARRAY_DTYPES[tensor.dtype]
    if tensor.sparse_crow_indices is None or tensor.sparse_col_indices is None:
        message.array(_DENSE, tensor.data, dtype)
    else:
        sparse = Message()
        sparse.array(_VALUES, tensor.data, dtype)
        sparse.array(_CROW, tensor.sparse_crow_indices, INT64)
        sparse.array(_COL, tensor.sparse_col_indices, INT64)
        message.message(_SPARSE, sparse)
    message.raw(dtype_field(_DTYPE, tensor.dtype) + shape_field(_SHAPE, tensor.shape))
    return message


def write_topk(topk: TopkLogprobs) -> Message:
    """Write a `TopkLogprobs`."""
    message = Message()
    length, k = topk.token_ids.shape
    message.array(_TOKEN_IDS, topk.token_ids, INT32)
    message.array(_LOGPROBS, topk.logprobs, FLOAT32)
    message.integer(_K, varint(k))
    message.integer(_LENGTH, varint(length))
    return message
