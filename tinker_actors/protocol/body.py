"""A batch as bytes that are kept: what is read back is the batch, and gives the same requests to the last bit. Pure.

Theory of operation. Neither form of the wire does: JSON has one kind of missing number, and protobuf no pointers to
images. Here a header of JSON says what there is, in order, and behind it stand the arrays and the files as they lie
in memory, little-endian, each from a multiple of eight bytes on. Reading copies nothing but files: arrays are
views that keep the bytes alive.

    4 bytes   b"tab1"
    4 bytes   length of the header, unsigned, little-endian
              header, then zeros up to the next multiple of eight
              the values, each followed by zeros up to the next multiple of eight

The header is a list with an entry for each datum: its chunks, its tensors, and, if it has them, the spans of the
model's input and of the loss's.

    chunk     ["t", tokens] · ["i", bytes, format, expected] · ["p", format, location, expected] · ["d", bytes]
    tensor    [name, dtype, shape], of a sparse one [name, dtype, shape, values]: values, row and column indices follow
    span      ["p" or "s", sequence id, offset, length]
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias, assert_never

import numpy as np
import numpy.typing as npt
import orjson

from tinker_actors.errors import DecodeError, InputError
from tinker_actors.wire.chunk import (
    DmelChunk,
    EncodedTextChunk,
    ImageAssetPointerChunk,
    ImageChunk,
    ModelInputChunk,
)
from tinker_actors.wire.input import Datum, ModelInput
from tinker_actors.wire.provenance import PromptProvenanceSpan, ProvenanceSpan, SampledProvenanceSpan
from tinker_actors.wire.tensor import TensorData

__all__ = ["batch_parts", "decode_batch", "encode_batch"]

_Entry: TypeAlias = list[Any]  # what JSON gives, read with care
_Array: TypeAlias = npt.NDArray[Any]

_MAGIC: Final = b"tab1"
_START: Final = len(_MAGIC) + 4
_ALIGN: Final = 8
_INT32: Final = np.dtype("<i4")
_INT64: Final = np.dtype("<i8")
_DTYPES: Final[Mapping[str, np.dtype[Any]]] = {"int64": _INT64, "float32": np.dtype("<f4")}
_SPANS: Final[Mapping[str, type[ProvenanceSpan]]] = {"s": SampledProvenanceSpan, "p": PromptProvenanceSpan}


def batch_parts(data: Sequence[Datum]) -> list[bytes | memoryview]:
    """Return a batch's bytes in pieces, most of them views of the batch's own arrays: one after the other they are it.

    Raises:
        InputError: a text in it has no form in UTF-8, or a number more than 64 bits; neither can be sent.
    """
    parts: list[bytes | memoryview] = []
    entries = [_write_datum(datum, parts) for datum in data]
    try:
        header = orjson.dumps(entries, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError as error:  # of its own kind, below this one
        raise InputError("data", f"<{len(entries)} examples>", f"cannot be written: {error}") from error
    head = b"".join((_MAGIC, len(header).to_bytes(4, "little"), header))
    return [head, bytes(-len(head) % _ALIGN), *parts]


def encode_batch(data: Sequence[Datum]) -> bytes:
    """Write a batch.

    Raises:
        InputError: see `batch_parts`.
    """
    return b"".join(batch_parts(data))


def decode_batch(body: bytes) -> tuple[Datum, ...]:
    """Read a batch.

    Raises:
        DecodeError: bytes that are none.
    """
    try:
        return _read(body)
    except (InputError, LookupError, TypeError, ValueError) as error:
        raise DecodeError("batch", [f"{type(error).__name__}: {error}"]) from error


# --- writing ---------------------------------------------------------------------------------------------


def _write_datum(datum: Datum, parts: list[bytes | memoryview]) -> _Entry:
    chunks = [_write_chunk(chunk, parts) for chunk in datum.model_input.chunks]
    tensors = [_write_tensor(name, tensor, parts) for name, tensor in datum.loss_fn_inputs.items()]
    of_input, of_loss = datum.model_input_spans, datum.loss_fn_input_spans
    if of_input is None or of_loss is None:  # both or none
        return [chunks, tensors]
    return [chunks, tensors, list(map(_write_span, of_input)), list(map(_write_span, of_loss))]


def _write_chunk(chunk: ModelInputChunk, parts: list[bytes | memoryview]) -> _Entry:
    match chunk:
        case EncodedTextChunk():
            _add(parts, _raw(chunk.tokens_np, _INT32))
            return ["t", chunk.tokens_np.size]
        case ImageChunk():
            _add(parts, chunk.data)
            return ["i", len(chunk.data), chunk.format, chunk.expected_tokens]
        case ImageAssetPointerChunk():
            return ["p", chunk.format, chunk.location, chunk.expected_tokens]
        case DmelChunk():
            _add(parts, chunk.dmel)
            return ["d", len(chunk.dmel)]
        case _:
            assert_never(chunk)


def _write_tensor(name: str, tensor: TensorData, parts: list[bytes | memoryview]) -> _Entry:
    _add(parts, _raw(tensor.data, _DTYPES[tensor.dtype]))
    if tensor.sparse_crow_indices is None or tensor.sparse_col_indices is None:
        return [name, tensor.dtype, tensor.shape]
    _add(parts, _raw(tensor.sparse_crow_indices, _INT64))
    _add(parts, _raw(tensor.sparse_col_indices, _INT64))
    return [name, tensor.dtype, tensor.shape, tensor.data.size]


def _write_span(span: ProvenanceSpan) -> _Entry:
    kind = "s" if isinstance(span, SampledProvenanceSpan) else "p"
    return [kind, span.sequence_id, span.offset, span.length]


def _raw(array: _Array, dtype: np.dtype[Any]) -> memoryview:
    return np.ascontiguousarray(array, dtype).reshape(-1).view(np.uint8).data


def _add(parts: list[bytes | memoryview], values: bytes | memoryview) -> None:
    parts.append(values)
    padding = -len(values) % _ALIGN
    if padding:
        parts.append(bytes(padding))


# --- reading ---------------------------------------------------------------------------------------------


class _Values:
    """The values behind a header, taken one after the other."""

    def __init__(self, body: bytes, start: int) -> None:
        self._body = body
        self._at = start

    def _take(self, size: int) -> int:
        start, end = self._at, self._at + size
        if size < 0 or end > len(self._body):
            raise ValueError(f"{size} bytes at {start} of {len(self._body)}")
        self._at = end + -end % _ALIGN
        return start

    def array(self, dtype: np.dtype[Any], count: int) -> _Array:
        start = self._take(count * dtype.itemsize)
        return np.frombuffer(self._body, dtype, count, start)

    def octets(self, size: int) -> bytes:
        start = self._take(size)
        return self._body[start : start + size]

    @property
    def is_empty(self) -> bool:
        return self._at == len(self._body)


def _read(body: bytes) -> tuple[Datum, ...]:
    if body[: len(_MAGIC)] != _MAGIC or len(body) < _START:
        raise ValueError("it does not begin like one")
    end = _START + int.from_bytes(body[len(_MAGIC) : _START], "little")
    entries = orjson.loads(body[_START:end])
    values = _Values(body, end + -end % _ALIGN)
    batch = tuple([_read_datum(entry, values) for entry in entries])
    if not values.is_empty:
        raise ValueError("it goes on where it should end")
    return batch


def _read_datum(entry: _Entry, values: _Values) -> Datum:
    chunks, tensors, *spans = entry
    model_input = ModelInput([_read_chunk(chunk, values) for chunk in chunks])
    inputs = {tensor[0]: _read_tensor(tensor, values) for tensor in tensors}
    if not spans:
        return Datum(model_input, inputs)
    of_input, of_loss = spans
    return Datum(model_input, inputs, list(map(_read_span, of_input)), list(map(_read_span, of_loss)))


def _read_chunk(entry: _Entry, values: _Values) -> ModelInputChunk:
    match entry:
        case ["t", int(count)]:
            return EncodedTextChunk(values.array(_INT32, count))
        case ["i", int(size), form, expected]:
            return ImageChunk(values.octets(size), form, expected)
        case ["p", form, location, expected]:
            return ImageAssetPointerChunk(form, location, expected)
        case ["d", int(size)]:
            return DmelChunk(values.octets(size))
        case _:
            raise ValueError(f"no chunk: {entry!r}")


def _read_tensor(entry: _Entry, values: _Values) -> TensorData:
    _, name, shape, *listed = entry
    dtype = _DTYPES[name]
    if not listed:
        return TensorData(values.array(dtype, math.prod(shape)), name, shape)
    (count,) = listed
    data = values.array(dtype, count)
    crow = values.array(_INT64, shape[0] + 1)
    return TensorData(data, name, shape, crow, values.array(_INT64, count))


def _read_span(entry: _Entry) -> ProvenanceSpan:
    kind, sequence_id, offset, length = entry
    return _SPANS[kind](sequence_id=sequence_id, offset=offset, length=length)
