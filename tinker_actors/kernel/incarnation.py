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
concurrency. So messages begin in order, and an idle actor costs little. While a hook runs (`on_start`,
`on_stop`), a reader stands in for it, so that an actor that asks itself there is told so.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol, cast

import attrs
import trio

from tinker_actors.errors import HandlerCrashed, InFlightLost, Unhandled
from tinker_actors.kernel.actor import Actor, Ending, Stop
from tinker_actors.kernel.border import await_user, call_user, own_cancellation
from tinker_actors.kernel.context import CallerLeft, Context
from tinker_actors.kernel.envelope import TRACE, Envelope
from tinker_actors.kernel.mailbox import Mailbox
from tinker_actors.kernel.message import State
from tinker_actors.kernel.outcome import Outcome
from tinker_actors.kernel.reader import CURRENT_READER, Reader
from tinker_actors.kernel.ref import ActorRef
from tinker_actors.kernel.snapshot import RunningMessage, picture
from tinker_actors.kernel.spec import ChildSpec
from tinker_actors.kernel.token import ReplyToken
from tinker_actors.kernel.watch import Down, Obituary

__all__ = ["Exit", "Home", "Incarnation", "collapse"]

_LOG = logging.getLogger("tinker_actors.kernel")
_IDLE_READERS = 16  # so many wait for the next burst; further ones end when they have nothing to do
_SPECIAL = (ReplyToken, Stop)  # replies that say what to do


@attrs.frozen
class Exit:
    """How an incarnation ended.

    Attributes:
        crash: what it raised, if it crashed.
        ran_for: seconds it took messages; None if it never did.
        finished: a handler returned `Stop`.
        again: idempotent messages it had begun, for the next incarnation.
    """

    crash: Exception | None
    ran_for: float | None
    finished: bool = False
    again: tuple[Envelope[Any], ...] = ()


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


class Home(Protocol):
    """The slot, as its incarnation sees it."""

    ref: ActorRef[Any]
    mailbox: Mailbox
    spec: ChildSpec[Any]
    surviving: set[Envelope[Any]]
    checkpoint: object
    undelivered: list[Envelope[Any]]

    def ready(self) -> None:
        """It begins to take messages."""

    def stopping(self) -> None:
        """It has handled its last message."""


class Incarnation:
    """One life of the actor that the factory of `home` makes.

    Attributes:
        number: 1 for the first life.
        scope: cancels it.
        ending: how it is to end, once that is known.
        task: runs it.
        over: settled when it has ended.
        bound: messages whose reply tokens end with it.
        watches: whom it watches, with the keys to unwatch.
        handles_down: the actor has a handler for `Down`.
        readers: the tasks that handle messages.
    """

    def __init__(self, home: Home, number: int, last_failure: Exception | None) -> None:
        self.number = number
        self.scope = trio.CancelScope(shield=True)
        self.ending: Ending = "drain"
        self.task: trio.lowlevel.Task | None = None
        self.over = Outcome[None]()
        self.bound: set[Envelope[Any]] = set()
        self.watches: dict[Obituary, int] = {}
        self.handles_down = False
        self.readers: dict[Reader, None] = {}
        self._home = home
        self._mailbox = home.mailbox
        self._last_failure = last_failure
        self._signals: deque[Envelope[Any]] = deque()
        self._first_reader = Reader(self._mailbox, self._signals)
        self._beside: dict[Reader, None] = {}
        self._nursery: trio.Nursery | None = None
        self._actor: Actor[Any] | None = None
        self._left: list[Envelope[Any]] = []  # begun, not ended, and their reader is gone
        self._again: list[Envelope[Any]] = []
        self._failure: Exception | None = None
        self._ready_at: float | None = None
        self._ran_for: float | None = None
        self._aborted: Exception | None = None
        self._finished = False
        self._retired = False
        self._busy_readers = 0

    # --- what its context needs --------------------------------------------------------------------------

    @property
    def checkpoint(self) -> object:
        """What the actor keeps for its next incarnation."""
        return self._home.checkpoint

    @checkpoint.setter
    def checkpoint(self, state: object) -> None:
        self._home.checkpoint = state

    @property
    def surviving(self) -> set[Envelope[Any]]:
        """Messages whose reply tokens outlive this incarnation."""
        return self._home.surviving

    @property
    def last_seq(self) -> int:
        """The `seq` of the newest message in line."""
        return self._mailbox.last_seq

    def spawn(self, function: Callable[..., Awaitable[object]], *args: object) -> None:
        """Start a task that ends with this incarnation."""
        assert self._nursery is not None
        self._nursery.start_soon(self._run_beside, function, args, name=function)

    @trio.lowlevel.enable_ki_protection
    def post(self, envelope: Envelope[Any]) -> None:
        """Put a signal in line: it is handled before users' messages."""
        self._signals.append(envelope)
        for reader in self.readers:
            self._mailbox.wake(reader)

    @trio.lowlevel.enable_ki_protection
    def take_back(self, envelope: Envelope[Any]) -> bool:
        """Remove a signal that has not been taken; False if it has."""
        if envelope not in self._signals:
            return False
        self._signals.remove(envelope)
        return True

    def busy(self) -> list[Reader]:
        """Return the readers that have a message."""
        return [reader for reader in [*self.readers, *self._beside] if reader.envelope is not None]

    def running(self) -> tuple[RunningMessage, ...]:
        """Return what its handlers do now."""
        return tuple(picture(reader, is_timed=self._mailbox.is_timed) for reader in self.busy())

    def forget_down(self, path: str) -> None:
        """Remove the `Down` of an actor, if it has not been taken."""
        for envelope in list(self._signals):
            if isinstance(envelope.message, Down) and envelope.message.path == path:
                self._signals.remove(envelope)

    # --- life --------------------------------------------------------------------------------------------

    async def run(self) -> Exit:
        """Live; see the module. A checkpoint.

        Raises:
            BaseException: only what is not an `Exception`, after everything is settled.
        """
        crash: Exception | None = None
        self.task = trio.lowlevel.current_task()
        try:
            with self.scope:
                await self._live()
            crash = self._aborted
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this actor's crash
            crash = _failure_in(error)
        finally:
            CURRENT_READER.set(None)
            self._let_go()
            # In flight there is nothing any more, unless the kernel's own code broke.
            self._lose([*self._left, *self.bound], crash, keep_tokens=True)
            self.over.settle(None)
            self._failure = None  # its traceback leads here: it would keep itself alive
        return Exit(crash, self._ran_for, self._finished, tuple(self._again))  # noqa: ASYNC910 - `_live` is one

    def _let_go(self) -> None:
        """Leave nothing behind that would reach the next incarnation."""
        self._mailbox.on_reentry = None
        self._mailbox.readers.pop(self._first_reader, None)
        for obituary, key in self.watches.items():
            obituary.remove(key)
        self.watches.clear()
        self._signals.clear()

    @trio.lowlevel.enable_ki_protection
    def kill(self, reason: str, *, restarting: bool = False) -> None:
        """Cancel it. Who waits for something it has begun is told now, however long it takes to unwind.

        Args:
            reason: for those who are cancelled.
            restarting: another incarnation follows: what may be handled again, or answered later, is kept.
        """
        begun = [reader.envelope for reader in self.busy()]
        if restarting:
            begun = [e for e in begun if e.duty != "surviving token" and not e.message.max_redeliver]
        self._lose([*begun, *self.bound], self._failure, keep_tokens=restarting)
        self.scope.cancel(reason=reason)

    def abort(self, error: Exception) -> None:
        """Make it crash from outside, with `error`."""
        self._aborted = error
        self.ending = "crash"
        self._note(error)
        self.kill(str(error), restarting=True)

    @trio.lowlevel.enable_ki_protection
    def disown(self) -> None:
        """It does not end: settle what it has, and let the mailbox forget its readers."""
        self.kill("it is left behind")
        self.retire()
        for reader in [self._first_reader, *self.readers, *self._beside]:
            self._mailbox.readers.pop(reader, None)
            self._mailbox.done(reader)
        self._let_go()

    @trio.lowlevel.enable_ki_protection
    def retire(self) -> None:
        """Have it end when it has handled what it has begun; what is in line stays there."""
        self._retired = True
        for reader in self.readers:
            reader.retired = True
            self._mailbox.wake(reader)

    async def _live(self) -> None:
        async with trio.open_nursery() as self._nursery:
            actor = self._actor = await self._start()
            self._ready_at = trio.current_time()
            ending: Ending = "crash"
            try:
                await trio.lowlevel.checkpoint_if_cancelled()  # stopped while it would not hear of it
                self._home.ready()
                await self._serve(actor)
                self._home.stopping()
                self._stand_in()
                await await_user(actor.on_drain)
                ending = "finish" if self._finished else self.ending
            finally:
                self._ran_for = trio.current_time() - self._ready_at
                self._stand_in()
                with trio.move_on_after(self._home.spec.cleanup_timeout, shield=True) as cleaning:
                    await self._clean_up(actor, self._cancelled_as() if self.scope.cancel_called else ending)
                if cleaning.cancelled_caught:
                    seconds = self._home.spec.cleanup_timeout
                    _LOG.error("%s: on_stop did not end within %s s", self._home.ref.path, seconds)
            self._nursery.cancel_scope.cancel(reason=f"{self._home.ref.path} has stopped")

    def _cancelled_as(self) -> Ending:
        return self.ending if self.ending in ("restart", "crash") else "kill"

    def _stand_in(self) -> None:
        """Have a reader stand for the hook that is about to run."""
        reader = self._first_reader
        reader.in_hook = True
        self._mailbox.readers[reader] = None
        CURRENT_READER.set(reader)
        TRACE.set(None)

    async def _start(self) -> Actor[Any]:
        self._stand_in()
        actor: Actor[Any] = call_user(self._home.spec.factory)
        self.handles_down = Down in actor.handlers
        actor.context = Context(self._home.ref, self.number, self._last_failure, self)
        seconds = self._home.spec.start_timeout
        with trio.move_on_after(seconds) as scope:
            await await_user(actor.on_start)
        if scope.cancelled_caught:
            raise trio.TooSlowError(f"on_start took longer than {seconds} s")
        return actor

    async def _run_beside(self, function: Callable[..., Awaitable[object]], args: tuple[object, ...]) -> None:
        CURRENT_READER.set(None)  # what it asks, no handler waits for
        try:
            await await_user(function, *args)
        except BaseException as error:
            self._note(error)
            raise

    async def _clean_up(self, actor: Actor[Any], ending: Ending) -> None:  # noqa: ASYNC910 - as the hooks are
        undelivered = [envelope.message for envelope in self._home.undelivered]
        try:
            if undelivered and ending in ("drain", "now", "kill"):
                await await_user(actor.on_undelivered, undelivered)
        except Exception:  # noqa: BLE001 - whatever it is, the actor has ended
            _LOG.exception("%s: on_undelivered failed", self._home.ref.path)
        try:
            await await_user(actor.on_stop, ending)
        except Exception:  # noqa: BLE001 - as above
            _LOG.exception("%s: on_stop failed", self._home.ref.path)

    # --- messages ----------------------------------------------------------------------------------------

    async def _serve(self, actor: Actor[Any]) -> None:
        """Handle messages until the mailbox is closed and empty."""
        first = self._first_reader
        first.in_hook = False
        self._mailbox.on_reentry = self._reenter
        if self._home.spec.concurrency == 1:
            self.readers[first] = None
            await self._read(actor, first, None)
            return
        del self._mailbox.readers[first]
        async with trio.open_nursery() as crew:
            self._add_reader(actor, crew)

    def _add_reader(self, actor: Actor[Any], crew: trio.Nursery) -> None:
        reader = Reader(self._mailbox, self._signals)
        reader.retired = self._retired
        self.readers[reader] = self._mailbox.readers[reader] = None
        crew.start_soon(self._read, actor, reader, crew)

    @trio.lowlevel.enable_ki_protection
    async def _read(self, actor: Actor[Any], reader: Reader, crew: trio.Nursery | None) -> None:
        """Be one reader until there is nothing more to read."""
        CURRENT_READER.set(reader)
        try:
            while await self._turn(actor, reader, crew):
                reader.interrupted = False
        finally:
            if reader.envelope is not None:
                self._left.append(reader.envelope)
                self._mailbox.done(reader)
            del self.readers[reader]
            if crew is not None:
                self._mailbox.readers.pop(reader, None)
            reader.scope = None

    async def _turn(self, actor: Actor[Any], reader: Reader, crew: trio.Nursery | None) -> bool:
        """Handle messages in one cancel scope, until it is used up (True) or there are no more (False)."""
        mailbox = self._mailbox
        with trio.CancelScope() as scope:
            reader.scope = scope
            while not reader.interrupted:
                if crew is not None and len(self.readers) - self._busy_readers > _IDLE_READERS:
                    return False  # so many idle ones are enough
                envelope = await mailbox.get(reader)
                if envelope is None:
                    return False
                self._busy_readers += 1
                try:
                    if crew is not None:
                        self._enlarge(actor, crew)
                    await self._handle(actor, reader, envelope, scope)
                finally:
                    self._busy_readers -= 1
                    del envelope  # or it would live until the next one comes
                mailbox.done(reader)
        if scope.cancelled_caught and reader.envelope is not None:
            self._end(reader.envelope, cut_short=True)
            mailbox.done(reader)
        return True

    def _enlarge(self, actor: Actor[Any], crew: trio.Nursery) -> None:
        """Start one more reader if all are busy and more are allowed."""
        if self._busy_readers == len(self.readers) < self._home.spec.concurrency and not self._retired:
            self._add_reader(actor, crew)

    async def _handle(  # noqa: ASYNC910 - `get` was a checkpoint
        self, actor: Actor[Any], reader: Reader, envelope: Envelope[Any], scope: trio.CancelScope
    ) -> None:
        handler = actor.handlers.get(type(envelope.message))
        if handler is None:
            self._unhandled(envelope)
            return
        TRACE.set(envelope.trace)
        timed = envelope.deadline != math.inf and envelope.message.on_abandon != "finish"
        if timed:
            scope.deadline = envelope.deadline
        try:
            reply = await handler(actor, envelope.message)
            if isinstance(reply, _SPECIAL):
                self._take_special(envelope, reply)
            else:
                envelope.settle(reply)
        except trio.Cancelled as error:
            stray = own_cancellation(error)
            if stray is None:
                raise
            self._crashed_on(envelope, stray)
            raise stray from None
        except Exception as error:
            if not self._is_answer(actor, envelope, error):
                raise
        if timed:
            scope.deadline = math.inf
            reader.interrupted = reader.interrupted or scope.cancel_called
        if envelope.duty != "handler" or not envelope.settled:
            self._end(envelope)

    def _take_special(self, envelope: Envelope[Any], reply: ReplyToken[Any] | Stop[Any]) -> None:
        if isinstance(reply, Stop):
            envelope.settle(reply.reply)
            self._finished = True
            self.retire()
        elif reply.belongs_to(envelope):
            envelope.detached = True
        else:
            name = type(envelope.message).__name__
            raise TypeError(f"the handler of {name} returned the reply token of another message")

    def _unhandled(self, envelope: Envelope[Any]) -> None:
        name, path = type(envelope.message).__name__, self._home.ref.path
        self._mailbox.bury(envelope, "unhandled")
        envelope.fail(Unhandled(f"{path} has no handler for {name}", actor=path, started=False))

    def _reenter(self, envelope: Envelope[Any]) -> None:
        assert self._nursery is not None
        assert self._actor is not None
        self._nursery.start_soon(self._handle_beside, self._actor, envelope)

    @trio.lowlevel.enable_ki_protection
    async def _handle_beside(self, actor: Actor[Any], envelope: Envelope[Any]) -> None:
        """Handle a reentrant message while the handler that waits for it stands."""
        reader = Reader(self._mailbox, deque())
        CURRENT_READER.set(reader)
        self._beside[reader] = None
        self._mailbox.begin(envelope, reader)
        try:
            with trio.CancelScope() as scope:
                reader.scope = scope
                await self._handle(actor, reader, envelope, scope)
            if scope.cancelled_caught:
                self._end(envelope, cut_short=True)
        except BaseException:
            self._left.append(envelope)
            raise
        finally:
            del self._beside[reader]
            self._mailbox.done(reader)

    # --- answers and failures ----------------------------------------------------------------------------

    def _is_answer(self, actor: Actor[Any], envelope: Envelope[Any], error: Exception) -> bool:
        """Settle a message whose handler raised; False if that is a crash."""
        cause = _failure_in(error)
        if isinstance(cause, CallerLeft):
            envelope.cut_short(cause)
            return True
        if isinstance(cause, actor.declares):
            self._answer(envelope, cause)
            return True
        self._crashed_on(envelope, error)
        return False

    def _crashed_on(self, envelope: Envelope[Any], error: Exception) -> None:
        self._note(error)
        if envelope.duty == "surviving token":
            return
        name, path = type(envelope.message).__name__, self._home.ref.path
        crash = HandlerCrashed(f"{path} crashed on {name}", actor=path, started=True)
        crash.__cause__ = _failure_in(error)
        if not self._may_run_again(envelope, crash):
            if not envelope.asked and not envelope.message.max_redeliver:
                self._mailbox.bury(envelope, "crashed")
            envelope.fail(crash)

    def _may_run_again(self, envelope: Envelope[Any], crash: Exception) -> bool:
        """Keep an idempotent message for the next incarnation, unless it is poison."""
        allowed = envelope.message.max_redeliver
        if not allowed or envelope.state is not State.RUNNING or envelope.duty != "handler":
            return False
        envelope.crashes += 1
        if envelope.crashes > allowed:
            self._mailbox.bury(envelope, "poison")
            return False
        envelope.crash = crash
        self._again.append(envelope)
        return True

    def _answer(self, envelope: Envelope[Any], error: Exception) -> None:
        if not envelope.asked:
            name = type(envelope.message).__name__
            _LOG.warning("%s: %s, which nobody waits for, failed: %r", self._home.ref.path, name, error)
            self._mailbox.bury(envelope, "failed")
        envelope.fail(error)

    def _end(self, envelope: Envelope[Any], *, cut_short: bool = False) -> None:
        """Settle what the handler left unsettled, unless a token has taken the duty over."""
        settled = envelope.settled
        if envelope.duty == "surviving token" and not settled and not cut_short:
            envelope.detached = True
        if envelope.detached or envelope in self._again:
            return
        self.bound.discard(envelope)
        self.surviving.discard(envelope)
        if cut_short:
            envelope.cut_short(self._lost(envelope, "was told that nobody waits", None))
        elif not settled:
            envelope.fail(self._lost(envelope, "ended", self._failure))

    def _note(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = _failure_in(error)

    def _lose(
        self, envelopes: Iterable[Envelope[Any]], cause: Exception | None, *, keep_tokens: bool
    ) -> None:
        """Settle what will not be answered any more."""
        for envelope in list(envelopes):
            self.bound.discard(envelope)
            if envelope.settled or envelope in self._again:
                continue
            if envelope.duty == "surviving token" and keep_tokens:
                envelope.detached = True
                continue
            lost = self._lost(envelope, "ended", cause)
            if not self._may_run_again(envelope, lost):
                if not envelope.asked and envelope.ledger is not None:
                    self._mailbox.bury(envelope, "lost")
                envelope.fail(lost)

    def _lost(self, envelope: Envelope[Any], what: str, cause: Exception | None) -> InFlightLost:
        name, path = type(envelope.message).__name__, self._home.ref.path
        error = InFlightLost(f"{path} {what} while it had {name}", actor=path, started=True)
        error.__cause__ = cause
        return error
