"""Collecting telemetry: bounded and batched. Pure; that no secret is among it is up to whoever adds.

Sizes: tinker 0.38.0 lib/telemetry.py (queue of 10,000 events, batches of 100, a flush every 10 s).
"""

from __future__ import annotations

from collections import deque

__all__ = ["BATCH_SIZE", "FLUSH_PERIOD", "MAX_QUEUED", "TelemetryQueue"]

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
