"""A slot: what stays of an actor across its incarnations.

Theory of operation. The slot owns the mailbox, the address, the restart history and the reply tokens that
survive a restart; one task of the supervision tree runs it. It lives through the table of `lifecycle`: it runs
an incarnation, asks `restart.decide` what comes next, waits out the backoff, and runs the next one. Told to
drain, it still goes through a restart if messages are waiting or answers are owed; told to stop now, it does
not. When it has ended, everything that waited for it has its outcome.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Generic, Literal, TypeVar

import attrs
import trio

from tinker_actors.errors import ActorStopped, InFlightLost, StartFailed, TinkerActorsError
from tinker_actors.kernel.actor import Actor, ReplyToken
from tinker_actors.kernel.incarnation import Exit, Incarnation
from tinker_actors.kernel.instrument import ActorCrashed, ActorEnded, ActorReady, KernelEvent
from tinker_actors.kernel.lifecycle import Event, Life, step
from tinker_actors.kernel.mailbox import Mailbox
from tinker_actors.kernel.outcome import Outcome
from tinker_actors.kernel.ref import ActorRef
from tinker_actors.kernel.restart import GiveUp, Remain, Restart, RestartPolicy, decide

__all__ = ["ChildSpec", "Slot", "StopMode"]

_LOG = logging.getLogger("tinker_actors.kernel")

RoleT = TypeVar("RoleT")
StopMode = Literal["drain", "now", "kill"]
_HARDER: tuple[StopMode, ...] = ("drain", "now", "kill")


def _unchanged(error: ActorStopped) -> TinkerActorsError:
    return error


@attrs.frozen(kw_only=True)
class ChildSpec(Generic[RoleT]):
    """How a child is made, run, restarted and stopped.

    Attributes:
        name: unique among its siblings.
        factory: makes a new actor for each incarnation.
        policy: when it is restarted.
        on_exhausted: when it may not be restarted any more: `escalate` fails its supervisor, `fail` only it.
        capacity: messages its mailbox holds.
        mailbox: a mailbox shared with siblings (a pool) in place of an own one.
        concurrency: handlers that may run at once.
        start_timeout: seconds `on_start` may take.
        stop_timeout: seconds an orderly stop may take before it is killed.
        cleanup_timeout: seconds `on_stop` may take.
        refusal: turns the error for messages that never started into the one their senders get.
    """

    name: str
    factory: Callable[[], Actor[RoleT]]
    policy: RestartPolicy = RestartPolicy()
    on_exhausted: Literal["escalate", "fail"] = "escalate"
    capacity: int = 64
    mailbox: Mailbox | None = None
    concurrency: int = 1
    start_timeout: float = 30.0
    stop_timeout: float = 30.0
    cleanup_timeout: float = 5.0
    refusal: Callable[[ActorStopped], TinkerActorsError] = _unchanged


class Slot(Generic[RoleT]):
    """What stays of an actor across its incarnations."""

    def __init__(self, path: str, spec: ChildSpec[RoleT], observer: Callable[[KernelEvent], None]) -> None:
        self.path = path
        self.spec = spec
        self.mailbox = spec.mailbox or Mailbox(path, spec.capacity, spec.refusal)
        self.ended = trio.Event()
        self.ref: ActorRef[RoleT] = ActorRef(path, self.mailbox, self.ended)
        self.life = Life.NEW
        self.started: Outcome[None] = Outcome()
        self.failure: Exception | None = None
        self.history: list[str] = []
        self._observe = observer
        self._current: Incarnation | None = None
        self._count = 0
        self._stop_mode: StopMode | None = None
        self._stop_asked = trio.Event()
        self._surviving: set[ReplyToken[Any]] = set()
        self._failures: tuple[float, ...] = ()
        self._running_time = 0.0
        self._streak = 0

    def step(self, event: Event) -> None:
        self.life = step(self.life, event)

    # --- running -----------------------------------------------------------------------------------------

    async def run(self, chance: Callable[[], float]) -> None:
        """Live until told to stop, ended for good, or given up. Afterwards `failure` tells."""
        try:
            while await self._live_once(chance):
                pass
        finally:
            self._finish()

    async def _live_once(self, chance: Callable[[], float]) -> bool:
        """Run one incarnation; True if there is to be another."""
        if self._may_end:
            self.step(Event.ENDED)
            return False
        self.step(Event.RETRY if self.life is Life.RESTARTING else Event.START)
        self._count += 1
        self._current = self._incarnation()
        result = await self._current.run()
        if self._stop_mode is not None and (result.crash is None or self._may_end):
            self._ended_while_stopping(result)
            return False
        return await self._after(result, chance())

    @property
    def _may_end(self) -> bool:
        """Told to stop, and nothing is owed that would need another incarnation."""
        if self._stop_mode == "drain":
            return all(token.settled for token in self._surviving) and not self.mailbox.statistics().queued
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
            on_stopping=self._stopping,
        )

    def _ready(self) -> None:
        self.step(Event.READY)
        self.started.settle(None)
        self._observe(ActorReady(self.path, self._count))

    def _stopping(self) -> None:
        self.step(Event.STOP)

    def _ended_while_stopping(self, result: Exit) -> None:
        if result.crash is not None:
            _LOG.warning("%s failed while it was stopping: %r", self.path, result.crash, exc_info=result.crash)
        self.step(Event.ENDED)

    async def _after(self, result: Exit, chance: float) -> bool:
        """Decide about a restart; True if it is to live again."""
        self.failure = result.crash
        self._running_time += result.ran_for or 0.0
        decision = decide(
            self.spec.policy,
            crashed=result.crash is not None,
            failures=self._failures,
            ran_for=result.ran_for or 0.0,
            now=self._running_time,
            streak=self._streak,
            chance=chance,
        )
        if not self.started.settled:
            decision = GiveUp()  # a first start that fails is its starter's to judge
        if result.crash is not None:
            self._report(result.crash, decision.delay if isinstance(decision, Restart) else None)
        match decision:
            case Remain():
                self.step(Event.ENDED)
                return False
            case GiveUp():
                self.step(Event.GIVE_UP)
                return False
            case Restart(delay, streak):
                await self._back_off(delay, streak)
                return True

    async def _back_off(self, delay: float, streak: int) -> None:
        self.step(Event.CRASH)
        self._failures = (*self._failures, self._running_time)
        self._streak = streak
        with trio.move_on_after(delay):
            await self._stop_asked.wait()

    def _report(self, crash: Exception, delay: float | None) -> None:
        self.history.append(f"incarnation {self._count}: {type(crash).__name__}: {crash}")
        what = "not restarted" if delay is None else f"restarted in {delay:.2f} s"
        expected = isinstance(crash, TinkerActorsError)  # says itself what happened; a trace adds nothing
        _LOG.warning(
            "%s#%d crashed, %s: %r", self.path, self._count, what, crash, exc_info=None if expected else crash
        )
        self._observe(ActorCrashed(self.path, self._count, crash, delay))

    def _finish(self) -> None:
        if self.life not in (Life.STOPPED, Life.FAILED):
            self.life = Life.FAILED  # something that is not an Exception passes through
        failed = self.life is Life.FAILED
        if self.spec.mailbox is None:
            self.mailbox.close("has failed" if failed else "has stopped", self.failure if failed else None)
        for token in list(self._surviving):
            lost = InFlightLost(f"{self.path} ended before it answered", actor=self.path, started=True)
            lost.__cause__ = self.failure
            token.fail(lost)
        cause = StartFailed(f"{self.path} did not start", actor=self.path)
        cause.__cause__ = self.failure
        self.started.observed = True
        if not self.started.settled:
            self.started.fail(cause)
        self.ended.set()
        self._observe(ActorEnded(self.path, self._count, failed))

    # --- stopping ----------------------------------------------------------------------------------------

    def ask_to_stop(self, mode: StopMode) -> None:
        """Begin to stop; idempotent, and a harder mode overrides a softer one. Returns at once."""
        if self._stop_mode is not None and _HARDER.index(mode) <= _HARDER.index(self._stop_mode):
            return
        self._stop_mode = mode
        self._stop_asked.set()
        if self.life is Life.RUNNING:
            self.step(Event.DRAIN)
        if mode == "drain":
            self.mailbox.drain("is stopping")
        elif mode == "now" or self.spec.mailbox is None:
            self.mailbox.close("is stopping")
        if self._current is not None:
            self._current.ending = mode
            if mode == "kill" or (self.life is Life.STARTING and self._may_end):
                self._current.scope.cancel(reason=f"{self.path} is stopped ({mode})")

    async def stop(self, mode: StopMode, timeout: float) -> None:
        """Stop and wait for the end; what is not done after `timeout` seconds is killed."""
        self.ask_to_stop(mode)
        with trio.move_on_after(min(timeout, self.spec.stop_timeout)):
            await self.ended.wait()
            return
        self.ask_to_stop("kill")
        await self.ended.wait()
