"""Supervisors that crash themselves, by a defect planted in what they decide with."""

# What is bound inside `pytest.raises` is looked at after it.
# pyright: reportPossiblyUnboundVariable=false

from __future__ import annotations

import random
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tinker_actors.errors import (
    ActorStopped,
    HandlerCrashed,
    InFlightLost,
    RestartIntensityExceeded,
)
from tinker_actors.kernel import ActorReady, Backoff, Intensity, RestartPolicy

POLICY = RestartPolicy(max_restarts=2, backoff=Backoff(base=10.0, maximum=40.0, jitter=0.0))


class Planted(Exception):
    """The defect."""


class BrokenChance(random.Random):
    """A source of chance that raises the next few times: a defect inside the supervisor's decision."""

    faults = 0
    raised = 0

    def random(self) -> float:
        if self.faults:
            self.faults -= 1
            self.raised += 1
            raise Planted(f"defect {self.raised}")
        return 0.0


@attrs.define
class Branch:
    """A tree with actors a, b, c in a branch, and d in a supervisor below it, that note starts and stops."""

    stage: Any
    books: Any
    chance: BrokenChance = attrs.field(factory=BrokenChance)
    refs: dict[str, Any] = attrs.field(factory=dict)
    log: list[str] = attrs.field(factory=list)
    tasks: set[str] = attrs.field(factory=set)
    stop_takes: float = 0.0

    async def beside(self, name: str) -> None:
        self.tasks.add(name)
        try:
            await trio.sleep_forever()
        finally:
            self.tasks.discard(name)

    async def start(self, supervisor: Any, name: str) -> None:
        async def start(actor: Any) -> None:
            await trio.lowlevel.checkpoint()
            self.log.append(f"start {name}")
            actor.context.spawn(self.beside, f"{name}{actor.context.incarnation}")

        async def stop(_: Any, ending: str) -> None:
            await trio.sleep(self.stop_takes)
            self.log.append(f"{ending} {name}")

        self.refs[name] = await self.books.start(
            supervisor, name, starting=start, stopping=stop, policy=POLICY
        )

    async def grow(self, parent: Any, **settings: Any) -> None:
        """Start all of them below `parent`, and clear the log."""
        branch = parent.start_supervisor("branch", policy=POLICY, **settings)
        for name in "ab":
            await self.start(branch, name)
        await self.start(branch.start_supervisor("below", policy=POLICY), "d")
        await self.start(branch, "c")
        self.log.clear()

    def keep_busy(self, names: str) -> dict[str, tuple[Any, Any]]:
        """Give each actor a long job and an ask in line."""
        jobs = {}
        for name in names:
            job, in_line = self.stage.Do(self.stage.sleep(1000)), self.stage.Do(self.stage.say(name))
            jobs[name] = (self.refs[name].submit_nowait(job), self.refs[name].submit_nowait(in_line))
        return jobs

    async def crash(self, faults: int) -> None:
        """Crash a while chance is broken."""
        self.chance.faults = faults
        with pytest.raises(HandlerCrashed):
            await self.refs["a"].ask(self.stage.Do(self.stage.fail(ValueError("crash"))))
        await trio.testing.wait_all_tasks_blocked()


@pytest.fixture
def branch(stage: Any, books: Any) -> Branch:
    return Branch(stage, books)


def mentions(caplog: pytest.LogCaptureFixture, text: str) -> int:
    return sum(text in f"{record.getMessage()} {record.exc_info}" for record in caplog.records)


@pytest.mark.scenario(33)
@pytest.mark.rule("S3", "S11", "A2", "A3", "N5", "S8", "S9")
@pytest.mark.parametrize(
    ("depth", "faults"),
    [(0, 1), (1, 1), (1, 2), (3, 3)],
    ids=["below the root", "below a supervisor that works", "below one that breaks too", "four in a row"],
)
async def test_a_supervisor_breaks_and_its_parent_starts_the_branch_again(
    stage: Any,
    branch: Any,
    depth: int,
    faults: int,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: trio.abc.Clock,
) -> None:
    """All its children stop in reverse and start in order, what ran is lost, what was in line is handled."""
    async with stage.open(rng=branch.chance) as tree:
        elder = await branch.books.start(tree, "elder")
        parent = tree
        for number in range(depth):
            parent = parent.start_supervisor(f"level{number}", policy=POLICY)
        await branch.grow(parent)
        jobs = branch.keep_busy("bcd")
        await trio.testing.wait_all_tasks_blocked()
        begin = trio.current_time()
        await branch.crash(faults)
        in_line = branch.refs["a"].submit_nowait(stage.Do(stage.say("a")))
        await trio.testing.wait_all_tasks_blocked()
        assert branch.log == ["crash a", "restart c", "restart d", "restart b"]
        assert branch.tasks == set()
        for job, waiting in jobs.values():
            assert (job.settled, waiting.settled) == (True, False)
            with pytest.raises(InFlightLost) as lost:
                await job
            assert lost.value.started is True
        assert [await in_line, *[await jobs[name][1] for name in "bdc"]] == ["a", "b", "d", "c"]
        await trio.testing.wait_all_tasks_blocked()
        assert trio.current_time() - begin == 10.0
        assert branch.log[4:] == ["start a", "start b", "start d", "start c"]
        assert branch.tasks == {"a2", "b2", "c2", "d2"}
        picture = tree.snapshot()
        lives = {name: picture.find(ref.path).incarnation for name, ref in branch.refs.items()}
        assert lives == dict.fromkeys("abcd", 2)
        assert picture.find(elder.path).incarnation == 1
        assert branch.chance.raised == faults
        assert picture.restarts == (1 if faults == depth + 1 or depth == 0 else 0)
    assert branch.tasks == set()
    assert all(ref.stopped for ref in branch.refs.values())
    assert branch.books.counts(branch.refs["b"]) == {"admitted": 2, "handled": 1, "failed": 1}
    for number in range(1, faults + 1):
        assert mentions(caplog, f"Planted('defect {number}')") == 1


@pytest.mark.scenario(33)
@pytest.mark.rule("S1", "S11", "A2", "A3", "N5", "D3")
@pytest.mark.parametrize("depth", [0, 1, 2])
async def test_the_root_breaks_and_its_failure_leaves_the_tree(
    stage: Any, branch: Any, depth: int, caplog: pytest.LogCaptureFixture, autojump_clock: trio.abc.Clock
) -> None:
    """Every supervisor up to the root breaks: all actors stop in reverse, all asks are settled, nothing is left."""
    before = trio.lowlevel.current_statistics().tasks_living
    with pytest.raises(Planted, match=f"defect {depth + 1}"):
        async with stage.open(rng=branch.chance, grace=5) as tree:
            parent = tree
            for number in range(depth):
                parent = parent.start_supervisor(f"level{number}", policy=POLICY)
            for name in "abc":
                await branch.start(parent, name)
            branch.log.clear()
            jobs = branch.keep_busy("bc")
            await trio.testing.wait_all_tasks_blocked()
            begin = trio.current_time()
            in_line = [
                branch.refs["a"].submit_nowait(stage.Do(stage.fail(ValueError("crash")))),
                branch.refs["a"].submit_nowait(stage.Do(stage.say("never"))),
            ]
            branch.chance.faults = depth + 1
            await trio.sleep(10_000)
    assert trio.current_time() - begin == 5.0
    assert branch.log == ["crash a", "kill c", "kill b"]
    assert branch.tasks == set()
    assert trio.lowlevel.current_statistics().tasks_living == before
    ends = [type(pending.outcome.error) for pair in (in_line, *jobs.values()) for pending in pair]
    assert ends[0] is HandlerCrashed
    assert ends[2::2] == [InFlightLost] * 2
    assert all(issubclass(end, ActorStopped) for end in ends[1::2])
    started = [pending.outcome.error.started for pair in (in_line, *jobs.values()) for pending in pair]
    assert started == [True, False] * 3
    assert all(ref.stopped for ref in branch.refs.values())
    assert [event.incarnation for event in stage.events if isinstance(event, ActorReady)] == [1, 1, 1]
    for number in range(1, depth + 1):  # the last one leaves; of the others only the log tells
        assert mentions(caplog, f"Planted('defect {number}')") == 1


@pytest.mark.scenario(33)
@pytest.mark.rule("S5", "S6")
async def test_a_supervisor_that_breaks_again_and_again_is_given_up(
    stage: Any, branch: Any, autojump_clock: trio.abc.Clock
) -> None:
    """Its own policy bounds how often it is started again; then its last defect is the cause of the end."""
    with pytest.raises(RestartIntensityExceeded, match="tree/branch crashed 3 times") as caught:
        async with stage.open(rng=branch.chance, intensity=Intensity(max_restarts=2)) as tree:
            await branch.grow(tree)
            branch.stop_takes = 1.0
            for _ in range(3):
                await branch.crash(1)
                await trio.sleep(30)
            await trio.sleep(10_000)
    assert repr(caught.value.__cause__) == "Planted('defect 3')"
    assert caught.value.history == tuple(f"tree/branch: Planted('defect {n}')" for n in (1, 2, 3))
    assert trio.current_time() == 60.0 + 4 * branch.stop_takes
    once = ["crash a", "restart c", "restart d", "restart b", "start a", "start b", "start d", "start c"]
    assert branch.log == [*once, *once, "crash a", "now c", "now d", "now b"]
    assert branch.tasks == set()
