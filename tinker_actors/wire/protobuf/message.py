"""The fields of protobuf messages, written: buffers are collected, arrays among them as they are, and joined once."""

from __future__ import annotations

import numbers
import struct
from collections.abc import Iterable
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from tinker_actors.errors import InputError

__all__ = ["Message", "utf8", "varint", "write_integer"]


def varint(value: int) -> bytes:
    """Write an integer; negative ones as protobuf does it, in 64 bits."""
    if 0 <= value < 128:
        return _ONE_BYTE[value]
    if 0 < value < 128 * 128:
        return bytes((value & 127 | 128, value >> 7))
    if 0 < value < 128 * 128 * 128:
        return bytes((value & 127 | 128, value >> 7 & 127 | 128, value >> 14))
    value &= 0xFFFF_FFFF_FFFF_FFFF
    written = bytearray()
    while value > 127:
        written.append(value & 127 | 128)
        value >>= 7
    written.append(value)
    return bytes(written)


_ONE_BYTE = tuple(bytes([value]) for value in range(128))


def write_integer(field: str, value: int, bits: int = 32) -> bytes:
    """Write a signed integer.

    Raises:
        InputError: it is none, or has more bits.
    """
    given: object = value  # it may be anything
    if not isinstance(given, numbers.Integral) or not -(1 << (bits - 1)) <= value < 1 << (bits - 1):
        raise InputError(field, value, f"must be an integer of {bits} bits")
    return varint(int(value))


def utf8(field: str, value: str) -> bytes:
    """Write a string.

    Raises:
        InputError: it is none, or holds half of a surrogate pair.
    """
    try:
        return value.encode()
    except (AttributeError, UnicodeEncodeError) as error:
        raise InputError(field, value, "must be a string of Unicode characters") from error


class Message:
    """Collects what a message consists of; fields are named by their keys, which have one byte each.

    Attributes:
        parts: buffers, in order.
        size: bytes in all of them.
    """

    __slots__ = ("parts", "size")

    def __init__(self) -> None:
        self.parts: list[bytes | npt.NDArray[Any]] = []  # arrays of any dtype are buffers
        self.size = 0

    def raw(self, part: bytes) -> None:
        """Add fields that are written already."""
        self.parts.append(part)
        self.size += len(part)

    def text(self, key: int, value: str, field: str) -> None:
        """Add a string, whose field is called so in errors; an empty one is what readers assume, and is left out."""
        written = utf8(field, value)
        if written:
            self.octets(key, written)

    def octets(self, key: int, value: bytes) -> None:
        """Add bytes, be they empty."""
        self.raw(_ONE_BYTE[key] + varint(len(value)) + value)

    def integer(self, key: int, value: bytes) -> None:
        """Add a written integer; 0 is left out."""
        if value != b"\0":
            self.raw(_ONE_BYTE[key] + value)

    def double(self, key: int, value: float, field: str) -> None:
        """Add a double, be it 0, whose field is called so in errors."""
        try:
            written = struct.pack("<d", value)
        except (struct.error, OverflowError) as error:
            raise InputError(field, value, "must be a number within float64") from error
        self.raw(_ONE_BYTE[key] + written)

    def array(self, key: int, values: npt.NDArray[Any], dtype: np.dtype[Any]) -> None:
        """Add the values of an array as bytes, without copying them if they are of this dtype."""
        self.buffers(key, (np.ascontiguousarray(values, dtype),))

    def buffers(self, key: int, arrays: Iterable[npt.NDArray[Any]]) -> None:
        """Add contiguous arrays, one behind the other, as one field of bytes."""
        several = list(arrays)
        size = sum([each.nbytes for each in several])
        self.raw(_ONE_BYTE[key] + varint(size))
        self.parts += several
        self.size += size

    def message(self, key: int, inner: Message) -> None:
        """Add a submessage, be it empty."""
        self.raw(_ONE_BYTE[key] + varint(inner.size))
        self.parts += inner.parts
        self.size += inner.size

    def join(self) -> bytes:
        """Return the message's bytes."""
        return b"".join(cast("list[bytes]", self.parts))  # arrays are joined as the buffers that they are
