"""What the kernel tells an observer, as frozen facts.

An observer is a plain callable. Facts about single messages are made only if it wants them (`trace_messages`);
a mailbox without such an observer asks one `is None` for it. Its exceptions are logged and never reach an
actor.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import TypeAlias

import attrs
import trio

from tinker_actors.kernel.border import call_user
from tinker_actors.kernel.dead_letter import DeadLetter, DeadLetters

__all__ = [
    "ActorCrashed",
    "ActorEnded",
    "ActorReady",
    "ActorStuck",
    "KernelEvent",
    "MessageAdmitted",
    "MessageSettled",
    "MessageStarted",
    "Observer",
    "Sight",
]

_LOG = logging.getLogger("tinker_actors.kernel")


@attrs.frozen
class ActorReady:
    """An incarnation has started and takes messages."""

    actor: str
    incarnation: int


@attrs.frozen
class ActorCrashed:
    """An incarnation raised.

    Attributes:
        cause: what it raised.
        delay: seconds until it is started again; None if it is not, or not by a clock of its own.
    """

    actor: str
    incarnation: int
    cause: BaseException
    delay: float | None


@attrs.frozen
class ActorEnded:
    """An actor has ended for good; `failed` if its supervisor gave it up."""

    actor: str
    incarnation: int
    failed: bool


@attrs.frozen
class ActorStuck:
    """An incarnation was cancelled and does not end; nobody waits for it any more.

    Attributes:
        stack: where its tasks stand, as text.
    """

    actor: str
    incarnation: int
    stack: str


@attrs.frozen
class MessageAdmitted:
    """A message got its place in line."""

    actor: str
    seq: int
    kind: str


@attrs.frozen
class MessageStarted:
    """The handler of a message begins."""

    actor: str
    seq: int
    kind: str


@attrs.frozen
class MessageSettled:
    """A message has its outcome, whether it had begun or not.

    Attributes:
        state: `settled`, `abandoned` or `expired`.
        error: the name of the error's type; None if it ended in a value.
    """

    actor: str
    seq: int
    kind: str
    state: str
    error: str | None


KernelEvent: TypeAlias = (
    ActorReady
    | ActorCrashed
    | ActorEnded
    | ActorStuck
    | DeadLetter
    | MessageAdmitted
    | MessageStarted
    | MessageSettled
)
Observer: TypeAlias = Callable[[KernelEvent], None]


class Sight:
    """What all of a tree use to make themselves seen.

    Attributes:
        dead_letters: what was lost.
        timed: mailboxes measure how long messages wait and take.
        remembers: so many of the messages that ended last are remembered by each mailbox that is made.
        trace: told of single messages; None if nobody wants to know.
    """

    def __init__(
        self, observer: Observer | None = None, *, trace_messages: bool = False, timed: bool = False
    ) -> None:
        self.dead_letters: DeadLetters = DeadLetters(self.notify)
        self.timed = timed
        self.remembers = 0
        self.trace: Observer | None = self.notify if trace_messages and observer is not None else None
        self._observer = observer
        self._loop = trio.lowlevel.current_trio_token()

    def in_loop(self, function: Callable[..., object], *args: object) -> None:
        """Call a function in the loop, from any thread; not at all if the loop has ended."""
        with contextlib.suppress(trio.RunFinishedError):
            self._loop.run_sync_soon(function, *args)

    def notify(self, event: KernelEvent) -> None:
        """Tell the observer."""
        if self._observer is None:
            return
        try:
            call_user(self._observer, event)
        except Exception:  # noqa: BLE001 - a user's function must not end an actor
            _LOG.exception("the observer failed on %r", event)
