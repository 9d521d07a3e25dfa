"""The TelemetryActor: reports events to the service, bounded, batched, never in anybody's way.

Event format: tinker 0.38.0 lib/telemetry.py. An event holds what happened and where; never a header, a key, a
prompt or a batch. A batch the service does not take is dropped.
"""

from __future__ import annotations

import logging
import platform
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta

import trio

from tinker_actors.actors.message import Record, RecordFailure, Telemetry
from tinker_actors.actors.session import Session
from tinker_actors.errors import APIError
from tinker_actors.kernel import Actor, Ending, handles
from tinker_actors.protocol.telemetry import BATCH_SIZE, FLUSH_PERIOD, TelemetryQueue, failure_event
from tinker_actors.transport.http import HttpTransport
from tinker_actors.version import __version__
from tinker_actors.wire.endpoints import TELEMETRY
from tinker_actors.wire.telemetry import TelemetrySendRequest

__all__ = ["LAST_FLUSH", "TelemetryActor"]

_LOG = logging.getLogger("tinker_actors.telemetry")

LAST_FLUSH = 2.0
"""Seconds the events that are left get when the service is closed."""


class TelemetryActor(Actor[Telemetry]):
    """Collects events and sends them every `FLUSH_PERIOD` seconds.

    Args:
        transport: the way to the service.
        session: the present session.
        utc_now: the wall clock, for time stamps.
        new_id: gives the ids of events.
    """

    def __init__(
        self,
        transport: HttpTransport,
        session: Session,
        utc_now: Callable[[], datetime],
        new_id: Callable[[], uuid.UUID],
    ) -> None:
        self._transport = transport
        self._session = session
        self._utc_now = utc_now
        self._new_id = new_id
        self._queue = TelemetryQueue()
        self._count = 0
        self._started = 0.0
        self._sending = trio.Lock()

    async def on_start(self) -> None:
        """Begin to flush; the first incarnation reports the start."""
        await trio.lowlevel.checkpoint()
        self._started = trio.current_time()
        if self.context.incarnation == 1:
            self._add(event="SESSION_START")
        self.context.every(FLUSH_PERIOD, self._flush)

    @handles(Record)
    async def record(self, message: Record) -> None:
        """Take an event; a full batch is sent at once."""
        await trio.lowlevel.checkpoint()
        self._add(event="GENERIC_EVENT", event_name=message.name, event_data=message.data)
        if len(self._queue) == BATCH_SIZE:
            self.context.spawn(self._flush)

    @handles(RecordFailure)
    async def record_failure(self, message: RecordFailure) -> None:
        """Take a failure; it is sent at once."""
        await trio.lowlevel.checkpoint()
        self._add(**failure_event(message.error))
        self.context.spawn(self._flush)

    def _add(self, **fields: object) -> None:
        event: dict[str, object] = {
            "event_id": str(self._new_id()),
            "event_session_index": self._count,
            "severity": "INFO",
            "timestamp": self._utc_now().isoformat().replace("+00:00", "Z"),
        }
        self._count += 1
        self._queue.add(event | fields)

    async def _flush(self) -> None:
        async with self._sending:
            while self._session.session_id and (events := self._queue.take_batch()):
                await self._send(events)

    async def _send(self, events: list[dict[str, object]]) -> None:
        request = TelemetrySendRequest(
            events=tuple(events),
            platform=platform.system(),
            sdk_version=__version__,
            session_id=self._session.session_id,
        )
        try:
            await self._transport.call(TELEMETRY, request)
        except APIError as error:
            _LOG.debug("%d telemetry events were dropped: %s", len(events), error)

    async def on_stop(self, ending: Ending) -> None:
        """Report the end, and send what is left for at most `LAST_FLUSH` seconds."""
        if ending != "crash":
            seconds = trio.current_time() - self._started
            self._add(event="SESSION_END", duration=str(timedelta(seconds=seconds)))
        with trio.move_on_after(LAST_FLUSH):
            await self._flush()
