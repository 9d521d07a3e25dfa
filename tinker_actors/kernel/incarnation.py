"""One life of an actor: start, handle messages, end.

Theory of operation. An incarnation runs in a task of its supervisor's nursery, inside a shielded cancel
scope, so that only its supervisor cancels it (one outer cancellation would else end heartbeats and telemetry
before the work they serve). Nothing of class `Exception` leaves it: it returns an `Exit`. KeyboardInterrupt,
SystemExit and trio's own internal errors are passed on after every message has been settled.

What it spawns runs beside it and ends with it (`side`). While a hook runs (`on_start`, `on_stop`), a reader stands
in for it, so that an actor that asks itself there is told so.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import trio

from tinker_actors.kernel.actor import Actor, Ending
from tinker_actors.kernel.border import await_user, call_user
from tinker_actors.kernel.context import Context
from tinker_actors.kernel.envelope import TRACE, Envelope
from tinker_actors.kernel.handling import Handling, Home, failure_in
from tinker_actors.kernel.outcome import Outcome
from tinker_actors.kernel.reader import CURRENT_READER, Reader
from tinker_actors.kernel.side import Side
from tinker_actors.kernel.stack import stack_of
from tinker_actors.kernel.watch import Down, Obituary

__all__ = ["Exit", "Incarnation"]

_LOG = logging.getLogger("tinker_actors.kernel")


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


class Incarnation(Handling):
    """One life of the actor that the factory of `home` makes.

    Attributes:
        number: 1 for the first life.
        has_ended: it has, and does not count any more.
        handles_down: the actor has a handler for `Down`.
    """

    ending: Ending
    __slots__ = (
        "__weakref__",
        "_aborted",
        "_first_reader",
        "_last_failure",
        "_over",
        "_ran_for",
        "_side",
        "_task",
        "_watches",
        "handles_down",
        "has_ended",
        "number",
    )

    def __init__(self, home: Home, number: int, last_failure: Exception | None) -> None:
        super().__init__(home)
        self.number: int = number
        self.has_ended: bool = False
        self._over: Outcome[None] | None = None
        self._watches: dict[Obituary, int] | None = None
        self.handles_down: bool = False
        self._last_failure = last_failure
        self._first_reader = Reader(self._mailbox, self._signals)
        self._side: Side | None = None
        self._task: trio.lowlevel.Task | None = None
        self._ran_for: float | None = None
        self._aborted: Exception | None = None

    # --- what its context needs --------------------------------------------------------------------------

    @property
    def checkpoint(self) -> object:
        """What the actor keeps for its next incarnation."""
        return self._home.checkpoint

    @checkpoint.setter
    def checkpoint(self, state: object) -> None:
        self._home.checkpoint = state

    @property
    def watches(self) -> dict[Obituary, int]:
        """Whom it watches, with the keys to unwatch."""
        if self._watches is None:
            self._watches = {}
        return self._watches

    async def wait_ended(self) -> None:
        """Wait until it has ended. A checkpoint."""
        self._over = Outcome()
        await self._over.wait()

    @property
    def last_seq(self) -> int:
        """The `seq` of the newest message in line."""
        return self._mailbox.last_seq

    @property
    def parked(self) -> tuple[Envelope[Any], ...]:
        """Messages whose senders wait for room, in order."""
        return self._mailbox.parked

    def spawn(self, function: Callable[..., Awaitable[object]], *args: object) -> None:
        """Start a task that ends with this incarnation."""
        if self._side is None and not self.has_ended:
            self._side = Side(self._side_failed)
            self._home.start_task(self._side.run, f"{self._home.ref.path} (spawned)")
        if self._side is None:
            raise RuntimeError("the incarnation has ended and starts no task any more")
        self._side.start(function, args)

    def _reenter(self, envelope: Envelope[Any]) -> None:
        """Handle a reentrant message now."""
        assert self._actor is not None
        self.spawn(self._handle_beside, self._actor, envelope)

    def _side_failed(self, error: BaseException) -> None:
        """A spawned task raised: that is this incarnation's crash."""
        failure = failure_in(error)
        self._note(error)
        self.retire()
        if failure is not None and self._aborted is None:
            self._aborted = failure
        if not self.scope.cancel_called:
            self.ending = "crash"
        self.scope.cancel(reason=f"a task that {self._home.ref.path} has spawned failed: {error!r}")

    # --- life --------------------------------------------------------------------------------------------

    async def run(self) -> Exit:
        """Live; see the module. A checkpoint.

        Raises:
            BaseException: only what is not an `Exception`, after everything is settled.
        """
        crash: Exception | None = None
        self._task = trio.lowlevel.current_task()
        try:
            with self.scope:
                await self._live()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this actor's crash
            crash = failure_in(error)
        finally:
            CURRENT_READER.set(None)
            if self._side is not None:
                await self._side.end(f"{self._home.ref.path} has stopped")  # noqa: ASYNC102 - is shielded
            crash = crash or self._aborted
            self._let_go()
            self._lose(self.bound, crash, keep_tokens=True)
            self.has_ended = True
            if self._over is not None:
                self._over.settle(None)
            self._failure = self._aborted = (
                None  # their tracebacks lead here: they would keep themselves alive
            )
        again, self._again = self._again, ()
        return Exit(crash, self._ran_for, self._finished, again)  # noqa: ASYNC910 - `_live` is one

    def _forget(self, reader: Reader) -> None:
        if reader in self._mailbox.readers:
            self._mailbox.readers.remove(reader)

    def _let_go(self) -> None:
        """Leave nothing behind that would reach the next incarnation."""
        self._mailbox.on_reentry = None
        self._forget(self._first_reader)
        for obituary, key in (self._watches or {}).items():
            obituary.remove(key)
        self._watches = None
        self._signals.clear()

    async def _live(self) -> None:
        actor = self._actor = await self._start()
        ready_at = trio.current_time()
        ending: Ending = "crash"
        try:
            await trio.lowlevel.checkpoint_if_cancelled()  # stopped while it would not hear of it
            self._home.ready()
            first = self._first_reader
            first.in_hook, first.retired = False, self._retired
            self._mailbox.on_reentry = self._reenter
            if self._home.spec.concurrency == 1:
                self.readers.append(first)
                await self._read(actor, first, None)
            else:
                self._forget(first)
                await self._serve_side_by_side(actor)
            await trio.lowlevel.checkpoint_if_cancelled()
            self._home.stopping()
            self._stand_in()
            await await_user(actor.on_drain)
            ending = "finish" if self._finished else self.ending
        finally:
            self._ran_for = trio.current_time() - ready_at
            self._stand_in()
            how = self._cancelled_as() if self.scope.cancel_called else ending
            await self._clean_up(actor, how)  # noqa: ASYNC102 - is shielded, and bounded

    def _cancelled_as(self) -> Ending:
        return self.ending if self.ending in ("restart", "crash") else "kill"

    def _stand_in(self) -> None:
        """Have a reader stand for the hook that is about to run."""
        reader = self._first_reader
        reader.in_hook = True
        if reader not in self._mailbox.readers:
            self._mailbox.readers.append(reader)
        CURRENT_READER.set(reader)
        reader.task = self._task
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

    async def _clean_up(self, actor: Actor[Any], ending: Ending) -> None:  # noqa: ASYNC910 - as the hooks are
        seconds = self._home.spec.cleanup_timeout
        undelivered = [envelope.message for envelope in self._home.undelivered]
        with trio.move_on_after(seconds, shield=True) as cleaning:  # noqa: ASYNC912 - as the hooks are
            try:
                if undelivered and ending in ("drain", "now", "kill"):
                    await await_user(actor.on_undelivered, undelivered)
            except Exception:  # noqa: BLE001 - whatever it is, the actor has ended
                _LOG.exception("%s: on_undelivered failed", self._home.ref.path)
            try:
                await await_user(actor.on_stop, ending)
            except Exception:  # noqa: BLE001 - as above
                _LOG.exception("%s: on_stop failed", self._home.ref.path)
        if cleaning.cancelled_caught:
            _LOG.error("%s: on_stop did not end within %s s", self._home.ref.path, seconds)

    # --- ending it from outside --------------------------------------------------------------------------

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
        self.scope.cancel(reason=reason)
        if self._side is not None:
            self._side.cancel(reason)
        self.retire()  # a reader that was just woken must not take a message any more
        self._lose([*begun, *self.bound], self._failure, keep_tokens=restarting)

    def abort(self, error: Exception) -> None:
        """Make it crash from outside, with `error`."""
        self._aborted = error
        self.ending = "crash"
        self._note(error)
        self.kill(str(error), restarting=True)

    @trio.lowlevel.enable_ki_protection
    def disown(self) -> tuple[Envelope[Any], ...]:
        """It does not end: settle what it has, and let the mailbox forget its readers.

        Returns:
            what it had begun and another incarnation may handle again.
        """
        self.kill("it is left behind")
        for reader in [self._first_reader, *self.readers, *self._beside]:
            self._forget(reader)
            self._mailbox.done(reader)
        self._let_go()
        return self._again

    def stack(self) -> str:
        """Return where its tasks stand."""
        return stack_of(self._task) + stack_of(None if self._side is None else self._side.task)
