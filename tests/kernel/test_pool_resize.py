"""Pools that grow, shrink, choose, and replace workers."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from tinker_actors.errors import ActorError, HandlerCrashed, InFlightLost, InputError, StartFailed
from tinker_actors.kernel import ActorCrashed, Backoff, Pool, PoolSpec, RestartPolicy, start_pool

QUICK = RestartPolicy(backoff=Backoff(base=1.0, maximum=1.0, jitter=0.0), max_restarts=9)
ROUTINGS = ["shared", "least_loaded"]


async def open_pool(stage: Any, tree: Any, workers: int = 2, **settings: Any) -> Pool[Any]:
    factory = settings.pop("factory", stage.PuppetActor)
    return await start_pool(tree, PoolSpec(name="pool", workers=workers, **settings), factory)


def who(seconds: float = 0.0) -> Any:
    """Reply with the path of the worker."""

    async def run(actor: Any) -> str:
        await trio.sleep(seconds)
        return str(actor.context.path)

    return run


async def paths(stage: Any, pool: Any, count: int) -> list[str]:
    """Ask as many at once, and return which workers answered."""
    pendings = [await pool.ref.submit(stage.Do(who(1.0))) for _ in range(count)]
    return [(await pending).rpartition("/")[2] for pending in pendings]


# --- size ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("routing", ROUTINGS)
async def test_it_grows(stage: Any, routing: Any, autojump_clock: trio.abc.Clock) -> None:
    """When `resize` returns, the new workers take messages: those in line (`shared`), and new ones."""
    async with stage.open() as tree:
        pool = await open_pool(stage, tree, 1, routing=routing)
        assert pool.size == 1
        begin = trio.current_time()
        await pool.resize(4)
        assert pool.size == 4
        assert len(set(await paths(stage, pool, 4))) == 4
        assert trio.current_time() == begin + 1


@pytest.mark.parametrize("routing", ROUTINGS)
async def test_it_shrinks_without_losing_anything(
    stage: Any, routing: Any, autojump_clock: trio.abc.Clock
) -> None:
    """Retired workers finish what they have; everything is answered, and nothing new reaches them."""
    async with stage.open() as tree:
        pool = await open_pool(stage, tree, 4, routing=routing)
        pendings = [await pool.ref.submit(stage.Do(stage.sleep(1, number))) for number in range(12)]
        await trio.sleep(0.5)
        await pool.resize(1)
        assert pool.size == 1
        assert trio.current_time() == 0.5
        assert [await pending for pending in pendings] == list(range(12))
        assert len(set(await paths(stage, pool, 3))) == 1
        assert len(tree.children["pool"].children) == 1
        seen = pool.ref.statistics()
        assert (seen.queued, seen.running, seen.handled) == (0, 0, 15)
        assert seen.admitted == 15


async def test_idle_workers_go_first(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A busy worker is not retired while an idle one could be."""
    async with stage.open() as tree:
        pool = await open_pool(stage, tree, 3)
        busy = await pool.ref.submit(stage.Do(who(5.0)))
        await trio.testing.wait_all_tasks_blocked()
        await pool.resize(1)
        await trio.testing.wait_all_tasks_blocked()
        assert await busy == await pool.ref.ask(stage.Do(who()))


async def test_up_and_down_under_load(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Whatever the sizes, each message is handled once, and begun in order."""
    async with stage.open() as tree:
        pool = await open_pool(stage, tree, 2)
        pendings = [await pool.ref.submit(stage.Do(stage.sleep(1, number))) for number in range(60)]
        for size in (5, 1, 3, 3, 8, 2):
            await trio.sleep(1.5)
            await pool.resize(size)
            assert pool.size == size
        assert [await pending for pending in pendings] == list(range(60))
    assert [number for kind, number in stage.log if kind == "begin"] == list(range(60))


async def test_a_worker_waiting_for_its_restart_can_be_retired(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """It goes before one that could serve, and ends at once; the line is its siblings'."""
    slow = RestartPolicy(backoff=Backoff(base=50.0, maximum=50.0, jitter=0.0))
    async with stage.open() as tree:
        pool = await open_pool(stage, tree, 2, policy=slow)
        with pytest.raises(HandlerCrashed):
            await pool.ref.ask(stage.Do(stage.fail(ValueError())))
        await trio.sleep(1)
        await pool.resize(1)
        await trio.sleep(1)
        assert pool.size == 1
        assert await pool.ref.ask(stage.Do(who())) in ("tree/pool/worker-0", "tree/pool/worker-1")
        assert trio.current_time() < 5


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True])
async def test_a_size_is_a_whole_number_from_one(stage: Any, wrong: Any) -> None:
    """Anything else is refused and changes nothing."""
    async with stage.open() as tree:
        pool = await open_pool(stage, tree)
        with pytest.raises(InputError) as caught:
            await pool.resize(wrong)
        assert caught.value.field == "workers"
        assert pool.size == 2


async def test_a_worker_that_does_not_start_is_told(stage: Any) -> None:
    """Those before it stay; at the start of the pool none is left."""
    made = 0

    async def moody(_: Any) -> None:
        nonlocal made
        made += 1
        await trio.lowlevel.checkpoint()
        if made > 2:
            raise ValueError("no more")

    async with stage.open() as tree:
        pool = await open_pool(stage, tree, 1, factory=lambda: stage.PuppetActor(starting=moody))
        with pytest.raises(StartFailed):
            await pool.resize(4)
        assert pool.size == 2
        with pytest.raises(StartFailed):
            await start_pool(
                tree, PoolSpec(name="other", workers=2), lambda: stage.PuppetActor(starting=moody)
            )
        assert list(tree.children) == ["pool"]


async def test_a_cancelled_start_leaves_no_worker(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Whoever gives up waiting for a pool finds nothing of it."""

    async def slow(_: Any) -> None:
        await trio.sleep(10)

    async with stage.open() as tree:
        with trio.move_on_after(15) as left:
            await open_pool(stage, tree, 2, factory=lambda: stage.PuppetActor(starting=slow))
        assert left.cancelled_caught
        assert tree.children == {}
        assert trio.current_time() == 15


async def test_a_stopping_pool_is_not_resized(stage: Any) -> None:
    """It starts nothing new."""
    async with stage.open() as tree:
        pool = await open_pool(stage, tree)
        await pool.ref.stop()
        assert pool.ref.stopped
        assert pool.size == 0
        with pytest.raises(ActorError):
            await pool.resize(3)


async def test_a_worker_that_ends_is_no_worker(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A child that ended as soon as it had started is told, and one that ends later is not counted."""

    async def stop_early(actor: Any) -> None:
        await actor.context.stop()

    async with stage.open() as tree:
        pool = await open_pool(stage, tree, 2, policy=RestartPolicy(restart="temporary"))
        with pytest.raises(HandlerCrashed):
            await pool.ref.ask(stage.Do(stage.fail(ValueError())))
        await trio.testing.wait_all_tasks_blocked()
        assert pool.size == 1
        await pool.resize(2)
        assert len(set(await paths(stage, pool, 2))) == 2
        with pytest.raises(ActorError):
            await start_pool(
                tree, PoolSpec(name="brief", workers=1), lambda: stage.PuppetActor(starting=stop_early)
            )


# --- routing ------------------------------------------------------------------------------------------------


async def test_the_least_loaded_gets_it(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """What waits and what runs both count; a slow worker gets nothing while others are free."""
    async with stage.open() as tree:
        pool = await open_pool(stage, tree, 3, routing="least_loaded")
        slow = await pool.ref.submit(stage.Do(who(100)))
        found = []
        for _ in range(6):
            found += await paths(stage, pool, 2)
        assert len(set(found)) == 2
        assert await slow not in found


async def test_each_worker_has_its_own_bound(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """The counters are those of all workers together, also of those that have gone."""
    async with stage.open() as tree:
        pool = await open_pool(stage, tree, 2, routing="least_loaded", capacity=5)
        assert pool.ref.statistics().capacity == 10
        await paths(stage, pool, 6)
        assert pool.ref.statistics().handled == 6
        await pool.resize(1)
        await trio.sleep(1)
        assert pool.ref.statistics().handled == 6
        await pool.ref.stop()
        assert pool.ref.statistics().handled == 6


async def test_a_worker_that_restarts_gets_nothing_new(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """While one waits for its restart the others are chosen, however much they have to do."""
    slow = RestartPolicy(backoff=Backoff(base=50.0, maximum=50.0, jitter=0.0))
    async with stage.open() as tree:
        pool = await open_pool(stage, tree, 2, routing="least_loaded", policy=slow)
        with pytest.raises(HandlerCrashed):
            await pool.ref.ask(stage.Do(stage.fail(ValueError())))
        await trio.testing.wait_all_tasks_blocked()
        assert len(set(await paths(stage, pool, 6))) == 1
        assert trio.current_time() == 6


@pytest.mark.parametrize("settings", [{"routing": "random"}, {"workers": 0}, {"stuck_after": -1.0}])
def test_wrong_pools_are_refused(settings: dict[str, Any]) -> None:
    """Where the spec is written."""
    with pytest.raises((InputError, ValueError)):
        PoolSpec(**{"name": "pool", "workers": 1, **settings})


# --- stuck workers ------------------------------------------------------------------------------------------


async def test_a_worker_that_is_busy_for_too_long_is_replaced(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """It is cancelled and restarted like one that crashed; its caller hears why, others notice nothing."""
    async with stage.open() as tree:
        pool = await open_pool(stage, tree, 2, stuck_after=8.0, policy=QUICK)
        long = await pool.ref.submit(stage.Do(stage.sleep(1000, "long")))
        for number in range(10):
            assert await pool.ref.ask(stage.Do(stage.sleep(2, number))) == number
        assert long.settled
        with pytest.raises(InFlightLost) as caught:
            await long
        assert isinstance(caught.value.__cause__, trio.TooSlowError)
        assert len(set(await paths(stage, pool, 2))) == 2
    crashes = [event for event in stage.events if isinstance(event, ActorCrashed)]
    assert len(crashes) == 1
    assert "was busy with one message for more than 8.0 s" in str(crashes[0].cause)


async def test_many_quick_messages_are_not_one_long(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A worker may be busy for ever, if no single message takes too long."""
    async with stage.open() as tree:
        pool = await open_pool(stage, tree, 1, stuck_after=8.0)
        for number in range(30):
            assert await pool.ref.ask(stage.Do(stage.sleep(5, number))) == number
    assert stage.delays == []


async def test_the_guard_ends_with_the_pool(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Stopped alone or with its tree, a pool leaves no task behind."""
    async with stage.open() as tree:
        before = trio.lowlevel.current_statistics().tasks_living
        pool = await open_pool(stage, tree, 2, stuck_after=8.0)
        await pool.ref.stop()
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living == before
        await open_pool(stage, tree, 2, stuck_after=8.0)
    assert trio.current_time() < 8.0


async def test_a_worker_that_swallows_its_cancellation_is_left_behind(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """Another incarnation takes its place, and the line is served."""
    release = trio.Event()

    async def stubborn(_: Any) -> None:
        with trio.CancelScope(shield=True):
            await release.wait()

    async with stage.open() as tree:
        pool = await open_pool(stage, tree, 1, stuck_after=8.0, policy=QUICK, cleanup_timeout=1.0)
        long = await pool.ref.submit(stage.Do(stubborn))
        behind = await pool.ref.submit(stage.Do(who()))
        with pytest.raises(InFlightLost):
            await long
        assert await behind == "tree/pool/worker-0"
        assert trio.current_time() <= 20
        release.set()


async def test_the_guard_leaves_those_alone_that_wait(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A worker that waits long for its restart is not busy."""
    slow = RestartPolicy(backoff=Backoff(base=50.0, maximum=50.0, jitter=0.0))
    async with stage.open() as tree:
        pool = await open_pool(stage, tree, 2, stuck_after=8.0, policy=slow)
        with pytest.raises(HandlerCrashed):
            await pool.ref.ask(stage.Do(stage.fail(ValueError())))
        await trio.sleep(100)
        assert len(set(await paths(stage, pool, 2))) == 2
    assert len(stage.delays) == 1
