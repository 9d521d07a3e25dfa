"""A stream of server-sent events, as the service sends them."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast

import trio

from tinker_actors.errors import APIResponseValidationError, DecodeError, StreamAlreadyConsumed
from tinker_actors.protocol.sse import EventParser, ServerSentEvent
from tinker_actors.transport.parsing import parse
from tinker_actors.transport.response import APIResponse
from tinker_actors.wire.payload import JSON, Payload

__all__ = ["Stream"]

T = TypeVar("T")


class Stream(Generic[T]):
    """Values out of events, each as soon as it is complete. It can be gone through once.

    It holds its connection until it ends or is closed, so it belongs into `async with`.

    Args:
        response: the answer, its body not read.
        kind: what each event's data is: a wire type, `str`, `object`, ... or `ServerSentEvent` for events as they
            are.
        what: the call, for messages.
        strict: refuse unknown fields.

    Attributes:
        response: the answer.
    """

    def __init__(self, response: APIResponse[Any], kind: type[T], *, what: str, strict: bool = False) -> None:
        self.response = response
        self._kind: Any = kind
        self._what = what
        self._strict = strict
        self._begun = False

    def __aiter__(self) -> AsyncIterator[T]:
        return _Events(self, self._value)

    def events(self) -> AsyncIterator[ServerSentEvent]:
        """Go through the events as they are; one that breaks off never happened.

        Raises:
            StreamAlreadyConsumed: somebody has begun to.
            APIConnectionError: the connection broke.
            APIResponseValidationError: an event is too long, or its data is of another shape.
        """
        return _Events(self, lambda event: event)

    def begin(self) -> AsyncIterator[bytes]:
        """Return the bytes; once."""
        if self._begun:
            raise StreamAlreadyConsumed(f"{self._what}: the stream of events has been gone through")
        self._begun = True
        return self.response.iter_bytes()

    async def parsed(self, parser: EventParser, chunk: bytes) -> list[ServerSentEvent]:
        """Return the events that a chunk completes; a checkpoint only if it fails."""
        try:
            return parser.feed(chunk)
        except DecodeError as error:
            await self.close()  # noqa: ASYNC120 - a cancellation may take its place
            raise APIResponseValidationError(f"{self._what}: {error}", error.problems) from error

    def _value(self, event: ServerSentEvent) -> T:
        if self._kind is ServerSentEvent:
            return cast("T", event)
        payload = Payload(JSON, event.data.encode())
        return cast("T", parse(self._kind, payload, strict=self._strict, what=self._what))

    async def close(self) -> None:
        """Give the connection back. Checkpoints."""
        await self.response.close()

    async def __aenter__(self) -> Self:
        await trio.lowlevel.checkpoint()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()  # noqa: ASYNC102 - it is shielded, and does not wait for the other side


class _Events(Generic[T]):
    """One walk through a stream. No generator, so that it may be left before its end."""

    def __init__(self, stream: Stream[Any], read: Callable[[ServerSentEvent], T]) -> None:
        self._chunks = stream.begin()
        self._stream = stream
        self._read = read
        self._parser = EventParser()
        self._found: deque[ServerSentEvent] = deque()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if self._found:
            await trio.lowlevel.checkpoint()
        while not self._found:
            try:
                chunk = await anext(self._chunks)
            except StopAsyncIteration:
                await self._stream.close()  # noqa: ASYNC120 - a cancellation may take its place
                raise
            self._found += await self._stream.parsed(self._parser, chunk)
        return self._read(self._found.popleft())
