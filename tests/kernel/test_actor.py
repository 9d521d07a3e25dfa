from __future__ import annotations

import gc
import math
import weakref
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tinker_actors.errors import InputError, Unhandled
from tinker_actors.kernel import Actor, Message, handles


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


# --- handlers -----------------------------------------------------------------------------------------------


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


@pytest.mark.rule("T1")
async def test_a_message_without_a_handler_is_answered(stage: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The sender is told, it is a dead letter whether anybody waits or not, and the actor lives on."""
    async with stage.open() as tree:
        ref = await stage.start(tree)
        with pytest.raises(Unhandled, match="no handler for Strange") as caught:
            await ref.ask(stage.Strange(stage.say(1)))
        assert (caught.value.started, caught.value.actor) == (False, "tree/a")
        assert tree.dead_letters.counts == {"unhandled": 1}
        await ref.tell(stage.Strange(stage.say(1)))
        assert await ref.ask(stage.Do(stage.say(2))) == 2
        letters = [
            (letter.actor, letter.reason, letter.kind, letter.seq) for letter in tree.dead_letters.recent
        ]
        assert letters == [("tree/a", "unhandled", "Strange", seq) for seq in (0, 1)]
    assert "dead letter (unhandled, number 2): Strange for tree/a" in caplog.text
    assert stage.delays == []


# --- the context --------------------------------------------------------------------------------------------


@pytest.mark.rule("S9")
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


async def test_an_actor_sees_who_waits_for_room_in_its_line(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """In the order in which they will get it; those who have left are not among them."""
    seen: list[Any] = []

    async def look(actor: Any) -> None:
        await trio.sleep(2)
        seen.append([envelope.message for envelope in actor.context.waiting_for_room])

    messages = [stage.Do(stage.say(number)) for number in range(4)]

    async def send(message: Any, patience: float) -> None:
        with trio.move_on_after(patience):
            await ref.submit(message)

    async with stage.open() as tree, trio.open_nursery() as nursery:
        ref = await stage.start(tree, capacity=1)
        await ref.submit(stage.Do(look))
        for message, patience in zip(messages, (9.0, 9.0, 0.5, 9.0), strict=True):
            await trio.sleep(0.1)
            nursery.start_soon(send, message, patience)
    assert seen == [[messages[1], messages[3]]]


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


@pytest.mark.rule("N5")
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


@pytest.mark.rule("S9")
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


# --- the point of no return ---------------------------------------------------------------------------------


@pytest.mark.rule("C2")
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


@pytest.mark.rule("C2")
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


@pytest.mark.rule("C2")
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


async def test_a_task_that_outlives_its_handler_has_no_call(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """A task that a handler left in somebody else's nursery touches no later message: not by commit, not by token."""
    seen: list[str] = []

    async def commit(actor: Any) -> None:
        for _ in range(2):
            await trio.sleep(1)
            for use in (lambda: actor.context.call, actor.context.commit, actor.context.detach_reply):
                with pytest.raises(LookupError):
                    use()
            seen.append("refused")

    async with trio.open_nursery() as elsewhere, stage.open() as tree:

        async def leave_behind(actor: Any) -> str:
            elsewhere.start_soon(commit, actor)
            await trio.lowlevel.checkpoint()
            return "replied"

        ref = await stage.start(tree)
        assert await ref.ask(stage.Do(leave_behind)) == "replied"
        await trio.sleep(1.5)  # the first time the actor is idle, the second time it handles another message
        assert await ref.ask(stage.Do(stage.sleep(1, "another"))) == "another"
    assert seen == ["refused", "refused"]


async def test_a_task_that_outlives_its_handler_asks_as_anybody(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """Its ask waits for no handler, so it is no cycle, even of the actor that has left it behind."""
    replies: list[Any] = []

    async with trio.open_nursery() as elsewhere, stage.open() as tree:

        async def ask_late() -> None:
            await trio.sleep(1)
            replies.append(await ref.ask(stage.Do(stage.say("late"))))

        async def leave_behind(_: Any) -> None:
            elsewhere.start_soon(ask_late)
            await trio.lowlevel.checkpoint()

        ref = await stage.start(tree)
        await ref.ask(stage.Do(leave_behind))
        await ref.ask(stage.Do(stage.sleep(5, "long")))
        await trio.testing.wait_all_tasks_blocked()
    assert replies == ["late"]


async def test_committing_twice_is_harmless(stage: Any) -> None:
    """The second time changes nothing."""

    async def twice(actor: Any) -> str:
        actor.context.commit()
        actor.context.commit()
        await trio.lowlevel.checkpoint()
        return "fine"

    async with stage.open() as tree:
        ref = await stage.start(tree)
        assert await ref.ask(stage.Do(twice)) == "fine"
