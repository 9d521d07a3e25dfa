"""Messages that an actor sends to itself, later."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tinker_actors.errors import HandlerCrashed, InputError
from tinker_actors.kernel import Actor, ActorRef, Backoff, ChildSpec, Message, RestartPolicy, handles

QUICK = RestartPolicy(backoff=Backoff(base=1.0, jitter=0.0))
LOG: list[Any] = []


class Clockwork:
    """Role of the actor below."""


@attrs.frozen
class Tick(Message[Clockwork, None]):
    name: str = ""


@attrs.frozen
class Tock(Tick):
    pass


@attrs.frozen(eq=False)
class Set(Message[Clockwork, Any]):
    function: Callable[[Any], Any]
    seconds: float = 0.0


@attrs.frozen(eq=False)
class Broken(Message[Clockwork, None]):
    """A tick whose handler raises."""

    error: Exception = attrs.field(factory=ValueError)


class BrokenAgain(Broken):
    max_redeliver = 5


class ClockworkActor(Actor[Clockwork]):
    """Notes its ticks, and does what it is told."""

    declares = (KeyError,)

    def __init__(self, start: Callable[[Any], Any] | None = None) -> None:
        self.start = start

    async def on_start(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.start is not None:
            self.start(self.context)

    @handles(Set)
    async def set(self, message: Set) -> Any:
        result = message.function(self.context)
        await trio.sleep(message.seconds)
        return result

    @handles(Tick)
    async def tick(self, message: Tick) -> None:
        LOG.append((trio.current_time(), self.context.incarnation, message.name))
        await trio.lowlevel.checkpoint()

    @handles(Tock)
    async def tock(self, message: Tock) -> None:
        LOG.append((trio.current_time(), self.context.incarnation, message.name))
        await trio.lowlevel.checkpoint()

    @handles(Broken)
    async def broken(self, message: Broken) -> None:
        await trio.lowlevel.checkpoint()
        raise message.error

    @handles(BrokenAgain)
    async def broken_again(self, message: BrokenAgain) -> None:
        LOG.append((trio.current_time(), self.context.incarnation, "again"))
        await trio.lowlevel.checkpoint()
        raise message.error


@pytest.fixture(autouse=True)
def empty_log() -> None:
    LOG.clear()


def names() -> list[str]:
    return [name for _, _, name in LOG]


def times() -> list[float]:
    return [at for at, _, _ in LOG]


async def start(tree: Any, **settings: Any) -> ActorRef[Clockwork]:
    settings.setdefault("factory", ClockworkActor)
    settings.setdefault("policy", QUICK)
    return await tree.start_child(ChildSpec(name="a", **settings))


def boom(_: Any) -> None:
    raise ValueError("boom")


async def test_a_message_comes_once_after_its_delay(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """At its time on trio's clock, once, and not counted as a user's message."""
    async with stage.open() as tree:
        ref = await start(tree)
        await ref.ask(Set(lambda context: context.send_after(5, Tick("one"))))
        await ref.ask(Set(lambda context: context.send_after(0, Tock("none"))))
        await trio.sleep(20)
        assert LOG == [(0.0, 1, "none"), (5.0, 1, "one")]
        seen = ref.statistics()
        assert (seen.admitted, seen.handled) == (2, 2)


async def test_a_period_has_no_drift(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Ticks are on the grid; those that a busy actor could not take leave one, not a heap."""
    async with stage.open() as tree:
        ref = await start(tree)
        await ref.ask(Set(lambda context: context.send_every(2, Tick("x"))))
        await trio.sleep(5)
        assert times() == [2, 4]
        await ref.ask(Set(lambda _: None, 6.5))
        await trio.sleep(1.5)
        assert times() == [2, 4, 11.5, 12]
        assert await ref.ask(Set(lambda context: context.cancel_timer(Tick)))
        await trio.sleep(10)
        assert times() == [2, 4, 11.5, 12]


@pytest.mark.rule("M6")
async def test_a_tick_goes_before_what_waits(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A fire that came while the actor was busy is handled before the messages in line."""
    async with stage.open() as tree:
        ref = await start(tree)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ref.ask, Set(lambda context: context.send_after(1, Tick("fire")), 3))
            for number in range(2):
                await trio.testing.wait_all_tasks_blocked()
                await ref.tell(Set(lambda _, number=number: LOG.append((0, 0, str(number)))))
        await trio.testing.wait_all_tasks_blocked()
        assert names() == ["fire", "0", "1"]


async def test_setting_a_key_again_replaces_the_timer(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Of one key only the newest comes; the type is the key if none is given; other keys are left alone."""
    async with stage.open() as tree:
        ref = await start(tree)

        def fill(context: Any) -> None:
            context.send_after(5, Tick("old"))
            context.send_after(7, Tick("new"))
            context.send_after(5, Tock("of another type"))
            context.send_after(5, Tick("with a key"), key="k")
            context.send_every(3, Tick("old period"), key="p")
            context.send_after(9, Tick("new period"), key="p")

        await ref.ask(Set(fill))
        await trio.sleep(30)
        assert sorted(LOG) == [
            (5.0, 1, "of another type"),
            (5.0, 1, "with a key"),
            (7.0, 1, "new"),
            (9.0, 1, "new period"),
        ]


async def test_a_cancelled_timer_does_not_come(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """`cancel_timer` says whether there was one; once handled, there is none."""
    async with stage.open() as tree:
        ref = await start(tree)
        await ref.ask(Set(lambda context: context.send_after(5, Tick("x"), key=1)))
        assert await ref.ask(Set(lambda context: context.cancel_timer(1)))
        assert not await ref.ask(Set(lambda context: context.cancel_timer(1)))
        await ref.ask(Set(lambda context: context.send_after(5, Tick("y"), key=1)))
        await trio.sleep(10)
        assert names() == ["y"]
        assert not await ref.ask(Set(lambda context: context.cancel_timer(1)))
        assert not await ref.ask(Set(lambda context: context.cancel_timer("never set")))


@pytest.mark.scenario(41)
@pytest.mark.parametrize("how", ["cancel", "set again"])
@pytest.mark.parametrize("periodic", [False, True])
async def test_a_fire_that_was_not_handled_is_taken_back(
    stage: Any, how: str, periodic: bool, autojump_clock: trio.abc.Clock
) -> None:
    """Cancelled or set again after it fired and before it was handled, the old message does not come."""
    async with stage.open() as tree:
        ref = await start(tree)

        def begin(context: Any) -> None:
            (context.send_every if periodic else context.send_after)(2, Tick("old"), key="k")

        async def late(context: Any) -> None:
            await trio.sleep(3)
            assert len(context._host._signals) == 1
            if how == "cancel":
                assert context.cancel_timer("k")
            else:
                context.send_after(1, Tick("new"), key="k")

        class Busy(ClockworkActor):
            @handles(Set)
            async def set(self, message: Set) -> Any:
                begin(self.context)
                await late(self.context)

        busy = await tree.start_child(ChildSpec(name="busy", factory=Busy))
        await busy.ask(Set(boom))
        await trio.sleep(10)
        assert names() == ([] if how == "cancel" else ["new"])
        assert not ref.stopped


async def test_set_again_in_the_tick_in_which_it_is_due(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Whichever runs first, the timer or who replaces it: the old message comes before that, or not at all."""
    for first in (True, False) * 12:  # trio runs the tasks of one tick in either order
        LOG.clear()
        async with stage.open() as tree:
            ref = await start(tree)
            ends = trio.current_time() + 5
            if first:
                await ref.ask(Set(lambda context: context.send_after(5, Tick("old"), key="k")))

            async def later(context: Any, ends: float = ends) -> None:
                await trio.sleep_until(ends)
                context.send_after(2, Tick("new"), key="k")

            await ref.ask(Set(lambda context, later=later: context.spawn(later, context)))
            if not first:
                await ref.ask(Set(lambda context: context.send_after(5, Tick("old"), key="k")))
            await trio.sleep(20)
            assert names() in (["new"], ["old", "new"])


@pytest.mark.rule("S9")
@pytest.mark.scenario(41)
async def test_no_timer_reaches_the_next_incarnation(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Timers that run, and fires that waited, are gone with the incarnation that set them."""
    async with stage.open() as tree:
        ref = await start(tree)

        def set_and_crash(context: Any) -> None:
            context.send_after(0.5, Tick("soon"), key=1)
            context.send_after(50, Tick("late"), key=2)
            context.send_every(1, Tick("always"), key=3)
            context.send_after(0, Tick("at once"), key=4)
            boom(context)

        with pytest.raises(HandlerCrashed):
            await ref.ask(Set(set_and_crash))
        await trio.sleep(100)
        assert LOG == []
        await ref.ask(Set(lambda context: context.send_after(1, Tick("own"))))
        await trio.sleep(5)
        assert LOG == [(101.0, 2, "own")]


async def test_each_incarnation_sets_its_own(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A period that `on_start` sets begins anew with every incarnation."""
    async with stage.open() as tree:
        ref = await start(
            tree, factory=lambda: ClockworkActor(lambda context: context.send_every(2, Tick("x")))
        )
        await trio.sleep(3)
        with pytest.raises(HandlerCrashed):
            await ref.ask(Set(boom))
        await trio.sleep(4)
        assert LOG == [(2.0, 1, "x"), (6.0, 2, "x")]


@pytest.mark.scenario(41)
@pytest.mark.parametrize("mode", ["drain", "now", "kill"])
async def test_a_stop_ends_all_timers(stage: Any, mode: Any, autojump_clock: trio.abc.Clock) -> None:
    """An actor with timers stops as soon as one without; nothing comes afterwards."""
    async with stage.open() as tree:
        ref = await start(tree)
        await ref.ask(Set(lambda context: context.send_every(1, Tick("x"))))
        await ref.ask(Set(lambda context: context.send_after(9, Tick("y"), key="y")))
        await trio.sleep(1.5)
        await ref.stop(mode)
        assert trio.current_time() == 1.5
        await trio.sleep(20)
    assert names() == ["x"]


@pytest.mark.parametrize("delay", [-1, -math.inf, math.nan])
async def test_a_delay_is_not_negative(stage: Any, delay: float) -> None:
    """A delay that is no delay is refused where it is written, and changes no timer."""

    def wrong(context: Any) -> None:
        with pytest.raises(InputError) as caught:
            context.send_after(delay, Tick())
        assert caught.value.field == "delay"

    async with stage.open() as tree:
        await (await start(tree)).ask(Set(wrong))


@pytest.mark.parametrize("period", [0, -1, math.nan])
async def test_a_period_is_positive(stage: Any, period: float) -> None:
    """A period that is none is refused, by its own name."""

    def wrong(context: Any) -> None:
        for function in (context.send_every, context.every):
            with pytest.raises(InputError) as caught:
                function(period, Tick())
            assert caught.value.field == "period"

    async with stage.open() as tree:
        await (await start(tree)).ask(Set(wrong))


async def test_a_wrong_timer_leaves_the_old_one(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """What is refused replaces nothing."""

    def wrong(context: Any) -> None:
        context.send_after(1, Tick("stays"))
        with pytest.raises(InputError):
            context.send_after(-1, Tick("wrong"))

    async with stage.open() as tree:
        await (await start(tree)).ask(Set(wrong))
        await trio.sleep(3)
    assert names() == ["stays"]


async def test_idle_readers_share_one_fire(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Where handlers run side by side, a fire is handled once, by whoever is free."""
    async with stage.open() as tree:
        ref = await start(tree, concurrency=3)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ref.ask, Set(lambda _: None, 1))
        await ref.ask(Set(lambda context: context.send_after(1, Tick("x"))))
        await trio.sleep(5)
        assert names() == ["x"]


async def test_a_fire_without_handler_is_a_dead_letter(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Nobody waits for it, so its loss is told, and the actor lives on."""

    class Odd(Tick):
        pass

    async with stage.open() as tree:
        ref = await start(tree)
        await ref.ask(Set(lambda context: context.send_after(1, Odd("x"))))
        await trio.sleep(5)
        assert [(letter.reason, letter.seq) for letter in tree.dead_letters.recent] == [("unhandled", -1)]
        assert await ref.ask(Set(lambda context: context.incarnation)) == 1


@pytest.mark.parametrize(("error", "reason"), [(KeyError(), "failed"), (ValueError(), "crashed")])
async def test_a_fire_that_fails_is_a_dead_letter(
    stage: Any, error: Exception, reason: str, autojump_clock: trio.abc.Clock
) -> None:
    """Its handler's error reaches nobody, declared or not, so it leaves a trace."""
    async with stage.open() as tree:
        ref = await start(tree)
        await ref.ask(Set(lambda context: context.send_after(1, Broken(error))))
        await trio.sleep(5)
        assert [(letter.reason, letter.seq) for letter in tree.dead_letters.recent] == [(reason, -1)]
        assert not ref.stopped


async def test_a_fire_that_crashes_is_not_handled_again(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """No fire of an old incarnation reaches a new one, be its message idempotent; and the counters hold."""
    async with stage.open() as tree:
        ref = await start(tree)
        await ref.ask(Set(lambda context: context.send_after(1, BrokenAgain())))
        await trio.sleep(20)
        assert LOG == [(1.0, 1, "again")]
        seen = ref.statistics()
        assert (seen.admitted, seen.handled, seen.queued, seen.running) == (1, 1, 0, 0)


async def test_a_fire_is_no_message_of_the_books(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """It has not waited in line, so a timed tree does not take it for one that has, and none was admitted."""
    async with stage.open(timed=True, trace_messages=True) as tree:
        await trio.sleep(100)
        ref = await start(
            tree, factory=lambda: ClockworkActor(lambda context: context.send_after(1, Tick("x")))
        )
        await trio.sleep(5)
        assert names() == ["x"]
        seen = ref.statistics()
        assert (seen.admitted, seen.handled, seen.running) == (0, 0, 0)
        assert seen.waited is None
        assert seen.took is None
    kinds = [type(event).__name__ for event in stage.events]
    assert kinds.count("MessageAdmitted") == kinds.count("MessageStarted") == kinds.count("MessageSettled")


async def test_who_has_ended_sets_no_timer(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A context that somebody kept starts nothing for an incarnation that is gone, whether it ever did or not."""
    kept: list[Any] = []
    async with stage.open() as tree:
        ref = await start(tree, factory=lambda: ClockworkActor(kept.append))
        with pytest.raises(HandlerCrashed):
            await ref.ask(Set(boom))
        await trio.sleep(5)
        await ref.ask(Set(lambda context: context.send_after(100, Tick("never"))))
        await ref.stop()
        assert len(kept) == 2
        for context in kept:
            with pytest.raises(RuntimeError, match="has ended"):
                context.send_after(1, Tick("never"))
            with pytest.raises(RuntimeError, match="has ended"):
                context.spawn(trio.sleep, 1)
        await trio.sleep(10)
    assert LOG == []


async def test_a_timer_that_was_replaced_leaves_no_task(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """An idle timeout that every message sets again costs one task, not one for each message."""
    async with stage.open() as tree:
        ref = await start(tree)
        await ref.ask(Set(lambda context: context.send_after(1000, Tick("idle"))))
        before = trio.lowlevel.current_statistics().tasks_living
        for _ in range(100):
            await ref.ask(Set(lambda context: context.send_after(1000, Tick("idle"))))
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living == before
        await ref.ask(Set(lambda context: context.cancel_timer(Tick)))
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living == before - 1
