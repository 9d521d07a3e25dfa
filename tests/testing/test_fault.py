from __future__ import annotations

from typing import Any

import pytest
import trio

from tinker_actors.errors import Dropped, HandlerCrashed, InputError, StartFailed
from tinker_actors.kernel import (
    ActorCrashed,
    ActorReady,
    ActorStuck,
    ChildSpec,
    Down,
    Message,
    PoolSpec,
    start_pool,
)
from tinker_actors.testing import Fault, FaultPlan, InjectedCrash, InjectedDrop, Probe, open_test_system


@pytest.mark.rule("T2")
async def test_crash_of_the_nth_message_of_a_type(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """The nth of this type crashes before its handler has seen it, once, and others do not count."""
    plan = FaultPlan().crash(nth=2, of=cast.Add)
    async with open_test_system() as system:
        ref = await system.start(plan.wrap(cast.CounterActor))
        assert await ref.ask(cast.Add(1)) == 1
        await ref.ask(cast.Nap(0))
        with pytest.raises(HandlerCrashed) as raised:
            await ref.ask(cast.Add(2))
        assert isinstance(raised.value.__cause__, InjectedCrash)
        assert await ref.ask(cast.Add(3)) == 3
        (struck,) = plan.injections
        assert (struck.fault, struck.actor, struck.incarnation) == (plan.faults[0], ref.path, 1)
        assert struck.message == cast.Add(2)
        assert repr(plan) == "<FaultPlan of 1 faults, 1 have struck>"


@pytest.mark.rule("T2")
async def test_crash_after_the_work(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """At the reply the handler has done its work, and the caller does not hear of it."""
    log: list[Any] = []
    plan = FaultPlan().crash(at="reply", error=OSError("gone"))
    async with open_test_system() as system:
        ref = await system.start(plan.wrap(lambda: cast.CounterActor(log)))
        with pytest.raises(HandlerCrashed) as raised:
            await ref.ask(cast.Add(7))
        assert isinstance(raised.value.__cause__, OSError)
        assert 7 in log


async def test_counts_go_on_across_incarnations_and_not_across_wraps(
    cast: Any, autojump_clock: trio.abc.Clock
) -> None:
    """The nth message is the nth for the actor, whichever life it lives; each wrapped factory counts for itself."""
    plan = FaultPlan().crash(nth=1).crash(nth=3)
    async with open_test_system() as system:
        for name in ("a", "b"):
            ref = await system.start(plan.wrap(cast.CounterActor), name)
            crashed = []
            for number in range(4):
                try:
                    await ref.ask(cast.Add(number))
                except HandlerCrashed:
                    crashed.append(number)
            assert crashed == [0, 2]


async def test_a_fault_for_each_message(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """`nth=None` strikes every time; an error that the actor declares stays an answer."""
    plan = FaultPlan().crash(nth=None, of=cast.Add, error=cast.Declared("no"))
    async with open_test_system() as system:
        ref = await system.start(plan.wrap(cast.CounterActor))
        for _ in range(3):
            with pytest.raises(cast.Declared, match="no"):
                await ref.ask(cast.Add())
        assert len(plan.injections) == 3
        assert not any(isinstance(event, ActorCrashed) for event in system.events)


@pytest.mark.rule("T2")
async def test_delay_of_a_message(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """It takes so much longer in trio time, and a caller that leaves ends it."""
    plan = FaultPlan().delay(5, nth=1).delay(3600, nth=2)
    async with open_test_system() as system:
        ref = await system.start(plan.wrap(cast.CounterActor))
        begin = trio.current_time()
        assert await ref.ask(cast.Add(1)) == 1
        assert trio.current_time() == begin + 5
        with trio.move_on_after(1):
            await ref.ask(cast.Add(1))
        assert await ref.ask(cast.Add(1)) == 2
        assert trio.current_time() == begin + 6


@pytest.mark.rule("T2")
async def test_a_dropped_message(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """Its handler never sees it: an ask ends in `InjectedDrop`, a tell is a dead letter, and the actor lives on."""
    log: list[Any] = []
    plan = FaultPlan().drop(nth=1).drop(nth=2)
    async with open_test_system() as system:
        ref = await system.start(plan.wrap(lambda: cast.CounterActor(log)))
        with pytest.raises(InjectedDrop, match=r"dropped Add \(message\), as planned") as raised:
            await ref.ask(cast.Add(1))
        assert isinstance(raised.value, Dropped)
        assert (raised.value.started, raised.value.actor) == (False, ref.path)
        assert raised.value.handed_back == cast.Add(1)
        await ref.tell(cast.Add(2))
        assert await ref.ask(cast.Add(3)) == 3
        assert [(letter.reason, letter.message) for letter in system.take_dead_letters()] == [
            ("failed", cast.Add(2))
        ]
    assert [entry for entry in log if isinstance(entry, int)] == [3]
    assert log.count(("start", 1)) == 1


async def test_a_dropped_reply(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """The handler has run, and the caller is told that it had begun; what it returned does not matter."""
    plan = FaultPlan().drop(of=cast.Add, at="reply").drop(of=cast.Detach, at="reply")
    async with open_test_system() as system:
        ref = await system.start(plan.wrap(cast.CounterActor))
        for message in (cast.Add(1), cast.Detach()):
            with pytest.raises(InjectedDrop) as raised:
                await ref.ask(message)
            assert raised.value.started is True
        assert await ref.ask(cast.Add(1)) == 2
        await system.settle()


@pytest.mark.rule("T2")
async def test_faults_at_the_start(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """The nth incarnation does not start, or is slow to; the first one's failure is its starter's."""
    with pytest.raises(StartFailed) as raised:
        async with open_test_system() as system:
            await system.start(FaultPlan().crash(at="start").wrap(cast.CounterActor))
    assert isinstance(raised.value.__cause__, InjectedCrash)
    plan = FaultPlan().crash(nth=1).crash(at="start", nth=2).delay(7, at="start", nth=3)
    async with open_test_system() as system:
        ref = await system.start(plan.wrap(cast.CounterActor), policy=cast.steady)
        begin = trio.current_time()
        with pytest.raises(HandlerCrashed):
            await ref.ask(cast.Add())
        assert await ref.ask(cast.Add()) == 1
        assert trio.current_time() == begin + 10 + 10 + 7
        ready = [event.incarnation for event in system.events if isinstance(event, ActorReady)]
        assert ready == [1, 3]


@pytest.mark.rule("T2")
async def test_faults_at_the_end(cast: Any, autojump_clock: trio.abc.Clock, caplog: Any) -> None:
    """In `on_drain` a crash crashes and a delay delays; in `on_stop` a crash is logged and a delay is cut off."""
    log: list[Any] = []
    plan = FaultPlan().delay(3, at="drain").delay(60, at="stop")
    async with open_test_system() as system:
        ref = await system.start(plan.wrap(lambda: cast.CounterActor(log)), cleanup_timeout=4.0)
        begin = trio.current_time()
        await ref.stop()
        assert trio.current_time() == begin + 3 + 4
        assert log == [("start", 1), "drain"]
        ref = await system.start(FaultPlan().crash(at="stop").wrap(lambda: cast.CounterActor(log)))
        await ref.stop()
        assert "on_stop failed" in caplog.text
        assert "InjectedCrash" in caplog.text
        ref = await system.start(FaultPlan().crash(at="drain").wrap(cast.CounterActor), "drains")
        await ref.stop()
        crashes = [event for event in system.events if isinstance(event, ActorCrashed)]
        assert [(event.actor, type(event.cause)) for event in crashes] == [("test/drains", InjectedCrash)]


@pytest.mark.rule("T2")
async def test_an_actor_that_is_stuck(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """A shielded delay hears no cancellation, so the runtime reports the actor and leaves it behind."""
    plan = FaultPlan().delay(100, shield=True)
    async with open_test_system(allow_dead_letters={"lost"}) as system:
        ref = await system.start(plan.wrap(cast.CounterActor), cleanup_timeout=1.0)
        await ref.tell(cast.Add())
        await trio.testing.wait_all_tasks_blocked()
        await ref.stop("kill")
        assert (await ref.wait_stopped()).reason == "stuck"
        assert sum(isinstance(event, ActorStuck) for event in system.events) == 1


async def test_a_wrapped_actor_is_the_same_actor(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """Without faults nothing changes: declared errors, unknown types, context, hooks, a watch, undelivered messages."""
    log: list[Any] = []
    async with open_test_system(allow_dead_letters={"unhandled", "stopped"}) as system:
        ref = await system.start(FaultPlan().wrap(lambda: cast.CounterActor(log)), "a")
        with pytest.raises(cast.Declared):
            await ref.ask(cast.Throw(cast.Declared()))
        await ref.tell(cast.Strange())
        assert await ref.ask(cast.Add(2)) == 2
        await ref.tell(cast.Nap(5))
        await ref.tell(cast.Add(3))
        await trio.testing.wait_all_tasks_blocked()
        await ref.stop("now")
        assert log == [("start", 1), 2, "drain", ("undelivered", [cast.Add(3)]), ("stop", "now")]
        probe = Probe("watcher")
        await system.start(FaultPlan().wrap(probe.factory), "watcher")
        probe.watch(ref)
        assert (await probe.expect(Down)).path == ref.path


async def test_down_is_spared_unless_it_is_meant(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """Faults of no type in particular leave the runtime's `Down` alone; one of that type strikes it."""
    async with open_test_system(allow_dead_letters={"failed"}) as system:
        gone = await system.start(cast.CounterActor)
        await gone.stop()
        for plan, hits in ((FaultPlan().drop(nth=None), 0), (FaultPlan().drop(of=Down), 1)):
            probe = Probe(f"probe-{hits}")
            await system.start(plan.wrap(probe.factory), probe.name)
            probe.watch(gone)
            await system.settle()
            assert (len(plan.injections), len(probe.received)) == (hits, 1 - hits)


async def test_workers_of_a_pool_share_the_count(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """The nth message of the pool is struck, whoever takes it."""
    plan = FaultPlan().drop(nth=5)
    async with open_test_system() as system:
        pool = await start_pool(system.root, PoolSpec(name="pool", workers=3), plan.wrap(cast.CounterActor))
        lost = []
        for number in range(10):
            try:
                await pool.ref.ask(cast.Add(number))
            except InjectedDrop:
                lost.append(number)
        assert lost == [4]


async def outcomes(cast: Any, plan: FaultPlan, count: int = 60) -> list[str]:
    """Ask an actor under a plan again and again; tell what came of it, and when."""
    seen = []
    policy = cast.steady
    async with open_test_system() as system:
        spec = ChildSpec(name="a", factory=plan.wrap(cast.CounterActor), policy=policy, on_exhausted="fail")
        ref = await system.start(spec)
        for _ in range(count):
            begin = trio.current_time()
            try:
                await ref.ask(cast.Nap(0))
                seen.append(f"replied after {trio.current_time() - begin:.3f}")
            except (HandlerCrashed, Dropped) as error:
                seen.append(f"{type(error).__name__} {getattr(error, 'started', None)}")
                await system.settle()
    return seen


@pytest.mark.rule("T2", "T4")
async def test_faults_by_chance_follow_their_seed(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """The same seed strikes the same messages in the same way, another seed others; the rate is kept."""

    def plan(seed: int, **settings: Any) -> FaultPlan:
        return FaultPlan.random(seed, **{"rate": 0.3, "kinds": ("delay", "drop"), **settings})

    first = await outcomes(cast, plan(1))
    assert await outcomes(cast, plan(1)) == first
    assert await outcomes(cast, plan(2)) != first
    assert {"InjectedDrop False", "InjectedDrop True"} <= set(first)
    assert 8 < sum(one != "replied after 0.000" for one in first) < 30
    assert set(await outcomes(cast, plan(1, rate=0.0))) == {"replied after 0.000"}
    assert set(await outcomes(cast, plan(1, of=cast.Add))) == {"replied after 0.000"}
    assert len(set(await outcomes(cast, plan(1, rate=1.0, kinds=("delay",), max_delay=9.0)))) > 50


async def test_crashes_by_chance(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """They strike before and after the handler."""
    plan = FaultPlan.random(1, rate=1.0, kinds=("crash",))
    assert set(await outcomes(cast, plan, count=3)) == {"HandlerCrashed True"}
    assert {injection.fault.place for injection in plan.injections} == {"message", "reply"}


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"what": "delay", "seconds": -1.0}, "seconds"),
        ({"what": "delay", "seconds": float("nan")}, "seconds"),
        ({"what": "crash", "nth": 0}, "nth"),
        ({"what": "crash", "place": "lunch"}, "at"),
        ({"what": "drop", "place": "stop"}, "at"),
        ({"what": "crash", "place": "start", "of": Message}, "of"),
        ({"what": "explode"}, "what"),
    ],
)
def test_a_fault_that_cannot_be_is_refused(arguments: dict[str, Any], field: str) -> None:
    """The error names the field."""
    with pytest.raises(InputError) as raised:
        Fault(**arguments)
    assert raised.value.field == field


@pytest.mark.parametrize("arguments", [{"rate": 1.5}, {"kinds": ()}, {"kinds": ("explode",)}])
def test_chances_that_cannot_be_are_refused(arguments: dict[str, Any]) -> None:
    """A rate is a probability, and kinds are known."""
    with pytest.raises(InputError):
        FaultPlan.random(0, **arguments)
