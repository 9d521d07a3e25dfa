"""A slot: what stays of an actor across its incarnations.

Theory of operation. The slot owns the mailbox, the address, the restart history and the messages whose reply
tokens survive a restart; one task of the supervision tree runs it. It lives through the table of `lifecycle`:
it runs an incarnation, asks `restart.decide` what comes next, waits out the backoff, and runs the next one.
Told to drain, it still goes through a restart, and its backoff, if messages are waiting or answers are owed;
told to stop now, it does not. When it has ended, everything that waited for it has its outcome.
"""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Callable
from typing import Any, Generic, Literal, TypeVar

import attrs
import trio

from tinker_actors.errors import InFlightLost, StartFailed, TinkerActorsError
from tinker_actors.kernel.actor import CURRENT_CALL, Actor
from tinker_actors.kernel.bound import at_least, within
from tinker_actors.kernel.envelope import TRACE, Envelope
from tinker_actors.kernel.incarnation import Incarnation
from tinker_actors.kernel.instrument import ActorCrashed, ActorEnded, ActorReady, KernelEvent
from tinker_actors.kernel.lifecycle import Event, Life, step
from tinker_actors.kernel.mailbox import Mailbox, Refusal, unchanged
from tinker_actors.kernel.outcome import Outcome, fresh
from tinker_actors.kernel.ref import ActorRef
from tinker_actors.kernel.restart import GiveUp, Remain, Restart, RestartPolicy, decide

__all__ = ["ChildSpec", "Slot", "StopMode", "current_slot"]

_LOG = logging.getLogger("tinker_actors.kernel")

RoleT = TypeVar("RoleT")
StopMode = Literal["drain", "now", "kill"]
_HARDER: tuple[StopMode, ...] = ("drain", "now", "kill")

_CURRENT: contextvars.ContextVar[Slot[Any] | None] = contextvars.ContextVar(
    "tinker_actors.SLOT", default=None
)


def current_slot() -> Slot[Any] | None:
    """Return the slot of the actor whose code runs in this task."""
    return _CURRENT.get()


@attrs.frozen(kw_only=True)
class ChildSpec(Generic[RoleT]):
    """How a child is made, run, restarted and stopped.

    Attributes:
        name: unique among its siblings.
        factory: makes a new actor for each incarnation.
        policy: when it is restarted.
        on_exhausted: when it was restarted too often: `escalate` fails its supervisor, `fail` only it.
        capacity: messages its mailbox holds.
        mailbox: a mailbox shared with siblings (a pool) in place of an own one.
        concurrency: handlers that may run at once; if one crashes, the others are lost with it.
        start_timeout: seconds `on_start` may take.
        stop_timeout: seconds an orderly stop may take before it is killed.
        cleanup_timeout: seconds `on_stop` may take.
        refusal: turns the error for messages that never started into the one their senders get.

    Raises:
        InputError: a number out of its bounds.
    """

    name: str
    factory: Callable[[], Actor[RoleT]]
    policy: RestartPolicy = RestartPolicy()
    on_exhausted: Literal["escalate", "fail"] = "escalate"
    capacity: int = attrs.field(default=64, validator=at_least(1))
    mailbox: Mailbox | None = None
    concurrency: int = attrs.field(default=1, validator=at_least(1))
    start_timeout: float = attrs.field(default=30.0, validator=within(0.0))
    stop_timeout: float = attrs.field(default=30.0, validator=within(0.0))
    cleanup_timeout: float = attrs.field(default=5.0, validator=within(0.0))
    refusal: Refusal = unchanged


@attrs.frozen
class _Crash:
    """One crash that was followed by a restart, at a time of running."""

    at: float
    line: str


class Slot(Generic[RoleT]):
    """What stays of an actor across its incarnations.

    Attributes:
        path: names of its supervisors and its own, joined by `/`.
        spec: how it is run.
        mailbox: where its messages wait.
        ended: set when it has ended for good.
        ref: its address.
        life: where it is in its life.
        started: settled when the first start has ended.
        failure: what ended the last incarnation, if it crashed.
        exhausted: it was restarted too often.
    """

    def __init__(self, path: str, spec: ChildSpec[RoleT], observer: Callable[[KernelEvent], None]) -> None:
        self.path = path
        self.spec = spec
        self.mailbox = Mailbox(path, spec.capacity, spec.refusal) if spec.mailbox is None else spec.mailbox
        self.ended = trio.Event()
        self.ref: ActorRef[RoleT] = ActorRef(path, self.mailbox, self.ended)
        self.life = Life.NEW
        self.started: Outcome[None] = Outcome()
        self.failure: Exception | None = None
        self.exhausted = False
        self._observe = observer
        self._current: Incarnation | None = None
        self._count = 0
        self._stop_mode: StopMode | None = None
        self._pause = trio.CancelScope()
        self._surviving: set[Envelope[Any]] = set()
        self._crashes: tuple[_Crash, ...] = ()
        self._running_time = 0.0
        self._streak = 0
        self.mailbox.when_drained(self._reconsider)

    @property
    def history(self) -> tuple[str, ...]:
        """The crashes of the intensity window, oldest first, one line each."""
        return tuple(crash.line for crash in self._crashes)

    def _step(self, event: Event) -> None:
        self.life = step(self.life, event)

    # --- running -----------------------------------------------------------------------------------------

    async def run(self, chance: Callable[[], float]) -> None:
        """Live until told to stop, ended for good, or given up. No checkpoint if stopped before it began."""
        _CURRENT.set(self)
        CURRENT_CALL.set(None)  # this task may have been started by another actor's handler, for good
        TRACE.set(None)
        try:
            while await self._live_once(chance):
                pass
        finally:
            self._finish()

    async def _live_once(self, chance: Callable[[], float]) -> bool:
        """Run one incarnation; True if there is to be another."""
        if self._may_end():
            self._step(Event.ENDED)
            return False  # noqa: ASYNC910 - ends the loop
        self._step(Event.RETRY if self.life is Life.RESTARTING else Event.START)
        self._count += 1
        self._current = self._incarnation()
        result = await self._current.run()
        self._current = None
        self.failure = result.crash
        if result.crash is None:  # it read its closed mailbox to the end, or was told to go
            self._step(Event.ENDED)
            return False
        if self._may_end():
            self._report(result.crash, None)
            self._step(Event.ENDED)
            return False
        self._running_time += result.ran_for or 0.0
        return await self._after_crash(result.crash, result.ran_for or 0.0, chance())

    def _may_end(self) -> bool:
        """Told to stop, and nothing is owed that would need another incarnation."""
        if self._stop_mode == "drain":
            return not self._surviving and self.mailbox.is_empty
        return self._stop_mode is not None

    def _incarnation(self) -> Incarnation:
        spec = self.spec
        return Incarnation(
            ref=self.ref,
            mailbox=self.mailbox,
            factory=spec.factory,
            number=self._count,
            last_failure=self.failure,
            surviving=self._surviving,
            concurrency=spec.concurrency,
            start_timeout=spec.start_timeout,
            cleanup_timeout=spec.cleanup_timeout,
            on_ready=self._ready,
            on_stopping=lambda: self._step(Event.STOP),
        )

    def _ready(self) -> None:
        self._step(Event.READY)
        if self._stop_mode is not None:
            self._step(Event.DRAIN)
        self.started.settle(None)
        self._observe(ActorReady(self.path, self._count))

    async def _after_crash(self, crash: Exception, ran_for: float, chance: float) -> bool:
        """Decide about a restart; True if it is to live again."""
        decision = self._decide(crash, ran_for, chance)
        if isinstance(decision, Restart):
            self._report(crash, decision.delay)
            await self._back_off(crash, decision)
            return True
        self._report(crash, None)
        self.exhausted = isinstance(decision, GiveUp)
        self._step(Event.GIVE_UP)
        return False  # noqa: ASYNC910 - ends the loop

    def _decide(self, crash: Exception, ran_for: float, chance: float) -> Restart | GiveUp | Remain:
        if not self.started.settled:
            return Remain()  # a first start that fails is its starter's to judge
        decision = decide(
            self.spec.policy,
            crashed=True,
            failures=tuple(crash.at for crash in self._crashes),
            ran_for=ran_for,
            now=self._running_time,
            streak=self._streak,
            chance=chance,
        )
        recent = [c for c in self._crashes if self._running_time - c.at < self.spec.policy.period]
        line = f"incarnation {self._count}: {crash!r}"
        self._crashes = (*recent, _Crash(self._running_time, line))
        return decision

    async def _back_off(self, crash: Exception, decision: Restart) -> None:
        self._step(Event.CRASH)
        self._streak = decision.streak
        self.failure = fresh(crash)  # the traceback would keep all it passed through alive
        self._pause = trio.CancelScope(deadline=trio.current_time() + decision.delay)
        with self._pause:
            self._reconsider()
            await trio.sleep_forever()

    def _report(self, crash: Exception, delay: float | None) -> None:
        what = "not restarted" if delay is None else f"restarted in {delay:.2f} s"
        expected = isinstance(crash, TinkerActorsError)  # says itself what happened; a trace adds nothing
        _LOG.warning(
            "%s#%d crashed, %s: %r", self.path, self._count, what, crash, exc_info=None if expected else crash
        )
        self._observe(ActorCrashed(self.path, self._count, crash, delay))

    def _finish(self) -> None:
        if self.life not in (Life.STOPPED, Life.FAILED):
            self._step(Event.GIVE_UP)  # something that is not an Exception passes through
        failed = self.life is Life.FAILED
        cause = self.failure if failed else None
        if self.spec.mailbox is None:
            self._close_mailbox("has failed" if failed else "has stopped", cause)
        for envelope in list(self._surviving):
            lost = InFlightLost(f"{self.path} ended before it answered", actor=self.path, started=True)
            lost.__cause__ = self.failure
            envelope.fail(lost)
        if not self.started.settled:
            not_started = StartFailed(f"{self.path} did not start", actor=self.path)
            not_started.__cause__ = self.failure
            self.started.fail(not_started)
        self.ended.set()
        self._observe(ActorEnded(self.path, self._count, failed))

    def _close_mailbox(self, why: str, cause: Exception | None = None, *, stopping: bool = False) -> None:
        unheard = self.mailbox.close(why, cause, stopping=stopping)
        if unheard:
            _LOG.warning("%s %s; messages never begun that nobody waits for: %d", self.path, why, unheard)

    # --- stopping ----------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    def ask_to_stop(self, mode: StopMode) -> None:
        """Begin to stop; idempotent, and a harder mode overrides a softer one. Returns at once."""
        if self._stop_mode is not None and _HARDER.index(mode) <= _HARDER.index(self._stop_mode):
            return
        self._stop_mode = mode
        if self.life is Life.RUNNING:
            self._step(Event.DRAIN)
        if mode == "drain":
            self.mailbox.drain("is stopping")
        elif mode == "now" or self.spec.mailbox is None:
            self._close_mailbox("is stopping", stopping=True)
        if self._current is not None:
            self._current.ending = mode
            if mode == "kill" or (self.life is Life.STARTING and self._may_end()):
                self._current.kill(f"{self.path} is stopped ({mode})")
        self._reconsider()

    def _reconsider(self) -> None:
        """End the backoff if nothing needs another incarnation any more."""
        if self._may_end():
            self._pause.cancel(reason=f"{self.path} is stopped")

    @trio.lowlevel.enable_ki_protection
    async def stop(self, mode: StopMode, timeout: float) -> None:  # noqa: ASYNC109 - a stop that kills
        """Stop and wait for the end; what is not done after `timeout` seconds is killed. A checkpoint.

        Called from a task of the actor itself, it only begins the stop: to wait would be to wait for itself.
        """
        self.ask_to_stop(mode)
        if current_slot() is self:
            await trio.lowlevel.checkpoint()
            return
        with trio.move_on_after(min(timeout, self.spec.stop_timeout)):
            await self.ended.wait()
        if not self.ended.is_set():
            self.ask_to_stop("kill")
            await self.ended.wait()
