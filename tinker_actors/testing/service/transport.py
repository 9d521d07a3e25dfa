"""A scripted service at the transport's seam: an httpx transport, in memory, on any clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Self, TypeAlias

import httpx
import trio

from .front import Front
from .reply import ReplyPlan, ServedRequest
from .service import ScriptedService

__all__ = ["ScriptedTransport", "Watcher"]

Watcher: TypeAlias = Callable[[Literal["request", "answer"], ServedRequest], None]
"""Is told of a request before it reaches the service, and again when it was carried out and its answer is on its way;
what it raises, the caller gets."""


class ScriptedTransport(httpx.AsyncBaseTransport):
    """Carries requests to a scripted service in this process, and what goes wrong back.

    Drops are httpx's own exceptions, as a connection would raise them; stalls last until the request's read timeout or
    its caller's deadline. There is no socket, so it works on virtual time.

    Args:
        service: the service; several transports may lead to it, all in one loop.
        watch: is told of each request, before and after.
    """

    def __init__(self, service: ScriptedService, watch: Watcher | None = None) -> None:
        self.service = service
        self._front = Front(service)
        self._watch = watch

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a request; always a checkpoint.

        Raises:
            httpx.TransportError: the connection broke, as planned.
        """
        await trio.lowlevel.checkpoint()
        served = ServedRequest(
            method=request.method,
            path=request.url.path,
            query=request.url.query.decode("ascii"),
            headers=tuple((name.lower(), value) for name, value in request.headers.items()),
            content=await request.aread(),
        )
        timeout = _read_timeout(request)
        with trio.move_on_after(timeout):
            return await self._answer(request, served, timeout)
        raise httpx.ReadTimeout("no answer within the read timeout", request=request)

    async def _answer(self, request: httpx.Request, served: ServedRequest, timeout: float) -> httpx.Response:
        if self._watch is not None:
            self._watch("request", served)
        plan = await self._front.plan(served)
        await trio.sleep(plan.delay)
        if self._watch is not None:
            self._watch("answer", served)
        match plan.ending:
            case "stall_head":
                await trio.sleep_forever()
            case "refuse_connection":
                raise httpx.ConnectError("All connection attempts failed", request=request)
            case "drop_head":
                text = "Server disconnected without sending a response."
                raise httpx.RemoteProtocolError(text, request=request)
            case _:
                pass
        headers = [*plan.headers, ("content-length", str(len(plan.body)))]
        return httpx.Response(plan.status, headers=headers, stream=_Body(plan, timeout, request))


def _read_timeout(request: httpx.Request) -> float:
    seconds: float | None = request.extensions.get("timeout", {}).get("read")
    return float("inf") if seconds is None else seconds


class _Body(httpx.AsyncByteStream):
    """A body that may break off or stall."""

    def __init__(self, plan: ReplyPlan, timeout: float, request: httpx.Request) -> None:
        self._plan = plan
        self._timeout = timeout
        self._request = request

        self._given = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        if not self._given:
            self._given = True
            return self._plan.sent
        match self._plan.ending:
            case "stall_body":
                await trio.sleep(self._timeout)
                raise httpx.ReadTimeout("the body stopped", request=self._request)
            case "drop_body":
                got, whole = len(self._plan.sent), len(self._plan.body)
                text = "peer closed connection without sending complete message body"
                text = f"{text} (received {got} bytes, expected {whole})"
                raise httpx.RemoteProtocolError(text, request=self._request)
            case "reset":
                raise httpx.ReadError("connection reset", request=self._request)
            case _:
                raise StopAsyncIteration
