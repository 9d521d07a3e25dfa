"""Collecting telemetry: bounded and batched, and what a failure is called in it. Pure.

An event says what happened and where: never a message of an error, which may hold a prompt or a key. That no other
secret is among it is up to whoever adds.

Sizes: tinker 0.38.0 lib/telemetry.py (queue of 10,000 events, batches of 100, a flush every 10 s).
"""

from __future__ import annotations

from collections import deque

from tinker_actors.protocol.policy import is_user_error

__all__ = ["BATCH_SIZE", "FLUSH_PERIOD", "MAX_QUEUED", "TelemetryQueue", "failure_event"]

MAX_QUEUED = 10_000
BATCH_SIZE = 100
FLUSH_PERIOD = 10.0


class TelemetryQueue:
    """Events on their way out; when it is full, new ones are dropped and counted.

    Attributes:
        dropped: events for which there was no room.
    """

    def __init__(self, *, max_queued: int = MAX_QUEUED) -> None:
        self._events: deque[dict[str, object]] = deque()
        self._max_queued = max_queued
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._events)

    def add(self, event: dict[str, object]) -> bool:
        """Take an event; False if there was no room."""
        if len(self._events) >= self._max_queued:
            self.dropped += 1
            return False
        self._events.append(event)
        return True

    def take_batch(self) -> list[dict[str, object]]:
        """Remove and return the oldest events, at most `BATCH_SIZE`."""
        return [self._events.popleft() for _ in range(min(BATCH_SIZE, len(self._events)))]


def failure_event(error: BaseException) -> dict[str, object]:
    """Return what a failure is in telemetry, but for what all events have.

    A user's error (`is_user_error`, the same that retries go by) is a warning among the general events; everything else
    is an exception that nobody expected.
    """
    kind = type(error).__name__
    if not is_user_error(error):
        return {
            "event": "UNHANDLED_EXCEPTION",
            "severity": "ERROR",
            "error_type": kind,
            "error_message": kind,
        }
    data: dict[str, object] = {"error_type": kind}
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        data["status_code"] = status
    return {"event": "GENERIC_EVENT", "severity": "WARNING", "event_name": "user_error", "event_data": data}
