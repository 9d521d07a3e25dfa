"""Crashes in one tick, and the end of a tree while work is under way."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tinker_actors.errors import ActorStopping, InFlightLost
from tinker_actors.kernel import (
    Actor,
    ActorCrashed,
    ActorReady,
    Backoff,
    ChildSpec,
    Ending,
    Message,
    RestartPolicy,
    handles,
)

AT_ONCE = RestartPolicy(backoff=Backoff(base=0, jitter=0))


def crash_at(when: float) -> Any:
    """Return a handler's body that crashes at a time."""

    async def run(actor: Any) -> None:
        await trio.sleep_until(when)
        raise ValueError(actor.context.path)

    return run


def readies(stage: Any) -> list[tuple[str, int]]:
    """Return every incarnation that became ready, in order."""
    return [(event.actor, event.incarnation) for event in stage.events if isinstance(event, ActorReady)]


# --- crashes in one tick ---------------------------------------------------------------------------------


@pytest.mark.scenario(37)
@pytest.mark.rule("N1", "S3", "T4")
@pytest.mark.parametrize(
    ("strategy", "restarts"),
    [("one_for_one", 2), ("dynamic", 2), ("one_for_all", None), ("rest_for_one", None)],
)
@given(schedule=st.random_module())
@settings(max_examples=10)
def test_two_children_that_crash_in_the_same_tick_both_come_back_once(
    strategy: str, restarts: int | None, schedule: object
) -> None:
    """Under every strategy and schedule each of the two has a second incarnation and no third, both are told."""

    async def main() -> None:
        stage = STAGE()
        async with stage.open(strategy=strategy) as tree:
            refs = [await stage.start(tree, name, policy=AT_ONCE) for name in "ab"]
            for ref in refs:
                ref.tell_nowait(stage.Do(crash_at(1)))
            await trio.sleep(2)
            assert [await ref.ask(stage.Do(stage.say(ref.path))) for ref in refs] == ["tree/a", "tree/b"]
            assert restarts in (None, tree.snapshot().restarts)
        assert sorted(readies(stage)) == [("tree/a", 1), ("tree/a", 2), ("tree/b", 1), ("tree/b", 2)]
        crashed = {event.actor for event in stage.events if isinstance(event, ActorCrashed)}
        assert crashed == {"tree/a", "tree/b"}

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def STAGE() -> Any:
    """Make a fresh stage; examples of one test must not share one."""
    return _stages[0]()


_stages: list[Any] = []


@pytest.fixture(autouse=True)
def keep_stage(stage: Any) -> None:
    """Let tests of many examples make stages of their own."""
    _stages[:] = [type(stage)]


@pytest.mark.scenario(37)
@pytest.mark.rule("S2", "S7", "T4")
@pytest.mark.parametrize("policy", [AT_ONCE, RestartPolicy()], ids=["at once", "after a delay"])
@pytest.mark.parametrize("how", ["scope", "tree"])
@given(schedule=st.random_module())
@settings(max_examples=20)
def test_the_end_wins_over_a_restart_of_the_same_tick(
    policy: RestartPolicy, how: str, schedule: object
) -> None:
    """A crash in the tick of an outer cancellation, in any order, is told, and no restart waits for its time.

    Without any delay the restart is due in that very tick, before the body can know; then the end comes next.
    """

    async def main() -> None:
        stage = STAGE()

        async def cancel(scope: trio.CancelScope, tree: Any) -> None:
            await trio.sleep_until(1)
            stage.events.append("cancelled")
            if how == "scope":
                scope.cancel()
            else:
                tree.cancel("a test")

        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                async with stage.open() as tree:
                    ref = await stage.start(tree, policy=policy)
                    ref.tell_nowait(stage.Do(crash_at(1)))
                    nursery.start_soon(cancel, scope, tree)
                    await trio.sleep_forever()
        after = stage.events[stage.events.index("cancelled") :]
        came_up = sum(isinstance(event, ActorReady) for event in after)
        assert came_up <= (policy is AT_ONCE)
        assert len([event for event in stage.events if isinstance(event, ActorCrashed)]) == 1
        assert trio.current_time() == 1

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


# --- the end of a tree while work is under way -----------------------------------------------------------


class Site:
    """Role of the actors below."""


class Beat(Message[Site, None]):
    """Beat once more."""


class Work(Message[Site, str]):
    """Work for five seconds, and leave a rest of two for `on_drain`."""


class Logged(Actor[Site]):
    """An actor that notes what happens to it, and when."""

    def __init__(self, log: list[tuple[float, str]]) -> None:
        self.log = log

    def note(self, what: str) -> None:
        self.log.append((trio.current_time(), f"{self.context.path.rpartition('/')[2]} {what}"))

    async def on_drain(self) -> None:
        await trio.lowlevel.checkpoint()
        self.note("drained")

    async def on_stop(self, ending: Ending) -> None:
        await trio.lowlevel.checkpoint()
        self.note(f"stopped ({ending})")


class Heart(Logged):
    """Beats every second."""

    async def on_start(self) -> None:
        await trio.lowlevel.checkpoint()
        self.context.every(1, self.beat)

    async def beat(self) -> None:
        await trio.lowlevel.checkpoint()
        self.note("beat")


class Worker(Logged):
    """Works, and drains what it has begun."""

    @handles(Work)
    async def work(self, message: Work) -> str:
        try:
            await trio.sleep(5)
        except trio.Cancelled:
            self.note("cut off")
            raise
        self.note("worked")
        return "done"

    async def on_drain(self) -> None:
        await trio.sleep(2)
        await super().on_drain()


class Play:
    """A heart that was started first, a worker, and callers outside of the tree."""

    def __init__(self, stage: Any) -> None:
        self.stage = stage
        self.log: list[tuple[float, str]] = []
        self.ends: dict[str, Any] = {}

    async def call(self, name: str, ref: Any) -> None:
        try:
            self.ends[name] = await ref.ask(Work())
        except (ActorStopping, InFlightLost) as error:
            self.ends[name] = (trio.current_time(), type(error), error.started)

    async def run(self, *cancels: tuple[float, str]) -> None:
        """Start both, ask the worker twice, and cancel the tree at the given times."""
        async with trio.open_nursery() as outside:
            with trio.CancelScope() as scope:
                async with self.stage.open(grace=30) as tree:
                    for name, kind in (("heart", Heart), ("worker", Worker)):
                        factory = lambda kind=kind: kind(self.log)  # noqa: E731 - two of them, bound in a loop
                        ref = await tree.start_child(ChildSpec(name=name, factory=factory))
                    outside.start_soon(self.call, "in hand", ref)
                    await trio.testing.wait_all_tasks_blocked()
                    outside.start_soon(self.call, "in line", ref)
                    for when, how in cancels:
                        outside.start_soon(self.cancel_at, when + 0.5, how, scope, tree)
                    outside.start_soon(self.call_late, cancels[0][0] + 0.6, ref)
                    await trio.sleep_forever()

    async def cancel_at(self, when: float, how: str, scope: trio.CancelScope, tree: Any) -> None:
        await trio.sleep_until(when)
        self.log.append((trio.current_time(), "cancel"))
        if how == "scope":
            scope.cancel()
        else:
            tree.cancel("a test")

    async def call_late(self, when: float, ref: Any) -> None:
        await trio.sleep_until(when)
        await self.call("late", ref)


@pytest.mark.scenario(38)
@pytest.mark.rule("D3", "N6")
@pytest.mark.parametrize("how", ["scope", "tree"])
async def test_work_ends_in_order_while_the_heart_beats(
    stage: Any, how: str, autojump_clock: trio.testing.MockClock
) -> None:
    """Refused at once, finished, drained, stopped, and only then the heart: the phases in order, and no beat missed."""
    play = Play(stage)
    await play.run((2, how))
    assert play.ends == {
        "in hand": "done",
        "in line": (2.5, ActorStopping, False),
        "late": (2.6, ActorStopping, False),
    }
    phases = [entry for entry in play.log if "beat" not in entry[1]]
    assert phases == [
        (2.5, "cancel"),
        (5, "worker worked"),
        (7, "worker drained"),
        (7, "worker stopped (now)"),
        (7, "heart drained"),
        (7, "heart stopped (now)"),
    ]
    assert [when for when, what in play.log if what == "heart beat"][:6] == [1, 2, 3, 4, 5, 6]
    assert stage.delays == []


@pytest.mark.scenario(38)
@pytest.mark.rule("D3")
@pytest.mark.parametrize("first", ["scope", "tree"])
async def test_a_second_cancel_kills(stage: Any, first: str, autojump_clock: trio.testing.MockClock) -> None:
    """After any first cancellation, a `cancel` of the tree cuts the work off, still in order, and tells its caller."""
    play = Play(stage)
    await play.run((2, first), (3, "tree"))
    assert play.ends["in hand"] == (3.5, InFlightLost, True)
    phases = [entry for entry in play.log if "beat" not in entry[1]]
    assert phases[:3] == [(2.5, "cancel"), (3.5, "cancel"), (3.5, "worker cut off")]
    assert sorted(phases[3:]) == [(3.5, "heart stopped (kill)"), (3.5, "worker stopped (kill)")]
