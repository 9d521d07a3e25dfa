"""How messages get into a mailbox, and out again unread: the senders' side.

See `mailbox` for the theory of operation of the whole.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias, cast

import trio

from tinker_actors.errors import (
    ActorRestarting,
    ActorStopped,
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
from tinker_actors.kernel.message import State
from tinker_actors.kernel.overflow import Coalesce, MailboxSpec
from tinker_actors.kernel.reader import Reader, Station, current_reader, waiting_on

__all__ = ["Admission", "AnyEnvelope", "Block", "Refusal", "unchanged"]

_LOG = logging.getLogger("tinker_actors.kernel")

AnyEnvelope: TypeAlias = Envelope[Any]
Block: TypeAlias = tuple[AnyEnvelope, ...]
Refusal: TypeAlias = Callable[[ActorStopped], TinkerActorsError]
_QUEUED = State.QUEUED
_NOBODY: OrderedDict[trio.lowlevel.Task, Block] = (
    OrderedDict()
)  # stands in until somebody parks: most never do


def unchanged(error: ActorStopped) -> TinkerActorsError:
    """Let senders have the kernel's own error."""
    return error


class Admission(MailboxLedger):
    """The senders' side of a mailbox.

    Attributes:
        line: the messages that wait, in order; only the mailbox changes it.
        is_open: messages are admitted.
        idle: the readers that wait for a message, in order. (Lists take less room than dicts, and there are few.)
    """

    refused: int
    __slots__ = (
        "_bytes",
        "_capacity",
        "_handing_back",
        "_has_barriers",
        "_is_easy",
        "_next_seq",
        "_parked",
        "_peak",
        "_plain",
        "_refusal",
        "_shut",
        "_spec",
        "_started_unit",
        "_unit",
        "_when_drained",
        "idle",
        "is_open",
        "line",
    )

    def __init__(self, owner: str, spec: MailboxSpec, refusal: Refusal, sight: Sight | None) -> None:
        super().__init__(owner, sight)
        self._spec = spec
        self._capacity = spec.capacity
        self._plain = spec.max_bytes is None and not isinstance(spec.overflow, Coalesce)
        self._is_easy = self._plain  # nothing but the count decides about an admission
        self._refusal = refusal
        self.line: deque[AnyEnvelope] = deque()
        self.is_open: bool = True
        self._bytes = 0
        self._parked: OrderedDict[trio.lowlevel.Task, Block] = _NOBODY
        self.idle: list[Reader] = []
        self._shut: ActorStopped | None = None
        self._handing_back: ActorRestarting | None = None
        self._when_drained: tuple[Callable[[], None], ...] = ()
        self._next_seq = 0
        self._unit = 0
        self._has_barriers = False  # an exclusive message has been admitted, some time or other
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
        if self.offer(envelope) or not await self.put_slowly((envelope,)):
            await trio.lowlevel.cancel_shielded_checkpoint()

    def offer(self, envelope: AnyEnvelope) -> bool:
        """Admit an envelope if nothing speaks against it; if False, `put_slowly` looks what does.

        It does what `_enqueue` does, in one piece: nearly all messages come this way.
        """
        line = self.line
        if not self._is_easy or len(line) >= self._capacity or self._parked:
            return False
        envelope.seq = self._next_seq
        self._next_seq += 1
        envelope.state = _QUEUED
        envelope.ledger = self
        if not envelope.message.stands_alone:
            self._stand_together(envelope)
        if self.watched:
            self.admitted(envelope)
        line.append(envelope)
        if len(line) > self._peak:  # noqa: PLR1730 - a call would cost every message
            self._peak = len(line)
        if self.idle:
            self._wake_reader()
        return True

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
        if not await self.put_slowly(envelopes):
            await trio.lowlevel.cancel_shielded_checkpoint()

    @trio.lowlevel.enable_ki_protection
    async def put_slowly(self, envelopes: Block) -> bool:  # noqa: ASYNC910 - its callers checkpoint
        """Admit a block as its policy says, for a sender that has looked for its cancellation.

        Returns:
            whether that was a checkpoint.
        """
        try:
            if self._try(envelopes):
                return False  # noqa: ASYNC910 - as above
        except TinkerActorsError:
            await trio.lowlevel.cancel_shielded_checkpoint()  # who tries again and again must not spin
            raise
        reader = current_reader()
        if reader is None:
            await self._park(envelopes)
        else:
            station = cast("Station", self)
            check_cycle(reader, station, exclusive=False)
            with waiting_on(reader, station):
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

        if self._parked is _NOBODY:
            self._parked = OrderedDict[trio.lowlevel.Task, Block]()
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
                envelope.key = None if envelope.asked else self._spec.key(envelope.message)
        goes_before_parked = not self._parked or bool(self._replaced(envelopes))
        if not goes_before_parked or not self._fits(envelopes):
            return self._overflow(envelopes)
        for envelope in envelopes:
            self._enqueue(envelope)
        return True

    def _fits(self, envelopes: Block) -> bool:
        replaced = self._replaced(envelopes)
        if len(self.line) - len(replaced) + len(envelopes) > self._capacity:
            return False
        limit = self._spec.max_bytes
        if limit is None or len(self.line) == len(replaced):  # the larger than all bounds passes alone
            return True
        freed = sum(envelope.size for envelope in replaced)
        return self._bytes - freed + sum(envelope.size for envelope in envelopes) <= limit

    def _replaced(self, envelopes: Block) -> list[AnyEnvelope]:
        """Return the messages in line in whose place newer ones of their keys are to come."""
        if not isinstance(self._spec.overflow, Coalesce):
            return []
        keys = {envelope.key for envelope in envelopes if envelope.key is not None}
        return [other for other in self.line if other.key is not None and other.key in keys]

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
        # One that had begun before a restart gets the crash: to say that it did not begin would be a lie.
        envelope.fail(envelope.crash or Dropped(text, actor=self.owner, started=False), reason="dropped")

    def _coalesce(self, envelope: AnyEnvelope) -> None:
        for other in self._replaced((envelope,)):
            self._remove(other)
            text = f"a newer message to {self.owner} took the place of this one"
            other.fail(Dropped(text, actor=self.owner, started=False), reason="coalesced")

    def _full(self) -> MailboxFull:
        depth = len(self.line)
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
        envelope.state = _QUEUED
        envelope.ledger = self
        if not envelope.message.stands_alone:
            self._stand_together(envelope)
        if self.watched:
            self.admitted(envelope)

    def _stand_together(self, envelope: AnyEnvelope) -> None:
        """Note what a message has to do with its neighbours in line."""
        if envelope.message.exclusive:
            self._has_barriers = True
        if envelope.message.unit == "none":
            return
        envelope.unit = self._unit
        if envelope.message.unit == "end":
            self._unit += 1

    def _enqueue(self, envelope: AnyEnvelope) -> None:
        if envelope.key is not None:
            self._coalesce(envelope)
        self._number(envelope)
        queue = self.line
        queue.append(envelope)
        if envelope.size:
            self._bytes += envelope.size
        self._peak = max(self._peak, len(queue))
        if self.idle:
            self._wake_reader()

    # --- room --------------------------------------------------------------------------------------------

    def _remove_first(self) -> AnyEnvelope:
        envelope = self.line.popleft()
        self._bytes -= envelope.size
        return envelope

    def _remove(self, envelope: AnyEnvelope) -> None:
        self.line.remove(envelope)  # by identity, and at the speed of C
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
        self._tell_if_drained()

    def _wake_reader(self) -> None:
        if self.idle:
            trio.lowlevel.reschedule(cast("trio.lowlevel.Task", self.idle.pop(0).task))

    def when_drained(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, when it is closed to senders and empty. The kernel's own; must not raise."""
        self._when_drained += (callback,)

    def _tell_if_drained(self) -> None:
        if self._shut is None or self.line:
            return
        callbacks, self._when_drained = self._when_drained, ()
        for callback in callbacks:
            callback()

    # --- taking back -------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    def abandon(self, envelope: AnyEnvelope) -> bool:
        """Take one queued envelope out because its caller left; False if it is not queued, or of a unit."""
        if envelope.state is not State.QUEUED or envelope.unit is not None:
            return False
        self._take_back([envelope], "its caller left before it started", envelope.given_up())
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
            taken = [other for other in self.line if other.unit == envelope.unit]
        self._take_back(taken, "it was taken back before it started", State.ABANDONED)
        return True

    def _take_back(self, envelopes: Iterable[AnyEnvelope], why: str, state: State) -> None:
        for envelope in envelopes:
            self._remove(envelope)
            envelope.observed = True  # taking it back is no failure that somebody should hear of
            envelope.fail(self._withdrawal(why), state)
        self._made_room()
        self._wake_reader()  # the head may be another one now

    def _withdrawal(self, why: str) -> Withdrawn:
        text = f"a message to {self.owner} was not handled: {why}"
        return Withdrawn(text, actor=self.owner, started=False)
