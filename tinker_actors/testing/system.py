"""A tree of actors for a test: it is repeatable, sees everything, and fails the test for what nobody expected.

Theory of operation. `open_test_system` opens an ordinary tree with a seeded generator and with message tracing, and
keeps all events. When its body has ended in good order, and the tree has drained, three things must hold: every
dead letter was expected, the counters of every mailbox add up, and no task that an actor started, in whatever
nursery, is left. A body that raised is not judged: its own exception is what the test shows, with the dead letters
as a note.
"""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any, ClassVar, TypeVar, overload

import trio
import trio.testing

from tinker_actors.errors import InputError
from tinker_actors.kernel import (
    Actor,
    ActorReady,
    ActorRef,
    ChildSpec,
    DeadLetter,
    KernelEvent,
    Observer,
    Reason,
    Supervisor,
    open_supervisor,
)
from tinker_actors.kernel.slot import current_slot
from tinker_actors.testing.clock import current_seed
from tinker_actors.testing.invariant import (
    assert_counters,
    assert_quiescent,
    check_counters,
    living_tasks,
    settle,
)
from tinker_actors.testing.probe import Probe
from tinker_actors.testing.stepper import Stepper

__all__ = ["TestSystem", "open_test_system"]

RoleT = TypeVar("RoleT")


class TestSystem:
    """A tree of actors in a test; made by `open_test_system`.

    Attributes:
        root: the root supervisor, for everything that has no short way here.
        rng: the tree's generator, for a test that wants chance of the same seed.
        events: all that the kernel told, in order: starts, crashes, ends, every message, dead letters.
        dead_letters: the dead letters that are still to be judged, see `take_dead_letters`.
    """

    __test__: ClassVar[bool] = False  # its name looks like a test to pytest

    root: Supervisor

    def __init__(self, rng: random.Random, allowed: Collection[Reason], observer: Observer | None) -> None:
        self.rng = rng
        self.events: list[KernelEvent] = []
        self.dead_letters: list[DeadLetter] = []
        self._allowed = frozenset(allowed)
        self._observer = observer
        self._refs: dict[ActorRef[Any], None] = {}

    # --- actors ------------------------------------------------------------------------------------------

    @overload
    async def start(self, actor: ChildSpec[RoleT]) -> ActorRef[RoleT]: ...

    @overload
    async def start(
        self, actor: Callable[[], Actor[RoleT]], name: str | None = None, **settings: Any
    ) -> ActorRef[RoleT]: ...

    async def start(self, actor: Any, name: str | None = None, **settings: Any) -> ActorRef[Any]:
        """Start an actor below the root and return its ref when its `on_start` has ended. A checkpoint.

        Args:
            actor: a `ChildSpec`, or a factory, such as the actor's class.
            name: for a factory: unique among its siblings; the factory's own name, with a number if need be, if None.
            settings: for a factory: the other fields of `ChildSpec`.

        Raises:
            StartFailed: it did not start.
            InputError: a spec and a name or settings beside it, or a name that is taken.
        """
        return await self.root.start_child(self._spec(actor, name, settings))

    def _spec(self, actor: Any, name: str | None, settings: dict[str, Any]) -> ChildSpec[Any]:
        if not isinstance(actor, ChildSpec):
            return ChildSpec(name=name or self._free_name(actor), factory=actor, **settings)
        if name is not None or settings:
            raise InputError("settings", {"name": name, **settings}, "the spec says it all; use attrs.evolve")
        return actor

    def _free_name(self, factory: object) -> str:
        name = getattr(factory, "__name__", "actor").strip("<>")
        names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        return next(name for name in names if name not in self.root.children)

    async def probe(self, name: str = "probe", **settings: Any) -> Probe:
        """Start a `Probe` below the root. A checkpoint.

        Args:
            name: unique among its siblings.
            settings: the other fields of its `ChildSpec`.
        """
        probe = Probe(name)
        await probe.start(self.root, **settings)
        return probe

    @contextlib.asynccontextmanager
    async def stepping(
        self, actor: ChildSpec[RoleT] | Callable[[], Actor[RoleT]], name: str | None = None, **settings: Any
    ) -> AsyncIterator[tuple[ActorRef[RoleT], Stepper]]:
        """Start an actor that handles one message whenever it is told to: `await step()`.

            async with system.stepping(CounterActor) as (ref, step):
                await ref.tell(Add(2))
                assert (await step()).reply == 2

        When the block is left, the actor runs freely. The arguments are those of `start`.
        """
        stepper = Stepper()
        ref = await self.root.start_child(stepper.arm(self._spec(actor, name, settings)))
        try:
            yield ref, stepper
        finally:
            stepper.release()

    # --- what is to hold ---------------------------------------------------------------------------------

    async def settle(self, *, within: float = 60.0) -> None:
        """Wait until nothing is under way in the tree and no task can run. A checkpoint.

        Timers that have not fired are not waited for.

        Raises:
            AssertionError: it took longer than so many seconds of trio time; what is still under way is named.
        """
        await settle(self.root, within=within)

    def assert_quiescent(self) -> None:
        """Assert that nothing is queued, running, parked, starting, stopping or restarting.

        Raises:
            AssertionError: it names each actor where something is under way, and what.
        """
        assert_quiescent(self.root)

    def assert_counters(self) -> None:
        """Assert of every actor, ended ones included, that each message is counted in exactly one place.

        Raises:
            AssertionError: it names the actors whose counters do not add up.
        """
        assert_counters(self.root)
        checked = (check_counters(ref.path, ref.statistics()) for ref in self._refs)
        wrong = [problem for problem in checked if problem is not None]
        if wrong:
            raise AssertionError("counters do not add up:\n  " + "\n  ".join(wrong))

    def assert_no_leaks(self) -> None:
        """Assert that no task is left that an actor started, in whatever nursery, and that outlives this actor.

        Raises:
            AssertionError: it names the tasks and their actors.
        """
        left: list[str] = []
        for task in living_tasks():
            slot = task.context.copy().run(current_slot)
            if slot is not None and slot.has_ended and slot.ref in self._refs:
                left.append(f"{task.name}, started by {slot.path}")
        if left:
            raise AssertionError(f"{len(left)} tasks have outlived their actors:\n  " + "\n  ".join(left))

    def take_dead_letters(self) -> list[DeadLetter]:
        """Return the dead letters so far and count them as expected: the end of the system says nothing of them."""
        taken, self.dead_letters = self.dead_letters, []
        return taken

    def assert_no_dead_letters(self) -> None:
        """Assert that there is no dead letter but those taken, and those of allowed reasons.

        Raises:
            AssertionError: it lists them.
        """
        unexpected = self._unexpected()
        if unexpected:
            raise AssertionError(
                f"{len(unexpected)} dead letters nobody expected:\n  " + "\n  ".join(unexpected)
            )

    def _unexpected(self) -> list[str]:
        letters = [letter for letter in self.dead_letters if letter.reason not in self._allowed]
        return [f"{letter.reason}: {letter.message!r} for {letter.actor}" for letter in letters]

    # --- the runtime's side ------------------------------------------------------------------------------

    def observe(self, event: KernelEvent) -> None:
        """Keep an event; the tree's observer."""
        self.events.append(event)
        if isinstance(event, DeadLetter):
            self.dead_letters.append(event)
        elif isinstance(event, ActorReady):
            self._remember(event.actor)
        if self._observer is not None:
            self._observer(event)

    def _remember(self, path: str) -> None:
        """Keep the ref of an actor, so that its counters can be read after its end."""
        node, rest = self.root, path.removeprefix(f"{self.root.path}/")
        while (child := node.children.get(rest)) is None:
            name, _, rest = rest.partition("/")
            below = node.children.get(name)
            if not isinstance(below, Supervisor):
                return
            node = below
        if not isinstance(child, Supervisor):
            self._refs[child.ref] = None

    async def judge(self) -> None:
        """See that all is well when the tree has ended; `open_test_system`'s own."""
        await trio.testing.wait_all_tasks_blocked()
        self.assert_no_dead_letters()
        self.assert_counters()
        self.assert_no_leaks()

    def note(self, error: BaseException) -> None:
        """Tell of the dead letters on an exception of the body; `open_test_system`'s own."""
        unexpected = self._unexpected()
        if unexpected and isinstance(error, Exception):
            error.add_note("dead letters meanwhile:\n  " + "\n  ".join(unexpected))


@contextlib.asynccontextmanager
async def open_test_system(
    name: str = "test",
    *,
    seed: int | None = None,
    allow_dead_letters: Collection[Reason] = (),
    **settings: Any,
) -> AsyncIterator[TestSystem]:
    """Open a tree of actors for a test; leaving it in good order judges what happened in it, see the module.

    Args:
        name: first part of every actor's path.
        seed: of the tree's generator; that of the `run_virtual` around it, or 0, if None.
        allow_dead_letters: reasons of dead letters that do not fail the test.
        settings: the other arguments of `open_supervisor`.

    Raises:
        AssertionError: there was a dead letter that nobody expected, counters do not add up, or an actor left a task.
        RestartIntensityExceeded: a child was given up and its failure escalated.
    """
    rng = random.Random(current_seed() if seed is None else seed)
    system = TestSystem(rng, allow_dead_letters, settings.pop("observer", None))
    settings = {"trace_messages": True, **settings}
    try:
        async with open_supervisor(name, rng=rng, observer=system.observe, **settings) as system.root:
            yield system
    except BaseException as error:
        system.note(error)
        raise
    await system.judge()
