"""The protobuf codec, for the few messages that have this form."""

from __future__ import annotations

from typing import Final, TypeVar

from tinker_actors.errors import DecodeError, InputError

__all__ = ["MESSAGES", "decode", "encode"]

_T = TypeVar("_T")

MESSAGES: Final[frozenset[type]] = frozenset()
"""The classes that can be written and read."""


def encode(value: object) -> bytes:
    """Write a wire object as protobuf.

    Raises:
        InputError: it has no such form.
    """
    raise InputError("value", value, f"{type(value).__name__} has no protobuf form")


def decode(kind: type[_T], data: bytes | bytearray | memoryview) -> _T:  # noqa: ARG001 - no class is known yet
    """Read a wire object from protobuf.

    Raises:
        DecodeError: bytes that are not that class, or a class without this form.
    """
    raise DecodeError(kind.__name__, ["it has no protobuf form"])
