"""A mailbox's ledger: what came in, and how each message ended.

Theory of operation. Counting is part of the hot path, so the two counters that every message passes, `taken` and
`handled`, are bare attributes that others increment; everything else comes through `ended`, once per message.
What runs is derived: taken, less those that ended after they were taken.
"""

from __future__ import annotations

from collections import deque
from typing import Any, TypeAlias

import trio

from tinker_actors.errors import Dropped, InFlightLost
from tinker_actors.kernel.dead_letter import Reason
from tinker_actors.kernel.envelope import Envelope
from tinker_actors.kernel.instrument import MessageAdmitted, MessageSettled, MessageStarted, Sight
from tinker_actors.kernel.message import MailboxStatistics, State
from tinker_actors.kernel.snapshot import PastMessage

__all__ = ["MailboxLedger"]

_ALWAYS = ("dropped", "coalesced", "expired", "unhandled")  # dead letters although their senders hear of it
_RECENT = 512  # durations kept for the percentiles
_Past: TypeAlias = tuple[type, int, float, float | None, State, type | None]


class MailboxLedger:
    """What a mailbox counts.

    Attributes:
        owner: path of the actor.
        is_timed: messages are timed.
        watched: single messages are timed, traced or remembered.
    """

    __slots__ = (
        "__weakref__",
        "_abandoned",
        "_broken_off",
        "_dropped",
        "_duplicate",
        "_expired",
        "_failed",
        "_late",
        "_past",
        "_rejected",
        "_sight",
        "_took",
        "_trace",
        "_waited",
        "handled",
        "is_timed",
        "owner",
        "refused",
        "taken",
        "watched",
    )

    def __init__(self, owner: str, sight: Sight | None) -> None:
        self.owner: str = owner
        self.taken: int = 0
        self.handled: int = 0
        self._sight = sight
        self._trace = None if sight is None else sight.trace
        self.is_timed: bool = sight is not None and sight.timed
        self._failed = 0
        self._abandoned = 0
        self._expired = 0
        self._dropped = 0
        self._rejected = 0
        self._broken_off = 0  # of those taken, that did not end in a value
        self._late = 0
        self._duplicate = 0
        self.refused: int = 0
        self._waited: deque[float] | None = deque(maxlen=_RECENT) if self.is_timed else None
        self._took: deque[float] | None = deque(maxlen=_RECENT) if self.is_timed else None
        self._past: deque[_Past] | None = None
        self.watched: bool
        self.remember(0 if sight is None else sight.remembers)

    def remember(self, count: int) -> None:
        """Keep in mind, from now on, the last `count` messages that ended; none if it is 0."""
        self._past = deque(self._past or (), maxlen=count) if count else None
        self.watched = self.is_timed or self._trace is not None or count > 0

    @property
    def running(self) -> int:
        """Messages begun and not answered."""
        return self.taken - self.handled - self._broken_off

    # --- what happens ------------------------------------------------------------------------------------

    def admitted(self, envelope: Envelope[Any]) -> None:
        """Note an admission; called only if `watched`."""
        envelope.stamp = trio.current_time()
        if self._trace is not None:
            self._trace(MessageAdmitted(self.owner, envelope.seq, type(envelope.message).__name__))

    def started(self, envelope: Envelope[Any]) -> None:
        """Note that a handler begins; called only if `watched`."""
        now = trio.current_time()
        if self._waited is not None:
            self._waited.append(now - envelope.stamp)
        envelope.stamp = now
        if self._trace is not None:
            self._trace(MessageStarted(self.owner, envelope.seq, type(envelope.message).__name__))

    def settled(self, envelope: Envelope[Any]) -> None:
        """Note that a message has ended after it had begun; called only if `watched`."""
        now = trio.current_time()
        began = envelope.stamp
        if self._took is not None:
            self._took.append(now - began)
        self._seen_to_end(envelope, now, now - began if began >= 0 else None)

    def _seen_to_end(self, envelope: Envelope[Any], now: float, seconds: float | None) -> None:
        """Remember and trace an end, if that is wanted; `seconds` is how long the handler ran, if that is known."""
        kind = type(envelope.message)
        failure = None if envelope.error is None else type(envelope.error)
        if self._past is not None:
            self._past.append((kind, envelope.seq, now, seconds, envelope.state, failure))
        if self._trace is not None:
            error = None if failure is None else failure.__name__
            self._trace(MessageSettled(self.owner, envelope.seq, kind.__name__, envelope.state.value, error))

    def ended(self, envelope: Envelope[Any], before: State) -> None:
        """Count a message that has ended in another way than by a reply, and bury it if nobody hears of it."""
        if before is State.RUNNING:
            self._broken_off += 1
            if self.watched:
                self.settled(envelope)
        elif self.watched:
            self._seen_to_end(envelope, trio.current_time(), None)
        if envelope.state is State.ABANDONED:
            self._abandoned += 1
        elif envelope.state is State.EXPIRED:
            self._expired += 1
        elif before is State.RUNNING:
            self._failed += 1
        elif isinstance(envelope.error, Dropped):
            self._dropped += 1
        else:
            self._rejected += 1
        reason = _reason_to_bury(envelope, before)
        if reason is not None:
            self.bury(envelope, reason)

    def answered_again(self, envelope: Envelope[Any]) -> None:
        """Count an answer nobody waits for: late if the message had ended without one, else a duplicate."""
        if not envelope.asked:
            return  # nobody ever waited
        if envelope.state is State.SETTLED and not isinstance(envelope.error, InFlightLost):
            self._duplicate += 1
            self.bury(envelope, "duplicate_reply")
        else:
            self._late += 1
            self.bury(envelope, "late_reply")

    def taken_again(self, envelope: Envelope[Any]) -> None:
        """Note that a message that had begun is put back in line."""
        self.taken -= 1
        envelope.state = State.QUEUED

    def thrown_away(self, envelope: Envelope[Any]) -> None:
        """Nobody can see how a message ends any more, because its `Pending` is gone. Called from any thread."""
        if envelope.on_failure is not None or self._sight is None:
            return
        envelope.asked = False
        if envelope.error is not None:
            self._sight.in_loop(self.bury, envelope, "unobserved")

    def bury(self, envelope: Envelope[Any], reason: Reason) -> None:
        """Make a dead letter of a message."""
        if self._sight is not None:
            self._sight.dead_letters.bury(self.owner, envelope.message, envelope.seq, reason)

    # --- sight -------------------------------------------------------------------------------------------

    @property
    def recent(self) -> tuple[PastMessage, ...]:
        """The messages that ended last, oldest first, as far as they are remembered."""
        return tuple(
            PastMessage(
                kind=kind.__name__,
                seq=seq,
                ended_at=at,
                seconds=seconds,
                state=state.value,
                error=None if failure is None else failure.__name__,
            )
            for kind, seq, at, seconds, state, failure in self._past or ()
        )

    def statistics(self, **state: int | None) -> MailboxStatistics:
        """Return the counters, with what only the mailbox knows of its present `state`."""
        return MailboxStatistics(
            handled=self.handled,
            failed=self._failed,
            abandoned=self._abandoned,
            expired=self._expired,
            dropped=self._dropped,
            rejected=self._rejected,
            running=self.running,
            late_replies=self._late,
            duplicate_replies=self._duplicate,
            refused=self.refused,
            waited=_percentiles(self._waited),
            took=_percentiles(self._took),
            **state,  # type: ignore[arg-type]  # each of them is what the field of its name wants
        )


def _reason_to_bury(envelope: Envelope[Any], before: State) -> Reason | None:
    """Return why a message is dead that ended without a value; None if it is enough that its sender hears of it."""
    if 0 < envelope.message.max_redeliver < envelope.crashes:
        return "poison"
    if envelope.reason in _ALWAYS:
        return envelope.reason
    if envelope.asked or envelope.state is not State.SETTLED:
        return None
    return envelope.reason or ("failed" if before is State.RUNNING else "stopped")


def _percentiles(durations: deque[float] | None) -> tuple[float, float] | None:
    """Return the median and the 99th percentile; None if there is nothing to tell."""
    if not durations:
        return None
    ordered = sorted(durations)
    return ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]
