"""The server's side of HTTP/1.1 on a socket, by h11: connections whose requests are read whole.

Theory of operation. One task per connection reads a request, has it answered, and makes ready for the next. While an
answer is on its way, another task may `watch` the socket: bytes that come meanwhile are kept for the next request.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import h11
import trio

__all__ = ["ServerConnection", "listen"]

_CHUNK = 64 * 1024


class ServerConnection:
    """One connection of a client.

    Attributes:
        http: the state of the connection.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.http = h11.Connection(h11.SERVER)
        self._stream = stream

    async def receive(self) -> bytes:
        """Return bytes that have come; none if the client has left."""
        try:
            return bytes(await self._stream.receive_some(_CHUNK))
        except trio.BrokenResourceError:
            return b""

    async def watch(self) -> None:
        """Keep what comes for the next request, until the client has left."""
        while data := await self.receive():
            self.http.receive_data(data)

    async def read_request(self) -> tuple[h11.Request, bytes] | None:
        """Return the next request and its body; None if there is none.

        Raises:
            h11.RemoteProtocolError: what came is no request.
        """
        head: h11.Request | None = None
        content = bytearray()
        while True:
            event = self.http.next_event()
            if event is h11.NEED_DATA:
                if self.http.they_are_waiting_for_100_continue:
                    go_on = h11.InformationalResponse(status_code=100, headers=[])
                    await self._stream.send_all(self.http.send(go_on) or b"")
                self.http.receive_data(await self.receive())
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                content += event.data
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                return head, bytes(content)
            else:
                return None

    def begin_next(self) -> bool:
        """Make ready for the next request, behind an answer; returns whether both sides will have one."""
        if h11.MUST_CLOSE in (self.http.our_state, self.http.their_state):
            return False
        self.http.start_next_cycle()
        return True


@contextlib.asynccontextmanager
async def listen(
    serve: Callable[[trio.SocketStream], Awaitable[None]], *, host: str = "127.0.0.1"
) -> AsyncIterator[int]:
    """Listen on a free port, and yield it; leaving it closes all connections.

    Args:
        serve: serves one connection; one that breaks, or whose client does not speak HTTP, just ends.
        host: the address to listen on.
    """
    listeners = await trio.open_tcp_listeners(0, host=host)

    async def serve_one(stream: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
            async with stream:
                await serve(stream)

    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, serve_one, listeners)
        try:
            yield listeners[0].socket.getsockname()[1]
        except Exception as error:  # noqa: BLE001 - it leaves as it came, in no exception group
            failure = error
        finally:
            nursery.cancel_scope.cancel(reason="nobody is to be served any more")
    if failure is not None:
        raise failure
