"""Handlers side by side: barriers, limiters, idle readers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tinker_actors.errors import ActorStopped, HandlerCrashed, InFlightLost
from tinker_actors.kernel import (
    Actor,
    ActorRef,
    Backoff,
    ChildSpec,
    Message,
    PoolSpec,
    RestartPolicy,
    Stop,
    handles,
    start_pool,
)

QUICK = RestartPolicy(backoff=Backoff(base=1.0, jitter=0.0))


class Worker:
    """Role of the actor below."""


@attrs.frozen(eq=False)
class Step(Message[Worker, Any]):
    run: Callable[[Any], Awaitable[Any]]


class Alone(Step):
    exclusive = True


class WorkerActor(Actor[Worker]):
    @handles(Step)
    async def step(self, message: Step) -> Any:
        return await message.run(self)

    @handles(Alone)
    async def alone(self, message: Alone) -> Any:
        return await message.run(self)


async def start(tree: Any, **settings: Any) -> ActorRef[Worker]:
    return await tree.start_child(ChildSpec(name="a", factory=WorkerActor, **{"policy": QUICK, **settings}))


@attrs.define
class Book:
    """Notes when handlers begin and end."""

    spans: dict[Any, list[float]] = attrs.field(factory=dict)

    def sleep(self, name: Any, seconds: float) -> Callable[[Any], Awaitable[Any]]:
        async def run(_: Any) -> Any:
            self.spans[name] = [trio.current_time()]
            try:
                await trio.sleep(seconds)
            finally:
                self.spans[name].append(trio.current_time())
            return name

        return run


async def submit(ref: Any, *messages: Any) -> list[Any]:
    return [await ref.submit(message) for message in messages]


# --- barriers -----------------------------------------------------------------------------------------------


async def test_an_exclusive_message_is_a_barrier(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """It begins when all before it have ended, and what is behind it begins when it has."""
    book = Book()
    async with stage.open() as tree:
        ref = await start(tree, concurrency=8)
        await submit(
            ref,
            Step(book.sleep("f1", 1)),
            Step(book.sleep("f2", 3)),
            Alone(book.sleep("O1", 2)),
            Step(book.sleep("f3", 1)),
            Alone(book.sleep("O2", 1)),
        )
        await ref.stop()
    assert book.spans == {"f1": [0, 1], "f2": [0, 3], "O1": [3, 5], "f3": [5, 6], "O2": [6, 7]}


async def test_a_barrier_that_comes_first_is_one(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Also where nothing ran before it, in an actor and in a pool that is enlarged meanwhile."""
    book = Book()
    async with stage.open() as tree:
        ref = await start(tree, concurrency=3)
        pool = await start_pool(tree, PoolSpec(name="pool", workers=1), WorkerActor)
        for name, target in (("a", ref), ("pool", pool.ref)):
            await submit(target, Alone(book.sleep((name, "O"), 2)), Step(book.sleep((name, "f"), 1)))
        await trio.sleep(1)
        await pool.resize(3)
        await ref.stop()
        await pool.ref.stop()
    assert book.spans == {
        ("a", "O"): [0, 2],
        ("a", "f"): [2, 3],
        ("pool", "O"): [0, 2],
        ("pool", "f"): [2, 3],
    }


async def test_exclusive_messages_follow_each_other(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Two barriers in a row run one after the other, and all that follow run side by side again."""
    book = Book()
    async with stage.open() as tree:
        ref = await start(tree, concurrency=3)
        await submit(ref, Alone(book.sleep("O1", 1)), Alone(book.sleep("O2", 1)))
        await submit(ref, *(Step(book.sleep(number, 1)) for number in range(3)))
        await ref.stop()
    assert book.spans == {"O1": [0, 1], "O2": [1, 2], 0: [2, 3], 1: [2, 3], 2: [2, 3]}


async def test_a_barrier_holds_for_all_workers_of_a_pool(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """The workers of a pool share one line, so they share its barriers."""
    book = Book()
    async with stage.open() as tree:
        pool = await start_pool(tree, PoolSpec(name="pool", workers=3, concurrency=2), WorkerActor)
        await submit(pool.ref, *(Step(book.sleep(number, 2)) for number in range(4)))
        await submit(pool.ref, Alone(book.sleep("O", 1)), Step(book.sleep("after", 1)))
        await pool.ref.stop()
    assert [book.spans[number] for number in range(4)] == [[0, 2]] * 4
    assert book.spans["O"] == [2, 3]
    assert book.spans["after"] == [3, 4]


async def test_a_barrier_that_is_left_opens(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Cancelled in line or in its handler, it holds up nobody any more."""
    book = Book()
    async with stage.open() as tree:
        ref = await start(tree, concurrency=3)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ref.ask, Step(book.sleep("f1", 5)))
            await trio.testing.wait_all_tasks_blocked()
            with trio.move_on_after(1):
                async with trio.open_nursery() as inner:
                    inner.start_soon(ref.ask, Alone(book.sleep("O1", 5)))
                    await trio.testing.wait_all_tasks_blocked()
                    nursery.start_soon(ref.ask, Step(book.sleep("f2", 1)))
        assert book.spans == {"f1": [0, 5], "f2": [1, 2]}
        behind: Any = None
        with trio.move_on_after(1):
            async with trio.open_nursery() as inner:
                inner.start_soon(ref.ask, Alone(book.sleep("O2", 50)))
                await trio.testing.wait_all_tasks_blocked()
                behind = await ref.submit(Step(book.sleep("f3", 1)))
        assert await behind == "f3"
    assert book.spans["O2"] == [5, 6]
    assert book.spans["f3"] == [6, 7]


async def test_a_barrier_whose_handler_crashes_opens(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """The next incarnation goes on with what is behind it."""

    async def crash(_: Any) -> None:
        await trio.sleep(1)
        raise ValueError

    book = Book()
    async with stage.open() as tree:
        ref = await start(tree, concurrency=3)
        bad, good = await submit(ref, Alone(crash), Step(book.sleep("f", 1)))
        with pytest.raises(HandlerCrashed):
            await bad
        assert await good == "f"
    assert book.spans == {"f": [2, 3]}


async def test_where_one_runs_at_a_time_nothing_changes(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A serial actor is a row of barriers anyway."""
    book = Book()
    async with stage.open() as tree:
        ref = await start(tree)
        await submit(ref, *(kind(book.sleep(number, 1)) for number, kind in enumerate((Step, Alone, Step))))
        await ref.stop()
    assert book.spans == {0: [0, 1], 1: [1, 2], 2: [2, 3]}


async def test_an_expired_barrier_opens(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """One whose deadline passes in its handler lets those behind it begin."""
    book = Book()
    async with stage.open() as tree:
        ref = await start(tree, concurrency=2)
        with trio.move_on_after(2):
            await ref.ask(Alone(book.sleep("O", 10)))
        assert await ref.ask(Step(book.sleep("f", 1))) == "f"
    assert book.spans == {"O": [0, 2], "f": [2, 3]}


# --- side by side -------------------------------------------------------------------------------------------


async def test_no_more_run_than_allowed(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Messages begin in order, `concurrency` at a time."""
    book = Book()
    async with stage.open() as tree:
        ref = await start(tree, concurrency=3)
        await submit(ref, *(Step(book.sleep(number, 1)) for number in range(9)))
        await ref.stop()
    assert [book.spans[number][0] for number in range(9)] == [0, 0, 0, 1, 1, 1, 2, 2, 2]


async def test_a_burst_leaves_few_idle_readers(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """After a hundred at once, an actor that may run a hundred keeps only some tasks waiting; it still can."""
    book = Book()
    async with stage.open() as tree:
        ref = await start(tree, concurrency=100)
        before = trio.lowlevel.current_statistics().tasks_living
        for start_at in (0, 100):
            pendings = await submit(ref, *(Step(book.sleep(start_at + n, 1)) for n in range(100)))
            for pending in pendings:
                await pending
            await trio.testing.wait_all_tasks_blocked()
            assert trio.lowlevel.current_statistics().tasks_living - before <= 20
    assert [book.spans[number][0] for number in range(100)] == [0] * 100
    assert [book.spans[number][0] for number in range(100, 200)] == [1] * 100


async def test_a_crash_ends_what_runs_beside_it(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """The others of the incarnation are lost because of it; what waits is served by the next one."""

    async def crash(_: Any) -> None:
        await trio.sleep(1)
        raise ValueError("why")

    book = Book()
    async with stage.open() as tree:
        ref = await start(tree, concurrency=2)
        beside, bad, behind = await submit(
            ref, Step(book.sleep("beside", 50)), Step(crash), Step(book.sleep("x", 1))
        )
        with pytest.raises(HandlerCrashed):
            await bad
        with pytest.raises(InFlightLost) as caught:
            await beside
        assert isinstance(caught.value.__cause__, ValueError)
        assert await behind == "x"
    assert book.spans == {"beside": [0, 1], "x": [2, 3]}


async def test_a_stop_reply_lets_the_others_finish(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """`Stop` from one handler: those beside it end, nothing new begins, and what waits is for the next one."""

    async def stop(_: Any) -> Any:
        await trio.sleep(1)
        return Stop("bye")

    book = Book()
    async with stage.open() as tree:
        ref = await start(tree, concurrency=2)
        beside, last, behind = await submit(
            ref, Step(book.sleep("beside", 3)), Step(stop), Step(book.sleep("x", 1))
        )
        assert await last == "bye"
        assert await beside == "beside"
        assert await behind == "x"
    assert book.spans == {"beside": [0, 3], "x": [4, 5]}


# --- limiters -----------------------------------------------------------------------------------------------


async def test_a_limiter_bounds_all_who_share_it(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Two actors with one limiter run as many handlers as it has tokens, and give all of them back."""
    limiter = trio.CapacityLimiter(3)
    book = Book()
    async with stage.open() as tree:
        a = await start(tree, concurrency=4, limiter=limiter)
        b = await tree.start_child(ChildSpec(name="b", factory=WorkerActor, concurrency=4, limiter=limiter))
        for number in range(4):
            await submit(a, Step(book.sleep(("a", number), 1)))
            await submit(b, Step(book.sleep(("b", number), 1)))
        await trio.sleep(0.5)
        assert limiter.borrowed_tokens == 3
        await a.stop()
        await b.stop()
        assert limiter.borrowed_tokens == 0
    begins = sorted(begin for begin, _ in book.spans.values())
    assert begins == [0, 0, 0, 1, 1, 1, 2, 2]


async def test_an_idle_actor_holds_no_token(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A token is held while a message is handled, and not while one is waited for."""
    limiter = trio.CapacityLimiter(1)
    async with stage.open() as tree:
        a = await stage.start(tree, "a", limiter=limiter)
        b = await stage.start(tree, "b", limiter=limiter)
        for ref in (a, b, a, b):
            assert await ref.ask(stage.Do(stage.say("x"))) == "x"
            await trio.testing.wait_all_tasks_blocked()
            assert limiter.borrowed_tokens == 0


async def test_no_tokens_is_a_pause(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """With zero tokens messages stay in line, where they can be taken back; tokens let them begin."""
    limiter = trio.CapacityLimiter(1)
    async with stage.open() as tree:
        limiter.total_tokens = 0
        ref = await stage.start(tree, limiter=limiter)
        pendings = [await ref.submit(stage.Do(stage.say(number))) for number in range(3)]
        await trio.sleep(10)
        seen = ref.statistics()
        assert (seen.queued, seen.running) == (3, 0)
        assert stage.log == []
        assert await pendings[0].withdraw()
        limiter.total_tokens = 1
        assert [await pending for pending in pendings[1:]] == [1, 2]
        await trio.testing.wait_all_tasks_blocked()
        assert limiter.borrowed_tokens == 0


async def test_a_token_for_nothing_is_given_back(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A reader that got its token when the message had been taken back keeps none."""
    limiter = trio.CapacityLimiter(1)
    async with stage.open() as tree:
        limiter.total_tokens = 0
        ref = await stage.start(tree, limiter=limiter)
        pending = await ref.submit(stage.Do(stage.say("never")))
        await trio.testing.wait_all_tasks_blocked()
        assert await pending.withdraw()
        limiter.total_tokens = 1
        await trio.testing.wait_all_tasks_blocked()
        assert limiter.borrowed_tokens == 0
        assert await ref.ask(stage.Do(stage.say("served"))) == "served"
    assert stage.log == ["served"]


@pytest.mark.parametrize("mode", ["drain", "now", "kill"])
@pytest.mark.parametrize("concurrency", [1, 3])
async def test_a_stop_while_waiting_for_a_token(
    stage: Any, mode: Any, concurrency: int, autojump_clock: trio.abc.Clock
) -> None:
    """A pause does not hold up a stop: at once, or, to drain, until its time is up."""
    limiter = trio.CapacityLimiter(1)
    async with stage.open() as tree:
        limiter.total_tokens = 0
        ref = await stage.start(tree, limiter=limiter, concurrency=concurrency)
        pending = await ref.submit(stage.Do(stage.say("never")))
        await trio.testing.wait_all_tasks_blocked()
        await ref.stop(mode, timeout=5.0)
        assert trio.current_time() == (5.0 if mode == "drain" else 0.0)
        with pytest.raises(ActorStopped) as caught:
            await pending
        assert caught.value.started is False
        limiter.total_tokens = 1
        assert limiter.borrowed_tokens == 0
    assert stage.log == []


async def test_a_signal_needs_no_token(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A paused actor still gets its timers, and goes back to waiting for the token."""
    limiter = trio.CapacityLimiter(1)

    async def later(actor: Any) -> None:
        await trio.lowlevel.checkpoint()
        actor.context.send_after(1, stage.Do(stage.say("fire")))

    async with stage.open() as tree:
        ref = await stage.start(tree, limiter=limiter)
        await ref.ask(stage.Do(later))
        limiter.total_tokens = 0
        pending = await ref.submit(stage.Do(stage.say("paused")))
        await trio.sleep(5)
        assert stage.log == ["fire"]
        limiter.total_tokens = 1
        assert await pending == "paused"
        assert limiter.borrowed_tokens == 0


async def test_a_crash_gives_the_token_back(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Neither a crash nor a cancelled handler keeps a token."""
    limiter = trio.CapacityLimiter(1)
    async with stage.open() as tree:
        ref = await stage.start(tree, limiter=limiter, policy=QUICK)
        with pytest.raises(HandlerCrashed):
            await ref.ask(stage.Do(stage.fail(ValueError())))
        await trio.testing.wait_all_tasks_blocked()
        assert limiter.borrowed_tokens == 0
        with trio.move_on_after(3):
            await ref.ask(stage.Do(stage.sleep(100)))
        await trio.testing.wait_all_tasks_blocked()
        assert limiter.borrowed_tokens == 0
        await ref.ask(stage.Do(stage.say("alive")))


async def test_a_pool_shares_a_limiter(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Paused, resumed and enlarged while it works, a pool loses nothing and keeps the order."""
    limiter = trio.CapacityLimiter(1)
    book = Book()
    async with stage.open() as tree:
        pool = await start_pool(tree, PoolSpec(name="pool", workers=4, limiter=limiter), WorkerActor)
        pendings = await submit(pool.ref, *(Step(book.sleep(number, 1)) for number in range(6)))
        await trio.sleep(1.5)
        limiter.total_tokens = 0
        await trio.sleep(8.5)
        assert len(book.spans) == 2
        limiter.total_tokens = 4
        assert [await pending for pending in pendings] == list(range(6))
        assert limiter.borrowed_tokens == 0
    assert [book.spans[number][0] for number in range(6)] == [0, 1, 10, 10, 10, 10]


async def test_a_barrier_waits_without_a_token(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """An exclusive message that must wait for others takes no token from them meanwhile."""
    limiter = trio.CapacityLimiter(2)
    book = Book()
    async with stage.open() as tree:
        ref = await start(tree, concurrency=3, limiter=limiter)
        await submit(ref, Step(book.sleep("f", 2)), Alone(book.sleep("O", 1)), Step(book.sleep("g", 1)))
        await trio.sleep(1)
        assert limiter.borrowed_tokens == 1
        await ref.stop()
        assert limiter.borrowed_tokens == 0
    assert book.spans == {"f": [0, 2], "O": [2, 3], "g": [3, 4]}
