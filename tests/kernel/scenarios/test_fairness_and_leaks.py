"""An actor with a long line beside others, what is left of thousands of asks, and what travels with a message."""

from __future__ import annotations

import gc
import logging
import statistics
import time
import traceback
import weakref
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tinker_actors.errors import HandlerCrashed, StartFailed
from tinker_actors.kernel import (
    TRACE,
    Actor,
    ActorStuck,
    Backoff,
    ChildSpec,
    Down,
    Intensity,
    Message,
    RestartPolicy,
    handles,
)

AT_ONCE = RestartPolicy(max_restarts=10_000, backoff=Backoff(base=0, jitter=0))
NEVER = Intensity(max_restarts=10_000)


class Mill:
    """Role of the actors below."""


class Grain(Message[Mill, None]):
    """A message whose handler has no schedule point of its own."""


@attrs.frozen
class Call(Message[Mill, Any]):
    """Call something with the actor."""

    run: Callable[[Any], Any]


class Ring(Message[Mill, None]):
    """A timer's message."""


class Miller(Actor[Mill]):
    """Counts grains, and notes when signals come."""

    def __init__(self, log: list[Any]) -> None:
        self.log = log

    @handles(Grain)
    async def grain(self, message: Grain) -> None:  # noqa: ASYNC910 - it is to have no checkpoint
        self.log.append("grain")

    @handles(Call)
    async def call(self, message: Call) -> Any:
        await trio.lowlevel.checkpoint()
        result = message.run(self)
        return await result if hasattr(result, "__await__") else result

    @handles(Down)
    async def down(self, message: Down) -> None:  # noqa: ASYNC910 - as above
        self.log.append("down")

    @handles(Ring)
    async def ring(self, message: Ring) -> None:  # noqa: ASYNC910 - as above
        self.log.append("ring")


def spec(log: list[Any], name: str = "mill", **settings: Any) -> ChildSpec[Mill]:
    """Describe a miller."""
    return ChildSpec(name=name, factory=lambda: Miller(log), **settings)


# --- fairness --------------------------------------------------------------------------------------------


@pytest.mark.scenario(45)
@pytest.mark.rule("M7")
@pytest.mark.parametrize("concurrency", [1, 4])
async def test_another_task_runs_between_any_two_messages(stage: Any, concurrency: int) -> None:
    """While a line is worked off, a task that only checkpoints sees no more than one message per reader go by."""
    log: list[str] = []
    steps: list[int] = []

    async def beat() -> None:
        while True:
            before = len(log)
            await trio.lowlevel.checkpoint()
            steps.append(len(log) - before)

    async with stage.open() as tree, trio.open_nursery() as nursery:
        ref = await tree.start_child(spec(log, capacity=2000, concurrency=concurrency))
        for _ in range(2000):
            ref.tell_nowait(Grain())
        nursery.start_soon(beat)
        await ref.stop()
        nursery.cancel_scope.cancel()
    assert len(log) == 2000
    assert sum(steps) in range(1990, 2001)
    # Two turns of the scheduler may follow each other if it serves one batch forwards and the next one backwards.
    assert max(steps) <= 2 * concurrency


@pytest.mark.scenario(45)
@pytest.mark.rule("M7")
async def test_each_message_is_a_cancel_point(stage: Any) -> None:
    """A kill in the middle of a long line of handlers that never checkpoint takes hold at the very next message."""
    log: list[str] = []

    async with stage.open() as tree:
        ref = await tree.start_child(spec(log, capacity=2000))

        def kill(_: Miller) -> None:
            tree.children["mill"].ask_to_stop("kill")
            log.append("killed")

        for number in range(1000):
            ref.tell_nowait(Call(kill) if number == 500 else Grain())
        await ref.wait_stopped()
    assert log == ["grain"] * 500 + ["killed"]


@pytest.mark.slow
@pytest.mark.scenario(45)
@pytest.mark.rule("M7")
async def test_a_heart_beats_on_time_beside_a_line_of_a_hundred_thousand(stage: Any) -> None:
    """In real time, a beat per millisecond is late by less than 5 ms in the middle, and by 0.1 s at most."""
    log: list[str] = []
    late: list[float] = []

    async def beat() -> None:
        while True:
            due = trio.current_time() + 0.001
            await trio.sleep_until(due)
            late.append(trio.current_time() - due)

    async with stage.open() as tree, trio.open_nursery() as nursery:
        ref = await tree.start_child(spec(log, capacity=100_000))
        for _ in range(100_000):
            ref.tell_nowait(Grain())
        nursery.start_soon(beat)
        began = time.perf_counter()
        await ref.stop(timeout=100)
        took = time.perf_counter() - began
        nursery.cancel_scope.cancel()
    assert len(log) == 100_000
    assert len(late) > 50 * took, "it hardly beat at all"
    assert statistics.median(late) < 0.005
    assert max(late) < 0.1


@pytest.mark.scenario(46)
@pytest.mark.rule("M6")
async def test_a_signal_goes_before_a_full_line(stage: Any, autojump_clock: trio.testing.MockClock) -> None:
    """`Down` and a timer come while a handler runs and the mailbox is full: both are handled next, the line after."""
    log: list[str] = []

    async def hold(actor: Miller) -> None:
        actor.context.send_after(1, Ring())
        await trio.sleep(2)
        log.append("held")

    async with stage.open() as tree:
        ref, other = await tree.start_child(spec(log)), await stage.start(tree, "other")
        await ref.ask(Call(lambda actor: actor.context.watch(other)))
        ref.tell_nowait(Call(hold))
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(64):
            ref.tell_nowait(Grain())
        assert ref.statistics().queued == ref.statistics().capacity == 64
        await other.stop()
        assert ref.statistics().queued == 64
        await ref.stop()
    assert log[0] == "held"
    assert sorted(log[1:3]) == ["down", "ring"]
    assert log[3:] == ["grain"] * 64


@pytest.mark.scenario(46)
@pytest.mark.rule("M6", "M7")
async def test_a_signal_waits_for_one_message_at_most(stage: Any) -> None:
    """It comes in the middle of a line that is being worked off: the message in hand is the last one before it."""
    log: list[str] = []
    async with stage.open() as tree:
        ref, other = await tree.start_child(spec(log)), await stage.start(tree, "other")
        await ref.ask(Call(lambda actor: actor.context.watch(other)))

        def end(_: Miller) -> None:
            tree.children["other"].ask_to_stop("now")

        other.obituary.add(lambda _: log.append("ended"))
        for number in range(64):
            ref.tell_nowait(Call(end) if number == 20 else Grain())
        await ref.stop()
    assert log.index("down") - log.index("ended") <= 2
    assert log.count("grain") == 63


@pytest.mark.scenario(46)
@pytest.mark.rule("M6")
@pytest.mark.parametrize(
    ("mode", "rest"), [("kill", []), ("now", ["held"]), ("drain", ["held", "down", *["grain"] * 64])]
)
async def test_a_stop_goes_before_signals_and_line(
    stage: Any, mode: Any, rest: list[str], autojump_clock: trio.testing.MockClock
) -> None:
    """A kill ends the handler at once; `now` begins nothing of the line; `drain` does it all, signals first."""
    log: list[str] = []

    async def hold(actor: Miller) -> None:
        await trio.sleep(2)
        log.append("held")

    async with stage.open() as tree:
        ref, other = await tree.start_child(spec(log)), await stage.start(tree, "other")
        await ref.ask(Call(lambda actor: actor.context.watch(other)))
        ref.tell_nowait(Call(hold))
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(64):
            ref.tell_nowait(Grain())
        await other.stop()
        await ref.stop(mode)
        assert trio.current_time() == (0 if mode == "kill" else 2)
    assert [entry for entry in log if mode != "now" or entry != "down"] == rest


# --- leaks -----------------------------------------------------------------------------------------------


@attrs.frozen(eq=False)
class Ask(Message[Mill, int]):
    """One of ten thousand."""

    number: int


class Answer(Exception):
    """A declared one; exceptions of Python itself cannot be referred to weakly."""


class Broken(Exception):
    """One that is a crash."""


class Answering(Actor[Mill]):
    """Answers, declares or crashes."""

    declares = (Answer,)
    raised: weakref.WeakSet[Exception]

    @handles(Ask)
    async def answer(self, message: Ask) -> int:
        await trio.lowlevel.checkpoint()
        if message.number % 100:
            return message.number
        error = Answer(message.number) if message.number % 200 else Broken(message.number)
        self.raised.add(error)
        raise error


@pytest.mark.scenario(47)
@pytest.mark.rule("A5", "N5")
async def test_ten_thousand_asks_leave_nothing_behind(stage: Any, caplog: Any) -> None:
    """No message and no exception lives on, no task is left, and the last traceback is as deep as the first."""
    caplog.set_level(logging.CRITICAL, "tinker_actors.kernel")  # a captured record would keep its exception
    messages: weakref.WeakSet[Ask] = weakref.WeakSet()
    raised = Answering.raised = weakref.WeakSet()
    depths: dict[type, set[int]] = {Answer: set(), HandlerCrashed: set()}

    async def ask(ref: Any, number: int) -> None:
        message = Ask(number)
        messages.add(message)
        try:
            assert await ref.ask(message) == number
        except (Answer, HandlerCrashed) as error:
            raised.add(error)
            depths[type(error)].add(len(traceback.extract_tb(error.__traceback__)))

    async with stage.open(observer=None, intensity=NEVER) as tree:
        ref = await tree.start_child(ChildSpec(name="a", factory=Answering, policy=AT_ONCE))
        await ref.ask(Ask(1))
        tasks = trio.lowlevel.current_statistics().tasks_living
        for number in range(10_000):
            await ask(ref, number)
        await trio.testing.wait_all_tasks_blocked()
        gc.collect()
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        assert list(messages) == []
        assert len(raised) <= 1  # the failure that the next incarnation may ask for
        seen = ref.statistics()
        assert (seen.admitted, seen.handled, seen.failed) == (10_001, 9_901, 100)
    del ref, tree
    gc.collect()
    assert list(raised) == []
    assert [len(found) for found in depths.values()] == [1, 1]


# --- context ---------------------------------------------------------------------------------------------


@pytest.mark.scenario(48)
@pytest.mark.rule("N7")
@pytest.mark.parametrize("concurrency", [1, 8])
async def test_a_handler_sees_the_trace_of_its_own_caller(
    stage: Any, concurrency: int, autojump_clock: trio.testing.MockClock
) -> None:
    """Of every caller its own, whatever the kind of send, also after a sleep; and nothing if the caller set nothing."""
    log: list[Any] = []

    async def look(actor: Miller) -> list[object]:
        before = TRACE.get()
        await trio.sleep(1)
        return [before, TRACE.get()]

    async with stage.open() as tree, trio.open_nursery() as nursery:
        ref = await tree.start_child(spec(log, concurrency=concurrency))

        async def caller(name: str | None) -> None:
            if name is not None:
                TRACE.set(name)
            assert await ref.ask(Call(look)) == [name, name]
            assert await (await ref.submit(Call(look))) == [name, name]
            ref.tell_nowait(Call(lambda _: log.append((name, TRACE.get()))))

        for name in ("x", None, "y", None, "z"):
            nursery.start_soon(caller, name)
    assert sorted(log, key=str) == sorted([(n, n) for n in ("x", None, "y", None, "z")], key=str)


@pytest.mark.scenario(48)
@pytest.mark.rule("N7")
async def test_a_trace_goes_on_with_asks_and_not_to_hooks_and_signals(
    stage: Any, autojump_clock: trio.testing.MockClock
) -> None:
    """A nested ask carries it; a handler's own change stays there; `on_stop` and the next message see none."""
    seen: list[object] = []

    async def stopping(*_: Any) -> None:
        await trio.lowlevel.checkpoint()
        seen.append(("on_stop", TRACE.get()))

    async def look(_: Any) -> None:
        await trio.lowlevel.checkpoint()
        seen.append(TRACE.get())

    async with stage.open() as tree:
        inner = await stage.start(tree, "inner", stopping=stopping)
        outer = await stage.start(tree, "outer")

        async def nest(actor: Any) -> None:
            await inner.ask(stage.Do(look))
            TRACE.set("changed by the handler")

        async def traced() -> None:
            TRACE.set("t")
            await outer.ask(stage.Do(nest))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(traced)
        await outer.ask(stage.Do(look))
        await inner.ask(stage.Do(look))
    assert seen == ["t", None, None, ("on_stop", None)]


# --- starters --------------------------------------------------------------------------------------------


@pytest.mark.scenario(50)
@pytest.mark.rule("N3", "C6")
@pytest.mark.parametrize(
    ("shielded", "returns"),
    [(0.0, 1), (3.0, 3), (100.0, 6)],
    ids=["not at all", "for a while", "for too long"],
)
async def test_a_starter_that_is_cancelled_comes_back_in_time(
    stage: Any, shielded: float, returns: float, autojump_clock: trio.testing.MockClock
) -> None:
    """While `on_start` is shielded the starter waits for it, but no longer than `cleanup_timeout`, 5 s."""

    async def start(_: Any) -> None:
        with trio.CancelScope(shield=bool(shielded)):
            await trio.sleep(shielded or 100)

    async with stage.open() as tree:
        with trio.move_on_after(1) as scope:
            await stage.start(tree, starting=start)
        assert scope.cancelled_caught
        assert trio.current_time() == returns
        assert dict(tree.children) == {}
        assert sum(isinstance(event, ActorStuck) for event in stage.events) == (shielded == 100)
        assert stage.delays == []
        ref = await stage.start(tree)
        assert await ref.ask(stage.Do(stage.say("the name is free"))) == "the name is free"


@pytest.mark.scenario(50)
@pytest.mark.rule("N3")
async def test_a_start_that_hangs_in_a_shield_ends_by_its_own_timeout(
    stage: Any, autojump_clock: trio.testing.MockClock
) -> None:
    """`start_timeout` cancels what the starter waits for, and the starter hears of it."""

    async def start(_: Any) -> None:
        await trio.sleep_forever()

    async with stage.open() as tree:
        with pytest.raises(StartFailed) as caught:
            await stage.start(tree, starting=start, start_timeout=2)
        assert isinstance(caught.value.__cause__, trio.TooSlowError)
        assert trio.current_time() == 2
