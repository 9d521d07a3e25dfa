"""Callers that leave before, and after, their handler's point of no return."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio

from tinker_actors.errors import Withdrawn
from tinker_actors.kernel import Actor, Message, handles


class Wire:
    """Role of an actor that numbers what it sends."""


@attrs.frozen
class Post(Message[Wire, int]):
    """Prepare something for a second, give it a number, and send it, which takes another second."""

    content: str
    prepares_shielded: bool = False


class WireActor(Actor[Wire]):
    """Its numbers must have no gaps: what has got one is sent."""

    def __init__(self, log: list[tuple[int, str]]) -> None:
        self.log = log
        self.number = 0

    @handles(Post)
    async def post(self, message: Post) -> int:
        with trio.CancelScope(shield=message.prepares_shielded):
            await trio.sleep(1)
        self.context.commit()
        number, self.number = self.number, self.number + 1
        await trio.sleep(1)
        self.log.append((number, message.content))
        return number


@pytest.mark.scenario(13)
@pytest.mark.rule("C2", "A6")
@pytest.mark.parametrize(("how", "place"), [("cancelled", "abandoned"), ("deadline", "expired")])
async def test_what_is_committed_is_carried_through(
    stage: Any, books: Any, how: str, place: str, autojump_clock: trio.abc.Clock
) -> None:
    """Whoever leaves before `commit` costs no number, whoever leaves after it gets one spent well: no gap."""
    leaves_after = {"before": 0.5, "before, unseen": 0.5, "after": 1.5}
    gone = 0
    sent: list[tuple[int, str]] = []
    async with stage.open() as tree:
        ref = await books.start(tree, factory=lambda: WireActor(sent))
        for name in ("first", "before", "second", "after", "third", "before, unseen", "fourth"):
            start = trio.current_time()
            caller = books.caller("ask")
            async with trio.open_nursery() as nursery:
                if how == "deadline" and name in leaves_after:
                    caller.scope.deadline = start + leaves_after[name]
                nursery.start_soon(caller.run, ref, Post(name, prepares_shielded="unseen" in name))
                if how == "cancelled" and name in leaves_after:
                    await trio.sleep(leaves_after[name])
                    caller.scope.cancel()
            assert caller.scope.cancelled_caught is (name in leaves_after)
            if name in leaves_after:
                assert caller.left_at == start + leaves_after[name]
                gone += 1
            assert books.counts(ref).get(place, 0) == gone
    assert sent == [(0, "first"), (1, "second"), (2, "after"), (3, "third"), (4, "fourth")]
    assert books.counts(ref) == {"admitted": 7, "handled": 4, place: 3, "late_replies": 1}
    assert stage.delays == []


@pytest.mark.scenario(13)
@pytest.mark.rule("C2", "A3")
async def test_commit_does_not_return_when_the_caller_has_left(
    stage: Any, books: Any, autojump_clock: trio.abc.Clock
) -> None:
    """It ends the handler by an exception that is no crash: `Withdrawn`, with the actor and `started`."""
    caught: list[Withdrawn] = []

    async def commit_too_late(actor: Any) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(2)
        try:
            actor.context.commit()
        except Withdrawn as error:
            caught.append(error)
            raise
        stage.log.append("committed")

    async with stage.open() as tree:
        ref = await books.start(tree)
        with trio.move_on_after(1):
            await ref.ask(stage.Do(commit_too_late))
        assert await ref.ask(stage.Do(stage.say("next"))) == "next"
    (error,) = caught
    assert (error.actor, error.started) == ("tree/a", True)
    assert stage.log == ["next"]
    assert stage.delays == []
