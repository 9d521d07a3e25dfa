"""What becomes of a message whose handler raises, and of those in line behind it."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio

from tinker_actors.errors import ActorRestarting, HandlerCrashed
from tinker_actors.kernel import (
    Actor,
    ActorCrashed,
    ActorEnded,
    ActorReady,
    Message,
    handles,
)

# --- an actor with a state ----------------------------------------------------------------------------------


class Till:
    """Role of an actor that counts money."""


@attrs.frozen
class Add(Message[Till, int]):
    """Add an amount and reply with the total."""

    amount: int


class Overdrawn(Exception):
    """There is not so much money."""


class TillActor(Actor[Till]):
    """Counts money; too little of it is an answer, nothing at all is a crash."""

    declares = (Overdrawn,)

    def __init__(self) -> None:
        self.total = 0

    @handles(Add)
    async def add(self, message: Add) -> int:
        await trio.lowlevel.checkpoint()
        if message.amount == 0:
            raise ValueError("nothing")
        if self.total + message.amount < 0:
            raise Overdrawn(self.total)
        self.total += message.amount
        return self.total


def kernel_log(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the kernel has logged, without the lines about dead letters."""
    lines = [record.getMessage() for record in caplog.records if record.name == "tinker_actors.kernel"]
    return [line for line in lines if not line.startswith("dead letter")]


# --- handlers that raise ------------------------------------------------------------------------------------


@pytest.mark.scenario(1)
@pytest.mark.rule("A3", "A5", "N1", "S11")
async def test_an_undeclared_exception_crashes_the_actor_and_tells_the_caller(
    stage: Any, books: Any, caplog: pytest.LogCaptureFixture, autojump_clock: trio.abc.Clock
) -> None:
    """The caller gets HandlerCrashed with the cause; one line is logged and the next incarnation answers."""
    crash = KeyError("undeclared")
    message = stage.Do(stage.fail(crash))
    async with stage.open() as tree:
        ref, sibling = await books.start(tree), await books.start(tree, "b")
        with pytest.raises(HandlerCrashed) as caught:
            await ref.ask(message)
        assert caught.value.__cause__ is crash
        assert (caught.value.started, caught.value.actor) == (True, "tree/a")
        assert caught.value.handed_back is message
        assert await ref.ask(stage.Do(incarnation)) == 2
        assert await sibling.ask(stage.Do(incarnation)) == 1
        assert books.counts(ref) == {"admitted": 2, "handled": 1, "failed": 1}
        assert not tree.dead_letters.counts
    (delay,) = stage.delays
    assert [event for event in stage.events if event.actor == "tree/a"] == [
        ActorReady("tree/a", 1),
        ActorCrashed("tree/a", 1, crash, delay),
        ActorReady("tree/a", 2),
        ActorEnded("tree/a", 2, failed=False),
    ]
    (line,) = kernel_log(caplog)
    assert "tree/a#1 crashed" in line
    assert repr(crash) in line
    assert f"{delay:.2f} s" in line
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[1] is crash


async def incarnation(actor: Any) -> int:
    """Reply with the number of the actor's life."""
    await trio.lowlevel.checkpoint()
    return int(actor.context.incarnation)


@pytest.mark.scenario(2)
@pytest.mark.rule("A3", "A5")
async def test_a_declared_error_is_an_answer(
    stage: Any, books: Any, caplog: pytest.LogCaptureFixture, autojump_clock: trio.abc.Clock
) -> None:
    """The caller gets an object of its own; the actor keeps its incarnation and its state, and nothing is logged."""
    async with stage.open() as tree:
        ref = await books.start(tree, factory=TillActor)
        assert await ref.ask(Add(3)) == 3
        pending = await ref.submit(Add(-5))
        caught = []
        for _ in range(2):
            with pytest.raises(Overdrawn) as raised:
                await pending
            caught.append(raised.value)
        assert [error.args for error in caught] == [(3,), (3,)]
        assert caught[0] is not caught[1]
        assert await ref.ask(Add(4)) == 7
        assert books.counts(ref) == {"admitted": 3, "handled": 2, "failed": 1}
        assert not tree.dead_letters.counts
    assert stage.events == [ActorReady("tree/a", 1), ActorEnded("tree/a", 1, failed=False)]
    assert kernel_log(caplog) == []


@pytest.mark.scenario(3)
@pytest.mark.rule("A3", "O3")
@pytest.mark.parametrize(
    ("amount", "reason", "total", "restarts"), [(0, "crashed", 1, 1), (-5, "failed", 4, 0)]
)
async def test_a_tell_that_fails_is_judged_like_an_ask(
    stage: Any,
    books: Any,
    amount: int,
    reason: str,
    total: int,
    restarts: int,
    autojump_clock: trio.abc.Clock,
) -> None:
    """An undeclared exception restarts the actor, a declared one does not; either is a dead letter."""
    async with stage.open() as tree:
        ref = await books.start(tree, factory=TillActor)
        await ref.ask(Add(3))
        await ref.tell(Add(amount))
        assert await ref.ask(Add(1)) == total
        assert books.counts(ref) == {"admitted": 3, "handled": 2, "failed": 1}
        (letter,) = tree.dead_letters.recent
        assert (letter.actor, letter.reason, letter.kind, letter.seq) == ("tree/a", reason, "Add", 1)
        assert dict(tree.dead_letters.counts) == {reason: 1}
    assert len(stage.delays) == restarts
    assert ActorEnded("tree/a", 1 + restarts, failed=False) in stage.events


# --- messages in line when an actor crashes -------------------------------------------------------------------


@attrs.define(eq=False)
class Line:
    """Fifty callers whose asks stand in line behind a handler that waits, and then crashes."""

    stage: Any
    ticks: Any
    crash: trio.Event = attrs.field(factory=trio.Event)
    replies: dict[int, Any] = attrs.field(factory=dict)
    errors: dict[int, ActorRestarting] = attrs.field(factory=dict)
    is_own: dict[int, bool] = attrs.field(factory=dict)
    heard_in: set[int] = attrs.field(factory=set)

    async def form(self, ref: Any, nursery: trio.Nursery) -> None:
        """Begin the handler that will crash, then have the callers ask, one after the other."""
        await ref.tell(self.stage.Do(self.wait_and_crash))
        for number in range(50):
            nursery.start_soon(self.ask, ref, number)
            await trio.testing.wait_all_tasks_blocked()

    async def wait_and_crash(self, _: Any) -> None:
        await self.crash.wait()
        raise ValueError("crash")

    async def ask(self, ref: Any, number: int) -> None:
        async def run(actor: Any) -> tuple[int, int]:
            await trio.lowlevel.checkpoint()
            self.stage.log.append(number)
            return actor.context.incarnation, actor.context.call.seq

        message = self.stage.Do(run)
        try:
            self.replies[number] = await ref.ask(message)
        except ActorRestarting as error:
            self.errors[number] = error
            self.is_own[number] = error.handed_back is message
            self.heard_in.add(self.ticks.now)
            with pytest.raises(ActorRestarting) as caught:
                await ref.ask(message)  # at once is too early
            assert (caught.value.started, caught.value.handed_back) == (False, message)
            await trio.sleep(1 + number)
            self.replies[number] = await ref.ask(message)


@pytest.mark.scenario(4)
@pytest.mark.rule("S8", "M4", "A2")
async def test_held_asks_are_answered_by_the_next_incarnation_in_order(
    stage: Any, books: Any, ticks: Any, autojump_clock: trio.abc.Clock
) -> None:
    """Fifty asks stay in line through the backoff; each gets its one answer, in the order of their numbers."""
    line = Line(stage, ticks)
    async with stage.open() as tree, trio.open_nursery() as nursery:
        ref = await books.start(tree, on_restart="hold")
        await line.form(ref, nursery)
        assert books.counts(ref) == {"admitted": 51, "queued": 50, "running": 1}
        line.crash.set()
        await trio.sleep(0.05)  # amid the backoff
        assert books.counts(ref) == {"admitted": 51, "queued": 50, "failed": 1}
    assert line.replies == {number: (2, 1 + number) for number in range(50)}
    assert stage.log == list(range(50))
    assert line.errors == {}
    assert books.counts(ref) == {"admitted": 51, "handled": 50, "failed": 1}


@pytest.mark.scenario(5)
@pytest.mark.rule("S8", "A2", "A3", "A5")
async def test_fail_fast_gives_all_asks_back_in_one_tick(
    stage: Any, books: Any, ticks: Any, autojump_clock: trio.abc.Clock
) -> None:
    """Fifty callers hear in one tick that nothing was begun, tells stay in line, and a second try is answered."""
    line = Line(stage, ticks)
    async with stage.open() as tree, trio.open_nursery() as nursery:
        ref = await books.start(tree, on_restart="fail_fast")
        await line.form(ref, nursery)
        await ref.tell(stage.Do(stage.say("tell")))
        line.crash.set()
        await trio.sleep(0.05)
        assert books.counts(ref) == {
            "admitted": 52, "failed": 1, "rejected": 50, "queued": 1, "refused": 50
        }  # fmt: skip
    assert sorted(line.errors) == list(range(50))
    assert {error.started for error in line.errors.values()} == {False}
    assert all(line.is_own.values())
    assert len({id(error) for error in line.errors.values()}) == 50
    assert len(line.heard_in) == 1
    assert line.replies == {number: (2, 52 + number) for number in range(50)}
    assert stage.log == ["tell", *range(50)]
    assert books.counts(ref) == {
        "admitted": 102, "handled": 51, "failed": 1, "rejected": 50, "refused": 50
    }  # fmt: skip
