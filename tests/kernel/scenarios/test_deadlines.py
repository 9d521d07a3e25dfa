"""Deadlines of callers: in line, in a handler, and in what a handler asks for."""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest
import trio
import trio.testing


@attrs.define(eq=False)
class Diary:
    """What handlers note: when something happened, and what deadline was around them."""

    entries: list[tuple[float, str]] = attrs.field(factory=list)
    deadlines: dict[str, float] = attrs.field(factory=dict)

    def note(self, what: str) -> None:
        self.entries.append((trio.current_time(), what))

    def sleeper(self, name: str, seconds: float = 100) -> Any:
        """Return a handler that sleeps."""

        async def run(_: Any) -> str:
            return await self.during(name, trio.sleep, seconds)

        return run

    def asker(self, name: str, ref: Any, message: Any) -> Any:
        """Return a handler that asks another actor."""

        async def run(_: Any) -> str:
            return await self.during(name, ref.ask, message)

        return run

    async def during(self, name: str, work: Any, *args: object) -> str:
        self.deadlines[name] = trio.current_effective_deadline()
        self.note(f"{name} begins")
        try:
            await work(*args)
        except trio.Cancelled:
            self.note(f"{name} is cancelled")
            raise
        self.note(f"{name} ends")
        return name


@pytest.mark.scenario(14)
@pytest.mark.rule("C3", "C1")
@pytest.mark.parametrize("parked", [False, True])
async def test_a_deadline_that_passes_in_line(
    stage: Any, books: Any, parked: bool, autojump_clock: trio.abc.Clock
) -> None:
    """The caller leaves at its deadline, from the line or from before it, and the handler is not begun."""
    diary = Diary()
    async with stage.open() as tree:
        ref = await books.start(tree, capacity=1)
        ahead = [await ref.submit(stage.Do(diary.sleeper("ahead", 10)))]
        await trio.testing.wait_all_tasks_blocked()
        if parked:
            ahead.append(await ref.submit(stage.Do(diary.sleeper("behind", 10))))
        with pytest.raises(trio.TooSlowError), trio.fail_at(5):  # noqa: ASYNC125 - virtual time begins at 0
            await ref.ask(stage.Do(diary.sleeper("never")))
        assert trio.current_time() == 5
        here = {"admitted": 2, "running": 1}
        assert books.counts(ref) == ({**here, "queued": 1} if parked else {**here, "expired": 1})
        for pending in ahead:
            await pending
        assert await ref.ask(stage.Do(stage.say("next"))) == "next"
        assert books.counts(ref) == (
            {"admitted": 3, "handled": 3} if parked else {"admitted": 3, "handled": 2, "expired": 1}
        )
    assert [what for _, what in diary.entries if "never" in what] == []
    assert stage.delays == []


class Jump(trio.abc.Instrument):
    """Lets time pass just before the next step of a task: no scope is cancelled before that step has run."""

    def __init__(self, clock: trio.testing.MockClock, seconds: float) -> None:
        self.clock = clock
        self.seconds = seconds
        self.task: trio.lowlevel.Task | None = None

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Jump, once."""
        if task is self.task:
            self.task = None
            self.clock.jump(self.seconds)


@pytest.mark.scenario(14)
@pytest.mark.rule("C3")
async def test_a_deadline_that_passes_in_the_step_that_would_begin_it(
    stage: Any, books: Any, mock_clock: trio.testing.MockClock
) -> None:
    """The actor itself looks at the clock: a caller that cannot have noticed yet is as late as one that has."""
    gate, diary, jump = trio.Event(), Diary(), Jump(mock_clock, 6)
    caller = books.caller("ask", deadline=5)

    async def let_time_pass(_: Any) -> None:
        await gate.wait()
        jump.task = trio.lowlevel.current_task()  # its next step is the taking of the next message

    async with stage.open() as tree, trio.open_nursery() as nursery:
        ref = await books.start(tree)
        await ref.tell(stage.Do(let_time_pass))
        nursery.start_soon(caller.run, ref, stage.Do(diary.sleeper("never")))
        await trio.testing.wait_all_tasks_blocked()
        trio.lowlevel.add_instrument(jump)
        gate.set()
        await trio.testing.wait_all_tasks_blocked()
        trio.lowlevel.remove_instrument(jump)
        assert trio.current_time() == 6
        assert await ref.ask(stage.Do(stage.say("next"))) == "next"
        assert books.counts(ref) == {"admitted": 3, "handled": 2, "expired": 1}
        assert dict(tree.dead_letters.counts) == {"expired": 1}
    assert caller.got == (None, None, True)
    assert diary.entries == []


@pytest.mark.scenario(14)
@pytest.mark.rule("C3", "A3")
async def test_a_deadline_that_passes_in_the_handler(
    stage: Any, books: Any, autojump_clock: trio.abc.Clock
) -> None:
    """The handler has its caller's deadline around it and is cancelled at it; the next message has none."""
    diary = Diary()
    async with stage.open() as tree:
        ref = await books.start(tree)
        with pytest.raises(trio.TooSlowError), trio.fail_at(5):  # noqa: ASYNC125 - virtual time begins at 0
            await ref.ask(stage.Do(diary.sleeper("late")))
        assert trio.current_time() == 5
        assert await ref.ask(stage.Do(diary.sleeper("next", 1))) == "next"
        counts = books.counts(ref)
        assert counts == {"admitted": 2, "handled": 1, "expired": 1}
    assert diary.deadlines == {"late": 5, "next": math.inf}
    assert diary.entries == [
        (0, "late begins"),
        (5, "late is cancelled"),
        (5, "next begins"),
        (6, "next ends"),
    ]
    assert stage.delays == []


@pytest.mark.scenario(14)
@pytest.mark.rule("C3", "A4")
@pytest.mark.parametrize("inner_is", ["running", "in line"])
async def test_a_deadline_that_passes_in_a_nested_ask(
    stage: Any, books: Any, inner_is: str, autojump_clock: trio.abc.Clock
) -> None:
    """Three actors deep the deadline is the same absolute time, and ends all at once; all of them live on."""
    diary = Diary()
    async with stage.open() as tree:
        outer, middle, inner = [await books.start(tree, name) for name in ("outer", "middle", "inner")]
        chain = stage.Do(diary.sleeper("inner"))
        chain = stage.Do(diary.asker("middle", inner, chain))
        chain = stage.Do(diary.asker("outer", middle, chain))
        if inner_is == "in line":
            await inner.tell(stage.Do(diary.sleeper("other", 20)))
        await trio.sleep(1)
        with pytest.raises(trio.TooSlowError), trio.fail_at(5):  # noqa: ASYNC125 - virtual time begins at 0
            await outer.ask(chain)
        assert trio.current_time() == 5
        ended = books.counts(inner)
        assert ended == {"admitted": 1, "expired": 1} | (
            {"running": 1, "admitted": 2} if inner_is == "in line" else {}
        )
        assert [await ref.ask(stage.Do(stage.say("next"))) for ref in (outer, middle, inner)] == ["next"] * 3
        for ref in (outer, middle):
            counts = books.counts(ref)
            assert counts == {"admitted": 2, "handled": 1, "expired": 1}
    begun = ["outer", "middle"] + (["inner"] if inner_is == "running" else [])
    assert {name: diary.deadlines[name] for name in begun} == dict.fromkeys(begun, 5)
    assert ("inner" in diary.deadlines) is (inner_is == "running")
    cancelled = [(at, what) for at, what in diary.entries if what.endswith("is cancelled")]
    assert sorted(cancelled) == sorted((5, f"{name} is cancelled") for name in begun)
    assert stage.delays == []


@pytest.mark.scenario(14)
@pytest.mark.rule("C3")
async def test_a_shorter_deadline_of_the_handler_stays_its_own(
    stage: Any, books: Any, autojump_clock: trio.abc.Clock
) -> None:
    """What a handler asks with less time ends earlier, and the handler can still answer its own caller."""
    diary = Diary()

    async def ask_in_two_seconds(_: Any) -> str:
        with trio.move_on_after(2):
            await inner.ask(stage.Do(diary.sleeper("inner")))
        return "too slow for me"

    async with stage.open() as tree:
        outer, inner = [await books.start(tree, name) for name in ("outer", "inner")]
        with trio.fail_after(5):
            assert await outer.ask(stage.Do(ask_in_two_seconds)) == "too slow for me"
        assert trio.current_time() == 2
        assert books.counts(outer) == {"admitted": 1, "handled": 1}
        await trio.testing.wait_all_tasks_blocked()
    assert diary.deadlines == {"inner": 2}
    assert diary.entries == [(0, "inner begins"), (2, "inner is cancelled")]


@pytest.mark.scenario(14)
@pytest.mark.rule("C3")
async def test_a_deadline_that_was_kept_leaves_nothing_behind(
    stage: Any, books: Any, autojump_clock: trio.abc.Clock
) -> None:
    """The next message, of a caller with all the time there is, runs on past the deadline of the one before."""
    diary = Diary()
    async with stage.open() as tree:
        ref = await books.start(tree)
        with trio.fail_at(5):  # noqa: ASYNC125 - virtual time begins at 0
            assert await ref.ask(stage.Do(diary.sleeper("in time", 1))) == "in time"
        assert await ref.ask(stage.Do(diary.sleeper("next", 10))) == "next"
        assert books.counts(ref) == {"admitted": 2, "handled": 2}
    assert diary.deadlines == {"in time": 5, "next": math.inf}
    assert diary.entries[-1] == (11, "next ends")
