"""Refs: how the rest of the world talks to an actor.

- `tell` returns when the message is in line; nobody waits for an answer.
- `ask` waits for the answer; a caller that leaves takes its message with it (see `Message.on_abandon`).
- `submit` returns when the message is in line, with a `Pending` for the answer; leaving that changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Any, Generic, TypeVar, final

import trio

from tinker_actors.kernel.envelope import Envelope
from tinker_actors.kernel.mailbox import Mailbox
from tinker_actors.kernel.message import MailboxStatistics, Message, State
from tinker_actors.kernel.outcome import Outcome

__all__ = ["ActorRef", "Pending"]

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
RoleT_co = TypeVar("RoleT_co", covariant=True)


@final
class Pending(Generic[R_co]):
    """The answer to a message that is in line.

    Awaiting it waits and does nothing else: a waiter that is cancelled leaves the work as it is, and any
    number of tasks may wait, each of which gets an exception object of its own if the work failed.
    """

    __slots__ = ("__weakref__", "_envelope", "_mailbox")

    def __init__(self, envelope: Envelope[R_co], mailbox: Mailbox) -> None:
        self._envelope = envelope
        self._mailbox = mailbox

    def __await__(self) -> Generator[Any, Any, R_co]:
        return self._envelope.outcome.wait().__await__()

    def __repr__(self) -> str:
        return f"<Pending {type(self._envelope.message).__name__} {self._envelope.state.value}>"

    @property
    def outcome(self) -> Outcome[R_co]:
        """The outcome it waits for."""
        return self._envelope.outcome

    @property
    def settled(self) -> bool:
        """Whether the answer, or the failure, is there."""
        return self._envelope.outcome.settled

    async def withdraw(self) -> bool:
        """Take the message back, with the whole unit it belongs to, if nothing of it has begun. A checkpoint.

        Returns:
            True: all of it was taken back; its Pendings end in `Withdrawn`. False: nothing was changed.
        """
        await trio.lowlevel.checkpoint()
        return self._mailbox.withdraw(self._envelope)


@final
class ActorRef(Generic[RoleT_co]):
    """A typed address of an actor. It stays valid across restarts. Supervisors make refs; users do not."""

    __slots__ = ("__weakref__", "_ended", "_mailbox", "path")

    def __init__(self, path: str, mailbox: Mailbox, ended: trio.Event) -> None:
        self.path = path
        self._mailbox = mailbox
        self._ended = ended

    def __repr__(self) -> str:
        return f"<ActorRef {self.path}>"

    async def tell(self, message: Message[RoleT_co, Any]) -> None:
        """Put a message in line; waits for room. A checkpoint. Its handler's failure is logged.

        Raises:
            ActorStopped: the actor has ended or is stopping.
        """
        await self._mailbox.put(_unasked(message))

    def tell_nowait(self, message: Message[RoleT_co, Any]) -> None:
        """Put a message in line now, even if the scope around this is cancelled.

        Raises:
            MailboxFull: there is no room.
            ActorStopped: the actor has ended or is stopping.
        """
        self._mailbox.put_nowait(_unasked(message))

    @trio.lowlevel.enable_ki_protection
    async def ask(self, message: Message[RoleT_co, R]) -> R:
        """Put a message in line and wait for its answer. A checkpoint.

        The caller's effective deadline travels with the message: it is not begun once that has passed.

        Raises:
            ActorStopped: the actor has ended; `started` tells whether the handler had begun.
            HandlerCrashed: the handler raised something it had not declared.
            Exception: whatever the actor declares as an answer.
        """
        # A message of a unit goes with its unit, whatever becomes of this caller.
        deadline = trio.current_effective_deadline() if message.unit == "none" else math.inf
        envelope = Envelope(message, deadline=deadline)
        await self._mailbox.admit(envelope)
        if not envelope.outcome.settled:
            await envelope.outcome.park(lambda: self._leave(envelope))
        if envelope.state is State.EXPIRED:
            await trio.lowlevel.checkpoint()  # raises the caller's own cancellation: its deadline has passed
        return envelope.outcome.result()

    def _leave(self, envelope: Envelope[Any]) -> trio.lowlevel.Abort:
        if self._mailbox.abandon(envelope):
            return trio.lowlevel.Abort.SUCCEEDED
        return envelope.leave()

    async def submit(self, message: Message[RoleT_co, R]) -> Pending[R]:
        """Put a message in line and return a `Pending` for its answer; waits for room. A checkpoint.

        Raises:
            ActorStopped: the actor has ended or is stopping.
        """
        envelope = Envelope(message)
        await self._mailbox.put(envelope)
        return Pending(envelope, self._mailbox)

    async def wait_stopped(self) -> None:
        """Wait until the actor has ended for good."""
        await self._ended.wait()

    @property
    def stopped(self) -> bool:
        """Whether the actor has ended for good."""
        return self._ended.is_set()

    def statistics(self) -> MailboxStatistics:
        """Return the mailbox's counters and depths."""
        return self._mailbox.statistics()


def _unasked(message: Message[Any, R]) -> Envelope[R]:
    envelope = Envelope(message, asked=False)
    envelope.outcome.observed = True
    return envelope
