"""Streams over sockets, and what may be done to any stream without waiting: closing it, and looking into it.

`NetworkStream` differs from trio's own stream in what it does not do. Writing is a checkpoint only if the kernel does
not take everything at once, since whoever writes a request waits for its answer next. `receive_answer` waits before
it reads: an answer is never there before it has been waited for. And nobody watches for two tasks that use one
stream: a connection belongs to one request.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from typing import Protocol, TypeVar, cast

import trio

__all__ = ["NetworkStream", "close_now", "is_readable", "receive_answer"]

T = TypeVar("T")
_CHUNK_BYTES = 2**16  # what is read at once if nobody says how much


class NetworkStream(trio.abc.Stream):
    """A connected socket as a stream.

    Args:
        connected: the socket; it belongs to the stream from now on.
    """

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        self._socket = connected
        self._probe: Callable[[], bool] | None = None

    @classmethod
    def of(cls, stream: trio.SocketStream) -> NetworkStream:
        """Take the socket over from a stream of trio's."""
        return cls(socket.socket(fileno=stream.socket.detach()))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Write everything. A checkpoint only if the kernel does not take it at once.

        Raises:
            trio.BrokenResourceError: the other side has gone.
            trio.ClosedResourceError: this side has.
        """
        sent = self._try(lambda: self._socket.send(data)) or 0
        if sent == len(data):
            return
        with memoryview(data) as rest:
            while sent < len(rest):
                await trio.lowlevel.wait_writable(self._socket)
                start = sent
                sent += self._try(lambda: self._socket.send(rest[start:])) or 0  # noqa: B023 - called at once

    def send_now(self, *parts: bytes) -> int:
        """Write what the kernel takes at once, without joining the parts; return how many bytes that were.

        Errors: those of `send_all`.
        """
        return self._try(lambda: self._send_parts(parts)) or 0

    def _send_parts(self, parts: tuple[bytes, ...]) -> int:
        if not hasattr(self._socket, "sendmsg"):  # Windows
            return self._socket.send(b"".join(parts))
        return self._socket.sendmsg(parts)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Read what is there, or wait for something. Always a checkpoint.

        Raises:
            trio.BrokenResourceError: the connection broke.
            trio.ClosedResourceError: it was closed on this side.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        data = self._try(lambda: self._socket.recv(max_bytes or _CHUNK_BYTES))
        if data is None:
            return await self.receive_answer(max_bytes or _CHUNK_BYTES)
        await trio.lowlevel.cancel_shielded_checkpoint()  # what has been read must not get lost
        return data

    async def receive_answer(self, max_bytes: int) -> bytes:
        """Wait for something and read it. Always a checkpoint; errors as `receive_some`."""
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            data = self._try(lambda: self._socket.recv(max_bytes))
            if data is not None:
                return data

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the kernel takes something. Always a checkpoint; errors as `send_all`."""
        await trio.lowlevel.wait_writable(self._socket)

    async def aclose(self) -> None:
        """Close. Always a checkpoint."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Close at once; whoever waits gets `trio.ClosedResourceError`. Closing twice is closing once."""
        if self._socket.fileno() != -1:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()

    def is_readable(self) -> bool:
        """Tell whether data or an end of file waits to be read."""
        if self._probe is None:
            self._probe = _probe(self._socket)
        return self._probe()

    def _try(self, call: Callable[[], T]) -> T | None:
        """Return what a call to the kernel gives; None if it would have to wait."""
        try:
            return call()
        except BlockingIOError:
            return None
        except OSError as error:
            if self._socket.fileno() == -1:
                raise trio.ClosedResourceError("this stream was closed") from None
            raise trio.BrokenResourceError(f"socket connection broken: {error}") from error


def _probe(probed: socket.socket) -> Callable[[], bool]:
    """Return a function that tells whether a socket is readable; it asks the kernel once each time."""
    if not hasattr(select, "poll"):  # Windows; its sockets have no numbers too large for select
        return lambda: bool(select.select([probed], [], [], 0)[0])
    poll = select.poll()
    poll.register(probed, select.POLLIN)
    return lambda: bool(poll.poll(0))


class _Closable(Protocol):
    def close(self) -> None: ...


async def receive_answer(stream: trio.abc.Stream, max_bytes: int) -> bytes | bytearray:
    """Read the begin of an answer, which cannot be there yet. Always a checkpoint; errors are the stream's."""
    if isinstance(stream, NetworkStream):
        return await stream.receive_answer(max_bytes)
    return await stream.receive_some(max_bytes)


def close_now(stream: trio.abc.Stream) -> None:
    """Close a stream without waiting and without TLS's goodbye; closing twice is closing once."""
    while isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    if isinstance(stream, trio.SocketStream):
        stream.socket.close()
    else:
        cast("_Closable", stream).close()  # ours, or one of a test's own


def is_readable(stream: trio.abc.Stream) -> bool:
    """Tell whether data or an end of file waits to be read, without reading it."""
    while isinstance(stream, trio.SSLStream):
        # What is decrypted, and what is not yet: both came behind the last response.
        undecrypted = getattr(stream, "_incoming", None)
        if stream.pending() or getattr(undecrypted, "pending", 0):
            return True
        stream = stream.transport_stream
    if isinstance(stream, trio.SocketStream):
        return stream.socket.is_readable()
    return bool(getattr(stream, "is_readable", bool)())  # ours, or one of a test's own
