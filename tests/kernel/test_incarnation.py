from __future__ import annotations

import math
import signal
from typing import Any

import pytest
import trio
import trio.testing

from tinker_actors.errors import ActorStopped, HandlerCrashed, InFlightLost, StartFailed
from tinker_actors.kernel import ActorEnded, ActorReady
from tinker_actors.kernel.envelope import Envelope
from tinker_actors.kernel.handling import collapse
from tinker_actors.kernel.incarnation import Incarnation
from tinker_actors.kernel.instrument import Sight
from tinker_actors.kernel.lifecycle import Life
from tinker_actors.kernel.slot import Slot

# --- one message fails --------------------------------------------------------------------------------------


@pytest.mark.rule("A3", "S11")
@pytest.mark.scenario(1)
async def test_an_undeclared_exception_is_a_crash(
    stage: Any, autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller gets HandlerCrashed with the cause, the actor lives again, and one line is logged."""
    error = KeyError("cause")
    async with stage.open() as tree:
        ref = await stage.start(tree)
        with pytest.raises(HandlerCrashed, match="tree/a crashed on Do") as caught:
            await ref.ask(stage.Do(stage.fail(error)))
        assert caught.value.__cause__ is error
        assert (caught.value.started, caught.value.actor) == (True, "tree/a")
        assert await ref.ask(stage.Do(stage.say("next"))) == "next"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "tree/a#1 crashed, restarted in" in caplog.text
    assert "KeyError" in caplog.text


@pytest.mark.rule("A3")
@pytest.mark.scenario(2)
async def test_a_declared_exception_is_an_answer(stage: Any) -> None:
    """The caller gets it, fresh; the actor keeps its life and its state."""
    error = stage.Declared("no")
    actors: list[Any] = []
    async with stage.open() as tree:
        ref = await stage.start(tree, starting=lambda actor: append(actors, actor))
        with pytest.raises(stage.Declared, match="no") as caught:
            await ref.ask(stage.Do(stage.fail(error)))
        assert caught.value is not error
        assert await ref.ask(stage.Do(stage.say("next"))) == "next"
    assert len(actors) == 1
    assert stage.delays == []


async def append(to: list[Any], value: Any) -> None:
    to.append(value)
    await trio.lowlevel.checkpoint()


@pytest.mark.scenario(3)
async def test_the_same_holds_for_tells(
    stage: Any, autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """How a message was sent does not decide whether its actor lives; what nobody hears is logged."""
    async with stage.open() as tree:
        ref = await stage.start(tree)
        await ref.tell(stage.Do(stage.fail(stage.Declared("declared"))))
        await ref.ask(stage.Do(stage.say("next")))
        assert stage.delays == []
        assert "Do, which nobody waits for, failed: Declared('declared')" in caplog.text
        await ref.tell(stage.Do(stage.fail(ValueError("undeclared"))))
        await ref.ask(stage.Do(stage.say("next")))
        assert len(stage.delays) == 1


@pytest.mark.rule("A1")
@pytest.mark.scenario(6)
async def test_a_crash_after_the_reply_leaves_the_reply(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A caller that has its value keeps it; the actor restarts; nothing is settled twice."""

    async def reply_and_crash(actor: Any) -> None:
        actor.context.detach_reply().settle("value")
        await trio.lowlevel.checkpoint()
        raise ValueError("after")

    async with stage.open() as tree:
        ref = await stage.start(tree)
        pending = await ref.submit(stage.Do(reply_and_crash))
        assert await pending == "value"
        assert await ref.ask(stage.Do(stage.say("next"))) == "next"
        assert pending.outcome.late == 0
        assert ref.statistics().duplicate_replies == 0
    assert len(stage.delays) == 1


@pytest.mark.rule("N2")
@pytest.mark.parametrize("declared", [True, False])
async def test_a_group_of_one_is_what_it_holds(
    stage: Any, declared: bool, autojump_clock: trio.abc.Clock
) -> None:
    """A handler's own nursery wraps its child's error: a declared one is still an answer, another a crash."""
    error = stage.Declared("leaf") if declared else ValueError("leaf")

    async def run(_: Any) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.fail(error), None)

    async with stage.open() as tree:
        ref = await stage.start(tree)
        with pytest.raises(stage.Declared if declared else HandlerCrashed) as caught:
            await ref.ask(stage.Do(run))
        assert declared or caught.value.__cause__ is error
        await ref.ask(stage.Do(stage.say("next")))
    assert len(stage.delays) == (0 if declared else 1)


async def test_a_group_of_several_is_a_crash(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Nobody can say which of several errors is the answer; all of them are the cause."""
    group = ExceptionGroup("two", [stage.Declared("a"), ValueError("b")])
    async with stage.open() as tree:
        ref = await stage.start(tree)
        with pytest.raises(HandlerCrashed) as caught:
            await ref.ask(stage.Do(stage.fail(group)))
        assert caught.value.__cause__ is group


async def test_an_error_while_unwinding_is_a_crash(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A handler that fails in its cleanup, after its caller left, has crashed; the caller was just cancelled."""

    async def run(_: Any) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("cleanup")

    async with stage.open() as tree:
        ref = await stage.start(tree)
        with trio.move_on_after(1) as scope:
            await ref.ask(stage.Do(run))
        assert scope.cancelled_caught
        assert await ref.ask(stage.Do(stage.say("next"))) == "next"
    (crash,) = [event.cause for event in stage.events if hasattr(event, "cause")]
    assert isinstance(crash, ValueError)


# --- an incarnation goes down -------------------------------------------------------------------------------


@pytest.mark.rule("N5")
async def test_a_spawned_task_s_failure_is_the_cause_of_what_is_lost(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """The actor crashes, and who waited for the message in flight learns why."""
    error = ValueError("beside")

    async def run(actor: Any) -> None:
        async def beside() -> None:
            await trio.sleep(1)
            raise error

        actor.context.spawn(beside)
        await trio.sleep(10)

    async with stage.open() as tree:
        ref = await stage.start(tree)
        queued = None
        with pytest.raises(InFlightLost, match="ended while it had Do") as caught:
            running = await ref.submit(stage.Do(run))
            queued = await ref.submit(stage.Do(stage.say("queued")))
            await running
        assert caught.value.__cause__ is error
        assert caught.value.started is True
        assert queued is not None
        assert await queued == "queued"
    (crash,) = [event.cause for event in stage.events if hasattr(event, "cause")]
    assert crash is error


async def test_a_crash_takes_the_handlers_beside_it_along(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Of handlers that run at once, the one that raised crashed, the others are lost because of it."""
    error = ValueError("one")

    async def fail_late(_: Any) -> None:
        await trio.sleep(1)
        raise error

    async with stage.open() as tree:
        ref = await stage.start(tree, concurrency=3)
        others = [await ref.submit(stage.Do(stage.sleep(10, number))) for number in range(2)]
        crashed = await ref.submit(stage.Do(fail_late))
        after = await ref.submit(stage.Do(stage.say("after")))
        with pytest.raises(HandlerCrashed) as caught:
            await crashed
        assert caught.value.__cause__ is error
        for other in others:
            with pytest.raises(InFlightLost) as lost:
                await other
            assert lost.value.__cause__ is error
        assert await after == "after"
    assert [entry for entry in stage.log if entry[0] == "cancelled"] in (
        [("cancelled", 0), ("cancelled", 1)],
        [("cancelled", 1), ("cancelled", 0)],
    )


@pytest.mark.rule("A2")
@pytest.mark.scenario(16)
async def test_a_kill_is_told_at_once(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Whoever waits, in line or for the handler, hears in the same tick, even if the handler unwinds slowly."""

    async def unwind(_: Any) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(3, shield=True):
                await trio.sleep(10)

    heard: list[tuple[float, bool | None]] = []

    async def ask(run: Any) -> None:
        with pytest.raises(ActorStopped) as caught:
            await ref.ask(stage.Do(run))
        heard.append((trio.current_time(), caught.value.started))

    async def ask_later() -> None:
        await trio.sleep(1)
        await ask(stage.say("never"))

    async with stage.open() as tree:
        ref = await stage.start(tree)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, unwind)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(ask, stage.say("never"))
            await trio.testing.wait_all_tasks_blocked()
            start = trio.current_time()
            nursery.start_soon(ask_later)
            await tree.stop_child("a", "kill")
        assert sorted(heard) == [(start, False), (start, True), (start + 1, False)]
        assert trio.current_time() == start + 3


@pytest.mark.rule("A4", "C8")
async def test_failing_cleanup_under_a_kill_ships_no_cancellation(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """An error of a handler's cleanup while its actor is killed is reported; no caller sees trio's Cancelled."""

    async def run(actor: Any) -> Any:
        actor.context.detach_reply(survives_restart=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("cleanup")

    async with stage.open() as tree:
        ref = await stage.start(tree)
        pending = await ref.submit(stage.Do(run))
        await trio.testing.wait_all_tasks_blocked()
        await tree.stop_child("a", "kill")
        with pytest.raises(InFlightLost) as caught:
            await pending
        assert not isinstance(caught.value.__cause__, trio.Cancelled)
    (crash,) = [event.cause for event in stage.events if hasattr(event, "cause")]
    assert isinstance(crash, ValueError)
    assert stage.events[-1] == ActorEnded("tree/a", 1, failed=False)


@pytest.mark.rule("A2")
async def test_whatever_breaks_what_was_taken_is_settled(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Even a message that breaks the kernel's own preparation of its handler ends in an outcome, with the cause."""

    class Broken(stage.Do):
        @property
        def on_abandon(self) -> str:  # looked at when the handler's deadline is set
            raise ValueError("broken message")

    class BrokenActor(stage.PuppetActor):
        pass

    BrokenActor.handlers = {**stage.PuppetActor.handlers, Broken: stage.PuppetActor.handlers[stage.Do]}
    async with stage.open() as tree:
        ref = await stage.start(tree, factory=BrokenActor)
        with pytest.raises(InFlightLost) as caught, trio.fail_after(5):
            await ref.ask(Broken(stage.say("never")))
        assert isinstance(caught.value.__cause__, ValueError)
        assert await ref.ask(stage.Do(stage.say("alive"))) == "alive"


# --- start and stop -----------------------------------------------------------------------------------------


@pytest.mark.rule("N3", "S10")
@pytest.mark.parametrize("where", ["factory", "on_start"])
async def test_a_start_that_raises(stage: Any, where: str) -> None:
    """The starter gets StartFailed with the cause; nothing is left behind and the name is free."""
    error = ValueError("x")

    def broken() -> Any:
        raise error

    settings = {"factory": broken} if where == "factory" else {"starting": stage.fail(error)}
    async with stage.open() as tree:
        with pytest.raises(StartFailed, match="tree/a did not start") as caught:
            await stage.start(tree, stopping=never_called, **settings)
        assert caught.value.__cause__ is error
        assert caught.value.actor == "tree/a"
        assert not tree.children
        assert await (await stage.start(tree)).ask(stage.Do(stage.say(1))) == 1


async def never_called(*_: Any) -> None:
    raise AssertionError


@pytest.mark.rule("N3")
async def test_a_start_that_hangs(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """It ends after `start_timeout`, with TooSlowError as its cause."""
    async with stage.open() as tree:
        start = trio.current_time()
        with pytest.raises(StartFailed) as caught:
            await stage.start(tree, starting=stage.sleep(1000), start_timeout=7)
        assert isinstance(caught.value.__cause__, trio.TooSlowError)
        assert "longer than 7 s" in str(caught.value.__cause__)
        assert trio.current_time() == start + 7


@pytest.mark.rule("D1")
@pytest.mark.parametrize("mode", ["drain", "now", "kill", "crash"])
async def test_on_stop_knows_how_it_ends(stage: Any, mode: str, autojump_clock: trio.abc.Clock) -> None:
    """It is told of a drain, a stop, a kill or a crash; on_drain runs before it in the first two."""

    async def drain(_: Any) -> None:
        stage.log.append("drain")
        await trio.lowlevel.checkpoint()

    async def stop(_: Any, ending: str) -> None:
        stage.log.append(ending)
        await trio.lowlevel.checkpoint()

    async with stage.open() as tree:
        ref = await stage.start(tree, draining=drain, stopping=stop)
        if mode == "crash":
            await ref.tell(stage.Do(stage.fail(ValueError("x"))))
            await trio.testing.wait_all_tasks_blocked()
        else:
            await tree.stop_child("a", mode)
        assert stage.log == {"drain": ["drain", "drain"], "now": ["drain", "now"]}.get(mode, [mode])


@pytest.mark.rule("C5", "C8")
@pytest.mark.scenario(34)
@pytest.mark.parametrize("hook", ["draining", "stopping"])
@pytest.mark.parametrize("how", ["raises", "hangs"])
async def test_hooks_of_the_stop_are_bounded_and_isolated(
    stage: Any, hook: str, how: str, autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """An error or a hang in `on_drain` or `on_stop` is logged, ends in time, and is no restart."""

    async def misbehave(*_: Any) -> None:
        if how == "raises":
            raise ValueError("hook")
        await trio.sleep(1000)

    async with stage.open() as tree:
        start = trio.current_time()
        await stage.start(tree, **{hook: misbehave}, stop_timeout=10, cleanup_timeout=3)
        await tree.stop_child("a")
        assert trio.current_time() - start == {"raises": 0, "hangs": 10 if hook == "draining" else 3}[how]
    assert sum(isinstance(event, ActorReady) for event in stage.events) == 1
    assert stage.events[-1] == ActorEnded("tree/a", 1, failed=False)
    if (hook, how) != ("draining", "hangs"):
        assert "hook" in caplog.text or "on_stop did not end within 3 s" in caplog.text


@pytest.mark.rule("N2")
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["handler", "start", "spawned", "stop"])
async def test_an_interrupt_is_never_a_restart(
    stage: Any, error: type[BaseException], where: str, autojump_clock: trio.abc.Clock
) -> None:
    """It leaves the tree as itself; what was asked is settled; nothing is started again."""
    waiting: list[BaseException] = []

    async def ask(ref: Any, run: Any) -> None:
        try:
            await ref.ask(stage.Do(run))
        except ActorStopped as stopped:
            waiting.append(stopped)

    async def spawn(actor: Any) -> None:
        async def beside() -> None:
            await trio.sleep(5)
            raise error("stop")

        actor.context.spawn(beside)
        await trio.sleep(10)

    async def handler(_: Any) -> None:
        await trio.sleep(5)
        raise error("stop")

    async def drive(outer: trio.Nursery) -> None:
        async with stage.open() as tree:
            if where == "start":
                await stage.start(tree, starting=stage.fail(error("stop")))
            elif where == "stop":
                await stage.start(tree, stopping=lambda *_: stage.fail(error("stop"))(None))
            else:
                ref = await stage.start(tree)
                outer.start_soon(ask, ref, handler if where == "handler" else spawn)
                await trio.sleep(1)
                outer.start_soon(ask, ref, stage.say("never"))
                await trio.sleep(100)

    async with trio.open_nursery() as outer:
        with pytest.raises(error):
            await drive(outer)
    assert sum(isinstance(event, ActorReady) for event in stage.events) <= 1
    assert stage.log == []
    assert len(waiting) == (2 if where in {"handler", "spawned"} else 0)


@pytest.mark.rule("N8")
@pytest.mark.usefixtures("default_sigint")
def test_ctrl_c_in_a_handler(stage: Any) -> None:
    """A real SIGINT while a handler computes is raised there and leaves the tree as KeyboardInterrupt."""

    async def compute(_: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        stage.log.append("not reached")
        await trio.lowlevel.checkpoint()

    async def main() -> None:
        async with stage.open() as tree:
            ref = await stage.start(tree)
            await ref.ask(stage.Do(compute))

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert stage.log == []


# --- parts --------------------------------------------------------------------------------------------------


def test_collapse_unwraps_groups_of_one() -> None:
    """Nested groups with one leaf are that leaf; groups with more are themselves."""
    leaf = ValueError("x")
    assert collapse(leaf) is leaf
    assert collapse(ExceptionGroup("a", [ExceptionGroup("b", [leaf])])) is leaf
    two = ExceptionGroup("a", [leaf, KeyError()])
    assert collapse(ExceptionGroup("outer", [two])) is two


@pytest.mark.rule("S6")
async def test_running_time_is_the_time_of_taking_messages(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """Neither the start nor the clean-up counts."""

    async def fail_late(_: Any) -> None:
        await trio.sleep(7)
        raise ValueError("x")

    spec = stage.spec(
        starting=stage.sleep(100),
        stopping=lambda actor, _: stage.sleep(3)(actor),
        start_timeout=math.inf,
    )
    home = Slot("tree/a", spec, Nobody(), Sight(None))
    home.life = Life.STARTING
    home.mailbox.put_nowait(Envelope(stage.Do(fail_late), asked=False))
    exited = await Incarnation(home, 1, None).run()
    assert isinstance(exited.crash, ValueError)
    assert exited.ran_for == 7


class Nobody:
    """A supervisor that is not asked anything."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the supervisor was asked to {name}")
