"""Replies that come after the handler."""

from __future__ import annotations

import threading
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tinker_actors.errors import HandlerCrashed, InFlightLost
from tinker_actors.kernel import ReplyToken, RestartPolicy
from tinker_actors.kernel.message import State

# --- deferred replies ---------------------------------------------------------------------------------------


@attrs.define(eq=False)
class Desk:
    """Where a test keeps reply tokens."""

    tokens: list[ReplyToken[Any]] = attrs.field(factory=list)

    def detach(self, *, survives: bool = False) -> Any:
        async def run(actor: Any) -> Any:
            await trio.lowlevel.checkpoint()
            self.tokens.append(actor.context.detach_reply(survives_restart=survives))
            return self.tokens[-1]

        return run


@pytest.mark.rule("A7")
async def test_a_token_answers_after_the_handler(stage: Any) -> None:
    """The actor goes on with other messages meanwhile; the token's first answer counts, later ones do not."""
    desk = Desk()
    async with stage.open() as tree:
        ref = await stage.start(tree)
        good, bad = [await ref.submit(stage.Do(desk.detach())) for _ in range(2)]
        assert await ref.ask(stage.Do(stage.say("meanwhile"))) == "meanwhile"
        assert not good.settled
        assert not desk.tokens[0].settled
        assert desk.tokens[0].settle("late")
        assert desk.tokens[0].settled
        assert not desk.tokens[0].settle("again")
        assert not desk.tokens[0].fail(ValueError())
        assert good.outcome.late == 2
        assert desk.tokens[1].fail(stage.Declared("no"))
        assert await good == "late"
        with pytest.raises(stage.Declared):
            await bad


@pytest.mark.rule("A6")
async def test_a_reply_after_the_caller_left_is_dropped(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """The actor may answer for nobody; nothing is raised, it is counted as late, and the actor lives on."""
    desk = Desk()
    async with stage.open() as tree:
        ref = await stage.start(tree)
        with trio.move_on_after(1):
            await ref.ask(stage.Do(desk.detach()))
        assert desk.tokens[0].settle("for nobody")
        assert desk.tokens[0].envelope.state is State.EXPIRED
        assert ref.statistics().late_replies == 1
        assert tree.dead_letters.counts == {"late_reply": 1}
        assert await ref.ask(stage.Do(stage.say("next"))) == "next"
    assert stage.delays == []


@pytest.mark.rule("A7")
@pytest.mark.scenario(9)
async def test_a_token_of_an_old_incarnation_is_void(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """The caller has got InFlightLost with the crash as its cause; the token's answer is dropped."""
    desk = Desk()
    crash = ValueError("crash")
    async with stage.open() as tree:
        ref = await stage.start(tree)
        pending = await ref.submit(stage.Do(desk.detach()))
        await ref.tell(stage.Do(stage.fail(crash)))
        with pytest.raises(InFlightLost) as caught:
            await pending
        assert (caught.value.started, caught.value.__cause__) == (True, crash)
        assert not desk.tokens[0].settle("late")


@pytest.mark.rule("A7")
async def test_a_surviving_token_outlives_a_crash(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """The next incarnation may answer it; nobody noticed the crash."""
    desk = Desk()

    async def answer(actor: Any) -> None:
        await trio.lowlevel.checkpoint()
        desk.tokens[0].settle(actor.context.incarnation)

    async with stage.open() as tree:
        ref = await stage.start(tree)
        pending = await ref.submit(stage.Do(desk.detach(survives=True)))
        await ref.tell(stage.Do(stage.fail(ValueError("crash"))))
        await ref.tell(stage.Do(answer))
        assert await pending == 2


@pytest.mark.parametrize("how", ["raises", "cancelled"])
async def test_a_handler_that_crashes_leaves_a_surviving_token_its_duty(
    stage: Any, how: str, autojump_clock: trio.abc.Clock
) -> None:
    """Whether it raises after it has detached, or goes down with its incarnation: the token still answers."""
    desk = Desk()

    async def crash(_: Any = None) -> None:
        await trio.sleep(1)
        raise ValueError("crash")

    async def detach_and_crash(actor: Any) -> None:
        await desk.detach(survives=True)(actor)
        if how == "raises":
            await crash()
        actor.context.spawn(crash)
        await trio.sleep(10)

    async with stage.open() as tree:
        ref = await stage.start(tree)
        pending = await ref.submit(stage.Do(detach_and_crash))
        assert await ref.ask(stage.Do(stage.say("second life"))) == "second life"
        assert not pending.settled
        desk.tokens[0].settle("answered")
        assert await pending == "answered"
    assert len(stage.delays) == 1


async def test_a_bound_token_does_not_save_a_crashing_handler(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """A token that ends with the incarnation leaves the handler's crash as the answer."""
    desk = Desk()

    async def detach_and_crash(actor: Any) -> None:
        await desk.detach()(actor)
        raise ValueError("crash")

    async with stage.open() as tree:
        ref = await stage.start(tree)
        with pytest.raises(HandlerCrashed):
            await ref.ask(stage.Do(detach_and_crash))
        assert not desk.tokens[0].settle("late")


@pytest.mark.parametrize("survives", [True, False])
@pytest.mark.parametrize("end", ["value", "declared error"])
async def test_a_handler_may_answer_in_spite_of_its_token(stage: Any, survives: bool, end: str) -> None:
    """What it returns or declares is the answer, the token is void, and no stop waits for it."""
    desk = Desk()

    async def detach_and_answer(actor: Any) -> Any:
        await desk.detach(survives=survives)(actor)
        if end == "value":
            return "value"
        raise stage.Declared("x")

    async with stage.open() as tree:
        ref = await stage.start(tree)
        pending = await ref.submit(stage.Do(detach_and_answer))
        if end == "value":
            assert await pending == "value"
        else:
            with pytest.raises(stage.Declared):
                await pending
        assert not tree.children["a"].surviving
        assert not desk.tokens[0].settle("late")
    assert stage.delays == []


async def test_a_caller_that_leaves_takes_a_surviving_token_along(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """Its handler was cancelled for it, so nothing is owed any more, and no stop waits for the answer."""
    desk = Desk()

    async def detach_and_sleep(actor: Any) -> None:
        await desk.detach(survives=True)(actor)
        await trio.sleep(10)

    async with stage.open() as tree:
        ref = await stage.start(tree)
        with trio.move_on_after(1):
            await ref.ask(stage.Do(detach_and_sleep))
        await trio.testing.wait_all_tasks_blocked()
        assert not tree.children["a"].surviving
        assert not desk.tokens[0].settle("for nobody")


@pytest.mark.rule("A7")
async def test_what_nobody_answers_ends_with_the_actor(stage: Any) -> None:
    """A surviving token that is open when its actor ends for good is InFlightLost."""
    desk = Desk()
    async with stage.open() as tree:
        ref = await stage.start(tree)
        pending = await ref.submit(stage.Do(desk.detach(survives=True)))
        await ref.ask(stage.Do(stage.say(1)))
    with pytest.raises(InFlightLost, match="ended before it answered"):
        await pending
    assert not desk.tokens[0].settle("late")


@pytest.mark.rule("A7")
async def test_what_nobody_answers_tells_that_the_actor_was_given_up(autojump_clock: Any, stage: Any) -> None:
    """After too many crashes; with the last one, and chained to it."""
    desk = Desk()
    async with stage.open() as tree:
        policy = RestartPolicy(max_restarts=1)
        ref = await stage.start(tree, policy=policy, on_exhausted="fail")
        pending = await ref.submit(stage.Do(desk.detach(survives=True)))
        for _ in range(2):
            with pytest.raises(HandlerCrashed):
                await ref.ask(stage.Do(stage.fail(ValueError("no luck"))))
        with pytest.raises(
            InFlightLost, match=r"tree/a was given up .* of: ValueError\('no luck'\)"
        ) as caught:
            await pending
        assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.rule("A7")
@pytest.mark.parametrize("thread", [False, True])
async def test_a_token_that_is_dropped_answers(stage: Any, thread: bool) -> None:
    """If nobody keeps the token nobody can answer: the caller hears, whichever thread lets go of it."""
    desk = Desk()
    async with stage.open() as tree:
        ref = await stage.start(tree)
        pending = await ref.submit(stage.Do(desk.detach(survives=True)))
        await ref.ask(stage.Do(stage.say(1)))
        if thread:
            dropping = threading.Thread(target=desk.tokens.clear)
            dropping.start()
            dropping.join()
        else:
            desk.tokens.clear()
        with pytest.raises(InFlightLost, match="tree/a dropped the reply token of Do"):
            await pending
        assert not tree.children["a"].surviving


def test_a_token_that_is_dropped_after_the_run_is_silent(stage: Any) -> None:
    """A token kept beyond the end of trio's loop has nobody to tell."""
    desk = Desk()

    async def main() -> None:
        envelope: Any = stage.Do(stage.say(1))
        desk.tokens.append(ReplyToken(trio_envelope(envelope), {}))
        await trio.lowlevel.checkpoint()

    trio.run(main)
    desk.tokens.clear()


def trio_envelope(message: Any) -> Any:
    from tinker_actors.kernel.envelope import Envelope

    return Envelope(message)


async def test_a_token_settled_before_the_collector_comes(stage: Any) -> None:
    """A token whose message is settled otherwise, between its end and the loop's next turn, changes nothing."""
    desk = Desk()
    async with stage.open() as tree:
        ref = await stage.start(tree)
        pending = await ref.submit(stage.Do(desk.detach(survives=True)))
        await ref.ask(stage.Do(stage.say(1)))
        envelope = desk.tokens[0].envelope
        desk.tokens.clear()
        envelope.settle("in time")
        assert await pending == "in time"
        await trio.testing.wait_all_tasks_blocked()
        assert pending.outcome.late == 0


async def test_a_reply_is_detached_once(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A second token for one message would be a second owner of its answer."""
    desk = Desk()

    async def twice(actor: Any) -> Any:
        await desk.detach()(actor)
        with pytest.raises(RuntimeError, match="detached the reply"):
            actor.context.detach_reply()
        return "fine"

    async with stage.open() as tree:
        ref = await stage.start(tree)
        assert await ref.ask(stage.Do(twice)) == "fine"


async def test_the_token_of_another_message_is_no_reply(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Returning it would leave this message without an owner, so it is a crash."""
    desk = Desk()

    async def mix_up(actor: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return desk.tokens[0]

    async with stage.open() as tree:
        ref = await stage.start(tree)
        await ref.submit(stage.Do(desk.detach(survives=True)))
        with pytest.raises(HandlerCrashed) as caught:
            await ref.ask(stage.Do(mix_up))
        assert isinstance(caught.value.__cause__, TypeError)
