"""Servers for the tests of connections: scripted ones, on streams in memory or on loopback."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, TypeAlias

import pytest
import trio
from trio.testing import memory_stream_pair

from tinker_actors.transport.head import Origin
from tinker_actors.transport.pool import ConnectionPool

GONE = (trio.BrokenResourceError, trio.ClosedResourceError)


class Peer:
    """The server's end of a connection."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.requests: list[bytes] = []
        self._data = bytearray()

    async def request(self) -> tuple[bytes, bytes] | None:
        """Read a request with a body of known length; None at the end of the connection."""
        while b"\r\n\r\n" not in self._data:
            if not await self._more():
                return None
        head, _, rest = bytes(self._data).partition(b"\r\n\r\n")
        self._data[:] = rest
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        length = int(fields.get(b"content-length", 0))
        while len(self._data) < length:
            if not await self._more():
                return None
        body = bytes(self._data[:length])
        del self._data[:length]
        self.requests.append(head)
        return head, body

    async def _more(self) -> bool:
        data = await self.stream.receive_some(1 << 20)
        self._data += data
        return bool(data)

    async def everything(self) -> bytes:
        """Read until the client closes."""
        while await self._more():
            pass
        return bytes(self._data)

    async def until(self, end: bytes) -> bytes:
        """Read until these bytes have come."""
        while end not in self._data:
            if not await self._more():
                raise trio.BrokenResourceError
        return bytes(self._data)

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        await self.stream.send_all(data)

    async def answer(self, body: bytes = b"", status: str = "200 OK", extra: bytes = b"") -> None:
        """Send a response of known length."""
        head = b"HTTP/1.1 %b\r\nContent-Length: %d\r\n%b\r\n" % (status.encode(), len(body), extra)
        await self.send(head + body)

    async def close(self) -> None:
        """Close the connection."""
        await self.stream.aclose()


Handler: TypeAlias = Callable[[Peer], Awaitable[None]]


async def echo(peer: Peer) -> None:
    """Answer each request with its body."""
    while (request := await peer.request()) is not None:
        await peer.answer(request[1])


class Wire(trio.abc.Stream):
    """The client's end of a connection in memory: like a socket's, it can be closed and looked at without waiting."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.closed = False
        self.writes: list[bytes] = []
        self.write_error: Exception | None = None
        self.read_error: Exception | None = None

    async def send_all(self, data: Any) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.closed:
            raise trio.ClosedResourceError
        if self.write_error is not None:
            raise trio.BrokenResourceError from self.write_error
        self.writes.append(bytes(data))
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self.read_error is not None:
            raise trio.BrokenResourceError from self.read_error
        return bytes(await self.stream.receive_some(max_bytes))

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        self.closed = True
        self.stream.send_stream.close()
        self.stream.receive_stream.close()

    def is_readable(self) -> bool:
        queue = self.stream.receive_stream._incoming
        return bool(queue._data or queue._closed)


class Net:
    """A network in memory. `handler` serves every connection; `wires` and `peers` are both ends of each, in order."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.handler: Handler = echo
        self.make_pair: Callable[[], tuple[Any, Any]] = memory_stream_pair
        self.wires: list[Wire] = []
        self.peers: list[Peer] = []
        self.dialled: list[tuple[str, int]] = []
        self.delay = 0.0

    async def connect(self, host: str, port: int) -> Wire:
        """Open a connection: the seam of the pool."""
        self.dialled.append((host, port))
        await trio.sleep(self.delay)
        client, server = self.make_pair()
        wire, peer = Wire(client), Peer(server)
        self.wires.append(wire)
        self.peers.append(peer)
        self._nursery.start_soon(self._serve, peer)
        return wire

    async def _serve(self, peer: Peer) -> None:
        with suppress(*GONE):
            await self.handler(peer)

    def pool(self, limit: int = 4, **settings: Any) -> ConnectionPool:
        """Make a pool whose connections lead into this network."""
        settings.setdefault("ssl_context", ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        return ConnectionPool(limit=limit, connect=self.connect, **settings)


@pytest.fixture
def net(nursery: trio.Nursery) -> Net:
    """A network in memory."""
    return Net(nursery)


@asynccontextmanager
async def _loopback(handler: Handler = echo, tls: ssl.SSLContext | None = None) -> AsyncIterator[Origin]:
    async def serve(stream: Any) -> None:
        if tls is not None:
            stream = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
        try:
            with suppress(*GONE):
                await handler(Peer(stream))
        finally:
            await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        yield Origin("http" if tls is None else "https", "127.0.0.1", port)
        nursery.cancel_scope.cancel(reason="the test is over")


@pytest.fixture
def loopback() -> Callable[..., Any]:
    """A way to serve on loopback, over TLS if a context for it is given."""
    return _loopback


class Cancelling(trio.abc.Instrument):
    """Cancels a scope when the tasks that run in it have waited for the n-th time.

    Args:
        scope: to cancel.
        task: the task that entered it; its children count as well.
        at: how many waits to let pass.
        late: cancel when that wait has ended well, not while it lasts.
    """

    def __init__(self, scope: trio.CancelScope, task: trio.lowlevel.Task, at: int, *, late: bool) -> None:
        self._scope = scope
        self._task = task
        self._left = at
        self._late = late
        self.fired = False

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count a wait that begins."""
        if not self._late:
            self._count(task)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count a wait that has ended."""
        if self._late:
            self._count(task)

    def _count(self, task: trio.lowlevel.Task | None) -> None:
        while task is not None and task is not self._task:
            task = None if task.parent_nursery is None else task.parent_nursery.parent_task
        if task is None or self.fired:
            return
        if self._left == 0:
            self.fired = True
            self._scope.cancel(reason="the test cancels here")
        self._left -= 1


async def _cancelled_at(step: int, body: Callable[[], Awaitable[object]], *, late: bool) -> bool:
    scope = trio.CancelScope()
    cancelling = Cancelling(scope, trio.lowlevel.current_task(), step, late=late)
    with scope:
        trio.lowlevel.add_instrument(cancelling)
        try:
            await body()
        finally:
            trio.lowlevel.remove_instrument(cancelling)
    return cancelling.fired


@pytest.fixture
def cancelled_at() -> Callable[..., Awaitable[bool]]:
    """A way to run a function and cancel it at its n-th wait; it tells whether it was not over before."""
    return _cancelled_at
