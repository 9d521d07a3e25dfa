"""Idempotent messages are handled again after a crash, but not for ever."""

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
    handles,
    start_pool,
)

QUICK = RestartPolicy(backoff=Backoff(base=1.0, maximum=1.0, jitter=0.0), max_restarts=9)
Run = Callable[[Any], Awaitable[Any]]


class Worker:
    """Role of the actor below."""


@attrs.frozen(eq=False)
class Once(Message[Worker, Any]):
    run: Run


class Again(Once):
    max_redeliver = 2


class WorkerActor(Actor[Worker]):
    @handles(Once)
    async def once(self, message: Once) -> Any:
        return await message.run(self)

    @handles(Again)
    async def again(self, message: Again) -> Any:
        return await message.run(self)


async def start(tree: Any, **settings: Any) -> ActorRef[Worker]:
    return await tree.start_child(ChildSpec(name="a", factory=WorkerActor, **{"policy": QUICK, **settings}))


def crash_until(incarnation: int, log: list[Any] | None = None, value: Any = "done") -> Run:
    """Crash in each incarnation before this one."""

    async def run(actor: Any) -> Any:
        await trio.lowlevel.checkpoint()
        if log is not None:
            log.append((actor.context.incarnation, value))
        if actor.context.incarnation < incarnation:
            raise ValueError(f"crash {actor.context.incarnation}")
        return value

    return run


def say(log: list[Any], value: Any) -> Run:
    async def run(actor: Any) -> Any:
        await trio.lowlevel.checkpoint()
        log.append((actor.context.incarnation, value))
        return value

    return run


async def test_it_is_handled_again_before_what_stands_behind(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """The caller hears nothing of the crashes, and the order is kept."""
    log: list[Any] = []
    async with stage.open() as tree:
        ref = await start(tree)
        first = await ref.submit(Again(crash_until(3, log, "first")))
        second = await ref.submit(Once(say(log, "second")))
        assert await first == "first"
        assert await second == "second"
        seen = ref.statistics()
        assert (seen.admitted, seen.handled, seen.failed) == (2, 2, 0)
        assert not tree.dead_letters.counts
    assert log == [(1, "first"), (2, "first"), (3, "first"), (3, "second")]


async def test_poison_is_given_up(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """After one crash more than allowed it is a dead letter, its caller hears the last crash, others go on."""
    log: list[Any] = []
    async with stage.open() as tree:
        ref = await start(tree)
        asked = await ref.submit(Again(crash_until(99)))
        behind = await ref.submit(Once(say(log, "behind")))
        with pytest.raises(HandlerCrashed) as caught:
            await asked
        assert str(caught.value.__cause__) == "crash 3"
        assert caught.value.started
        assert await behind == "behind"
        assert [(letter.reason, letter.seq) for letter in tree.dead_letters.recent] == [("poison", 0)]
        assert ref.statistics().failed == 1
    assert log == [(4, "behind")]


async def test_a_poisoned_tell_is_one_letter(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Nobody waits for it, so `poison` is all there is."""
    async with stage.open() as tree:
        ref = await start(tree)
        await ref.tell(Again(crash_until(99)))
        await trio.sleep(20)
        assert dict(tree.dead_letters.counts) == {"poison": 1}
        assert not ref.stopped


async def test_several_go_back_in_their_order(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Of handlers that ran side by side, all idempotent ones are handled again, in order; the others are lost."""
    log: list[Any] = []

    def wait(value: Any) -> Run:
        async def run(actor: Any) -> Any:
            log.append((actor.context.incarnation, value))
            if actor.context.incarnation == 1:
                await trio.sleep(100)
            return value

        return run

    async def crash(_: Any) -> None:
        await trio.sleep(1)
        raise ValueError("crash")

    async with stage.open() as tree:
        ref = await start(tree, concurrency=4)
        pendings = [await ref.submit(Again(wait(number))) for number in range(2)]
        lost = await ref.submit(Once(wait("lost")))
        bad = await ref.submit(Once(crash))
        await trio.testing.wait_all_tasks_blocked()
        behind = await ref.submit(Once(wait("behind")))
        with pytest.raises(HandlerCrashed):
            await bad
        with pytest.raises(InFlightLost):
            await lost
        assert [await pending for pending in pendings] == [0, 1]
        assert await behind == "behind"
    assert log[:3] == [(1, 0), (1, 1), (1, "lost")]
    assert log[3:] == [(2, 0), (2, 1), (2, "behind")]


async def test_a_group_restart_hands_it_on(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """What a sibling's crash interrupts is handled again as well."""
    log: list[Any] = []

    async def wait(actor: Any) -> Any:
        log.append(actor.context.incarnation)
        await trio.sleep(5)
        return "done"

    async with stage.open(strategy="one_for_all") as tree:
        ref = await start(tree)
        other = await stage.start(tree, "b", policy=QUICK)
        pending = await ref.submit(Again(wait))
        await trio.sleep(1)
        with pytest.raises(HandlerCrashed):
            await other.ask(stage.Do(stage.fail(ValueError())))
        assert await pending == "done"
    assert log == [1, 2]


@pytest.mark.parametrize("mode", ["drain", "now", "kill"])
async def test_a_stop_comes_before_the_next_try(
    stage: Any, mode: Any, autojump_clock: trio.abc.Clock
) -> None:
    """A drain still handles it again; a harder stop tells its caller of the crash."""
    async with stage.open() as tree:
        ref = await start(tree)
        pending = await ref.submit(Again(crash_until(2)))
        await trio.sleep(0.5)
        assert not pending.settled
        await ref.stop(mode)
        assert pending.settled
        if mode == "drain":
            assert await pending == "done"
        else:
            with pytest.raises((HandlerCrashed, ActorStopped)) as caught:
                await pending
            assert caught.value.started
        seen = ref.statistics()
        assert (seen.queued, seen.running) == (0, 0)


async def test_a_child_given_up_gives_it_up(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """When there is no next incarnation, its caller gets the crash."""
    async with stage.open() as tree:
        policy = RestartPolicy(max_restarts=1, backoff=QUICK.backoff)
        ref = await start(tree, policy=policy, on_exhausted="fail")
        with pytest.raises(HandlerCrashed) as caught:
            await ref.ask(Again(crash_until(99)))
        assert caught.value.started
        assert ref.stopped or (await ref.wait_stopped()).reason == "failed"


async def test_a_kill_while_it_runs_is_a_loss(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """An actor that is stopped for good hands nothing on: the caller hears `InFlightLost` at once."""
    async with stage.open() as tree:
        ref = await start(tree)
        pending = await ref.submit(Again(say_late()))
        await trio.sleep(1)
        await ref.stop("kill")
        with pytest.raises(InFlightLost) as caught:
            await pending
        assert caught.value.started


def say_late() -> Run:
    async def run(_: Any) -> None:
        await trio.sleep(100)

    return run


async def test_a_caller_that_left_is_not_served_again(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """An abandoned message that crashes is not put back."""
    log: list[Any] = []

    class Finish(Again):
        on_abandon = "finish"

    class Patient(WorkerActor):
        @handles(Finish)
        async def finish(self, message: Finish) -> Any:
            return await message.run(self)

    async def run(actor: Any) -> None:
        log.append(actor.context.incarnation)
        await trio.sleep(2)
        raise ValueError("nobody waits")

    async with stage.open() as tree:
        ref = await tree.start_child(ChildSpec(name="a", factory=Patient, policy=QUICK))
        with trio.move_on_after(1):
            await ref.ask(Finish(run))
        await trio.sleep(10)
        assert await ref.ask(Once(say(log, "alive"))) == "alive"
    assert log == [1, (2, "alive")]


async def test_it_cannot_be_taken_back_between(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A message in line that had begun is not withdrawn: its effect is not known."""
    async with stage.open() as tree:
        ref = await start(tree)
        pending = await ref.submit(Again(crash_until(2)))
        await trio.sleep(0.5)
        assert ref.statistics().queued == 1
        assert not await pending.withdraw()
        assert await pending == "done"


async def test_a_caller_may_leave_between(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """An ask whose caller leaves while it waits for its next try is not handled again."""
    log: list[Any] = []
    async with stage.open() as tree:
        ref = await start(tree)
        with trio.move_on_after(0.5) as left:
            await ref.ask(Again(crash_until(2, log)))
        assert left.cancelled_caught
        await trio.sleep(5)
        assert log == [(1, "done")]
        seen = ref.statistics()
        assert seen.admitted == seen.handled + seen.failed + seen.abandoned + seen.expired
        assert await ref.ask(Once(say(log, "alive"))) == "alive"


async def test_fail_fast_keeps_what_had_begun(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A message that had begun and is to be handled again is not handed back as if it had not."""
    async with stage.open() as tree:
        ref = await start(tree, on_restart="fail_fast")
        assert await ref.ask(Again(crash_until(2))) == "done"


async def test_a_full_line_takes_it_back(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Putting back needs no room; senders wait until there is some again."""
    log: list[Any] = []
    async with stage.open() as tree:
        ref = await start(tree, capacity=1)
        first = await ref.submit(Again(crash_until(2, log, "first")))
        second = await ref.submit(Once(say(log, "second")))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ref.ask, Once(say(log, "third")))
            await trio.sleep(0.5)
            seen = ref.statistics()
            assert seen.queued >= 2
            assert await first == "first"
            assert await second == "second"
    assert log == [(1, "first"), (2, "first"), (2, "second"), (2, "third")]


async def test_another_worker_of_a_pool_takes_it(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """In a pool the message need not wait for the worker that crashed."""
    crashed: list[str] = []

    async def run(actor: Any) -> Any:
        await trio.lowlevel.checkpoint()
        if not crashed:
            crashed.append(actor.context.path)
            raise ValueError
        return actor.context.path

    async with stage.open() as tree:
        slow = RestartPolicy(backoff=Backoff(base=20.0, jitter=0.0))
        pool = await start_pool(tree, PoolSpec(name="pool", workers=2, policy=slow), WorkerActor)
        path = await pool.ref.ask(Again(run))
        assert path != crashed[0]
        assert trio.current_time() == 0


async def test_tokens_are_not_handed_on_twice(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A message whose answer was left to a token that ends with its incarnation is lost, not handled again."""

    async def detach(actor: Any) -> Any:
        await trio.lowlevel.checkpoint()
        keep.append(actor.context.detach_reply())
        return keep[-1]

    keep: list[Any] = []
    async with stage.open() as tree:
        ref = await start(tree)
        pending = await ref.submit(Again(detach))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(HandlerCrashed):
            await ref.ask(Once(crash_until(2)))
        with pytest.raises(InFlightLost):
            await pending
        await trio.sleep(5)
        assert len(keep) == 1


async def test_a_caller_that_leaves_during_the_clean_up_is_not_served_again(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """A message whose caller left between the crash and the next try is not put back in line."""
    log: list[Any] = []

    class Slow(WorkerActor):
        async def on_stop(self, ending: str) -> None:
            await trio.sleep(3)

    async with stage.open() as tree:
        ref = await tree.start_child(ChildSpec(name="a", factory=Slow, policy=QUICK))
        with trio.move_on_after(2) as left:
            await ref.ask(Again(crash_until(2, log)))
        assert left.cancelled_caught
        assert await ref.ask(Once(say(log, "alive"))) == "alive"
        seen = ref.statistics()
        assert (seen.expired, seen.handled, seen.running, seen.queued) == (1, 1, 0, 0)
    assert log == [(1, "done"), (2, "alive")]
