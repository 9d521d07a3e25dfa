"""Refs: how the rest of the world talks to an actor.

- `tell` returns when the message is in line; nobody waits for an answer.
- `ask` waits for the answer; a caller that leaves takes its message with it (see `Message.on_abandon`).
- `submit` returns when the message is in line, with a `Pending` for the answer; leaving that changes nothing.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncGenerator, Generator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeAlias, TypeVar, final

import trio

from tinker_actors.errors import InputError
from tinker_actors.kernel.cycle import check_cycle, cycle_error, find_cycle
from tinker_actors.kernel.envelope import Envelope
from tinker_actors.kernel.mailbox import Mailbox
from tinker_actors.kernel.message import MailboxStatistics, Message, State
from tinker_actors.kernel.outcome import Outcome
from tinker_actors.kernel.reader import Reader, current_reader, waiting_on
from tinker_actors.kernel.watch import Down, Obituary, Watch

__all__ = ["ActorRef", "Pending", "StopMode", "Target"]

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
RoleT_co = TypeVar("RoleT_co", covariant=True)

StopMode: TypeAlias = Literal["drain", "now", "kill"]


class Target(Protocol):
    """What stands behind a ref: an actor's slot, or a pool."""

    path: str
    obituary: Obituary
    reply_timeout: float

    def choose(self) -> Mailbox:
        """Return the mailbox for the next message."""
        ...

    async def stop(self, mode: StopMode, timeout: float) -> None:  # noqa: ASYNC109 - a stop that kills
        """Stop it."""
        ...

    def statistics(self) -> MailboxStatistics:
        """Return counters and depths."""
        ...


@final
class Pending(Generic[R_co]):
    """The answer to a message that is in line.

    Awaiting it waits and does nothing else: a waiter that is cancelled leaves the work as it is, and any
    number of tasks may wait, each of which gets an exception object of its own if the work failed. A failure
    of a Pending that was thrown away unseen becomes a dead letter.
    """

    __slots__ = ("__weakref__", "_envelope", "_mailbox")

    def __init__(self, envelope: Envelope[R_co], mailbox: Mailbox) -> None:
        self._envelope = envelope
        self._mailbox = mailbox

    def __await__(self) -> Generator[Any, Any, R_co]:
        return self._wait().__await__()

    async def _wait(self) -> R_co:
        reader = current_reader()
        if reader is None or self._envelope.settled:
            return await self._envelope.wait()
        check_cycle(reader, self._mailbox, exclusive=self._envelope.message.exclusive)
        with waiting_on(reader, self._mailbox):
            return await self._envelope.wait()

    def __del__(self) -> None:
        # The collector may run in any thread and at any point, so this only leaves a mark; whoever fails the
        # message later, or the loop if it has failed already, makes the dead letter.
        envelope = self._envelope
        if not envelope.observed:
            self._mailbox.thrown_away(envelope)

    def __repr__(self) -> str:
        return f"<Pending {type(self._envelope.message).__name__} {self._envelope.state.value}>"

    if not TYPE_CHECKING:  # checkers see the attributes there are

        def __getattr__(self, name: str) -> object:
            message = f"a Pending has no {name!r}: await it, and take that of its answer"
            raise AttributeError(message, name=name, obj=self)

    @property
    def outcome(self) -> Outcome[R_co]:
        """The outcome it waits for."""
        return self._envelope

    @property
    def settled(self) -> bool:
        """Whether the answer, or the failure, is there."""
        return self._envelope.settled

    async def withdraw(self) -> bool:
        """Take the message back, with the whole unit it belongs to, if nothing of it has begun. A checkpoint.

        Returns:
            True: all of it was taken back; its Pendings end in `Withdrawn`. False: nothing was changed.
        """
        await trio.lowlevel.checkpoint()
        return self._mailbox.withdraw(self._envelope)


@final
class ActorRef(Generic[RoleT_co]):
    """A typed address of an actor. It stays valid across restarts. Supervisors make refs; users do not.

    Attributes:
        path: names of its supervisors and its own, joined by `/`.
    """

    __slots__ = ("__weakref__", "_mailbox", "_target", "path")

    def __init__(self, target: Target, mailbox: Mailbox | None = None) -> None:
        self.path: str = target.path
        self._target = target
        self._mailbox = mailbox  # the only one, if the target has no choice

    def __repr__(self) -> str:
        return f"<ActorRef {self.path}>"

    @trio.lowlevel.enable_ki_protection
    async def tell(self, message: Message[RoleT_co, Any]) -> None:
        """Put a message in line; waits for room. A checkpoint. Its handler's failure is a dead letter.

        Raises:
            ActorStopped: the actor has ended or is stopping.
            MailboxFull: the mailbox is full and refuses (`overflow="fail"`).
        """
        envelope = Envelope(message, math.inf, False)
        await trio.lowlevel.checkpoint_if_cancelled()
        mailbox = self._mailbox or self._target.choose()
        if mailbox.offer(envelope):
            await trio.lowlevel.cancel_shielded_checkpoint()
        else:
            await mailbox.put_slowly((envelope,))

    def tell_nowait(self, message: Message[RoleT_co, Any]) -> None:
        """Put a message in line now, even if the scope around this is cancelled.

        Raises:
            MailboxFull: there is no room.
            ActorStopped: the actor has ended or is stopping.
        """
        self._target.choose().put_nowait(Envelope(message, asked=False))

    @trio.lowlevel.enable_ki_protection
    async def ask(self, message: Message[RoleT_co, R]) -> R:
        """Put a message in line and wait for its answer. A checkpoint.

        The caller's effective deadline travels with the message: it is not begun once that has passed.

        Raises:
            ActorStopped: the actor has ended; `started` tells whether the handler had begun.
            HandlerCrashed: the handler raised something it had not declared.
            AskCycle: the answer would wait for the handler that asks.
            TooSlowError: the actor's `reply_timeout` passed, and the caller had no deadline of its own.
            Exception: whatever the actor declares as an answer.
        """
        # A message of a unit goes with its unit, whatever becomes of this caller.
        deadline = trio.current_effective_deadline() if message.unit == "none" else math.inf
        target = self._target
        if deadline == math.inf and target.reply_timeout != math.inf and message.unit == "none":
            return await self._ask_in_time(message, target.reply_timeout)
        mailbox = self._mailbox or target.choose()
        envelope = Envelope(message, deadline)
        reader = current_reader()
        if reader is not None:
            await self._ask_from_handler(reader, mailbox, envelope)
            return envelope.result()
        await trio.lowlevel.checkpoint_if_cancelled()
        if not mailbox.offer(envelope):
            await mailbox.put_slowly((envelope,))
        await _answered(mailbox, envelope)
        return envelope.result()

    async def _ask_in_time(self, message: Message[RoleT_co, R], seconds: float) -> R:
        with trio.move_on_after(seconds):
            return await self.ask(message)
        kind = type(message).__name__
        raise trio.TooSlowError(f"{self.path} did not answer {kind} within its reply_timeout of {seconds} s")

    @trio.lowlevel.enable_ki_protection
    async def _ask_from_handler(self, reader: Reader, mailbox: Mailbox, envelope: Envelope[Any]) -> None:
        message = envelope.message
        path = find_cycle(reader, mailbox, exclusive=message.exclusive)
        if path is not None:
            await trio.lowlevel.checkpoint()
            if not (message.reentrant and mailbox.enter(envelope)):
                raise cycle_error(mailbox, path)
        else:
            await trio.lowlevel.checkpoint_if_cancelled()
            if not mailbox.offer(envelope):
                await mailbox.put_slowly((envelope,))
        reader.waits.append(mailbox)  # as `waiting_on` does, for those who ask by the thousand
        try:
            await _answered(mailbox, envelope)
        finally:
            reader.waits.remove(mailbox)

    async def submit(self, message: Message[RoleT_co, R]) -> Pending[R]:
        """Put a message in line and return a `Pending` for its answer; waits for room. A checkpoint.

        Raises:
            ActorStopped: the actor has ended or is stopping.
            MailboxFull: the mailbox is full and refuses (`overflow="fail"`).
        """
        envelope = Envelope(message)
        mailbox = self._target.choose()
        await mailbox.put(envelope)
        return Pending(envelope, mailbox)

    def submit_nowait(self, message: Message[RoleT_co, R]) -> Pending[R]:
        """Put a message in line now, even if the scope around this is cancelled.

        Raises:
            MailboxFull: there is no room.
            ActorStopped: the actor has ended or is stopping.
        """
        envelope = Envelope(message)
        mailbox = self._target.choose()
        mailbox.put_nowait(envelope)
        return Pending(envelope, mailbox)

    async def submit_many(self, messages: Sequence[Message[RoleT_co, R]]) -> list[Pending[R]]:
        """Put messages in line as one block, with nothing between them; waits for room for all. A checkpoint.

        Raises:
            InputError: no message, or more than the mailbox holds.
            ActorStopped: the actor has ended or is stopping.
            MailboxFull: the mailbox is full and refuses (`overflow="fail"`).
        """
        if not messages:
            raise InputError("messages", messages, "must not be empty")
        envelopes = tuple(Envelope(message) for message in messages)
        mailbox = self._target.choose()
        await mailbox.put_block(envelopes)
        return [Pending(envelope, mailbox) for envelope in envelopes]

    async def stop(self, mode: StopMode = "drain", timeout: float = 30.0) -> None:  # noqa: ASYNC109 - kills
        """Stop the actor for good and wait for its end. A checkpoint.

        Called by the actor itself, it only begins the stop.

        Args:
            mode: `drain` handles what is in line, `now` finishes what has begun, `kill` cancels that too.
            timeout: seconds after which what is not done is killed.
        """
        await self._target.stop(mode, timeout)

    async def wait_stopped(self) -> Down:
        """Wait until the actor has ended for good, and return how. A checkpoint."""
        return await self._target.obituary.wait()

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncGenerator[Watch]:  # noqa: ASYNC911 - entering and leaving wait for nothing
        """Watch the actor for as long as the block lasts; `await watch.down()` waits for its end."""
        async with self._target.obituary.watching() as watch:
            yield watch

    @property
    def obituary(self) -> Obituary:
        """Where its end is told; for those who write watchers of their own."""
        return self._target.obituary

    @property
    def stopped(self) -> bool:
        """Whether the actor has ended for good."""
        return self._target.obituary.down is not None

    def statistics(self) -> MailboxStatistics:
        """Return the mailbox's counters and depths."""
        return self._target.statistics()


async def _answered(mailbox: Mailbox, envelope: Envelope[Any]) -> None:  # noqa: ASYNC910 - admission may have been one
    """Wait until an admitted ask has its outcome, or leave it."""
    if not envelope.settled:
        await envelope.park(partial(_leave, mailbox, envelope))
    if envelope.state is State.EXPIRED:
        await trio.lowlevel.checkpoint()  # raises the caller's own cancellation: its deadline has passed


def _leave(mailbox: Mailbox, envelope: Envelope[Any]) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.SUCCEEDED if mailbox.abandon(envelope) else envelope.leave()
