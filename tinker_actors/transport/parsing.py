"""An answer's body as a value of the type that was asked for. No I/O."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any, TypeVar, cast, get_origin

import httpx
import orjson

from tinker_actors.errors import APIResponseValidationError, DecodeError
from tinker_actors.wire import payload as payloads
from tinker_actors.wire.codec import structure
from tinker_actors.wire.payload import Payload
from tinker_actors.wire.service import Empty

__all__ = ["as_json", "as_text", "parse"]

_T = TypeVar("_T")
_ANYTHING = (object, Any)
_PLAIN_JSON = (dict, list)


def parse(kind: type[_T], payload: Payload, *, strict: bool, what: str) -> _T:
    """Read a body.

    What is to be a wire type, a mapping or a list is read as JSON, whatever the content type says, or as protobuf. What
    may be anything is a JSON value if it is one, else text.

    Args:
        kind: `Empty` or None to look at nothing; `Payload` to leave it as it is; `bytes`, `str`, `int`, `float`,
            `bool`; `object`; or a type of the wire.
        payload: the body.
        strict: refuse unknown fields.
        what: the call, for messages.

    Raises:
        APIResponseValidationError: it is of another shape; `problems` has the paths.
    """
    if kind is Empty:
        return cast("_T", Empty())
    try:
        return cast("_T", _read(kind, payload, strict=strict))
    except DecodeError as error:
        raise APIResponseValidationError(f"{what}: {error}", error.problems) from error


def _read(kind: Any, payload: Payload, *, strict: bool) -> object:  # kinds have many shapes
    if kind is None or kind is types.NoneType:
        return None
    if kind is Payload:
        return payload
    if kind is bytes:
        return payload.content
    if kind in _SCALARS:
        return _SCALARS[kind](as_text(payload))
    if kind in _ANYTHING:
        return _anything(payload)
    if kind in _PLAIN_JSON:
        return _plain(kind, payload)
    if get_origin(kind) is None:
        return payloads.read(kind, payload, strict=strict)
    return structure(kind, cast("Any", as_json(payload)), strict=strict)


def _plain(kind: type, payload: Payload) -> object:
    value = as_json(payload)
    if not isinstance(value, kind):
        raise DecodeError(kind.__name__, [f"the answer is a {type(value).__name__}"])
    return value


def _anything(payload: Payload) -> object:
    try:
        return as_json(payload)
    except DecodeError:
        return as_text(payload)


def as_json(payload: Payload) -> object:
    """Return a body's JSON value.

    Raises:
        DecodeError: it is not JSON.
    """
    try:
        return cast("object", orjson.loads(payload.content))
    except orjson.JSONDecodeError as error:
        raise DecodeError("JSON answer", [f"not JSON: {error}"]) from error


def as_text(payload: Payload) -> str:
    """Return a body's text, in the character set its type names, else UTF-8."""
    headers = {"content-type": payload.content_type}
    return httpx.Response(200, headers=headers, content=payload.content).text


def _number(kind: type[int | float], text: str) -> int | float:
    try:
        return kind(text.strip())
    except ValueError as error:
        raise DecodeError(kind.__name__, [f"the answer is {text[:100]!r}"]) from error


def _flag(text: str) -> bool:
    value = {"true": True, "false": False}.get(text.strip().lower())
    if value is None:
        raise DecodeError("bool", [f"the answer is {text[:100]!r}"])
    return value


_SCALARS: Mapping[object, Any] = {
    str: str,
    int: lambda text: _number(int, text),
    float: lambda text: _number(float, text),
    bool: _flag,
}
