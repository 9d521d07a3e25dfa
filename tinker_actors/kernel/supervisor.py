"""Supervisors: they start children in order, restart them when they crash, and stop them in reverse order.

Theory of operation. All actors of a tree are run by tasks of one nursery, each in a *slot* that keeps its
mailbox, its address and its restart history across incarnations. The tasks are shielded: a cancellation of the
tree's body stops children in reverse order instead of all at once.

When an incarnation ends, its slot asks the supervisor (`judge`), which decides in one synchronous step, by the
child's own record, its own restart window and its strategy:

- restart the child alone, after its backoff (`one_for_one`, `dynamic`);
- restart it with others (`one_for_all`: all; `rest_for_one`: those started after it): a `Revival` cancels them in
  reverse order, waits out the backoff, and starts them in order;
- give the child up: then the supervisor itself has failed, and asks its parent the same question about itself.
  A parent that restarts it revives all its children; the root has no parent and fails the tree.

Slots stay across all of this, so refs stay valid and messages stay in line.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

import trio

from tinker_actors.errors import ActorError, InputError, RestartIntensityExceeded
from tinker_actors.kernel.dead_letter import DeadLetters
from tinker_actors.kernel.incarnation import Exit
from tinker_actors.kernel.instrument import Sight
from tinker_actors.kernel.reader import current_reader, waiting_on
from tinker_actors.kernel.ref import ActorRef, StopMode
from tinker_actors.kernel.restart import (
    Await,
    Decision,
    GiveUp,
    Intensity,
    Record,
    Remain,
    RestartPolicy,
    Window,
)
from tinker_actors.kernel.revival import Revival
from tinker_actors.kernel.slot import Slot, current_slot, leave_slot
from tinker_actors.kernel.snapshot import SupervisorSnapshot
from tinker_actors.kernel.spec import ChildSpec

__all__ = ["AutoShutdown", "Root", "Strategy", "Supervisor"]

_LOG = logging.getLogger("tinker_actors.kernel")

RoleT = TypeVar("RoleT")
Strategy: TypeAlias = Literal["one_for_one", "one_for_all", "rest_for_one", "dynamic"]
AutoShutdown: TypeAlias = Literal["never", "any", "all"]
_STRATEGIES = ("one_for_one", "one_for_all", "rest_for_one", "dynamic")


class Root(Protocol):
    """What all supervisors of one tree share."""

    nursery: trio.Nursery
    sight: Sight
    chance: Callable[[], float]

    def fail(self, error: Exception) -> None:
        """The root supervisor has failed."""
        ...

    def shut_down(self) -> None:
        """The root supervisor has ended of its own will."""
        ...

    def cancel(self, reason: str) -> None:
        """Stop the tree; the second time, kill it."""
        ...


class Supervisor:
    """A node of the tree: children in order, actors or further supervisors.

    Attributes:
        path: names of its supervisors and its own, joined by `/`.
        strategy: who is restarted with a child that ended. `dynamic` is `one_for_one` for children that do
            not depend on each other: they are stopped all at once, others in reverse order of their start.
        auto_shutdown: it ends when `any` or `all` of its significant children have ended by themselves.
        significant: its own end by `auto_shutdown` counts for its parent's.
        children: by name, in the order of their start.
    """

    def __init__(
        self,
        path: str,
        strategy: Strategy,
        root: Root,
        parent: Supervisor | None,
        *,
        policy: RestartPolicy = RestartPolicy(),
        intensity: Intensity = Intensity(),
        auto_shutdown: AutoShutdown = "never",
        significant: bool = False,
    ) -> None:
        if strategy not in _STRATEGIES:
            raise InputError("strategy", strategy, f"must be one of {', '.join(_STRATEGIES)}")
        if auto_shutdown not in ("never", "any", "all"):
            raise InputError("auto_shutdown", auto_shutdown, "must be one of never, any, all")
        self.path = path
        self.strategy: Strategy = strategy
        self.auto_shutdown: AutoShutdown = auto_shutdown
        self.significant = significant
        self.children: dict[str, Slot[Any] | Supervisor] = {}
        self.record: Record = Record(policy)
        self.window: Window = Window(intensity, trio.current_time())
        self._root = root
        self._parent = parent
        self._stopping = False
        self._revival: Revival | None = None
        self._since = trio.current_time()
        self._callbacks: list[Callable[[], None]] = []

    # --- starting ----------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def start_child(self, spec: ChildSpec[RoleT]) -> ActorRef[RoleT]:
        """Start an actor and return when its `on_start` has ended. A checkpoint.

        A caller that is cancelled leaves nothing behind: the child is killed first.

        Raises:
            StartFailed: it raised, or took longer than its `start_timeout`; the cause is chained.
            InputError: there is a child of this name already.
            ActorError: this supervisor is stopping.
        """
        slot: Slot[RoleT] = Slot(self._claim(spec.name), spec, self, self._root.sight)
        self.children[spec.name] = slot
        self._root.nursery.start_soon(slot.run, name=slot.path)
        try:
            await self._started(slot)
        except (trio.Cancelled, KeyboardInterrupt):
            with trio.CancelScope(shield=True):
                await slot.stop("kill", 0.0)
            raise
        return slot.ref

    async def _started(self, slot: Slot[Any]) -> None:
        reader = current_reader()
        if reader is None:
            await slot.started.wait()
            return
        # So a child that asks the actor which starts it is told of the cycle.
        with waiting_on(reader, slot.mailbox):
            await slot.started.wait()

    def start_supervisor(
        self,
        name: str,
        strategy: Strategy = "one_for_one",
        *,
        policy: RestartPolicy = RestartPolicy(),
        intensity: Intensity = Intensity(),
        auto_shutdown: AutoShutdown = "never",
        significant: bool = False,
    ) -> Supervisor:
        """Add a supervisor below this one; it has no children yet.

        Args:
            name: unique among its siblings.
            strategy: who is restarted with a child that ended, see `Supervisor`.
            policy: when it is restarted itself, with all its children, after it has given one of them up.
            intensity: how many restarts of its children it makes before it gives up.
            auto_shutdown: it ends when `any` or `all` of its significant children have ended by themselves.
            significant: its own end by `auto_shutdown` counts for this supervisor's.

        Raises:
            InputError: there is a child of this name already; an unknown strategy; a significant supervisor
                that is permanent.
            ActorError: this supervisor is stopping.
        """
        policy.check_significant(significant=significant)
        child = Supervisor(
            self._claim(name),
            strategy,
            self._root,
            self,
            policy=policy,
            intensity=intensity,
            auto_shutdown=auto_shutdown,
            significant=significant,
        )
        self.children[name] = child
        return child

    # --- sight -------------------------------------------------------------------------------------------

    @property
    def sight(self) -> Sight:
        """Where its actors make themselves seen."""
        return self._root.sight

    @property
    def dead_letters(self) -> DeadLetters:
        """What was lost, in the whole tree."""
        return self._root.sight.dead_letters

    def snapshot(self) -> SupervisorSnapshot:
        """Return what is below it, as it is now."""
        return SupervisorSnapshot(
            path=self.path,
            strategy=self.strategy,
            restarts=self.window.restarts,
            stopping=self._stopping,
            children=tuple(child.snapshot() for child in self.children.values()),
        )

    def remember(self, messages: int) -> None:
        """Remember, from now on, the last messages of each actor that ended; `snapshot` shows them.

        It holds for the actors below, and for all that are started in the tree from now on.

        Args:
            messages: how many of each mailbox; 0 for none.
        """
        self._root.sight.remembers = messages
        for child in self.everybody():
            if isinstance(child, Supervisor):
                child.remember(messages)
            else:
                child.mailbox.remember(messages)

    # --- children ----------------------------------------------------------------------------------------

    def _claim(self, name: str) -> str:
        if self._stopping:
            raise ActorError(f"{self.path} is stopping and starts nothing new", actor=self.path)
        if name in self.children:
            raise InputError("name", name, f"{self.path} has a child of this name already")
        return f"{self.path}/{name}"

    def run_again(self, child: Slot[Any], stuck: Exit) -> None:
        """Run a child in a new task: the old one does not end."""
        self._root.nursery.start_soon(child.run, stuck, name=child.path)

    def start_task(self, function: Callable[[], Awaitable[None]], name: str) -> None:
        """Start a task of the tree, for a child."""
        self._root.nursery.start_soon(function, name=name)

    def forget(self, name: str, child: Slot[Any] | Supervisor) -> None:
        """Let go of a child that has ended, unless the name has a new one. The supervisor's own."""
        if self.children.get(name) is child:
            del self.children[name]

    # --- restarts ----------------------------------------------------------------------------------------

    def judge(
        self, child: Slot[Any] | Supervisor, crash: Exception | None, ran_for: float, line: str
    ) -> Decision | Await:
        """Decide about a child that has ended; see the module."""
        try:
            counts = not isinstance(crash, child.record.policy.uncounted)
            decision = child.record.ended(
                line, crashed=crash is not None, ran_for=ran_for, chance=self._root.chance(), counts=counts
            )
            return self._follow(child, crash, decision, counts=counts)
        except Exception as error:  # noqa: BLE001 - a defect in here must not leave children without supervisor
            return self._fail(error)

    def _follow(
        self, child: Slot[Any] | Supervisor, crash: Exception | None, decision: Decision, *, counts: bool
    ) -> Decision | Await:
        if isinstance(decision, Remain):
            if crash is None:
                self._ended_by_itself(child)
            return decision
        if isinstance(decision, GiveUp):
            if isinstance(child, Slot) and child.spec.on_exhausted == "fail":
                return decision
            history = child.record.history
            return self._give_up(child, crash, f"{child.path} crashed {len(history)} times in a row", history)
        if counts and not self.window.admit(trio.current_time()):
            much = f"the children of {self.path} were restarted too often, {child.path} last,"
            return self._give_up(child, crash, much, child.record.history)
        if isinstance(child, Slot) and (self._stopping or not self._restarts_groups):
            return decision
        self._revive(child, decision.delay, f"{self.strategy} restart of {child.path}")
        return Await()

    @property
    def _restarts_groups(self) -> bool:
        return self.strategy in ("one_for_all", "rest_for_one") or self._revival is not None

    def _give_up(
        self, child: Slot[Any] | Supervisor, crash: Exception | None, why: str, history: tuple[str, ...]
    ) -> Decision | Await:
        text = f"{why} and is given up: {crash!r}"
        error = RestartIntensityExceeded(text, actor=child.path, history=history)
        error.__cause__ = crash
        return self._fail(error)

    def _fail(self, error: Exception) -> Decision | Await:
        """This supervisor has failed: decide what becomes of the child that made it fail."""
        trace = None if isinstance(error, ActorError) else error
        _LOG.error("%s has failed: %r", self.path, error, exc_info=trace)
        if self._parent is None:
            self._root.fail(error)
            return GiveUp()
        verdict = self._parent.judge(
            self, error, trio.current_time() - self._since, f"{self.path}: {error!r}"
        )
        if isinstance(verdict, Await):
            return verdict
        self._begin_to_stop("now", math.inf)
        return GiveUp()

    def _revive(self, child: Slot[Any] | Supervisor, delay: float, reason: str) -> None:
        """Have children started again together; a revival under way is widened."""
        if self._revival is None:
            self._revival = Revival(self, reason)
            self._root.nursery.start_soon(self._run_revival, self._revival)
        self._revival.include(child, delay)

    @trio.lowlevel.enable_ki_protection
    async def _run_revival(self, revival: Revival) -> None:
        with trio.CancelScope(shield=True):
            await revival.run()
        if self._revival is revival:
            self._revival = None
            self._since = trio.current_time()

    def everybody(self) -> list[Slot[Any] | Supervisor]:
        """Return all children, in the order of their start."""
        return list(self.children.values())

    def group_of(self, child: Slot[Any] | Supervisor) -> list[Slot[Any] | Supervisor]:
        """Return who is restarted with a child, in the order of their start."""
        children = self.everybody()
        if self.strategy == "one_for_all":
            return children
        if self.strategy == "rest_for_one" and child in children:
            return children[children.index(child) :]
        return [child]

    @trio.lowlevel.enable_ki_protection
    async def halt(self, reason: str) -> None:
        """Cancel all children in reverse order, to be started again by `resume`. A checkpoint."""
        await trio.lowlevel.checkpoint()
        if self._revival is not None:
            self._revival.cancel()
            self._revival = None
        for child in reversed(self.everybody()):
            await child.halt(reason)

    async def resume(self) -> bool:
        """Start all children again in order; False if one of them does not start. A checkpoint."""
        await trio.lowlevel.checkpoint()
        self.window.clear()
        self._since = trio.current_time()
        fine = True
        for child in self.everybody():
            if self._stopping or self._revival is not None:
                return False  # one that did not start: the revival goes on from here
            child.record.clear()
            fine = await child.resume() and fine
        return fine

    def waits(self) -> None:
        """A child waits for its restart."""
        self.window.pause(trio.current_time())

    def goes_on(self) -> None:
        """A child has waited for its restart."""
        self.window.resume(trio.current_time())

    # --- ends --------------------------------------------------------------------------------------------

    def _ended_by_itself(self, child: Slot[Any] | Supervisor) -> None:
        significant = child.spec.significant if isinstance(child, Slot) else child.significant
        if not significant or self.auto_shutdown == "never":
            return
        others = [other for other in self.children.values() if other is not child and _is_significant(other)]
        if self.auto_shutdown == "all" and others:
            return
        if self._parent is None:
            self._root.shut_down()
            return
        self._begin_to_stop("now", math.inf)
        if self.significant:
            self._parent.judge(self, None, trio.current_time() - self._since, f"{self.path}: ended by itself")

    def _begin_to_stop(self, mode: StopMode, timeout: float) -> None:
        """Stop in order, in a task of the tree; nothing new is started from now on."""
        self._close_doors()
        self._root.nursery.start_soon(self._stop_alone, mode, timeout, name=f"{self.path} (stop)")

    @trio.lowlevel.enable_ki_protection
    async def _stop_alone(self, mode: StopMode, timeout: float) -> None:  # noqa: ASYNC109 - as for `stop`
        leave_slot()
        with trio.CancelScope(shield=True):
            await self.stop(mode, timeout)

    def _close_doors(self) -> None:
        self._stopping = True
        if self._revival is not None:
            self._revival.cancel()

    def cancel(self, reason: str) -> None:
        """Stop the whole tree, as if its body had been cancelled; called again, kill it. Returns at once.

        What has begun is finished, within the tree's `grace`, in the reverse order of the start; a second
        call cancels that too. Leaving the tree raises nothing because of it.
        """
        self._root.cancel(reason)

    def ask_to_stop(self, mode: StopMode) -> None:
        """Begin to stop all children; returns at once."""
        self._close_doors()
        for child in reversed(self.everybody()):
            child.ask_to_stop(mode)

    @trio.lowlevel.enable_ki_protection
    async def stop(self, mode: StopMode = "drain", timeout: float = 30.0) -> None:  # noqa: ASYNC109 - it kills
        """Stop all children; kill what is not done after `timeout` seconds. A checkpoint.

        Children are stopped in reverse order of their start, each within its own `stop_timeout` and all
        within `timeout`; those of a `dynamic` supervisor at once. Called by one of its actors, it only begins
        the stop.
        """
        if self.holds(current_slot()):
            self._begin_to_stop(mode, timeout)  # to wait would be to wait for oneself
            await trio.lowlevel.checkpoint()
            return
        self._close_doors()
        deadline = trio.current_time() + timeout
        async with trio.open_nursery() as nursery:
            for child in list(self.children.values()) if self.strategy == "dynamic" else ():
                nursery.start_soon(child.stop, mode, timeout)
        while self.children:
            name, last = next(reversed(self.children.items()))
            await last.stop(mode, max(0.0, deadline - trio.current_time()))
            self.forget(name, last)
        self._close_doors()  # a crash during the stop may have begun another revival
        self.run_callbacks()
        if self._parent is not None:
            self._parent.forget(self.path.rpartition("/")[2], self)

    def holds(self, slot: Slot[Any] | None) -> bool:
        """Whether an actor is below this supervisor."""
        return slot in self.children.values() or any(child.holds(slot) for child in self._nested())

    def _nested(self) -> list[Supervisor]:
        return [child for child in self.children.values() if isinstance(child, Supervisor)]

    def run_callbacks(self) -> None:
        """Run what `on_stopped` was given, here and below. The supervisor's own."""
        for child in self._nested():
            child.run_callbacks()
        while self._callbacks:
            self._callbacks.pop()()

    def on_stopped(self, callback: Callable[[], None]) -> None:
        """Call `callback` once all children have been stopped."""
        self._callbacks.append(callback)

    def attend(self, function: Callable[[], Awaitable[None]]) -> None:
        """Run a task of the kernel's own until all children have been stopped."""
        scope = trio.CancelScope(shield=True)

        async def run() -> None:
            with scope:
                await function()

        self.on_stopped(lambda: scope.cancel(reason=f"{self.path} has stopped"))
        self._root.nursery.start_soon(run, name=f"{self.path} ({function.__name__})")

    async def stop_child(
        self,
        name: str,
        mode: StopMode = "drain",
        timeout: float = 30.0,  # noqa: ASYNC109 - as for `stop`
    ) -> None:
        """Stop one child for good and wait for its end. A checkpoint.

        Called by the child itself, it only begins the stop. A caller that is cancelled leaves the stop under
        way, and nobody to kill what takes too long before the tree itself is left.

        Raises:
            KeyError: there is no such child.
        """
        await self.children[name].stop(mode, timeout)


def _is_significant(child: Slot[Any] | Supervisor) -> bool:
    return child.spec.significant if isinstance(child, Slot) else child.significant
