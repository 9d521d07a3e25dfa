"""The fields of protobuf messages, found in bytes.

Theory of operation. `scan` walks over one message once and notes where each field lies; nothing is copied, and
nothing is read beyond the message's end, whatever its lengths claim. What is noted is a pair of integers: first and
end position of a string, a submessage or a fixed-size number; value and position of a varint. A field of another wire
type than the one that is asked for has another key, and so it is skipped like any unknown field, as protobuf does it.

What protobuf says of repetitions is kept: of a single value the last one counts, submessages are merged (which is to
read their bytes one after the other), and of the members of a oneof only the one that comes last.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from tinker_actors.errors import InputError

__all__ = [
    "DOUBLE_VALUE",
    "FLOAT32",
    "INT32",
    "INT64",
    "NAME",
    "VALUE",
    "Fields",
    "Malformed",
    "Place",
    "array",
    "double",
    "each",
    "entries",
    "fixed_key",
    "integer",
    "integers",
    "merged",
    "message_key",
    "oneof",
    "scan",
    "text",
    "varint_key",
    "within",
]

T = TypeVar("T")
Fields: TypeAlias = dict[int, list[tuple[int, int]]]
"""By key: where the values lie, in the order they came in."""
Place: TypeAlias = tuple[bytes, int, int]
"""A message: the bytes it is in, its first and its end position."""

INT32: Final[np.dtype[np.int32]] = np.dtype("<i4")
INT64: Final[np.dtype[np.int64]] = np.dtype("<i8")
FLOAT32: Final[np.dtype[np.float32]] = np.dtype("<f4")

_VARINT, _FIXED64, _DELIMITED, _FIXED32 = (
    0,
    1,
    2,
    5,
)  # wire types; 3 and 4 are groups, which proto3 does not have
_KEY_MAX = 2**32 - 1
_VARINT_BYTES = 10  # 64 bits, seven to the byte
_SMALL = 4096  # bytes of an array that is rather copied than asked where it lies


class Malformed(Exception):
    """Bytes that are not the message they should be.

    Attributes:
        why: what is wrong.
        path: where, from the outermost message.
    """

    def __init__(self, why: str, path: str = "") -> None:
        super().__init__(why)
        self.why = why
        self.path = path

    def under(self, step: str) -> Malformed:
        """Return the same one level further out."""
        return Malformed(self.why, step + self.path)


def message_key(number: int) -> int:
    """Return the key of a string, bytes, submessage or packed list."""
    return number << 3 | _DELIMITED


def varint_key(number: int) -> int:
    """Return the key of an integer, a truth value or an enum."""
    return number << 3 | _VARINT


def fixed_key(number: int) -> int:
    """Return the key of a double."""
    return number << 3 | _FIXED64


# An entry of a map
NAME: Final = message_key(1)
VALUE: Final = message_key(2)
DOUBLE_VALUE: Final = fixed_key(2)


def scan(data: bytes, start: int, end: int) -> Fields:
    """Note where the fields of a message lie.

    Raises:
        Malformed: a field reaches beyond the end, a group, a number that no field can have.
    """
    found: Fields = {}
    while start < end:
        tag = data[start]
        if tag < 128:
            start += 1
        else:
            tag, start = _read_varint(data, start, end)
        wire = tag & 7
        if wire == _DELIMITED:
            size, start = _read_size(data, start, end)
            value = (start, start + size)
            start += size
        elif wire == _VARINT:
            number, after = _read_varint(data, start, end)
            value = (number, start)
            start = after
        else:
            value = (start, start + _fixed_size(wire))
            start = value[1]
        if start > end:
            raise Malformed(f"truncated: field {tag >> 3} ends {start - end} bytes beyond the message")
        if tag in found:
            found[tag].append(value)
        elif 8 <= tag <= _KEY_MAX:
            found[tag] = [value]
        else:
            raise Malformed(f"{tag >> 3} is no field number")
    return found


def _read_size(data: bytes, start: int, end: int) -> tuple[int, int]:
    """Return a length and the position behind it; most have one byte or two."""
    if start + 1 < end:
        size = data[start]
        if size < 128:
            return size, start + 1
        more = data[start + 1]
        if more < 128:
            return size & 127 | more << 7, start + 2
    return _read_varint(data, start, end)


def _fixed_size(wire: int) -> int:
    if wire == _FIXED64:
        return 8
    if wire == _FIXED32:
        return 4
    raise Malformed("groups are not supported" if wire in (3, 4) else f"{wire} is no wire type")


def _read_varint(data: bytes, start: int, end: int) -> tuple[int, int]:
    """Return an integer of up to 64 bits and the position behind it."""
    value = shift = 0
    for at in range(start, min(start + _VARINT_BYTES, end)):
        byte = data[at]
        if byte < 128:
            return (value | byte << shift) & 0xFFFF_FFFF_FFFF_FFFF, at + 1
        value |= (byte & 127) << shift
        shift += 7
    raise Malformed(
        "truncated: a varint has no end" if end - start < _VARINT_BYTES else "a varint is too long"
    )


def text(data: bytes, fields: Fields, key: int, step: str) -> str:
    """Return a string; "" if there is none.

    Args:
        data: the bytes it lies in.
        fields: those of the message.
        key: the field's.
        step: the field's name as a part of a path.

    Raises:
        Malformed: not UTF-8.
    """
    places = fields.get(key)
    if places is None:
        return ""
    start, end = places[-1]
    try:
        return str(data[start:end], "utf-8")
    except UnicodeDecodeError as error:
        raise Malformed(f"not UTF-8: {error.reason}", step) from error


def integer(fields: Fields, key: int, bits: int = 32) -> int:
    """Return a signed integer of 32 or 64 bits; 0 if there is none. Higher bits are dropped, as protobuf does it."""
    values = fields.get(key)
    return 0 if values is None else _signed(values[-1][0], bits)


def _signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def double(data: bytes, fields: Fields, key: int) -> float:
    """Return a double; 0.0 if there is none."""
    places = fields.get(key)
    if places is None:
        return 0.0
    (value,) = struct.unpack_from("<d", data, places[-1][0])
    return float(value)


def integers(data: bytes, fields: Fields, key: int, step: str) -> list[int]:
    """Return a list of 64-bit integers, be they packed (the key is of this form), single, or some of both.

    Raises:
        Malformed: a packed list that ends within a number.
    """
    singles = fields.get(key - _DELIMITED + _VARINT, [])
    packed = fields.get(key, [])
    runs = [(at, [value]) for value, at in singles]
    try:
        runs += [(start, _unpacked(data, start, end)) for start, end in packed]
    except Malformed as error:
        raise error.under(step) from error
    if len(runs) > 1:
        runs.sort()
    return [_signed(value, 64) for _, run in runs for value in run]


def _unpacked(data: bytes, start: int, end: int) -> list[int]:
    values: list[int] = []
    while start < end:
        value, start = _read_varint(data, start, end)
        values.append(value)
    return values


def within(step: str, error: Exception) -> Malformed:
    """Return what went wrong, one level further out: bytes that do not fit, or values that a class refused."""
    if isinstance(error, Malformed):
        return error.under(step)
    return Malformed(str(error), step)


def each(data: bytes, fields: Fields, key: int, step: str, read: Callable[[bytes, int, int], T]) -> list[T]:
    """Read a list of submessages.

    Raises:
        Malformed: one of them is none, or its class refuses its values.
    """
    items: list[T] = []
    for place in fields.get(key, ()):
        try:
            items.append(read(data, *place))
        except (Malformed, InputError) as error:
            raise within(f"{step}[{len(items)}]", error) from error
    return items


def entries(data: bytes, fields: Fields, key: int, step: str) -> list[tuple[str, Fields]]:
    """Read a map: for each entry its name and its fields.

    Raises:
        Malformed: an entry is none.
    """

    def entry(data: bytes, start: int, end: int) -> tuple[str, Fields]:
        fields = scan(data, start, end)
        return text(data, fields, NAME, ".key"), fields

    return each(data, fields, key, step, entry)


def merged(data: bytes, places: Sequence[tuple[int, int]] | None) -> Place:
    """Return the one message that several occurrences of a single submessage make; an empty one if there are none."""
    if places is None:
        return data, 0, 0
    if len(places) == 1:
        return data, *places[0]
    whole = b"".join([data[start:end] for start, end in places])
    return whole, 0, len(whole)


def oneof(fields: Fields, *keys: int) -> tuple[int, list[tuple[int, int]]] | None:
    """Return the key of the member that is set and its occurrences; None if no member is there."""
    found = [(place, member) for member in keys for place in fields.get(member, ())]
    if not found:
        return None
    found.sort()
    last = found[-1][1]
    places: list[tuple[int, int]] = []
    for place, member in found:
        if member == last:
            places.append(place)
        else:
            places.clear()
    return last, places


def array(
    data: bytes, start: int, end: int, dtype: np.dtype[Any]
) -> npt.NDArray[Any]:  # of whatever is asked for
    """Return bytes as a flat, read-only, aligned array: a view of the message where that can be.

    Raises:
        Malformed: there is a part of a value too many.
    """
    size = end - start
    if size > _SMALL and not size % dtype.itemsize:
        view = np.frombuffer(data, dtype, size // dtype.itemsize, start)
        if view.flags.aligned:
            return view
    try:
        return np.frombuffer(data[start:end], dtype)
    except ValueError as error:
        raise Malformed(f"{size} bytes do not hold whole values of {dtype.itemsize}") from error
