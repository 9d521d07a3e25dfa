"""What the stub service answers: canned results in protobuf, sized from the request, and what it reads of requests.

The bytes are written by the field numbers of the API's schema, without any library, so that the stub costs little and
depends on none of the clients that are measured with it.
"""

from __future__ import annotations

import json
import struct
from array import array
from collections.abc import Iterator
from functools import lru_cache

__all__ = ["JSON", "PROTOBUF", "batch_output", "batch_shape", "json_response", "response", "sample_response"]

JSON = b"application/json"
PROTOBUF = b"application/x-protobuf"
_VOCABULARY = 151_000
_LENGTH_DELIMITED, _FIXED64, _FIXED32 = 2, 1, 5


def response(content_type: bytes, body: bytes, status: bytes = b"200 OK") -> bytes:
    """Return a whole HTTP/1.1 response."""
    head = b"HTTP/1.1 %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n" % (
        status,
        content_type,
        len(body),
    )
    return head + body


def json_response(value: object, status: bytes = b"200 OK") -> bytes:
    """Return a whole HTTP/1.1 response with a JSON body."""
    return response(JSON, json.dumps(value, separators=(",", ":")).encode(), status)


# --- writing ---------------------------------------------------------------------------------------------


def _varint(number: int) -> bytes:
    groups = bytearray()
    while number > 127:
        groups.append(number & 127 | 128)
        number >>= 7
    groups.append(number)
    return bytes(groups)


def _block(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | _LENGTH_DELIMITED) + _varint(len(content)) + content


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _tokens(count: int) -> bytes:
    return array("i", [(at * 7919 + 11) % _VOCABULARY for at in range(count)]).tobytes()


def _logprobs(count: int) -> bytes:
    return array("f", [-0.001 * (at % 997) - 0.0123 for at in range(count)]).tobytes()


@lru_cache(maxsize=256)
def sample_response(num_samples: int, max_tokens: int) -> bytes:
    """Return the response that holds `num_samples` sequences of `max_tokens` tokens with log probabilities."""
    sequence = _number(1, 1) + _block(2, _tokens(max_tokens)) + _block(3, _logprobs(max_tokens))
    return response(PROTOBUF, _block(1, sequence) * num_samples)


@lru_cache(maxsize=64)
def batch_output(datums: int, length: int) -> bytes:
    """Return the response that holds `logprobs` of `length` for each datum, and one metric."""
    row = _logprobs(length)
    offsets = array("q", range(0, len(row) * (datums + 1), len(row) or 1)).tobytes()
    tensor = _block(1, row * datums) + _block(2, offsets) + _number(3, 1)
    record = (
        _block(1, b"ArrayRecord") + _block(2, _block(1, b"logprobs") + _block(2, tensor)) + _number(3, datums)
    )
    metric = _block(1, b"loss:sum") + b"\x11" + struct.pack("<d", 1.25)
    return response(PROTOBUF, _block(1, b"ArrayRecord") + _block(2, record) + _block(3, metric))


# --- reading ---------------------------------------------------------------------------------------------


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield number, begin and end of each field between `at` and `end`; of a number its value stands for begin."""
    while at < end:
        tag, at = _read_varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = _read_varint(data, at)
            yield tag >> 3, value, at
            continue
        if kind == _LENGTH_DELIMITED:
            size, at = _read_varint(data, at)
        else:
            size = {_FIXED64: 8, _FIXED32: 4}[kind]
        yield tag >> 3, at, at + size
        at += size


def _text_length(data: bytes, begin: int, end: int) -> int:
    """Return the number of tokens in the text chunks of a datum."""
    tokens = 0
    for number, chunk_begin, chunk_end in _fields(data, begin, end):
        if number == 1:
            for _, text_begin, text_end in _fields(data, chunk_begin, chunk_end):
                tokens += sum(stop - start for _, start, stop in _fields(data, text_begin, text_end)) // 4
    return tokens


def batch_shape(body: bytes) -> tuple[str, int, int, int]:
    """Return model id, number, datums and length of the first datum of a forward_backward body in protobuf."""
    model_id, seq_id, datums, length = "", 0, 0, 0
    for number, begin, end in _fields(body, 0, len(body)):
        if number == 1:
            model_id = body[begin:end].decode()
        elif number == 2:
            seq_id = begin
        elif number == 3:
            datums += 1
            length = length or _text_length(body, begin, end)
    return model_id, seq_id, datums, length
