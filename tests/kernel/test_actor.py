from __future__ import annotations

import gc
import math
import threading
import weakref
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tinker_actors.errors import HandlerCrashed, InFlightLost, InputError, Unhandled
from tinker_actors.kernel import Actor, Message, ReplyToken, handles
from tinker_actors.kernel.message import State


class Role:
    pass


@attrs.frozen
class First(Message[Role, str]):
    pass


@attrs.frozen
class Second(Message[Role, str]):
    pass


class FirstActor(Actor[Role]):
    @handles(First)
    async def first(self, message: First) -> str:
        await trio.lowlevel.checkpoint()
        return "first"


class SecondActor(Actor[Role]):
    @handles(Second)
    async def second(self, message: Second) -> str:
        await trio.lowlevel.checkpoint()
        return "second"


# --- handlers ------------------------------------------------------------------------------------------------


def test_a_message_has_one_handler() -> None:
    """Two handlers for one message in one class are a mistake that shows when the class is made."""
    with pytest.raises(TypeError, match="two handlers for First"):

        class Torn(Actor[Role]):
            @handles(First)
            async def one(self, message: First) -> str:
                return "one"

            @handles(First)
            async def two(self, message: First) -> str:
                return "two"


def test_handlers_are_inherited_from_all_parents() -> None:
    """An actor that is put together from several ones handles what each of them handles."""

    class Both(FirstActor, SecondActor):
        pass

    assert set(Both.handlers) == {First, Second}
    assert set(FirstActor.handlers) == {First}
    assert Actor.handlers == {}


async def test_an_overridden_method_is_the_handler(stage: Any) -> None:
    """A subclass overrides a handler as it overrides any method, with or without the mark."""

    class Quiet(FirstActor):
        async def first(self, message: First) -> str:
            return "quiet " + await super().first(message)

    class Loud(FirstActor):
        @handles(First)
        async def shout(self, message: First) -> str:
            await trio.lowlevel.checkpoint()
            return "LOUD"

    async with stage.open() as tree:
        quiet = await stage.start(tree, "quiet", factory=Quiet)
        loud = await stage.start(tree, "loud", factory=Loud)
        assert await quiet.ask(First()) == "quiet first"
        assert await loud.ask(First()) == "LOUD"


async def test_a_message_without_a_handler_is_answered(stage: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The sender is told; if nobody waits, the log is; the actor lives on."""
    async with stage.open() as tree:
        ref = await stage.start(tree)
        with pytest.raises(Unhandled, match="no handler for Strange") as caught:
            await ref.ask(stage.Strange(stage.say(1)))
        assert (caught.value.started, caught.value.actor) == (False, "tree/a")
        assert caplog.records == []
        await ref.tell(stage.Strange(stage.say(1)))
        assert await ref.ask(stage.Do(stage.say(2))) == 2
    assert "Strange, which nobody waits for, failed" in caplog.text
    assert stage.delays == []


# --- the context ---------------------------------------------------------------------------------------------


async def test_the_context_tells_an_actor_about_itself(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Its address, path, incarnation, what ended the one before, its call and the newest message in line."""

    async def look(actor: Any) -> dict[str, Any]:
        await trio.testing.wait_all_tasks_blocked()
        context = actor.context
        return {
            "ref": context.ref,
            "path": context.path,
            "incarnation": context.incarnation,
            "failure": context.last_failure,
            "seq": context.call.seq,
            "last": context.last_admitted,
        }

    async with stage.open() as tree:
        ref = await stage.start(tree)
        looking = await ref.submit(stage.Do(look))
        await ref.submit(stage.Do(stage.fail(ValueError("x"))))
        seen = await looking
        assert seen == {
            "ref": ref,
            "path": "tree/a",
            "incarnation": 1,
            "failure": None,
            "seq": 0,
            "last": 1,
        }
        seen = await ref.ask(stage.Do(look))
        assert seen["incarnation"] == 2
        assert isinstance(seen["failure"], ValueError)
        assert seen["failure"].__traceback__ is None


async def test_there_is_no_call_outside_of_handlers(stage: Any) -> None:
    """Neither a spawned task nor the next idle moment has a call; a nursery inside the handler has."""
    seen: list[Any] = []

    async def look(actor: Any) -> None:
        await trio.lowlevel.checkpoint()
        try:
            seen.append(actor.context.call)
        except LookupError as error:
            seen.append(str(error))

    async def spawn(actor: Any) -> Any:
        actor.context.spawn(look, actor)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(look, actor)
        return actor.context.call

    async with stage.open() as tree:
        ref = await stage.start(tree)
        call = await ref.ask(stage.Do(spawn))
        await trio.testing.wait_all_tasks_blocked()
    assert sorted(map(str, seen)) == sorted([str(call), "tree/a handles no message in this task"])


async def test_a_spawned_task_does_not_keep_its_message_alive(stage: Any) -> None:
    """A task that runs for days holds nothing of the batch whose handler started it."""

    async def spawn(actor: Any) -> None:
        await trio.lowlevel.checkpoint()
        actor.context.spawn(trio.sleep_forever)

    async with stage.open() as tree:
        ref = await stage.start(tree)
        message = stage.Do(spawn)
        await ref.ask(message)
        seen = weakref.ref(message.run), weakref.ref(message)
        del message, spawn
        await trio.testing.wait_all_tasks_blocked()
        gc.collect()
        assert [ref() for ref in seen] == [None, None]


async def test_a_spawned_task_ends_with_its_incarnation(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A crash or a stop cancels it, after `on_stop` has had its say."""

    async def beside(number: int) -> None:
        try:
            await trio.sleep_forever()
        finally:
            stage.log.append(("ended", number))

    async def start(actor: Any) -> None:
        actor.context.spawn(beside, actor.context.incarnation)
        await trio.lowlevel.checkpoint()

    async def stop(actor: Any, ending: str) -> None:
        stage.log.append(("stop", actor.context.incarnation))
        await trio.lowlevel.checkpoint()

    async with stage.open() as tree:
        ref = await stage.start(tree, starting=start, stopping=stop)
        await ref.tell(stage.Do(stage.fail(ValueError("x"))))
        await ref.ask(stage.Do(stage.say("alive")))
    assert stage.log == [("stop", 1), ("ended", 1), "alive", ("stop", 2), ("ended", 2)]


async def test_periodic_work_keeps_its_grid(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Ticks come every period without drift; those that a slow call misses are skipped."""
    ticks: list[float] = []

    async def tick() -> None:
        ticks.append(trio.current_time() - start)
        await trio.sleep(25 if len(ticks) == 2 else 1)

    async def begin(actor: Any) -> None:
        await trio.lowlevel.checkpoint()
        actor.context.every(10, tick)

    start = trio.current_time()
    async with stage.open() as tree:
        await stage.start(tree, starting=begin)
        await trio.sleep(65)
    assert ticks == [10, 20, 50, 60]


async def test_ticks_of_an_old_incarnation_do_not_come(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """After a crash only the new incarnation's own timer ticks, and after the stop none does."""
    ticks: list[int] = []

    async def begin(actor: Any) -> None:
        async def tick() -> None:
            ticks.append(actor.context.incarnation)
            await trio.lowlevel.checkpoint()

        await trio.lowlevel.checkpoint()
        actor.context.every(10, tick)

    async with stage.open() as tree:
        ref = await stage.start(tree, starting=begin)
        await trio.sleep(15)
        await ref.tell(stage.Do(stage.fail(ValueError("x"))))
        await trio.sleep(25)
        await tree.stop_child("a")
        await trio.sleep(100)
    assert ticks == [1, 2, 2]


@pytest.mark.parametrize("period", [0, -1, math.nan])
async def test_a_period_is_refused_where_it_is_given(stage: Any, period: float) -> None:
    """A wrong period is the caller's error, not a crash later on."""

    async def begin(actor: Any) -> None:
        await trio.lowlevel.checkpoint()
        with pytest.raises(InputError, match="period"):
            actor.context.every(period, trio.lowlevel.checkpoint)

    async with stage.open() as tree:
        await stage.start(tree, starting=begin)


# --- deferred replies ----------------------------------------------------------------------------------------


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


async def test_a_reply_after_the_caller_left_is_dropped(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """The actor may answer for nobody; nothing is raised and it lives on."""
    desk = Desk()
    async with stage.open() as tree:
        ref = await stage.start(tree)
        with trio.move_on_after(1):
            await ref.ask(stage.Do(desk.detach()))
        assert desk.tokens[0].settle("for nobody")
        assert desk.tokens[0].envelope.state is State.ABANDONED
        assert await ref.ask(stage.Do(stage.say("next"))) == "next"
    assert stage.delays == []


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
        assert not desk.tokens[0].settle("late")
        assert not tree._children["a"]._surviving
    assert stage.delays == []


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
        assert not tree._children["a"]._surviving


def test_a_token_that_is_dropped_after_the_run_is_silent(stage: Any) -> None:
    """A token kept beyond the end of trio's loop has nobody to tell."""
    desk = Desk()

    async def main() -> None:
        envelope: Any = stage.Do(stage.say(1))
        desk.tokens.append(ReplyToken(trio_envelope(envelope), set()))
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


# --- the point of no return ----------------------------------------------------------------------------------


async def test_after_commit_the_handler_finishes(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Neither the caller's leaving nor its deadline cancels what is past its point of no return."""

    async def commit(actor: Any) -> None:
        actor.context.commit()
        await stage.sleep(10, "committed")(actor)

    async with stage.open() as tree:
        ref = await stage.start(tree)
        start = trio.current_time()
        with trio.move_on_after(1) as scope:
            await ref.ask(stage.Do(commit))
        assert scope.cancelled_caught
        assert trio.current_time() == start + 1
        assert await ref.ask(stage.Do(stage.say("next"))) == "next"
    assert stage.log == [("begin", "committed"), ("end", "committed"), "next"]


async def test_a_caller_that_left_before_the_commit_leaves_no_gap(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """If the cancellation is under way when `commit` is called, it does not return: no number is taken."""
    numbers = iter(range(100))
    at_the_point = trio.Event()

    async def take_number(actor: Any) -> int:
        with trio.CancelScope(shield=True):  # the cancellation cannot be noticed here
            at_the_point.set()
            await trio.sleep(5)
        actor.context.commit()
        number = next(numbers)
        await trio.sleep(1)
        return number

    async with stage.open() as tree:
        ref = await stage.start(tree)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ref.ask, stage.Do(take_number))
                await at_the_point.wait()
                scope.cancel()
        assert await ref.ask(stage.Do(take_number)) == 0
    assert stage.delays == []


async def test_a_deadline_that_passed_before_the_commit_counts(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """The same for a deadline that trio has not delivered yet."""

    async def late(actor: Any) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(5)
        actor.context.commit()
        stage.log.append("committed")

    async with stage.open() as tree:
        ref = await stage.start(tree)
        with pytest.raises(trio.TooSlowError), trio.fail_after(1):
            await ref.ask(stage.Wait(late))
    assert stage.log == []
    assert stage.delays == []


async def test_committing_twice_or_for_a_token_is_harmless(stage: Any) -> None:
    """The second time changes nothing."""

    async def twice(actor: Any) -> str:
        actor.context.commit()
        actor.context.commit()
        await trio.lowlevel.checkpoint()
        return "fine"

    async with stage.open() as tree:
        ref = await stage.start(tree)
        assert await ref.ask(stage.Do(twice)) == "fine"
