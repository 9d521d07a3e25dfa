"""Who waits on what: the board of `protocol.wait`, with events and lines in the log for both ends of long waits."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator

import trio

from tinker_actors.actors.event import EventHub
from tinker_actors.protocol.wait import Entry, WaitBoard, WaitSeen

__all__ = ["PATROL_PERIOD", "Waits"]

_LOG = logging.getLogger("tinker_actors.service")

PATROL_PERIOD = 10.0
"""Seconds between two looks for long waits."""


class Waits:
    """All who wait for a service; its actors enter and leave.

    Attributes:
        sources: give more of those who wait, as they are asked.

    Args:
        events: where long waits are told.
    """

    def __init__(self, events: EventHub) -> None:
        self.sources: list[Callable[[], list[WaitSeen]]] = []
        self._events = events
        self._board = WaitBoard()

    def __len__(self) -> int:
        return len(self._board)

    def enter(self, subject: str, what: str, request_id: str = "", *, telling: bool = True) -> Entry:
        """Begin to wait; see `WaitBoard.enter`."""
        return self._board.enter(subject, what, request_id, now=trio.current_time(), telling=telling)

    def leave(self, entry: Entry) -> None:
        """Cease to wait; if the wait has been told of, its end is told."""
        ended = self._board.leave(entry, now=trio.current_time() if entry.told else 0.0)
        if ended is not None:
            self._events.publish(ended)
            _LOG.warning("%s", ended)

    @contextlib.contextmanager
    def shown(self, subject: str, what: str) -> Iterator[None]:
        """Wait for something in a block, where it can be seen."""
        entry = self.enter(subject, what)
        try:
            yield
        finally:
            self.leave(entry)

    def look(self) -> list[WaitSeen]:
        """Return who waits for what, the oldest wait first."""
        seen = self._board.look(now=trio.current_time())
        for source in self.sources:
            seen += source()
        return sorted(seen, key=lambda one: -one.seconds)

    async def patrol(self) -> None:
        """Tell of waits that have become long."""
        await trio.lowlevel.checkpoint()
        for waiting in self._board.due(now=trio.current_time()):
            self._events.publish(waiting)
            _LOG.warning("%s", waiting)
