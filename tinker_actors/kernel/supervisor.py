"""Supervisors: they start children in order, restart them when they crash, and stop them in reverse order.

Theory of operation. `open_supervisor` owns one nursery. Every child actor lives in a *slot* that keeps its
mailbox, its address and its restart history across incarnations, and is run by one task of that nursery. The
task is shielded: a cancellation of the body stops children in reverse order instead of all at once. Supervisors
nest; a supervisor that gives up stops its own children and escalates to its parent, the root to the body.

What leaves `open_supervisor` is the body's own exception if it raised, else the failure that was escalated;
never an exception group around either.
"""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal, TypeVar

import trio

from tinker_actors.errors import ActorError, RestartIntensityExceeded
from tinker_actors.kernel.instrument import KernelEvent, Observer
from tinker_actors.kernel.lifecycle import Life
from tinker_actors.kernel.ref import ActorRef
from tinker_actors.kernel.slot import ChildSpec, Slot, StopMode

__all__ = ["Supervisor", "open_supervisor"]

_LOG = logging.getLogger("tinker_actors.kernel")

RoleT = TypeVar("RoleT")
Strategy = Literal["one_for_one", "dynamic"]


class Supervisor:
    """A node of the tree: children in order, actors or further supervisors.

    `one_for_one` children are stopped one after the other in reverse order of their start, `dynamic` children
    all at once. A child that crashes is restarted alone.
    """

    def __init__(self, path: str, strategy: Strategy, root: _Root, parent: Supervisor | None) -> None:
        self.path = path
        self._strategy = strategy
        self._root = root
        self._parent = parent
        self._children: dict[str, Slot[Any] | Supervisor] = {}
        self._stopping = False
        self._callbacks: list[Callable[[], None]] = []

    async def start_child(self, spec: ChildSpec[RoleT]) -> ActorRef[RoleT]:
        """Start an actor and return when its `on_start` has ended.

        Raises:
            StartFailed: it raised, or took longer than its `start_timeout`; the cause is chained.
            ActorError: this supervisor is stopping.
        """
        slot: Slot[RoleT] = Slot(self._claim(spec.name), spec, self._root.notify)
        self._children[spec.name] = slot
        self._root.nursery.start_soon(self._run, slot)
        try:
            await slot.started.wait()
        except trio.Cancelled:
            slot.ask_to_stop("kill")
            with trio.move_on_after(2 * spec.cleanup_timeout, shield=True):
                await slot.ended.wait()  # so that nothing of a start that nobody wanted is left behind
            raise
        return slot.ref

    def start_supervisor(self, name: str, strategy: Strategy = "one_for_one") -> Supervisor:
        """Add a supervisor below this one.

        Raises:
            ActorError: this supervisor is stopping.
        """
        child = Supervisor(self._claim(name), strategy, self._root, self)
        self._children[name] = child
        return child

    def _claim(self, name: str) -> str:
        if self._stopping:
            raise ActorError(f"{self.path} is stopping and starts nothing new", actor=self.path)
        if name in self._children:
            raise ValueError(f"{self.path} has a child {name!r} already")
        return f"{self.path}/{name}"

    async def _run(self, slot: Slot[Any]) -> None:
        await slot.run(self._root.chance)
        self._children.pop(slot.spec.name, None)
        exhausted = slot.life is Life.FAILED and slot.started.error is None
        if exhausted and slot.spec.on_exhausted == "escalate":
            error = RestartIntensityExceeded(
                f"{slot.path} failed {len(slot.history)} times and is given up",
                actor=slot.path,
                history=slot.history,
            )
            error.__cause__ = slot.failure
            self.escalate(error)

    def escalate(self, error: Exception) -> None:
        """Fail: begin to stop all children and pass the failure up."""
        if self._parent is None:
            self._root.fail(error)
            return
        for child in list(self._children.values()):
            child.ask_to_stop("now")
        self._parent.escalate(error)

    def ask_to_stop(self, mode: StopMode) -> None:
        """Begin to stop all children at once; returns at once."""
        self._stopping = True
        for child in reversed(list(self._children.values())):
            child.ask_to_stop(mode)

    async def stop(self, mode: StopMode, timeout: float) -> None:
        """Stop all children, in reverse order of their start; kill what is not done after `timeout` seconds."""
        self._stopping = True
        deadline = trio.current_time() + timeout
        if self._strategy == "dynamic":
            async with trio.open_nursery() as nursery:
                for child in list(self._children.values()):
                    nursery.start_soon(child.stop, mode, timeout)
        while self._children:
            name, child = next(reversed(self._children.items()))
            await child.stop(mode, max(0.0, deadline - trio.current_time()))
            self._children.pop(name, None)
        while self._callbacks:
            self._callbacks.pop()()

    def on_stopped(self, callback: Callable[[], None]) -> None:
        """Call `callback` once all children have been stopped."""
        self._callbacks.append(callback)

    async def stop_child(self, name: str, mode: StopMode = "drain", timeout: float = 30.0) -> None:
        """Stop one child and wait for its end.

        Raises:
            KeyError: there is no such child.
        """
        await self._children[name].stop(mode, timeout)


class _Root:
    """What all supervisors of one tree share."""

    def __init__(self, nursery: trio.Nursery, rng: random.Random, observer: Observer | None) -> None:
        self.nursery = nursery
        self.chance = rng.random
        self.body = trio.CancelScope()
        self.failure: Exception | None = None
        self._observer = observer

    def notify(self, event: KernelEvent) -> None:
        if self._observer is None:
            return
        try:
            self._observer(event)
        except Exception:
            _LOG.exception("the observer failed on %r", event)

    def fail(self, error: Exception) -> None:
        if self.failure is None:
            self.failure = error
        self.body.cancel(reason=f"a supervised actor was given up: {error}")


@contextlib.asynccontextmanager
async def open_supervisor(
    name: str, *, rng: random.Random, observer: Observer | None = None, grace: float = 30.0
) -> AsyncIterator[Supervisor]:
    """Open a tree of actors; leaving it means that everything in it has ended.

    If the body returns, what was admitted is worked off (`drain`); if it raises or is cancelled, nothing new
    is begun (`now`). Either way everything has ended within `grace` seconds, plus the clean-up hooks.

    Args:
        name: first part of every actor's path.
        rng: chance for backoff jitter.
        observer: told of starts, crashes and ends.
        grace: seconds for the whole stop.

    Raises:
        RestartIntensityExceeded: a child was given up and its failure escalated; the body was cancelled.
    """
    ending: BaseException | None = None
    async with trio.open_nursery() as nursery:
        root = _Root(nursery, rng, observer)
        supervisor = Supervisor(name, "one_for_one", root, None)
        try:
            with root.body:
                yield supervisor
        except BaseException as error:  # noqa: BLE001 - raised again below, outside the nursery's group
            ending = error
        mode: StopMode = "drain" if ending is None and root.failure is None else "now"
        with trio.CancelScope(shield=True):
            await supervisor.stop(mode, grace)
    if ending is not None:
        raise ending
    if root.failure is not None:
        raise root.failure
