"""Waits that would never end, and children that ask a parent that is on its way in or out."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from tinker_actors.errors import ActorStopping, AskCycle, HandlerCrashed, StartFailed


async def refused(ticks: Any, send: Any, message: Any) -> tuple[str, ...]:
    """Send, and return the path of the cycle that this would have closed, seen in one tick at most."""
    before = ticks.now
    with trio.fail_after(10), pytest.raises(AskCycle) as caught:
        await send(message)
    assert ticks.now - before <= 1
    assert caught.value.started is False
    path = caught.value.path
    assert " -> ".join(path) in str(caught.value)
    return path


async def until(condition: Any) -> None:
    while not condition():  # noqa: ASYNC110 - counters have no event
        await trio.lowlevel.checkpoint()


# --- cycles -------------------------------------------------------------------------------------------------


@pytest.mark.scenario(18)
@pytest.mark.rule("K5", "A2")
async def test_an_actor_that_asks_itself_is_refused(
    stage: Any, books: Any, ticks: Any, autojump_clock: trio.abc.Clock
) -> None:
    """In a handler, in `on_start` and through a `Pending`, within a tick, and the actor goes on."""
    paths = []

    async def ask_itself(actor: Any) -> None:
        paths.append(await refused(ticks, actor.context.ref.ask, stage.Do(stage.say("never"))))

    async def wait_for_itself(actor: Any) -> None:
        pending = await actor.context.ref.submit(stage.Do(stage.say("later")))

        async def wait(_: Any) -> Any:
            return await pending

        paths.append(await refused(ticks, wait, None))

    async with stage.open() as tree:
        ref = await books.start(tree, starting=ask_itself)
        await ref.ask(stage.Do(ask_itself))
        await ref.ask(stage.Do(wait_for_itself))
        assert await ref.ask(stage.Do(stage.say("alive"))) == "alive"
    assert paths == [("tree/a", "tree/a")] * 3
    assert stage.log == ["later", "alive"]
    assert trio.current_time() == 0.0


@pytest.mark.scenario(18)
@pytest.mark.rule("K5", "A2")
@pytest.mark.parametrize("names", ["ab", "abcd"])
async def test_a_chain_that_comes_back_is_refused_where_it_closes(
    stage: Any, books: Any, ticks: Any, names: str, autojump_clock: trio.abc.Clock
) -> None:
    """The last asker gets the whole path, the first; all asks above it are answered."""
    refs = {}

    def ask_from(rest: str) -> Any:
        async def run(_: Any) -> Any:
            if rest:
                return await refs[rest[0]].ask(stage.Do(ask_from(rest[1:])))
            return await refused(ticks, refs[names[0]].ask, stage.Do(stage.say("never")))

        return run

    async with stage.open() as tree:
        for name in names:
            refs[name] = await books.start(tree, name)
        path = await refs[names[0]].ask(stage.Do(ask_from(names[1:])))
    assert path == tuple(f"tree/{name}" for name in (names[-1], *names))
    assert stage.log == []


@pytest.mark.scenario(18)
@pytest.mark.rule("K5", "A2", "A3")
async def test_a_cycle_nobody_catches_is_a_crash_of_the_last_asker(
    stage: Any, books: Any, ticks: Any, autojump_clock: trio.abc.Clock
) -> None:
    """Who waits for it hears of the crash with the cycle as its cause; the first of the chain stays whole."""

    async def back(_: Any) -> None:
        await a.ask(stage.Do(stage.say("never")))

    async def forth(actor: Any) -> Any:
        with pytest.raises(HandlerCrashed) as caught:
            await b.ask(stage.Do(back))
        assert isinstance(caught.value.__cause__, AskCycle)
        return caught.value.__cause__.path, actor.context.incarnation

    async with stage.open() as tree:
        a, b = await books.start(tree, "a"), await books.start(tree, "b")
        with trio.fail_after(10):
            assert await a.ask(stage.Do(forth)) == (("tree/b", "tree/a", "tree/b"), 1)
        assert await b.ask(stage.Do(incarnation)) == 2


async def incarnation(actor: Any) -> int:
    await trio.lowlevel.checkpoint()
    return actor.context.incarnation


@pytest.mark.scenario(18)
@pytest.mark.rule("K5", "A2")
async def test_two_chains_that_meet_head_on(
    stage: Any, books: Any, ticks: Any, autojump_clock: trio.abc.Clock
) -> None:
    """The one that closes the ring is refused, and the other one is answered when its handler has ended."""

    async def run_a(_: Any) -> Any:
        return await b.ask(stage.Do(stage.say("answered")))

    async def run_b(_: Any) -> Any:
        await until(lambda: b.statistics().queued == 1)
        return await refused(ticks, a.ask, stage.Do(stage.say("never")))

    async with stage.open() as tree:
        a, b = await books.start(tree, "a"), await books.start(tree, "b")
        of_b = await b.submit(stage.Do(run_b))
        of_a = await a.submit(stage.Do(run_a))
        assert await of_b == ("tree/b", "tree/a", "tree/b")
        assert await of_a == "answered"
    assert trio.current_time() == 0.0


@pytest.mark.scenario(18)
@pytest.mark.rule("K5", "A2")
@pytest.mark.parametrize("first", ["tell", "submit", "ask"])
@pytest.mark.parametrize("second", ["tell", "submit"])
async def test_two_that_wait_for_room_in_each_others_mailboxes(
    stage: Any, books: Any, ticks: Any, first: str, second: str, autojump_clock: trio.abc.Clock
) -> None:
    """The wait for room that would close the ring is refused, and then the other one gets its room."""

    async def run_a(_: Any) -> None:
        await getattr(b, first)(stage.Do(stage.say("from a")))

    async def run_b(_: Any) -> Any:
        await until(lambda: b.statistics().parked == a.statistics().queued == 1)
        path = await refused(ticks, getattr(a, second), stage.Do(stage.say("never")))
        assert a.statistics().parked == 0
        return path

    async with stage.open() as tree:
        a, b = await books.start(tree, "a", capacity=1), await books.start(tree, "b", capacity=1)
        answer = await b.submit(stage.Do(run_b))
        await until(lambda: b.statistics().running == 1)
        await b.tell(stage.Do(stage.say("in line of b")))
        await a.tell(stage.Do(run_a))
        await until(lambda: a.statistics().running == 1)
        await a.tell(stage.Do(stage.say("in line of a")))
        assert await answer == ("tree/b", "tree/a", "tree/b")
    assert sorted(stage.log) == ["from a", "in line of a", "in line of b"]
    assert trio.current_time() == 0.0


@pytest.mark.scenario(18)
@pytest.mark.rule("K5")
async def test_an_actor_that_waits_for_room_in_its_own_mailbox(
    stage: Any, books: Any, ticks: Any, autojump_clock: trio.abc.Clock
) -> None:
    """What fits is admitted; the send that would wait for the end of its own handler is refused."""

    async def run(actor: Any) -> Any:
        await actor.context.ref.tell(stage.Do(stage.say("fits")))
        return await refused(ticks, actor.context.ref.tell, stage.Do(stage.say("never")))

    async with stage.open() as tree:
        ref = await books.start(tree, capacity=1)
        assert await ref.ask(stage.Do(run)) == ("tree/a", "tree/a")
    assert stage.log == ["fits"]


# --- a parent on its way in or out --------------------------------------------------------------------------


async def turned_away(ticks: Any, parent: Any, stage: Any) -> str:
    """Ask a parent that takes nothing any more, and return the type of the refusal, which comes in a tick."""
    before = ticks.now
    with pytest.raises(ActorStopping) as caught:
        await parent.ask(stage.Do(stage.say("never")))
    assert ticks.now - before <= 1
    assert caught.value.started is False
    return type(caught.value).__name__


@pytest.mark.scenario(19)
@pytest.mark.rule("D2", "A2", "M8")
@pytest.mark.parametrize("mode", ["drain", "now"])
async def test_children_ask_a_parent_that_drains(
    stage: Any, books: Any, ticks: Any, mode: str, autojump_clock: trio.abc.Clock
) -> None:
    """Who waits for room is refused when the stop begins, who asks later at once; what runs is finished."""
    ends: dict[str, Any] = {}

    async def run(actor: Any) -> None:
        name = actor.context.path[-1]
        try:
            ends[name] = (await parent.ask(stage.Do(stage.say("in line"))), trio.current_time())
        except ActorStopping as error:
            ends[name] = (error.started, trio.current_time())
            ends[name + " again"] = await turned_away(ticks, parent, stage)

    async with stage.open(grace=10) as tree:
        group = tree.start_supervisor("group")
        parent = await books.start(tree, "parent", capacity=1)
        await parent.tell(stage.Do(stage.sleep(5)))
        await trio.testing.wait_all_tasks_blocked()
        for name in "xy":
            child = await books.start(group, name)
            await child.tell(stage.Do(run))
            await trio.testing.wait_all_tasks_blocked()
        assert (parent.statistics().queued, parent.statistics().parked) == (1, 1)
        await trio.sleep(1)
        await tree.stop_child("parent", mode)
        assert trio.current_time() == 5.0
    of_x = {"x": ("in line", 5.0)} if mode == "drain" else {"x": (False, 1.0), "x again": "ActorStopping"}
    assert ends == {**of_x, "y": (False, 1.0), "y again": "ActorStopping"}


@pytest.mark.scenario(19)
@pytest.mark.rule("D2", "A2")
@pytest.mark.parametrize("hook", ["draining", "stopping"])
async def test_a_parent_stops_children_that_ask_it_in_their_clean_up(
    stage: Any, books: Any, ticks: Any, hook: str, autojump_clock: trio.abc.Clock
) -> None:
    """The parent waits for them, they do not wait for the parent, and no time passes."""

    async def stop_children(*_: Any) -> None:
        await tree.stop_child("group")
        stage.log.append("children stopped")

    async def clean_up(*_: Any) -> None:
        stage.log.append(await turned_away(ticks, parent, stage))

    async with stage.open(grace=10) as tree:
        group = tree.start_supervisor("group")
        parent = await books.start(tree, "parent", capacity=1, **{hook: stop_children})
        for name in "xy":
            await books.start(group, name, draining=clean_up, stopping=clean_up)
        await parent.stop()
        assert trio.current_time() == 0.0
    assert stage.log == ["ActorStopping"] * 4 + ["children stopped"]


@pytest.mark.scenario(19)
@pytest.mark.rule("D2", "A2", "N3")
@pytest.mark.parametrize("mode", ["drain", "now", "kill"])
async def test_children_ask_a_parent_that_starts(
    stage: Any, books: Any, mode: str, autojump_clock: trio.abc.Clock
) -> None:
    """A parent that never gets ready may still be stopped, and the child that waits for room is free at once."""
    ends: list[Any] = []
    refs: dict[str, Any] = {}

    async def run(_: Any) -> None:
        begin = trio.current_time()
        with pytest.raises(ActorStopping) as caught:
            await refs["parent"].ask(stage.Do(stage.say("never")))
        ends.append((begin, trio.current_time(), caught.value.started))

    async def start_children(actor: Any) -> None:
        refs["parent"] = actor.context.ref
        books.refs.append(actor.context.ref)
        await refs["parent"].tell(stage.Do(stage.say("fills it")))
        child = await books.start(group)
        await child.tell(stage.Do(run))
        await trio.sleep_forever()

    async def start_parent() -> None:
        with pytest.raises(StartFailed):
            await stage.start(tree, "parent", capacity=1, starting=start_children)

    async with stage.open(grace=20) as tree:
        group = tree.start_supervisor("group")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(start_parent)
            await trio.sleep(1)
            await tree.stop_child("parent", mode, timeout=10)
            assert trio.current_time() == (11.0 if mode == "drain" else 1.0)
    assert ends[0] == (0.0, 1.0, False)
    assert stage.log == []
    assert trio.current_time() <= 20.0


@pytest.mark.scenario(19)
@pytest.mark.rule("K5", "D2")
async def test_a_child_that_asks_who_starts_it_is_told_of_the_cycle(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """A parent that waits for a child's start, and a child that asks it meanwhile, would wait for ever."""
    refs: dict[str, Any] = {}

    async def ask_parent(_: Any) -> None:
        await refs["parent"].ask(stage.Do(stage.say("never")))

    async def start_child(actor: Any) -> None:
        refs["parent"] = actor.context.ref
        await stage.start(group, "child", starting=ask_parent)

    async with stage.open() as tree:
        group = tree.start_supervisor("group")
        with pytest.raises(StartFailed) as caught:
            await stage.start(tree, "parent", starting=start_child)
        child_failed = caught.value.__cause__
        assert isinstance(child_failed, StartFailed)
        assert isinstance(child_failed.__cause__, AskCycle)
        assert child_failed.__cause__.path == ("tree/group/child", "tree/parent", "tree/group/child")
        assert trio.current_time() == 0.0
    assert stage.log == []
