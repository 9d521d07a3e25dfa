"""Storms of restarts, streaks that outlast the window, budgets, and starts that fail."""

# What is bound inside `pytest.raises` is looked at after it.
# pyright: reportPossiblyUnboundVariable=false

from __future__ import annotations

import random
import re
from typing import Any

import pytest
import trio
import trio.testing

from tinker_actors.errors import (
    ActorStopped,
    HandlerCrashed,
    RestartIntensityExceeded,
)
from tinker_actors.kernel import ActorEnded, ActorReady, Backoff, Down, Intensity, RestartPolicy


def lives(stage: Any, path: str = "tree/a") -> list[int]:
    return [
        event.incarnation for event in stage.events if isinstance(event, ActorReady) and event.actor == path
    ]


def crash_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    lines = [record.getMessage() for record in caplog.records]
    return [line for line in lines if re.match(r"tree/a#\d+ crashed", line)]


async def crash(ref: Any, stage: Any, *, after: float = 0.0, error: Exception | None = None) -> None:
    """Make an actor crash when its incarnation has run for so long, and see the crash."""
    error = ValueError("crash") if error is None else error

    async def run(_: Any) -> None:
        await trio.sleep(after)
        raise error

    with pytest.raises(HandlerCrashed) as caught:
        await ref.ask(stage.Do(run))
    assert caught.value.__cause__ is error
    assert caught.value.started is True
    await trio.testing.wait_all_tasks_blocked()


@pytest.mark.scenario(25)
@pytest.mark.rule("S5", "S7", "S11", "A2", "W1", "T4")
@pytest.mark.parametrize("jitter", [0.0, 0.25])
async def test_a_storm_of_restarts_ends_and_escalates(
    stage: Any, books: Any, jitter: float, caplog: pytest.LogCaptureFixture, autojump_clock: trio.abc.Clock
) -> None:
    """Each message crashes it: four restarts after growing delays, then the failure leaves the tree."""
    policy = RestartPolicy(max_restarts=4, backoff=Backoff(base=1.0, maximum=6.0, jitter=jitter))
    chance = random.Random(7)
    delays = [min(6.0, 2.0**n) * (1 - jitter * chance.random()) for n in range(4)]
    assert sorted(delays) == delays
    errors = [ValueError(f"crash {number}") for number in range(8)]
    with pytest.raises(RestartIntensityExceeded, match="tree/a crashed 5 times") as caught:
        async with stage.open(rng=random.Random(7)) as tree:
            ref = await books.start(tree, policy=policy)
            bystander = await books.start(tree, "later", stopping=lambda *_: stage.say("stopped")(None))
            pendings = [ref.submit_nowait(stage.Do(stage.fail(error))) for error in errors[:7]]
            told = stage.Do(stage.fail(errors[7]))
            ref.tell_nowait(told)
            await trio.sleep(10_000)
    assert trio.current_time() == pytest.approx(sum(delays))
    assert stage.delays == [*[pytest.approx(delay) for delay in delays], None]
    assert lives(stage) == [1, 2, 3, 4, 5]
    assert len(crash_lines(caplog)) == 5
    assert caught.value.__cause__ is errors[4]
    assert caught.value.history == tuple(f"incarnation {n + 1}: {errors[n]!r}" for n in range(5))
    for number, pending in enumerate(pendings):
        assert pending.settled
        with pytest.raises(HandlerCrashed if number < 5 else ActorStopped) as lost:
            await pending
        assert lost.value.started is (number < 5)
        assert lost.value.__cause__ is errors[min(number, 4)]
    assert (await ref.wait_stopped(), await bystander.wait_stopped()) == (
        Down("tree/a", "failed", errors[4]),
        Down("tree/later", "stopped"),
    )
    assert stage.log == ["stopped"]
    assert dict(tree.dead_letters.counts) == {"stopped": 1}
    assert books.counts(ref) == {"admitted": 8, "failed": 5, "rejected": 3}


@pytest.mark.scenario(25)
@pytest.mark.rule("S5", "S7")
async def test_a_storm_may_be_confined_to_the_child(
    stage: Any, books: Any, autojump_clock: trio.abc.Clock
) -> None:
    """With `on_exhausted="fail"` the same storm ends the child alone, and its siblings and the tree go on."""
    policy = RestartPolicy(max_restarts=2, backoff=Backoff(base=1.0, maximum=6.0, jitter=0.0))
    async with stage.open() as tree:
        ref = await books.start(tree, policy=policy, on_exhausted="fail")
        sibling = await books.start(tree, "b")
        for number in range(3):
            await crash(ref, stage, error=ValueError(str(number)))
        with trio.fail_after(10):
            down = await ref.wait_stopped()
        assert (down.path, down.reason, str(down.cause)) == ("tree/a", "failed", "2")
        assert await sibling.ask(stage.Do(stage.say("alive"))) == "alive"
        assert trio.current_time() == 3.0
    assert stage.delays == [1.0, 2.0, None]
    assert books.counts(ref) == {"admitted": 3, "failed": 3}


@pytest.mark.scenario(26)
@pytest.mark.rule("S6", "S7")
async def test_crashes_slower_than_the_window_keep_the_streak(
    stage: Any, books: Any, autojump_clock: trio.abc.Clock
) -> None:
    """A child healthy for 6 seconds at a time is never given up with a window of 5, but its delays grow."""
    backoff = Backoff(base=1.0, maximum=40.0, jitter=0.0)
    policy = RestartPolicy(max_restarts=1, period=5.0, backoff=backoff, reset_after=7.0)
    async with stage.open(intensity=Intensity(max_restarts=1, period=5.0)) as tree:
        ref = await books.start(tree, policy=policy)
        for _ in range(8):
            await crash(ref, stage, after=6)
        assert stage.delays == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 40.0, 40.0]
        assert trio.current_time() == 8 * 6 + sum(stage.delays[:7])
        await crash(ref, stage, after=7)  # healthy for long enough: from the base again
        assert stage.delays[8:] == [1.0]
    assert lives(stage) == list(range(1, 10))
    assert books.counts(ref) == {"admitted": 9, "failed": 9}


@pytest.mark.scenario(26)
@pytest.mark.rule("S5", "S6")
@pytest.mark.parametrize("whose", ["child", "supervisor"])
async def test_backoff_does_not_carry_crashes_out_of_the_window(
    stage: Any, books: Any, whose: str, autojump_clock: trio.abc.Clock
) -> None:
    """Crashes 100 seconds apart, of which 1 was running time, are crashes 1 second apart to a window of 5."""
    budget = 100 if whose == "supervisor" else 2
    backoff = Backoff(base=99.0, maximum=99.0, jitter=0.0)
    policy = RestartPolicy(max_restarts=budget, period=5.0, backoff=backoff)
    intensity = Intensity(max_restarts=2 if whose == "supervisor" else 100, period=5.0)
    with pytest.raises(RestartIntensityExceeded) as caught:
        async with stage.open(intensity=intensity) as tree:
            ref = await books.start(tree, policy=policy)
            for _ in range(10):
                await crash(ref, stage, after=1)
    assert stage.delays == [99.0, 99.0, None]
    assert len(caught.value.history) == 3
    assert trio.current_time() == 2 * 99.0 + 3 * 1.0
    assert books.counts(ref) == {"admitted": 3, "failed": 3}


@pytest.mark.scenario(27)
@pytest.mark.rule("S3", "S5")
@pytest.mark.parametrize("strategy", ["one_for_one", "dynamic"])
async def test_five_siblings_crash_once_each(
    stage: Any, books: Any, strategy: str, autojump_clock: trio.abc.Clock
) -> None:
    """Each has its own allowance of one, and the supervisor counts all five; its own allowance ends at six."""
    policy = RestartPolicy(max_restarts=1, backoff=Backoff(base=1.0, jitter=0.0))
    with pytest.raises(RestartIntensityExceeded) as caught:
        async with stage.open(intensity=Intensity(max_restarts=5), strategy=strategy) as tree:
            refs = [await books.start(tree, name, policy=policy) for name in "abcde"]
            sixth = await books.start(tree, "f", policy=policy)
            for ref in refs:
                await crash(ref, stage)
            await trio.sleep(2)
            assert stage.delays == [1.0] * 5
            picture = tree.snapshot()
            assert picture.restarts == 5
            seen = [(child.life, child.incarnation, child.restarts) for child in picture.children]
            assert seen == [("running", 2, 1)] * 5 + [("running", 1, 0)]
            for ref in refs:
                assert await ref.ask(stage.Do(stage.say(ref.path))) == ref.path
            await crash(sixth, stage)
            await trio.sleep(10_000)
    assert caught.value.actor == "tree/f"
    assert trio.current_time() == 2.0
    assert len([event for event in stage.events if isinstance(event, ActorEnded)]) == 6
    for ref in refs:
        assert books.counts(ref) == {"admitted": 2, "handled": 1, "failed": 1}
