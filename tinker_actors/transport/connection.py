"""One HTTP/1.1 connection: h11 reads, we write, a trio stream carries.

Theory of operation. A connection carries one exchange at a time:

    request     the head and a short body go out in one write
    head        answers of the 1xx kind are skipped, a final one is returned
    body        read whole (`rest`) or in chunks (`chunk`), to its end

Each exchange makes it not reusable, and it becomes so again only when all of this has come to pass: the request was
written to its end, the response was read to its end, nothing followed it, and neither side wishes to close. So whoever
leaves in between (cancelled, timed out, failed) leaves a connection that is closed, whatever it was doing.

h11 reads what comes, with a parser for each exchange, but for the most frequent case: a plain head (`answer`) with a
body of known length. Bodies of known length never pass through h11, and are copied once. Heads of requests are composed
without it (`head`), in a third of the time; what it would refuse is refused there as well.

`written` tells whether a byte of the request may have left. It is set without a checkpoint between it and the write,
so that a caller cancelled before it has for certain sent nothing.

A long body is written by a task of its own while the answer is already waited for: a service that refuses a request
in its middle, and reads no further, is heard. After such an answer nothing more is written.
"""

from __future__ import annotations

import contextlib
import math
import re
from typing import NamedTuple, Protocol, cast

import h11
import httpx
import trio

from tinker_actors.transport.answer import BODILESS, AnswerHead, read_plain
from tinker_actors.transport.streams import NetworkStream, close_now, receive_answer

__all__ = ["Connection", "Pieces", "RawReply", "Upload"]

MAX_HEAD_BYTES = 100 * 1024  # of a response; httpcore 1.0.9 has the same
SHORT_BODY_BYTES = 64 * 1024  # goes out with the head, in one write, and fits into any socket's buffer
READ_BYTES = 64 * 1024  # asked for at once while the length is unknown
LONG_READ_BYTES = 256 * 1024  # asked for at once of a body of known length
WRITE_BYTES = 1024 * 1024  # given to the stream at once; TLS encrypts so many without a checkpoint
KEEP_ALIVE_SHARE = 0.8  # of the time that a server says it waits; the rest is for the way

_TO_ITS_END = -1  # a body whose end h11 finds

_SOME_HOST = [(b"host", b"-")]
_REQUESTS = {  # what the parser is told of a request
    method: h11.Request(method=method, target=b"*", headers=_SOME_HOST)
    for method in (b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"CONNECT")
}
_UNLIKE_OTHERS = frozenset({b"HEAD", b"CONNECT"})  # the length in their answers is not that of a body
_NO_PARSER = h11.Connection(h11.CLIENT)  # of a connection between exchanges; is given nothing
_TIMEOUT = re.compile(rb"timeout\s*=\s*(\d{1,9})", re.IGNORECASE)


class RawReply(NamedTuple):
    """A complete response.

    Attributes:
        status: its code.
        headers: in the order they came, names in lower case.
        body: as it came, neither decompressed nor decoded.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Upload(Protocol):
    """A body that is given piece by piece."""

    async def piece(self) -> bytes | memoryview | None:
        """Return the next piece, None at the end."""
        ...

    async def aclose(self) -> None:
        """End it; also called when it is not wanted to its end."""
        ...


class Pieces:
    """A long body, cut into what is given to a stream at once, without a copy."""

    def __init__(self, body: bytes, start: int = 0) -> None:
        self._body = memoryview(body)
        self._start = start

    async def piece(self) -> memoryview | None:
        """Return the next piece, None at the end. Checkpoints."""
        await trio.lowlevel.checkpoint()
        start, self._start = self._start, self._start + WRITE_BYTES
        return self._body[start : self._start] if start < len(self._body) else None

    async def aclose(self) -> None:
        """Do nothing. Checkpoints."""
        await trio.lowlevel.checkpoint()


class Connection:
    """A stream to a server, and where it stands in its exchange.

    Args:
        stream: connected, and encrypted if it is to be.

    Attributes:
        stream: what carries the bytes.
        complete: whether the request under way was written to its end.
        written: whether a byte of the request under way may have left.
        reusable: whether an exchange may follow: there was none yet, or the last one ended so.
        wait: seconds that the server says it waits for another request; infinity if it says nothing.
        expires: when a kept connection is not used any more; belongs to the pool.
    """

    __slots__ = (
        "_begun",
        "_keep",
        "_left",
        "_method",
        "_parser",
        "_write_error",
        "complete",
        "expires",
        "reusable",
        "stream",
        "wait",
        "written",
    )

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.written = False
        self.reusable = True
        self.wait = math.inf
        self.expires = 0.0
        self._begun = b""  # the start of a body of known length, that came with the head
        self._left = 0  # bytes of the body that have not been returned
        self._method = b""
        self._keep = False
        self.complete = False
        self._write_error: trio.BrokenResourceError | None = None
        self._parser = _NO_PARSER

    def close(self) -> None:
        """Close at once; whoever uses it gets an error. Does not wait."""
        self.reusable = False
        close_now(self.stream)

    # ------------------------------------------------------------------------------------------------- the request

    async def request(self, method: bytes, head: bytes, body: bytes) -> AnswerHead:
        """Send a request and return the head of its response. Checkpoints.

        Raises:
            httpx.WriteError: the connection broke under the request, and there is no answer.
            httpx.ReadError: it broke before the answer.
            httpx.RemoteProtocolError: it was closed before the answer, or the answer is not HTTP/1.1.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        self._begin(method, head)
        begun = 0  # bytes of head and body that the kernel took at once
        try:
            if len(body) <= SHORT_BODY_BYTES:
                self.written = True
                await self.stream.send_all(head + body)
                self.complete = True
            elif isinstance(self.stream, NetworkStream):
                self.written = True
                begun = self.stream.send_now(head, body)
                self.complete = begun == len(head) + len(body)
        except trio.BrokenResourceError as error:
            self._write_error = error  # what the server said before it closed is still to be read
        except trio.ClosedResourceError as error:
            raise httpx.WriteError("the connection was closed under the request") from error
        if self.complete or self._write_error is not None:
            return await self._response()
        return await self._write_and_read(head[begun:], Pieces(body, max(0, begun - len(head))))

    async def request_streamed(self, method: bytes, head: bytes, body: Upload) -> AnswerHead:
        """Send a request whose body comes in pieces, framed as its head says; as `request` otherwise.

        Raises:
            Exception: what the pieces raised, as it was.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        self._begin(method, head)
        return await self._write_and_read(head, body)

    async def _write_and_read(self, head: bytes, body: Upload) -> AnswerHead:
        """Write beside the reading, so that a refusal in the middle of a long request is heard."""
        response: AnswerHead | None = None
        failure: httpx.TransportError | None = None
        broken: list[Exception] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write, head, body, nursery.cancel_scope, broken)
            try:
                response = await self._response()
                if response.status >= 300 and not self.complete:
                    await (
                        self._take_all()
                    )  # before the writer is cancelled, which ends a TLS stream's reading too
                    nursery.cancel_scope.cancel(reason="the answer came before the end of the request")
            except httpx.TransportError as error:
                failure = error
                nursery.cancel_scope.cancel(reason="there will be no answer")
        if broken:
            raise broken[0]
        if failure is not None:
            raise failure
        assert response is not None
        return response

    def _begin(self, method: bytes, head: bytes) -> None:
        self.reusable = self.complete = False
        self._write_error = None
        self._keep = b"\r\nconnection: close\r\n" not in head.lower()
        self._method = method

    async def _write(
        self,
        head: bytes,
        body: Upload,
        together: trio.CancelScope,
        broken: list[Exception],
    ) -> None:
        """Write head and body; what the body's source raises ends the exchange, and goes to `broken`."""
        try:
            async with contextlib.aclosing(body):
                await trio.lowlevel.checkpoint_if_cancelled()
                self.written = True
                await self.stream.send_all(head)
                while (piece := await body.piece()) is not None:
                    await self.stream.send_all(piece)
            self.complete = True
        except trio.BrokenResourceError as error:
            self._write_error = error
        except trio.ClosedResourceError:
            pass  # the reader is told as well
        except Exception as error:  # noqa: BLE001 - the caller's own stream failed; he gets his exception
            broken.append(error)
            together.cancel(reason="the body of the request failed")

    # ------------------------------------------------------------------------------------------------ the response

    async def _response(self) -> AnswerHead:
        data = await self._receive_head()
        plain = None if self._method in _UNLIKE_OTHERS else read_plain(data)
        if plain is not None:
            head, length, begun = plain
            self._judge(head)
            self._frame(length, begun)
            return head
        self._parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        # Of the request, only the method matters to the parser.
        known = _REQUESTS.get(self._method)
        self._parser.send(known or h11.Request(method=self._method, target=b"*", headers=_SOME_HOST))
        while True:
            self._parser.receive_data(data)
            while (event := self._next_event()) is not h11.NEED_DATA:
                if isinstance(event, h11.Response):
                    return self._parsed_head(AnswerHead.of(event))
                if not isinstance(event, h11.InformationalResponse):
                    raise httpx.RemoteProtocolError("the answer does not begin with a status")
            data = await self._receive_head()

    async def _receive_head(self) -> bytes:
        data = await self._receive(READ_BYTES, first=True)
        if data:
            return data
        text = "the server closed the connection without an answer"
        if self._write_error is not None:
            raise httpx.WriteError(text) from self._write_error
        raise httpx.RemoteProtocolError(text)

    def _next_event(self) -> object:
        try:
            return self._parser.next_event()
        except h11.RemoteProtocolError as error:
            raise httpx.RemoteProtocolError(f"the answer is not HTTP/1.1: {error}") from error

    def _parsed_head(self, head: AnswerHead) -> AnswerHead:
        """Learn from a head that h11 has read how the body ends."""
        self._judge(head)
        fields = dict(head.headers)
        length, chunked = fields.get(b"content-length"), b"transfer-encoding" in fields
        if self._method == b"HEAD" or head.status in BODILESS:
            self._frame(0, self._parser.trailing_data[0])
        elif length is not None and not chunked:
            self._frame(int(length), self._parser.trailing_data[0])
        else:
            # A body without a length ends with the connection; one with two kinds of it ends who knows where.
            self._keep = self._keep and chunked and length is None
            self._left = _TO_ITS_END
        return head

    def _judge(self, head: AnswerHead) -> None:
        """Learn from a head whether another exchange may follow."""
        if head.status >= 500 or head.version != b"1.1":
            self._keep = False  # uvicorn drops the connection after an unhandled exception, without a word
        for name, value in head.headers:
            if name == b"connection":
                self._keep = self._keep and b"close" not in value.lower()
            elif name == b"content-length" and head.status == 400 and value == b"0":
                self._keep = False  # a proxy turned the request away, and may do so again on this connection
            elif name == b"keep-alive" and (found := _TIMEOUT.search(value)) is not None:
                self.wait = int(found[1]) * KEEP_ALIVE_SHARE

    def _frame(self, length: int, begun: bytes) -> None:
        """Take what has come of a body of known length."""
        if len(begun) > length:
            self._keep = False  # something follows that nobody asked for
            begun = begun[:length]
        self._begun = begun
        self._left = length
        if not length:
            self._finish()

    def _finish(self) -> None:
        self.reusable = self._keep and self.complete
        self._parser = _NO_PARSER

    @property
    def at_end(self) -> bool:
        """Whether the body has been returned to its end."""
        return not self._left

    def at_hand(self) -> bytes | None:
        """Return the whole body if it has come with the head, else None."""
        if len(self._begun) != self._left:
            return None
        if self._left:
            self._left = 0
            self._finish()
        body, self._begun = self._begun, b""
        return body

    async def rest(self) -> bytes:
        """Return the body from here to its end; a checkpoint unless it has come already. Raises as `chunk`."""
        pieces: list[bytes | bytearray] = []
        while (piece := await self._piece()) is not None:
            pieces.append(piece)
        return b"".join(pieces)

    async def chunk(self) -> bytes | None:
        """Return the next bytes of the body, None at its end; a checkpoint unless they have come already.

        Raises:
            httpx.ReadError: the connection broke.
            httpx.RemoteProtocolError: it was closed before the end of the body, or the body is not framed well.
        """
        piece = await self._piece()
        return piece if piece is None else bytes(piece)

    async def _piece(self) -> bytes | bytearray | None:
        if self._left == _TO_ITS_END:
            return await self._parsed_piece()
        if not self._left:
            return None
        piece, self._begun = self._begun, b""
        if not piece:
            piece = await self._receive(min(self._left, LONG_READ_BYTES))
            if not piece:
                text = f"the server closed the connection with {self._left} bytes of the body missing"
                raise httpx.RemoteProtocolError(text)
        self._left -= len(piece)
        if not self._left:
            self._finish()
        return piece

    async def _parsed_piece(self) -> bytes | bytearray | None:
        while True:
            event = self._next_event()
            if event is h11.NEED_DATA:
                self._parser.receive_data(await self._receive(READ_BYTES))  # h11 knows what an end means here
            elif isinstance(event, h11.Data):
                return event.data
            elif isinstance(event, h11.EndOfMessage):
                self._keep = self._keep and not self._parser.trailing_data[0]
                self._left = 0
                self._finish()
                return None
            else:
                raise httpx.RemoteProtocolError("the body does not end as it should")

    async def _take_all(self) -> None:
        """Read the body now; `chunk` and `rest` return it later."""
        self._begun = await self.rest()
        self._left = len(self._begun)

    async def _receive(self, limit: int, *, first: bool = False) -> bytes:
        try:
            waiting = receive_answer(self.stream, limit) if first else self.stream.receive_some(limit)
            return cast("bytes", await waiting)  # a bytearray of a test's serves as well
        except trio.BrokenResourceError as error:
            if self._write_error is not None:
                raise httpx.WriteError(f"the connection broke under the request: {_why(error)}") from error
            raise httpx.ReadError(f"the connection broke: {_why(error)}") from error
        except trio.ClosedResourceError as error:
            raise httpx.ReadError("the connection was closed under the exchange") from error


def _why(error: BaseException) -> str:
    cause = error.__cause__ or error
    return str(cause) or type(cause).__name__
