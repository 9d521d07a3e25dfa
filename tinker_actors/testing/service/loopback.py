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

from tinker_actors.testing.http_server import ServerConnection, listen

from .front import Front
from .reply import ReplyPlan, ServedRequest
from .service import ScriptedService

__all__ = ["serve_scripted"]

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

    async def serve(stream: trio.SocketStream) -> None:
        await _Connection(front, await _dressed(stream, ssl_context), stream).run()

    async with listen(serve) as port:
        yield f"{'http' if ssl_context is None else 'https'}://127.0.0.1:{port}"


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
        self._client = ServerConnection(stream)

    async def run(self) -> None:
        """Answer requests until one side has had enough."""
        while (came := await self._client.read_request()) is not None:
            plan = await self._unless_left(_served(*came))
            if plan is None or not await self._send(plan) or not self._client.begin_next():
                return

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
                await self._client.watch()
                nursery.cancel_scope.cancel(reason="the client has left")

            nursery.start_soon(watch)
            plan = await self._plan(request)
            nursery.cancel_scope.cancel(reason="the answer is known")
        return plan

    async def _send(self, plan: ReplyPlan) -> bool:
        """Send an answer; returns whether the connection is still good."""
        if plan.ending in ("drop_head", "refuse_connection"):
            return False
        http = self._client.http
        head = h11.Response(
            status_code=plan.status,
            headers=[*plan.headers, ("content-length", str(len(plan.body)))],
        )
        data = (http.send(head) or b"") + (http.send(h11.Data(data=plan.sent)) or b"")
        if plan.ending not in _BREAKING:
            data += http.send(h11.EndOfMessage()) or b""
            await self._stream.send_all(data * (2 if plan.ending == "twice" else 1))
            return True
        await self._stream.send_all(data)
        if plan.ending == "stall_body":
            while await self._client.receive():
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
