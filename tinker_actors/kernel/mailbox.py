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
  cancelled reader takes nothing. A reader that was woken and is cancelled before it runs wakes the next one.
- An `exclusive` message is a barrier among all readers of the mailbox: it is taken when nothing runs, and
  while it runs nothing is taken.
- A reader may need a token of a limiter; it waits for one while the message stays in line.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import outcome
import trio

from tinker_actors.errors import (
    ActorRestarting,
    ActorStopped,
    ActorStopping,
    Dropped,
    InputError,
    MailboxFull,
    TinkerActorsError,
    Withdrawn,
)
from tinker_actors.kernel.border import call_user
from tinker_actors.kernel.cycle import check_cycle
from tinker_actors.kernel.envelope import Envelope
from tinker_actors.kernel.instrument import Sight
from tinker_actors.kernel.ledger import MailboxLedger
from tinker_actors.kernel.message import MailboxStatistics, State
from tinker_actors.kernel.overflow import Coalesce, MailboxSpec
from tinker_actors.kernel.reader import CURRENT_READER, Reader, waiting_on

__all__ = ["Mailbox", "Refusal", "unchanged"]

_LOG = logging.getLogger("tinker_actors.kernel")

AnyEnvelope = Envelope[Any]
Block = tuple[AnyEnvelope, ...]
Refusal = Callable[[ActorStopped], TinkerActorsError]


def unchanged(error: ActorStopped) -> TinkerActorsError:
    """Let senders have the kernel's own error."""
    return error


class Mailbox(MailboxLedger):
    """A bounded queue of envelopes with one reader at a time, or several readers that share it (a pool).

    Args:
        owner: path of the actor, for errors.
        spec: how it is bounded.
        refusal: turns the error for messages that never started into the one their senders get.
        sight: where it makes itself seen.
        limiter: its tokens are needed to handle a message; None if they are not.
    """

    def __init__(
        self,
        owner: str,
        spec: MailboxSpec,
        refusal: Refusal = unchanged,
        sight: Sight | None = None,
        limiter: trio.CapacityLimiter | None = None,
    ) -> None:
        super().__init__(owner, sight)
        self.readers: dict[Reader, None] = {}
        self.on_reentry: Callable[[AnyEnvelope], None] | None = None
        self._spec = spec
        self._capacity = spec.capacity
        self._plain = spec.max_bytes is None and not isinstance(spec.overflow, Coalesce)
        self._is_easy = self._plain  # nothing but the count decides about an admission
        self._refusal = refusal
        self._limiter = limiter
        self._queue: deque[AnyEnvelope] = deque()
        self._bytes = 0
        self._parked: OrderedDict[trio.lowlevel.Task, Block] = OrderedDict()
        self._idle: OrderedDict[Reader, None] = OrderedDict()
        self._thirsty: dict[Reader, trio.CancelScope] = {}
        self._barrier: AnyEnvelope | None = None
        self._busy = 0  # readers with a message; kept by `take` and `done`
        self._shut: ActorStopped | None = None
        self._handing_back: ActorRestarting | None = None
        self._when_drained: list[Callable[[], None]] = []
        self._next_seq = 0
        self._unit = 0
        self._started_unit = -1
        self._peak = 0

    # --- senders -----------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def put(self, envelope: AnyEnvelope) -> None:
        """Admit an envelope, waiting for room. Always a checkpoint; see the module for the contract.

        Raises:
            ActorStopped: the mailbox is closed; the message never started.
            MailboxFull: it is full, and that is its policy.
            AskCycle: a handler would wait for room that only its own end can make.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._is_easy and len(self._queue) < self._capacity and not self._parked:
            self._enqueue(envelope)
            await trio.lowlevel.cancel_shielded_checkpoint()
        elif not await self._put_slowly((envelope,)):
            await trio.lowlevel.cancel_shielded_checkpoint()

    @trio.lowlevel.enable_ki_protection
    async def put_block(self, envelopes: Block) -> None:
        """Admit several envelopes at once, with nothing between them; else as `put`.

        Raises:
            InputError: more than the mailbox can ever hold.
        """
        if len(envelopes) > self._capacity:
            why = f"more than the {self._capacity} that the mailbox of {self.owner} holds"
            raise InputError("len(messages)", len(envelopes), why)
        await trio.lowlevel.checkpoint_if_cancelled()
        if not await self._put_slowly(envelopes):
            await trio.lowlevel.cancel_shielded_checkpoint()

    @trio.lowlevel.enable_ki_protection
    async def admit(self, envelope: AnyEnvelope) -> None:
        """Do as `put`, but with no schedule point if there is room: for a sender that will wait anyway."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._is_easy and len(self._queue) < self._capacity and not self._parked:
            self._enqueue(envelope)
        else:
            await self._put_slowly((envelope,))

    async def _put_slowly(self, envelopes: Block) -> bool:  # noqa: ASYNC910 - its callers checkpoint
        """Admit a block; True if that was a checkpoint."""
        try:
            if self._try(envelopes):
                return False  # noqa: ASYNC910 - as above
        except TinkerActorsError:
            await trio.lowlevel.cancel_shielded_checkpoint()  # who tries again and again must not spin
            raise
        reader = CURRENT_READER.get()
        if reader is None:
            await self._park(envelopes)
        else:
            check_cycle(reader, self, exclusive=False)
            with waiting_on(reader, self):
                await self._park(envelopes)
        return True

    async def _park(self, envelopes: Block) -> None:
        task = trio.lowlevel.current_task()

        def abort(_: Callable[[], object]) -> trio.lowlevel.Abort:
            was_first = next(iter(self._parked)) is task
            del self._parked[task]
            if was_first:
                self._made_room()  # a large block may have held up smaller ones that fit
            return trio.lowlevel.Abort.SUCCEEDED

        self._parked[task] = envelopes
        await trio.lowlevel.wait_task_rescheduled(abort)

    @trio.lowlevel.enable_ki_protection
    def put_nowait(self, envelope: AnyEnvelope) -> None:
        """Admit an envelope now. A cancelled scope does not stop it.

        Raises:
            MailboxFull: there is no room.
            ActorStopped: the mailbox is closed.
        """
        if not self._try((envelope,)):
            raise self._full()

    def _try(self, envelopes: Block) -> bool:
        """Admit a block, or do what the policy says; False if its sender has to wait."""
        if self._shut is not None:
            self.refused += len(envelopes)
            raise self._refused(self._shut, envelopes[0])
        if self._handing_back is not None and envelopes[0].asked:
            self.refused += len(envelopes)
            raise self._refused(self._handing_back, envelopes[0])
        if not self._plain:
            for envelope in envelopes:
                envelope.size = self._spec.measure(envelope.message)
                self._coalesce(envelope)
        if self._parked or not self._fits(envelopes):
            return self._overflow(envelopes)
        for envelope in envelopes:
            self._enqueue(envelope)
        return True

    def _fits(self, envelopes: Block) -> bool:
        if len(self._queue) + len(envelopes) > self._capacity:
            return False
        limit = self._spec.max_bytes
        if limit is None or not self._queue:  # the larger than all bounds passes alone
            return True
        return self._bytes + sum(envelope.size for envelope in envelopes) <= limit

    def _overflow(self, envelopes: Block) -> bool:
        policy = self._spec.overflow
        if policy == "fail":
            self.refused += len(envelopes)
            raise self._full()
        if policy == "drop_new":
            for envelope in envelopes:
                self._number(envelope)
                self._drop(envelope)
            return True
        if policy == "drop_old":
            while not self._fits(envelopes):
                self._drop(self._remove_first())
            for envelope in envelopes:
                self._enqueue(envelope)
            return True
        return False

    def _drop(self, envelope: AnyEnvelope) -> None:
        text = f"the mailbox of {self.owner} was full and dropped {type(envelope.message).__name__}"
        self.bury(envelope, "dropped")
        envelope.fail(Dropped(text, actor=self.owner, started=False))

    def _coalesce(self, envelope: AnyEnvelope) -> None:
        key = None if envelope.asked else self._spec.key(envelope.message)
        if key is None:
            return
        for other in self._queue:
            if not other.asked and self._spec.key(other.message) == key:
                self._remove(other)
                self.bury(other, "coalesced")
                text = f"a newer message to {self.owner} took the place of this one"
                other.fail(Dropped(text, actor=self.owner, started=False))
                return

    def _full(self) -> MailboxFull:
        depth = len(self._queue)
        text = f"the mailbox of {self.owner} holds {depth} of {self._capacity} messages"
        if self._spec.max_bytes is not None:
            text += f" and {self._bytes} of {self._spec.max_bytes} bytes"
        return MailboxFull(text, actor=self.owner, depth=depth, capacity=self._capacity)

    def _refused(self, why: ActorStopped, envelope: AnyEnvelope) -> TinkerActorsError:
        error = why.renewed()
        error.handed_back = envelope.message
        try:
            return call_user(self._refusal, error)
        except Exception:  # noqa: BLE001 - a user's function must not leave an envelope unsettled
            _LOG.exception("%s: the refusal failed on %r", self.owner, error)
            return error

    def _number(self, envelope: AnyEnvelope) -> None:
        envelope.seq = self._next_seq
        self._next_seq += 1
        envelope.state = State.QUEUED
        envelope.ledger = self
        unit = envelope.message.unit
        if unit != "none":
            envelope.unit = self._unit
            if unit == "end":
                self._unit += 1
        if self.watched:
            self.admitted(envelope)

    def _enqueue(self, envelope: AnyEnvelope) -> None:
        self._number(envelope)
        self._queue.append(envelope)
        self._bytes += envelope.size
        depth = len(self._queue)
        self._peak = max(self._peak, depth)
        if self._idle:
            self._wake_reader()

    # --- room --------------------------------------------------------------------------------------------

    def _remove_first(self) -> AnyEnvelope:
        envelope = self._queue.popleft()
        self._bytes -= envelope.size
        return envelope

    def _remove(self, envelope: AnyEnvelope) -> None:
        self._queue.remove(envelope)  # by identity, and at the speed of C
        self._bytes -= envelope.size

    def _made_room(self) -> None:
        while self._parked:
            task, envelopes = next(iter(self._parked.items()))
            if not self._fits(envelopes):
                break
            del self._parked[task]
            for envelope in envelopes:
                self._enqueue(envelope)
            trio.lowlevel.reschedule(task)
        if self._when_drained:
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
        if envelope.state is not State.QUEUED or envelope.crash is not None:
            return False
        if envelope.unit is None:
            taken = [envelope]
        elif envelope.unit <= self._started_unit:
            return False
        else:
            taken = [other for other in self._queue if other.unit == envelope.unit]
        self._take_back(taken, "it was taken back before it started")
        return True

    def _take_back(self, envelopes: Iterable[AnyEnvelope], why: str) -> None:
        for envelope in envelopes:
            self._remove(envelope)
            envelope.observed = True  # taking it back is no failure that somebody should hear of
            envelope.fail(self._withdrawal(why), State.ABANDONED)
        self._made_room()
        self._wake_reader()  # the head may be another one now

    def _withdrawal(self, why: str) -> Withdrawn:
        text = f"a message to {self.owner} was not handled: {why}"
        return Withdrawn(text, actor=self.owner, started=False)

    # --- readers -----------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def get(self, reader: Reader) -> AnyEnvelope | None:
        """Take the next message; always a checkpoint. Its reader says `done` when it has handled it.

        Returns:
            the next envelope, RUNNING; None when the mailbox is closed and empty, or the reader retired.
        """
        if self._queue or self._shut is not None or reader.signals or reader.retired:
            await trio.lowlevel.checkpoint()
        else:
            await self._wait_for_mail(reader)
        while not reader.retired:
            if reader.signals:
                return self.begin(reader.signals.popleft(), reader)
            if self._limiter is not None and self._may_take():
                await self._acquire(self._limiter, reader)
                if not reader.holds_token:
                    continue
            envelope = self._take(reader)
            if envelope is not None:
                return envelope
            if self._shut is not None and not self._queue:
                return None
            await self._wait_for_mail(reader)
        return None

    async def _acquire(self, limiter: trio.CapacityLimiter, reader: Reader) -> None:
        """Wait for a token; the message that it is for stays in line. Ends without one if `wake`d."""
        if reader.holds_token:
            return  # noqa: ASYNC910 - the checkpoint was at the first try
        with trio.CancelScope() as scope:
            self._thirsty[reader] = scope
            try:
                await limiter.acquire_on_behalf_of(reader)
                reader.holds_token = True
            finally:
                del self._thirsty[reader]

    def _may_take(self) -> bool:
        """Whether the head of the line, if there is one, may begin."""
        if not self._queue or self._barrier is not None:
            return False
        return not self._busy or not self._queue[0].message.exclusive

    def _take(self, reader: Reader) -> AnyEnvelope | None:
        while self._queue and self._may_take() and not reader.retired:
            envelope = self._remove_first()
            if envelope.deadline == math.inf or envelope.deadline > trio.current_time():
                if envelope.message.exclusive:
                    self._barrier = envelope
                self.taken += 1
                if envelope.unit is not None:
                    self._started_unit = envelope.unit
                self.begin(envelope, reader)
                if self._parked or self._when_drained:
                    self._made_room()
                return envelope
            self._expire(envelope)
        self._give_back_token(reader)
        return None

    def begin(self, envelope: AnyEnvelope, reader: Reader) -> AnyEnvelope:
        """A reader has taken a message; the kernel's own."""
        envelope.state = State.RUNNING
        envelope.reader = reader
        reader.envelope = envelope
        self._busy += 1
        if self.watched:
            self.started(envelope)
        return envelope

    def _expire(self, envelope: AnyEnvelope) -> None:
        self.bury(envelope, "expired")
        envelope.fail(self._withdrawal("its deadline passed before it started"), State.EXPIRED)
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
        self._busy -= 1
        if reader.holds_token:
            self._give_back_token(reader)
        if self._barrier is envelope:
            self._barrier = None
            for _ in range(len(self._idle)):
                self._wake_reader()
        elif self._queue and self._idle:
            self._wake_reader()  # it may be a barrier that waits for the last to end

    async def _wait_for_mail(self, reader: Reader) -> None:
        def abort(_: Callable[[], object]) -> trio.lowlevel.Abort:
            del self._idle[reader]
            return trio.lowlevel.Abort.SUCCEEDED

        self._idle[reader] = None
        reader.task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(abort)
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
        except BaseException:
            if self._queue:
                self._wake_reader()  # pass the wake-up on: this reader will not take the message
            raise

    def _wake_reader(self) -> None:
        if self._idle:
            reader, _ = self._idle.popitem(last=False)
            assert reader.task is not None
            trio.lowlevel.reschedule(reader.task)

    @trio.lowlevel.enable_ki_protection
    def wake(self, reader: Reader) -> None:
        """Let a reader look again, if it waits: it has a signal, or is retired."""
        if reader in self._idle:
            del self._idle[reader]
            assert reader.task is not None
            trio.lowlevel.reschedule(reader.task)
        elif reader in self._thirsty:
            self._thirsty[reader].cancel(reason=f"{self.owner} has something else to do")

    def occupants(self, *, exclusive: bool) -> tuple[list[Reader], bool]:
        """Return the readers that stand between it and its next message, and whether all of them must end.

        Args:
            exclusive: the next message is.
        """
        if self._barrier is not None:
            return [reader for reader in self.readers if reader.envelope is self._barrier], True
        busy = [reader for reader in self.readers if reader.envelope is not None or reader.in_hook]
        if len(self.readers) > 1 and (exclusive or any(e.message.exclusive for e in self._queue)):
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
        """Put messages that had begun back at the head of the line, in their order."""
        for envelope in sorted(envelopes, key=lambda envelope: envelope.seq, reverse=True):
            self.taken_again(envelope)
            self._queue.appendleft(envelope)
            self._bytes += envelope.size
        if envelopes:
            self._wake_reader()

    # --- restarts ----------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    def hand_back(self, error: ActorRestarting) -> None:
        """Give every queued ask back to its caller, and every ask that comes before `resume`."""
        self._handing_back = error
        self._is_easy = False
        for envelope in [envelope for envelope in self._queue if envelope.asked]:
            self._remove(envelope)
            envelope.fail(self._refused(error, envelope))
        for task, envelopes in list(self._parked.items()):
            if envelopes[0].asked:
                del self._parked[task]
                trio.lowlevel.reschedule(task, outcome.Error(self._refused(error, envelopes[0])))
        self._made_room()

    def resume(self) -> None:
        """Take asks again."""
        self._handing_back = None
        self._is_easy = self._plain and self._shut is None

    # --- closing -----------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether messages are admitted."""
        return self._shut is None

    @trio.lowlevel.enable_ki_protection
    def drain(self, why: str) -> None:
        """Admit nothing more; what is queued may still be read. Parked senders are refused."""
        if self._shut is None:
            self._is_easy = False
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
        self._is_easy = False
        self._shut = kind(f"{self.owner} {why}", actor=self.owner, started=False)
        self._shut.__cause__ = cause
        leftover, self._queue = self._queue, deque()
        self._bytes = 0
        for envelope in leftover:
            envelope.fail(envelope.crash or self._refused(self._shut, envelope))
            if not envelope.asked:
                self.bury(envelope, "stopped")
        self._wake_everybody()
        return [envelope for envelope in leftover if not envelope.asked]

    def _wake_everybody(self) -> None:
        assert self._shut is not None
        while self._parked:
            task, envelopes = self._parked.popitem(last=False)
            trio.lowlevel.reschedule(task, outcome.Error(self._refused(self._shut, envelopes[0])))
        for reader in [*self._idle, *self._thirsty]:
            self.wake(reader)
        self._tell_if_drained()

    def when_drained(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, when it is closed to senders and empty. The kernel's own; must not raise."""
        self._when_drained.append(callback)

    def _tell_if_drained(self) -> None:
        if self._shut is None or self._queue:
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

    @property
    def load(self) -> int:
        """Messages that wait or run."""
        return len(self._queue) + self._busy

    def statistics(self, **_: object) -> MailboxStatistics:
        """Return counters and depths."""
        return super().statistics(
            queued=len(self._queue),
            queued_bytes=self._bytes,
            parked=len(self._parked),
            capacity=self._capacity,
            max_bytes=self._spec.max_bytes,
            peak=self._peak,
            admitted=self._next_seq,
        )
