"""Whoever watches an actor gets exactly one `Down`."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from tinker_actors.errors import ActorError, RestartIntensityExceeded
from tinker_actors.kernel import Actor, Backoff, ChildSpec, Down, PoolSpec, RestartPolicy, handles, start_pool
from tinker_actors.kernel.watch import Obituary

QUICK = RestartPolicy(backoff=Backoff(base=1.0, jitter=0.0))
NEVER = RestartPolicy(restart="temporary")


async def watcher(stage: Any, tree: Any, name: str = "w", **settings: Any) -> Any:
    """Start a puppet that notes the `Down`s it gets."""

    class Watcher(stage.PuppetActor):
        @handles(Down)
        async def down(self, message: Down) -> None:
            stage.log.append((message.path, message.reason))
            await trio.lowlevel.checkpoint()

    return await stage.start(tree, name, factory=Watcher, policy=QUICK, **settings)


def do(stage: Any, function: Any) -> Any:
    """Make a message of a plain function of the actor's context."""

    async def run(actor: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return function(actor.context)

    return stage.Do(run)


async def crash(ref: Any, stage: Any) -> None:
    """Make an actor crash."""
    with pytest.raises(ActorError):
        await ref.ask(stage.Do(stage.fail(ValueError("crash"))))
    await trio.testing.wait_all_tasks_blocked()


# --- the obituary itself ------------------------------------------------------------------------------------


@pytest.mark.requirement("R143")
@pytest.mark.rule("W1")
def test_everybody_is_told_once() -> None:
    """All watchers in the order they came, each once, also if the end is told twice."""
    heard: list[Any] = []
    obituary = Obituary()
    for number in range(3):
        obituary.add(lambda down, number=number: heard.append((number, down.reason)))
    assert obituary.watchers == 3
    obituary.ended(Down("tree/a", "stopped"))
    obituary.ended(Down("tree/a", "failed"))
    assert heard == [(0, "stopped"), (1, "stopped"), (2, "stopped")]
    assert obituary.down == Down("tree/a", "stopped")
    assert obituary.watchers == 0


@pytest.mark.rule("W1")
def test_who_comes_late_is_told_at_once() -> None:
    """A watcher of what has ended hears before `add` returns, and leaves no entry."""
    heard: list[Down] = []
    obituary = Obituary()
    obituary.ended(Down("tree/a", "stopped"))
    key = obituary.add(heard.append, incarnations=True)
    assert heard == [Down("tree/a", "stopped")]
    assert obituary.watchers == 0
    obituary.remove(key)


def test_who_has_left_is_not_told() -> None:
    """A removed watcher hears nothing, and removing it again is no matter."""
    heard: list[Down] = []
    obituary = Obituary()
    key = obituary.add(heard.append, incarnations=True)
    obituary.remove(key)
    obituary.remove(key)
    obituary.restarting(Down("tree/a", "restarting"))
    obituary.ended(Down("tree/a", "stopped"))
    assert heard == []


@pytest.mark.rule("W1")
def test_incarnations_are_for_those_who_asked() -> None:
    """A restart is told to them only, and does not end their watch."""
    plain: list[str] = []
    curious: list[str] = []
    obituary = Obituary()
    obituary.add(lambda down: plain.append(down.reason))
    obituary.add(lambda down: curious.append(down.reason), incarnations=True)
    obituary.restarting(Down("tree/a", "restarting"))
    obituary.restarting(Down("tree/a", "restarting"))
    obituary.ended(Down("tree/a", "stopped"))
    obituary.restarting(Down("tree/a", "restarting"))
    assert plain == ["stopped"]
    assert curious == ["restarting", "restarting", "stopped"]


def test_a_watcher_may_leave_while_another_is_told() -> None:
    """A watcher of incarnations that unwatches another one in its callback breaks nothing."""
    heard: list[str] = []
    obituary = Obituary()
    keys: list[int] = []

    def first(down: Down) -> None:
        heard.append("first")
        obituary.remove(keys[1])

    keys.append(obituary.add(first, incarnations=True))
    keys.append(obituary.add(lambda _: heard.append("second"), incarnations=True))
    obituary.restarting(Down("tree/a", "restarting"))
    assert heard == ["first"]


# --- waiting for an end -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["drain", "now", "kill"])
async def test_wait_stopped_returns_how_it_ended(
    stage: Any, mode: str, autojump_clock: trio.abc.Clock
) -> None:
    """It waits through restarts, and returns at once when there is nothing to wait for any more."""
    async with stage.open() as tree:
        ref = await stage.start(tree, policy=QUICK)
        found: list[Down] = []

        async def wait() -> None:
            found.append(await ref.wait_stopped())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await crash(ref, stage)
            await trio.sleep(5)
            assert found == []
            assert not ref.stopped
            await ref.stop(mode)
        assert found == [Down("tree/a", "stopped")]
        assert ref.stopped
        assert await ref.wait_stopped() == found[0]


async def test_a_failure_carries_its_cause(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Who was given up after a crash is `failed`, because of what it raised."""
    async with stage.open() as tree:
        ref = await stage.start(tree, policy=NEVER)
        async with ref.watching() as watch:
            await crash(ref, stage)
            down = await watch.down()
            assert await watch.down() is down
        assert (down.path, down.reason) == ("tree/a", "failed")
        assert isinstance(down.cause, ValueError)


@pytest.mark.rule("W1")
async def test_watching_leaves_no_trace(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Left by its end, by an error or by a cancellation, a watch is forgotten."""
    async with stage.open() as tree:
        ref = await stage.start(tree)
        async with ref.watching():
            assert ref.obituary.watchers == 1
        with pytest.raises(KeyError):
            async with ref.watching():
                raise KeyError
        with trio.move_on_after(1):
            await ref.wait_stopped()
        assert ref.obituary.watchers == 0


async def test_a_pool_can_be_watched(stage: Any) -> None:
    """Its ref ends when all of its workers have."""
    async with stage.open() as tree:
        pool = await start_pool(tree, PoolSpec(name="pool", workers=2), stage.PuppetActor)
        async with pool.ref.watching() as watch:
            await tree.stop_child("pool")
            assert (await watch.down()) == Down("tree/pool", "stopped")


# --- actors that watch --------------------------------------------------------------------------------------


@pytest.mark.rule("M6", "W1")
async def test_an_actor_hears_of_another_ones_end(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Once, before the messages that were in line, and not of restarts."""
    async with stage.open() as tree:
        ref = await stage.start(tree, policy=QUICK)
        seer = await watcher(stage, tree)
        await seer.ask(do(stage, lambda context: context.watch(ref)))
        await crash(ref, stage)
        await trio.sleep(5)
        assert stage.log == []
        await seer.tell(stage.Do(stage.sleep(1, "long")))
        for number in range(3):
            await seer.tell(stage.Do(stage.say(number)))
        await ref.stop()
        await trio.sleep(5)
        assert stage.log == [("begin", "long"), ("end", "long"), ("tree/a", "stopped"), 0, 1, 2]
        assert ref.obituary.watchers == 0
        assert seer.statistics().admitted == 5  # a `Down` is no message of a user


async def test_the_dead_are_reported_at_once(stage: Any) -> None:
    """Watching what has ended gives the one `Down` immediately, each time it is asked for."""
    async with stage.open() as tree:
        ref = await stage.start(tree)
        seer = await watcher(stage, tree)
        await ref.stop()
        for _ in range(2):
            await seer.ask(do(stage, lambda context: context.watch(ref)))
            await trio.testing.wait_all_tasks_blocked()
        assert stage.log == [("tree/a", "stopped")] * 2


async def test_watching_twice_gives_one_down(stage: Any) -> None:
    """A second watch takes the place of the first."""
    async with stage.open() as tree:
        ref = await stage.start(tree)
        seer = await watcher(stage, tree)
        for _ in range(3):
            await seer.ask(do(stage, lambda context: context.watch(ref)))
        assert ref.obituary.watchers == 1
        await ref.stop()
        await trio.testing.wait_all_tasks_blocked()
        assert stage.log == [("tree/a", "stopped")]


@pytest.mark.rule("W1")
async def test_nothing_comes_after_unwatch(stage: Any) -> None:
    """Also if the end has come in the very same tick and its `Down` is under way; others' `Down`s still come."""
    async with stage.open() as tree:
        a = await stage.start(tree, "a")
        b = await stage.start(tree, "b")
        seer = await watcher(stage, tree)

        async def race(actor: Any) -> None:
            context = actor.context
            context.watch(a)
            context.watch(b)
            await b.stop()
            await a.stop()
            assert [e.message.path for e in context._host._signals] == ["tree/b", "tree/a"]
            context.unwatch(a)
            context.unwatch(a)

        await seer.ask(stage.Do(race))
        await trio.testing.wait_all_tasks_blocked()
        assert stage.log == [("tree/b", "stopped")]
        assert a.obituary.watchers == 0


async def test_incarnations_are_told_on_request(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Each restart is a `Down` with reason `restarting`; the end is another one."""
    async with stage.open() as tree:
        ref = await stage.start(tree, policy=QUICK)
        seer = await watcher(stage, tree)
        await seer.ask(do(stage, lambda context: context.watch(ref, incarnations=True)))
        for _ in range(2):
            await crash(ref, stage)
            await trio.sleep(5)
        await ref.stop()
        await trio.testing.wait_all_tasks_blocked()
        assert stage.log == [("tree/a", reason) for reason in ("restarting", "restarting", "stopped")]


@pytest.mark.rule("S9")
async def test_a_watch_ends_with_its_incarnation(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """The next incarnation of the watcher hears nothing, and leaves no entry behind."""
    async with stage.open() as tree:
        ref = await stage.start(tree)
        seer = await watcher(stage, tree)
        await seer.ask(do(stage, lambda context: context.watch(ref)))
        await crash(seer, stage)
        assert ref.obituary.watchers == 0
        await trio.sleep(5)
        await ref.stop()
        await seer.ask(stage.Do(stage.say("alive")))
        assert stage.log == ["alive"]


async def test_a_down_under_way_does_not_reach_the_next_incarnation(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """A `Down` that waited when its watcher crashed is gone with the incarnation."""
    async with stage.open() as tree:
        ref = await stage.start(tree)
        seer = await watcher(stage, tree)

        async def watch_and_crash(actor: Any) -> None:
            actor.context.watch(ref)
            await ref.stop()
            raise ValueError

        with pytest.raises(ActorError):
            await seer.ask(stage.Do(watch_and_crash))
        await trio.sleep(5)
        await seer.ask(stage.Do(stage.say("alive")))
        assert stage.log == ["alive"]


async def test_a_down_that_crashes_its_handler_is_a_crash(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """The watcher is restarted like after any other crash; nothing is counted for the signal."""

    class Broken(stage.PuppetActor):
        @handles(Down)
        async def down(self, message: Down) -> None:
            await trio.lowlevel.checkpoint()
            raise ValueError(message.path)

    async with stage.open() as tree:
        ref = await stage.start(tree)
        seer = await stage.start(tree, "w", factory=Broken, policy=QUICK)
        await seer.ask(do(stage, lambda context: context.watch(ref)))
        await ref.stop()
        await trio.sleep(5)
        assert stage.delays == [1.0]
        seen = seer.statistics()
        assert (seen.admitted, seen.handled, seen.failed, seen.running) == (1, 1, 0, 0)


async def test_who_cannot_hear_cannot_watch(stage: Any) -> None:
    """An actor without a handler for `Down` is told so where it watches."""
    async with stage.open() as tree:
        ref = await stage.start(tree)

        async def watch(actor: Any) -> None:
            await trio.lowlevel.checkpoint()
            with pytest.raises(TypeError, match="tree/b has no handler for Down, so it cannot watch tree/a"):
                actor.context.watch(ref)

        await (await stage.start(tree, "b")).ask(stage.Do(watch))
        assert ref.obituary.watchers == 0


async def test_watching_begins_in_on_start(stage: Any) -> None:
    """What ends while `on_start` still runs is told before the first message."""

    class Early(Actor[Any]):
        async def on_start(self) -> None:
            self.context.watch(ref)
            await ref.stop()

        @handles(Down)
        async def down(self, message: Down) -> None:
            stage.log.append(message.path)
            await trio.lowlevel.checkpoint()

        @handles(stage.Do)
        async def do(self, message: Any) -> Any:
            return await message.run(self)

    async with stage.open() as tree:
        ref = await stage.start(tree)
        seer = await tree.start_child(ChildSpec(name="w", factory=Early))
        await seer.ask(stage.Do(stage.say("first")))
    assert stage.log == ["tree/a", "first"]


async def test_an_idle_crew_wakes_for_a_down(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Where handlers run side by side, one of the idle readers takes the `Down`, and it comes once."""
    async with stage.open() as tree:
        ref = await stage.start(tree)
        seer = await watcher(stage, tree, concurrency=4)
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(seer.ask, stage.Do(stage.sleep(1, number)))
        stage.log.clear()
        await seer.ask(do(stage, lambda context: context.watch(ref)))
        await ref.stop()
        await trio.testing.wait_all_tasks_blocked()
        assert stage.log == [("tree/a", "stopped")]


@pytest.mark.rule("W1")
async def test_a_thousand_watchers_get_one_each(stage: Any) -> None:
    """All of them hear, none twice, and the list of watchers is empty afterwards."""
    async with stage.open() as tree:
        ref = await stage.start(tree)
        seer = await watcher(stage, tree)
        heard = [0] * 1000

        async def wait(index: int) -> None:
            await ref.wait_stopped()
            heard[index] += 1

        async with trio.open_nursery() as nursery:
            for index in range(1000):
                nursery.start_soon(wait, index)
            await seer.ask(do(stage, lambda context: context.watch(ref)))
            await trio.testing.wait_all_tasks_blocked()
            assert ref.obituary.watchers == 1001
            await ref.stop()
        assert heard == [1] * 1000
        assert ref.obituary.watchers == 0
    assert stage.log == [("tree/a", "stopped")]


async def test_the_end_of_the_tree_is_an_end(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A tree that gives up tells of everybody: the one that failed, and those that were stopped for it."""
    downs: dict[str, str] = {}
    with pytest.raises(RestartIntensityExceeded):
        async with stage.open() as tree:
            for name in ("a", "b"):
                ref = await stage.start(tree, name, policy=RestartPolicy(max_restarts=0))
                ref.obituary.add(lambda down: downs.update({down.path: down.reason}))
            await crash(ref, stage)
            await trio.sleep_forever()
    assert downs == {"tree/a": "stopped", "tree/b": "failed"}


async def test_several_wait_on_one_watch(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """One of them may leave; the others, and who comes later, get the same `Down`."""
    found: list[Down] = []
    async with stage.open() as tree:
        ref = await stage.start(tree)

        async def wait(watch: Any, seconds: float) -> None:
            with trio.move_on_after(seconds):
                found.append(await watch.down())

        async with ref.watching() as watch, trio.open_nursery() as nursery:
            for seconds in (1, 100, 100):
                nursery.start_soon(wait, watch, seconds)
            await trio.sleep(5)
            await ref.stop()
        assert found == [Down("tree/a", "stopped")] * 2
