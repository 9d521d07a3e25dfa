"""A request as the functions see it that answer it, and what such a function is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, Generic, TypeAlias, TypeVar

import attrs

from .engine import Engine

__all__ = ["Call", "Handler", "Reply"]

RequestT = TypeVar("RequestT")


@attrs.frozen
class Call(Generic[RequestT]):
    """A request as a handler sees it.

    Attributes:
        request: the decoded body.
        digest: of the endpoint's name and the body's bytes: tells a repetition from another request.
        path: the variable parts of the path; of a checkpoint's id, `kind` and `name`.
        disconnected: returns when the client has left.
        query: what stands behind the path.
    """

    request: RequestT
    digest: bytes
    path: Mapping[str, str]
    disconnected: Callable[[], Awaitable[None]]
    query: Mapping[str, str] = MappingProxyType({})


@attrs.frozen
class Reply:
    """An answer that is not simply 200."""

    status: int
    body: object


# The request's class differs from endpoint to endpoint; the table of endpoints says which one comes.
Handler: TypeAlias = Callable[[Engine, Call[Any]], object]
