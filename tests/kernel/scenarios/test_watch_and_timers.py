"""Watching actors that end in all ways, poison messages, and timers that outlive their reason."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tinker_actors.errors import HandlerCrashed, StartFailed
from tinker_actors.kernel import Actor, ActorRef, Backoff, ChildSpec, Down, Message, RestartPolicy, handles

AT_ONCE = RestartPolicy(max_restarts=100, backoff=Backoff(base=0, jitter=0))
LATER = RestartPolicy(backoff=Backoff(base=10, jitter=0))


class Guard:
    """Role of an actor that watches others and sets timers."""


@attrs.frozen
class Do(Message[Guard, Any]):
    """Call something with the actor."""

    run: Any


@attrs.frozen
class Ring(Message[Guard, None]):
    """A timer's message."""

    what: str


class GuardActor(Actor[Guard]):
    """Notes every `Down` and every timer."""

    def __init__(self, log: list[Any]) -> None:
        self.log = log

    @handles(Do)
    async def do(self, message: Do) -> Any:
        await trio.lowlevel.checkpoint()
        result = message.run(self)
        return await result if hasattr(result, "__await__") else result

    @handles(Down)
    async def down(self, message: Down) -> None:
        await trio.lowlevel.checkpoint()
        self.log.append((message.path, message.reason))

    @handles(Ring)
    async def ring(self, message: Ring) -> None:
        await trio.lowlevel.checkpoint()
        self.log.append((trio.current_time(), message.what, self.context.incarnation))


async def start_guard(stage: Any, tree: Any, **settings: Any) -> ActorRef[Guard]:
    """Start a guard that notes in the stage's log."""
    spec = ChildSpec(name="guard", factory=lambda: GuardActor(stage.log), **settings)
    ref: ActorRef[Guard] = await tree.start_child(spec)
    return ref


# --- watching --------------------------------------------------------------------------------------------


@pytest.mark.scenario(39)
@pytest.mark.rule("W1")
async def test_an_actor_that_has_ended_is_told_of_at_once(
    stage: Any, autojump_clock: trio.testing.MockClock
) -> None:
    """A watch that comes late gets its one `Down` immediately: as a message, by `wait_stopped` and by `watching`."""
    async with stage.open() as tree:
        guard, ref = await start_guard(stage, tree), await stage.start(tree)
        await ref.stop()
        await guard.ask(Do(lambda actor: actor.context.watch(ref)))
        await trio.testing.wait_all_tasks_blocked()
        assert stage.log == [("tree/a", "stopped")]
        assert await ref.wait_stopped() == Down("tree/a", "stopped")
        async with ref.watching() as watch:
            assert await watch.down() == Down("tree/a", "stopped")
        assert trio.current_time() == 0
        assert ref.obituary.watchers == 0


@pytest.mark.scenario(39)
@pytest.mark.rule("W1", "S10")
@pytest.mark.parametrize("early", [True, False])
async def test_an_actor_that_never_started_is_told_of(
    stage: Any, early: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """A ref that got out of an `on_start` that fails: whoever watches it, before or after, gets one `Down`."""
    refs: list[Any] = []

    async def fail(actor: Any) -> None:
        refs.append(actor.context.ref)
        await trio.sleep(1)
        raise ValueError("no start")

    async with stage.open() as tree, trio.open_nursery() as nursery:
        guard = await start_guard(stage, tree)

        async def start() -> None:
            with pytest.raises(StartFailed):
                await stage.start(tree, starting=fail)

        nursery.start_soon(start)
        await trio.sleep(0.5 if early else 2)
        await guard.ask(Do(lambda actor: actor.context.watch(refs[0])))
        assert (await refs[0].wait_stopped()).reason == "failed"
        await trio.testing.wait_all_tasks_blocked()
        assert stage.log == [("tree/a", "failed")]
        assert refs[0].obituary.watchers == 0


@pytest.mark.scenario(39)
@pytest.mark.rule("W1")
async def test_a_restart_is_no_end(stage: Any, autojump_clock: trio.testing.MockClock) -> None:
    """Watched before the crash or during the delay, a restart says nothing, unless incarnations were asked for."""
    async with stage.open() as tree:
        plain, curious = await start_guard(stage, tree), stage.log
        ref = await stage.start(tree, policy=LATER)
        await plain.ask(Do(lambda actor: actor.context.watch(ref)))
        ref.tell_nowait(stage.Do(stage.fail(ValueError())))
        await trio.sleep(5)
        assert tree.snapshot().children[1].life == "restarting"
        await plain.ask(Do(lambda actor: actor.context.watch(ref)))
        await trio.sleep(10)
        assert curious == []
        await plain.ask(Do(lambda actor: actor.context.watch(ref, incarnations=True)))
        ref.tell_nowait(stage.Do(stage.fail(ValueError())))
        await trio.sleep(30)
        assert stage.log == [("tree/a", "restarting")]
        await ref.stop()
        await trio.testing.wait_all_tasks_blocked()
        assert stage.log == [("tree/a", "restarting"), ("tree/a", "stopped")]
        assert ref.obituary.watchers == 0


@pytest.mark.scenario(39)
@pytest.mark.rule("W1")
async def test_a_thousand_watchers_get_one_down_each(stage: Any) -> None:
    """Tasks and watchers of the obituary alike, all in one step, and nobody stays on the list."""
    heard = [0] * 500
    async with stage.open() as tree, trio.open_nursery() as nursery:
        ref = await stage.start(tree)

        def note(number: int) -> Any:
            def hear(down: Down) -> None:
                heard[number] += 1

            return hear

        async def wait(number: int) -> None:
            stage.log.append((number, (await ref.wait_stopped()).reason))

        for number in range(500):
            ref.obituary.add(note(number))
            nursery.start_soon(wait, number)
        await trio.testing.wait_all_tasks_blocked()
        assert ref.obituary.watchers == 1000
        await ref.stop()
        assert ref.obituary.watchers == 0
        await trio.testing.wait_all_tasks_blocked()
    assert heard == [1] * 500
    assert sorted(stage.log) == [(number, "stopped") for number in range(500)]


@pytest.mark.scenario(39)
@pytest.mark.rule("W1")
async def test_a_watch_ends_with_its_watcher(stage: Any, autojump_clock: trio.testing.MockClock) -> None:
    """A watcher that restarts, or stops, leaves no entry, and its next incarnation hears nothing."""
    async with stage.open() as tree:
        guard, ref = await start_guard(stage, tree, policy=AT_ONCE), await stage.start(tree)
        for crash in (True, False):
            await guard.ask(Do(lambda actor: actor.context.watch(ref)))
            assert ref.obituary.watchers == 1
            if crash:
                with pytest.raises(HandlerCrashed):
                    await guard.ask(Do(lambda actor: 1 / 0))
            else:
                await guard.stop()
            await trio.testing.wait_all_tasks_blocked()
            assert ref.obituary.watchers == 0
        await ref.stop()
    assert stage.log == []


@pytest.mark.scenario(39)
@pytest.mark.rule("W1", "T4")
@given(schedule=st.random_module())
@settings(max_examples=30)
def test_no_down_comes_after_unwatch(schedule: object) -> None:
    """In whatever order end and `unwatch` come in one tick: a `Down` is handled before it, or never."""
    log: list[Any] = []

    async def leave(actor: GuardActor) -> None:
        await trio.sleep_until(1)
        actor.context.unwatch(actor.watched)  # type: ignore[attr-defined]  # set below
        log.append("unwatched")

    async def main() -> None:
        stage = new_stage()
        async with stage.open() as tree, trio.open_nursery() as nursery:
            guard: Any = ChildSpec(name="guard", factory=lambda: GuardActor(log), concurrency=2)
            guard, ref = await tree.start_child(guard), await stage.start(tree)

            def watch(actor: Any) -> None:
                actor.watched = ref
                actor.context.watch(ref)

            async def stop() -> None:
                await trio.sleep_until(1)
                await ref.stop("kill")

            await guard.ask(Do(watch))
            nursery.start_soon(stop)
            await guard.ask(Do(leave))
            await trio.sleep(5)
            assert ref.obituary.watchers == 0
        assert log in (["unwatched"], [("tree/a", "stopped"), "unwatched"])

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


_stage_types: list[Any] = []


@pytest.fixture(autouse=True)
def keep_stage_type(stage: Any) -> None:
    """Let tests of many examples make stages of their own."""
    _stage_types[:] = [type(stage)]


def new_stage() -> Any:
    """Make a fresh stage; examples of one test must not share one."""
    return _stage_types[0]()


# --- poison ----------------------------------------------------------------------------------------------


@pytest.mark.scenario(40)
@pytest.mark.rule("S8", "O3")
@pytest.mark.parametrize("asked", [True, False])
async def test_poison_is_tried_three_times_and_given_up(
    stage: Any, asked: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """With `max_redeliver=2`: three crashes, before what stands behind it; then a dead letter, and the next one."""

    class Idempotent(stage.Do):
        max_redeliver = 2

    class Puppet(stage.PuppetActor):
        @handles(Idempotent)
        async def do_again(self, message: Any) -> Any:
            return await message.run(self)

    async def poison(actor: Any) -> None:
        stage.log.append(("poison", actor.context.incarnation))
        await trio.lowlevel.checkpoint()
        raise ValueError("poison")

    async with stage.open() as tree:
        ref = await stage.start(tree, factory=Puppet, policy=AT_ONCE)
        pending = ref.submit_nowait(Idempotent(poison)) if asked else None
        if pending is None:
            ref.tell_nowait(Idempotent(poison))
        assert await ref.ask(stage.Do(stage.say("next"))) == "next"
        if pending is not None:
            with pytest.raises(HandlerCrashed) as caught:
                await pending
            assert caught.value.started is True
        assert stage.log == [("poison", 1), ("poison", 2), ("poison", 3), "next"]
        assert dict(tree.dead_letters.counts) == {"poison": 1}
        seen = ref.statistics()
        assert (seen.admitted, seen.failed, seen.handled) == (2, 1, 1)
    assert len(stage.delays) == 3


# --- timers ----------------------------------------------------------------------------------------------


@pytest.mark.scenario(41)
@pytest.mark.rule("S9", "M6")
@pytest.mark.parametrize("due", [False, True])
async def test_a_timer_of_an_earlier_incarnation_is_never_heard(
    stage: Any, due: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """Neither one that is still to fire nor one whose message was under way when the actor crashed."""

    async def crash(actor: Any) -> None:
        actor.context.send_after(1, Ring("old"))
        actor.context.send_every(1, Ring("old"), key="again")
        await trio.sleep(2 if due else 0.5)
        raise ValueError

    async with stage.open() as tree:
        ref = await start_guard(stage, tree, policy=AT_ONCE)
        with pytest.raises(HandlerCrashed):
            await ref.ask(Do(crash))
        await ref.ask(Do(lambda actor: actor.context.send_after(3, Ring("new"))))
        await trio.sleep(20)
    assert stage.log == [(5 if due else 3.5, "new", 2)]


@pytest.mark.scenario(41)
@pytest.mark.rule("M6")
async def test_a_timer_that_is_set_again_takes_back_what_is_under_way(
    stage: Any, autojump_clock: trio.testing.MockClock
) -> None:
    """The old message waits behind a handler that sets its key again: only the new one comes, at its own time."""

    async def set_twice(actor: Any) -> None:
        actor.context.send_after(1, Ring("old"), key="k")
        await trio.sleep(2)
        actor.context.send_after(1, Ring("new"), key="k")
        await trio.sleep(2)

    async with stage.open() as tree:
        ref = await start_guard(stage, tree)
        await ref.ask(Do(set_twice))
        await trio.sleep(20)
    assert stage.log == [(4, "new", 1)]


@pytest.mark.scenario(41)
@pytest.mark.rule("M6")
async def test_a_timer_that_is_cancelled_takes_back_what_is_under_way(
    stage: Any, autojump_clock: trio.testing.MockClock
) -> None:
    """`cancel_timer` says True for one that is due and not heard yet, and it is not heard; False for none."""

    async def set_and_cancel(actor: Any) -> tuple[bool, bool, bool]:
        actor.context.send_after(1, Ring("due"), key="due")
        actor.context.send_after(9, Ring("early"), key="early")
        await trio.sleep(2)
        cancel = actor.context.cancel_timer
        return cancel("due"), cancel("early"), cancel("due")

    async with stage.open() as tree:
        ref = await start_guard(stage, tree)
        assert await ref.ask(Do(set_and_cancel)) == (True, True, False)
        await trio.sleep(20)
    assert stage.log == []


@pytest.mark.scenario(41)
@pytest.mark.rule("S9", "D1")
@pytest.mark.parametrize("mode", ["drain", "now", "kill"])
async def test_a_stop_ends_all_timers(stage: Any, mode: Any, autojump_clock: trio.testing.MockClock) -> None:
    """A stop does not wait for timers, and none of them is heard of any more."""
    async with stage.open() as tree:
        ref = await start_guard(stage, tree)
        await ref.ask(Do(lambda actor: actor.context.send_after(5, Ring("late"))))
        await ref.ask(Do(lambda actor: actor.context.send_every(5, Ring("late"), key="again")))
        await ref.stop(mode)
        assert trio.current_time() == 0
        await trio.sleep(20)
    assert stage.log == []
