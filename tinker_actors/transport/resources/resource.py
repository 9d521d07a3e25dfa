"""What a resource is: a group of calls over something that can make a call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol, TypeVar

from tinker_actors.transport.options import RequestOptions
from tinker_actors.transport.view import StreamingView, ViewedCaller
from tinker_actors.wire.endpoint import Endpoint

__all__ = ["AccessScope", "AsyncAPIResource", "Caller"]

AccessScope = Literal["owned", "accessible"]
"""What is yours, or what you may see."""

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


class AsyncAPIResource:
    """A group of calls. Each is a row of the table of endpoints, always a checkpoint, and raises what its caller does.

    Path parameters are checked before anything is sent: `InputError` if one would not stay the part it is.
    """

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    @property
    def with_raw_response(self) -> Any:  # the same methods, each returning an APIResponse of what it says
        """The same calls, each returning its whole answer (`APIResponse`)."""
        return type(self)(ViewedCaller(self._caller, "raw"))

    @property
    def with_streaming_response(self) -> Any:  # the same methods, each to be used in `async with`
        """The same calls, each giving its answer with the body still to be read, in `async with`."""
        return StreamingView(type(self)(ViewedCaller(self._caller, "stream")))
