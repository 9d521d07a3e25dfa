"""What a resource is: a group of calls over something that can make a call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeVar

from tinker_actors.transport.options import RequestOptions
from tinker_actors.wire.endpoint import Endpoint

__all__ = ["AsyncAPIResource", "Caller"]

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
    """A group of calls."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
