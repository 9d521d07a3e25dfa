"""What is said about the fields of wire types: how they are written, and what may stand in them.

What the codec is told, as metadata of attrs (`attrs.field(metadata=...)`):

    since("0.30.4")     the official client has it from that version on. It is left out while it has its default,
                        unless the service is known to want newer fields: strict ones refuse what they do not know.
    null()              None is written as null, where it is left out of all other fields.
    named("tokens")     its name in JSON, if it is not that of the attribute.
    needed()            it has a default here and must be there in JSON.
"""

import numbers
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias

import attrs
import numpy as np
import numpy.typing as npt

from tinker_actors.errors import InputError

__all__ = [
    "ARRAY",
    "Timestamp",
    "choice",
    "count",
    "filled",
    "named",
    "needed",
    "null",
    "octets",
    "since",
    "text",
    "timestamp",
]

Timestamp: TypeAlias = datetime | str
"""An aware time; the text as it came, if it is none."""

Metadata: TypeAlias = Mapping[str, str | bool]
_Attribute: TypeAlias = "attrs.Attribute[Any]"  # validators are for fields of every kind


def since(version: str) -> Metadata:
    """Say which version of the official client brought a field."""
    return {"since": version}


def null() -> Metadata:
    """Say that None is written as null."""
    return {"null": True}


def named(wire: str) -> Metadata:
    """Say what a field is called in JSON."""
    return {"named": wire}


def needed() -> Metadata:
    """Say that a field with a default must nevertheless be there in JSON."""
    return {"needed": True}


# --- checks ----------------------------------------------------------------------------------------------


def text(_: object, attribute: _Attribute, value: object) -> None:
    """Want a string."""
    if not isinstance(value, str):
        raise InputError(attribute.name, value, "must be a string")


def filled(_: object, attribute: _Attribute, value: object) -> None:
    """Want a string that is not empty."""
    if not isinstance(value, str) or not value:
        raise InputError(attribute.name, value, "must be a string that is not empty")


def count(_: object, attribute: _Attribute, value: object) -> None:
    """Want an integer that is not negative."""
    if type(value) is int and value >= 0:
        return  # nearly always, and abstract classes take their time
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 0:
        raise InputError(attribute.name, value, "must be an integer that is not negative")


@attrs.frozen
class choice:  # noqa: N801 - it is called like the functions beside it
    """Want one of some strings."""

    words: tuple[str, ...]

    def __call__(self, _: object, attribute: _Attribute, value: object) -> None:
        """Want one of the strings."""
        if not isinstance(value, str) or value not in self.words:
            raise InputError(attribute.name, value, f"must be one of {', '.join(map(repr, self.words))}")


def octets(field: str, value: object) -> bytes:
    """Return bytes of one's own.

    Raises:
        InputError: neither bytes nor what holds some.
    """
    if not isinstance(value, bytes | bytearray | memoryview):
        raise InputError(field, value, "must be bytes")
    return bytes(value)


def timestamp(value: Timestamp) -> Timestamp:
    """Return the time that a text says, aware of its zone (without one it is UTC); any other text as it is."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return value
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)


# --- equality --------------------------------------------------------------------------------------------


def _same_arrays(one: npt.NDArray[np.generic] | None, other: npt.NDArray[np.generic] | None) -> bool:
    """Whether shapes and values are the same; what is missing (NaN) is like what is missing."""
    if one is None or other is None:
        return one is other
    both_floats = one.dtype.kind == other.dtype.kind == "f"
    return bool(np.array_equal(one, other, equal_nan=both_floats))


ARRAY: Any = attrs.cmp_using(eq=_same_arrays)  # attrs types the result as a class that compares
"""For `attrs.field(eq=ARRAY, hash=False)`: arrays are compared as a whole."""
