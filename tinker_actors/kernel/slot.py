"""A slot: what stays of an actor across its incarnations.

Theory of operation. The slot owns the mailbox, the address, the restart history and the messages whose reply
tokens survive a restart; one task of the supervision tree runs it. It lives through the table of `lifecycle`:
it runs an incarnation, asks its supervisor what comes next, waits until that is due, and runs the next one.
Told to drain, it still goes through a restart, and its backoff, if messages are waiting or answers are owed;
told to stop now, it does not. When it has ended, everything that waited for it has its outcome.

A task that ignores its cancellation cannot be ended in Python. An incarnation that was killed and does not
unwind is reported with its stack and declared stuck: its slot ends as if it were gone, or another incarnation
takes its place, and nothing but the end of the whole tree waits for it any more.
"""

from __future__ import annotations

import contextvars
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any, Generic, Protocol, TypeVar, cast

import trio

from tinker_actors.errors import ActorRestarting, InFlightLost, StartFailed, TinkerActorsError
from tinker_actors.kernel.envelope import TRACE, Envelope
from tinker_actors.kernel.incarnation import Exit, Incarnation
from tinker_actors.kernel.instrument import ActorCrashed, ActorEnded, ActorReady, ActorStuck, Sight
from tinker_actors.kernel.lifecycle import Event, Life, step
from tinker_actors.kernel.mailbox import Mailbox
from tinker_actors.kernel.message import MailboxStatistics
from tinker_actors.kernel.outcome import Outcome, fresh
from tinker_actors.kernel.reader import CURRENT_READER
from tinker_actors.kernel.ref import ActorRef, StopMode
from tinker_actors.kernel.restart import Await, Decision, GiveUp, Record, Remain, Restart
from tinker_actors.kernel.snapshot import ActorSnapshot
from tinker_actors.kernel.spec import ChildSpec
from tinker_actors.kernel.watch import Down, DownReason, Obituary

__all__ = ["Overseer", "Slot", "current_slot", "leave_slot"]

_LOG = logging.getLogger("tinker_actors.kernel")

RoleT = TypeVar("RoleT")
_HARDER: tuple[StopMode, ...] = ("drain", "now", "kill")

_CURRENT: contextvars.ContextVar[Slot[Any] | None] = contextvars.ContextVar(
    "tinker_actors.SLOT", default=None
)


def leave_slot() -> None:
    """Say that this task, which an actor has started, is not the actor's own."""
    _CURRENT.set(None)


def current_slot() -> Slot[Any] | None:
    """Return the slot of the actor whose code runs in this task."""
    return _CURRENT.get()


class Overseer(Protocol):
    """The supervisor, as its children see it."""

    def judge(self, child: Any, crash: Exception | None, ran_for: float, line: str) -> Decision | Await:
        """Decide about a child that has ended."""
        ...

    def run_again(self, child: Any, stuck: Exit) -> None:
        """Run a child in a new task: the old one does not end."""
        ...

    def start_task(self, function: Callable[[], Awaitable[None]], name: str) -> None:
        """Start a task of the tree."""
        ...

    def forget(self, name: str, child: Any) -> None:
        """A child has ended."""
        ...

    def waits(self) -> None:
        """A child begins to wait for its restart."""
        ...

    def goes_on(self) -> None:
        """A child has waited for its restart."""
        ...


class Slot(Generic[RoleT]):
    """What stays of an actor across its incarnations.

    Attributes:
        path: names of its supervisors and its own, joined by `/`.
        spec: how it is run.
        mailbox: where its messages wait.
        obituary: who wants to know of its end.
        ref: its address.
        life: where it is in its life.
        started: settled when the first start has ended.
        record: its restarts.
        failure: what ended the last incarnation, if it crashed.
        surviving: messages whose reply tokens outlive an incarnation.
        checkpoint: what the actor keeps for its next incarnation.
        undelivered: messages nobody waits for that were in line when it was stopped.
        next_restart_at: trio time of the next start, while that is known.
    """

    def __init__(self, path: str, spec: ChildSpec[RoleT], overseer: Overseer, sight: Sight) -> None:
        self.path = path
        self.spec = spec
        self.mailbox: Mailbox = (
            Mailbox(path, spec.line(), spec.refusal, sight, spec.limiter)
            if spec.mailbox is None
            else spec.mailbox
        )
        self.obituary: Obituary = Obituary()
        self.reply_timeout: float = spec.reply_timeout
        self.ref: ActorRef[RoleT] = ActorRef(self, self.mailbox)
        self.life: Life = Life.NEW
        self.started: Outcome[None] = Outcome()
        self.record: Record = Record(spec.policy)
        self.failure: Exception | None = None
        self.surviving: dict[Envelope[Any], None] = {}
        self.checkpoint: object = None
        self.undelivered: tuple[Envelope[Any], ...] = ()
        self.next_restart_at: float | None = None
        self.halting: bool = False
        self._overseer = overseer
        self._sight = sight
        self._current: Incarnation | None = None
        self._count = 0
        self._stop_mode: StopMode | None = None
        self._retired = False
        self._task: trio.lowlevel.Task | None = None
        self._pause: trio.CancelScope | None = None
        self._up: Outcome[bool] | None = None
        self.mailbox.when_drained(self._reconsider)

    def choose(self) -> Mailbox:
        """Return the mailbox for the next message: there is one."""
        return self.mailbox

    def statistics(self) -> MailboxStatistics:
        """Return the mailbox's counters and depths."""
        return self.mailbox.statistics()

    @property
    def incarnation(self) -> int:
        """Which life it lives; 0 before the first."""
        return self._count

    @property
    def current(self) -> Incarnation | None:
        """The incarnation that runs."""
        return self._current

    @property
    def has_ended(self) -> bool:
        """Whether it has ended for good."""
        return self.obituary.down is not None

    def _step(self, event: Event) -> None:
        self.life = step(self.life, event)

    def snapshot(self) -> ActorSnapshot:
        """Return what it does, as it is now."""
        return ActorSnapshot(
            path=self.path,
            life=self.life.value,
            incarnation=self._count,
            restarts=len(self.record.history),
            next_restart_at=self.next_restart_at,
            mailbox=self.statistics(),
            line=self.mailbox.owner,
            running=() if self._current is None else self._current.running(),
            recent=self.mailbox.recent,
            last_failure=None if self.failure is None else repr(self.failure),
        )

    # --- running -----------------------------------------------------------------------------------------

    async def run(self, stuck: Exit | None = None) -> None:
        """Live until told to stop, ended for good, or given up. No checkpoint if stopped before it began.

        Args:
            stuck: how to judge an incarnation that another task still runs, and whose place this one takes.
        """
        _CURRENT.set(self)
        CURRENT_READER.set(None)  # this task may have been started by another actor's handler, for good
        TRACE.set(None)
        task = self._task = trio.lowlevel.current_task()
        ended, stuck = stuck, None
        try:
            while ended is None or await self._goes_on_after(ended):
                ended = None  # its crash would keep alive what its traceback has seen
                if self._may_end():
                    self._step(Event.ENDED)
                    break
                ended = await self._begin().run()
                if self._task is not task:
                    break  # it was stuck, and nobody waits for it any more
                self._current = None
        finally:
            ended = None
            if self._task is task:
                self._finish()

    def _begin(self) -> Incarnation:
        self._step(Event.RETRY if self.life is Life.RESTARTING else Event.START)
        self._count += 1
        self._current = Incarnation(self, self._count, self.failure)
        return self._current

    async def _goes_on_after(self, result: Exit) -> bool:
        """Settle what an incarnation has left, once it is known whether another one follows."""
        again = await self._after(result)
        for envelope in result.again if not again else ():
            envelope.fail(cast("Exception", envelope.crash), reason="crashed")
        return again

    async def _after(self, result: Exit) -> bool:
        """Decide what follows an incarnation; True if it is another one."""
        self.failure = result.crash
        if self._is_done(result):
            if result.crash is not None:
                self._report(result.crash, None)
            self._step(Event.ENDED)
            return False  # noqa: ASYNC910 - ends the loop
        decision = self._judge(result)
        if isinstance(decision, GiveUp | Remain):
            if result.crash is not None:
                self._report(result.crash, None)
            self._step(Event.GIVE_UP if result.crash is not None else Event.ENDED)
            return False  # noqa: ASYNC910 - as above
        self.mailbox.put_back(result.again)
        await self._wait_for_restart(result, decision)
        return True

    def _is_done(self, result: Exit) -> bool:
        if self._may_end():
            return True
        if self.halting:
            return self.spec.policy.restart == "temporary"
        return result.crash is None and not result.finished  # it has read its closed mailbox to the end

    def _may_end(self) -> bool:
        """Told to stop, and nothing is owed that would need another incarnation."""
        if self._stop_mode == "drain":
            return not self.surviving and self.mailbox.is_empty
        return self._stop_mode is not None

    def _judge(self, result: Exit) -> Decision | Await:
        if self.halting:
            return Await()
        if not self.started.settled:
            return Remain()  # a first start that fails is its starter's to judge
        line = (
            f"incarnation {self._count}: {result.crash!r}"
            if result.crash
            else f"incarnation {self._count}: ended"
        )
        return self._overseer.judge(self, result.crash, result.ran_for or 0.0, line)

    def ready(self) -> None:
        """An incarnation begins to take messages."""
        self._step(Event.READY)
        if self._stop_mode is not None:
            self._step(Event.DRAIN)
        self.mailbox.resume()
        self.started.settle(None)
        self._is_up(up=True)
        self._sight.notify(ActorReady(self.path, self._count))

    def _is_up(self, *, up: bool) -> None:
        if self._up is not None:
            self._up.settle(up)

    def start_task(self, function: Callable[[], Awaitable[None]], name: str) -> None:
        """Start a task of the tree."""
        self._overseer.start_task(function, name)

    def stopping(self) -> None:
        """An incarnation has handled its last message."""
        self._step(Event.STOP)

    async def _wait_for_restart(self, result: Exit, decision: Decision | Await) -> None:
        crash, halted = result.crash, self.halting
        delay = decision.delay if isinstance(decision, Restart) else None
        if crash is not None:
            self._report(crash, delay, "restarted with its group")
            self.failure = fresh(crash)  # the traceback would keep all it passed through alive
        self._step(Event.HALT if halted else Event.CRASH if crash is not None else Event.FINISH)
        self.obituary.restarting(Down(self.path, "restarting", self.failure))
        if self.spec.on_restart == "fail_fast":
            text = f"{self.path} is being restarted"
            self.mailbox.hand_back(ActorRestarting(text, actor=self.path, started=False))
        self.halting = False
        self.next_restart_at = None if delay is None else trio.current_time() + delay
        due = math.inf if self.next_restart_at is None else self.next_restart_at
        self._pause = trio.CancelScope(deadline=due, shield=True)  # only its supervisor ends it
        self._is_up(up=False)
        self._overseer.waits()
        with self._pause:
            self._reconsider()
            await trio.sleep_forever()
        self._pause = None
        self._overseer.goes_on()
        self.next_restart_at = None

    def _report(self, crash: Exception, delay: float | None, what: str = "not restarted") -> None:
        if delay is not None:
            what = f"restarted in {delay:.2f} s"
        expected = isinstance(crash, TinkerActorsError)  # says itself what happened; a trace adds nothing
        _LOG.warning(
            "%s#%d crashed, %s: %r", self.path, self._count, what, crash, exc_info=None if expected else crash
        )
        self._sight.notify(ActorCrashed(self.path, self._count, crash, delay))

    def _finish(self) -> None:
        """Leave nothing that waits for it."""
        if self.life not in (Life.STOPPED, Life.FAILED, Life.STUCK):
            self._step(Event.GIVE_UP)  # something that is not an Exception passes through
        failed = self.life is Life.FAILED
        cause = self.failure if failed else None
        if self.spec.mailbox is None:
            self._close_mailbox("has failed" if failed else "has stopped", cause)
        end = f"{self.path} ended before it answered"
        if cause is not None:
            end = (
                f"{self.path} was given up by its supervisor before it answered; it last failed of: {cause!r}"
            )
        for envelope in list(self.surviving):
            lost = InFlightLost(end, actor=self.path, started=True)
            lost.__cause__ = self.failure
            envelope.fail(lost, reason="lost")
        if not self.started.settled:
            not_started = StartFailed(f"{self.path} did not start", actor=self.path)
            not_started.__cause__ = self.failure
            self.started.fail(not_started)
        self._is_up(up=False)
        reason: DownReason = "failed" if failed else "stuck" if self.life is Life.STUCK else "stopped"
        self.obituary.ended(Down(self.path, reason, cause))
        self._overseer.forget(self.spec.name, self)
        self._sight.notify(ActorEnded(self.path, self._count, failed))

    def _close_mailbox(self, why: str, cause: Exception | None = None, *, stopping: bool = False) -> None:
        unheard = self.mailbox.close(why, cause, stopping=stopping)
        self.undelivered += tuple(unheard)
        if unheard:
            _LOG.warning(
                "%s %s; messages never begun that nobody waits for: %d", self.path, why, len(unheard)
            )

    # --- restarts with a group ---------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def halt(self, reason: str) -> None:
        """Cancel the incarnation, to be started again by `resume`. A checkpoint.

        One that does not unwind is reported as stuck, and another one takes its place.
        """
        await trio.lowlevel.checkpoint()
        if self._current is None or self._stop_mode is not None:
            if self._pause is not None:
                self._pause.deadline = math.inf  # it waits, and now until `resume`
            return
        down: Outcome[bool] = Outcome()
        self._up = down
        self.halting = True
        self._current.ending = "restart"
        self._current.kill(reason, restarting=True)
        with trio.move_on_after(self._patience):
            await down.wait()
        if not down.settled:
            self.replace(trio.TooSlowError(f"{self.path} did not end when it was cancelled"))

    async def resume(self) -> bool:
        """Start the next incarnation; True when it is ready, False if it does not start. A checkpoint."""
        await trio.lowlevel.checkpoint()
        if self._pause is None:
            return not self.has_ended
        self._up = Outcome()
        self._pause.cancel(reason=f"{self.path} is started again")
        return await self._up.wait()

    # --- stopping ----------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    def ask_to_stop(self, mode: StopMode) -> None:
        """Begin to stop; idempotent, and a harder mode overrides a softer one. Returns at once."""
        if self._stop_mode is not None and _HARDER.index(mode) <= _HARDER.index(self._stop_mode):
            return
        self._stop_mode = mode
        if self.life is Life.RUNNING:
            self._step(Event.DRAIN)
        if self._retired:
            pass  # the mailbox is its siblings'
        elif mode == "drain":
            self.mailbox.drain("is stopping")
        elif mode == "now" or self.spec.mailbox is None:
            self._close_mailbox("is stopping", stopping=True)
        if self._current is not None:
            self._current.ending = mode
            if mode == "kill" or (self.life is Life.STARTING and self._may_end()):
                self._current.kill(f"{self.path} is stopped ({mode})")
        self._reconsider()

    def retire(self) -> None:
        """Begin to leave a shared mailbox to the siblings: finish what has begun, and end."""
        self._retired = True
        self.ask_to_stop("now")
        if self._current is not None:
            self._current.retire()

    def _reconsider(self) -> None:
        """End the wait if nothing needs another incarnation any more, or if it would last for ever."""
        if self._pause is None:
            return
        for_ever = self._stop_mode == "drain" and self._pause.deadline == math.inf
        if self._may_end() or for_ever:
            self._pause.cancel(reason=f"{self.path} is stopped")

    @trio.lowlevel.enable_ki_protection
    async def stop(self, mode: StopMode, timeout: float) -> None:  # noqa: ASYNC109 - a stop that kills
        """Stop and wait for the end; what is not done after `timeout` seconds is killed. A checkpoint.

        What does not unwind after that is reported as stuck and left behind. Called from a task of the actor
        itself, it only begins the stop: to wait would be to wait for itself.
        """
        self.ask_to_stop(mode)
        if current_slot() is self:
            await trio.lowlevel.checkpoint()
            return
        if mode != "kill":
            with trio.move_on_after(min(timeout, self.spec.stop_timeout)):
                await self.obituary.wait()
            self.ask_to_stop("kill")
        with trio.move_on_after(self._patience):
            await self.obituary.wait()
        if not self.has_ended:
            self._leave_behind()
            self._step(Event.STICK)
            self._finish()

    @property
    def _patience(self) -> float:
        """Seconds for a cancelled incarnation: to unwind, and for `on_stop` if it has started."""
        return self.spec.cleanup_timeout * (1 if self.life is Life.STARTING else 2)

    # --- what does not end -------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def abort(self, error: Exception) -> None:
        """Make the incarnation crash with `error`; if it does not unwind, replace it. A checkpoint."""
        incarnation = self._current
        await trio.lowlevel.checkpoint()
        if incarnation is None or self._current is not incarnation or self._stop_mode is not None:
            return
        patience = self._patience
        incarnation.abort(error)
        with trio.move_on_after(patience):
            await incarnation.wait_ended()
        if self._current is incarnation:
            self.replace(error)

    @trio.lowlevel.enable_ki_protection
    def replace(self, crash: Exception) -> None:
        """Report an incarnation that does not end, and go on as if it had crashed."""
        again = self._leave_behind()
        self._overseer.run_again(self, Exit(crash, None, again=again))

    def _leave_behind(self) -> tuple[Envelope[Any], ...]:
        incarnation, self._current, self._task = self._current, None, None
        assert incarnation is not None
        stack = incarnation.stack()
        _LOG.error("%s#%d is stuck: it was cancelled and does not end\n%s", self.path, self._count, stack)
        self._sight.notify(ActorStuck(self.path, self._count, stack))
        return incarnation.disown()
