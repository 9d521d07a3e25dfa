from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from tinker_actors.errors import (
    ActorStopped,
    HandlerCrashed,
    RestartIntensityExceeded,
)
from tinker_actors.kernel import ActorEnded, ActorReady, Backoff, RestartPolicy
from tinker_actors.kernel.lifecycle import Life

QUICK = RestartPolicy(backoff=Backoff(base=1.0, maximum=8.0, jitter=0.0), max_restarts=3)


def life(tree: Any, name: str = "a") -> Life:
    return tree.children[name].life


def readies(stage: Any) -> list[int]:
    return [event.incarnation for event in stage.events if isinstance(event, ActorReady)]


async def crash(ref: Any, stage: Any, error: Exception | None = None) -> None:
    """Make an actor crash and see it happen."""
    with pytest.raises(HandlerCrashed):
        await ref.ask(stage.Do(stage.fail(error or ValueError("crash"))))
    await trio.testing.wait_all_tasks_blocked()


# --- restarts -----------------------------------------------------------------------------------------------


@pytest.mark.rule("S8")
@pytest.mark.scenario(4)
async def test_queued_messages_survive_a_crash_in_order(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Fifty asks that wait behind a crash are answered by the second incarnation, in order of admission."""
    answers: list[tuple[int, int]] = []

    def reply(number: int) -> Any:
        async def run(actor: Any) -> tuple[int, int]:
            await trio.lowlevel.checkpoint()
            answers.append((actor.context.call.seq, actor.context.incarnation))
            return number, actor.context.incarnation

        return run

    async def ask(ref: Any, number: int) -> None:
        assert await ref.ask(stage.Do(reply(number))) == (number, 2)

    async with stage.open() as tree:
        ref = await stage.start(tree)
        async with trio.open_nursery() as nursery:
            bad = await ref.submit(stage.Do(stage.fail(ValueError("x"))))
            for number in range(50):
                nursery.start_soon(ask, ref, number)
            with pytest.raises(HandlerCrashed):
                await bad
    assert answers == [(seq, 2) for seq in range(1, 51)]


@pytest.mark.rule("S5")
@pytest.mark.scenario(25)
async def test_a_storm_of_crashes_ends(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Exactly `max_restarts` restarts, with growing delays; then the actor is given up and says why."""
    policy = RestartPolicy(backoff=Backoff(base=1.0, maximum=3.0, jitter=0.25), max_restarts=4)
    lost: list[BaseException] = []
    with pytest.raises(RestartIntensityExceeded, match="tree/a crashed 5 times") as caught:
        async with stage.open() as tree:
            ref = await stage.start(tree, policy=policy)
            for number in range(5):
                await ref.tell(stage.Do(stage.fail(ValueError(number))))
            queued = await ref.submit(stage.Do(stage.say("never")))
            with trio.CancelScope(shield=True):
                try:
                    await queued
                except ActorStopped as error:
                    lost.append(error)
            await trio.sleep_forever()
    assert readies(stage) == [1, 2, 3, 4, 5]
    *delays, last = stage.delays
    assert last is None
    assert delays == sorted(delays)
    assert all(delay <= 3.0 for delay in delays)
    assert caught.value.actor == "tree/a"
    assert len(caught.value.history) == 5
    assert caught.value.history[0] == "incarnation 1: ValueError(0)"
    assert isinstance(caught.value.__cause__, ValueError)
    assert caught.value.__cause__.args == (4,)
    (error,) = lost
    assert (error.started, error.__cause__) == (False, caught.value.__cause__)
    assert stage.events[-1] == ActorEnded("tree/a", 5, failed=True)


@pytest.mark.rule("S7")
async def test_backoff_waits_as_decided(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Between a crash and the next life lies the delay that was announced; health brings the base back."""
    policy = RestartPolicy(
        backoff=Backoff(base=2.0, maximum=60.0, jitter=0.0), max_restarts=9, reset_after=10
    )
    async with stage.open() as tree:
        ref = await stage.start(tree, policy=policy)
        for expected in (2.0, 4.0, 8.0):
            start = trio.current_time()
            await crash(ref, stage)
            assert life(tree) is Life.RESTARTING
            await ref.ask(stage.Do(stage.say("alive")))
            assert trio.current_time() == start + expected
        await trio.sleep(11)
        await crash(ref, stage)
    assert stage.delays == [2.0, 4.0, 8.0, 2.0]


@pytest.mark.rule("S6")
async def test_backoff_and_start_do_not_count_as_running(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Crashes far apart on the wall but close together in running time exhaust the window."""
    policy = RestartPolicy(backoff=Backoff(base=100.0, maximum=100.0), max_restarts=2, period=10.0)
    with pytest.raises(RestartIntensityExceeded):
        async with stage.open() as tree:
            ref = await stage.start(tree, policy=policy)
            for _ in range(3):
                await crash(ref, stage)  # waits for the next life, and ends it as soon as it has begun
    assert readies(stage) == [1, 2, 3]


async def test_the_history_is_that_of_the_window(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """What lies longer back than the period is forgotten: an actor that crashes once an hour keeps no archive."""
    policy = RestartPolicy(max_restarts=2, period=60.0)
    async with stage.open() as tree:
        ref = await stage.start(tree, policy=policy, on_exhausted="fail")
        slot = tree.children["a"]
        for _ in range(10):
            await trio.sleep(50)
            await crash(ref, stage)
            await ref.ask(stage.Do(stage.say("alive")))
        assert len(slot.record.history) == 2
        assert slot.record.history[-1].startswith("incarnation 10")
        assert slot.failure.__traceback__ is None


@pytest.mark.rule("S2")
@pytest.mark.scenario(29)
async def test_a_failing_start_counts_and_keeps_the_queue(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Two restarts whose start fails are backed off and counted; the third serves the queue in order."""

    async def start(actor: Any) -> None:
        await trio.lowlevel.checkpoint()
        if actor.context.incarnation in (2, 3):
            raise ValueError(f"start {actor.context.incarnation}")

    async with stage.open() as tree:
        ref = await stage.start(tree, starting=start, policy=QUICK)
        begin = trio.current_time()
        await ref.tell(stage.Do(stage.fail(ValueError("crash"))))
        for number in range(5):
            await ref.tell(stage.Do(stage.say(number)))
        await ref.ask(stage.Do(stage.say("last")))
        assert trio.current_time() == begin + 1 + 2 + 4
    assert stage.log == [0, 1, 2, 3, 4, "last"]
    assert stage.delays == [1.0, 2.0, 4.0]
    assert readies(stage) == [1, 4]


@pytest.mark.rule("S4")
@pytest.mark.parametrize("restart", ["permanent", "transient", "temporary"])
async def test_a_temporary_child_s_crash_is_its_own(
    stage: Any, restart: str, autojump_clock: trio.abc.Clock
) -> None:
    """A temporary child is not restarted, and that is no reason for its supervisor to fail."""
    async with stage.open() as tree:
        ref = await stage.start(tree, policy=RestartPolicy(restart=restart))
        await crash(ref, stage)
        await trio.sleep(10)
        assert ref.stopped is (restart == "temporary")
        if ref.stopped:
            with pytest.raises(ActorStopped, match="has failed"):
                await ref.ask(stage.Do(stage.say(1)))
            await stage.start(tree)
        else:
            assert await ref.ask(stage.Do(stage.say(1))) == 1


async def test_an_exhausted_child_may_fail_alone(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """With `on_exhausted="fail"` its siblings and its supervisor live on; who sends to it gets the cause."""
    error = ValueError("last")
    async with stage.open() as tree:
        ref = await stage.start(tree, policy=RestartPolicy(max_restarts=0), on_exhausted="fail")
        sibling = await stage.start(tree, "b")
        await crash(ref, stage, error)
        assert ref.stopped
        with pytest.raises(ActorStopped, match="has failed") as caught:
            await ref.ask(stage.Do(stage.say(1)))
        assert caught.value.__cause__ is error
        assert await sibling.ask(stage.Do(stage.say(1))) == 1


@pytest.mark.rule("N1")
@pytest.mark.scenario(37)
async def test_two_crashes_in_one_tick_are_two_restarts(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Siblings that crash together are each restarted, and nobody else is touched."""
    async with stage.open() as tree:
        refs = [await stage.start(tree, name) for name in "abc"]
        for ref in refs[:2]:
            await ref.tell(stage.Do(stage.fail(ValueError("x"))))
        for ref in refs:
            assert await ref.ask(stage.Do(stage.say("alive"))) == "alive"
    assert len(stage.delays) == 2
    assert sorted(event.actor for event in stage.events if isinstance(event, ActorReady)) == sorted(
        ["tree/a", "tree/b", "tree/c", "tree/a", "tree/b"]
    )
