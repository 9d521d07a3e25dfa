"""A handler that ends its incarnation in good order, and what its supervisor makes of it."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from tinker_actors.errors import ActorStopped, InputError
from tinker_actors.kernel import ActorEnded, Backoff, RestartPolicy, Stop

BACKOFF = Backoff(base=1.0, maximum=1.0, jitter=0.0)


def policy(restart: Any = "transient", **settings: Any) -> RestartPolicy:
    return RestartPolicy(restart=restart, backoff=BACKOFF, **settings)


async def bye(_: Any) -> Any:
    """Reply and end."""
    await trio.lowlevel.checkpoint()
    return Stop("bye")


# --- by the type of the child -------------------------------------------------------------------------------


@pytest.mark.parametrize("restart", ["transient", "temporary"])
async def test_a_child_that_may_end_has_ended(
    stage: Any, restart: Any, autojump_clock: trio.abc.Clock
) -> None:
    """Its caller gets the reply, its hooks run, what waits is handed back, and it is not started again."""

    async def stopping(_: Any, ending: str) -> None:
        await trio.lowlevel.checkpoint()
        stage.log.append(ending)

    async with stage.open() as tree:
        ref = await stage.start(tree, policy=policy(restart), stopping=stopping)
        last = await ref.submit(stage.Do(bye))
        behind = await ref.submit(stage.Do(stage.say("never")))
        assert await last == "bye"
        with pytest.raises(ActorStopped) as caught:
            await behind
        assert caught.value.started is False
        down = await ref.wait_stopped()
        assert (down.reason, down.cause) == ("stopped", None)
        assert stage.log == ["finish"]
        assert tree.children == {}
    assert ActorEnded("tree/a", 1, failed=False) in stage.events
    assert stage.delays == []


async def test_a_permanent_child_begins_a_new_life(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """It is started again after its backoff, without a failure, and what waits is served."""
    async with stage.open() as tree:
        ref = await stage.start(tree, policy=policy("permanent"))
        last = await ref.submit(stage.Do(bye))

        async def number(actor: Any) -> Any:
            await trio.lowlevel.checkpoint()
            return actor.context.incarnation, actor.context.last_failure

        behind = await ref.submit(stage.Do(number))
        assert await last == "bye"
        assert await behind == (2, None)
        assert trio.current_time() == 1.0
        seen: Any = tree.snapshot().find("tree/a")
        assert seen.last_failure is None
        assert seen.restarts == 1
    assert stage.delays == []


async def test_ends_count_as_restarts(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A permanent child that ends again and again is given up in the end, with no failure to its name."""
    async with stage.open() as tree:
        ref = await stage.start(tree, policy=policy("permanent", max_restarts=2), on_exhausted="fail")
        for _ in range(3):
            assert await ref.ask(stage.Do(bye)) == "bye"
        down = await ref.wait_stopped()
        assert (down.reason, down.cause) == ("stopped", None)


async def test_a_draining_actor_ends_anyway(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """`Stop` while it drains: a permanent actor comes back for what is left in line, and then ends."""
    async with stage.open() as tree:
        ref = await stage.start(tree, policy=policy("permanent"))
        await ref.tell(stage.Do(bye))
        await ref.tell(stage.Do(stage.say("left")))
        await ref.stop("drain")
        assert ref.stopped
    assert stage.log == ["left"]


async def test_a_stop_by_name_is_never_followed_by_a_restart(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """`ref.stop` and `stop_child` end a permanent child for good."""
    async with stage.open() as tree:
        for name in "ab":
            ref = await stage.start(tree, name, policy=policy("permanent"))
            await (ref.stop() if name == "a" else tree.stop_child("b"))
            await trio.sleep(5)
            assert ref.stopped
        with pytest.raises(KeyError):
            await tree.stop_child("b")


async def test_a_group_is_restarted_for_an_end(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Under `one_for_all`, a permanent child that ended brings its siblings down with it; a transient does not."""
    starts: list[str] = []

    def up(name: str) -> Any:
        async def run(actor: Any) -> None:
            await trio.lowlevel.checkpoint()
            starts.append(f"{name}{actor.context.incarnation}")

        return run

    async with stage.open(strategy="one_for_all") as tree:
        a = await stage.start(tree, "a", policy=policy("permanent"), starting=up("a"))
        b = await stage.start(tree, "b", policy=policy("transient"), starting=up("b"))
        assert await a.ask(stage.Do(bye)) == "bye"
        await trio.sleep(5)
        assert starts == ["a1", "b1", "a2", "b2"]
        assert await b.ask(stage.Do(bye)) == "bye"
        await trio.sleep(5)
        assert b.stopped
        assert starts == ["a1", "b1", "a2", "b2"]


# --- significant children -----------------------------------------------------------------------------------


@pytest.mark.parametrize("restart", ["transient", "temporary"])
async def test_any_significant_end_ends_the_tree(
    stage: Any, restart: Any, autojump_clock: trio.abc.Clock
) -> None:
    """The body is cancelled, the others are stopped, and nothing is raised."""
    reached = False
    with trio.fail_after(20):
        async with stage.open(auto_shutdown="any") as tree:
            other = await stage.start(tree, "other")
            more = await stage.start(tree, "more", policy=policy(), significant=True)
            ref = await stage.start(tree, policy=policy(restart), significant=True)
            await ref.ask(stage.Do(bye))
            await trio.sleep_forever()
            reached = True
    assert not reached
    assert other.stopped
    assert more.stopped


async def test_all_significant_ends_are_waited_for(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """With `all`, the last of them ends the tree."""
    async with stage.open(auto_shutdown="all") as tree:
        refs = [await stage.start(tree, name, policy=policy(), significant=True) for name in "abc"]
        other = await stage.start(tree, "other")
        for ref in refs:
            await trio.sleep(1)
            assert not other.stopped
            await ref.ask(stage.Do(bye))
        await trio.sleep_forever()
    assert trio.current_time() == 3
    assert other.stopped


async def test_an_insignificant_end_is_no_matter(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Nor is a significant one where nobody asked for a shutdown, nor one that was stopped by name."""
    async with stage.open(auto_shutdown="any") as tree:
        ref = await stage.start(tree, policy=policy())
        await ref.ask(stage.Do(bye))
        await trio.sleep(5)
        significant = await stage.start(tree, "s", policy=policy(), significant=True)
        await significant.stop()
        await trio.sleep(5)
        assert await (await stage.start(tree, "alive")).ask(stage.Do(stage.say(1))) == 1
    async with stage.open() as tree:
        ref = await stage.start(tree, policy=policy(), significant=True)
        await ref.ask(stage.Do(bye))
        await trio.sleep(5)
        assert await (await stage.start(tree, "alive")).ask(stage.Do(stage.say(2))) == 2


async def test_a_crash_of_a_temporary_child_ends_no_tree(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Only a normal end counts."""
    async with stage.open(auto_shutdown="any") as tree:
        ref = await stage.start(tree, policy=policy("temporary"), significant=True)
        await ref.tell(stage.Do(stage.fail(ValueError())))
        await trio.sleep(5)
        assert ref.stopped
        assert await (await stage.start(tree, "alive")).ask(stage.Do(stage.say(1))) == 1


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one", "dynamic"])
async def test_a_supervisor_ends_alone(stage: Any, strategy: Any, autojump_clock: trio.abc.Clock) -> None:
    """Below the root, `auto_shutdown` ends that supervisor with its children and nothing else."""
    async with stage.open() as tree:
        group = tree.start_supervisor("group", strategy, auto_shutdown="any")
        ref = await stage.start(group, "a", policy=policy(), significant=True)
        sibling = await stage.start(group, "b")
        other = await stage.start(tree, "other")
        await ref.ask(stage.Do(bye))
        await trio.sleep(5)
        assert sibling.stopped
        assert list(tree.children) == ["other"]
        assert await other.ask(stage.Do(stage.say("alive"))) == "alive"
        tree.start_supervisor("group")  # the name is free again


async def test_a_significant_supervisor_ends_its_parent(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Its own end by `auto_shutdown` counts above, all the way to the root."""
    async with stage.open(auto_shutdown="any") as tree:
        middle = tree.start_supervisor("middle", auto_shutdown="any", significant=True, policy=policy())
        inner = middle.start_supervisor("inner", auto_shutdown="all", significant=True, policy=policy())
        ref = await stage.start(inner, "a", policy=policy(), significant=True)
        other = await stage.start(tree, "other")
        await ref.ask(stage.Do(bye))
        await trio.sleep_forever()
    assert other.stopped
    assert trio.current_time() < 5


async def test_a_permanent_child_is_never_significant(stage: Any) -> None:
    """It never ends by itself: refused for actors and supervisors, before anything is started."""
    with pytest.raises(InputError):
        stage.spec(significant=True)
    async with stage.open() as tree:
        with pytest.raises(InputError) as caught:
            tree.start_supervisor("group", significant=True)
        assert caught.value.field == "significant"
        assert tree.children == {}
