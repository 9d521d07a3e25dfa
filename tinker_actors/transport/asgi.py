"""One conversation with an ASGI application: a request and its response, or the application's lifespan.

Theory of operation. An `Exchange` joins two tasks. The caller's task waits for the head of the response and
reads its body; the application's task calls `receive` and `send`. A body that the caller streams is read by a
third task, so that both directions flow at once. Between them stand bounded channels: a slow reader slows
the writer down.

An exchange ends in one of four ways:

    complete    the application sent its last chunk
    broken      it crashed or returned too early: the caller gets an httpx error with the cause
    aborted     the caller left: `receive` gives `http.disconnect`, and the application's task is cancelled
    timed out   as aborted, and the caller gets httpx's timeout error

The application's tasks are shielded: they end when their caller leaves or the transport is left, never
because a scope around the transport was cancelled. So whoever drains a service under a shield of his own
can still talk to it.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

import attrs
import httpx
import trio

__all__ = ["ASGIApp", "Exchange", "Lifespan", "Message", "Timeouts"]

Message: TypeAlias = MutableMapping[str, Any]  # ASGI's own shape: the keys depend on the type of the message
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]
Headers: TypeAlias = list[tuple[bytes, bytes]]

BODY_BUFFER = 8  # chunks of a response that may wait for their reader
BODILESS = frozenset({204, 304})  # RFC 9110 section 6.4.1
VERSIONS = {"version": "3.0", "spec_version": "2.4"}

_log = logging.getLogger(__name__)


@attrs.frozen
class Timeouts:
    """The part of httpx's timeouts that has a meaning without a network, in seconds.

    Attributes:
        read: for the head of the response, and for each chunk of its body.
        write: for the application to take each chunk of a streamed request.
        pool: for a place among the requests in flight.
    """

    read: float = math.inf
    write: float = math.inf
    pool: float = math.inf

    @classmethod
    def of(cls, request: httpx.Request) -> Timeouts:
        """Read the timeouts httpx put on a request; a missing one or None means no limit."""
        given = request.extensions.get("timeout", {})
        names = (field.name for field in attrs.fields(cls))
        return cls(**{name: given[name] for name in names if given.get(name) is not None})


class Exchange:
    """One request and its response.

    Args:
        app: the application.
        scope: its ASGI scope.
        request: what is sent.
        timeouts: limits for the caller's waits and for the upload.

    Attributes:
        request: what is sent.
        status: of the response, once it has begun.
        headers: of the response, once it has begun.
        ended: set when the application's tasks are gone.
        timeouts: limits for the caller's waits and for the upload.
    """

    def __init__(self, app: ASGIApp, scope: Message, request: httpx.Request, timeouts: Timeouts) -> None:
        self.request = request
        self.status: int | None = None
        self.headers: Headers = []
        self.ended = trio.Event()
        self._app = app
        self._scope = scope
        self.timeouts = timeouts
        self._failure: BaseException | None = None
        self._complete = False
        self._tasks = trio.CancelScope(shield=True)
        self._gone = trio.Event()  # the caller left or the response is complete: nothing more can be received
        self._turn = trio.Event()  # the request is sent, or the answer came before
        self._started = trio.Event()  # the response began or never will
        self._known = _known_body(request)
        self._request_given = False
        self._feed, self._fed = trio.open_memory_channel[bytes](0)
        self._write, self._read = trio.open_memory_channel[bytes](BODY_BUFFER)

    # --------------------------------------------------------------------------------- the application's side

    async def run(self) -> None:
        """Run the application's side; what it raises becomes the caller's error. Checkpoints."""
        try:
            with self._tasks:
                if self._known is None:
                    await self._call_and_upload()
                else:
                    self._turn.set()
                    await self._call()
        finally:
            self._settle(self._incomplete())
            self.ended.set()

    async def _call_and_upload(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._upload, name=f"upload to {self.request.url.path}")
            await self._call()
            nursery.cancel_scope.cancel(reason="the application has answered")

    async def _call(self) -> None:  # noqa: ASYNC910 - what it awaits may raise first
        try:
            await self._app(self._scope, self._receive, self._send)
        except Exception as exc:  # noqa: BLE001 - whatever an application raises becomes its caller's error
            self._crashed(exc)

    def _crashed(self, exc: Exception) -> None:
        if self._complete:
            _log.error("%s failed after its response", self.request.url.path, exc_info=exc)
        elif self._gone.is_set():
            _log.debug("%s failed after its caller had left", self.request.url.path, exc_info=exc)
        else:
            self.fail(exc)

    def fail(self, cause: BaseException) -> None:
        """Break the exchange: the caller gets an httpx error with this cause."""
        kind = httpx.RemoteProtocolError if self.status is None else httpx.ReadError
        error = kind(f"the application failed: {cause!r}", request=self.request)
        error.__cause__ = cause
        self._settle(error)

    def abort(self, reason: str) -> None:
        """Tell the application that the caller has left, and cancel its task."""
        if not self._complete:
            # In this order a pending receive() returns the disconnect, and the next checkpoint is cancelled.
            self._settle(httpx.ReadError(reason, request=self.request))
            self._tasks.cancel(reason=reason)

    def _incomplete(self) -> httpx.RemoteProtocolError:
        missing = "without a response" if self.status is None else "before the end of its response"
        return httpx.RemoteProtocolError(f"the application returned {missing}", request=self.request)

    def _settle(self, failure: BaseException) -> None:
        """End the exchange if it has not ended, and let everybody who waits go on."""
        if self._gone.is_set():
            return
        self._failure = failure
        self._finish()

    def _finish(self) -> None:
        self._gone.set()
        self._turn.set()
        self._started.set()
        self._write.close()
        self._fed.close()

    async def _upload(self) -> None:  # noqa: ASYNC910 - what it awaits may raise first
        """Feed the caller's stream to the application, as fast as it takes it."""
        try:
            async with _reading(self.request.stream) as chunks:
                async for chunk in chunks:
                    with trio.fail_after(self.timeouts.write):
                        await self._feed.send(chunk)
            self._feed.close()  # only here: a request that broke off must not look whole
        except trio.TooSlowError as exc:
            error = httpx.WriteTimeout("the request was not taken in time", request=self.request)
            error.__cause__ = exc
            self._settle(error)
            self._tasks.cancel(reason="write timeout")
        except trio.BrokenResourceError:
            pass  # nobody reads the request any more
        except Exception as exc:  # noqa: BLE001 - the caller's own stream failed; he gets his exception
            self._settle(exc)
            self._tasks.cancel(reason="the request's stream failed")
        finally:
            self._turn.set()

    async def _receive(self) -> Message:
        if self._gone.is_set():
            await trio.lowlevel.cancel_shielded_checkpoint()
        elif self._request_given:
            await self._gone.wait()
        elif (part := await self._next_part()) is not None:
            return part
        return {"type": "http.disconnect"}

    async def _next_part(self) -> Message | None:
        """Return the next part of the request, or None if the exchange ended meanwhile."""
        if self._known is not None:
            await trio.lowlevel.checkpoint()
            self._request_given = True
            return {"type": "http.request", "body": self._known, "more_body": False}
        try:
            return {"type": "http.request", "body": await self._fed.receive(), "more_body": True}
        except trio.EndOfChannel:
            self._request_given = True
            return {"type": "http.request", "body": b"", "more_body": False}  # noqa: ASYNC910 - receive() did
        except trio.ClosedResourceError:
            return None  # noqa: ASYNC910 - receive() did

    async def _send(self, message: Message) -> None:
        if self._gone.is_set() and not self._complete:
            await trio.lowlevel.checkpoint()
            raise ConnectionResetError("the caller has left")
        if message["type"] == "http.response.start" and self.status is None:
            self._begin(message)
            await trio.lowlevel.checkpoint()
        elif message["type"] == "http.response.body" and self.status is not None and not self._complete:
            await self._pass_on(message)
        else:
            raise RuntimeError(f"{message['type']} is not allowed here")

    def _begin(self, message: Message) -> None:
        self.status = int(message["status"])
        self.headers = [(bytes(name), bytes(value)) for name, value in message.get("headers", ())]
        self._turn.set()
        self._started.set()

    async def _pass_on(self, message: Message) -> None:
        body = bytes(message.get("body", b""))
        if body and self.request.method != "HEAD" and self.status not in BODILESS:
            try:
                await self._write.send(body)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
                raise ConnectionResetError("the caller has left") from exc
        else:
            await trio.lowlevel.checkpoint()
        if not message.get("more_body", False):
            self._complete = True
            self._finish()

    # -------------------------------------------------------------------------------------- the caller's side

    async def head(self) -> None:
        """Wait until the response has begun; `status` and `headers` are set then. Checkpoints.

        Raises:
            httpx.ReadTimeout: the response did not begin within the read timeout after the request was sent.
            httpx.RemoteProtocolError: the application crashed or returned without a response.
        """
        with trio.CancelScope() as waiting:  # the limit for the answer starts when the question is out
            await self._turn.wait()
            waiting.deadline = trio.current_time() + self.timeouts.read
            await self._started.wait()
        if waiting.cancelled_caught:
            raise self._timed_out("the response did not begin in time")
        if self.status is None:
            assert self._failure is not None
            raise self._failure

    async def chunk(self) -> bytes | None:
        """Return the next chunk of the response's body, None at its end. Checkpoints.

        Raises:
            httpx.ReadTimeout: no chunk came within the read timeout.
            httpx.ReadError: the application crashed.
            httpx.RemoteProtocolError: the application returned before the end of the body.
        """
        try:
            with trio.fail_after(self.timeouts.read):
                return await self._read.receive()
        except trio.TooSlowError as exc:
            raise self._timed_out("the response did not go on in time") from exc
        except trio.EndOfChannel:
            if self._failure is not None:
                raise self._failure from self._failure.__cause__
            return None  # noqa: ASYNC910 - receive() did

    def _timed_out(self, text: str) -> httpx.ReadTimeout:
        self.abort("read timeout")
        return httpx.ReadTimeout(text, request=self.request)


@contextlib.asynccontextmanager
async def _reading(stream: object) -> AsyncGenerator[AsyncIterator[bytes], None]:  # noqa: ASYNC911 - no wait
    """Iterate over a request's stream, and close the generator that does it if it is left early."""
    assert isinstance(stream, httpx.AsyncByteStream)  # AsyncClient refuses the other kind
    chunks = aiter(stream)
    try:
        yield chunks  # noqa: ASYNC911 - entering waits for nothing
    finally:
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()


def _known_body(request: httpx.Request) -> bytes | None:
    try:
        return request.content
    except httpx.RequestNotRead:
        return None


class Lifespan:
    """The start and stop of an ASGI application.

    Args:
        app: the application.

    Attributes:
        state: what the application keeps for its requests.
        failure: what it raised outside of its orderly end.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.state: dict[str, object] = {}
        self.failure: Exception | None = None
        self._app = app
        self._task = trio.CancelScope(shield=True)
        self._refusal: str | None = None
        self._asked = False
        self._started = trio.Event()
        self._stop = trio.Event()
        self._ended = trio.Event()

    async def run(self, on_failure: Callable[[Exception], None]) -> None:  # noqa: ASYNC910 - the app may raise
        """Run the application's lifespan call to its end; `on_failure` hears what it raised."""
        scope: Message = {"type": "lifespan", "asgi": VERSIONS, "state": self.state}
        try:
            with self._task:
                await self._app(scope, self._receive, self._send)
        except Exception as exc:  # noqa: BLE001 - it is raised to whoever enters or leaves the transport
            self.failure = exc
            on_failure(exc)
        finally:
            self._started.set()
            self._ended.set()

    async def startup(self) -> None:
        """Wait until the application has started. Checkpoints.

        Raises:
            httpx.ConnectError: it refused to start, or raised; what it raised is the cause.
        """
        await self._started.wait()
        reason = self._refusal if self.failure is None else repr(self.failure)
        if reason is not None:
            raise httpx.ConnectError(f"the application did not start: {reason}") from self.failure

    async def shutdown(self, grace: float) -> None:
        """Ask the application to stop, cancel it after `grace` seconds, and wait for its end. Checkpoints."""
        self._stop.set()
        with trio.move_on_after(grace):
            await self._ended.wait()
        if not self._ended.is_set():
            _log.warning("the application did not stop within %s s and is cancelled", grace)
            self._task.cancel(reason="the transport is being left")
        await self._ended.wait()

    async def _receive(self) -> Message:
        if not self._asked:
            self._asked = True
            await trio.lowlevel.checkpoint()
            return {"type": "lifespan.startup"}
        await self._stop.wait()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        await trio.lowlevel.checkpoint()
        if message["type"] == "lifespan.startup.complete":
            self._started.set()
        elif message["type"].endswith(".failed"):  # the end of the call follows, with the reason
            self._refusal = message.get("message") or message["type"]
