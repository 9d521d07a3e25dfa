"""Who waits on what, since when and why: a board that anybody can look at. Pure.

Theory of operation. Whoever waits for something that may take long (the result of a promise, a service that cannot be
reached) *enters* the board and *leaves* it when that is over, whatever came of it. Entries stand in the order of their
age. `look` shows the board, those that wait for the same put together. Of each *subject and work* the oldest entry is
told of when it has waited for a minute, and again each time its wait has doubled; when a wait that was told of ends,
that is told, too, with its length. So a stream of samples, each of which takes seconds, is never told of, and four
hundred that stand still are told of once.
"""

from __future__ import annotations

import math

import attrs

from tinker_actors.protocol.queue_state import ACTIVE

__all__ = ["FIRST_WORD", "FULL", "HELD_BACK", "Entry", "WaitBoard", "WaitEnded", "WaitSeen", "Waiting"]

FIRST_WORD = 60.0
"""Seconds of a wait after which it is told of."""
FULL = "full"
"""The state of a line of our own: as many are under way as may be."""
HELD_BACK = "held_back"
"""The state of a line of our own: the service has asked to wait."""


@attrs.define(eq=False)
class Entry:
    """One wait.

    Attributes:
        subject: whose it is: the id of a model, of a sampling session or of a session.
        what: what is waited for, in the service's words, such as `OptimStep`.
        request_id: the promise; empty if it is none.
        since: when it began.
        state: of the queue, as far as the service has said.
        reason: why, in words; empty if nothing was said.
        due: the length of the wait at which it is told of next.
        told: it was told of.
    """

    subject: str
    what: str
    request_id: str
    since: float
    state: str = ACTIVE
    reason: str = ""
    due: float = FIRST_WORD
    told: bool = False


@attrs.frozen
class WaitSeen:
    """Some who wait for the same, as `service.waits()` shows them.

    Attributes:
        subject: whose it is: the id of a model, of a sampling session or of a session.
        what: what is waited for, in the service's words, such as `OptimStep`.
        request_id: the oldest promise among them; empty if it is none.
        seconds: how long that one has been waited for.
        state: of the queue: `active`, `paused_capacity`, `paused_rate_limit`, or another word of the service; of a line
            of our own: `full` or `held_back`.
        reason: why, in words; empty if nothing was said.
        count: how many wait.
    """

    subject: str
    what: str
    request_id: str
    seconds: float
    state: str
    reason: str
    count: int

    def __str__(self) -> str:
        others = f", and {self.count - 1} more" if self.count > 1 else ""
        said = "".join(f"; {word}" for word in (self.state, self.reason) if word not in (ACTIVE, ""))
        return f"{self.what} of {self.subject} has been waited for {self.seconds:.0f} s{others}{said}"


@attrs.frozen
class Waiting(WaitSeen):
    """Something has been waited for a minute, or for twice as long as when that was last told; see `WaitSeen`."""


@attrs.frozen
class WaitEnded:
    """A wait that was told of by `Waiting` is over, whatever came of it.

    Attributes:
        subject: whose it was.
        what: what was waited for.
        request_id: the promise; empty if it was none.
        seconds: how long it was waited for.
    """

    subject: str
    what: str
    request_id: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.what} of {self.subject}: the wait is over after {self.seconds:.0f} s"


class WaitBoard:
    """All who wait; see the module."""

    def __init__(self) -> None:
        self._entries: dict[Entry, None] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def enter(self, subject: str, what: str, request_id: str, *, now: float, telling: bool = True) -> Entry:
        """Begin to wait; whoever does must `leave`.

        Args:
            subject: whose wait it is.
            what: what is waited for.
            request_id: the promise; empty if it is none.
            now: the present time.
            telling: tell of the wait when it is long; a place in a line of one's own is looked at, and is no news.
        """
        entry = Entry(subject, what, request_id, now, due=FIRST_WORD if telling else math.inf)
        self._entries[entry] = None
        return entry

    def leave(self, entry: Entry, *, now: float) -> WaitEnded | None:
        """Cease to wait.

        Returns:
            the end, if the wait was told of.
        """
        del self._entries[entry]
        if not entry.told:
            return None
        return WaitEnded(entry.subject, entry.what, entry.request_id, now - entry.since)

    def look(self, *, now: float) -> list[WaitSeen]:
        """Return who waits for what, the oldest wait first."""
        groups: dict[tuple[str, str, str, str], list[Entry]] = {}
        for entry in self._entries:
            groups.setdefault((entry.subject, entry.what, entry.state, entry.reason), []).append(entry)
        return [
            WaitSeen(subject, what, group[0].request_id, now - group[0].since, state, reason, len(group))
            for (subject, what, state, reason), group in groups.items()
        ]

    def due(self, *, now: float) -> list[Waiting]:
        """Return the waits that are to be told of now."""
        oldest: dict[tuple[str, str], Entry] = {}
        counts: dict[tuple[str, str], int] = {}
        for entry in self._entries:
            if now - entry.since < FIRST_WORD:
                break  # all further ones are younger
            if entry.due == math.inf:
                continue
            key = (entry.subject, entry.what)
            oldest.setdefault(key, entry)
            counts[key] = counts.get(key, 0) + 1
        return [
            self._tell(entry, counts[key], now)
            for key, entry in oldest.items()
            if now - entry.since >= entry.due
        ]

    def _tell(self, entry: Entry, count: int, now: float) -> Waiting:
        seconds = now - entry.since
        while entry.due <= seconds:
            entry.due *= 2
        entry.told = True
        return Waiting(entry.subject, entry.what, entry.request_id, seconds, entry.state, entry.reason, count)
