from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from tinker_actors.errors import (
    ActorStopped,
    ActorStopping,
    HandlerCrashed,
    InFlightLost,
    InputError,
    RestartIntensityExceeded,
    ServiceClosing,
    StartFailed,
)
from tinker_actors.kernel import ActorRef, Backoff, PoolSpec, RestartPolicy, start_pool


async def open_pool(stage: Any, tree: Any, workers: int = 3, **settings: Any) -> ActorRef[Any]:
    factory = settings.pop("factory", stage.PuppetActor)
    return (await start_pool(tree, PoolSpec(name="pool", workers=workers, **settings), factory)).ref


@pytest.mark.rule("K2")
async def test_workers_share_one_line(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Messages are begun in order of admission by whoever is free, as many at once as there are places."""
    async with stage.open() as tree:
        ref = await open_pool(stage, tree, workers=3, concurrency=2)
        assert ref.path == "tree/pool"
        begin = trio.current_time()
        pendings = [await ref.submit(stage.Do(stage.sleep(1, number))) for number in range(18)]
        assert [await pending for pending in pendings] == list(range(18))
        assert trio.current_time() == begin + 3
    assert [number for kind, number in stage.log if kind == "begin"] == list(range(18))


@pytest.mark.rule("K2")
async def test_a_slow_worker_holds_nobody_up(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """While one worker is busy for long, the others serve all the rest."""
    async with stage.open() as tree:
        ref = await open_pool(stage, tree, workers=2)
        slow = await ref.submit(stage.Do(stage.sleep(100, "slow")))
        begin = trio.current_time()
        for number in range(10):
            assert await ref.ask(stage.Do(stage.sleep(1, number))) == number
        assert trio.current_time() == begin + 10
        assert not slow.settled
        assert await slow == "slow"


@pytest.mark.rule("K2")
async def test_a_worker_that_dies_loses_only_what_it_had(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """One failure; everything else is served by the others at once, and by itself again later."""
    async with stage.open() as tree:
        ref = await open_pool(stage, tree, workers=2)
        bad = await ref.submit(stage.Do(stage.fail(ValueError("x"))))
        good = [await ref.submit(stage.Do(stage.say(number))) for number in range(20)]
        with pytest.raises(HandlerCrashed, match="tree/pool/worker-"):
            await bad
        assert [await pending for pending in good] == list(range(20))
    assert len(stage.delays) == 1


@pytest.mark.rule("K2")
async def test_when_all_workers_die_the_queue_is_held(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Messages wait for the first worker that lives again, in order."""
    policy = RestartPolicy(backoff=Backoff(base=10.0, jitter=0.5))
    async with stage.open() as tree:
        ref = await open_pool(stage, tree, workers=3, policy=policy)
        for _ in range(3):
            await ref.tell(stage.Do(stage.fail(ValueError("x"))))
        pendings = [await ref.submit(stage.Do(stage.say(number))) for number in range(10)]
        await trio.sleep(1)
        assert stage.log == []
        assert [await pending for pending in pendings] == list(range(10))
    assert stage.log == list(range(10))


async def test_a_pool_whose_worker_is_given_up_is_restarted(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """All its workers are started again, and whatever waits in its line is held for them."""

    async def die(_: Any) -> None:
        await trio.lowlevel.checkpoint()
        raise ValueError("x")

    async with stage.open() as tree:
        ref = await open_pool(stage, tree, workers=2, policy=RestartPolicy(max_restarts=0))
        slow = await ref.submit(stage.Do(stage.sleep(100)))
        await ref.tell(stage.Do(die))
        pendings = [await ref.submit(stage.Do(stage.say(number))) for number in range(3)]
        assert [await pending for pending in pendings] == [0, 1, 2]
        with pytest.raises(InFlightLost):
            await slow
        assert [child.incarnation for child in tree.children["pool"].everybody()] == [2, 2]
        assert tree.snapshot().restarts == 1


async def test_a_pool_that_is_given_up_fails(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """The failure escalates; whatever waits in the pool's line never started."""

    async def fail_late(_: Any) -> None:
        await trio.sleep(1)
        raise ValueError("x")

    pendings = []
    with pytest.raises(RestartIntensityExceeded, match="tree/pool crashed 4 times"):
        async with stage.open() as tree:
            ref = await open_pool(stage, tree, workers=1, policy=RestartPolicy(max_restarts=0))
            for _ in range(4):
                await ref.tell(stage.Do(fail_late))
            pendings = [await ref.submit(stage.Do(stage.say(number))) for number in range(3)]
            await trio.sleep_forever()
    assert stage.log == []
    assert len(pendings) == 3
    for pending in pendings:
        with pytest.raises(ActorStopped) as caught:
            await pending
        assert caught.value.started is False
    assert ref.stopped


@pytest.mark.parametrize("order", ["message first", "kill first"])
async def test_a_worker_killed_in_the_tick_of_a_message_loses_nothing(
    stage: Any, order: str, autojump_clock: trio.abc.Clock
) -> None:
    """Whichever of the waiting workers is cancelled as a message arrives, another one handles it."""
    for victim in range(3):
        async with stage.open() as tree:
            ref = await open_pool(stage, tree, workers=3)
            await trio.testing.wait_all_tasks_blocked()
            slot = tree.children["pool"].children[f"worker-{victim}"]
            if order == "message first":
                ref.tell_nowait(stage.Do(stage.say(victim)))
                slot.ask_to_stop("kill")
            else:
                slot.ask_to_stop("kill")
                ref.tell_nowait(stage.Do(stage.say(victim)))
            await trio.testing.wait_all_tasks_blocked()
            assert stage.log[-1] == victim
            assert ref.statistics().handled == 1
    assert stage.log == [0, 1, 2]


@pytest.mark.rule("D1")
async def test_a_pool_drains(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """What is in line is served, senders are refused from the first moment, and the ref knows the end."""
    async with stage.open() as tree:
        ref = await open_pool(stage, tree, workers=2)
        pendings = [await ref.submit(stage.Do(stage.sleep(1, number))) for number in range(6)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tree.stop_child, "pool")
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(ActorStopping, match="tree/pool is stopping"):
                await ref.tell(stage.Do(stage.say("never")))
            assert not ref.stopped
        assert ref.stopped
        await ref.wait_stopped()
        assert [await pending for pending in pendings] == list(range(6))
        with pytest.raises(ActorStopped, match="has stopped"):
            await ref.tell(stage.Do(stage.say("never")))


async def test_a_drain_does_not_wait_for_a_worker_that_nobody_needs(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """A worker in its backoff ends when the others have emptied the line."""
    policy = RestartPolicy(backoff=Backoff(base=1000.0, maximum=1000.0))
    async with stage.open() as tree:
        ref = await open_pool(stage, tree, workers=2, policy=policy)
        await ref.tell(stage.Do(stage.fail(ValueError("x"))))
        pendings = [await ref.submit(stage.Do(stage.sleep(2, number))) for number in range(3)]
        await trio.testing.wait_all_tasks_blocked()
        begin = trio.current_time()
        await tree.stop_child("pool")
        assert trio.current_time() == begin + 6
        assert [await pending for pending in pendings] == [0, 1, 2]


async def test_a_pool_s_own_refusal(stage: Any) -> None:
    """Senders to a closed pool get the error of its spec."""
    async with stage.open() as tree:
        ref = await open_pool(stage, tree, refusal=lambda _: ServiceClosing())
        await tree.stop_child("pool")
        with pytest.raises(ServiceClosing):
            await ref.ask(stage.Do(stage.say(1)))


@pytest.mark.rule("N3")
async def test_a_pool_that_does_not_start_leaves_nothing(stage: Any) -> None:
    """If the third worker fails, the first two are gone, the error names the third, and the name is free."""
    made = 0

    def factory() -> Any:
        nonlocal made
        made += 1
        if made == 3:
            raise ValueError("third")
        return stage.PuppetActor()

    async with stage.open() as tree:
        before = trio.lowlevel.current_statistics().tasks_living
        with pytest.raises(StartFailed, match="tree/pool/worker-2"):
            await open_pool(stage, tree, workers=5, factory=factory)
        assert not tree.children
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living == before
        await open_pool(stage, tree)
        with pytest.raises(InputError, match="name"):
            await open_pool(stage, tree)


async def test_cancelling_the_start_of_a_pool_leaves_nothing(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """A cancelled `start_pool` takes back the workers that had started."""
    async with stage.open() as tree:
        with trio.move_on_after(2.5) as scope:
            await open_pool(stage, tree, factory=lambda: stage.PuppetActor(starting=stage.sleep(1)))
        assert scope.cancelled_caught
        assert not tree.children
