"""The heartbeat's own thread and connection.

Theory of operation. User code that blocks the event loop must not cost it its models, so beats are sent from a
thread that runs a trio loop of its own over a connection of its own. The main loop turns a counter (`Pulse`);
the thread watches it. A loop that stands still for more than a second is reported with the stack it stands in;
one that stands still for `max_block` gets no more beats, so that a hung program does not hold its models for
ever. Facts go back to the main loop as calls of `report`; the main loop stops the thread and waits for it.

`Heart.beat_in_loop` does the same beating without a thread or a watchdog, for virtual time.
"""

from __future__ import annotations

import contextlib
import random
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias

import attrs
import httpx
import trio

from tinker_actors.kernel.frozen_heap import frozen_heap
from tinker_actors.kernel.switch_interval import short_switch_interval
from tinker_actors.transport.body import Body
from tinker_actors.transport.build import Builder, Job
from tinker_actors.transport.config import Config
from tinker_actors.transport.headers import idempotency_key
from tinker_actors.transport.options import DEFAULT_OPTIONS
from tinker_actors.transport.reply import Reply
from tinker_actors.transport.request import WireRequest
from tinker_actors.transport.ways import BROKEN, Ways, heartbeat_pool
from tinker_actors.wire.codec import encode
from tinker_actors.wire.endpoints import SESSION_HEARTBEAT
from tinker_actors.wire.payload import JSON
from tinker_actors.wire.session import SessionHeartbeatRequest

__all__ = ["Beat", "Blocked", "Fact", "Gone", "Heart", "Missed", "Pulse", "TransportOpener"]

TransportOpener: TypeAlias = Callable[[], AbstractAsyncContextManager[httpx.AsyncBaseTransport]]

PULSE_PERIOD = 0.25  # seconds between two looks at the pulse
BLOCK_WARNING = 1.0  # seconds of standing still that are reported
_STACK_LINES = 12


@attrs.frozen
class Beat:
    """The service heard a beat of this session."""

    session_id: str


@attrs.frozen
class Missed:
    """A beat did not get through.

    Attributes:
        session_id: whose it was.
        why: what happened.
        status: what the service answered, if it did.
        broken: there was no connection, or it broke: the service may just be starting again. One that is only slow
            breaks none.
    """

    session_id: str
    why: str
    status: int | None = None
    broken: bool = False


@attrs.frozen
class Gone:
    """The service says that the session has ended."""

    session_id: str
    status: int


@attrs.frozen
class Blocked:
    """The main loop did not turn for `seconds`; `stack` is where it stood."""

    seconds: float
    stack: str


Fact: TypeAlias = Beat | Missed | Gone | Blocked


class Pulse:
    """A counter that the main loop turns and the heartbeat thread watches."""

    def __init__(self) -> None:
        self.turns = 0
        self.thread_id = threading.get_ident()

    async def run(self) -> None:
        """Turn the counter, for ever."""
        while True:
            self.turns += 1
            await trio.sleep(PULSE_PERIOD)


class Heart:
    """Beats for one session until it is stopped.

    Args:
        config: how the service is reached, and how often to beat.
        report: called with each fact, in the loop that made this object.
        through: opens a transport to use in place of the network, in the loop that beats.
        credentials: returns the headers that say who we are, without waiting, in any thread; None goes by the key of
            the configuration.

    Attributes:
        session_id: the session beaten for; may be changed while it beats.
    """

    def __init__(
        self,
        config: Config,
        session_id: str,
        report: Callable[[Fact], None],
        through: TransportOpener | None,
        credentials: Callable[[], Mapping[str, str]] | None = None,
    ) -> None:
        self.session_id = session_id
        self._config = config
        key = {} if config.api_key is None else {"x-api-key": config.api_key}
        self._credentials = credentials or (lambda: key)
        self._builder = Builder(config)
        self._rng = random.Random(session_id)  # for keys that nobody compares: a beat is never sent again
        self._report = report
        self._through = through
        self._pulse = Pulse()
        self._stopped = threading.Event()
        self._stop_thread: Callable[[], None] = self._stopped.set

    # --- in the main loop --------------------------------------------------------------------------------

    async def beat_in_loop(self) -> None:
        """Beat from this loop until cancelled."""
        async with self._open_ways() as ways:
            await self._beat_for_ever(ways, self._report, lambda: False)

    async def beat_in_thread(self) -> None:
        """Run the thread until cancelled; it has ended when this returns or raises."""
        token = trio.lowlevel.current_trio_token()
        # A beat is a dozen short calls, each of which gives Python's lock away, and it waits while the whole heap is
        # looked at.
        with short_switch_interval(), frozen_heap():
            await self._keep_thread(token)

    async def _keep_thread(self, token: trio.lowlevel.TrioToken) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pulse.run)
            nursery.start_soon(self._host_thread, token)
            try:
                await trio.sleep_forever()
            finally:
                self._stopped.set()
                self._stop_thread()

    async def _host_thread(self, token: trio.lowlevel.TrioToken) -> None:
        own_limiter = trio.CapacityLimiter(1)  # never waits for a place among other threads of the program
        await trio.to_thread.run_sync(self._thread_main, token, limiter=own_limiter)

    # --- in the thread -----------------------------------------------------------------------------------

    def _thread_main(self, home: trio.lowlevel.TrioToken) -> None:
        trio.run(self._thread_loop, home)

    async def _thread_loop(self, home: trio.lowlevel.TrioToken) -> None:
        def report(fact: Fact) -> None:
            with contextlib.suppress(trio.RunFinishedError):  # the main loop may have ended meanwhile
                home.run_sync_soon(self._report, fact)

        def stands_still(seconds: float, frames: list[traceback.FrameSummary]) -> None:
            def tell() -> (
                None
            ):  # in the main loop: the source is read from files, which would hold up the beats
                self._report(Blocked(seconds, "".join(traceback.format_list(frames))))

            with contextlib.suppress(trio.RunFinishedError):
                home.run_sync_soon(tell)

        here = trio.lowlevel.current_trio_token()
        async with self._open_ways() as ways, trio.open_nursery() as nursery:
            watchdog = _Watchdog(self._pulse)
            scope = nursery.cancel_scope
            self._stop_thread = lambda: _cancel_from_outside(here, scope)
            if self._stopped.is_set():  # before the line above had made a cancellation possible
                scope.cancel()
            nursery.start_soon(watchdog.run, stands_still)
            await self._beat_for_ever(ways, report, lambda: watchdog.still_for > self._config.max_block)

    # --- in either ---------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _open_ways(self) -> AsyncIterator[Ways]:
        config = self._config
        async with contextlib.AsyncExitStack() as stack:
            if self._through is not None:
                carrier = await stack.enter_async_context(self._through())
            else:
                carrier = await stack.enter_async_context(heartbeat_pool(config))
            ways = Ways(carrier, None, config.connect_timeout)
            stack.push_async_callback(ways.aclose)
            yield ways

    async def _beat_for_ever(
        self, ways: Ways, report: Callable[[Fact], None], hung: Callable[[], bool]
    ) -> None:
        due = trio.current_time()
        while True:
            if not hung():
                report(await self._beat_once(ways))
            due = max(due + self._config.heartbeat_period, trio.current_time())
            await trio.sleep_until(due)

    async def _beat_once(self, ways: Ways) -> Fact:
        session_id = self.session_id
        key = idempotency_key(self._rng).encode("ascii")
        job = Job(SESSION_HEARTBEAT, SessionHeartbeatRequest(session_id), None, None, DEFAULT_OPTIONS, key)
        body = Body(encode(job.request), JSON)
        request = self._builder.build(
            job, job.options, body, self._credentials(), attempt=0, endpoint=SESSION_HEARTBEAT
        )
        try:
            reply = await self._send(ways, request)
        except BROKEN as error:
            slow = isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout)
            return Missed(session_id, f"{type(error).__name__}: {error}", broken=not slow)
        except Exception as error:  # noqa: BLE001 - a user's hook failed; beats go on, and the failure is told
            return Missed(session_id, f"{type(error).__name__} in a hook or authentication: {error}")
        if reply.status in (404, 410):
            return Gone(session_id, reply.status)
        if 200 <= reply.status < 300:
            return Beat(session_id)
        return Missed(session_id, f"status {reply.status}", reply.status)

    async def _send(self, ways: Ways, request: WireRequest) -> Reply:
        """Send by the way that users' hooks and authentication want; they run in this loop, in its thread."""
        hook = None if self._config.hooks is None else self._config.hooks.prepare_request
        if hook is None and self._config.auth is None:
            return await ways.direct(request)
        built = request.as_httpx(ways.connect_timeout)
        if hook is not None:
            await hook(built)
        return await ways.by_client(built, request.timeout, lambda _: False, self._config.auth)


class _Watchdog:
    """Watches the main loop's pulse from the heartbeat thread."""

    def __init__(self, pulse: Pulse) -> None:
        self._pulse = pulse
        self.still_for = 0.0

    async def run(self, report: Callable[[float, list[traceback.FrameSummary]], None]) -> None:
        turns, since, reported = -1, trio.current_time(), False
        while True:
            if self._pulse.turns != turns:
                turns, since, reported = self._pulse.turns, trio.current_time(), False
            self.still_for = trio.current_time() - since
            if self.still_for > BLOCK_WARNING + PULSE_PERIOD and not reported:
                reported = True
                report(self.still_for, _frames_of(self._pulse.thread_id))
            await trio.sleep(PULSE_PERIOD)


def _cancel_from_outside(token: trio.lowlevel.TrioToken, scope: trio.CancelScope) -> None:
    with contextlib.suppress(trio.RunFinishedError):
        token.run_sync_soon(scope.cancel)


def _frames_of(thread_id: int) -> list[traceback.FrameSummary]:
    """Return where a thread stands, innermost last, without a look at a file."""
    frame = sys._current_frames().get(thread_id)  # noqa: SLF001 - the documented way to see another thread
    frames: list[traceback.FrameSummary] = []
    while frame is not None and len(frames) < _STACK_LINES:
        code = frame.f_code
        frames.append(
            traceback.FrameSummary(code.co_filename, frame.f_lineno, code.co_name, lookup_line=False)
        )
        frame = frame.f_back
    return frames[::-1]
