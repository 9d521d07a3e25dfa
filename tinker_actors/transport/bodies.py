"""Bodies that stream through `httpx.AsyncClient`, and the limits of time that hold on that way."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable
from typing import Any, Self

import httpx
import trio

from tinker_actors.transport.connection import Connection, Pieces

__all__ = ["Download", "LimitedPieces", "Limits", "Streamed", "known_body"]


class Limits:
    """httpx's timeouts of a request, in seconds, and a deadline for all of it.

    Args:
        timeouts: by httpx's names; a missing one or None is no limit.
        deadline: on trio's clock.

    Attributes:
        scope: bounds everything up to the head of the response; `start` sets for how long from now.
        pool: for the wait for a slot.
        connect: for opening a connection.
        write: for each piece of a long body.
        read: for the head of the response and each piece of its body.
    """

    def __init__(self, timeouts: dict[str, Any], deadline: float) -> None:
        self.pool, self.connect, self.write, self.read = (
            math.inf if (value := timeouts.get(name)) is None else float(value)
            for name in ("pool", "connect", "write", "read")
        )
        self._deadline = deadline
        self.scope = trio.CancelScope(deadline=deadline)

    @classmethod
    def of(cls, request: httpx.Request) -> Limits:
        """Read the limits of a request."""
        extensions = request.extensions
        return cls(extensions.get("timeout") or {}, float(extensions.get("deadline", math.inf)))

    def start(self, seconds: float) -> None:
        """Let what comes next take so many seconds, and not go beyond the deadline."""
        self.scope.deadline = self._from_now(seconds)

    def piece(self) -> trio.CancelScope:
        """Return a scope for reading one piece of the response's body."""
        return trio.CancelScope(deadline=self._from_now(self.read))

    def _from_now(self, seconds: float) -> float:
        return self._deadline if seconds == math.inf else min(self._deadline, trio.current_time() + seconds)


def known_body(request: httpx.Request) -> bytes | None:
    """Return the body of a request, None if it is to be read piece by piece."""
    if "transfer-encoding" in request.headers:
        return None
    try:
        return request.content
    except httpx.RequestNotRead:
        return None


class LimitedPieces(Pieces):
    """A long body, with a limit of time for writing each piece."""

    def __init__(self, body: bytes, limits: Limits) -> None:
        super().__init__(body)
        self._limits = limits

    async def piece(self) -> memoryview | None:
        """Return the next piece, None at the end. Checkpoints."""
        piece = await super().piece()
        self._limits.start(self._limits.read if piece is None else self._limits.write)
        return piece


class Streamed:
    """A body that the caller gives piece by piece, framed as the headers of its request say.

    Args:
        request: what it is the body of.
        limits: for writing each piece; the source takes the time it takes.

    Raises:
        httpx.LocalProtocolError: the headers do not say how the body ends, or it has not the length that they say.
    """

    def __init__(self, request: httpx.Request, limits: Limits) -> None:
        assert isinstance(request.stream, httpx.AsyncByteStream)  # AsyncClient refuses the other kind
        self._source = aiter(request.stream)
        self._limits = limits
        self._ended = False
        self._chunked = "transfer-encoding" in request.headers
        if not self._chunked and "content-length" not in request.headers:
            raise httpx.LocalProtocolError("the headers do not say how the body of the request ends")
        self._left = 0 if self._chunked else int(request.headers["content-length"])

    async def piece(self) -> bytes | None:
        """Return the next piece, None at the end. A checkpoint if the source is one."""
        self._limits.start(math.inf)
        if self._ended:
            self._limits.start(self._limits.read)
            return None
        chunk = await anext(self._source, None)
        self._ended = chunk is None
        self._limits.start(self._limits.write)
        return self._end() if chunk is None else self._framed(chunk)

    def _framed(self, chunk: bytes) -> bytes:
        if self._chunked:
            return b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunk else b""  # an empty chunk would be the end
        self._left -= len(chunk)
        if self._left < 0:
            raise httpx.LocalProtocolError("the body of the request is longer than its Content-Length")
        return chunk

    def _end(self) -> bytes:
        if self._left:
            raise httpx.LocalProtocolError("the body of the request is shorter than its Content-Length")
        return b"0\r\n\r\n" if self._chunked else b""

    async def aclose(self) -> None:
        """Close the source, if it is a generator. Checkpoints."""
        if isinstance(self._source, AsyncGenerator):
            await self._source.aclose()
        await trio.lowlevel.checkpoint()


class Download(httpx.AsyncByteStream):
    """The body of a response, read as it comes.

    Args:
        connection: what it comes on.
        limits: for each piece, and for all of it.
        leave: gives connection and slot back; called once, at the end of the body or when it is left before.
    """

    def __init__(self, connection: Connection, limits: Limits, leave: Callable[[], None]) -> None:
        self._connection = connection
        self._limits = limits
        self._leave = leave
        self._left = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._left:
            raise StopAsyncIteration
        try:
            with self._limits.piece():
                piece = await self._connection.chunk()
                if self._connection.at_end:
                    self._end()
                if piece is None:
                    raise StopAsyncIteration
                return piece
        except BaseException:
            self._end()
            raise
        self._end()
        raise httpx.ReadTimeout("the body of the response did not go on in time")

    async def aclose(self) -> None:
        """Leave the body where it is; a connection that is left before the end is closed. Checkpoints."""
        self._end()
        await trio.lowlevel.checkpoint()

    def _end(self) -> None:
        if not self._left:
            self._left = True
            self._leave()
