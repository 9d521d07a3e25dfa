"""The protobuf codec, for the few messages that have this form.

Written by hand: what a batch holds is arrays, and they go from memory into the body, and from the body into memory,
as they are. `tests/wire/protobuf` holds the official package against it, over the same `.proto`.

Theory of operation. `field` and `message` know protobuf's encoding; `tensor`, `request`, `output` and `sample` know
our messages and are pairs of functions, one for each direction. Reading copies arrays only where they are small or
not aligned; all others are views, which keep the message's bytes alive. What is read cannot be written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from tinker_actors.errors import DecodeError, InputError
from tinker_actors.wire.sampling import SampleResponse
from tinker_actors.wire.training import ForwardBackwardOutput, ForwardBackwardRequest, ForwardRequest

from .field import Malformed
from .message import Message
from .output import read_output, write_output
from .request import TrainingRequest, read_request, write_request
from .sample import read_sample, write_sample

__all__ = ["MESSAGES", "decode", "decode_training", "encode"]

_T = TypeVar("_T")

_CODECS: Mapping[type, tuple[Callable[[Any], Message], Callable[[bytes, int, int], object]]] = {
    ForwardBackwardRequest: (write_request, read_request),
    ForwardRequest: (write_request, read_request),
    ForwardBackwardOutput: (write_output, read_output),
    SampleResponse: (write_sample, read_sample),
}

MESSAGES: Final = frozenset(_CODECS)
"""The classes that can be written and read."""


def encode(value: object) -> bytes:
    """Write a wire object as protobuf.

    Raises:
        InputError: it has no such form, or something in it has none; `field` says what.
    """
    codec = _CODECS.get(type(value))
    if codec is None:
        raise InputError("value", value, f"{type(value).__name__} has no protobuf form")
    return codec[0](value).join()


def decode(kind: type[_T], data: bytes | bytearray | memoryview) -> _T:
    """Read a wire object from protobuf.

    Args:
        kind: the wire class expected.
        data: the bytes; if they are not `bytes`, they are copied first.

    Raises:
        DecodeError: bytes that are not that class, or a class without this form.
    """
    codec = _CODECS.get(kind)
    if codec is None:
        raise DecodeError(kind.__name__, ["it has no protobuf form"])
    value = _read(kind.__name__, codec[1], data)
    if not isinstance(value, kind):
        raise DecodeError(kind.__name__, [f"it is a {type(value).__name__} @ $.forward_only"])
    return value


def decode_training(data: bytes | bytearray | memoryview) -> TrainingRequest:
    """Read a training request; its flag `forward_only` says of which class it is.

    Raises:
        DecodeError: bytes that are none.
    """
    return _read("training request", read_request, data)


def _read(what: str, read: Callable[[bytes, int, int], _T], data: bytes | bytearray | memoryview) -> _T:
    held = data if isinstance(data, bytes) else bytes(data)
    try:
        return read(held, 0, len(held))
    except Malformed as error:
        raise DecodeError(what, [f"{error.why} @ ${error.path}"]) from error
