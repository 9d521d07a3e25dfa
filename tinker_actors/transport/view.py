"""Views: the same calls, answered with whole responses.

A view of the kind `raw` is simply the same group of calls over a caller that asks for whole responses. One of the kind
`stream` wraps each call once more: its response holds a connection, so it is given to an `async with`.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar, cast

from tinker_actors.transport.options import RequestOptions, View, said
from tinker_actors.transport.response import APIResponse
from tinker_actors.wire.endpoint import Endpoint

__all__ = ["Caller", "StreamingView", "ViewedCaller"]

RequestT = TypeVar("RequestT")
ReplyT = TypeVar("ReplyT")


class Caller(Protocol):
    """What can make a call: the client, one of its views, or a test's recorder."""

    async def call(
        self,
        endpoint: Endpoint[RequestT, ReplyT],
        request: RequestT,
        *,
        path: Mapping[str, str] | None = None,
        query: Mapping[str, object] | None = None,
        options: RequestOptions | None = None,
    ) -> ReplyT:
        """Make one call and return its reply; always a checkpoint.

        Args:
            endpoint: which call.
            request: the body; `Empty` sends none.
            path: what fills the `{name}` parts of the path.
            query: the parameters of the query; those that are None are left out.
            options: what this one call has of its own.
        """
        ...


class ViewedCaller:
    """A caller that asks for whole responses.

    Args:
        caller: what makes the calls.
        view: how much of an answer is read before it is given.
    """

    def __init__(self, caller: Caller, view: View) -> None:
        self._caller = caller
        self._view: View = view

    async def call(
        self,
        endpoint: Endpoint[RequestT, ReplyT],
        request: RequestT,
        *,
        path: Mapping[str, str] | None = None,
        query: Mapping[str, object] | None = None,
        options: RequestOptions | None = None,
    ) -> ReplyT:
        """Make one call; what comes back is an `APIResponse` of the reply. Always a checkpoint."""
        viewed = RequestOptions(view=self._view).over(said(options))
        return await self._caller.call(endpoint, request, path=path, query=query, options=viewed)


class StreamingView:
    """The calls of a resource or a client, each to be used in `async with`: the body is still to be read.

    Args:
        target: a resource, or a client, over a caller of the view `stream`.
    """

    def __init__(self, target: object) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Any:  # a method of the target, or a group of them
        found = getattr(self._target, name)
        return _opening(found) if callable(found) else StreamingView(found)


def _opening(call: Callable[..., Any]) -> Callable[..., AbstractAsyncContextManager[APIResponse[Any]]]:
    @functools.wraps(call)
    @contextlib.asynccontextmanager
    async def opened(*args: object, **keywords: object) -> AsyncIterator[APIResponse[Any]]:
        async with cast("APIResponse[Any]", await call(*args, **keywords)) as response:
            yield response

    return opened
