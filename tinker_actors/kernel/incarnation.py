"""One life of an actor: start, handle messages, end.

Theory of operation. An incarnation runs in a task of its supervisor's nursery, inside a shielded cancel
scope, so that only its supervisor cancels it (one outer cancellation would else end heartbeats and telemetry
before the work they serve). Nothing of class `Exception` leaves it: it returns an `Exit`. KeyboardInterrupt,
SystemExit and trio's own internal errors are passed on after every message has been settled.

Outcomes of messages are never trio's `Cancelled`: cancel scopes are read, not their exceptions shipped. A
handler that is cancelled because another part of its incarnation failed is lost *because of that failure*, so
the first failure is noted where it is raised, before trio cancels the others.

Handlers are run by *readers*: tasks that take a message and handle it, in one step, so that there is no time
between "taken" and "begun" in which a caller could leave. An actor whose handlers may run side by side begins
with one reader; a reader that takes a message while no other is idle starts one more, up to the actor's
concurrency. So messages begin in order, and an idle actor costs little.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, cast

import attrs
import trio

from tinker_actors.errors import HandlerCrashed, InFlightLost, Unhandled
from tinker_actors.kernel.actor import CURRENT_CALL, Actor, CallerLeft, Context, Ending, ReplyToken
from tinker_actors.kernel.border import await_user, call_user
from tinker_actors.kernel.envelope import TRACE, Envelope
from tinker_actors.kernel.mailbox import Mailbox
from tinker_actors.kernel.message import State
from tinker_actors.kernel.ref import ActorRef

__all__ = ["Exit", "Incarnation", "collapse"]

_LOG = logging.getLogger("tinker_actors.kernel")
_IDLE_READERS = 16  # so many wait for the next burst; further ones end when they have nothing to do


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
    while (group := _as_group(error)) is not None and len(group.exceptions) == 1:
        error = group.exceptions[0]
    return error


def _as_group(error: BaseException) -> BaseExceptionGroup[BaseException] | None:
    return cast("BaseExceptionGroup[BaseException]", error) if isinstance(error, BaseExceptionGroup) else None


def _failure_in(error: BaseException) -> Exception | None:
    """Return what is a failure in it: no cancellation, no interrupt."""
    group = _as_group(error)
    failure = error if group is None else collapse(group.subgroup(Exception) or error)
    return failure if isinstance(failure, Exception) else None


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
        on_stopping: called when it has handled its last message.
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
    _bound: set[Envelope[Any]] = attrs.field(factory=set[Envelope[Any]])
    _in_flight: set[Envelope[Any]] = attrs.field(factory=set[Envelope[Any]])
    _failure: Exception | None = None
    _ran_for: float | None = None
    _readers: int = 1
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
            # In flight there is nothing any more, unless the kernel's own code broke.
            self._lose([*self._in_flight, *self._bound], crash)
            self._failure = None  # its traceback leads here: it would keep itself alive
        return Exit(crash, self._ran_for)  # noqa: ASYNC910 - the nursery in `_live` is one

    @trio.lowlevel.enable_ki_protection
    def kill(self, reason: str) -> None:
        """Cancel it. Who waits for something it has begun is told now, however long it takes to unwind."""
        self._lose([*self._in_flight, *self._bound], self._failure)
        self.scope.cancel(reason=reason)

    async def _live(self) -> None:
        async with trio.open_nursery() as nursery:
            actor = await self._start(nursery)
            ready_at = trio.current_time()
            ending: Ending = "crash"
            try:
                await trio.lowlevel.checkpoint_if_cancelled()  # stopped while it would not hear of it
                self.on_ready()
                await self._serve(actor)
                self.on_stopping()
                await await_user(actor.on_drain)
                ending = self.ending
            finally:
                self._ran_for = trio.current_time() - ready_at
                with trio.move_on_after(self.cleanup_timeout, shield=True) as cleaning:
                    await self._clean_up(actor, "kill" if self.scope.cancel_called else ending)
                if cleaning.cancelled_caught:
                    _LOG.error("%s: on_stop did not end within %s s", self.ref.path, self.cleanup_timeout)
            nursery.cancel_scope.cancel(reason=f"{self.ref.path} has stopped")

    async def _start(self, nursery: trio.Nursery) -> Actor[Any]:
        actor = call_user(self.factory)
        actor.context = Context(
            self.ref,
            self.number,
            self.last_failure,
            spawn=lambda function, args: nursery.start_soon(self._run_beside, function, args, name=function),
            bound=self._bound,
            surviving=self.surviving,
            last_seq=lambda: self.mailbox.last_seq,
        )
        with trio.move_on_after(self.start_timeout) as scope:
            await await_user(actor.on_start)
        if scope.cancelled_caught:
            raise trio.TooSlowError(f"on_start took longer than {self.start_timeout} s")
        return actor

    async def _run_beside(self, function: Callable[..., Awaitable[object]], args: tuple[object, ...]) -> None:
        CURRENT_CALL.set(None)  # or it would keep the message alive whose handler started it
        try:
            await await_user(function, *args)
        except BaseException as error:
            self._note(error)
            raise

    async def _clean_up(self, actor: Actor[Any], ending: Ending) -> None:  # noqa: ASYNC910 - as the hook is
        try:
            await await_user(actor.on_stop, ending)
        except Exception:  # noqa: BLE001 - whatever it is, the actor has ended
            _LOG.exception("%s: on_stop failed", self.ref.path)

    # --- messages ----------------------------------------------------------------------------------------

    async def _serve(self, actor: Actor[Any]) -> None:
        """Handle messages until the mailbox is closed and empty."""
        if self.concurrency == 1:
            await self._read(actor, None)
            return
        async with trio.open_nursery() as readers:
            readers.start_soon(self._read, actor, readers)

    @trio.lowlevel.enable_ki_protection
    async def _read(self, actor: Actor[Any], readers: trio.Nursery | None) -> None:  # noqa: ASYNC910 - `get` is
        while self._idle < _IDLE_READERS:
            self._idle += 1
            try:
                envelope = await self.mailbox.get()
            finally:
                self._idle -= 1
            if envelope is None:
                break
            if readers is not None and not self._idle and self._readers < self.concurrency:
                self._readers += 1
                readers.start_soon(self._read, actor, readers)
            try:
                await self._handle(actor, envelope)
            finally:
                del envelope  # or it would live until the next one comes, and a crash would keep itself alive
        self._readers -= 1

    async def _handle(self, actor: Actor[Any], envelope: Envelope[Any]) -> None:  # noqa: ASYNC910 - `get` was
        self._in_flight.add(envelope)
        handler = actor.handlers.get(type(envelope.message))
        if handler is None:
            self._in_flight.discard(envelope)
            name = type(envelope.message).__name__
            text = f"{self.ref.path} has no handler for {name}"
            self._answer(envelope, Unhandled(text, actor=self.ref.path, started=False))
            return  # noqa: ASYNC910 - as above
        call, trace = CURRENT_CALL.set(envelope), TRACE.set(envelope.trace)
        scope = envelope.open_scope()
        try:
            with scope:
                self._take_reply(envelope, await await_user(handler, actor, envelope.message))
        except Exception as error:
            if not self._is_answer(actor, envelope, error):
                raise
        finally:
            CURRENT_CALL.reset(call)
            TRACE.reset(trace)
            self._end(envelope, scope)
            del envelope

    def _take_reply(self, envelope: Envelope[Any], reply: object) -> None:
        if not isinstance(reply, ReplyToken):
            envelope.settle(reply)
        elif reply.belongs_to(envelope):
            envelope.detached = True
        else:
            name = type(envelope.message).__name__
            raise TypeError(f"the handler of {name} returned the reply token of another message")

    def _is_answer(self, actor: Actor[Any], envelope: Envelope[Any], error: Exception) -> bool:
        """Settle a message whose handler raised; False if that is a crash."""
        cause = _failure_in(error)
        if isinstance(cause, CallerLeft):
            envelope.fail(cause, State.EXPIRED)
            return True
        if isinstance(cause, actor.declares):
            self._answer(envelope, cause)
            return True
        self._note(error)
        if envelope.duty != "surviving token":
            name = type(envelope.message).__name__
            crash = HandlerCrashed(f"{self.ref.path} crashed on {name}", actor=self.ref.path, started=True)
            crash.__cause__ = cause
            envelope.fail(crash)
        return False

    def _answer(self, envelope: Envelope[Any], error: Exception) -> None:
        if not envelope.asked:
            name = type(envelope.message).__name__
            _LOG.warning("%s: %s, which nobody waits for, failed: %r", self.ref.path, name, error)
        envelope.fail(error)

    def _end(self, envelope: Envelope[Any], scope: trio.CancelScope) -> None:
        """Settle what the handler left unsettled, unless a token has taken the duty over."""
        self._in_flight.discard(envelope)
        envelope.scope = None
        settled = envelope.outcome.settled
        if envelope.duty == "surviving token" and not settled and not scope.cancelled_caught:
            envelope.detached = True
        if envelope.detached:
            return
        self._bound.discard(envelope)
        self.surviving.discard(envelope)
        if settled:
            return
        if scope.cancelled_caught:
            envelope.fail(self._lost(envelope, "was told that nobody waits", None), State.EXPIRED)
        else:
            envelope.fail(self._lost(envelope, "ended", self._failure))

    # --- failures ----------------------------------------------------------------------------------------

    def _note(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = _failure_in(error)

    def _lose(self, envelopes: Iterable[Envelope[Any]], cause: Exception | None) -> None:
        for envelope in list(envelopes):
            self._bound.discard(envelope)
            if not envelope.outcome.settled:
                envelope.fail(self._lost(envelope, "ended", cause))

    def _lost(self, envelope: Envelope[Any], what: str, cause: Exception | None) -> InFlightLost:
        name = type(envelope.message).__name__
        error = InFlightLost(f"{self.ref.path} {what} while it had {name}", actor=self.ref.path, started=True)
        error.__cause__ = cause
        return error
