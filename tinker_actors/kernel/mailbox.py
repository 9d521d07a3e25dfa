"""A bounded mailbox: one queue, one reader, a place in line for every message.

Theory of operation. A trio memory channel would silently discard what it has accepted when its reader closes,
and could not take a message back, so this is a structure of its own on `trio.lowlevel`.

- *Admission* follows trio's contract for sends: cancelled before admission, a message was never enqueued,
  even if there was room; once enqueued, the send returns normally even if its scope was cancelled meanwhile.
- Senders that find it full are parked in order of arrival and are admitted in that order. A parked sender
  that is cancelled leaves no trace. While anybody is parked the queue is full: what makes room, admits.
- Every admission gets the next `seq`. Messages of one sending task keep their order. Tasks that become
  runnable in the same tick are admitted in the order in which trio runs them, which trio leaves open.
- The mailbox belongs to the actor's slot, not to one incarnation: what is queued survives a restart.
- Closing it settles everything queued and wakes every parked sender, in the same synchronous step.
- Reading is one schedule point and one cancel point per message; the message is taken after the point, so a
  cancelled reader takes nothing. A reader that was woken and is cancelled before it runs wakes the next one.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

import outcome
import trio

from tinker_actors.errors import ActorStopped, ActorStopping, MailboxFull, TinkerActorsError, Withdrawn
from tinker_actors.kernel.border import call_user
from tinker_actors.kernel.bound import check_count
from tinker_actors.kernel.envelope import Envelope
from tinker_actors.kernel.message import MailboxStatistics, State

__all__ = ["Mailbox", "Refusal", "unchanged"]

_LOG = logging.getLogger("tinker_actors.kernel")

AnyEnvelope = Envelope[Any]
Refusal = Callable[[ActorStopped], TinkerActorsError]


def unchanged(error: ActorStopped) -> TinkerActorsError:
    """Let senders have the kernel's own error."""
    return error


class Mailbox:
    """A bounded queue of envelopes with one reader at a time, or several readers that share it (a pool).

    Args:
        owner: path of the actor, for errors.
        capacity: messages it may hold; at least 1.
        refusal: turns the error for messages that never started into the one their senders get.

    Raises:
        InputError: a capacity that is not a whole number of at least 1.
    """

    def __init__(self, owner: str, capacity: int, refusal: Refusal = unchanged) -> None:
        check_count("capacity", capacity, 1)
        self._owner = owner
        self._capacity = capacity
        self._refusal = refusal
        self._queue: deque[AnyEnvelope] = deque()
        self._parked: OrderedDict[trio.lowlevel.Task, AnyEnvelope] = OrderedDict()
        self._readers: OrderedDict[trio.lowlevel.Task, None] = OrderedDict()
        self._closing: ActorStopped | None = None
        self._when_drained: list[Callable[[], None]] = []
        self._next_seq = 0
        self._unit = 0
        self._started_unit = -1
        self._peak = 0
        self._withdrawn = 0
        self._taken = 0
        self._unstarted = 0

    # --- senders -----------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def put(self, envelope: AnyEnvelope) -> None:
        """Admit an envelope, waiting for room. Always a checkpoint; see the module for the contract.

        Raises:
            ActorStopped: the mailbox is closed; the message never started.
        """
        if not await self.admit(envelope):
            await trio.lowlevel.cancel_shielded_checkpoint()

    @trio.lowlevel.enable_ki_protection
    async def admit(self, envelope: AnyEnvelope) -> bool:
        """Do as `put`, but with no schedule point if there is room: for a sender that will wait anyway.

        Returns:
            whether there was a schedule point.

        Raises:
            ActorStopped: the mailbox is closed; the message never started.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._closing is not None:
            await trio.lowlevel.cancel_shielded_checkpoint()  # who tries again and again must not spin
            raise self._refused()
        if self._is_full:
            await self._park(envelope)
            return True
        self._enqueue(envelope)
        return False

    @property
    def _is_full(self) -> bool:
        return len(self._queue) >= self._capacity

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
            MailboxFull: there is no room.
            ActorStopped: the mailbox is closed.
        """
        if self._closing is not None:
            raise self._refused()
        if self._is_full:
            depth = len(self._queue)
            raise MailboxFull(
                f"the mailbox of {self._owner} holds {depth} of {self._capacity} messages",
                actor=self._owner,
                depth=depth,
                capacity=self._capacity,
            )
        self._enqueue(envelope)

    def _refused(self) -> TinkerActorsError:
        assert self._closing is not None
        error = self._closing.renewed()
        try:
            return call_user(self._refusal, error)
        except Exception:  # noqa: BLE001 - a user's function must not leave an envelope unsettled
            _LOG.exception("%s: the refusal failed on %r", self._owner, error)
            return error

    def _enqueue(self, envelope: AnyEnvelope) -> None:
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

    def _made_room(self) -> None:
        while self._parked and not self._is_full:
            task, envelope = self._parked.popitem(last=False)
            self._enqueue(envelope)
            trio.lowlevel.reschedule(task)
        self._tell_if_drained()

    # --- taking back -------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    def abandon(self, envelope: AnyEnvelope) -> bool:
        """Take one queued envelope out because its caller left; False if it is not queued, or of a unit."""
        if envelope.state is not State.QUEUED or envelope.unit is not None:
            return False
        self._take_back([envelope], "its caller left before it started")
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
        self._take_back(taken, "it was taken back before it started")
        return True

    def _take_back(self, envelopes: list[AnyEnvelope], why: str) -> None:
        for envelope in envelopes:
            self._queue.remove(envelope)  # by identity, and at the speed of C
            self._withdrawn += 1
            envelope.outcome.observed = True  # taking it back is no failure that somebody should hear of
            envelope.fail(self._withdrawal(why), State.ABANDONED)
        self._made_room()

    def _withdrawal(self, why: str) -> Withdrawn:
        text = f"a message to {self._owner} was not handled: {why}"
        return Withdrawn(text, actor=self._owner, started=False)

    # --- the reader --------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def get(self) -> AnyEnvelope | None:
        """Take the next message; always a checkpoint.

        Returns:
            the next envelope, RUNNING; None when the mailbox is closed and empty.
        """
        if self._queue or self._closing is not None:
            await trio.lowlevel.checkpoint()
        else:
            await self._wait_for_mail()
        while True:
            envelope = self._take()
            if envelope is not None or self._closing is not None:
                return envelope
            await self._wait_for_mail()

    def _take(self) -> AnyEnvelope | None:
        now = trio.current_time()
        while self._queue:
            envelope = self._queue.popleft()
            if envelope.deadline > now:
                self._taken += 1
                envelope.state = State.RUNNING
                if envelope.unit is not None:
                    self._started_unit = envelope.unit
                self._made_room()
                return envelope
            self._withdrawn += 1
            envelope.fail(self._withdrawal("its deadline passed before it started"), State.EXPIRED)
            self._made_room()
        return None

    async def _wait_for_mail(self) -> None:
        task = trio.lowlevel.current_task()

        def abort(_: Callable[[], object]) -> trio.lowlevel.Abort:
            del self._readers[task]
            return trio.lowlevel.Abort.SUCCEEDED

        self._readers[task] = None
        await trio.lowlevel.wait_task_rescheduled(abort)
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
        except BaseException:
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
            self._wake_everybody()

    @trio.lowlevel.enable_ki_protection
    def close(self, why: str, cause: BaseException | None = None, *, stopping: bool = False) -> int:
        """Admit nothing more and settle everything queued.

        Args:
            why: completes the sentence that begins with the owner's path.
            cause: chained to the errors of senders.
            stopping: the owner is still on its way out.

        Returns:
            how many queued messages there were that nobody waits for; of the others, somebody hears.
        """
        kind = ActorStopping if stopping else ActorStopped
        self._closing = kind(f"{self._owner} {why}", actor=self._owner, started=False)
        self._closing.__cause__ = cause
        leftover, self._queue = self._queue, deque()
        self._unstarted += len(leftover)
        for envelope in leftover:
            envelope.fail(self._refused())
        self._wake_everybody()
        return sum(not envelope.asked for envelope in leftover)

    def _wake_everybody(self) -> None:
        while self._parked:
            task, _ = self._parked.popitem(last=False)
            trio.lowlevel.reschedule(task, outcome.Error(self._refused()))
        while self._readers:
            self._wake_reader()
        self._tell_if_drained()

    def when_drained(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, when it is closed to senders and empty. The kernel's own; must not raise."""
        self._when_drained.append(callback)

    def _tell_if_drained(self) -> None:
        if self._closing is None or self._queue:
            return
        callbacks, self._when_drained = self._when_drained, []
        for callback in callbacks:
            callback()

    # --- sight -------------------------------------------------------------------------------------------

    @property
    def last_seq(self) -> int:
        """The `seq` of the newest admission; -1 before the first."""
        return self._next_seq - 1

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits in it."""
        return not self._queue

    def statistics(self) -> MailboxStatistics:
        """Return counters and depths."""
        return MailboxStatistics(
            queued=len(self._queue),
            parked=len(self._parked),
            capacity=self._capacity,
            peak=self._peak,
            admitted=self._next_seq,
            withdrawn=self._withdrawn,
            taken=self._taken,
            unstarted=self._unstarted,
        )
