"""Opening a tree of actors, and leaving it."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest
import trio
import trio.testing

from tinker_actors.errors import ActorError, ActorStopped, InputError, RestartIntensityExceeded
from tinker_actors.kernel import Backoff, Down, Intensity, RestartPolicy

QUICK = RestartPolicy(backoff=Backoff(base=1.0, maximum=1.0, jitter=0.0))


@pytest.mark.parametrize("settings", [{"strategy": "all_for_one"}, {"auto_shutdown": "some"}])
async def test_wrong_settings_are_refused(stage: Any, settings: dict[str, Any]) -> None:
    """Of the root and of supervisors below it, before anything is started."""
    (field,) = settings
    with pytest.raises(InputError) as caught:
        async with stage.open(**settings):
            pass
    assert caught.value.field == field
    async with stage.open() as tree:
        with pytest.raises(InputError) as caught:
            tree.start_supervisor("group", **settings)
        assert caught.value.field == field
        tree.start_supervisor("group")


async def test_names_are_unique(stage: Any) -> None:
    """Among actors and supervisors alike; what has ended frees its name."""
    async with stage.open() as tree:
        ref = await stage.start(tree, "a")
        tree.start_supervisor("group")
        for name in ("a", "group"):
            with pytest.raises(InputError):
                await stage.start(tree, name)
            with pytest.raises(InputError):
                tree.start_supervisor(name)
        await ref.stop()
        await tree.stop_child("group")
        await stage.start(tree, "a")
        await stage.start(tree, "group")


async def test_a_stopping_tree_starts_nothing(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Neither actors nor supervisors, here or below."""
    async with stage.open() as tree:
        group = tree.start_supervisor("group")
        await tree.stop("now", 5.0)
        for supervisor in (tree, group):
            with pytest.raises(ActorError):
                await stage.start(supervisor, "late")
            with pytest.raises(ActorError):
                supervisor.start_supervisor("late")


# --- cancel -------------------------------------------------------------------------------------------------


async def test_cancel_stops_what_runs(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """What has begun is finished, what waits is handed back, and leaving the tree raises nothing."""
    async with stage.open() as tree:
        ref = await stage.start(tree)
        begun = await ref.submit(stage.Do(stage.sleep(5, "begun")))
        waiting = await ref.submit(stage.Do(stage.say("never")))
        await trio.testing.wait_all_tasks_blocked()
        tree.cancel("enough")
        await trio.sleep_forever()
    assert trio.current_time() == 5
    assert await begun == "begun"
    with pytest.raises(ActorStopped):
        await waiting


async def test_a_second_cancel_kills(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """What has begun is cancelled, wherever in the tree it is."""
    async with trio.open_nursery() as nursery:
        async with stage.open() as tree:
            refs = [await stage.start(tree, "a"), await stage.start(tree.start_supervisor("group"), "b")]
            for ref in refs:
                await ref.tell(stage.Do(stage.sleep(25, ref.path)))
            await trio.testing.wait_all_tasks_blocked()

            async def again() -> None:
                for supervisor in (tree, tree.children["group"]):
                    supervisor.cancel("enough")
                    await trio.sleep(2)

            nursery.start_soon(again)
            await trio.sleep_forever()
        assert trio.current_time() == 2
    cancelled = [value for kind, value in stage.log if kind == "cancelled"]
    assert sorted(cancelled) == ["tree/a", "tree/group/b"]


async def test_a_cancel_during_the_drain_ends_the_drain(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Once the body has returned, the first cancel lets what has begun finish, and nothing new begin."""
    async with trio.open_nursery() as nursery:
        async with stage.open(grace=100.0) as tree:
            ref = await stage.start(tree, stop_timeout=100.0)
            for number in range(5):
                await ref.tell(stage.Do(stage.sleep(4, number)))

            async def later(tree: Any = tree) -> None:
                await trio.sleep(6)
                tree.cancel("enough")

            nursery.start_soon(later)
        assert trio.current_time() == 8
    assert [value for kind, value in stage.log if kind == "end"] == [0, 1]


async def test_an_outer_cancellation_stops_the_tree_in_order(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """Children are stopped in reverse order of their start, each within the grace, and then the scope ends."""

    def stopping(name: str) -> Any:
        async def run(_: Any, ending: str) -> None:
            await trio.sleep(1)
            stage.log.append((name, ending, trio.current_time()))

        return run

    with trio.move_on_after(5) as scope:
        async with stage.open() as tree:
            for name in "abc":
                await stage.start(tree, name, stopping=stopping(name))
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert stage.log == [("c", "now", 6), ("b", "now", 7), ("a", "now", 8)]


async def test_the_grace_is_for_the_whole_stop(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Many slow children share it; what is left is killed."""
    async with stage.open(grace=10.0) as tree:
        for name in "abc":
            ref = await stage.start(tree, name)
            await ref.tell(stage.Do(stage.sleep(7, name)))
    assert trio.current_time() <= 11
    assert len([value for kind, value in stage.log if kind == "begin"]) == 3


async def test_the_bodys_own_error_comes_first(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """It leaves the tree as it is; a failure that was escalated meanwhile is a note on it."""
    with pytest.raises(KeyError) as caught:
        async with stage.open() as tree:
            ref = await stage.start(tree, policy=RestartPolicy(max_restarts=0))
            await ref.tell(stage.Do(stage.fail(ValueError("x"))))
            try:
                await trio.sleep_forever()
            finally:
                raise KeyError("mine")
    assert any("RestartIntensityExceeded" in note for note in caught.value.__notes__)


async def test_the_history_names_the_failures(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Each crash of the window is a line of what leaves the tree; the last one is its cause."""
    with pytest.raises(RestartIntensityExceeded) as caught:
        async with stage.open() as tree:
            ref = await stage.start(tree, policy=RestartPolicy(max_restarts=1, backoff=QUICK.backoff))
            for number in range(2):
                await ref.tell(stage.Do(stage.fail(ValueError(f"crash {number}"))))
            await trio.sleep_forever()
    assert caught.value.history == (
        "incarnation 1: ValueError('crash 0')",
        "incarnation 2: ValueError('crash 1')",
    )
    assert str(caught.value.__cause__) == "crash 1"


async def test_a_storm_is_the_supervisors_matter(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Children that each keep within their own bounds exhaust the supervisor's together."""
    with pytest.raises(RestartIntensityExceeded):
        async with stage.open(intensity=Intensity(max_restarts=4)) as tree:
            for number in range(5):
                ref = await stage.start(tree, f"a{number}", policy=QUICK)
                await ref.tell(stage.Do(stage.fail(ValueError())))
                await trio.sleep(2)
                assert tree.window.restarts == number + 1
            await trio.sleep_forever()


# --- slow handlers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("slow_after", "lines"), [(30.0, 3), (100.0, 1), (math.inf, 0)])
async def test_slow_handlers_are_named(
    stage: Any,
    slow_after: float,
    lines: int,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: trio.abc.Clock,
) -> None:
    """After `slow_after` seconds, at every doubling of that, and never if it is endless."""
    async with stage.open(slow_after=slow_after) as tree:
        ref = await stage.start(tree)
        with caplog.at_level(logging.WARNING, "tinker_actors.kernel"):
            await ref.ask(stage.Do(stage.sleep(190)))
    assert len([record for record in caplog.records if "run for long" in record.getMessage()]) == lines


# --- stops --------------------------------------------------------------------------------------------------


async def test_a_stop_from_inside_only_begins(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """An actor that stops its own tree, or the supervisor above it, does not wait for itself."""
    async with stage.open() as tree:
        group = tree.start_supervisor("group")
        ref = await stage.start(group.start_supervisor("inner"), "a")

        async def stop(_: Any) -> str:
            await group.stop("drain", 30.0)
            return "begun"

        with trio.fail_after(5):
            assert await ref.ask(stage.Do(stop)) == "begun"
            assert (await ref.wait_stopped()).reason == "stopped"


async def test_dynamic_children_stop_at_once(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Children that do not depend on each other are stopped side by side; others one after the other."""

    async def stopping(_: Any, ending: str) -> None:
        await trio.sleep(2)

    for strategy, seconds in (("dynamic", 2), ("one_for_one", 6)):
        async with stage.open() as tree:
            group = tree.start_supervisor("group", strategy)
            for name in "abc":
                await stage.start(group, name, stopping=stopping)
            begin = trio.current_time()
            await tree.stop_child("group")
            assert trio.current_time() - begin == seconds
            assert tree.children == {}


async def test_an_unfinished_stop_is_over_when_the_tree_is_left(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """A caller that gave up waiting for a stop leaves it under way; the tree completes it."""
    async with stage.open() as tree:
        ref = await stage.start(tree)
        await ref.tell(stage.Do(stage.sleep(5, "x")))
        with trio.move_on_after(1):
            await tree.stop_child("a")
        assert not ref.stopped
    assert ref.obituary.down == Down("tree/a", "stopped")
    assert stage.log[-1] == ("end", "x")


# --- defects ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", ["plain", "nursery"])
async def test_a_defect_of_the_kernel_is_never_lost(
    stage: Any, body: str, autojump_clock: trio.abc.Clock
) -> None:
    """What one of its own tasks raises leaves the tree, wherever the body stood when it was cancelled for it."""

    async def broken() -> None:
        await trio.sleep(1)
        raise ZeroDivisionError("planted")

    error: BaseException | None = None
    try:
        async with stage.open() as tree:
            tree.attend(broken)
            if body == "nursery":
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(trio.sleep_forever)
                    await trio.sleep_forever()
            await trio.sleep_forever()
    except BaseException as caught:  # noqa: BLE001 - a Cancelled that belongs to nobody would pass for a success
        error = caught
    assert isinstance(error, ZeroDivisionError)


async def test_long_waits_do_not_hide_a_storm(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Restarts that each wait longer than the period still add up: waiting is no running time."""
    slow = RestartPolicy(backoff=Backoff(base=100.0, maximum=100.0, jitter=0.0), max_restarts=9)
    with pytest.raises(RestartIntensityExceeded):
        async with stage.open(intensity=Intensity(max_restarts=2, period=60.0)) as tree:
            ref = await stage.start(tree, policy=slow)
            for _ in range(3):
                await ref.tell(stage.Do(stage.fail(ValueError())))
            await trio.sleep_forever()
    assert trio.current_time() < 300
