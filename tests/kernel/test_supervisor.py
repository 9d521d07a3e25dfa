from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from tinker_actors.errors import (
    ActorError,
    InputError,
    StartFailed,
)
from tinker_actors.kernel import ActorEnded, ActorReady, Backoff, RestartPolicy


def stop_logged(stage: Any, name: str, seconds: float = 0.0) -> dict[str, Any]:
    """Settings of a child that notes its start and its stop."""

    async def start(_: Any) -> None:
        stage.log.append(f"start {name}")
        await trio.lowlevel.checkpoint()

    async def stop(_: Any, ending: str) -> None:
        await trio.sleep(seconds)
        stage.log.append(f"{ending} {name}")

    return {"starting": start, "stopping": stop}


# --- order --------------------------------------------------------------------------------------------------


@pytest.mark.rule("S1")
async def test_children_start_in_order_and_stop_in_reverse(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """Each child is ready before the next one starts, and has ended before the one before it is stopped."""
    async with stage.open() as tree:
        for name in "abc":
            await stage.start(tree, name, **stop_logged(stage, name, seconds=1))
    assert stage.log == ["start a", "start b", "start c", "drain c", "drain b", "drain a"]


async def test_nested_supervisors_stop_where_they_stand(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A supervisor takes its place among the children; what is below it stops in reverse, too."""
    async with stage.open() as tree:
        await stage.start(tree, "a", **stop_logged(stage, "a"))
        inner = tree.start_supervisor("inner")
        await stage.start(tree, "z", **stop_logged(stage, "z"))
        deeper = inner.start_supervisor("deeper")
        for name in "bc":
            ref = await stage.start(inner, name, **stop_logged(stage, name))
            assert ref.path == f"tree/inner/{name}"
        assert (await stage.start(deeper, "d", **stop_logged(stage, "d"))).path == "tree/inner/deeper/d"
        stage.log.clear()
    assert stage.log == ["drain z", "drain c", "drain b", "drain d", "drain a"]


@pytest.mark.rule("S3")
async def test_dynamic_children_stop_together(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Ten children that need a second each need one second, all of them."""
    async with stage.open() as tree:
        group = tree.start_supervisor("group", "dynamic")
        for number in range(10):
            await stage.start(group, f"w{number}", **stop_logged(stage, str(number), seconds=1))
        nested = group.start_supervisor("nested")
        await stage.start(nested, "n", **stop_logged(stage, "n", seconds=1))
        begin = trio.current_time()
        await tree.stop_child("group")
        assert trio.current_time() == begin + 1
        assert len(stage.log) == 22
        assert not tree.children
        tree.start_supervisor("group")


@pytest.mark.rule("N6")
async def test_while_later_children_stop_earlier_ones_serve(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """In its drain a child may still ask those it was started after."""
    async with stage.open() as tree:
        server = await stage.start(tree, "server")

        async def drain(_: Any) -> None:
            await trio.sleep(1)
            stage.log.append(await server.ask(stage.Do(stage.say("served"))))

        await stage.start(tree, "client", draining=drain)
    assert stage.log == ["served", "served"]


@pytest.mark.rule("D3")
async def test_a_body_that_returns_lets_everything_admitted_end(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """Leaving the tree in peace loses nothing that is in line."""
    async with stage.open() as tree:
        ref = await stage.start(tree)
        pendings = [await ref.submit(stage.Do(stage.sleep(1, number))) for number in range(5)]
    assert [await pending for pending in pendings] == [0, 1, 2, 3, 4]


# --- starting -----------------------------------------------------------------------------------------------


@pytest.mark.rule("S2")
@pytest.mark.scenario(28)
async def test_the_third_of_five_does_not_start(stage: Any) -> None:
    """Those that had started are stopped in reverse, the starter hears which failed and why, nothing is left."""
    error = ValueError("third")
    before = trio.lowlevel.current_statistics().tasks_living
    with pytest.raises(StartFailed, match="tree/3 did not start") as caught:
        async with stage.open() as tree:
            for name in "12345":
                hooks = stop_logged(stage, name) | ({"starting": stage.fail(error)} if name == "3" else {})
                await stage.start(tree, name, **hooks)
    assert caught.value.__cause__ is error
    assert stage.log == ["start 1", "start 2", "now 2", "now 1"]
    assert trio.lowlevel.current_statistics().tasks_living == before


@pytest.mark.rule("S1")
async def test_names_are_unique_while_they_live(stage: Any) -> None:
    """A name that is taken is refused, by name; one whose bearer has ended is free."""
    async with stage.open() as tree:
        await stage.start(tree, "a")
        for again in (lambda: stage.start(tree, "a"), lambda: make_async(tree.start_supervisor, "a")):
            with pytest.raises(InputError, match="name = 'a'"):
                await again()
        await tree.stop_child("a")
        await stage.start(tree, "a")


async def make_async(function: Any, *args: Any) -> Any:
    await trio.lowlevel.checkpoint()
    return function(*args)


@pytest.mark.rule("N4")
async def test_a_stopping_supervisor_starts_nothing(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Neither while it stops nor afterwards."""
    async with stage.open() as tree:
        group = tree.start_supervisor("group")
        await stage.start(group, "a", **stop_logged(stage, "a", seconds=1))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tree.stop_child, "group")
            await trio.sleep(0.5)
            with pytest.raises(ActorError, match="starts nothing new"):
                await stage.start(group, "b")
    for supervisor in (tree, group):
        with pytest.raises(ActorError, match="starts nothing new"):
            supervisor.start_supervisor("c")


@pytest.mark.rule("N3")
async def test_cancelling_a_start_leaves_nothing_behind(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """The half-started child is gone when the cancelled starter goes on, and the name is free."""
    async with stage.open() as tree:
        before = trio.lowlevel.current_statistics().tasks_living
        for seconds in (0, 1):
            with trio.move_on_after(seconds) as scope:
                await stage.start(tree, starting=stage.sleep(100, "start"))
            assert scope.cancelled_caught
            assert not tree.children
            await trio.testing.wait_all_tasks_blocked()
            assert trio.lowlevel.current_statistics().tasks_living == before
        await stage.start(tree)
    assert stage.log[-2:] == [("begin", "start"), ("cancelled", "start")]


@pytest.mark.rule("C5")
@pytest.mark.scenario(50)
async def test_cancelling_a_shielded_start_is_bounded(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A start that cannot be cancelled holds its starter for `cleanup_timeout` at most."""

    async def stubborn(_: Any) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(20)

    async with stage.open() as tree:
        begin = trio.current_time()
        with trio.move_on_after(1) as scope:
            await stage.start(tree, starting=stubborn, cleanup_timeout=5)
        assert scope.cancelled_caught
        assert trio.current_time() == begin + 6
        await trio.sleep(20)
        assert not tree.children
    assert not any(isinstance(event, ActorReady) for event in stage.events)


async def test_a_start_that_swallows_its_cancellation(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A hook that ends as if nothing had happened does not bring a killed child to life; it is cleaned up."""

    async def swallow(_: Any) -> None:
        try:  # noqa: SIM105 - what is tested
            await trio.sleep_forever()
        except trio.Cancelled:
            pass

    async with stage.open() as tree:
        with trio.move_on_after(1) as scope:
            await stage.start(tree, starting=swallow, stopping=stop_logged(stage, "a")["stopping"])
        assert scope.cancel_called
        await trio.testing.wait_all_tasks_blocked()
        assert not tree.children
    assert stage.log == ["kill a"]
    assert not any(isinstance(event, ActorReady) for event in stage.events)


# --- time ---------------------------------------------------------------------------------------------------


@pytest.mark.rule("D3")
async def test_the_whole_stop_is_bounded_by_grace(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Children that would need longer are killed when the grace of the tree is spent."""
    begin = trio.current_time()
    async with stage.open(grace=7) as tree:
        for name in "abc":
            ref = await stage.start(tree, name)
            await ref.tell(stage.Do(stage.sleep(5, name)))
    assert trio.current_time() == begin + 5
    stage.log.clear()

    begin = trio.current_time()
    async with stage.open(grace=7) as tree:
        for name in "abc":
            ref = await stage.start(tree, name, draining=stage.sleep(5, name))
    assert trio.current_time() == begin + 7
    assert [entry for entry in stage.log if entry[0] != "begin"][:2] == [("end", "c"), ("cancelled", "b")]
    assert ("end", "a") not in stage.log


async def test_what_a_cancelled_drain_leaves_of_the_grace(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """The stop that follows a cancelled drain has the rest of the grace, not another one."""
    begin = trio.current_time()
    with trio.move_on_after(6):
        async with stage.open(grace=10) as tree:
            ref = await stage.start(tree)
            await ref.tell(stage.Do(stage.sleep(100)))
    assert trio.current_time() == begin + 10


# --- from inside --------------------------------------------------------------------------------------------


async def test_an_actor_may_stop_its_supervisor(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """The stop is begun for all of its siblings, and the handler goes on: it cannot wait for itself."""
    async with stage.open() as tree:
        group = tree.start_supervisor("group")
        nested = group.start_supervisor("nested")

        async def run(_: Any) -> str:
            await tree.stop_child("group")
            return "asked"

        sibling = await stage.start(group, "sibling")
        ref = await stage.start(nested, "a")
        begin = trio.current_time()
        assert await ref.ask(stage.Do(run)) == "asked"
        await ref.wait_stopped()
        await sibling.wait_stopped()
        assert trio.current_time() == begin


async def test_who_stops_its_own_supervisor_is_not_forgotten(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """An actor that has asked for the stop and then goes on for ever is killed when time is up, like any other."""
    begin = trio.current_time()
    async with stage.open(grace=5) as tree:
        group = tree.start_supervisor("group")

        async def run(_: Any) -> None:
            await tree.stop_child("group")
            await trio.sleep(1000)

        ref = await stage.start(group, "a")
        await ref.tell(stage.Do(run))
        await trio.testing.wait_all_tasks_blocked()
    assert trio.current_time() == begin + 5


async def test_an_actor_may_stop_another_one(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """For the others it waits, as everybody does."""
    async with stage.open() as tree:
        other = await stage.start(tree, "other", draining=stage.sleep(3))

        async def run(_: Any) -> bool:
            await tree.stop_child("other")
            return other.stopped

        ref = await stage.start(tree, "a")
        assert await ref.ask(stage.Do(run)) is True


async def test_callbacks_of_the_stop_run_once(stage: Any) -> None:
    """What `on_stopped` was given runs when the children have ended, however often the supervisor is stopped."""
    async with stage.open() as tree:
        group = tree.start_supervisor("group")
        ref = await stage.start(group)
        group.on_stopped(lambda: stage.log.append(ref.stopped))
        await group.stop("drain", 1)
        await group.stop("now", 1)
    assert stage.log == [True]


@pytest.mark.rule("N6")
async def test_a_child_in_backoff_is_not_cancelled_from_outside(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """A cancellation of the tree reaches a child that waits for its restart in its turn, like all others."""
    policy = RestartPolicy(backoff=Backoff(base=1000.0, maximum=1000.0))
    with trio.move_on_after(5) as scope:
        async with stage.open() as tree:
            ref = await stage.start(tree, policy=policy)
            await ref.tell(stage.Do(stage.fail(ValueError("x"))))
            await stage.start(tree, "later", **stop_logged(stage, "later", seconds=3))
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert [event for event in stage.events if isinstance(event, ActorEnded)] == [
        ActorEnded("tree/later", 1, failed=False),
        ActorEnded("tree/a", 1, failed=False),
    ]
