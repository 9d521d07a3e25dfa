"""Stops in every state of an actor's life."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from tinker_actors.errors import (
    ActorStopped,
    ActorStopping,
    HandlerCrashed,
    InFlightLost,
    StartFailed,
)
from tinker_actors.kernel import ActorEnded, ActorReady, Backoff, RestartPolicy
from tinker_actors.kernel.instrument import Sight
from tinker_actors.kernel.lifecycle import Life
from tinker_actors.kernel.slot import Slot

QUICK = RestartPolicy(backoff=Backoff(base=1.0, maximum=8.0, jitter=0.0), max_restarts=3)


def life(tree: Any, name: str = "a") -> Life:
    return tree.children[name].life


def readies(stage: Any) -> list[int]:
    return [event.incarnation for event in stage.events if isinstance(event, ActorReady)]


async def crash(ref: Any, stage: Any, error: Exception | None = None) -> None:
    """Make an actor crash and see it happen."""
    with pytest.raises(HandlerCrashed):
        await ref.ask(stage.Do(stage.fail(error or ValueError("crash"))))
    await trio.testing.wait_all_tasks_blocked()


# --- stop, in every state of life ---------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["drain", "now", "kill"])
async def test_stop_before_the_first_breath(stage: Any, mode: str) -> None:
    """A child that is stopped before its task has run never starts, and its starter hears."""
    async with stage.open() as tree:

        async def start() -> None:
            with pytest.raises(StartFailed):
                await stage.start(tree, starting=stage.say("never"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(start)
            while "a" not in tree.children:
                await trio.lowlevel.checkpoint()
            assert life(tree) in (Life.NEW, Life.STARTING)
            tree.children["a"].ask_to_stop(mode)
    assert ActorReady("tree/a", 1) not in stage.events
    assert stage.events[-1].failed is False


def test_a_slot_that_is_new_ends_at_once(stage: Any) -> None:
    """The same, seen from within: NEW goes to STOPPED."""
    forgotten: list[str] = []

    class Overseer:
        def forget(self, name: str, child: Any) -> None:
            forgotten.append(name)

        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"the supervisor was asked to {name}")

    async def main() -> None:
        sight = Sight(stage.events.append)
        slot = Slot("tree/a", stage.spec(starting=stage.say("never")), Overseer(), sight)
        slot.ask_to_stop("drain")
        await slot.run()
        assert slot.life is Life.STOPPED
        assert slot.ref.stopped
        with pytest.raises(StartFailed):
            slot.started.result()

    trio.run(main)
    assert stage.log == []
    assert forgotten == ["a"]
    assert stage.events == [ActorEnded("tree/a", 0, failed=False)]


@pytest.mark.scenario(24)
@pytest.mark.parametrize("mode", ["drain", "now", "kill"])
async def test_stop_during_the_start(stage: Any, mode: str, autojump_clock: trio.abc.Clock) -> None:
    """The start is cancelled at once; its starter gets StartFailed."""
    async with stage.open() as tree:

        async def start() -> None:
            with pytest.raises(StartFailed):
                await stage.start(tree, starting=stage.sleep(1000, "start"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(start)
            await trio.testing.wait_all_tasks_blocked()
            assert life(tree) is Life.STARTING
            begin = trio.current_time()
            await tree.stop_child("a", mode)
            assert trio.current_time() == begin
    assert stage.log == [("begin", "start"), ("cancelled", "start")]


@pytest.mark.rule("D1")
@pytest.mark.parametrize(
    ("mode", "handled", "running"),
    [("drain", [1, 2], "done"), ("now", [], "done"), ("kill", [], "lost")],
)
async def test_stop_while_running(
    stage: Any, mode: str, handled: list[int], running: str, autojump_clock: trio.abc.Clock
) -> None:
    """Drain works off the queue, now lets the running handler end, kill cancels it; senders are refused at once."""
    async with stage.open() as tree:
        ref = await stage.start(tree)
        current = await ref.submit(stage.Do(stage.sleep(5, "done")))
        queued = [await ref.submit(stage.Do(stage.say(number))) for number in (1, 2)]
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tree.stop_child, "a", mode)
            await trio.testing.wait_all_tasks_blocked()
            if mode != "kill":
                assert life(tree) is Life.DRAINING
                for send in (ref.ask, ref.tell, ref.submit):
                    with pytest.raises(ActorStopping) as refused:
                        await send(stage.Do(stage.say("never")))
                    assert refused.value.started is False
        if running == "done":
            assert await current == "done"
        else:
            with pytest.raises(InFlightLost):
                await current
        for pending in queued:
            if handled:
                assert await pending in handled
            else:
                with pytest.raises(ActorStopped) as caught:
                    await pending
                assert caught.value.started is False
        assert "never" not in stage.log


@pytest.mark.rule("D2")
async def test_a_drain_with_parked_senders(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """What is queued is handled; who is still waiting for room is refused in the step of the stop."""
    refused: list[float] = []

    async def send(ref: Any) -> None:
        try:
            await ref.tell(stage.Do(stage.say("never")))
        except ActorStopping:
            refused.append(trio.current_time())

    async with stage.open() as tree, trio.open_nursery() as nursery:
        ref = await stage.start(tree, capacity=2)
        await ref.tell(stage.Do(stage.sleep(5)))
        await trio.testing.wait_all_tasks_blocked()
        await ref.tell(stage.Do(stage.say(1)))
        await ref.tell(stage.Do(stage.say(2)))
        for _ in range(10):
            nursery.start_soon(send, ref)
        await trio.testing.wait_all_tasks_blocked()
        begin = trio.current_time()
        await tree.stop_child("a")
        assert trio.current_time() == begin + 5
        assert refused == [begin] * 10
    assert stage.log[-2:] == [1, 2]


@pytest.mark.rule("D1")
async def test_a_drain_that_takes_too_long_is_killed(
    stage: Any, autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """After `stop_timeout` what runs is lost and what waits never started; told messages are counted in the log."""
    async with stage.open() as tree:
        ref = await stage.start(tree, stop_timeout=3)
        running = await ref.submit(stage.Do(stage.sleep(100)))
        waiting = await ref.submit(stage.Do(stage.say("never")))
        await ref.tell(stage.Do(stage.say("never")))
        begin = trio.current_time()
        await tree.stop_child("a")
        assert trio.current_time() == begin + 3
        for pending, started in ((running, True), (waiting, False)):
            with pytest.raises(ActorStopped) as caught:
                await pending
            assert caught.value.started is started
    assert stage.log == [("begin", None), ("cancelled", None)]
    assert "never begun that nobody waits for: 1" in caplog.text


@pytest.mark.rule("S7")
@pytest.mark.scenario(24)
@pytest.mark.parametrize("mode", ["drain", "now", "kill"])
async def test_stop_during_the_backoff(stage: Any, mode: str, autojump_clock: trio.abc.Clock) -> None:
    """With nothing owed, it ends at once, without another life."""
    policy = RestartPolicy(backoff=Backoff(base=1000.0, maximum=1000.0))
    async with stage.open() as tree:
        ref = await stage.start(tree, policy=policy)
        await crash(ref, stage)
        assert life(tree) is Life.RESTARTING
        begin = trio.current_time()
        await tree.stop_child("a", mode)
        assert trio.current_time() == begin
        assert ref.stopped
    assert readies(stage) == [1]
    assert stage.events[-1] == ActorEnded("tree/a", 1, failed=False)


@pytest.mark.parametrize(("mode", "lives"), [("drain", [1, 2]), ("now", [1]), ("kill", [1])])
async def test_a_drain_during_the_backoff_keeps_what_waits(
    stage: Any, mode: str, lives: list[int], autojump_clock: trio.abc.Clock
) -> None:
    """A drain waits the backoff out and works off the queue; the harder stops give it up."""
    async with stage.open() as tree:
        ref = await stage.start(tree, policy=RestartPolicy(backoff=Backoff(base=10.0, jitter=0.0)))
        await crash(ref, stage)
        pending = await ref.submit(stage.Do(stage.say("kept")))
        begin = trio.current_time()
        await tree.stop_child("a", mode)
        if mode == "drain":
            assert await pending == "kept"
            assert trio.current_time() == begin + 10
        else:
            with pytest.raises(ActorStopped) as caught:
                await pending
            assert caught.value.started is False
            assert trio.current_time() == begin
    assert readies(stage) == lives


async def test_a_drain_ends_when_its_last_message_is_withdrawn(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """Nothing is owed any more, so the backoff is not waited out."""
    async with stage.open() as tree:
        ref = await stage.start(tree, policy=RestartPolicy(backoff=Backoff(base=10.0)))
        await crash(ref, stage)
        pending = await ref.submit(stage.Do(stage.say("never")))
        begin = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tree.stop_child, "a")
            await trio.sleep(1)
            assert await pending.withdraw()
        assert trio.current_time() == begin + 1
    assert readies(stage) == [1]


async def test_a_crash_during_the_drain_is_restarted_if_messages_wait(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """A drain goes through a restart: the second incarnation works off the rest, and then it is over."""

    async def fail_late(_: Any) -> None:
        await trio.sleep(1)
        raise ValueError("during the drain")

    async with stage.open() as tree:
        ref = await stage.start(tree, policy=QUICK)
        bad = await ref.submit(stage.Do(fail_late))
        good = [await ref.submit(stage.Do(stage.say(number))) for number in range(3)]
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tree.stop_child, "a")
            await trio.sleep(1.5)
            assert life(tree) is Life.RESTARTING
        with pytest.raises(HandlerCrashed):
            await bad
        assert [await pending for pending in good] == [0, 1, 2]
    assert readies(stage) == [1, 2]
    assert stage.events[-1] == ActorEnded("tree/a", 2, failed=False)


async def test_a_restarted_drain_is_still_a_drain(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """The incarnation that ends a drain is DRAINING from its start, and its hooks are told so."""

    async def start(actor: Any) -> None:
        await trio.sleep(1)

    async def stop(actor: Any, ending: str) -> None:
        stage.log.append((actor.context.incarnation, ending))
        await trio.lowlevel.checkpoint()

    async with stage.open() as tree:
        ref = await stage.start(tree, policy=QUICK, starting=start, stopping=stop)
        await ref.tell(stage.Do(stage.fail(ValueError("x"))))
        await ref.tell(stage.Do(stage.sleep(5)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tree.stop_child, "a")
            await trio.sleep(4)
            assert life(tree) is Life.DRAINING
    assert (1, "crash") in stage.log
    assert (2, "drain") in stage.log


async def test_a_crash_during_the_drain_is_restarted_if_answers_are_owed(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """An open surviving token is answered by the next incarnation, also if `on_drain` is where it crashes."""
    tokens: list[Any] = []

    async def detach(actor: Any) -> Any:
        await trio.lowlevel.checkpoint()
        tokens.append(actor.context.detach_reply(survives_restart=True))
        return tokens[0]

    async def drain(actor: Any) -> None:
        await trio.lowlevel.checkpoint()
        if actor.context.incarnation == 1:
            raise ValueError("while draining")
        tokens[0].settle("answered")

    async with stage.open() as tree:
        ref = await stage.start(tree, draining=drain, policy=QUICK)
        pending = await ref.submit(stage.Do(detach))
        await trio.testing.wait_all_tasks_blocked()
        await tree.stop_child("a")
        assert await pending == "answered"
    assert readies(stage) == [1, 2]


async def test_a_crash_during_the_drain_with_nothing_owed_ends_it(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """The last message crashes: it is reported, and nobody is started to do nothing."""

    async def fail_late(_: Any) -> None:
        await trio.sleep(1)
        raise ValueError("last")

    async with stage.open() as tree:
        ref = await stage.start(tree)
        pending = await ref.submit(stage.Do(fail_late))
        await trio.testing.wait_all_tasks_blocked()
        await tree.stop_child("a")
        with pytest.raises(HandlerCrashed):
            await pending
    assert readies(stage) == [1]
    assert stage.delays == [None]
    assert stage.events[-1] == ActorEnded("tree/a", 1, failed=False)


async def test_a_drain_that_keeps_crashing_is_given_up(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Restarts of a drain count like all others; what is left never started, and the failure escalates."""
    async with stage.open() as tree:
        ref = await stage.start(tree, policy=QUICK, on_exhausted="fail", stop_timeout=100)
        for _ in range(4):
            await ref.tell(stage.Do(stage.fail(ValueError("x"))))
        left = await ref.submit(stage.Do(stage.say("never")))
        await tree.stop_child("a", "drain", 100)
        with pytest.raises(ActorStopped, match="has failed"):
            await left
    assert readies(stage) == [1, 2, 3, 4]


async def test_a_drain_during_a_restart_s_start(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """With messages waiting the start goes on and they are handled; with none it is cancelled."""

    async def start(actor: Any) -> None:
        await trio.sleep(5 if actor.context.incarnation > 1 else 0)

    for queued in (True, False):
        stage.events.clear()
        async with stage.open() as tree:
            ref = await stage.start(tree, starting=start, policy=QUICK)
            await crash(ref, stage)
            pending = await ref.submit(stage.Do(stage.say("kept"))) if queued else None
            await trio.sleep(2)
            assert life(tree) is Life.STARTING
            begin = trio.current_time()
            await tree.stop_child("a")
            assert trio.current_time() == begin + (4 if queued else 0)
            assert pending is None or await pending == "kept"
        assert readies(stage) == ([1, 2] if queued else [1])


@pytest.mark.rule("D1")
@pytest.mark.parametrize("harder", ["now", "kill"])
async def test_a_harder_stop_overrides_a_softer_one(
    stage: Any, harder: str, autojump_clock: trio.abc.Clock
) -> None:
    """Drain may become now or kill; a softer word afterwards changes nothing."""
    async with stage.open() as tree:
        ref = await stage.start(tree)
        running = await ref.submit(stage.Do(stage.sleep(5, "done")))
        queued = await ref.submit(stage.Do(stage.say("never")))
        slot = tree.children["a"]
        await trio.testing.wait_all_tasks_blocked()
        for mode in ("drain", "drain", harder, "drain"):
            slot.ask_to_stop(mode)
        with pytest.raises(ActorStopped):
            await queued
        if harder == "now":
            assert await running == "done"
        else:
            with pytest.raises(InFlightLost):
                await running
        await ref.wait_stopped()


async def test_a_stop_from_the_observer_of_a_crash(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """An observer that stops the tree because of a crash need not wait for that actor's backoff."""
    policy = RestartPolicy(backoff=Backoff(base=1000.0, maximum=1000.0))
    trees: list[Any] = []

    def observe(event: Any) -> None:
        stage.events.append(event)
        if hasattr(event, "delay"):
            trees[0].ask_to_stop("now")

    async with stage.open(observer=observe) as tree:
        trees.append(tree)
        ref = await stage.start(tree, policy=policy)
        begin = trio.current_time()
        await ref.tell(stage.Do(stage.fail(ValueError("x"))))
        await ref.wait_stopped()
        assert trio.current_time() == begin
    assert readies(stage) == [1]


@pytest.mark.rule("D1")
@pytest.mark.scenario(24)
async def test_stopping_twice_and_while_stopping(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Any number of tasks may stop a child and wait for its end; it is stopped once."""
    async with stage.open() as tree:
        await stage.start(tree, stopping=lambda actor, ending: stage.sleep(2, ending)(actor))
        begin = trio.current_time()
        async with trio.open_nursery() as nursery:
            for delay in (0, 0, 1):
                nursery.start_soon(stop_after, tree, delay)
            await trio.sleep(1.5)
            assert life(tree) is Life.STOPPING
        assert trio.current_time() == begin + 2
        with pytest.raises(KeyError):
            await tree.stop_child("a")
    assert stage.log == [("begin", "drain"), ("end", "drain")]


async def stop_after(tree: Any, delay: float) -> None:
    await trio.sleep(delay)
    await tree.stop_child("a")


async def test_a_kill_while_stopping_ends_the_drain_hook(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """`on_drain` is cancelled by a kill; `on_stop` still runs, and is told."""

    async def stop(_: Any, ending: str) -> None:
        stage.log.append(ending)
        await trio.lowlevel.checkpoint()

    async with stage.open() as tree:
        await stage.start(tree, draining=stage.sleep(1000, "drain"), stopping=stop)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tree.stop_child, "a")
            await trio.sleep(1)
            assert life(tree) is Life.STOPPING
            await tree.stop_child("a", "kill")
    assert stage.log == [("begin", "drain"), ("cancelled", "drain"), "kill"]


@pytest.mark.rule("D1")
@pytest.mark.scenario(24)
@pytest.mark.parametrize("mode", ["drain", "now"])
@pytest.mark.parametrize("where", ["handler", "spawned"])
async def test_an_actor_may_stop_itself(
    stage: Any, mode: str, where: str, autojump_clock: trio.abc.Clock
) -> None:
    """Called from the actor's own task, the stop is only begun: to wait would be a deadlock."""
    async with stage.open() as tree:

        async def stop() -> None:
            await tree.stop_child("a", mode)
            stage.log.append("asked")

        async def run(actor: Any) -> str:
            await trio.sleep(1)
            if where == "spawned":
                actor.context.spawn(stop)
                await trio.sleep(1)
            else:
                await stop()
            return "replied"

        ref = await stage.start(tree)
        begin = trio.current_time()
        pending = await ref.submit(stage.Do(run))
        queued = await ref.submit(stage.Do(stage.say("queued")))
        await ref.wait_stopped()
        assert await pending == "replied"
        if mode == "drain":
            assert await queued == "queued"
        else:
            with pytest.raises(ActorStopped):
                await queued
        assert trio.current_time() <= begin + 2
    assert stage.log[0] == "asked"
    assert readies(stage) == [1]
