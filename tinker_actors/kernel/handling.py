"""How one incarnation handles messages: its readers, and what becomes of what they take.

Theory of operation. Handlers are run by *readers*: tasks that take a message and handle it, in one step, so that
there is no time between "taken" and "begun" in which a caller could leave. An actor whose handlers may run side
by side begins with one reader; a reader that takes a message while no other is idle starts one more, up to the
actor's concurrency. So messages begin in order, and an idle actor costs little.

Outcomes of messages are never trio's `Cancelled`: cancel scopes are read, not their exceptions shipped. A
handler that is cancelled because another part of its incarnation failed is lost *because of that failure*, so
the first failure is noted where it is raised, before trio cancels the others.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import Any, Protocol, cast

import trio

from tinker_actors.errors import HandlerCrashed, InFlightLost, Unhandled
from tinker_actors.kernel.actor import Actor, Ending, Stop
from tinker_actors.kernel.border import own_cancellation
from tinker_actors.kernel.context import CallerLeft
from tinker_actors.kernel.dead_letter import Reason
from tinker_actors.kernel.envelope import TRACE, Envelope
from tinker_actors.kernel.mailbox import Mailbox
from tinker_actors.kernel.message import State
from tinker_actors.kernel.reader import CURRENT_READER, Reader
from tinker_actors.kernel.ref import ActorRef
from tinker_actors.kernel.snapshot import RunningMessage, picture
from tinker_actors.kernel.spec import ChildSpec
from tinker_actors.kernel.token import ReplyToken
from tinker_actors.kernel.watch import Down

__all__ = ["Handling", "Home", "collapse", "failure_in", "without_cancelled"]

_LOG = logging.getLogger("tinker_actors.kernel")
_IDLE_READERS = 16  # so many wait for the next burst; further ones end when they have nothing to do
_SPECIAL = (ReplyToken, Stop)  # replies that say what to do


def collapse(error: BaseException) -> BaseException:
    """Return the only leaf of an exception group, or the error itself."""
    while (group := _as_group(error)) is not None and len(group.exceptions) == 1:
        error = group.exceptions[0]
    return error


def _as_group(error: BaseException) -> BaseExceptionGroup[BaseException] | None:
    return cast("BaseExceptionGroup[BaseException]", error) if isinstance(error, BaseExceptionGroup) else None


def failure_in(error: BaseException) -> Exception | None:
    """Return what is a failure in it: no cancellation, no interrupt."""
    group = _as_group(error)
    failure = error if group is None else collapse(group.subgroup(Exception) or error)
    return failure if isinstance(failure, Exception) else None


def without_cancelled(error: BaseException | None) -> BaseException | None:
    """Return what of an exception is no cancellation; None if nothing is."""
    group = None if error is None else _as_group(error)
    if group is not None:
        return group.split(trio.Cancelled)[1]
    return None if isinstance(error, trio.Cancelled) else error


class Home(Protocol):
    """The slot, as its incarnation sees it."""

    ref: ActorRef[Any]
    mailbox: Mailbox
    spec: ChildSpec[Any]
    checkpoint: object
    undelivered: tuple[Envelope[Any], ...]

    surviving: dict[Envelope[Any], None]

    def ready(self) -> None:
        """An incarnation begins to take messages."""
        ...

    def stopping(self) -> None:
        """An incarnation has handled its last message."""
        ...

    def start_task(self, function: Any, name: str) -> None:
        """Start a task of the tree."""
        ...


class Handling:
    """The part of an incarnation that handles messages.

    Attributes:
        scope: cancels the incarnation.
        ending: how it is to end, once that is known.
        bound: messages whose reply tokens end with it.
        readers: the tasks that take messages.
    """

    __slots__ = (
        "_actor",
        "_again",
        "_beside",
        "_failure",
        "_finished",
        "_home",
        "_idle_readers",
        "_mailbox",
        "_retired",
        "_signals",
        "bound",
        "ending",
        "readers",
        "scope",
    )

    def __init__(self, home: Home) -> None:
        self.scope: trio.CancelScope = trio.CancelScope(shield=True)
        self.ending: Ending = "drain"
        self.bound: dict[Envelope[Any], None] = {}
        self.readers: list[Reader] = []
        self._home = home
        self._mailbox = home.mailbox
        self._actor: Actor[Any] | None = None
        self._signals: list[Envelope[Any]] = []  # seldom more than one
        self._beside: tuple[Reader, ...] = ()
        self._again: tuple[Envelope[Any], ...] = ()
        self._failure: Exception | None = None
        self._finished = False
        self._retired = False
        self._idle_readers = 0  # counted where there are several

    @property
    def surviving(self) -> dict[Envelope[Any], None]:
        """Messages whose reply tokens outlive this incarnation."""
        return self._home.surviving

    # --- signals -----------------------------------------------------------------------------------------

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

    def forget_down(self, path: str) -> None:
        """Remove the `Down` of an actor, if it has not been taken."""
        for envelope in list(self._signals):
            if isinstance(envelope.message, Down) and envelope.message.path == path:
                self._signals.remove(envelope)

    # --- readers -----------------------------------------------------------------------------------------

    def busy(self) -> list[Reader]:
        """Return the readers that have a message."""
        return [reader for reader in [*self.readers, *self._beside] if reader.envelope is not None]

    def running(self) -> tuple[RunningMessage, ...]:
        """Return what its handlers do now."""
        return tuple(picture(reader, is_measured=self._mailbox.watched) for reader in self.busy())

    @trio.lowlevel.enable_ki_protection
    def retire(self) -> None:
        """Have it end when it has handled what it has begun; what is in line stays there."""
        self._retired = True
        for reader in self.readers:
            reader.retired = True
            self._mailbox.wake(reader)

    async def _serve_side_by_side(self, actor: Actor[Any]) -> None:
        """Handle messages with several readers until the mailbox is closed and empty."""
        async with trio.open_nursery() as crew:
            self._add_reader(actor, crew)

    def _add_reader(self, actor: Actor[Any], crew: trio.Nursery) -> None:
        reader = Reader(self._mailbox, self._signals)
        reader.retired = self._retired
        self._idle_readers += 1
        self.readers.append(reader)
        self._mailbox.readers.append(reader)
        crew.start_soon(self._read, actor, reader, crew)

    @trio.lowlevel.enable_ki_protection
    async def _read(self, actor: Actor[Any], reader: Reader, crew: trio.Nursery | None) -> None:
        """Be one reader until there is nothing more to read."""
        CURRENT_READER.set(reader)
        reader.task = trio.lowlevel.current_task()
        try:
            while await self._turn(actor, reader, crew):
                reader.interrupted = False
        except BaseException as error:
            self._note(error)
            self.retire()  # as in `kill`: the others are about to be cancelled
            raise
        finally:
            if reader.envelope is None:
                self._idle_readers -= 1
            else:
                self._leave(reader)
            self.readers.remove(reader)
            if crew is not None and reader in self._mailbox.readers:
                self._mailbox.readers.remove(reader)
            self._mailbox.pass_on(reader)
            reader.scope = None

    async def _turn(  # noqa: C901, PLR0912, PLR0915 - the hot path: every call would cost each message
        self,
        actor: Actor[Any],
        reader: Reader,
        crew: trio.Nursery | None,
        envelope: Envelope[Any] | None = None,
    ) -> bool:
        """Handle messages in one cancel scope, until it is used up (True) or there are no more (False).

        Args:
            actor: whose handlers run.
            reader: the one that this is.
            crew: where further readers are started; None if there are none.
            envelope: what it has to begin with.
        """
        mailbox, line, signals = self._mailbox, self._mailbox.line, self._signals
        idle, leaving, wait = mailbox.idle, mailbox.leaving(reader), trio.lowlevel.wait_task_rescheduled
        handlers, checkpoint, inf = actor.handlers, trio.lowlevel.checkpoint, math.inf
        spec = self._home.spec
        alone = spec.concurrency == 1 and spec.mailbox is None and spec.limiter is None and envelope is None
        reply: object = None
        try:
            with trio.CancelScope() as scope:  # noqa: ASYNC912 - every way to a message is a checkpoint
                reader.scope = scope
                while not reader.interrupted:
                    if envelope is None:
                        if line:
                            await checkpoint()
                            envelope = mailbox.take(reader)
                        elif mailbox.is_open and not signals and not reader.retired:
                            idle.append(reader)
                            await wait(leaving)
                            envelope = mailbox.take(reader)
                        if envelope is None:
                            envelope = await mailbox.get(reader)
                            if envelope is None:
                                return False
                    if crew is not None:
                        self._one_is_busy(actor, crew)
                    handler = handlers.get(type(envelope.message))
                    TRACE.set(envelope.trace)
                    is_timed = envelope.deadline != inf and envelope.message.on_abandon != "finish"
                    if is_timed:
                        scope.deadline = envelope.deadline
                    try:
                        if handler is None:
                            self._unhandled(envelope)
                        else:
                            reply = await handler(actor, envelope.message)
                            if reply is not None and isinstance(reply, _SPECIAL):
                                # The type of what they hold is not known here, and does not matter.
                                self._take_special(envelope, reply)  # pyright: ignore[reportUnknownArgumentType]
                            else:
                                envelope.settle(reply)
                    except BaseException as error:  # noqa: ASYNC103 - answers are exceptions, no Cancelled
                        if not self._is_answer(actor, envelope, error):
                            raise
                    if is_timed:
                        scope.deadline = inf
                        reader.interrupted |= scope.cancel_called
                    if envelope.duty != "handler" or not envelope.settled:
                        self._end(envelope)
                    if alone and mailbox.barrier is None:
                        reader.envelope = envelope.reader = None  # all that `done` would do
                    else:
                        mailbox.done(reader)
                    envelope = reply = None  # or they would live until the next message comes
                    if crew is not None:
                        self._idle_readers += 1
                        if self._idle_readers > _IDLE_READERS:
                            return False
        finally:
            envelope = reply = None  # or a crash, whose traceback leads here, would keep itself alive
        if scope.cancelled_caught and reader.envelope is not None:
            self._end(reader.envelope, cut_short=True)
            mailbox.done(reader)
            self._idle_readers += crew is not None
        return True

    def _one_is_busy(self, actor: Actor[Any], crew: trio.Nursery) -> None:
        """Start one more reader if all are busy and more are allowed."""
        self._idle_readers -= 1
        if not self._idle_readers and len(self.readers) < self._home.spec.concurrency and not self._retired:
            self._add_reader(actor, crew)

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
        error = Unhandled(f"{path} has no handler for {name}", actor=path, started=False)
        self._fail(envelope, error, "unhandled")

    @trio.lowlevel.enable_ki_protection
    async def _handle_beside(self, actor: Actor[Any], envelope: Envelope[Any]) -> None:
        """Handle a reentrant message while the handler that waits for it stands."""
        reader = Reader(self._mailbox, [])
        reader.retired = True  # after this one
        CURRENT_READER.set(reader)
        reader.task = trio.lowlevel.current_task()
        self._beside += (reader,)
        self._mailbox.begin(envelope, reader)
        try:
            await self._turn(actor, reader, None, envelope)
        finally:
            if reader.envelope is not None:
                self._leave(reader)
            self._beside = tuple(other for other in self._beside if other is not reader)

    def _leave(self, reader: Reader) -> None:
        """Settle what a reader had begun that ends with a crash or a cancellation.

        It is done here and now: its caller may be a handler of this very actor that cannot leave before.
        """
        envelope = reader.envelope
        self._mailbox.done(reader)
        self._lose([envelope], self._failure, keep_tokens=True)

    # --- answers and failures ----------------------------------------------------------------------------

    def _is_answer(self, actor: Actor[Any], envelope: Envelope[Any], error: BaseException) -> bool:
        """Settle a message whose handler raised; False if what it raised goes on: a crash or a cancellation."""
        if isinstance(error, trio.Cancelled):
            stray = own_cancellation(error)
            if stray is not None:
                self._crashed_on(envelope, stray)
                raise stray from None
            return False
        if not isinstance(error, Exception):
            return False
        cause = failure_in(error)
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
        if envelope.settled or envelope.duty == "surviving token":
            return
        name, path = type(envelope.message).__name__, self._home.ref.path
        crash = HandlerCrashed(f"{path} crashed on {name}", actor=path, started=True)
        crash.__cause__ = failure_in(error)
        if not self._may_run_again(envelope, crash):
            self._fail(envelope, crash, "crashed")

    def _may_run_again(self, envelope: Envelope[Any], crash: Exception) -> bool:
        """Keep an idempotent message for the next incarnation, unless it is poison."""
        allowed = envelope.message.max_redeliver
        if not allowed or envelope.state is not State.RUNNING or envelope.duty != "handler":
            return False
        if envelope.ledger is None:
            return False  # a signal is for its own incarnation
        if self._is_stopped:
            return False
        envelope.crashes += self.ending != "restart"  # a sibling's failure is not this message's fault
        if envelope.crashes > allowed:
            return False  # it is poison
        envelope.crash = crash
        self._again += (envelope,)
        return True

    @property
    def _is_stopped(self) -> bool:
        """Whether it was killed for good."""
        return self.scope.cancel_called and self.ending not in ("restart", "crash")

    def _answer(self, envelope: Envelope[Any], error: Exception) -> None:
        if not envelope.asked:
            name = type(envelope.message).__name__
            _LOG.warning("%s: %s, which nobody waits for, failed: %r", self._home.ref.path, name, error)
        self._fail(envelope, error, "failed")

    def _fail(self, envelope: Envelope[Any], error: Exception, reason: Reason) -> None:
        envelope.fail(error, reason=reason)
        if envelope.ledger is None:  # a signal: no mailbox counts it
            self._mailbox.bury(envelope, reason)

    def _end(self, envelope: Envelope[Any], *, cut_short: bool = False) -> None:
        """Settle what the handler left unsettled, unless a token has taken the duty over."""
        settled = envelope.settled
        if envelope.duty == "surviving token" and not settled and not cut_short:
            envelope.detached = True
        if envelope.detached or envelope in self._again:
            return
        self.bound.pop(envelope, None)
        self.surviving.pop(envelope, None)
        if cut_short:
            envelope.cut_short(self._lost(envelope, "was told that nobody waits", None))

    def _note(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = failure_in(error)

    def _lose(
        self, envelopes: Iterable[Envelope[Any]], cause: Exception | None, *, keep_tokens: bool
    ) -> None:
        """Settle what will not be answered any more."""
        for envelope in list(envelopes):
            self.bound.pop(envelope, None)
            if envelope.settled or envelope in self._again:
                continue
            if envelope.duty == "surviving token" and keep_tokens:
                envelope.detached = True
                continue
            lost = self._lost(envelope, "ended", cause)
            if not self._may_run_again(envelope, lost):
                self._fail(envelope, lost, "lost")

    def _lost(self, envelope: Envelope[Any], what: str, cause: Exception | None) -> InFlightLost:
        name, path = type(envelope.message).__name__, self._home.ref.path
        error = InFlightLost(f"{path} {what} while it had {name}", actor=path, started=True)
        error.__cause__ = cause
        return error
