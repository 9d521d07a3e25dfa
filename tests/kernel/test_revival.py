"""Starting children again together."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import trio
import trio.testing

from tinker_actors.errors import ActorError, HandlerCrashed, InFlightLost, RestartIntensityExceeded
from tinker_actors.kernel import ActorCrashed, Backoff, Intensity, RestartPolicy

QUICK = RestartPolicy(backoff=Backoff(base=1.0, maximum=1.0, jitter=0.0), max_restarts=5)


async def start(stage: Any, tree: Any, names: str = "abc", **settings: Any) -> dict[str, Any]:
    """Start puppets that note their starts and stops."""
    refs = {}
    for name in names:

        async def up(actor: Any, name: str = name) -> None:
            await trio.lowlevel.checkpoint()
            stage.log.append(f"+{name}{actor.context.incarnation}")

        async def down(actor: Any, ending: str, name: str = name) -> None:
            await trio.lowlevel.checkpoint()
            stage.log.append(f"-{name} {ending}")

        merged = {"policy": QUICK, "starting": up, "stopping": down, **settings}
        refs[name] = await stage.start(tree, name, **merged)
    stage.log.clear()
    return refs


async def crash(ref: Any, stage: Any) -> None:
    """Make an actor crash, and see it happen."""
    with pytest.raises(HandlerCrashed):
        await ref.ask(stage.Do(stage.fail(ValueError("crash"))))


@pytest.mark.parametrize(
    ("strategy", "log"),
    [
        ("one_for_one", ["-b crash", "+b2"]),
        ("dynamic", ["-b crash", "+b2"]),
        ("one_for_all", ["-b crash", "-c restart", "-a restart", "+a2", "+b2", "+c2"]),
        ("rest_for_one", ["-b crash", "-c restart", "+b2", "+c2"]),
    ],
)
async def test_who_is_restarted_with_whom(
    stage: Any, strategy: Any, log: list[str], autojump_clock: trio.abc.Clock
) -> None:
    """Siblings are cancelled in reverse order, and all started in order after the backoff, each once."""
    async with stage.open(strategy=strategy) as tree:
        refs = await start(stage, tree)
        await crash(refs["b"], stage)
        await trio.sleep(0.5)
        assert stage.log == [line for line in log if line[0] == "-"]
        await trio.sleep(1)
        assert stage.log == log
        assert tree.window.restarts == 1


async def test_siblings_keep_their_messages(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """What waits in a sibling's line is handled by its next incarnation; what it had begun is lost."""
    async with stage.open(strategy="one_for_all") as tree:
        refs = await start(stage, tree)
        begun = await refs["a"].submit(stage.Do(stage.sleep(100, "begun")))
        waiting = await refs["a"].submit(stage.Do(stage.say("waiting")))
        await trio.testing.wait_all_tasks_blocked()
        await crash(refs["c"], stage)
        with pytest.raises(InFlightLost):
            await begun
        assert await waiting == "waiting"
        assert trio.current_time() == 1.0


async def test_temporary_siblings_are_not_restarted(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """They are cancelled with the group and end for good; their refs say so."""
    async with stage.open(strategy="one_for_all") as tree:
        refs = await start(stage, tree, "ab")
        guest = await stage.start(tree, "guest", policy=RestartPolicy(restart="temporary"))
        await crash(refs["a"], stage)
        await trio.sleep(3)
        assert guest.stopped
        assert (await guest.wait_stopped()).reason == "stopped"
        assert list(tree.children) == ["a", "b"]
        assert stage.log[-2:] == ["+a2", "+b2"]


async def test_two_crashes_at_once_are_one_round(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Each counts for the supervisor, and everybody is started once."""
    async with stage.open(strategy="one_for_all") as tree:
        refs = await start(stage, tree)
        async with trio.open_nursery() as nursery:
            for name in "ab":
                nursery.start_soon(ignore, refs[name].ask, stage.Do(stage.fail(ValueError("crash"))))
        await trio.sleep(5)
        assert [line for line in stage.log if line[0] == "+"] == ["+a2", "+b2", "+c2"]


async def ignore(function: Any, *args: Any) -> None:
    """Wait for something and drop its failure."""
    with contextlib.suppress(ActorError):
        await function(*args)


async def test_an_elder_that_crashes_widens_the_group(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Under `rest_for_one`, a crash before the group during its backoff makes the round again, from there on."""
    async with stage.open(strategy="rest_for_one") as tree:
        refs = await start(stage, tree)
        await crash(refs["c"], stage)
        await trio.sleep(0.5)
        await crash(refs["a"], stage)
        await trio.sleep(5)
        starts = [line for line in stage.log if line[0] == "+"]
        assert [line[:2] for line in starts[-3:]] == ["+a", "+b", "+c"]
        for name in "abc":
            assert await refs[name].ask(stage.Do(stage.say(name))) == name


async def test_a_start_that_fails_makes_another_round(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A child that does not come up again is counted and backed off; the group begins from the front."""

    async def moody(actor: Any) -> None:
        await trio.lowlevel.checkpoint()
        stage.log.append(f"+b{actor.context.incarnation}")
        if actor.context.incarnation in (2, 3):
            raise ValueError("not yet")

    async with stage.open(strategy="one_for_all") as tree:
        a = (await start(stage, tree, "a"))["a"]
        b = await stage.start(tree, "b", policy=QUICK, starting=moody)
        c = (await start(stage, tree, "c"))["c"]
        await crash(a, stage)
        await trio.sleep(20)
        for ref in (a, b, c):
            assert await ref.ask(stage.Do(stage.say("alive"))) == "alive"
        starts = [line for line in stage.log if line[0] == "+"]
        assert [line for line in starts if line[1] == "b"] == ["+b2", "+b3", "+b4"]
        assert starts[-3][:2] + starts[-2][:2] + starts[-1][:2] == "+a+b+c"
        assert tree.window.restarts == 3


async def test_a_start_that_never_succeeds_is_given_up(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Failing starts during a revival count for the child's record: the supervisor gives up in the end."""

    async def broken(actor: Any) -> None:
        await trio.lowlevel.checkpoint()
        if actor.context.incarnation > 1:
            raise ValueError("never again")

    with pytest.raises(RestartIntensityExceeded) as caught:
        async with stage.open(strategy="one_for_all") as tree:
            refs = await start(stage, tree, "a")
            await stage.start(tree, "b", policy=QUICK, starting=broken)
            await crash(refs["a"], stage)
            await trio.sleep(100)
    assert caught.value.actor == "tree/b"
    assert "never again" in str(caught.value)


@pytest.mark.parametrize("mode", ["drain", "now", "kill"])
@pytest.mark.parametrize("moment", ["halting", "backoff", "starting"])
async def test_a_stop_ends_a_revival_wherever_it_is(
    stage: Any, mode: Any, moment: str, autojump_clock: trio.abc.Clock
) -> None:
    """Nothing is started after a stop has begun, and nothing hangs."""

    async def slow_start(actor: Any) -> None:
        if actor.context.incarnation > 1:
            await trio.sleep(3)
        stage.log.append(f"+slow{actor.context.incarnation}")

    async def slow_stop(actor: Any, ending: str) -> None:
        await trio.sleep(2)

    async with stage.open(strategy="one_for_all") as tree:
        slow = await stage.start(tree, "slow", policy=QUICK, starting=slow_start, stopping=slow_stop)
        refs = await start(stage, tree, "ab")
        await crash(refs["b"], stage)
        await trio.sleep({"halting": 1.0, "backoff": 2.5, "starting": 4.0}[moment])
        before = trio.current_time()
        with trio.fail_after(30):
            await tree.stop(mode, 10.0)
        assert trio.current_time() - before <= 6.0
        assert slow.stopped
        assert all(ref.stopped for ref in refs.values())
        assert tree.children == {}
        await trio.sleep(20)
    assert not [line for line in stage.log if line.startswith(("+a", "+b"))]


async def test_leaving_the_tree_ends_a_revival(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A body that returns during the backoff of a group is not held up by it."""
    async with stage.open(strategy="one_for_all") as tree:
        refs = await start(stage, tree, policy=RestartPolicy(backoff=Backoff(base=25.0, jitter=0.0)))
        await crash(refs["b"], stage)
        await trio.testing.wait_all_tasks_blocked()
    assert trio.current_time() < 25.0
    assert not [line for line in stage.log if line[0] == "+"]


async def test_a_stopped_child_is_not_revived(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A child stopped for good while its group waits stays out; the others come up."""
    async with stage.open(strategy="one_for_all") as tree:
        refs = await start(stage, tree)
        await crash(refs["a"], stage)
        await trio.sleep(0.5)
        await refs["b"].stop()
        assert refs["b"].stopped
        await trio.sleep(3)
        assert [line for line in stage.log if line[0] == "+"] == ["+a2", "+c2"]


async def test_a_child_that_is_draining_is_left_alone(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A group restart does not interrupt a sibling's orderly stop, and does not start it again."""
    async with stage.open(strategy="one_for_all") as tree:
        refs = await start(stage, tree)
        long = await refs["a"].submit(stage.Do(stage.sleep(5, "long")))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(refs["a"].stop)
            await trio.testing.wait_all_tasks_blocked()
            await crash(refs["b"], stage)
            assert await long == "long"
        await trio.sleep(10)
        assert refs["a"].stopped
        assert await refs["c"].ask(stage.Do(stage.say("c"))) == "c"
        assert "+a2" not in stage.log


# --- supervisors below supervisors --------------------------------------------------------------------------


async def test_a_supervisor_that_gives_up_is_restarted_whole(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """Its parent starts all of its children again, with their refs and messages, and an empty record."""
    async with stage.open() as tree:
        group = tree.start_supervisor("group", intensity=Intensity(max_restarts=1), policy=QUICK)
        refs = await start(stage, group, "ab")
        other = await stage.start(tree, "other")
        await crash(refs["a"], stage)
        await trio.sleep(2)
        assert stage.log == ["-a crash", "+a2"]
        stage.log.clear()
        await crash(refs["a"], stage)
        await trio.sleep(5)
        assert stage.log == ["-a crash", "-b restart", "+a3", "+b2"]
        assert group.window.restarts == 0
        assert tree.window.restarts == 1
        for ref in (*refs.values(), other):
            assert await ref.ask(stage.Do(stage.say("alive"))) == "alive"
    causes = [type(event.cause).__name__ for event in stage.events if isinstance(event, ActorCrashed)]
    assert causes[:2] == ["ValueError", "ValueError"]


async def test_a_group_of_supervisors_is_revived(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Under `one_for_all`, a crash beside a supervisor restarts what is below it, in order."""
    async with stage.open(strategy="one_for_all") as tree:
        group = tree.start_supervisor("group")
        inner = await start(stage, group, "ab")
        outer = await start(stage, tree, "c")
        stage.log.clear()
        await crash(outer["c"], stage)
        await trio.sleep(5)
        assert stage.log == ["-c crash", "-b restart", "-a restart", "+a2", "+b2", "+c2"]
        assert await inner["a"].ask(stage.Do(stage.say("alive"))) == "alive"


async def test_a_revival_below_ends_for_one_above(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A group that waits for its restart is taken over by its parent's restart."""
    async with stage.open(strategy="one_for_all") as tree:
        group = tree.start_supervisor("group", "one_for_all")
        inner = await start(stage, group, "ab")
        outer = await start(stage, tree, "c")
        await crash(inner["a"], stage)
        await trio.sleep(0.5)
        await crash(outer["c"], stage)
        await trio.sleep(10)
        starts = [line for line in stage.log if line[0] == "+"]
        assert sorted(starts) == ["+a2", "+b2", "+c2"]
        for ref in (*inner.values(), *outer.values()):
            assert await ref.ask(stage.Do(stage.say("alive"))) == "alive"


async def test_giving_up_goes_all_the_way(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Each level tries as often as its window allows; then the root fails with the history."""
    with pytest.raises(RestartIntensityExceeded) as caught:
        async with stage.open(intensity=Intensity(max_restarts=1)) as tree:
            group = tree.start_supervisor("group", intensity=Intensity(max_restarts=1), policy=QUICK)
            refs = await start(stage, group, "a")
            for _ in range(10):
                await ignore(refs["a"].ask, stage.Do(stage.fail(ValueError("again"))))
                await trio.sleep(5)
    assert caught.value.actor == "tree/group"
    assert len([line for line in stage.log if line == "-a crash"]) == 4


async def test_a_temporary_supervisor_ends_alone(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A parent that does not restart it lets it end with all its children, and lives on."""
    async with stage.open() as tree:
        group = tree.start_supervisor(
            "group", intensity=Intensity(max_restarts=0), policy=RestartPolicy(restart="temporary")
        )
        refs = await start(stage, group, "ab")
        other = await stage.start(tree, "other")
        await crash(refs["a"], stage)
        await trio.sleep(5)
        assert refs["a"].stopped
        assert refs["b"].stopped
        assert (await refs["a"].wait_stopped()).reason == "failed"
        assert list(tree.children) == ["other"]
        assert await other.ask(stage.Do(stage.say("alive"))) == "alive"


async def test_a_child_that_fails_alone_is_nobody_elses_matter(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """With `on_exhausted="fail"` the supervisor lives on, and no group is restarted for it."""
    async with stage.open(strategy="one_for_all") as tree:
        refs = await start(stage, tree, "a")
        frail = await stage.start(tree, "frail", policy=RestartPolicy(max_restarts=0), on_exhausted="fail")
        await crash(frail, stage)
        await trio.sleep(5)
        assert (await frail.wait_stopped()).reason == "failed"
        assert stage.log == []
        assert await refs["a"].ask(stage.Do(stage.say("alive"))) == "alive"


async def test_a_defect_in_the_judgement_fails_the_tree(
    stage: Any, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.abc.Clock
) -> None:
    """What a supervisor's own code raises escalates; it never leaves children without supervisor."""
    refs: dict[str, Any] = {}
    with pytest.raises(ZeroDivisionError):
        async with stage.open() as tree:
            refs |= await start(stage, tree, "ab")

            def broken(*_: Any, **__: Any) -> None:
                raise ZeroDivisionError

            monkeypatch.setattr(type(tree.children["a"].record), "ended", broken)
            await ignore(refs["a"].ask, stage.Do(stage.fail(ValueError("x"))))
            await trio.sleep_forever()
    assert all(ref.stopped for ref in refs.values())


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one", "dynamic"])
async def test_one_that_does_not_start_below_leaves_nobody_down(
    stage: Any, strategy: Any, autojump_clock: trio.abc.Clock
) -> None:
    """A nested child that fails its start in the revival above is restarted, and its younger siblings come up."""

    async def moody(actor: Any) -> None:
        await trio.lowlevel.checkpoint()
        if actor.context.incarnation == 2:
            raise ValueError("not yet")

    async with stage.open(strategy="one_for_all") as tree:
        group = tree.start_supervisor("group", strategy)
        inner = {"x": await stage.start(group, "x", policy=QUICK, starting=moody)}
        inner |= await start(stage, group, "yz")
        outer = await start(stage, tree, "c")
        await crash(outer["c"], stage)
        await trio.sleep(20)
        with trio.fail_after(5):
            for ref in (*inner.values(), *outer.values()):
                assert await ref.ask(stage.Do(stage.say("alive"))) == "alive"
