"""Handlers side by side, and what they leave behind."""

from __future__ import annotations

import gc
import logging
import weakref
from typing import Any

import pytest
import trio
import trio.testing

from tinker_actors.errors import HandlerCrashed
from tinker_actors.kernel import Backoff, Intensity, RestartPolicy


class Undeclared(Exception):
    """A crash that may be watched as it dies."""


# --- side by side -------------------------------------------------------------------------------------------


@pytest.mark.rule("K1")
async def test_handlers_run_side_by_side_up_to_the_bound(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Never more than `concurrency` at once, begun in order of admission, and as soon as there is a place."""
    running = peak = 0

    def work(number: int) -> Any:
        async def run(_: Any) -> None:
            nonlocal running, peak
            running += 1
            peak = max(peak, running)
            stage.log.append(number)
            await trio.sleep(2 + number % 3)
            running -= 1

        return run

    async with stage.open() as tree:
        ref = await stage.start(tree, concurrency=20, capacity=100)
        for number in range(100):
            await ref.tell(stage.Do(work(number)))
        await trio.sleep(1)
        assert stage.log == list(range(20))
    assert peak == 20
    assert stage.log == list(range(100))


async def test_an_actor_without_work_has_few_readers(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """After a burst most of its tasks end; with nothing to do at first, there is one."""
    async with stage.open() as tree:
        ref = await stage.start(tree, concurrency=200, capacity=200)
        await trio.testing.wait_all_tasks_blocked()
        before = trio.lowlevel.current_statistics().tasks_living
        assert len(tree.children["a"].current.readers) == 1
        for _ in range(200):
            await ref.tell(stage.Do(stage.sleep(1)))
        await trio.sleep(0.5)
        assert trio.lowlevel.current_statistics().tasks_living == before + 199
        await trio.sleep(1)
        assert len(tree.children["a"].current.readers) == 16
        for _ in range(200):
            await ref.tell(stage.Do(stage.sleep(1)))
        await trio.sleep(0.5)
        assert trio.lowlevel.current_statistics().tasks_living == before + 199


async def test_one_message_at_a_time_needs_no_crowd(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """However many handlers might run at once, messages that come one by one cost one spare reader."""
    async with stage.open() as tree:
        ref = await stage.start(tree, concurrency=200)
        for number in range(20):
            await ref.ask(stage.Do(stage.say(number)))
            await trio.testing.wait_all_tasks_blocked()
        assert len(tree.children["a"].current.readers) == 2


@pytest.mark.rule("C1")
@pytest.mark.parametrize("ticks", range(5))
async def test_a_caller_that_leaves_in_the_tick_of_the_start(
    stage: Any, ticks: int, autojump_clock: trio.abc.Clock
) -> None:
    """A message is either taken back before its handler began, or begun: never begun after its caller left."""

    async def ask() -> None:
        try:
            await ref.ask(stage.Do(stage.sleep(1, "x")))
        except trio.Cancelled:
            stage.log.append("left")
            raise

    async with stage.open() as tree:
        ref = await stage.start(tree, concurrency=5)
        for _ in range(20):
            stage.log.clear()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                for _ in range(ticks):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert stage.log[:2] in (
                ["left"],
                [("begin", "x"), "left"],
                [("begin", "x"), ("cancelled", "x")],
                [],
            )


# --- memory -------------------------------------------------------------------------------------------------


@pytest.mark.rule("A5")
@pytest.mark.scenario(47)
async def test_ten_thousand_asks_leave_nothing_behind(
    stage: Any, autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Messages, replies, exceptions and tasks are gone when their askers are: with failures and crashes too."""
    caplog.set_level(logging.ERROR, "tinker_actors.kernel")  # the records would keep the crashes
    ref_counts: list[weakref.ref[Any]] = []

    async def reply(_: Any) -> set[int]:
        await trio.lowlevel.checkpoint()
        return {1}

    async def one(ref: Any, number: int) -> None:
        error = stage.Declared("x") if number % 3 else Undeclared("x")
        message = stage.Do(reply if number % 2 else stage.fail(error))
        ref_counts.extend([weakref.ref(message), weakref.ref(error)])
        try:
            ref_counts.append(weakref.ref(await ref.ask(message)))
        except (stage.Declared, HandlerCrashed) as raised:
            ref_counts.append(weakref.ref(raised))

    intensity = Intensity(max_restarts=10**6, period=0.0)
    async with stage.open(observer=None, intensity=intensity) as tree:
        policy = {"max_restarts": 10**6, "backoff": {"base": 0.0}}
        ref = await stage.start(tree, policy=make_policy(**policy))
        await trio.testing.wait_all_tasks_blocked()
        before = trio.lowlevel.current_statistics().tasks_living
        for number in range(1000):
            await one(ref, number)
        for _ in range(9000):
            await ref.ask(stage.Do(reply))
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living == before
        gc.collect()
        assert sum(seen() is not None for seen in ref_counts) == 0
        assert len(tree.children["a"].record.history) < 1000


def make_policy(*, backoff: dict[str, Any], **settings: Any) -> Any:
    return RestartPolicy(backoff=Backoff(**backoff), period=0.0, **settings)


@pytest.mark.parametrize("how", ["reply", "declared error", "crash"])
async def test_outcomes_need_no_collector(
    stage: Any, how: str, autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Message, reply and error go by reference counting alone: nothing of them is in a cycle."""
    caplog.set_level(logging.ERROR, "tinker_actors.kernel")  # the records would keep the crash

    async def run(_: Any) -> set[int]:
        await trio.lowlevel.checkpoint()
        if how == "crash":
            raise Undeclared("x")
        if how == "declared error":
            raise stage.Declared("x")
        return {1}

    async def ask(ref: Any) -> list[weakref.ref[Any]]:
        message = stage.Do(run)
        try:
            reply = await ref.ask(message)
        except (stage.Declared, HandlerCrashed) as error:
            return [weakref.ref(message), weakref.ref(error), weakref.ref(error.__cause__ or error)]
        return [weakref.ref(message), weakref.ref(reply)]

    gc.collect()
    gc.disable()
    try:
        async with stage.open(observer=None) as tree:
            ref = await stage.start(tree, concurrency=2)
            seen = await ask(ref)
            await ref.ask(stage.Do(stage.say("next life")))
            assert [ref() for ref in seen] == [None] * len(seen)
    finally:
        gc.enable()
