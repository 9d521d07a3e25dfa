"""The body of an answer as it came: bytes and their content type. A service chooses between JSON and protobuf."""

from typing import TypeVar

import attrs

from tinker_actors.errors import DecodeError
from tinker_actors.wire.codec import decode

__all__ = ["JSON", "PROTOBUF", "Payload", "read"]

T = TypeVar("T")
JSON = "application/json"
PROTOBUF = "application/x-protobuf"


@attrs.frozen
class Payload:
    """A body and what it is.

    Attributes:
        content_type: the header as it came, parameters included; empty if there was none.
        content: the bytes.
    """

    content_type: str
    content: bytes

    @property
    def is_protobuf(self) -> bool:
        """Whether it says that it is protobuf; everything else is taken for JSON."""
        return self.content_type.partition(";")[0].strip().lower() == PROTOBUF


def read(kind: type[T], payload: Payload, *, strict: bool = False) -> T:
    """Read a wire object from a body.

    Raises:
        DecodeError: not that class, or in a form that this class does not have.
    """
    if payload.is_protobuf:
        raise DecodeError(kind.__name__, [f"content type {payload.content_type}"])
    return decode(kind, payload.content, strict=strict)
