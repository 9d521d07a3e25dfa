"""The body of an answer as it came: bytes and their content type. A service chooses between JSON and protobuf."""

from typing import TypeVar

import attrs

from tinker_actors.wire import codec, protobuf

__all__ = ["JSON", "PROTOBUF", "Payload", "read"]

T = TypeVar("T")
JSON = "application/json"
PROTOBUF = "application/x-protobuf"


@attrs.frozen
class Payload:
    """A body and what it is.

    Attributes:
        content_type: the header as it came, parameters included; empty if there was none.
        content: the bytes, decompressed.
    """

    content_type: str
    content: bytes = attrs.field(repr=False)  # there may be megabytes

    @property
    def is_protobuf(self) -> bool:
        """Whether it says that it is protobuf; everything else is taken for JSON."""
        return self.content_type.partition(";")[0].strip().lower() == PROTOBUF


def read(kind: type[T], payload: Payload, *, strict: bool = False) -> T:
    """Read a wire object from a body, in the form that the body has.

    Args:
        kind: the wire class expected.
        payload: the body.
        strict: refuse unknown fields of JSON; protobuf has its own rule, which is to skip them.

    Raises:
        DecodeError: not that class, or in a form that this class does not have.
    """
    if payload.is_protobuf:
        return protobuf.decode(kind, payload.content)
    return codec.decode(kind, payload.content, strict=strict)
