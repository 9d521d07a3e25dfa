"""One life of an actor: start, handle messages, end.

Theory of operation. An incarnation runs in a task of its supervisor's nursery, inside a shielded cancel scope,
so that only its supervisor cancels it (one outer cancellation would else end heartbeats and telemetry before
the work they serve). Nothing of class `Exception` leaves it: it returns an `Exit`. KeyboardInterrupt,
SystemExit and trio's own internal errors are passed on after every message has been settled.

Outcomes of messages are never trio's `Cancelled`: cancel scopes are read, not their exceptions shipped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import attrs
import trio

from tinker_actors.errors import HandlerCrashed, InFlightLost, Unhandled, Withdrawn
from tinker_actors.kernel.actor import CURRENT_CALL, Actor, Context, Ending, ReplyToken
from tinker_actors.kernel.envelope import Envelope
from tinker_actors.kernel.mailbox import Mailbox
from tinker_actors.kernel.message import State
from tinker_actors.kernel.ref import ActorRef

__all__ = ["Exit", "Incarnation", "collapse"]

_LOG = logging.getLogger("tinker_actors.kernel")


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


@attrs.define(eq=False)
class Incarnation:
    """One life of the actor that `factory` makes.

    Attributes:
        ref: the actor's address.
        mailbox: where its messages come from.
        factory: makes the actor.
        number: 1 for the first life.
        last_failure: what ended the life before.
        surviving: reply tokens that outlive this incarnation.
        concurrency: handlers that may run at once.
        start_timeout: seconds `on_start` may take.
        cleanup_timeout: seconds `on_stop` may take.
        on_ready: called when it begins to take messages.
        scope: cancels it.
        ending: how it is to end, once that is known.
    """

    ref: ActorRef[Any]
    mailbox: Mailbox
    factory: Callable[[], Actor[Any]]
    number: int
    last_failure: Exception | None
    surviving: set[ReplyToken[Any]]
    concurrency: int
    start_timeout: float
    cleanup_timeout: float
    on_ready: Callable[[], None]
    on_stopping: Callable[[], None]
    scope: trio.CancelScope = attrs.field(factory=lambda: trio.CancelScope(shield=True))
    ending: Ending = "drain"
    _bound: set[ReplyToken[Any]] = attrs.field(factory=set)
    _ready_at: float | None = None

    async def run(self) -> Exit:
        """Live; see the module.

        Raises:
            BaseException: only what is not an `Exception`, after everything is settled.
        """
        crash: Exception | None = None
        try:
            with self.scope:
                await self._live()
        except BaseException as error:
            cause = collapse(error)
            if not isinstance(cause, Exception):
                raise
            crash = cause
        finally:
            self._lose(crash)
        ran_for = None if self._ready_at is None else trio.current_time() - self._ready_at
        return Exit(crash, ran_for)

    def _lose(self, cause: Exception | None) -> None:
        for token in list(self._bound):
            token.fail(self._lost(token.envelope, cause))

    def _lost(self, envelope: Envelope[Any], cause: BaseException | None) -> InFlightLost:
        name = type(envelope.message).__name__
        error = InFlightLost(f"{self.ref.path} ended while it had {name}", actor=self.ref.path, started=True)
        error.__cause__ = cause
        return error

    async def _live(self) -> None:
        async with trio.open_nursery() as nursery:
            actor = self.factory()
            actor.context = Context(
                self.ref,
                nursery,
                self.number,
                self.last_failure,
                self._bound,
                self.surviving,
                lambda: self.mailbox.last_seq,
            )
            with trio.fail_after(self.start_timeout):
                await actor.on_start()
            self._ready_at = trio.current_time()
            self.on_ready()
            ending: Ending = "crash"
            try:
                await self._serve(actor)
                self.on_stopping()
                await actor.on_drain()
                ending = self.ending
            finally:
                if self.scope.cancel_called:
                    ending = "kill"
                await self._clean_up(actor, ending)
            nursery.cancel_scope.cancel(reason=f"{self.ref.path} has stopped")

    async def _clean_up(self, actor: Actor[Any], ending: Ending) -> None:
        try:
            with trio.move_on_after(self.cleanup_timeout, shield=True) as scope:
                await actor.on_stop(ending)
            if scope.cancelled_caught:
                _LOG.error("%s: on_stop did not end within %s s", self.ref.path, self.cleanup_timeout)
        except Exception:
            _LOG.exception("%s: on_stop failed", self.ref.path)

    async def _serve(self, actor: Actor[Any]) -> None:
        if self.concurrency == 1:
            while (envelope := await self.mailbox.get()) is not None:
                await self._handle(actor, envelope)
            return
        places = trio.Semaphore(self.concurrency)
        async with trio.open_nursery() as handlers:
            while True:
                await places.acquire()
                envelope = await self.mailbox.get()
                if envelope is None:
                    break
                handlers.start_soon(self._handle_beside, actor, envelope, places)

    async def _handle_beside(
        self, actor: Actor[Any], envelope: Envelope[Any], places: trio.Semaphore
    ) -> None:
        try:
            await self._handle(actor, envelope)
        finally:
            places.release()

    async def _handle(self, actor: Actor[Any], envelope: Envelope[Any]) -> None:
        handler = actor.handlers.get(type(envelope.message))
        if handler is None:
            name = type(envelope.message).__name__
            envelope.fail(Unhandled(f"{self.ref.path} has no handler for {name}", actor=self.ref.path))
            return
        scope = trio.CancelScope(deadline=envelope.deadline)
        envelope.scope = scope
        token = CURRENT_CALL.set(envelope)
        cause: BaseException | None = None
        try:
            with scope:
                reply = await handler(actor, envelope.message)
                if not isinstance(reply, ReplyToken):
                    envelope.settle(reply)
        except BaseException as error:
            cause = collapse(error)
            self._answer_failure(actor, envelope, cause)
        finally:
            CURRENT_CALL.reset(token)
            envelope.scope = None
            self._close(envelope, scope, cause)

    def _answer_failure(self, actor: Actor[Any], envelope: Envelope[Any], cause: BaseException) -> None:
        if isinstance(cause, actor.declares):
            envelope.fail(cause)
            return
        if isinstance(cause, Exception) and not envelope.detached:
            name = type(envelope.message).__name__
            crash = HandlerCrashed(f"{self.ref.path} crashed on {name}", actor=self.ref.path, started=True)
            crash.__cause__ = cause
            envelope.fail(crash)
        raise cause

    def _close(self, envelope: Envelope[Any], scope: trio.CancelScope, cause: BaseException | None) -> None:
        """Settle whatever the handler left unsettled."""
        if envelope.detached or envelope.outcome.settled:
            return
        if scope.cancelled_caught:
            state = State.ABANDONED if envelope.state is State.ABANDONED else State.EXPIRED
            envelope.fail(Withdrawn("nobody waits any more", actor=self.ref.path, started=True), state)
        else:
            envelope.fail(self._lost(envelope, cause))
