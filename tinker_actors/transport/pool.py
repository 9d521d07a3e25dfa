"""The connections of one lane: bounded, kept, and never lost to a caller who leaves.

Theory of operation. A request under way holds a slot. `Slots` hands them out in the order of asking; there are no more
connections in use than slots, and no more open ones either. A request takes the connection that was used last (it is
the least likely to have been closed meanwhile) or opens one; a kept one is used only before its time is up, and only if
nothing waits to be read from it, for that could but be its end or an answer that nobody asked for.

Connections are kept by origin, since redirects lead elsewhere. Kept ones expire before servers usually give them up
(5 s with uvicorn and hypercorn), so that a connection seldom dies under a request.

However a caller leaves (with an answer, an error, cancelled, out of time), one synchronous step keeps or closes its
connection and passes its slot on. There is no background task.

There are two ways in. `exchange` is for the hot path: one deadline from the wait for a slot to the last byte of
the body. `handle_async_request` is what `httpx.AsyncClient` drives: bodies stream both ways, and the response holds
its slot until it is read or closed. Both raise httpx's own errors: ConnectError, ConnectTimeout, PoolTimeout and
ProxyError before a byte of the request is written, others only after it; so the error tells whether the server may
have acted.
"""

from __future__ import annotations

import ipaddress
import math
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple, TypeAlias

import httpx
import trio

from tinker_actors.transport.bodies import Download, LimitedPieces, Limits, Streamed, known_body
from tinker_actors.transport.connection import SHORT_BODY_BYTES, Connection, RawReply
from tinker_actors.transport.head import Headers, Origin, compose_head
from tinker_actors.transport.proxy import ProxyRules, ProxyTarget, open_tunnel
from tinker_actors.transport.slots import Slots
from tinker_actors.transport.streams import NetworkStream, close_now, is_readable
from tinker_actors.transport.tls import start_tls

__all__ = ["ConnectionPool", "Connector", "PoolStatistics"]

Connector: TypeAlias = Callable[[str, int], Awaitable[trio.abc.Stream]]
"""Opens a stream to a host and port. The pool closes it without waiting: by its socket, or by its method `close`."""

Key: TypeAlias = tuple[Origin, str | None]  # where a connection leads, and by what name TLS called it


class PoolStatistics(NamedTuple):
    """What a pool is doing.

    Attributes:
        limit: requests that may be under way at once.
        in_use: those that are.
        waiting: callers in line for a slot.
        idle: connections kept for reuse.
    """

    limit: int
    in_use: int
    waiting: int
    idle: int


async def _connect(host: str, port: int) -> trio.abc.Stream:
    """Connect to a name by trying its addresses (happy eyeballs), to an address by a quarter of that work."""
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return NetworkStream.of(await trio.open_tcp_stream(host, port))
    family = trio.socket.AF_INET if version == 4 else trio.socket.AF_INET6
    socket = trio.socket.socket(family, trio.socket.SOCK_STREAM)
    try:
        await socket.connect((host, port))
    except BaseException:
        socket.close()
        raise
    return NetworkStream.of(trio.SocketStream(socket))  # trio's sets the socket's options


class ConnectionPool(httpx.AsyncBaseTransport):
    """The connections of one lane.

    Args:
        limit: requests under way at once; more wait in line.
        ssl_context: whom to trust; shared by all pools of a service.
        connect_timeout: seconds to open a connection, TLS and proxy included.
        keepalive_expiry: seconds that a connection is kept for reuse, at most.
        proxy: the proxy for everything, or rules that choose one.
        connect: opens streams; for tests.
    """

    def __init__(
        self,
        *,
        limit: int,
        ssl_context: ssl.SSLContext,
        connect_timeout: float = 5.0,
        keepalive_expiry: float = 4.0,
        proxy: ProxyTarget | ProxyRules | None = None,
        connect: Connector = _connect,
    ) -> None:
        self._slots = Slots(limit)
        self._ssl_context = ssl_context
        self._connect_timeout = connect_timeout
        self._keepalive_expiry = keepalive_expiry
        self._proxies = ProxyRules.of(proxy) if isinstance(proxy, ProxyTarget) else proxy or ProxyRules()
        self._connect = connect
        self._idle: dict[Key, deque[Connection]] = {}
        self._idle_count = 0
        self._busy: set[Connection] = set()
        self._connecting: set[trio.CancelScope] = set()

    def statistics(self) -> PoolStatistics:
        """Return what the pool is doing."""
        slots = self._slots
        return PoolStatistics(slots.limit, slots.in_use, slots.waiting, self._idle_count)

    async def aclose(self) -> None:
        """Close all connections; what is under way fails, and so does every later request. Checkpoints."""
        self._slots.close()
        for scope in self._connecting:
            scope.cancel(reason="the pool is being closed")
        for connection in self._busy:
            connection.close()
        for kept in self._idle.values():
            for connection in kept:
                connection.close()
        self._idle.clear()
        self._idle_count = 0
        await trio.lowlevel.checkpoint()

    # ------------------------------------------------------------------------------------------------ the direct way

    async def exchange(
        self,
        origin: Origin,
        method: bytes,
        target: bytes,
        headers: Headers,
        body: bytes,
        *,
        timeout: float,
        sni: str | None = None,
        head: bytes | None = None,
    ) -> RawReply:
        """Send a request and return its whole response. Checkpoints.

        Args:
            origin: where to.
            method: in capitals.
            target: path and query.
            headers: in the order to send them; Host and Content-Length are added if they are missing.
            body: of the request.
            timeout: seconds for all of it.
            sni: the name to give to TLS in place of the host's.
            head: what target and headers come to, from somebody who has composed it already.

        Raises:
            httpx.PoolTimeout: no slot in time. As with the next three, not a byte was written.
            httpx.ConnectTimeout: no connection in time.
            httpx.ConnectError: no connection, no TLS, or the pool is closed.
            httpx.ProxyError: the proxy refused.
            httpx.WriteTimeout: the server did not take the request in time. As with the others, it may have acted.
            httpx.ReadTimeout: no whole answer in time.
            httpx.WriteError: the connection broke under the request.
            httpx.ReadError: it broke under the response.
            httpx.RemoteProtocolError: what came is no whole HTTP/1.1 response.
            httpx.LocalProtocolError: the request must not be sent like this; nothing was written.
        """
        if head is None:
            head = compose_head(origin, method, target, headers, len(body))
        key = (origin, sni)
        connection: Connection | None = None
        has_slot = False
        with trio.CancelScope(deadline=trio.current_time() + timeout):
            if not self._slots.take_free():
                await self._take_slot()
            has_slot = True
            try:
                connection = self._kept(key) or await self._open(key, self._connect_timeout)
                response = await connection.request(method, head, body)
                content = connection.at_hand()
                if content is None:
                    content = await connection.rest()
                return RawReply(response.status, response.headers, content)
            finally:
                self._leave(key, connection)
        raise _too_late(origin, has_slot, connection)

    # --------------------------------------------------------------------------------------------------- httpx's way

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return its response once the head is there. Checkpoints.

        The response holds a slot until its body is read to the end or it is closed, unless the whole of it came with
        the head. httpx's timeouts hold: `pool`, `connect`, `write` for each piece of a long or streamed body, `read`
        for the head of the response and for each piece of its body. `request.extensions["deadline"]`, a time on trio's
        clock, bounds all of it, the response's body included.

        Raises:
            httpx.TransportError: as `exchange`; and httpx.UnsupportedProtocol.
            Exception: what the request's own stream raised.
        """
        key = (Origin.of(request.url), request.extensions.get("sni_hostname"))
        limits = Limits.of(request)
        body = known_body(request)
        method = request.method.encode("ascii")
        length = None if body is None else len(body)
        head = compose_head(key[0], method, request.url.raw_path, request.headers.raw, length)
        connection: Connection | None = None
        has_slot = handed_over = False
        with limits.scope:
            limits.start(limits.pool)
            await self._take_slot()
            has_slot = True
            try:
                limits.start(math.inf)  # opening has a limit of its own
                connection = self._kept(key) or await self._open(
                    key, min(limits.connect, self._connect_timeout)
                )
                if body is not None and len(body) <= SHORT_BODY_BYTES:
                    limits.start(limits.read)
                    response = await connection.request(method, head, body)
                else:
                    upload = Streamed(request, limits) if body is None else LimitedPieces(body, limits)
                    limits.start(limits.write)
                    response = await connection.request_streamed(method, head, upload)
                content = connection.at_hand()
                handed_over = content is None
                stream: httpx.AsyncByteStream
                if content is None:
                    stream = Download(connection, limits, partial(self._leave, key, connection))
                else:
                    stream = httpx.ByteStream(content)
                return httpx.Response(
                    response.status,
                    headers=response.raw_headers,
                    stream=stream,
                    extensions={
                        "http_version": b"HTTP/" + response.version,
                        "reason_phrase": response.reason,
                    },
                )
            finally:
                if not handed_over:
                    self._leave(key, connection)
        raise _too_late(key[0], has_slot, connection)

    # --------------------------------------------------------------------------------------- slots and connections

    async def _take_slot(self) -> None:
        if not await self._slots.take() or self._slots.closed:
            raise httpx.ConnectError("the connections of this service are closed")

    def _kept(self, key: Key) -> Connection | None:
        """Take the connection that was used last and is still good, if there is one."""
        kept = self._idle.get(key)
        if not kept:
            return None
        now = trio.current_time()
        self._drop_expired(kept, now)
        while kept:
            connection = kept.pop()
            self._idle_count -= 1
            if connection.expires > now and not is_readable(connection.stream):
                connection.written = False
                self._busy.add(connection)
                return connection
            connection.close()
        return None

    def _drop_expired(self, kept: deque[Connection], now: float) -> None:
        while kept and kept[0].expires <= now:
            kept.popleft().close()
            self._idle_count -= 1

    def _drop_one(self) -> None:
        """Close a kept connection to make room for one to another origin."""
        for kept in self._idle.values():
            if kept:
                kept.popleft().close()
                self._idle_count -= 1
                return

    def _leave(self, key: Key, connection: Connection | None) -> None:
        """End an exchange, however it went: keep or close its connection and pass its slot on."""
        if connection is not None:
            self._busy.discard(connection)
            seconds = min(self._keepalive_expiry, connection.wait)
            if connection.reusable and seconds > 0 and not self._slots.closed:
                self._keep(key, connection, seconds)
            else:
                connection.close()
        self._slots.give_back()

    def _keep(self, key: Key, connection: Connection, seconds: float) -> None:
        kept = self._idle.get(key)
        if kept is None:
            kept = self._idle[key] = deque()
        now = trio.current_time()
        self._drop_expired(kept, now)
        connection.expires = now + seconds
        kept.append(connection)
        self._idle_count += 1

    async def _open(self, key: Key, timeout: float) -> Connection:
        if self._slots.in_use + self._idle_count > self._slots.limit:
            self._drop_one()
        with trio.CancelScope(deadline=trio.current_time() + timeout) as scope:
            self._connecting.add(scope)
            try:
                connection = Connection(await self._dial(*key))
            finally:
                self._connecting.discard(scope)
            if not self._slots.closed:
                self._busy.add(connection)
                return connection
            connection.close()
        if self._slots.closed:
            raise httpx.ConnectError("the connections of this service are closed")
        raise httpx.ConnectTimeout(f"no connection to {key[0]} within {timeout:g} s")

    async def _dial(self, origin: Origin, sni: str | None) -> trio.abc.Stream:
        proxy = self._proxies.choose(origin)
        first = origin if proxy is None else proxy.origin
        try:
            stream = await self._connect(first.host, first.port)
        except (OSError, UnicodeError, ValueError) as error:
            where = origin if proxy is None else f"the proxy {first}"
            raise httpx.ConnectError(f"no connection to {where}: {_reason(error)}") from error
        try:
            if proxy is not None:
                if proxy.origin.scheme == "https":
                    stream = await start_tls(
                        stream, self._ssl_context, proxy.origin.host, f"the proxy {proxy.origin}"
                    )
                await open_tunnel(stream, proxy, origin)
            if origin.scheme == "https":
                stream = await start_tls(stream, self._ssl_context, sni or origin.host, str(origin))
        except BaseException:
            close_now(stream)
            raise
        return stream


def _reason(error: BaseException) -> str:
    """Say why a connection failed: trio tells it in a group, of one error for each address."""
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        return "; ".join(dict.fromkeys(str(each) for each in cause.exceptions))
    return str(error) or type(error).__name__


def _too_late(origin: Origin, has_slot: bool, connection: Connection | None) -> httpx.TimeoutException:
    if not has_slot:
        return httpx.PoolTimeout(f"no connection to {origin} became free in time")
    if connection is None or not connection.written:
        return httpx.ConnectTimeout(f"no connection to {origin} in time")
    if not connection.complete:
        return httpx.WriteTimeout(f"{origin} did not take the request in time")
    return httpx.ReadTimeout(f"{origin} did not answer in time")
