"""A reply and its caller's leaving in the same tick: the first of them wins."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tinker_actors.kernel import ActorReady, ReplyToken

LEFT = (None, None, True)


@attrs.define(eq=False)
class Race:
    """An ask whose answer, and whose caller's cancellation, the test can bring about in one step."""

    stage: Any
    by: str
    gate: trio.Event = attrs.field(factory=trio.Event)
    tokens: list[ReplyToken[Any]] = attrs.field(factory=list)

    async def run(self, actor: Any) -> Any:
        if self.by == "token":
            await trio.lowlevel.checkpoint()
            self.tokens.append(actor.context.detach_reply())
            return self.tokens[0]
        await self.gate.wait()
        return "reply"

    def answer(self) -> None:
        """Answer, by the token now, or by waking the handler."""
        if self.by == "token":
            self.tokens[0].settle("reply")
        else:
            self.gate.set()


async def bystander(stage: Any, gate: trio.Event) -> str:
    """Stand beside the caller in its nursery; a cancellation that is not its own would end this."""
    await gate.wait()
    for _ in range(10):
        await trio.lowlevel.checkpoint()
    stage.log.append("bystander")
    return "unharmed"


@pytest.mark.scenario(15)
@pytest.mark.rule("A1", "A4", "A6", "O1")
@pytest.mark.parametrize("by", ["token", "handler"])
@pytest.mark.parametrize("first", ["reply", "cancel"])
async def test_the_first_of_reply_and_cancellation_wins(
    stage: Any, books: Any, by: str, first: str, autojump_clock: trio.abc.Clock
) -> None:
    """Both come in one step; only a token's reply is in time, the waking of a handler is not one yet."""
    race, caller, other = Race(stage, by), books.caller("ask"), trio.Event()
    async with stage.open() as tree:
        ref = await books.start(tree)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(caller.run, ref, stage.Do(race.run))
            nursery.start_soon(bystander, stage, other)
            await trio.testing.wait_all_tasks_blocked()
            for step in (race.answer, caller.scope.cancel)[:: 1 if first == "reply" else -1]:
                step()
            books.check()
            other.set()
        in_time = by == "token" and first == "reply"
        assert caller.got == (("reply", None, False) if in_time else LEFT)
        assert await ref.ask(stage.Do(bystander_of_handlers)) == (1, False)
        counts = {"admitted": 2, "handled": 2} if in_time else {"admitted": 2, "handled": 1, "abandoned": 1}
        if not in_time and not (by == "handler" and first == "cancel"):
            counts["late_replies"] = 1
        assert books.counts(ref) == counts
    assert stage.log == ["bystander"]
    assert stage.delays == []


async def bystander_of_handlers(actor: Any) -> tuple[int, bool]:
    """Handle the next message: no cancellation may be left from the one before."""
    for _ in range(10):
        await trio.lowlevel.checkpoint()
    return actor.context.incarnation, trio.current_effective_deadline() == float("-inf")


@pytest.mark.scenario(15)
@pytest.mark.rule("A1", "A4", "O1")
@pytest.mark.parametrize("kind", ["Do", "Finish", "Wait"])
async def test_whatever_the_scheduler_does_one_of_them_wins(
    stage: Any, books: Any, kind: str, autojump_clock: trio.abc.Clock
) -> None:
    """Hundreds of rounds in which the handler returns in the tick of the cancellation, in an order of chance."""
    rounds, won, lost = 300, 0, 0
    async with stage.open() as tree:
        ref = await books.start(tree)
        for _ in range(rounds):
            race, caller, cancel = Race(stage, "handler"), books.caller("ask"), trio.Event()

            async def canceller(caller: Any = caller, cancel: trio.Event = cancel) -> None:
                await cancel.wait()
                caller.scope.cancel()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(caller.run, ref, getattr(stage, kind)(race.run))
                nursery.start_soon(canceller)
                await trio.testing.wait_all_tasks_blocked()
                cancel.set()
                race.gate.set()
            books.check()
            assert caller.got in (("reply", None, False), LEFT)
            won += caller.reply == "reply"
            lost += caller.scope.cancelled_caught
    assert won + lost == rounds
    assert won > 0 < lost
    assert ref.statistics().handled == won
    assert ref.statistics().abandoned == lost
    assert [event for event in stage.events if isinstance(event, ActorReady)] == [ActorReady("tree/a", 1)]
    assert stage.delays == []


@pytest.mark.scenario(15)
@pytest.mark.rule("A1", "A4", "C3")
async def test_a_reply_in_the_step_of_the_deadline_is_in_time(
    stage: Any, books: Any, mock_clock: trio.testing.MockClock
) -> None:
    """The handler returns before anybody has noticed that time is up: the value counts, and nothing is left over."""

    async def let_time_pass(_: Any) -> str:
        await trio.lowlevel.checkpoint()
        mock_clock.jump(6)  # past the deadline of caller and handler; no scope is cancelled in this step
        return "in time"

    async with stage.open() as tree:
        ref = await books.start(tree)
        caller = books.caller("ask", deadline=5)
        await caller.run(ref, stage.Do(let_time_pass))
        assert caller.got == ("in time", None, False)
        assert await ref.ask(stage.Do(bystander_of_handlers)) == (1, False)
        assert books.counts(ref) == {"admitted": 2, "handled": 2}
    assert stage.delays == []
