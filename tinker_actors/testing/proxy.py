"""A proxy on loopback that notes what clients ask of a service and what it answers, and loses answers when told.

Theory of operation. One task per connection reads a request whole, asks the service over a connection of its own, and
sends the answer on. A request is noted before it is sent on, and its answer before that is sent on, so whatever becomes
of the client, the recording knows what the service took. If the client leaves meanwhile, a poll is given up; any
other request is asked to its end. A service that cannot be reached costs the client its connection, as if it had
itself been cut off.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit

import h11
import trio

from .http_server import ServerConnection, listen
from .recording import Exchange, Recording, describe_reply, describe_request

__all__ = ["RecordingProxy", "open_recording_proxy"]

_CHUNK = 64 * 1024
_CONNECT = 5.0  # seconds to reach a service on this machine
_HOP = frozenset({b"connection", b"keep-alive", b"transfer-encoding", b"content-length", b"expect"})
"""Headers that are between two neighbours, not between the ends; the length is written anew."""
_UNREACHABLE = (OSError, trio.TooSlowError, trio.BrokenResourceError, h11.RemoteProtocolError)
_POLLS = frozenset({"retrieve_future", "retrieve_futures"})


class RecordingProxy:
    """A proxy in front of one service.

    Attributes:
        recording: what came through.
        url: where clients find it, once it listens.
    """

    def __init__(self, upstream: str) -> None:
        split = urlsplit(upstream)
        self.recording = Recording()
        self.url = ""
        self._address = split.hostname or "127.0.0.1", split.port or 80
        self._to_lose: dict[str, int] = {}
        self._under_way: set[int] = set()
        self._changed = trio.lowlevel.ParkingLot()

    async def settle(self) -> None:
        """Wait until no request is under way. Always a checkpoint."""
        await trio.lowlevel.checkpoint()
        while self._under_way:
            await self._changed.park()

    @contextlib.contextmanager
    def asking(self, exchange: Exchange) -> Iterator[None]:
        """Count a request as under way."""
        self._under_way.add(exchange.number)
        try:
            yield
        finally:
            self._under_way.remove(exchange.number)
            self._changed.unpark_all()

    def lose_answers(self, endpoint: str, count: int = 1) -> None:
        """Close the connection instead of sending on the next answers of an endpoint, which the service has given."""
        self._to_lose[endpoint] = self._to_lose.get(endpoint, 0) + count

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one client's connection."""
        await _Connection(self, stream).run()

    def note(self, request: h11.Request, body: bytes) -> Exchange:
        """Note a request that has come."""
        headers = dict(request.headers)
        fields, content = describe_request(
            headers.get(b"content-type", b"").decode("latin-1"),
            headers.get(b"content-encoding", b"").decode("latin-1"),
            body,
        )
        exchange = Exchange(
            number=len(self.recording.exchanges),
            at=trio.current_time(),
            method=request.method.decode("ascii"),
            path=request.target.decode("ascii").partition("?")[0],
            fields=fields,
            content=content,
        )
        self.recording.exchanges.append(exchange)
        return exchange

    def loses(self, exchange: Exchange) -> bool:
        """Whether this answer is one to lose; counts it."""
        left = self._to_lose.get(exchange.endpoint, 0)
        self._to_lose[exchange.endpoint] = max(0, left - 1)
        return left > 0

    async def ask(self, request: h11.Request, body: bytes) -> tuple[h11.Response, bytes]:
        """Ask the service, on a new connection.

        Raises:
            OSError: it cannot be reached.
            trio.BrokenResourceError: the connection broke.
            h11.RemoteProtocolError: it closed the connection before its answer was whole.
        """
        with trio.fail_after(_CONNECT):
            stream = await trio.open_tcp_stream(*self._address)
        http = h11.Connection(h11.CLIENT)
        headers = [(name, value) for name, value in request.headers if name not in _HOP]
        headers += [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
        head = h11.Request(method=request.method, target=request.target, headers=headers)
        async with stream:
            data = (http.send(head) or b"") + (http.send(h11.Data(data=body)) or b"")
            await stream.send_all(data + (http.send(h11.EndOfMessage()) or b""))
            return await _read_answer(stream, http)


async def _read_answer(stream: trio.abc.Stream, http: h11.Connection) -> tuple[h11.Response, bytes]:
    response: h11.Response | None = None
    body = bytearray()
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(bytes(await stream.receive_some(_CHUNK)))
        elif isinstance(event, h11.Response):
            response = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage) and response is not None:
            return response, bytes(body)


class _Connection:
    """One connection of a client, for as long as it lasts."""

    def __init__(self, proxy: RecordingProxy, stream: trio.SocketStream) -> None:
        self._proxy = proxy
        self._stream = stream
        self._client = ServerConnection(stream)
        self._left = False

    async def run(self) -> None:
        """Pass requests on until one side has had enough."""
        while (came := await self._client.read_request()) is not None:
            request, body = came
            exchange = self._proxy.note(request, body)
            answer = await self._ask(exchange, request, body)
            if answer is None or self._proxy.loses(exchange):
                return
            await self._send(*answer)
            exchange.delivered = True
            if not self._client.begin_next():
                return

    async def _ask(
        self, exchange: Exchange, request: h11.Request, body: bytes
    ) -> tuple[h11.Response, bytes] | None:
        """Return the service's answer; None if there is none, or nobody who waits for it."""
        answer: tuple[h11.Response, bytes] | None = None
        async with trio.open_nursery() as nursery:
            asking = trio.CancelScope()

            async def watch() -> None:
                await self._client.watch()
                self._left = True
                if exchange.endpoint in _POLLS:
                    asking.cancel(reason="the client has left")

            nursery.start_soon(watch)
            with asking, self._proxy.asking(exchange), contextlib.suppress(*_UNREACHABLE):
                answer = await self._proxy.ask(request, body)
                response, content = answer
                kind = dict(response.headers).get(b"content-type", b"").decode("latin-1")
                exchange.status, exchange.reply = response.status_code, describe_reply(kind, content)
            nursery.cancel_scope.cancel(reason="the answer is known")
        return None if self._left else answer

    async def _send(self, response: h11.Response, body: bytes) -> None:
        headers = [(name, value) for name, value in response.headers if name not in _HOP]
        if response.status_code not in (204, 304):
            headers.append((b"content-length", b"%d" % len(body)))
        head = h11.Response(status_code=response.status_code, headers=headers, reason=response.reason)
        http = self._client.http
        data = (http.send(head) or b"") + (http.send(h11.Data(data=body)) or b"")
        await self._stream.send_all(data + (http.send(h11.EndOfMessage()) or b""))


@contextlib.asynccontextmanager
async def open_recording_proxy(upstream: str, *, host: str = "127.0.0.1") -> AsyncIterator[RecordingProxy]:
    """Open a proxy in front of a service; leaving it closes all connections.

    Sockets have no virtual time: use it on the real clock.

    Args:
        upstream: the service's base URL, `http`; what stands behind the port is ignored.
        host: the address to listen on.
    """
    proxy = RecordingProxy(upstream)
    async with listen(proxy.serve, host=host) as port:
        proxy.url = f"http://{host}:{port}"
        yield proxy
