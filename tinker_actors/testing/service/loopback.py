"""A scripted service on a loopback socket: HTTP/1.1 by h11, and broken where the plan says so.

Theory of operation. One task per connection reads a request, asks the service, and sends the planned answer. While an
answer is held or delayed, a second task watches the socket: a client that leaves ends the wait. Bytes that come
meanwhile are kept for the next request. An answer that breaks off takes its connection with it.
"""

from __future__ import annotations

import contextlib
import ssl
import struct
from collections.abc import AsyncIterator
from socket import SO_LINGER, SOL_SOCKET

import h11
import trio

from .front import Front
from .reply import ReplyPlan, ServedRequest
from .service import ScriptedService

__all__ = ["serve_scripted"]

_CHUNK = 64 * 1024
_BREAKING = frozenset({"drop_head", "drop_body", "reset", "stall_head", "stall_body", "refuse_connection"})


@contextlib.asynccontextmanager
async def serve_scripted(
    service: ScriptedService, *, ssl_context: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """Serve a scripted service on 127.0.0.1, and yield its base URL; leaving it closes everything.

    Sockets have no virtual time: use it on the real clock.

    Args:
        service: the service.
        ssl_context: makes it https.
    """
    front = Front(service)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]

    async def serve(stream: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
            async with stream:
                await _Connection(front, await _dressed(stream, ssl_context), stream).run()

    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, serve, listeners)
        try:
            yield f"{'http' if ssl_context is None else 'https'}://127.0.0.1:{port}"
        except Exception as error:  # noqa: BLE001 - it leaves as it came, in no exception group
            failure = error
        finally:
            nursery.cancel_scope.cancel(reason="the service is not needed any more")
    if failure is not None:
        raise failure


async def _dressed(stream: trio.SocketStream, context: ssl.SSLContext | None) -> trio.abc.Stream:
    if context is None:
        return stream
    secure = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
    await secure.do_handshake()
    return secure


class _Connection:
    """One connection, for as long as it lasts."""

    def __init__(self, front: Front, stream: trio.abc.Stream, socket: trio.SocketStream) -> None:
        self._front = front
        self._stream = stream
        self._socket = socket
        self._http = h11.Connection(h11.SERVER)

    async def run(self) -> None:
        """Answer requests until one side has had enough."""
        while (request := await self._request()) is not None:
            plan = await self._unless_left(request)
            if plan is None or not await self._send(plan):
                return
            if self._http.our_state is h11.MUST_CLOSE or self._http.their_state is h11.MUST_CLOSE:
                return
            self._http.start_next_cycle()

    async def _plan(self, request: ServedRequest) -> ReplyPlan:
        plan = await self._front.plan(request)
        await trio.sleep(plan.delay)
        if plan.ending == "stall_head":
            await trio.sleep_forever()
        return plan

    async def _unless_left(self, request: ServedRequest) -> ReplyPlan | None:
        plan: ReplyPlan | None = None
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                while data := await self._receive():
                    self._http.receive_data(data)
                nursery.cancel_scope.cancel(reason="the client has left")

            nursery.start_soon(watch)
            plan = await self._plan(request)
            nursery.cancel_scope.cancel(reason="the answer is known")
        return plan

    async def _receive(self) -> bytes:
        try:
            return bytes(await self._stream.receive_some(_CHUNK))
        except trio.BrokenResourceError:
            return b""

    async def _request(self) -> ServedRequest | None:
        head: h11.Request | None = None
        content = bytearray()
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                if self._http.they_are_waiting_for_100_continue:
                    await self._stream.send_all(
                        self._http.send(h11.InformationalResponse(status_code=100, headers=[])) or b""
                    )
                self._http.receive_data(await self._receive())
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                content += event.data
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                return _served(head, bytes(content))
            else:
                return None

    async def _send(self, plan: ReplyPlan) -> bool:
        """Send an answer; returns whether the connection is still good."""
        if plan.ending in ("drop_head", "refuse_connection"):
            return False
        head = h11.Response(
            status_code=plan.status,
            headers=[*plan.headers, ("content-length", str(len(plan.body)))],
        )
        data = (self._http.send(head) or b"") + (self._http.send(h11.Data(data=plan.sent)) or b"")
        if plan.ending not in _BREAKING:
            data += self._http.send(h11.EndOfMessage()) or b""
            await self._stream.send_all(data * (2 if plan.ending == "twice" else 1))
            return True
        await self._stream.send_all(data)
        if plan.ending == "stall_body":
            while await self._receive():
                pass
        elif plan.ending == "reset":
            self._socket.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
            self._socket.socket.close()
        return False


def _served(head: h11.Request, content: bytes) -> ServedRequest:
    path, _, query = head.target.decode("ascii").partition("?")
    headers = tuple((name.decode("ascii"), value.decode("latin-1")) for name, value in head.headers)
    return ServedRequest(
        method=head.method.decode("ascii"), path=path, query=query, headers=headers, content=content
    )
