"""Replies that come twice, too late, or just before a crash."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio

from tinker_actors.errors import InFlightLost
from tinker_actors.kernel import MessageSettled, ReplyToken


@attrs.define(eq=False)
class Desk:
    """Where a test keeps reply tokens."""

    tokens: list[ReplyToken[Any]] = attrs.field(factory=list)

    async def detach(self, actor: Any) -> Any:
        await trio.lowlevel.checkpoint()
        self.tokens.append(actor.context.detach_reply())
        return self.tokens[-1]


async def incarnation(actor: Any) -> int:
    """Reply with the number of the actor's life."""
    await trio.lowlevel.checkpoint()
    return int(actor.context.incarnation)


@pytest.mark.scenario(6)
@pytest.mark.rule("A1", "A7")
@pytest.mark.parametrize("survives", [False, True])
@pytest.mark.parametrize("asked", [False, True])
async def test_a_crash_after_the_answer_takes_nothing_back(
    stage: Any, books: Any, survives: bool, asked: bool, autojump_clock: trio.abc.Clock
) -> None:
    """The caller keeps its value, the actor restarts, and nothing is settled, counted or mourned twice."""

    async def answer_and_crash(actor: Any) -> None:
        assert actor.context.detach_reply(survives_restart=survives).settle("value")
        await trio.lowlevel.checkpoint()
        raise ValueError("crash")

    async with stage.open(trace_messages=True) as tree:
        ref = await books.start(tree)
        message = stage.Do(answer_and_crash)
        if asked:
            pending = await ref.submit(message)
            assert await pending == "value"
            assert await ref.ask(stage.Do(incarnation)) == 2
            assert await pending == "value"
        else:
            await ref.tell(message)
            assert await ref.ask(stage.Do(incarnation)) == 2
        assert books.counts(ref) == {"admitted": 2, "handled": 2}
        assert not tree.dead_letters.counts
    assert len(stage.delays) == 1
    assert [event for event in stage.events if isinstance(event, MessageSettled)] == [
        MessageSettled("tree/a", seq, "Do", "settled", None) for seq in range(2)
    ]


@pytest.mark.scenario(7)
@pytest.mark.rule("A1", "A7", "O3")
@pytest.mark.parametrize("first", ["token", "handler"])
@pytest.mark.parametrize("second", ["value", "error"])
async def test_the_second_reply_changes_nothing(stage: Any, books: Any, first: str, second: str) -> None:
    """It returns False and is counted and a dead letter; the caller has the first one, and keeps it."""
    desk = Desk()

    async def answer_after_detaching(actor: Any) -> str:
        await desk.detach(actor)
        return "first"

    async with stage.open() as tree:
        ref = await books.start(tree)
        pending = await ref.submit(stage.Do(desk.detach if first == "token" else answer_after_detaching))
        await ref.ask(stage.Do(incarnation))
        (token,) = desk.tokens
        if first == "token":
            assert token.settle("first")
        assert "duplicate_replies" not in books.counts(ref)
        assert not (token.settle("second") if second == "value" else token.fail(ValueError("second")))
        assert books.counts(ref) == {"admitted": 2, "handled": 2, "duplicate_replies": 1}
        assert await pending == "first"
        assert dict(tree.dead_letters.counts) == {"duplicate_reply": 1}
        assert await ref.ask(stage.Do(incarnation)) == 1


@pytest.mark.requirement("R104")
@pytest.mark.lesson("D64")
@pytest.mark.scenario(8)
@pytest.mark.rule("A6", "A1", "C3", "O3")
@pytest.mark.parametrize("by", ["token", "token's error", "handler", "handler's error"])
async def test_a_late_reply_does_not_reach_the_actor(
    stage: Any, books: Any, by: str, autojump_clock: trio.abc.Clock
) -> None:
    """The caller's time was up; the reply is counted and a dead letter, and the same incarnation lives on."""
    desk = Desk()

    async def answer_late(_: Any) -> str:
        await trio.sleep(5)
        if by == "handler":
            return "late"
        raise stage.Declared("late")

    async with stage.open() as tree:
        ref = await books.start(tree)
        with pytest.raises(trio.TooSlowError), trio.fail_after(1):
            await ref.ask(stage.Do(desk.detach) if by.startswith("token") else stage.Finish(answer_late))
        assert trio.current_time() == 1
        assert "late_replies" not in books.counts(ref)
        if by.startswith("token"):
            (token,) = desk.tokens
            _ = token.settle("late") if by == "token" else token.fail(stage.Declared("late"))
        assert await ref.ask(stage.Do(incarnation)) == 1
        assert trio.current_time() == (1 if by.startswith("token") else 5)
        assert books.counts(ref) == {"admitted": 2, "handled": 1, "expired": 1, "late_replies": 1}
        assert dict(tree.dead_letters.counts) == {"late_reply": 1}
        assert not ref.stopped
    assert stage.delays == []


@pytest.mark.scenario(9)
@pytest.mark.rule("A7", "A6", "S9", "O3")
async def test_a_token_of_an_earlier_incarnation_answers_nobody(
    stage: Any, books: Any, autojump_clock: trio.abc.Clock
) -> None:
    """Its caller got InFlightLost when that incarnation ended; the new incarnation's use of it is dropped."""
    desk, crash, message = Desk(), ValueError("crash"), None

    async def use_the_old_token(actor: Any) -> tuple[int, bool]:
        await trio.lowlevel.checkpoint()
        return actor.context.incarnation, desk.tokens[0].settle("too late")

    async with stage.open() as tree:
        ref = await books.start(tree)
        message = stage.Do(desk.detach)
        pending = await ref.submit(message)
        await ref.tell(stage.Do(stage.fail(crash)))
        with pytest.raises(InFlightLost) as caught, trio.fail_after(60):
            await pending
        assert trio.current_time() == 0  # long before the next incarnation
        assert (caught.value.started, caught.value.__cause__) == (True, crash)
        assert caught.value.handed_back is message
        assert "late_replies" not in books.counts(ref)
        assert await ref.ask(stage.Do(use_the_old_token)) == (2, False)
        assert books.counts(ref) == {"admitted": 3, "handled": 1, "failed": 2, "late_replies": 1}
        assert dict(tree.dead_letters.counts) == {"crashed": 1, "late_reply": 1}
        with pytest.raises(InFlightLost):
            await pending
    assert len(stage.delays) == 1
