from __future__ import annotations

import gc
from typing import Any, get_args

import attrs
import pytest
import trio

from tinker_actors.errors import HandlerCrashed, InputError, RestartIntensityExceeded
from tinker_actors.kernel import (
    ActorCrashed,
    ActorReady,
    ChildSpec,
    DeadLetter,
    Intensity,
    MessageSettled,
    Reason,
    RestartPolicy,
)
from tinker_actors.testing import FaultPlan, open_test_system, run_virtual


async def test_an_actor_is_started_from_its_class(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """A factory is enough, names are found, settings may be given, and a spec says it all."""
    async with open_test_system() as system:
        ref = await system.start(cast.CounterActor)
        assert await ref.ask(cast.Add(2)) == 2
        other = await system.start(cast.CounterActor)
        small = await system.start(cast.CounterActor, "small", capacity=1)
        spec = await system.start(ChildSpec(name="spec", factory=cast.CounterActor))
        paths = ["test/CounterActor", "test/CounterActor-2", "test/small", "test/spec"]
        assert [one.path for one in (ref, other, small, spec)] == paths
        assert small.statistics().capacity == 1
        with pytest.raises(InputError, match="evolve"):
            await system.start(ChildSpec(name="more", factory=cast.CounterActor), capacity=1)


async def test_events_are_kept(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """Starts, crashes and single messages are in `events`; an observer of one's own is told as well."""
    told: list[Any] = []
    async with open_test_system("tree", observer=told.append) as system:
        ref = await system.start(cast.CounterActor, policy=cast.steady)
        with pytest.raises(HandlerCrashed):
            await ref.ask(cast.Throw(KeyError("x")))
        await system.settle()
        kinds = [type(event) for event in system.events]
        assert kinds.count(ActorReady) == 2
        assert kinds.count(ActorCrashed) == 1
        assert [event.kind for event in system.events if isinstance(event, MessageSettled)] == ["Throw"]
    assert told == system.events


@pytest.mark.rule("T2")
async def test_a_dead_letter_fails_the_test(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """At the end, letters nobody expected are listed with reason, message and actor."""
    with pytest.raises(
        AssertionError, match=r"2 dead letters nobody expected:\n  unhandled: Strange\(\) for test/a\n"
    ):
        async with open_test_system() as system:
            ref = await system.start(cast.CounterActor, "a")
            await ref.tell(cast.Strange())
            await ref.tell(cast.Throw(cast.Declared()))


@pytest.mark.rule("T2")
async def test_a_dead_letter_of_the_drain_fails_the_test(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """What is lost while the tree stops counts as well."""
    with pytest.raises(AssertionError, match="lost: Nap"):
        async with open_test_system(grace=5.0) as system:
            await (await system.start(cast.CounterActor)).tell(cast.Nap(3600))


@pytest.mark.rule("T2")
async def test_an_unobserved_failure_fails_the_test(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """A `Pending` that failed and was thrown away unseen is a dead letter, even at the very end."""
    with pytest.raises(AssertionError, match="unobserved: Throw"):
        async with open_test_system() as system:
            ref = await system.start(cast.CounterActor)
            pending = await ref.submit(cast.Throw(cast.Declared()))
            await system.settle()
            del pending
            gc.collect()


async def test_expected_dead_letters_do_not_fail(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """Those of an allowed reason, and those that the test has taken, pass; others still fail."""
    async with open_test_system(allow_dead_letters={"unhandled"}) as system:
        ref = await system.start(cast.CounterActor)
        await ref.tell(cast.Strange())
        await ref.tell(cast.Throw(cast.Declared()))
        await system.settle()
        with pytest.raises(AssertionError, match="1 dead letters"):
            system.assert_no_dead_letters()
        taken = system.take_dead_letters()
        assert all(isinstance(letter, DeadLetter) for letter in taken)
        assert [letter.reason for letter in taken] == ["unhandled", "failed"]
        system.assert_no_dead_letters()


async def test_the_bodys_own_error_wins(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """A body that raises is not judged: its exception leaves, the same object, with the letters as a note."""
    error = KeyError("mine")
    with pytest.raises(KeyError) as raised:
        async with open_test_system() as system:
            ref = await system.start(cast.CounterActor)
            await ref.tell(cast.Strange())
            await system.settle()
            raise error
    assert raised.value is error
    assert "unhandled: Strange() for test/CounterActor" in error.__notes__[0]


async def test_an_actor_given_up_fails_the_test(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """A failure that escalates leaves as the kernel's own error."""
    with pytest.raises(RestartIntensityExceeded):
        async with open_test_system() as system:
            ref = await system.start(cast.CounterActor, policy=RestartPolicy(max_restarts=0))
            with pytest.raises(HandlerCrashed):
                await ref.ask(cast.Throw(KeyError()))
            await trio.sleep_forever()


@pytest.mark.rule("T2")
async def test_a_task_that_outlives_its_actor_fails_the_test(
    cast: Any, autojump_clock: trio.abc.Clock
) -> None:
    """A task that an actor started in somebody else's nursery is found at the end, by name and actor."""
    async with trio.open_nursery() as nursery:
        with pytest.raises(AssertionError, match=r"sleep_forever, started by test/leaky"):
            async with open_test_system() as system:
                ref = await system.start(cast.CounterActor, "leaky")
                await ref.ask(cast.Begin(nursery, trio.sleep_forever))
        nursery.cancel_scope.cancel()


async def test_a_task_may_live_as_long_as_its_actor(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """It is a leak once its actor has ended, and none if it ends then without waiting for anything else."""
    async with trio.open_nursery() as nursery, open_test_system() as system:
        ref, other = await system.start(cast.CounterActor), await system.start(cast.CounterActor)
        stopped = trio.Event()
        await ref.ask(cast.Begin(nursery, stopped.wait))
        system.assert_no_leaks()
        await ref.stop()
        with pytest.raises(AssertionError, match="1 tasks have outlived"):
            system.assert_no_leaks()
        stopped.set()

        async def leave_slowly() -> None:
            await other.wait_stopped()
            for _ in range(20):
                await trio.lowlevel.checkpoint()

        await other.ask(cast.Begin(nursery, leave_slowly))


async def test_tasks_of_the_test_are_no_leaks(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """What the test itself started is its own affair."""
    async with trio.open_nursery() as nursery:
        async with open_test_system() as system:
            nursery.start_soon(trio.sleep_forever)
            await system.start(cast.CounterActor)
        nursery.cancel_scope.cancel()


@pytest.mark.rule("T2")
async def test_counters_of_ended_actors_are_checked(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """Counters that do not add up fail the test, of an actor that has ended below a nested supervisor as well."""
    with pytest.raises(AssertionError, match=r"test/nested/a: 2 admitted, but 1 ended"):
        async with open_test_system() as system:
            nested = system.root.start_supervisor("nested")
            ref = await nested.start_child(ChildSpec(name="a", factory=cast.CounterActor))
            await ref.ask(cast.Add())
            system.assert_counters()
            ref._target.mailbox._next_seq += 1
            await ref.stop()


@pytest.mark.rule("T2")
async def test_settle_waits_for_handlers_and_backoff(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """It returns at the very time at which nothing is under way any more, and no sooner."""
    async with open_test_system(allow_dead_letters={"crashed"}) as system:
        ref = await system.start(cast.CounterActor, policy=cast.steady)
        await ref.tell(cast.Nap(3))
        await ref.tell(cast.Throw(KeyError()))
        await ref.tell(cast.Nap(2))
        with pytest.raises(AssertionError, match="2 messages wait in line; it handles Nap"):
            await system.settle(within=1.0)
        begin = trio.current_time()
        await system.settle()
        assert trio.current_time() - begin == 2 + 10 + 2
        system.assert_quiescent()


async def test_settle_does_not_wait_for_idle_tasks(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """A tree with nothing to do is settled at once, whatever the test's own tasks wait for."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep, 100)
        async with open_test_system() as system:
            await system.start(cast.CounterActor)
            begin = trio.current_time()
            await system.settle()
            assert trio.current_time() == begin
        nursery.cancel_scope.cancel()


async def stormy_day(cast: Any) -> list[Any]:
    """Run an actor that crashes and is slow by chance, with many senders; return what was told, with the times."""
    told: list[Any] = []

    def observe(event: Any) -> None:
        what = attrs.evolve(event, cause=None) if isinstance(event, ActorCrashed) else event
        told.append((trio.current_time(), what))

    intensity = Intensity(max_restarts=1000)
    async with open_test_system(
        observer=observe, intensity=intensity, allow_dead_letters=get_args(Reason)
    ) as system:
        plan = FaultPlan.random(3, rate=0.3, kinds=("crash", "delay"))
        policy = RestartPolicy(max_restarts=1000)
        ref = await system.start(plan.wrap(cast.CounterActor), policy=policy, capacity=3)
        async with trio.open_nursery() as nursery:
            for number in range(30):
                message = cast.Add(number) if number % 2 else cast.Nap(1.0)
                nursery.start_soon(ref.tell, message)
        await system.settle(within=10_000)
    return told


@pytest.mark.rule("T4")
def test_the_same_seed_gives_the_same_events(cast: Any) -> None:
    """Two runs of one seed, jittered backoff and races included, tell the same events at the same times."""
    first = run_virtual(stormy_day, cast, seed=1)
    assert run_virtual(stormy_day, cast, seed=1) == first
    assert run_virtual(stormy_day, cast, seed=2) != first
    assert sum(isinstance(event, ActorCrashed) for _, event in first) > 2
