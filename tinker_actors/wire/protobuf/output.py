"""`ForwardBackwardOutput`, from bytes and to bytes.

The wire puts the tensors of one name together: a record holds, for a run of datums, each name's values one datum
behind the other, where each datum's begin, and the dimensions behind the first. Datums whose dtypes or further
dimensions differ, or that have other names, are in different records.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from tinker_actors.errors import InputError
from tinker_actors.wire.tensor import TensorData, TensorDtype
from tinker_actors.wire.training import ForwardBackwardOutput

from .field import (
    DOUBLE_VALUE,
    INT64,
    NAME,
    VALUE,
    Malformed,
    array,
    double,
    entries,
    integer,
    integers,
    merged,
    message_key,
    scan,
    text,
    varint_key,
)
from .message import Message, write_integer
from .tensor import ARRAY_DTYPES, dense, dtype_field, numbers, octets, shape_field, shaped

__all__ = ["read_output", "write_output"]

# ForwardBackwardOutput
_TYPE = message_key(1)
_OUTPUTS = message_key(2)
_METRICS = message_key(3)
# ArrayRecord
_TAG = message_key(1)
_FIELDS = message_key(2)
_COUNT = varint_key(3)
# BatchedTensor
_DATA = message_key(1)
_OFFSETS = message_key(2)
_DTYPE = varint_key(3)
_TRAILING = message_key(4)

_RECORD: Final = "ArrayRecord"  # what the service calls outputs that it has no other name for
_EMPTY_MAX: Final = 65_536  # datums without fields, which take no room in a message; a chunk has 1024 at most

Datum: TypeAlias = dict[str, TensorData]


# --- reading ---------------------------------------------------------------------------------------------


def read_output(data: bytes, start: int, end: int) -> ForwardBackwardOutput:
    """Read a `ForwardBackwardOutput`.

    Raises:
        Malformed: it is none.
    """
    fields = scan(data, start, end)
    kind = text(data, fields, _TYPE, ".loss_fn_output_type").rpartition(":")[2]
    metrics = {
        name: double(data, entry, DOUBLE_VALUE) for name, entry in entries(data, fields, _METRICS, ".metrics")
    }
    outputs: list[Datum] = []
    empty = 0
    for index, place in enumerate(fields.get(_OUTPUTS, ())):
        try:
            tensors, count = _read_record(data, *place)
            empty += 0 if tensors else count
            if empty > _EMPTY_MAX:
                raise Malformed(f"{empty} datums without fields, at most {_EMPTY_MAX}", ".num_datums")
        except Malformed as error:
            raise error.under(f".loss_fn_outputs[{index}]") from error
        outputs += _datums(tensors, count)
    return ForwardBackwardOutput(kind or _RECORD, tuple(outputs), metrics)


def _datums(tensors: Mapping[str, list[TensorData]], count: int) -> list[Datum]:
    if len(tensors) == 1:
        [(name, column)] = tensors.items()
        return [{name: tensor} for tensor in column]
    if not tensors:
        return [{} for _ in range(count)]
    return [dict(zip(tensors, row, strict=True)) for row in zip(*tensors.values(), strict=True)]


def _read_record(data: bytes, start: int, end: int) -> tuple[dict[str, list[TensorData]], int]:
    """Return each name's tensors, one per datum, and the number of datums."""
    fields = scan(data, start, end)
    tensors: dict[str, list[TensorData]] = {}
    for name, entry in entries(data, fields, _FIELDS, ".fields"):
        try:
            tensors[name] = _read_batch(*merged(data, entry.get(VALUE)))
        except Malformed as error:
            raise error.under(f".fields[{name!r}]") from error
    count = integer(fields, _COUNT, 64)
    if not count:  # services that do not count
        count = len(next(iter(tensors.values()), ()))
    for name, column in tensors.items():
        if len(column) != count:
            raise Malformed(f"{len(column)} datums of {count}", f".fields[{name!r}]")
    if count < 0:
        raise Malformed(f"{count} datums", ".num_datums")
    return tensors, count


def _read_batch(data: bytes, start: int, end: int) -> list[TensorData]:
    fields = scan(data, start, end)
    values, dtype, size = numbers(data, *octets(fields, _DATA), integer(fields, _DTYPE))
    try:
        offsets = array(data, *octets(fields, _OFFSETS), INT64)
        bounds = _bounds(offsets, size, values.size)
    except Malformed as error:
        raise error.under(".offsets") from error
    trailing = integers(data, fields, _TRAILING, ".trailing_shape")
    if trailing:
        return _shaped(values, dtype, bounds, tuple(trailing))
    return [dense(values[first:last], dtype) for first, last in pairwise(bounds)]


def _bounds(offsets: npt.NDArray[np.int64], size: int, count: int) -> list[int]:
    """Return where each datum's values begin, and where the last one's end."""
    if not offsets.size:
        return []
    rising = bool((offsets[1:] >= offsets[:-1]).all())
    if offsets[0] < 0 or offsets[-1] > count * size or not rising or bool((offsets % size).any()):
        raise Malformed(f"must rise within {count * size} bytes, by whole values of {size}")
    bounds: list[int] = (offsets // size).tolist()
    return bounds


def _shaped(
    values: npt.NDArray[Any], dtype: TensorDtype, bounds: Sequence[int], trailing: tuple[int, ...]
) -> list[TensorData]:
    row = abs(math.prod(trailing))
    tensors: list[TensorData] = []
    for first, last in pairwise(bounds):
        rows = (last - first) // row if row else 0
        try:
            tensors.append(dense(shaped(values[first:last], (rows, *trailing)), dtype))
        except Malformed as error:
            raise error.under(f".trailing_shape of datum {len(tensors)}") from error
    return tensors


# --- writing ---------------------------------------------------------------------------------------------


def write_output(output: ForwardBackwardOutput) -> Message:
    """Write a `ForwardBackwardOutput`.

    A tensor without dimensions arrives as one of one value: the wire gives every tensor a first dimension.

    Raises:
        InputError: a sparse tensor, or one with a first dimension that its values do not show.
    """
    message = Message()
    kind = output.loss_fn_output_type
    message.text(_TYPE, kind, "loss_fn_output_type")
    for datums in _runs(output.loss_fn_outputs):
        message.message(_OUTPUTS, _write_record(kind, datums))
    for name, value in output.metrics.items():
        entry = Message()
        entry.text(NAME, name, "metrics")
        entry.double(DOUBLE_VALUE, value, f"metrics[{name!r}]")
        message.message(_METRICS, entry)
    return message


def _runs(outputs: Sequence[Mapping[str, TensorData]]) -> Iterator[list[Mapping[str, TensorData]]]:
    """Return the datums that fit into one record, run by run."""
    numbered = list(enumerate(outputs))
    for _, run in groupby(numbered, lambda item: _frame(*item)):
        yield [datum for _, datum in run]


def _frame(index: int, datum: Mapping[str, TensorData]) -> list[tuple[str, TensorDtype, tuple[int, ...]]]:
    """Return what the datums of a record have in common."""
    return sorted([(name, tensor.dtype, tensor.shape[1:]) for name, tensor in _checked(index, datum)])


def _checked(index: int, datum: Mapping[str, TensorData]) -> Iterator[tuple[str, TensorData]]:
    for name, tensor in datum.items():
        field = f"loss_fn_outputs[{index}][{name!r}]"
        if tensor.sparse_crow_indices is not None:
            raise InputError(field, tensor, "a sparse tensor cannot be in an output")
        if 0 in tensor.shape[1:] and tensor.shape[0]:
            raise InputError(field, tensor.shape, "rows without values cannot be counted")
        yield name, tensor


def _write_record(kind: str, datums: Sequence[Mapping[str, TensorData]]) -> Message:
    record = Message()
    record.text(_TAG, kind, "loss_fn_output_type")
    for name in datums[0]:
        entry = Message()
        entry.text(NAME, name, "loss_fn_outputs")
        entry.message(VALUE, _write_batch([datum[name] for datum in datums]))
        record.message(_FIELDS, entry)
    record.integer(_COUNT, write_integer("num_datums", len(datums), 64))
    return record


def _write_batch(tensors: Sequence[TensorData]) -> Message:
    batch = Message()
    dtype = ARRAY_DTYPES[tensors[0].dtype]
    arrays = [np.ascontiguousarray(tensor.data, dtype) for tensor in tensors]
    batch.buffers(_DATA, arrays)
    offsets = np.zeros(len(arrays) + 1, INT64)
    np.cumsum([each.nbytes for each in arrays], out=offsets[1:])
    batch.array(_OFFSETS, offsets, INT64)
    batch.raw(dtype_field(_DTYPE, tensors[0].dtype) + shape_field(_TRAILING, tensors[0].shape[1:]))
    return batch
