"""An httpx transport into an ASGI application of the same process.

Theory of operation. Inside `async with`, a nursery holds one task per request in flight and one for the
application's lifespan. They are shielded from cancellation that comes from outside: leaving the context ends
them, in this order:

    1. no new request is taken
    2. the requests in flight are aborted and waited for
    3. the lifespan is asked to stop, and cancelled after `grace` seconds
    4. the nursery closes: nothing of the application runs any more

The body's own exception leaves the context as it is, never inside an exception group.
"""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import Self

import httpx
import trio

from .asgi import VERSIONS, ASGIApp, Exchange, Lifespan, Message, Timeouts

__all__ = ["InProcessTransport"]

DEFAULT_PORTS = {"http": 80, "https": 443}
CLIENT = ("127.0.0.1", 0)


class InProcessTransport(httpx.AsyncBaseTransport):
    """Sends requests straight into an ASGI application, without a socket.

    Bodies stream in both directions, and a response is returned as soon as its head is there. httpx's read,
    write and pool timeouts hold, on trio's clock. Whoever leaves early (cancelled, timed out, response closed
    before its end) gives the application `http.disconnect` and cancels its task.

    Use it with `async with`, directly or through `httpx.AsyncClient`, or both: the outermost one counts.
    An instance belongs to the trio loop that entered it. To reach the same application from the loop of
    another thread, enter a second instance there with `lifespan=False`.

    Args:
        app: the ASGI application.
        lifespan: start and stop the application with the context.
        max_in_flight: requests that may run at once; more wait, up to the pool timeout. None is no limit.
        grace: seconds the application has to stop before it is cancelled.
    """

    def __init__(
        self, app: ASGIApp, *, lifespan: bool = True, max_in_flight: int | None = None, grace: float = 10.0
    ) -> None:
        self._app = app
        self._grace = grace
        self._shield = 2 * grace + 1  # longer than `_end` takes; what it leaves is waited for by the nursery
        self._lifespan = Lifespan(app) if lifespan else None
        self._limiter = None if max_in_flight is None else trio.CapacityLimiter(max_in_flight)
        self._exchanges: set[Exchange] = set()
        self._entered = 0
        self._closing = False
        self._token: trio.lowlevel.TrioToken | None = None
        self._nursery: trio.Nursery | None = None
        self._nursery_context: contextlib.AbstractAsyncContextManager[trio.Nursery] | None = None

    async def __aenter__(self) -> Self:
        """Start the application. Checkpoints.

        Raises:
            httpx.ConnectError: the application did not start.
            RuntimeError: the transport had been left or closed before.
        """
        if self._closing:
            raise RuntimeError("InProcessTransport can be entered once; make another one")
        self._entered += 1
        if self._entered > 1:
            await trio.lowlevel.checkpoint()
            return self
        self._token = trio.lowlevel.current_trio_token()
        self._nursery_context = trio.open_nursery()
        self._nursery = await self._nursery_context.__aenter__()
        try:
            await self._start()
        except BaseException:
            with trio.move_on_after(self._shield, shield=True):
                await self._end()
            await self._nursery_context.__aexit__(None, None, None)  # noqa: ASYNC102 - children have ended
            raise
        return self

    async def _start(self) -> None:
        if self._lifespan is not None:
            assert self._nursery is not None
            self._nursery.start_soon(self._lifespan.run, self._application_failed, name="ASGI lifespan")
            await self._lifespan.startup()
        await trio.lowlevel.checkpoint()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        """Stop the application. Checkpoints.

        Raises:
            httpx.CloseError: the application had failed, and the body raised nothing itself.
        """
        if self._entered > 1:
            self._entered -= 1
            await trio.lowlevel.checkpoint()  # noqa: ASYNC102 - nothing is cleaned up here
            return
        assert self._nursery_context is not None
        with trio.move_on_after(self._shield, shield=True):
            await self._end()
        await self._nursery_context.__aexit__(None, None, None)  # noqa: ASYNC102 - its children have ended
        if exc_value is None and self._lifespan is not None and self._lifespan.failure is not None:
            cause = self._lifespan.failure
            raise httpx.CloseError(f"the application failed: {cause!r}") from cause

    async def _end(self) -> None:
        await self.aclose()
        if self._lifespan is not None:
            await self._lifespan.shutdown(self._grace)

    async def aclose(self) -> None:
        """Abort the requests in flight and take no more; leaving the context ends the rest. Checkpoints."""
        self._closing = True
        for exchange in list(self._exchanges):
            exchange.abort("the transport is being left")
        for exchange in list(self._exchanges):
            await exchange.ended.wait()
        await trio.lowlevel.checkpoint()

    def _application_failed(self, cause: Exception) -> None:
        for exchange in list(self._exchanges):
            exchange.fail(cause)
            exchange.abort("the application failed")

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return the response once its head is there. Checkpoints.

        Raises:
            httpx.PoolTimeout: no place among `max_in_flight` requests became free in time.
            httpx.ReadTimeout: the response did not begin in time.
            httpx.WriteTimeout: the application did not take the request in time.
            httpx.RemoteProtocolError: the application crashed or returned before its response began.
            httpx.ConnectError: the application has failed.
            RuntimeError: the transport is not entered, or was entered in another trio loop.
        """
        self._check_open(request)
        exchange = Exchange(self._app, self._scope(request), request, Timeouts.of(request))
        if self._limiter is not None:
            await self._take_place(exchange, self._limiter)
        self._begin(exchange)
        try:
            await exchange.head()
        except BaseException:
            exchange.abort("the caller has left")
            raise
        assert exchange.status is not None
        extensions = {"http_version": b"HTTP/1.1"}
        return httpx.Response(
            exchange.status, headers=exchange.headers, stream=_ResponseStream(exchange), extensions=extensions
        )

    def _check_open(self, request: httpx.Request) -> None:
        if self._token is None:
            raise RuntimeError("InProcessTransport must be entered with `async with` before it is used")
        if self._token is not trio.lowlevel.current_trio_token():
            raise RuntimeError("InProcessTransport belongs to the trio loop that entered it")
        if self._closing:
            raise httpx.ConnectError("the transport is closed", request=request)
        if self._lifespan is not None and self._lifespan.failure is not None:
            cause = self._lifespan.failure
            raise httpx.ConnectError(f"the application failed: {cause!r}", request=request) from cause

    async def _take_place(self, exchange: Exchange, limiter: trio.CapacityLimiter) -> None:
        try:
            with trio.fail_after(exchange.timeouts.pool):
                await limiter.acquire_on_behalf_of(exchange)
        except trio.TooSlowError as exc:
            raise httpx.PoolTimeout("too many requests in flight", request=exchange.request) from exc
        try:
            self._check_open(exchange.request)  # the transport may have been closed while this one waited
        except BaseException:
            limiter.release_on_behalf_of(exchange)
            raise

    def _begin(self, exchange: Exchange) -> None:
        assert self._nursery is not None
        self._exchanges.add(exchange)
        request = exchange.request
        self._nursery.start_soon(self._run, exchange, name=f"{request.method} {request.url.path}")

    async def _run(self, exchange: Exchange) -> None:
        try:
            await exchange.run()
        finally:
            self._exchanges.discard(exchange)
            if self._limiter is not None:
                self._limiter.release_on_behalf_of(exchange)

    def _scope(self, request: httpx.Request) -> Message:
        url = request.url
        return {
            "type": "http",
            "asgi": VERSIONS,
            "http_version": "1.1",
            "method": request.method,
            "scheme": url.scheme,
            "path": url.path,
            "raw_path": url.raw_path.partition(b"?")[0],
            "query_string": url.query,
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "server": (url.host, url.port or DEFAULT_PORTS.get(url.scheme)),
            "client": CLIENT,
            "state": {} if self._lifespan is None else self._lifespan.state.copy(),
            "extensions": {},
        }


class _ResponseStream(httpx.AsyncByteStream):
    """The body of a response; closing it before its end aborts the exchange."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self._exchange.chunk()
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        self._exchange.abort("the response was closed")
        await trio.lowlevel.checkpoint()
