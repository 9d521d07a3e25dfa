"""Handlers that take long are named, with what they wait on, long before anybody gives up.

Theory of operation. One task per tree looks at all running handlers, four times in `period` seconds. It knows a
message by its envelope, so messages need no clock of their own: one that is still there a period after it was seen
first has run for at least that long. It is named then, and again each time it has run for twice as long; the
messages of one actor share a line.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

import attrs
import trio

from tinker_actors.kernel.envelope import Envelope
from tinker_actors.kernel.reader import Reader

__all__ = ["Patrol"]

_LOG = logging.getLogger("tinker_actors.kernel")


@attrs.define
class _Sighting:
    """A message that runs: when it was first seen, and when it is to be named."""

    since: float
    name_at: float


class Patrol:
    """Looks at running handlers.

    Args:
        period: seconds.
        readers: gives the readers that have a message, by the path of their actor.
    """

    def __init__(self, period: float, readers: Callable[[], Iterable[tuple[str, Reader]]]) -> None:
        self._period = period
        self._readers = readers
        self._seen: dict[Envelope[Any], _Sighting] = {}

    async def run(self) -> None:
        """Look again and again. A checkpoint."""
        while True:
            await trio.sleep(self._period / 4)
            for path, slow in self.look(trio.current_time()).items():
                seconds, reader = slow[0]
                envelope = reader.envelope
                waits = ", waiting on " + ", ".join(s.owner for s in reader.waits) if reader.waits else ""
                name = type(envelope.message).__name__
                text = "%s: %d handlers run for long; %s (#%d) for more than %.0f s%s"
                _LOG.warning(text, path, len(slow), name, envelope.seq, seconds, waits)

    def look(self, now: float) -> dict[str, list[tuple[float, Reader]]]:
        """Return, by actor, the handlers that are to be named: for how long at least, and their reader."""
        seen: dict[Envelope[Any], _Sighting] = {}
        slow: dict[str, list[tuple[float, Reader]]] = {}
        for path, reader in self._readers():
            sighting = self._seen.get(reader.envelope) or _Sighting(now, now + self._period)
            seen[reader.envelope] = sighting
            if now >= sighting.name_at:
                seconds = now - sighting.since
                sighting.name_at = now + seconds
                slow.setdefault(path, []).append((seconds, reader))
        self._seen = seen
        return {path: sorted(found, key=lambda one: -one[0]) for path, found in slow.items()}
