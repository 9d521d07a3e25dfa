"""Supervisors: they start children in order, restart them when they crash, and stop them in reverse order.

Theory of operation. `open_supervisor` owns one nursery. Every child actor lives in a *slot* that keeps its
mailbox, its address and its restart history across incarnations, and is run by one task of that nursery. The
task is shielded: a cancellation of the body stops children in reverse order instead of all at once.
Supervisors nest; a supervisor that gives up stops its own children and escalates to its parent, the root to
the body.

What leaves `open_supervisor` is the body's own exception if it raised, else the failure that was escalated;
never an exception group around either. An interrupt (KeyboardInterrupt, SystemExit) that was raised in an
actor comes before both.
"""

from __future__ import annotations

import contextlib
import logging
import math
import random
from collections.abc import AsyncGenerator, Callable
from typing import Any, Literal, TypeVar

import trio

from tinker_actors.errors import ActorError, InputError, RestartIntensityExceeded
from tinker_actors.kernel.border import call_user
from tinker_actors.kernel.incarnation import collapse
from tinker_actors.kernel.instrument import KernelEvent, Observer
from tinker_actors.kernel.ref import ActorRef
from tinker_actors.kernel.slot import ChildSpec, Slot, StopMode, current_slot

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

    @trio.lowlevel.enable_ki_protection
    async def start_child(self, spec: ChildSpec[RoleT]) -> ActorRef[RoleT]:
        """Start an actor and return when its `on_start` has ended. A checkpoint.

        A caller that is cancelled leaves nothing behind: the child is killed first.

        Raises:
            StartFailed: it raised, or took longer than its `start_timeout`; the cause is chained.
            InputError: there is a child of this name already.
            ActorError: this supervisor is stopping.
        """
        slot: Slot[RoleT] = Slot(self._claim(spec.name), spec, self._root.notify)
        self._children[spec.name] = slot
        self._root.nursery.start_soon(self._run, slot, name=slot.path)
        try:
            await slot.started.wait()
        except (trio.Cancelled, KeyboardInterrupt):
            slot.ask_to_stop("kill")
            with trio.move_on_after(spec.cleanup_timeout, shield=True):
                await slot.ended.wait()
            raise
        return slot.ref

    def start_supervisor(self, name: str, strategy: Strategy = "one_for_one") -> Supervisor:
        """Add a supervisor below this one.

        Raises:
            InputError: there is a child of this name already.
            ActorError: this supervisor is stopping.
        """
        child = Supervisor(self._claim(name), strategy, self._root, self)
        self._children[name] = child
        return child

    def _claim(self, name: str) -> str:
        if self._stopping:
            raise ActorError(f"{self.path} is stopping and starts nothing new", actor=self.path)
        if name in self._children:
            raise InputError("name", name, f"{self.path} has a child of this name already")
        return f"{self.path}/{name}"

    @trio.lowlevel.enable_ki_protection
    async def _run(self, slot: Slot[Any]) -> None:
        with trio.CancelScope(shield=True):  # only its supervisor stops it
            await slot.run(self._root.chance)
        self.forget(slot.spec.name, slot)
        if slot.exhausted and slot.spec.on_exhausted == "escalate":
            error = RestartIntensityExceeded(
                f"{slot.path} crashed {len(slot.history)} times in a row and is given up: {slot.failure!r}",
                actor=slot.path,
                history=slot.history,
            )
            error.__cause__ = slot.failure
            self.escalate(error)

    def forget(self, name: str, child: Slot[Any] | Supervisor) -> None:
        """Let go of a child that has ended, unless the name has a new one. The supervisor's own."""
        if self._children.get(name) is child:
            del self._children[name]

    def escalate(self, error: Exception) -> None:
        """Fail: begin to stop all children and pass the failure up."""
        if self._parent is None:
            self._root.fail(error)
            return
        self.ask_to_stop("now")
        self._parent.escalate(error)

    def ask_to_stop(self, mode: StopMode) -> None:
        """Begin to stop all children; returns at once."""
        self._stopping = True
        for child in reversed(list(self._children.values())):
            child.ask_to_stop(mode)

    @trio.lowlevel.enable_ki_protection
    async def stop(self, mode: StopMode, timeout: float) -> None:  # noqa: ASYNC109 - a stop that kills
        """Stop all children; kill what is not done after `timeout` seconds. A checkpoint.

        Children of a `one_for_one` supervisor are stopped in reverse order of their start. Called by one of
        its actors, it only begins the stop.
        """
        if self.holds(current_slot()):
            self.ask_to_stop(mode)  # to wait would be to wait for oneself
            await trio.lowlevel.checkpoint()
            return
        self._stopping = True
        deadline = trio.current_time() + timeout
        async with trio.open_nursery() as nursery:
            for child in list(self._children.values()) if self._strategy == "dynamic" else ():
                nursery.start_soon(child.stop, mode, timeout)
        while self._children:
            name, last = next(reversed(self._children.items()))
            await last.stop(mode, max(0.0, deadline - trio.current_time()))
            self.forget(name, last)
        self.run_callbacks()
        if self._parent is not None:
            self._parent.forget(self.path.rpartition("/")[2], self)

    def holds(self, slot: Slot[Any] | None) -> bool:
        """Whether an actor is below this supervisor."""
        return slot in self._children.values() or any(child.holds(slot) for child in self._nested())

    def _nested(self) -> list[Supervisor]:
        return [child for child in self._children.values() if isinstance(child, Supervisor)]

    def run_callbacks(self) -> None:
        """Run what `on_stopped` was given, here and below. The supervisor's own."""
        for child in self._nested():
            child.run_callbacks()
        while self._callbacks:
            self._callbacks.pop()()

    def on_stopped(self, callback: Callable[[], None]) -> None:
        """Call `callback` once all children have been stopped."""
        self._callbacks.append(callback)

    async def stop_child(
        self,
        name: str,
        mode: StopMode = "drain",
        timeout: float = 30.0,  # noqa: ASYNC109 - as for `stop`
    ) -> None:
        """Stop one child and wait for its end. A checkpoint.

        Called by the child itself, it only begins the stop. A caller that is cancelled leaves the stop under
        way, and nobody to kill what takes too long before the tree itself is left.

        Raises:
            KeyError: there is no such child.
        """
        await self._children[name].stop(mode, timeout)


class _Root:
    """What all supervisors of one tree share."""

    nursery: trio.Nursery

    def __init__(self, rng: random.Random, observer: Observer | None) -> None:
        self.chance = rng.random
        self.body = trio.CancelScope()
        self.failure: Exception | None = None
        self._observer = observer

    def notify(self, event: KernelEvent) -> None:
        if self._observer is None:
            return
        try:
            call_user(self._observer, event)
        except Exception:  # noqa: BLE001 - a user's function must not end an actor
            _LOG.exception("the observer failed on %r", event)

    def fail(self, error: Exception) -> None:
        if self.failure is None:
            self.failure = error
        self.body.cancel(reason=f"a supervised actor was given up: {error}")


@contextlib.asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def open_supervisor(  # noqa: ASYNC911 - entering waits for nothing; leaving has waited for the stop
    name: str, *, rng: random.Random, observer: Observer | None = None, grace: float = 30.0
) -> AsyncGenerator[Supervisor]:
    """Open a tree of actors; leaving it means that everything in it has ended.

    If the body returns, what was admitted is worked off (`drain`); if it raises or is cancelled, or an actor
    is given up, nothing new is begun (`now`). A cancellation that comes during the drain ends the drain the
    same way. Either way everything has ended within `grace` seconds, plus the clean-up hooks.

    Args:
        name: first part of every actor's path.
        rng: chance for backoff jitter.
        observer: told of starts, crashes and ends.
        grace: seconds for the whole stop.

    Raises:
        RestartIntensityExceeded: a child was given up and its failure escalated; the body was cancelled.
    """
    body: BaseException | None = None
    broken: BaseException | None = None
    root = _Root(rng, observer)
    supervisor = Supervisor(name, "one_for_one", root, None)
    deadline = math.inf
    try:
        async with trio.open_nursery() as root.nursery:
            try:
                with root.body:
                    yield supervisor
                    deadline = trio.current_time() + grace
                    await supervisor.stop("drain", grace)
            except BaseException as error:  # noqa: ASYNC103, BLE001 - raised below, outside the nursery's group
                body = error
            await _stop_now(supervisor, min(grace, max(0.0, deadline - trio.current_time())))
    except BaseException as error:  # noqa: ASYNC103, BLE001 - as above
        broken = collapse(error)
    supervisor.run_callbacks()
    leaving = _what_leaves(body, broken, root.failure)
    try:
        if leaving is not None:
            raise leaving
    finally:
        del body, broken, leaving  # or this frame and the traceback would keep each other alive


async def _stop_now(supervisor: Supervisor, timeout: float) -> None:  # noqa: ASYNC109 - as for `stop`
    try:
        with trio.CancelScope(shield=True):
            await supervisor.stop("now", timeout)
    except BaseException:  # Ctrl-C once more
        supervisor.ask_to_stop("kill")
        raise


def _what_leaves(
    body: BaseException | None, broken: BaseException | None, failure: Exception | None
) -> BaseException | None:
    """Choose the exception of a tree that has ended; the others that there are become notes on it.

    Args:
        body: what the body raised.
        broken: what an actor's task raised: an interrupt, or the sign of a defect in the kernel.
        failure: what was escalated.
    """
    interrupted = broken is not None and not isinstance(broken, Exception)
    errors = [error for error in (body, broken, failure) if error is not None]
    if broken is not None and (interrupted or isinstance(body, trio.Cancelled)):
        errors.remove(broken)  # a task that raises also cancels the body
        errors.insert(0, broken)
    for other in errors[1:]:
        if not isinstance(other, trio.Cancelled):
            errors[0].add_note(f"also, in the same tree of actors: {other!r}")
    return errors[0] if errors else None
