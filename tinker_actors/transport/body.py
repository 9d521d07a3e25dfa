"""What a request carries: JSON, protobuf, a form with files, or bytes as they are; compressed if the service asks."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias, cast

import attrs
import httpx
import orjson
import trio

from tinker_actors.errors import InputError
from tinker_actors.protocol.capability import CapabilityRecord
from tinker_actors.wire import protobuf
from tinker_actors.wire.codec import JsonValue, encode, unstructure
from tinker_actors.wire.compression import compress
from tinker_actors.wire.payload import JSON, PROTOBUF
from tinker_actors.wire.service import Empty

__all__ = ["NO_BODY", "Body", "Files", "compressed", "form", "knows_zstd", "make_body"]

Files: TypeAlias = Mapping[str, Any] | Iterable[tuple[str, Any]]
"""Files of a form as httpx takes them: by name, each its bytes, a file, or `(name, content, content type)`."""

THREAD_BYTES = 64 * 1024  # more is compressed in a thread; less takes less time than the way there
LEAST_BYTES = 1024  # less is not worth it


@attrs.frozen
class Body:
    """The body of a request.

    Attributes:
        content: its bytes.
        content_type: what they are; None for no body.
        encoding: how they are compressed.
    """

    content: bytes = attrs.field(default=b"", repr=False)
    content_type: str | None = None
    encoding: str | None = None


NO_BODY = Body()


def make_body(request: object, extra: Mapping[str, object], capability: CapabilityRecord) -> Body:
    """Write a request.

    Args:
        request: `Empty` for none, a finished `Body`, bytes, a wire object, or a JSON value.
        extra: members merged over those of a JSON object.
        capability: what the service takes.

    Raises:
        InputError: there are members to merge, and no JSON object to merge them into.
        TypeError: something has no JSON form.
    """
    if isinstance(request, bytes):
        request = Body(request, "application/octet-stream")
    if isinstance(request, Body):
        return _merged(request, extra) if extra else request
    if isinstance(request, Empty):
        return Body(orjson.dumps(dict(extra)), JSON) if extra else NO_BODY
    if capability.training_body == "protobuf" and type(request) in protobuf.MESSAGES and not extra:
        return Body(protobuf.encode(request), PROTOBUF)
    body = Body(encode(request, newer=capability.newer_fields), JSON)
    return _merged(body, extra) if extra else body


def _merged(body: Body, extra: Mapping[str, object]) -> Body:
    value = orjson.loads(body.content) if body.content_type == JSON else None
    if not isinstance(value, dict):
        raise InputError("options.json", sorted(extra), "members can only be merged into a JSON object")
    value.update({name: unstructure(part) for name, part in extra.items()})
    return Body(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY), JSON)


@functools.cache
def knows_zstd() -> bool:
    """Return whether bodies can be compressed and decompressed as zstd."""
    return importlib.util.find_spec("zstandard") is not None


async def compressed(body: Body) -> Body:
    """Return a body as zstd, if that is worth it and the extra of that name is there; a checkpoint only if it is long.

    A service that asks for compression takes bodies without it, too.
    """
    if body.encoding is not None or len(body.content) < LEAST_BYTES or not knows_zstd():
        return body
    if len(body.content) < THREAD_BYTES:
        return attrs.evolve(body, content=compress(body.content), encoding="zstd")
    content = await trio.to_thread.run_sync(compress, body.content, abandon_on_cancel=True)
    return attrs.evolve(body, content=content, encoding="zstd")


def form(fields: Mapping[str, object], files: Files) -> Body:
    """Write a form with files. httpx draws the boundary; it is part of the content type."""
    values = {name: _field(name, value) for name, value in fields.items() if value is not None}
    request = httpx.Request("POST", "http://form", data=values, files=cast("Any", files))
    return Body(request.read(), request.headers["content-type"])


def _field(name: str, value: object) -> JsonValue:
    if isinstance(value, list | tuple):
        return [_field(name, part) for part in value]
    if isinstance(value, str | int | float | bool):
        return value
    raise InputError(name, value, "a form holds strings, numbers and booleans")
