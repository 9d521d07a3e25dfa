"""Pools that lose workers, change their size and are paused; barriers and blocks."""

from __future__ import annotations

import random
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tinker_actors.errors import HandlerCrashed
from tinker_actors.kernel import (
    Actor,
    Backoff,
    ChildSpec,
    Message,
    PoolSpec,
    RestartPolicy,
    handles,
    open_supervisor,
    start_pool,
)

AT_ONCE = RestartPolicy(max_restarts=100, backoff=Backoff(base=0, jitter=0))
LATER = RestartPolicy(backoff=Backoff(base=10, jitter=0))


class Crew:
    """Role of the actors below."""


@attrs.frozen
class Job(Message[Crew, int]):
    """Work for some seconds, or crash."""

    number: int
    takes: float = 1
    crashes: bool = False


class Alone(Job):
    """A job that nothing runs beside."""

    exclusive = True


@attrs.define(eq=False)
class Log:
    """What the workers did, and when."""

    begun: list[int] = attrs.field(factory=list)
    entries: list[tuple[str, int, float]] = attrs.field(factory=list)
    running: int = 0
    most: int = 0

    def times(self, what: str) -> dict[int, float]:
        """Return when each job began, or ended."""
        return {number: at for kind, number, at in self.entries if kind == what}


class Worker(Actor[Crew]):
    """Does jobs and notes begin and end."""

    def __init__(self, log: Log) -> None:
        self.log = log

    @handles(Alone)
    async def alone(self, message: Alone) -> int:
        return await self.do(message)

    @handles(Job)
    async def job(self, message: Job) -> int:
        return await self.do(message)

    async def do(self, message: Job) -> int:
        log = self.log
        log.begun.append(message.number)
        log.entries.append(("begin", message.number, trio.current_time()))
        log.running += 1
        log.most = max(log.most, log.running)
        try:
            await trio.sleep(message.takes)
        finally:
            log.running -= 1
        if message.crashes:
            raise ValueError(message.number)
        log.entries.append(("end", message.number, trio.current_time()))
        return message.number


async def start_crew(tree: Any, log: Log, workers: int = 3, **settings: Any) -> Any:
    """Start a pool of workers."""
    return await start_pool(tree, PoolSpec(name="crew", workers=workers, **settings), lambda: Worker(log))


# --- pools -----------------------------------------------------------------------------------------------


@pytest.mark.scenario(42)
@pytest.mark.rule("K2")
@pytest.mark.parametrize("routing", ["shared", "least_loaded"])
async def test_a_worker_that_crashes_loses_one_message(
    stage: Any, routing: Any, autojump_clock: trio.testing.MockClock
) -> None:
    """One failure; what the others have and what is in line is handled, each message once."""
    log = Log()
    async with stage.open() as tree:
        crew = await start_crew(tree, log, policy=LATER, routing=routing)
        pendings = [await crew.ref.submit(Job(number, crashes=number == 1)) for number in range(9)]
        with pytest.raises(HandlerCrashed):
            await pendings[1]
        assert [await pending for number, pending in enumerate(pendings) if number != 1] == [0, *range(2, 9)]
    assert sorted(log.begun) == list(range(9))
    assert len(stage.delays) == 1


@pytest.mark.scenario(42)
@pytest.mark.rule("K2", "S8")
async def test_a_pool_without_living_workers_keeps_its_line(
    stage: Any, autojump_clock: trio.testing.MockClock
) -> None:
    """All workers crash at once: what waits stays in line in order, senders may add to it, until they are back."""
    log = Log()
    async with stage.open() as tree:
        crew = await start_crew(tree, log, policy=LATER)
        broken = [await crew.ref.submit(Job(number, crashes=True)) for number in range(3)]
        waiting = [await crew.ref.submit(Job(number)) for number in range(3, 6)]
        await trio.sleep(5)
        assert len(stage.delays) == 3
        waiting += [await crew.ref.submit(Job(number)) for number in range(6, 9)]
        assert crew.ref.statistics().queued == 6
        assert [await pending for pending in waiting] == list(range(3, 9))
        assert trio.current_time() == 13
        for pending in broken:
            with pytest.raises(HandlerCrashed):
                await pending
    assert log.begun == list(range(9))


@pytest.mark.scenario(42)
@pytest.mark.rule("K2")
@pytest.mark.parametrize("routing", ["shared", "least_loaded"])
async def test_a_resize_under_load_loses_nothing(
    stage: Any, routing: Any, autojump_clock: trio.testing.MockClock
) -> None:
    """Workers come and go while messages come: every message is handled once, and the size is what was said."""
    log = Log()
    async with stage.open() as tree, trio.open_nursery() as nursery:
        crew = await start_crew(tree, log, routing=routing)
        replies: list[int] = []

        async def call(number: int) -> None:
            replies.append(await crew.ref.ask(Job(number)))

        number = 0
        for size in (1, 5, 2, 8, 1, 3):
            for _ in range(10):
                nursery.start_soon(call, number)
                number += 1
            await trio.sleep(0.5)
            await crew.resize(size)
            assert crew.size == size
    assert sorted(replies) == sorted(log.begun) == list(range(60))
    assert crew.ref.statistics().handled == 60


@pytest.mark.scenario(42)
@pytest.mark.rule("K3")
async def test_a_limiter_of_no_tokens_pauses_and_goes_on_in_order(
    stage: Any, autojump_clock: trio.testing.MockClock
) -> None:
    """At 0 what has begun ends and nothing begins; at 1 and 2 the line moves on in order, so many at once."""
    log, limiter = Log(), trio.CapacityLimiter(2)
    async with stage.open() as tree:
        crew = await start_crew(tree, log, workers=4, limiter=limiter)
        pendings = [await crew.ref.submit(Job(number)) for number in range(8)]
        await trio.sleep(0.5)
        assert (log.begun, log.most) == ([0, 1], 2)
        limiter.total_tokens = 0
        await trio.sleep(100)
        assert log.begun == [0, 1]
        assert sorted(log.times("end")) == [0, 1]
        assert crew.ref.statistics().queued == 6
        limiter.total_tokens = 1
        await trio.sleep(2.5)
        assert log.begun == [0, 1, 2, 3, 4]
        limiter.total_tokens = 2
        assert [await pending for pending in pendings] == list(range(8))
    assert log.begun == list(range(8))
    assert log.most == 2
    assert limiter.borrowed_tokens == 0
    assert limiter.statistics().tasks_waiting == 0


# --- barriers --------------------------------------------------------------------------------------------


@pytest.mark.scenario(43)
@pytest.mark.rule("K1")
@pytest.mark.parametrize("where", ["actor", "pool"])
async def test_an_exclusive_message_is_a_barrier_both_ways(
    stage: Any, where: str, autojump_clock: trio.testing.MockClock
) -> None:
    """f1 f2 O1 f3 O2 with eight at once: O1 after f1 and f2, f3 after O1, O2 after f3, and f1 beside f2."""
    log = Log()
    async with stage.open() as tree:
        if where == "pool":
            ref = (await start_crew(tree, log, workers=8)).ref
        else:
            ref = await tree.start_child(ChildSpec(name="a", factory=lambda: Worker(log), concurrency=8))
        jobs = [Job(1, takes=3), Job(2, takes=5), Alone(11, takes=2), Job(3, takes=4), Alone(12, takes=1)]
        pendings = [await ref.submit(job) for job in jobs]
        assert [await pending for pending in pendings] == [1, 2, 11, 3, 12]
    assert log.times("begin") == {1: 0, 2: 0, 11: 5, 3: 7, 12: 11}
    assert log.times("end") == {1: 3, 2: 5, 11: 7, 3: 11, 12: 12}


@pytest.mark.scenario(43)
@pytest.mark.rule("K1")
async def test_a_barrier_that_crashes_lets_the_next_messages_through(
    stage: Any, autojump_clock: trio.testing.MockClock
) -> None:
    """An exclusive message that ends its incarnation, or whose caller leaves, does not hold the line for ever."""
    log = Log()
    async with stage.open() as tree:
        spec = ChildSpec(name="a", factory=lambda: Worker(log), concurrency=8, policy=AT_ONCE)
        ref = await tree.start_child(spec)
        crash = await ref.submit(Alone(11, crashes=True))
        after = await ref.submit(Job(1))
        assert await after == 1
        with pytest.raises(HandlerCrashed):
            await crash
        with trio.move_on_after(0.5):
            await ref.ask(Alone(12, takes=100))
        assert await ref.ask(Job(2)) == 2
    assert log.times("begin") == {11: 0, 1: 1, 12: 2, 2: 2.5}


# --- blocks ----------------------------------------------------------------------------------------------


@pytest.mark.scenario(44)
@pytest.mark.rule("M4", "T4")
@pytest.mark.parametrize("capacity", [64, 3])
def test_blocks_of_two_tasks_stay_whole(capacity: int) -> None:
    """Under all schedules nothing comes between the messages of a block, with room and without; both orders occur."""
    orders: set[tuple[int, ...]] = set()

    @given(schedule=st.random_module())
    @settings(max_examples=30)
    def play(schedule: object) -> None:
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))

    async def main() -> None:
        log = Log()
        async with open_supervisor("tree", rng=random.Random(0)) as tree:
            ref = await tree.start_child(ChildSpec(name="a", factory=lambda: Worker(log), capacity=capacity))

            async def send(first: int) -> None:
                await trio.sleep_until(1)
                pendings = await ref.submit_many([Job(first + number) for number in range(3)])
                assert [await pending for pending in pendings] == [first, first + 1, first + 2]

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send, 0)
                nursery.start_soon(send, 10)
        orders.add(tuple(log.begun))

    play()
    assert orders == {(0, 1, 2, 10, 11, 12), (10, 11, 12, 0, 1, 2)}
