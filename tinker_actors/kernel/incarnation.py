"""One life of an actor: start, handle messages, end.

Theory of operation. An incarnation runs in a task of its supervisor's nursery, inside a shielded cancel scope,
so that only its supervisor cancels it (one outer cancellation would else end heartbeats and telemetry before
the work they serve). Nothing of class `Exception` leaves it: it returns an `Exit`. KeyboardInterrupt,
SystemExit and trio's own internal errors are passed on after every message has been settled.

Outcomes of messages are never trio's `Cancelled`: cancel scopes are read, not their exceptions shipped. A
handler that is cancelled because another part of its incarnation failed is lost *because of that failure*, so
the first failure is noted where it is raised, before trio cancels the others.

Handlers that may run side by side are run by *readers*: tasks that take a message and handle it, in one step.
A reader that takes a message while no other is idle starts one more, up to the actor's concurrency; so messages
begin in order, and there is no time between "taken" and "begun" in which a caller could leave.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import trio

from tinker_actors.errors import ActorError, HandlerCrashed, InFlightLost, Unhandled, Withdrawn
from tinker_actors.kernel.actor import CURRENT_CALL, Actor, CallerLeft, Context, Ending, ReplyToken
from tinker_actors.kernel.envelope import TRACE, Envelope
from tinker_actors.kernel.interrupt import call_exposed, exposed
from tinker_actors.kernel.mailbox import Mailbox
from tinker_actors.kernel.message import State
from tinker_actors.kernel.ref import ActorRef

__all__ = ["Exit", "Incarnation", "collapse"]

_LOG = logging.getLogger("tinker_actors.kernel")
_IDLE_READERS = 16  # so many wait for the next burst; the others end when they have nothing to do


@attrs.frozen
class Exit:
    """How an incarnation ended.

    Attributes:
        crash: what it raised, if it crashed.
        ran_for: seconds it took messages; None if it never did.
    """

    crash: Exception | None
    ran_for: float | None


def collapse(error: BaseException) -> BaseException:
    """Return the only leaf of an exception group, or the error itself."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _failure_in(error: BaseException) -> Exception | None:
    """Return what is a failure in it: no cancellations, no interrupts."""
    if isinstance(error, BaseExceptionGroup):
        failures, _ = error.split(Exception)
        error = error if failures is None else collapse(failures)
    return error if isinstance(error, Exception) else None


def _is_stray(error: BaseException) -> bool:
    """Whether it is a `Cancelled` that was carried here from another task: no scope around this one made it."""
    return isinstance(error, trio.Cancelled) and trio.current_effective_deadline() != -math.inf


@attrs.define(eq=False)
class Incarnation:
    """One life of the actor that `factory` makes.

    Attributes:
        ref: the actor's address.
        mailbox: where its messages come from.
        factory: makes the actor.
        number: 1 for the first life.
        last_failure: what ended the life before.
        surviving: messages whose reply tokens outlive this incarnation.
        concurrency: handlers that may run at once.
        start_timeout: seconds `on_start` may take.
        cleanup_timeout: seconds `on_stop` may take.
        on_ready: called when it begins to take messages.
        on_stopping: called when it has taken its last message.
        scope: cancels it.
        ending: how it is to end, once that is known.
    """

    ref: ActorRef[Any]
    mailbox: Mailbox
    factory: Callable[[], Actor[Any]]
    number: int
    last_failure: Exception | None
    surviving: set[Envelope[Any]]
    concurrency: int
    start_timeout: float
    cleanup_timeout: float
    on_ready: Callable[[], None]
    on_stopping: Callable[[], None]
    scope: trio.CancelScope = attrs.field(factory=lambda: trio.CancelScope(shield=True))
    ending: Ending = "drain"
    _bound: set[Envelope[Any]] = attrs.field(factory=set)
    _in_flight: set[Envelope[Any]] = attrs.field(factory=set)
    _failure: Exception | None = None
    _ready_at: float | None = None
    _ended_at: float = 0.0
    _readers: int = 0
    _idle: int = 0

    # --- life --------------------------------------------------------------------------------------------

    async def run(self) -> Exit:
        """Live; see the module. A checkpoint.

        Raises:
            BaseException: only what is not an `Exception`, after everything is settled.
        """
        crash: Exception | None = None
        try:
            with self.scope:
                await self._live()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this actor's crash
            crash = _failure_in(error)
        finally:
            self._lose(self._bound, crash)
        return Exit(crash, None if self._ready_at is None else self._ended_at - self._ready_at)

    @trio.lowlevel.enable_ki_protection
    def kill(self, reason: str) -> None:
        """Cancel it; who waits for a message it has begun is told now, however long it takes to unwind."""
        self._lose(self._in_flight, None)
        self._lose(self._bound, None)
        self.scope.cancel(reason=reason)

    async def _live(self) -> None:
        async with trio.open_nursery() as nursery:
            actor = await self._start(nursery)
            ending: Ending = "crash"
            try:
                await self._serve(actor)
                self._ended_at = trio.current_time()
                self.on_stopping()
                await exposed(actor.on_drain)
                ending = self.ending
            except BaseException as error:
                self._note(error)
                if _is_stray(error):
                    raise self._stray(error) from None
                raise
            finally:
                if self._ended_at < self._ready_at:
                    pass
                await self._clean_up(actor, "kill" if self.scope.cancel_called else ending)
            nursery.cancel_scope.cancel(reason=f"{self.ref.path} has stopped")
