"""A pool against a simple model of a queue with workers, step by step.

Hypothesis makes a program, one rule per step. When the program is complete it is played against a real pool, in
virtual time that only moves when a step says so: after each step everything runs until it waits, and then the pool
must be exactly where the model is. Senders of one step run in the same tick; the order they come in is left open by
trio, so the model takes it over, and holds the pool to it from there on.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tinker_actors.errors import ActorStopped, HandlerCrashed, Withdrawn
from tinker_actors.kernel import (
    Actor,
    Backoff,
    Intensity,
    Message,
    Pending,
    Pool,
    PoolSpec,
    RestartPolicy,
    Supervisor,
    handles,
    open_supervisor,
    start_pool,
)

POLICY = RestartPolicy(max_restarts=10_000, backoff=Backoff(base=1, maximum=1, jitter=0))
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]  # a program is long, and played as a whole
HOW_IT_ENDS = st.sampled_from(["reply", "reply", "declare", "crash"])
HOWS = st.sampled_from(["ask", "ask", "tell", "submit"])


class Role:
    pass


class Declared(Exception):
    pass


@attrs.frozen
class Job(Message[Role, int]):
    """A message that its handler ends when, and as, the program says."""

    name: int


# --- the model -------------------------------------------------------------------------------------------


@attrs.define
class Worker:
    """A worker of the model.

    Attributes:
        job: what it has.
        down: it has crashed and waits for its restart.
        leaving: it has been retired.
    """

    job: int | None = None
    down: bool = False
    leaving: bool = False


@attrs.define
class Model:
    """What a pool is: one queue, and workers that take from it.

    Attributes:
        capacity: how many may wait.
        workers: by path, in the order of their start.
        queue: what waits.
        parked: what waits for room.
        begun: what was begun, in order.
        ends: how asks and submits ended.
        counts: the counters of a mailbox.
        stopped: how it was told to stop.
    """

    capacity: int
    workers: dict[str, Worker] = attrs.field(factory=dict)
    queue: list[int] = attrs.field(factory=list)
    parked: list[int] = attrs.field(factory=list)
    begun: list[int] = attrs.field(factory=list)
    ends: dict[int, str] = attrs.field(factory=dict)
    counts: dict[str, int] = attrs.field(
        factory=lambda: dict.fromkeys(("admitted", "handled", "failed", "abandoned", "rejected"), 0)
    )
    stopped: str | None = None

    @property
    def running(self) -> dict[int, str]:
        """What is being handled, and by whom."""
        return {worker.job: path for path, worker in self.workers.items() if worker.job is not None}

    @property
    def idle(self) -> list[str]:
        """Who can take a message."""
        return [p for p, w in self.workers.items() if w.job is None and not w.down and not w.leaving]

    def send(self, name: int) -> None:
        """A message comes."""
        if self.stopped:
            self.ends[name] = "stopped"
        elif len(self.queue) < self.capacity:
            self.queue.append(name)
            self.counts["admitted"] += 1
        else:
            self.parked.append(name)

    def settle(self, where: dict[int, str]) -> None:
        """Let the idle take what waits; `where` says who took what, for the model cannot know."""
        while self.queue and self.idle:
            name = self.queue.pop(0)
            path = where[name]
            assert path in self.idle, f"{path} took {name} and is not idle"
            self.workers[path].job = name
            self.begun.append(name)
            self.make_room()
        if self.stopped and not self.queue:
            self.workers = {path: worker for path, worker in self.workers.items() if worker.job is not None}

    def make_room(self) -> None:
        """Admit whoever waits for room."""
        while self.parked and len(self.queue) < self.capacity:
            self.queue.append(self.parked.pop(0))
            self.counts["admitted"] += 1

    def finish(self, name: int, how: str) -> None:
        """A handler ends."""
        path = self.running[name]
        worker = self.workers[path]
        self.ends[name] = how
        self.counts["handled" if how == "reply" else "abandoned" if how == "left" else "failed"] += 1
        worker.job = None
        worker.down = how == "crash"
        if worker.leaving:
            del self.workers[path]

    def leave(self, name: int, how: str = "left") -> None:
        """A caller leaves, or takes its message back."""
        self.ends[name] = how
        if name in self.parked:
            self.parked.remove(name)
        elif name in self.queue:
            self.queue.remove(name)
            self.counts["abandoned"] += 1
            self.make_room()
        else:
            self.finish(name, how)

    def resize(self, size: int) -> int:
        """Retire workers, those that are down first and then the idle ones; return how many are to come."""
        staying = {path: worker for path, worker in self.workers.items() if not worker.leaving}
        ordered = sorted(staying, key=lambda path: (not staying[path].down, staying[path].job is not None))
        for path in ordered[: max(0, len(staying) - size)]:
            self.workers[path].leaving = True
            if self.workers[path].job is None:
                del self.workers[path]
        return max(0, size - len(staying))

    def stop(self, mode: str) -> None:
        """Refuse what comes and what waits for room; `now` and `kill` end what waits, `kill` what runs."""
        self.stopped = mode
        gone = self.parked + (self.queue if mode != "drain" else [])
        self.counts["rejected"] += len(gone) - len(self.parked)
        self.ends.update(dict.fromkeys(gone, "stopped"))
        self.parked = []
        if mode != "drain":
            self.queue = []
        if mode == "kill":
            for name in list(self.running):
                self.finish(name, "stopped")


# --- the real one ----------------------------------------------------------------------------------------


@attrs.define(eq=False)
class Stage:
    """A real pool, and everybody who sends to it.

    Attributes:
        pool: the pool.
        nursery: where senders run.
        gates: for each message that has begun, how it is to end.
        where: who handles each message.
        begun: what was begun, in order.
        ends: how asks and submits ended.
        scopes: of the senders.
        hows: how each message was sent.
    """

    pool: Pool[Role] = attrs.field(init=False)
    nursery: trio.Nursery = attrs.field(init=False)
    gates: dict[int, trio.MemorySendChannel[str]] = attrs.field(factory=dict)
    where: dict[int, str] = attrs.field(factory=dict)
    begun: list[int] = attrs.field(factory=list)
    ends: dict[int, str] = attrs.field(factory=dict)
    scopes: dict[int, trio.CancelScope] = attrs.field(factory=dict)
    hows: dict[int, str] = attrs.field(factory=dict)
    pendings: dict[int, Pending[int]] = attrs.field(factory=dict)

    async def send(self, name: int) -> None:
        """Be a sender."""
        with trio.CancelScope() as scope:
            self.scopes[name] = scope
            try:
                if self.hows[name] == "tell":
                    await self.pool.ref.tell(Job(name))
                    return
                if self.hows[name] == "ask":
                    assert await self.pool.ref.ask(Job(name)) == name
                else:
                    pending = self.pendings[name] = await self.pool.ref.submit(Job(name))
                    assert await pending == name
                self.ends[name] = "reply"
            except Declared:
                self.ends[name] = "declare"
            except HandlerCrashed:
                self.ends[name] = "crash"
            except ActorStopped as error:
                self.ends[name] = "stopped" if error.started is (name in self.begun) else "a lie"
            except Withdrawn:
                self.ends[name] = "withdrawn"
        if scope.cancelled_caught:
            self.ends[name] = "left"


class JobActor(Actor[Role]):
    """Ends its handlers as it is told."""

    declares = (Declared,)

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    @handles(Job)
    async def job(self, message: Job) -> int:
        stage, name = self.stage, message.name
        assert name not in stage.begun, "begun twice"
        stage.begun.append(name)
        stage.where[name] = self.context.path
        stage.gates[name], gate = trio.open_memory_channel[str](1)
        with gate, stage.gates[name]:
            how = await gate.receive()
        if how == "crash":
            raise RuntimeError("crash")
        if how == "declare":
            raise Declared
        return name


def names(envelopes: Iterable[Any]) -> list[int]:
    """Return which messages these are."""
    return [envelope.message.name for envelope in envelopes]


@attrs.define(eq=False)
class Player:
    """Plays a program in lockstep with the model."""

    capacity: int
    workers: int
    clock: trio.testing.MockClock = attrs.field(factory=trio.testing.MockClock)
    stage: Stage = attrs.field(factory=Stage)
    model: Model = attrs.field(init=False)
    tree: Supervisor = attrs.field(init=False)
    coming: list[int] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.model = Model(self.capacity)

    async def play(self, steps: list[tuple[str, Any]]) -> None:
        """Play all of it, and leave."""
        before = trio.lowlevel.current_statistics().tasks_living
        async with trio.open_nursery() as self.stage.nursery:
            intensity = Intensity(max_restarts=10_000)
            async with open_supervisor("tree", rng=random.Random(0), slow_after=float("inf")) as tree:
                spec = PoolSpec(
                    name="pool",
                    workers=self.workers,
                    capacity=self.capacity,
                    policy=POLICY,
                    intensity=intensity,
                )
                self.stage.pool = await start_pool(tree, spec, lambda: JobActor(self.stage))
                self.add_workers()
                self.tree = tree
                try:
                    for step, argument in steps:
                        getattr(self, step)(argument)
                        await self.compare()
                    await self.finish_all()
                finally:
                    self.clock.autojump_threshold = 0  # whatever is left is ended by the tree's grace
        assert set(self.model.ends) >= set(self.stage.ends)
        assert self.stage.pool.ref.stopped
        assert trio.lowlevel.current_statistics().tasks_living == before

    async def finish_all(self) -> None:
        """Let everything end."""
        while self.model.running or self.model.queue or any(w.down for w in self.model.workers.values()):
            self.later(None)
            await self.compare()
            for name in self.model.running:
                self.finish((0, "reply")) if name in self.model.running else None
                await self.compare()

    def add_workers(self) -> None:
        """Take over the names of new workers."""
        for name in self.stage.pool._workers:
            self.model.workers.setdefault(f"tree/pool/{name}", Worker())

    async def compare(self) -> None:
        """Let everything run, and hold the pool against the model."""
        await trio.testing.wait_all_tasks_blocked()
        stage, model = self.stage, self.model
        if model.stopped is None:
            self.add_workers()
        for name in self.order_of_arrival():
            model.send(name)
            model.settle(stage.where)
        model.settle(stage.where)
        seen = stage.pool.ref.statistics()
        assert stage.begun == model.begun
        assert names(stage.pool._mailbox.line) == model.queue
        assert (seen.queued, seen.parked) == (len(model.queue), len(model.parked))
        assert seen.running == len(model.running)
        assert {name: getattr(seen, name) for name in model.counts} == model.counts
        awaited = {
            name: end for name, end in model.ends.items() if name in stage.ends or stage.hows[name] != "tell"
        }
        assert stage.ends == awaited

    def order_of_arrival(self) -> list[int]:
        """Return the messages of this step in the order in which the pool has them."""
        coming, self.coming = self.coming, []
        box = self.stage.pool._mailbox
        parked = [name for block in box._parked.values() for name in names(block)]
        there = [*self.stage.begun, *names(box.line), *parked]
        return sorted(coming, key=lambda name: there.index(name) if name in there else -1)

    # --- steps -------------------------------------------------------------------------------------------

    def send(self, hows: list[str]) -> None:
        """Send messages, all in the same tick."""
        names = [len(self.stage.hows) + number for number in range(len(hows))]
        for name, how in zip(names, hows, strict=True):
            self.stage.hows[name] = how
            self.stage.nursery.start_soon(self.stage.send, name)
        self.coming = names

    def finish(self, what: tuple[int, str]) -> None:
        """End a handler."""
        which, how = what
        running = list(self.model.running)
        if running:
            name = running[which % len(running)]
            self.stage.gates[name].send_nowait(how)
            self.model.finish(name, how)

    def cancel(self, which: int) -> None:
        """Have a sender leave: an ask goes with its caller, another message only while it waits for room."""
        asks = [n for n in self.stage.scopes if self.stage.hows[n] == "ask" and n not in self.model.ends]
        waiting = [n for n in self.model.parked if self.stage.hows[n] != "ask"]
        names = sorted([*asks, *waiting])
        if names:
            name = names[which % len(names)]
            self.stage.scopes[name].cancel()
            self.model.leave(name)
            if self.stage.hows[name] == "tell":
                self.stage.ends.setdefault(name, "left")

    def withdraw(self, which: int) -> None:
        """Take a submitted message back, if it has not begun."""
        names = sorted(name for name in self.stage.pendings if name not in self.model.ends)
        if names:
            name = names[which % len(names)]
            self.stage.nursery.start_soon(self.take_back, name, name in self.model.queue)
            if name in self.model.queue:
                self.model.leave(name, "withdrawn")

    async def take_back(self, name: int, expected: bool) -> None:
        assert await self.stage.pendings[name].withdraw() is expected

    def later(self, _: object) -> None:
        """Let a second pass: crashed workers are started again."""
        self.clock.jump(1)
        for worker in self.model.workers.values():
            worker.down = False

    def resize(self, size: int) -> None:
        """Change the number of workers."""
        if self.model.stopped is None:
            self.model.resize(size)
            self.stage.nursery.start_soon(self.stage.pool.resize, size)

    def stop(self, mode: Any) -> None:
        """Stop the pool, once."""
        if self.model.stopped is None:
            self.model.stop(mode)
            self.stage.nursery.start_soon(self.tree.stop_child, "pool", mode, 1e9)


# --- programs --------------------------------------------------------------------------------------------


class Programs(RuleBasedStateMachine):
    """Makes a program, one step per rule, and plays it when it is complete."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[str, Any]] = []
        self.player: Player | None = None

    @initialize(capacity=st.integers(1, 4), workers=st.integers(1, 3), schedule=st.random_module())
    def begin(self, capacity: int, workers: int, schedule: object) -> None:
        self.player = Player(capacity, workers)

    @rule(hows=st.lists(HOWS, min_size=1, max_size=3))
    def send(self, hows: list[str]) -> None:
        self.steps.append(("send", hows))

    @rule(ends=st.lists(st.tuples(st.integers(0, 3), HOW_IT_ENDS), min_size=1, max_size=3))
    def finish(self, ends: list[tuple[int, str]]) -> None:
        self.steps += [("finish", end) for end in ends]

    @rule(step=st.sampled_from(["cancel", "withdraw"]), which=st.integers(0, 5))
    def leave(self, step: str, which: int) -> None:
        self.steps.append((step, which))

    @rule()
    def later(self) -> None:
        self.steps.append(("later", None))

    @rule(size=st.integers(1, 4))
    def resize(self, size: int) -> None:
        self.steps.append(("resize", size))

    @rule(mode=st.sampled_from(["drain", "now", "kill"]))
    def stop(self, mode: str) -> None:
        if len(self.steps) > 12:  # or most programs would be over before much has happened
            self.steps.append(("stop", mode))

    def teardown(self) -> None:
        if self.player is not None:
            trio.run(self.player.play, self.steps, clock=self.player.clock)


def play(examples: int) -> None:
    """Play so many programs."""
    run_state_machine_as_test(
        Programs,
        settings=settings(max_examples=examples, stateful_step_count=25, suppress_health_check=SLOW),
    )


pytestmark = [pytest.mark.scenario(49), pytest.mark.rule("K2", "M3", "M4", "O1", "S8", "D1")]


@pytest.mark.requirement("R118")
def test_a_pool_is_a_queue_with_workers() -> None:
    """Sends, leavings, crashes, restarts, resizes and stops under 200 programs: the pool is where the model is."""
    play(200)


@pytest.mark.slow
def test_the_same_under_many_more_programs(slow_count: Callable[[int], int]) -> None:
    """The same for two thousand programs and schedules."""
    play(slow_count(2000))
