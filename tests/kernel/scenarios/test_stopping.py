"""Stops at odd moments: twice, by the actor itself, during its start and during its backoff."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from tinker_actors.errors import ActorStopped, HandlerCrashed, InFlightLost, StartFailed
from tinker_actors.kernel import ActorReady, Backoff, Down, RestartPolicy

SLOW = RestartPolicy(backoff=Backoff(base=100.0, maximum=100.0, jitter=0.0))


def hearing(stage: Any) -> Callable[[], Any]:
    """Make puppets that note what was never handled, and how they end."""

    class Hearing(stage.PuppetActor):
        async def on_undelivered(self, messages: Any) -> None:
            stage.log.append(("undelivered", list(messages)))
            await trio.lowlevel.checkpoint()

        async def on_stop(self, ending: Any) -> None:
            stage.log.append(("stopped", ending))
            await trio.lowlevel.checkpoint()

    return Hearing


def lives(stage: Any) -> list[int]:
    return [event.incarnation for event in stage.events if isinstance(event, ActorReady)]


@pytest.mark.scenario(24)
@pytest.mark.rule("D1")
@pytest.mark.parametrize(
    ("first", "second", "ends_at"),
    [
        ("drain", "drain", 4.0),
        ("drain", "now", 2.0),
        ("drain", "kill", 1.0),
        ("now", "drain", 2.0),
        ("now", "kill", 1.0),
        ("kill", "drain", 0.0),
    ],
)
async def test_an_actor_is_stopped_twice(
    stage: Any, books: Any, first: str, second: str, ends_at: float, autojump_clock: trio.abc.Clock
) -> None:
    """Both callers wait for the one end, the harder mode holds, and a third stop afterwards is nothing."""
    ends = []

    async def stop(mode: str) -> None:
        await ref.stop(mode)
        ends.append(trio.current_time())

    async with stage.open() as tree:
        ref = await books.start(tree, factory=hearing(stage))
        for number in range(2):
            await ref.tell(stage.Do(stage.sleep(2, number)))
        async with trio.open_nursery() as nursery:
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(stop, first)
            await trio.sleep(1)
            nursery.start_soon(stop, second)
        begin = trio.current_time()
        for mode in ("drain", "now", "kill"):
            await ref.stop(mode)
        assert trio.current_time() == begin
        assert await ref.wait_stopped() == Down("tree/a", "stopped")
    assert ends == [ends_at, max(ends_at, 1.0)]
    hardest = max(first, second, key=["drain", "now", "kill"].index)
    assert [entry[1] for entry in stage.log if entry[0] == "stopped"] == [hardest]
    assert len([entry for entry in stage.log if entry[0] == "undelivered"]) == (hardest != "drain")
    assert lives(stage) == [1]


@pytest.mark.scenario(24)
@pytest.mark.rule("D1", "S4")
@pytest.mark.parametrize("mode", ["drain", "now", "kill"])
@pytest.mark.parametrize("by", ["ref", "context", "supervisor"])
async def test_an_actor_stops_itself(
    stage: Any, books: Any, by: str, mode: str, autojump_clock: trio.abc.Clock
) -> None:
    """From its own handler the stop only begins: nobody waits for itself, and a permanent actor stays ended."""

    async def run(actor: Any) -> str:
        if by == "ref":
            await actor.context.ref.stop(mode)
        elif by == "context":
            await actor.context.stop(mode)
        else:
            await tree.stop_child("a", mode)
        return "went on"

    async with stage.open() as tree:
        ref = await books.start(tree, factory=hearing(stage))
        answer = ref.submit_nowait(stage.Do(run))
        told = stage.Do(stage.say("in line"))
        ref.tell_nowait(told)
        down = await ref.wait_stopped()
        if mode == "kill":
            with pytest.raises(InFlightLost) as caught:
                await answer
            assert caught.value.started is True
        else:
            assert await answer == "went on"
        assert trio.current_time() == 0.0
    assert down == Down("tree/a", "stopped")
    before = ["in line"] if mode == "drain" else [("undelivered", [told])]
    assert stage.log == [*before, ("stopped", mode)]
    assert lives(stage) == [1]


@pytest.mark.scenario(24)
@pytest.mark.rule("D1", "N3", "S2", "S4")
@pytest.mark.parametrize("mode", ["drain", "now", "kill"])
@pytest.mark.parametrize("by", ["outside", "itself"])
async def test_an_actor_is_stopped_during_its_start(
    stage: Any, by: str, mode: str, autojump_clock: trio.abc.Clock
) -> None:
    """`on_start` is cancelled at once, the starter hears that nothing started, and nothing is restarted."""
    refs = []

    async def start(actor: Any) -> None:
        refs.append(actor.context.ref)
        if by == "itself":
            await trio.sleep(1)
            await actor.context.stop(mode)
            stage.log.append("went on")
        await stage.sleep(1000, "start")(actor)

    async with stage.open() as tree:

        async def starter() -> None:
            with pytest.raises(StartFailed):
                await stage.start(tree, starting=start)
            stage.log.append(("not started", trio.current_time()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(starter)
            await trio.sleep(1)
            if by == "outside":
                await tree.stop_child("a", mode)
        assert await refs[0].wait_stopped() == Down("tree/a", "stopped")
        assert trio.current_time() == 1.0
    assert ("not started", 1.0) in stage.log
    assert ("end", "start") not in stage.log
    assert lives(stage) == []


@pytest.mark.scenario(24)
@pytest.mark.rule("D1", "S2", "S7", "A2")
@pytest.mark.parametrize(
    ("mode", "in_line"), [("drain", 0), ("now", 0), ("now", 2), ("kill", 0), ("kill", 2)]
)
async def test_an_actor_is_stopped_during_its_backoff(
    stage: Any, books: Any, mode: str, in_line: int, autojump_clock: trio.abc.Clock
) -> None:
    """The stop ends the wait at once, what is in line is settled, and there is no other incarnation."""
    async with stage.open() as tree:
        ref = await books.start(tree, policy=SLOW)
        with pytest.raises(HandlerCrashed):
            await ref.ask(stage.Do(stage.fail(ValueError("crash"))))
        pendings = [await ref.submit(stage.Do(stage.say("never"))) for _ in range(in_line)]
        await trio.sleep(1)
        child = tree.snapshot().find("tree/a")
        assert (child.life, child.next_restart_at) == ("restarting", 100.0)
        await ref.stop(mode)
        assert trio.current_time() == 1.0
        for pending in pendings:
            with pytest.raises(ActorStopped) as caught:
                await pending
            assert caught.value.started is False
        assert await ref.wait_stopped() == Down("tree/a", "stopped")
        await trio.sleep(200)
    assert stage.log == []
    assert lives(stage) == [1]
    assert stage.delays == [100.0]
