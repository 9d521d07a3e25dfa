"""A bounded mailbox: one queue, one reader, a place in line for every message.

Theory of operation. A trio memory channel would silently discard what it has accepted when its reader closes,
and could not take a message back, so this is a structure of its own on `trio.lowlevel`.

- *Admission* follows trio's contract for sends: cancelled before admission, a message was never enqueued, even
  if there was room; once enqueued, the send returns normally even if its scope was cancelled meanwhile.
- Senders that find it full are parked in order of arrival and are admitted in that order. A parked sender that
  is cancelled leaves no trace.
- Every admission gets the next `seq`. Messages of one sending task keep their order. Tasks that become runnable
  in the same tick are admitted in the order in which trio runs them, which trio leaves open.
- The mailbox belongs to the actor's slot, not to one incarnation: what is queued survives a restart.
- Closing it settles everything queued and wakes every parked sender, in the same synchronous step.
- Reading is one schedule point and one cancel point per message; the message is taken after the point, so a
  cancelled reader takes nothing.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

import outcome
import trio

from tinker_actors.errors import ActorStopped, ActorStopping, MailboxFull, TinkerActorsError, Withdrawn
from tinker_actors.kernel.envelope import Envelope
from tinker_actors.kernel.message import MailboxStatistics, State

__all__ = ["Mailbox"]

AnyEnvelope = Envelope[Any]
Refusal = Callable[[ActorStopped], TinkerActorsError]


def _as_it_is(error: ActorStopped) -> TinkerActorsError:
    return error


class Mailbox:
    """A bounded queue of envelopes with one reader at a time, or several readers that share it (a pool).

    Args:
        owner: path of the actor, for errors.
        capacity: messages it may hold; at least 1.
        refusal: turns the error for messages that never started into the one their senders get.
    """

    def __init__(self, owner: str, capacity: int, refusal: Refusal = _as_it_is) -> None:
        if capacity < 1:
            raise ValueError(f"a mailbox needs a capacity of at least 1, not {capacity}")
        self._owner = owner
        self._capacity = capacity
        self._refusal = refusal
        self._queue: deque[AnyEnvelope] = deque()
        self._parked: OrderedDict[trio.lowlevel.Task, AnyEnvelope] = OrderedDict()
        self._readers: OrderedDict[trio.lowlevel.Task, None] = OrderedDict()
        self._closing: ActorStopped | None = None
        self._next_seq = 0
        self._unit = 0
        self._started_unit = -1
        self._peak = 0
        self._withdrawn = 0

    # --- senders -----------------------------------------------------------------------------------------

    async def put(self, envelope: AnyEnvelope) -> None:
        """Admit an envelope, waiting for room. Always a checkpoint; see the module for the contract.

        Raises:
            ActorStopped: the mailbox is closed; the message never started.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        self._check_open()
        if len(self._queue) < self._capacity and not self._parked:
            self._admit(envelope)
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        await self._park(envelope)

    async def _park(self, envelope: AnyEnvelope) -> None:
        task = trio.lowlevel.current_task()

        def abort(_: Callable[[], object]) -> trio.lowlevel.Abort:
            del self._parked[task]
            return trio.lowlevel.Abort.SUCCEEDED

        self._parked[task] = envelope
        await trio.lowlevel.wait_task_rescheduled(abort)

    @trio.lowlevel.enable_ki_protection
    def put_nowait(self, envelope: AnyEnvelope) -> None:
        """Admit an envelope now. A cancelled scope does not stop it.

        Raises:
            MailboxFull: there is no room, or others wait for it.
            ActorStopped: the mailbox is closed.
        """
        self._check_open()
        depth = len(self._queue)
        if depth >= self._capacity or self._parked:
            raise MailboxFull(
                f"the mailbox of {self._owner} holds {depth} of {self._capacity} messages",
                actor=self._owner,
                depth=depth,
                capacity=self._capacity,
            )
        self._admit(envelope)

    def _check_open(self) -> None:
        if self._closing is not None:
            raise self._refusal(self._closing.renewed())

    @trio.lowlevel.enable_ki_protection
    def _admit(self, envelope: AnyEnvelope) -> None:
        envelope.seq = self._next_seq
        self._next_seq += 1
        envelope.state = State.QUEUED
        self._number_unit(envelope)
        self._queue.append(envelope)
        self._peak = max(self._peak, len(self._queue))
        self._wake_reader()

    def _number_unit(self, envelope: AnyEnvelope) -> None:
        if envelope.message.unit == "none":
            return
        envelope.unit = self._unit
        if envelope.message.unit == "end":
            self._unit += 1

    def _admit_parked(self) -> None:
        while self._parked and len(self._queue) < self._capacity:
            task, envelope = self._parked.popitem(last=False)
            self._admit(envelope)
            trio.lowlevel.reschedule(task)

    # --- taking back -------------------------------------------------------------------------------------

    def abandon(self, envelope: AnyEnvelope, state: State = State.ABANDONED) -> bool:
        """Take one queued envelope out because nobody wants it; False if it is not queued."""
        if envelope.state is not State.QUEUED:
            return False
        self._remove([envelope])
        envelope.fail(self._withdrawal(), state)
        return True

    @trio.lowlevel.enable_ki_protection
    def withdraw(self, envelope: AnyEnvelope) -> bool:
        """Take back an envelope with its whole unit, or nothing if any of the unit has begun."""
        if envelope.state is not State.QUEUED:
            return False
        if envelope.unit is None:
            taken = [envelope]
        elif envelope.unit <= self._started_unit:
            return False
        else:
            taken = [other for other in self._queue if other.unit == envelope.unit]
        self._remove(taken)
        for other in taken:
            other.outcome.observed = True  # taking it back is no failure that somebody should hear of
            other.fail(self._withdrawal(), State.ABANDONED)
        return True

    def _withdrawal(self) -> Withdrawn:
        return Withdrawn("the message was taken back before it started", actor=self._owner, started=False)

    def _remove(self, envelopes: list[AnyEnvelope]) -> None:
        gone = set(map(id, envelopes))
        self._queue = deque(other for other in self._queue if id(other) not in gone)
        self._withdrawn += len(gone)
        self._admit_parked()

    # --- the reader --------------------------------------------------------------------------------------

    async def get(self) -> AnyEnvelope | None:
        """Take the next message; always a checkpoint.

        Returns:
            the next envelope, RUNNING; None when the mailbox is closed and empty.
        """
        await trio.lowlevel.checkpoint()
        while True:
            envelope = self._take()
            if envelope is not None:
                return envelope
            if self._closing is not None:
                return None
            await self._wait_for_mail()

    @trio.lowlevel.enable_ki_protection
    def _take(self) -> AnyEnvelope | None:
        now = trio.current_time()
        while self._queue:
            envelope = self._queue.popleft()
            self._admit_parked()
            if envelope.deadline <= now:
                envelope.fail(self._withdrawal(), State.EXPIRED)
                continue
            envelope.state = State.RUNNING
            if envelope.unit is not None:
                self._started_unit = envelope.unit
            return envelope
        return None

    async def _wait_for_mail(self) -> None:
        task = trio.lowlevel.current_task()

        def abort(_: Callable[[], object]) -> trio.lowlevel.Abort:
            self._readers.pop(task, None)
            return trio.lowlevel.Abort.SUCCEEDED

        self._readers[task] = None
        try:
            await trio.lowlevel.wait_task_rescheduled(abort)
            await trio.lowlevel.checkpoint_if_cancelled()
        except trio.Cancelled:
            if self._queue:
                self._wake_reader()  # pass the wake-up on: this reader will not take the message
            raise

    def _wake_reader(self) -> None:
        if self._readers:
            task, _ = self._readers.popitem(last=False)
            trio.lowlevel.reschedule(task)

    # --- closing -----------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether messages are admitted."""
        return self._closing is None

    @trio.lowlevel.enable_ki_protection
    def drain(self, why: str) -> None:
        """Admit nothing more; what is queued may still be read. Parked senders are refused."""
        if self._closing is None:
            self._closing = ActorStopping(f"{self._owner} {why}", actor=self._owner, started=False)
        self._refuse_parked()
        while self._readers:
            self._wake_reader()

    @trio.lowlevel.enable_ki_protection
    def close(self, why: str, cause: BaseException | None = None) -> int:
        """Admit nothing more and settle everything queued; return how many messages that were."""
        self._closing = ActorStopped(f"{self._owner} {why}", actor=self._owner, started=False)
        self._closing.__cause__ = cause
        leftover, self._queue = self._queue, deque()
        for envelope in leftover:
            envelope.fail(self._refusal(self._closing.renewed()))
        self._refuse_parked()
        while self._readers:
            self._wake_reader()
        return len(leftover)

    def _refuse_parked(self) -> None:
        if self._closing is None:
            return
        while self._parked:
            task, _ = self._parked.popitem(last=False)
            trio.lowlevel.reschedule(task, outcome.Error(self._refusal(self._closing.renewed())))

    # --- sight -------------------------------------------------------------------------------------------

    @property
    def last_seq(self) -> int:
        """The `seq` of the newest admission; -1 before the first."""
        return self._next_seq - 1

    def statistics(self) -> MailboxStatistics:
        """Return counters and depths."""
        return MailboxStatistics(
            queued=len(self._queue),
            parked=len(self._parked),
            capacity=self._capacity,
            peak=self._peak,
            admitted=self._next_seq,
            withdrawn=self._withdrawn,
        )
