"""A bounded mailbox: one queue, a place in line for every message.

Theory of operation. A trio memory channel would silently discard what it has accepted when its reader closes,
and could not take a message back, so this is a structure of its own on `trio.lowlevel`.

- *Admission* follows trio's contract for sends: cancelled before admission, a message was never enqueued,
  even if there was room; once enqueued, the send returns normally even if its scope was cancelled meanwhile.
- Senders that find it full are parked in order of arrival and are admitted in that order. A parked sender
  that is cancelled leaves no trace. While anybody is parked the mailbox is full: what makes room, admits.
- Every admission gets the next `seq`. Messages of one sending task keep their order. Tasks that become
  runnable in the same tick are admitted in the order in which trio runs them, which trio leaves open. A block
  of messages (`submit_many`) is admitted whole, without others between.
- The mailbox belongs to the actor's slot, not to one incarnation: what is queued survives a restart.
- Closing it settles everything queued and wakes every parked sender, in the same synchronous step.
- Reading is one schedule point and one cancel point per message; the message is taken after the point, so a
  cancelled reader takes nothing. There is none after a wake-up: who cancels readers
  retires them first, and a retired reader takes nothing and passes its wake-up on.
- An `exclusive` message is a barrier among all readers of the mailbox: it is taken when nothing runs, and
  while it runs nothing is taken.
- A reader may need a token of a limiter; it waits for one while the message stays in line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import cast

import outcome
import trio

from tinker_actors.errors import ActorRestarting, ActorStopped, ActorStopping
from tinker_actors.kernel.admission import Admission, AnyEnvelope, Refusal, unchanged
from tinker_actors.kernel.instrument import Sight
from tinker_actors.kernel.message import MailboxStatistics, State
from tinker_actors.kernel.overflow import MailboxSpec
from tinker_actors.kernel.reader import Reader

__all__ = ["Mailbox"]

_RUNNING = State.RUNNING
_INF = math.inf
_NOBODY: dict[Reader, trio.CancelScope] = {}
_SUCCEEDED = trio.lowlevel.Abort.SUCCEEDED


class Mailbox(Admission):
    """A bounded queue of envelopes with one reader at a time, or several readers that share it (a pool).

    Args:
        owner: path of the actor, for errors.
        spec: how it is bounded.
        refusal: turns the error for messages that never started into the one their senders get.
        sight: where it makes itself seen.
        limiter: its tokens are needed to handle a message; None if they are not.

    Attributes:
        readers: those that serve it.
        barrier: the exclusive message that runs.
        on_reentry: has a reentrant message handled; None while nobody can.
    """

    is_open: bool
    taken: int
    refused: int
    _bytes: int
    _is_easy: bool
    _started_unit: int
    _shut: ActorStopped | None
    _handing_back: ActorRestarting | None
    _has_barriers: bool
    __slots__ = ("_limiter", "_thirsty", "barrier", "on_reentry", "readers")

    def __init__(
        self,
        owner: str,
        spec: MailboxSpec,
        refusal: Refusal = unchanged,
        sight: Sight | None = None,
        limiter: trio.CapacityLimiter | None = None,
    ) -> None:
        super().__init__(owner, spec, refusal, sight)
        self.readers: list[Reader] = []
        self.on_reentry: Callable[[AnyEnvelope], None] | None = None
        self._limiter = limiter
        self._thirsty = {} if limiter is not None else _NOBODY  # they wait for a token
        self.barrier: AnyEnvelope | None = None

    # --- readers -----------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def get(self, reader: Reader) -> AnyEnvelope | None:
        """Take the next message; always a checkpoint. Its reader says `done` when it has handled it.

        Returns:
            the next envelope, RUNNING; None when the mailbox is closed and empty, or the reader retired.
        """
        if self.line or self._shut is not None or reader.signals or reader.retired:
            await trio.lowlevel.checkpoint()
        else:
            await self.wait_for_mail(reader)
        while not reader.retired:
            if reader.signals:
                return self.begin(reader.signals.pop(0), reader)
            envelope = self.take(reader)
            if envelope is not None:
                return envelope
            if self._limiter is not None and not reader.holds_token and self._may_take():
                await self._acquire(self._limiter, reader)
                continue
            self._give_back_token(reader)
            if self._shut is not None and not self.line:
                return None
            await self.wait_for_mail(reader)
        self.pass_on(reader)
        return None

    def pass_on(self, reader: Reader) -> None:
        """A reader leaves: what it was woken for, or has taken a token for, is for another one."""
        self._give_back_token(reader)
        if self.line:
            self._wake_reader()

    async def _acquire(self, limiter: trio.CapacityLimiter, reader: Reader) -> None:
        """Wait for a token, or until the reader is `wake`d; the message that it is for stays in line."""
        with trio.CancelScope() as scope:
            self._thirsty[reader] = scope
            try:
                await limiter.acquire_on_behalf_of(reader)
                reader.holds_token = True
            finally:
                del self._thirsty[reader]

    def _has_token(self, reader: Reader) -> bool:
        """Whether a reader has a token, or there is one for it now, or none is needed."""
        if self._limiter is None or reader.holds_token:
            return True
        try:
            self._limiter.acquire_on_behalf_of_nowait(reader)
        except trio.WouldBlock:
            return False
        reader.holds_token = True
        return True

    def _may_take(self) -> bool:
        """Whether the head of the line, if there is one, may begin."""
        if not self.line or self.barrier is not None:
            return False
        return not self.line[0].message.exclusive or all(reader.envelope is None for reader in self.readers)

    def take(self, reader: Reader) -> AnyEnvelope | None:
        """Take the next message now.

        Returns:
            the message; None if there is none that may begin, or a signal or the reader's retirement goes
            first, or there is no token.
        """
        line = self.line
        while line and self.barrier is None and not reader.retired and not reader.signals:
            envelope = line[0]
            exclusive = envelope.message.exclusive
            if exclusive and not self._may_take():
                return None
            if self._limiter is not None and not self._has_token(reader):
                return None
            line.popleft()
            if envelope.size:
                self._bytes -= envelope.size
            if envelope.deadline == _INF or envelope.deadline > trio.current_time():
                self.taken += 1
                if exclusive:
                    self.barrier = envelope
                if envelope.unit is not None:
                    self._started_unit = envelope.unit
                envelope.state = _RUNNING
                envelope.reader = reader
                reader.envelope = envelope
                if self.watched:
                    self.started(envelope)
                if self._parked or self._shut is not None:
                    self._made_room()
                return envelope
            self._expire(envelope)
        return None

    def begin(self, envelope: AnyEnvelope, reader: Reader) -> AnyEnvelope:
        """Give a reader a message that does not come out of the line; the kernel's own."""
        envelope.state = _RUNNING
        envelope.reader = reader
        reader.envelope = envelope
        if self.watched:
            if envelope.ledger is None:  # a signal: it shows how long it runs, and is not counted
                envelope.stamp = trio.current_time()
            else:
                self.started(envelope)
        return envelope

    def _expire(self, envelope: AnyEnvelope) -> None:
        error = envelope.crash or self._withdrawal("its deadline passed before it started")
        envelope.fail(error, State.EXPIRED, reason="expired")
        self._made_room()

    def _give_back_token(self, reader: Reader) -> None:
        if reader.holds_token and self._limiter is not None:
            reader.holds_token = False
            self._limiter.release_on_behalf_of(reader)

    @trio.lowlevel.enable_ki_protection
    def done(self, reader: Reader) -> None:
        """A reader has handled its message, or given it up."""
        envelope = reader.envelope
        if envelope is None:
            return  # it was stuck, and has been given up before
        reader.envelope = None
        envelope.reader = None
        if reader.holds_token:
            self._give_back_token(reader)
        if self.barrier is not None and self.barrier is envelope:
            self.barrier = None
            for _ in range(len(self.idle)):
                self._wake_reader()
        elif self.line and self.idle:
            self._wake_reader()  # it may be a barrier that waits for the last to end

    async def wait_for_mail(self, reader: Reader) -> None:
        """Wait until there is something to look at. A checkpoint; once woken, it is not cancelled."""
        self.idle.append(reader)
        await trio.lowlevel.wait_task_rescheduled(self.leaving(reader))

    def leaving(self, reader: Reader) -> Callable[[Callable[[], object]], trio.lowlevel.Abort]:
        """Return what a reader does whose wait for mail is cancelled."""

        def abort(_: Callable[[], object]) -> trio.lowlevel.Abort:
            self.idle.remove(reader)
            return _SUCCEEDED

        return abort

    @trio.lowlevel.enable_ki_protection
    def wake(self, reader: Reader) -> None:
        """Let a reader look again, if it waits: it has a signal, or is retired."""
        if reader in self.idle:
            self.idle.remove(reader)
            trio.lowlevel.reschedule(cast("trio.lowlevel.Task", reader.task))
        elif reader in self._thirsty:
            self._thirsty[reader].cancel(reason=f"{self.owner} has something else to do")

    def occupants(self, *, exclusive: bool) -> tuple[list[Reader], bool]:
        """Return the readers that stand between it and its next message, and whether all of them must end.

        Args:
            exclusive: the next message is.
        """
        if self.barrier is not None:
            return [reader for reader in self.readers if reader.envelope is self.barrier], True
        ahead = self._has_barriers and any(envelope.message.exclusive for envelope in self.line)
        before_barrier = len(self.readers) > 1 and (exclusive or ahead)
        if self.idle and not before_barrier:
            return [], False  # one of them is free: with many readers it pays not to look at each
        busy = [reader for reader in self.readers if reader.envelope is not None or reader.in_hook]
        if before_barrier:
            return busy, True
        return (busy if len(busy) == len(self.readers) else []), False

    @trio.lowlevel.enable_ki_protection
    def enter(self, envelope: AnyEnvelope) -> bool:
        """Have a message handled now, beside the handler that waits for it; False if nobody can."""
        if self.on_reentry is None or self._shut is not None:
            return False
        self._number(envelope)
        self.taken += 1
        envelope.state = State.RUNNING
        self.on_reentry(envelope)
        return True

    @trio.lowlevel.enable_ki_protection
    def put_back(self, envelopes: Sequence[AnyEnvelope]) -> None:
        """Put messages that had begun back at the head of the line, in their order, unless their callers left."""
        for envelope in sorted(envelopes, key=lambda envelope: envelope.seq, reverse=True):
            if envelope.state is not _RUNNING:
                envelope.cut_short(self._withdrawal("its caller left before it started again"))
                continue
            self.taken_again(envelope)
            self.line.appendleft(envelope)
            self._bytes += envelope.size
        if envelopes:
            self._wake_reader()

    # --- restarts ----------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    def hand_back(self, error: ActorRestarting) -> None:
        """Give every queued ask back to its caller, and every ask that comes before `resume`."""
        self._handing_back = error
        self._is_easy: bool = False
        for envelope in [
            e for e in self.line if e.asked and e.crash is None
        ]:  # what had begun, keeps its place
            self._remove(envelope)
            envelope.fail(self._refused(error, envelope))
        for task, envelopes in list(self._parked.items()):
            if envelopes[0].asked:
                del self._parked[task]
                self.refused += len(envelopes)
                trio.lowlevel.reschedule(task, outcome.Error(self._refused(error, envelopes[0])))
        self._made_room()

    def resume(self) -> None:
        """Take asks again."""
        self._handing_back = None
        self._is_easy = self._plain and self._shut is None

    # --- closing -----------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    def drain(self, why: str) -> None:
        """Admit nothing more; what is queued may still be read. Parked senders are refused."""
        if self._shut is None:
            self._is_easy = self.is_open = False
            self._shut = ActorStopping(f"{self.owner} {why}", actor=self.owner, started=False)
            self._wake_everybody()

    @trio.lowlevel.enable_ki_protection
    def close(
        self, why: str, cause: BaseException | None = None, *, stopping: bool = False
    ) -> list[AnyEnvelope]:
        """Admit nothing more and settle everything queued.

        Args:
            why: completes the sentence that begins with the owner's path.
            cause: chained to the errors of senders.
            stopping: the owner is still on its way out.

        Returns:
            the queued messages that nobody waits for; of the others, somebody hears.
        """
        kind = ActorStopping if stopping else ActorStopped
        self._is_easy = self.is_open = False
        self._shut = kind(f"{self.owner} {why}", actor=self.owner, started=False)
        self._shut.__cause__ = cause
        leftover = list(self.line)
        self.line.clear()
        self._bytes = 0
        for envelope in leftover:
            crashed = envelope.crash
            envelope.fail(
                crashed or self._refused(self._shut, envelope), reason="crashed" if crashed else None
            )
        self._wake_everybody()
        return [envelope for envelope in leftover if not envelope.asked]

    def _wake_everybody(self) -> None:
        assert self._shut is not None
        while self._parked:
            task, envelopes = self._parked.popitem(last=False)
            self.refused += len(envelopes)
            trio.lowlevel.reschedule(task, outcome.Error(self._refused(self._shut, envelopes[0])))
        for reader in [*self.idle, *self._thirsty]:
            self.wake(reader)
        self._tell_if_drained()

    # --- sight -------------------------------------------------------------------------------------------

    @property
    def last_seq(self) -> int:
        """The `seq` of the newest admission; -1 before the first."""
        return self._next_seq - 1

    @property
    def parked(self) -> tuple[AnyEnvelope, ...]:
        """Messages whose senders wait for room, in order."""
        return tuple(envelope for block in self._parked.values() for envelope in block)

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits in it."""
        return not self.line

    @property
    def load(self) -> int:
        """Messages that wait or run."""
        return len(self.line) + sum(reader.envelope is not None for reader in self.readers)

    def statistics(self, **_: object) -> MailboxStatistics:
        """Return counters and depths."""
        return super().statistics(
            queued=len(self.line),
            queued_bytes=self._bytes,
            parked=len(self._parked),
            capacity=self._capacity,
            max_bytes=self._spec.max_bytes,
            peak=self._peak,
            admitted=self._next_seq,
        )
