"""Telemetry: what the service is told of this client, bounded, batched, never in anybody's way.

Theory of operation. Whoever has something to tell puts it into the `Reporter`, which takes it at once or, if it is
full, not at all: nobody ever waits for telemetry, an error least of all. The TelemetryActor empties the Reporter, with
one request on its way at a time: every `FLUSH_PERIOD` seconds, and at once after a failure or when a batch is full.
There is one task and one timer for it, however often that happens. A batch the service does not take is dropped and
counted; what the service does not take at all is not sent to it again. The Reporter outlives the actor.

Any thread may tell. What it tells is copied, cut and masked on the spot: nothing of the user's is held or looked at
later, and a value that cannot be read spoils no batch.

A session's start is told once, and its end when the service is left, whatever was raised in between: an exception is
not the end of a session, nor is the end of one of its clients. (The official client tells the end only after an
exception that it holds for fatal. We tell it when there is one: it costs an event, and how long a session lasted is
known of those that went well, too.)

Event format: tinker 0.38.0 lib/telemetry.py. What may be in an event is the matter of `protocol.telemetry`.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import platform
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import cast, get_args

import trio

from tinker_actors.actors.message import Flush, Telemetry
from tinker_actors.actors.session import Session
from tinker_actors.errors import ActorError, APIStatusError, InputError, TinkerActorsError
from tinker_actors.kernel import Actor, ActorRef, Ending, handles
from tinker_actors.protocol.event import ServiceEvent
from tinker_actors.protocol.telemetry import (
    BATCH_SIZE,
    FLUSH_PERIOD,
    TelemetryQueue,
    event_of,
    failure_event,
    poll_failure,
    scrubbed,
)
from tinker_actors.transport.http import HttpTransport
from tinker_actors.version import __version__
from tinker_actors.wire.endpoints import TELEMETRY
from tinker_actors.wire.telemetry import Severity, TelemetryEvent, TelemetrySendRequest

__all__ = ["LAST_FLUSH", "Reporter", "TelemetryActor", "TelemetryHandle", "secrets_of"]

_LOG = logging.getLogger("tinker_actors.telemetry")

LAST_FLUSH = 2.0
"""Seconds the events that are left get when the service is closed."""
_SHORTEST_SECRET = 6  # characters; or every second word would be masked
_SEVERITIES = get_args(Severity)


@functools.cache
def _process_uuid(pid: int) -> str:
    """Return the id of a process; all services in it have the same, and a forked one another."""
    del pid
    return str(uuid.uuid4())


class Reporter:
    """Takes what is to be told. Nothing here waits, and nothing here raises but for wrong use.

    `log`, `failed` and `happened` may be called from any thread.

    Attributes:
        sent: events that the service has taken.
        lost: events that were dropped because the service did not take them, the time was over, or they could not be
            read.
        urgent: set when what is here should go out at once.
        off: the service takes no telemetry.

    Args:
        utc_now: the wall clock, for time stamps.
        new_id: gives the ids of events.
        metadata: the user's own of the session; all general events have them, beneath what they say themselves.
        secrets: gives texts that must not be sent.
    """

    def __init__(
        self,
        utc_now: Callable[[], datetime],
        new_id: Callable[[], uuid.UUID],
        metadata: Mapping[str, str] | None = None,
        secrets: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self._metadata = dict(metadata or {})
        self._secrets = secrets
        self._lock = threading.Lock()
        self._loop: trio.lowlevel.TrioToken | None = None
        self.sent = 0
        self.lost = 0
        self.urgent = trio.Event()
        self.off = False
        self._utc_now = utc_now
        self._new_id = new_id
        self._queue = TelemetryQueue()
        self._count = 0
        self._warned = False
        self._started: float | None = None

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def refused(self) -> int:
        """Events for which there was no room."""
        return self._queue.dropped

    def log(self, name: str, data: Mapping[str, object] | None = None, severity: Severity = "INFO") -> bool:
        """Take an event; False if there is no room, or it cannot be read."""
        return self._add(
            lambda: {
                "event": "GENERIC_EVENT",
                "severity": severity,
                "event_name": name,
                "event_data": {**self._metadata, **(data or {})},
            }
        )

    def failed(self, error: BaseException, severity: Severity = "ERROR") -> bool:
        """Take a failure, to be sent at once; False if there is no room, or it cannot be read."""
        taken = self._add(lambda: failure_event(error, severity))
        self._wake()
        return taken

    def poll_failed(self, error: BaseException, request_id: str, request_type: str) -> bool:
        """Take the failure of a promise."""
        data = {"request_id": request_id, "request_type": request_type, "error_type": type(error).__name__}
        status = getattr(error, "status_code", None)
        facts = data if status is None else data | {"status_code": status}
        return self.log(poll_failure(error), facts, "WARNING")

    def happened(self, event: ServiceEvent) -> None:
        """Take one of the service's events, if it is of a kind that is told."""
        told = event_of(event)
        if told is not None:
            self.log(*told)

    def begin(self) -> None:
        """The session starts; only the first call counts."""
        if self._started is None:
            self._started = trio.current_time()
            self._loop = trio.lowlevel.current_trio_token()
            self._add(lambda: {"event": "SESSION_START"})

    def end(self) -> None:
        """The session ends."""
        if self._started is not None:
            lasted = timedelta(seconds=trio.current_time() - self._started)
            self._add(lambda: {"event": "SESSION_END", "duration": str(lasted)})

    def take_batch(self) -> list[dict[str, object]]:
        """Remove and return the oldest events; see `TelemetryQueue`."""
        with self._lock:
            return self._queue.take_batch()

    def give_up(self) -> None:
        """Drop what is left."""
        while batch := self.take_batch():
            self.lost += len(batch)

    def _add(self, fields: Callable[[], dict[str, object]]) -> bool:
        if self.off:
            return False
        try:
            event = scrubbed(fields(), self._secrets())
        except Exception:  # noqa: BLE001 - what is logged is the user's, and may do anything when it is looked at
            self.lost += 1
            return False
        with self._lock:
            return self._queued(cast("dict[str, object]", event))

    def _queued(self, event: dict[str, object]) -> bool:
        common: dict[str, object] = {
            "event_id": str(self._new_id()),
            "event_session_index": self._count,
            "severity": "INFO",
            "timestamp": self._utc_now().isoformat().replace("+00:00", "Z"),
        }
        if not self._queue.add(common | event):
            if not self._warned:
                self._warned = True
                _LOG.warning("telemetry is full: further events are dropped until it has room")
            return False
        self._count += 1
        if len(self._queue) >= BATCH_SIZE:
            self._wake()
        return True

    def _wake(self) -> None:
        """Have the actor look here now, from whatever thread."""
        loop = self._loop
        if loop is None or (trio.lowlevel.in_trio_run() and trio.lowlevel.current_trio_token() is loop):
            self.urgent.set()
            return
        with contextlib.suppress(trio.RunFinishedError):
            loop.run_sync_soon(self._set_urgent, idempotent=True)

    def _set_urgent(self) -> None:
        self.urgent.set()


class TelemetryActor(Actor[Telemetry]):
    """Sends what the Reporter has; see the module.

    Args:
        transport: the way to the service.
        session: the present session.
        reporter: what is to be told.
    """

    def __init__(self, transport: HttpTransport, session: Session, reporter: Reporter) -> None:
        self._transport = transport
        self._session = session
        self._reporter = reporter
        self._sending = trio.Lock()

    async def on_start(self) -> None:
        """Begin to flush; the first incarnation reports the start."""
        await trio.lowlevel.checkpoint()
        self._reporter.begin()
        self.context.spawn(self._flush_for_ever)

    @handles(Flush)
    async def flush(self, _: Flush) -> bool:
        """Send what is there; whether the service has taken all of it."""
        return await self._flush()

    async def _flush_for_ever(self) -> None:
        while not self._reporter.off:
            with trio.move_on_after(FLUSH_PERIOD):
                await self._reporter.urgent.wait()
            self._reporter.urgent = trio.Event()
            await self._flush()

    async def _flush(self) -> bool:
        """Send what is there; False if any of it was lost, of what was on its way already as well."""
        lost = self._reporter.lost
        async with self._sending:
            while self._session.session_id and (events := self._reporter.take_batch()):
                await self._send(events)
        return self._reporter.lost == lost

    async def _send(self, events: list[dict[str, object]]) -> None:
        """Send a batch; it is dropped if the service does not take it."""
        reporter = self._reporter
        request = TelemetrySendRequest(
            events=tuple(cast("TelemetryEvent", event) for event in events),
            platform=platform.system(),
            sdk_version=__version__,
            session_id=self._session.session_id,
            process_uuid=_process_uuid(os.getpid()),
        )
        try:
            await self._transport.call(TELEMETRY, request)
        except trio.Cancelled:
            reporter.lost += len(events)
            raise
        except TinkerActorsError as error:
            reporter.lost += len(events)
            if isinstance(error, APIStatusError) and error.status_code in (404, 405):
                reporter.off = True  # the service has no such call
                reporter.give_up()
            _LOG.debug("%d telemetry events were dropped: %s", len(events), type(error).__name__)
        else:
            reporter.sent += len(events)

    async def on_stop(self, ending: Ending) -> None:
        """Report the end, and send what is left for at most `LAST_FLUSH` seconds."""
        reporter = self._reporter
        if ending != "crash":
            reporter.end()
        with trio.move_on_after(LAST_FLUSH):
            await self._flush()
        if ending != "crash" and len(reporter):
            _LOG.debug("%d telemetry events were not sent before the end", len(reporter))
            reporter.give_up()


def secrets_of(transport: HttpTransport) -> Iterator[str]:
    """Give everything that says who we are, as far as it is known."""
    config = transport.config
    values = (*transport.latest_credentials.values(), *config.headers.values(), config.api_key)
    for value in values:
        if value:
            yield from (part for part in (value, value.rpartition(" ")[2]) if len(part) >= _SHORTEST_SECRET)


class TelemetryHandle:
    """Tells the service of events of the user's own. Given by `get_telemetry`, where telemetry is on.

    Nothing here delays what calls it, and no failure of telemetry is raised. `log` and `log_exception` may be called
    from any thread. Keys that are known are masked in all that is sent, and texts are cut; beyond that, what is logged
    is sent as it is at that moment.
    """

    def __init__(self, reporter: Reporter, ref: ActorRef[Telemetry]) -> None:
        self._reporter = reporter
        self._ref = ref

    def __repr__(self) -> str:
        reporter = self._reporter
        lost = reporter.lost + reporter.refused
        return f"<TelemetryHandle {reporter.sent} sent, {len(reporter)} waiting, {lost} lost>"

    def log(
        self, event_name: str, event_data: Mapping[str, object] | None = None, severity: Severity = "INFO"
    ) -> bool:
        """Tell of something that happened. It is sent within ten seconds.

        Args:
            event_name: what it was.
            event_data: more about it; what JSON cannot hold is told by its type.
            severity: `DEBUG`, `INFO`, `WARNING`, `ERROR` or `CRITICAL`.

        Returns:
            whether there was room for it, and it could be read.

        Raises:
            InputError: no name, data without names, or another severity.
        """
        if not event_name:
            raise InputError("event_name", event_name, "must say what happened")
        if event_data is not None and not isinstance(cast("object", event_data), Mapping):
            raise InputError("event_data", event_data, "must be a mapping, or None")
        _check(severity)
        return self._reporter.log(event_name, event_data, severity)

    def log_exception(self, error: BaseException, severity: Severity = "ERROR") -> bool:
        """Tell of a failure: its type and where it was raised, not what it says. It is sent at once.

        What a user has to change is told as a warning, whatever the severity.

        Returns:
            whether there was room for it.

        Raises:
            InputError: another severity.
        """
        _check(severity)
        return self._reporter.failed(error, severity)

    async def flush(self) -> bool:
        """Send what waits, and return whether the service has taken it."""
        try:
            return await self._ref.ask(Flush())
        except ActorError:  # it has ended
            return False


def _check(severity: str) -> None:
    if severity not in _SEVERITIES:
        raise InputError("severity", severity, f"must be one of {', '.join(_SEVERITIES)}")
