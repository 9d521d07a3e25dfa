"""Kills: what callers hear and when, and what becomes of a handler that will not end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Self

import attrs
import pytest
import trio
import trio.testing

from tinker_actors.errors import ActorStopped, ActorStopping, InFlightLost
from tinker_actors.kernel import ActorEnded, ActorReady, ActorStuck, Down

# --- who waits for an actor that is killed ------------------------------------------------------------------


@attrs.define(eq=False)
class Waiter:
    """Asks, and notes when it heard of what."""

    ticks: Any
    error: Exception | None = None
    heard_in: int | None = None
    heard_at: float | None = None

    async def ask(self, ref: Any, message: Any) -> None:
        with pytest.raises(ActorStopped) as caught:
            await ref.ask(message)
        self.error, self.heard_in, self.heard_at = caught.value, self.ticks.now, trio.current_time()


KILLS: dict[str, Callable[[Any, Any], Awaitable[None]]] = {
    "ref": lambda _, ref: ref.stop("kill"),
    "supervisor": lambda tree, _: tree.stop_child("a", "kill"),
}


@pytest.mark.scenario(16)
@pytest.mark.rule("A2", "A3", "D1", "M2")
@pytest.mark.parametrize("kill", KILLS)
async def test_a_kill_tells_all_callers_in_its_own_tick(
    stage: Any, books: Any, ticks: Any, kill: str, autojump_clock: trio.abc.Clock
) -> None:
    """Whoever waits is woken in the tick of the kill, long before the handler has unwound."""

    async def unwind_slowly(_: Any) -> None:
        try:
            await trio.sleep(100)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(3)
            stage.log.append("unwound")

    waiters = [Waiter(ticks) for _ in range(3)]
    messages = [stage.Do(run) for run in (unwind_slowly, stage.say("in line"), stage.say("no room"))]
    async with stage.open() as tree, trio.open_nursery() as nursery:
        ref = await books.start(tree, capacity=1)
        for waiter, message in zip(waiters, messages, strict=True):
            nursery.start_soon(waiter.ask, ref, message)
            await trio.testing.wait_all_tasks_blocked()
        assert books.counts(ref) == {"admitted": 2, "queued": 1, "running": 1, "parked": 1}
        await trio.sleep(1)
        killed_in = ticks.now
        await KILLS[kill](tree, ref)
        assert trio.current_time() == 4
        assert ref.stopped
    assert [waiter.heard_in for waiter in waiters] == [
        killed_in + 1
    ] * 3  # woken in one tick, run in the next
    assert [waiter.heard_at for waiter in waiters] == [1] * 3
    begun, in_line, outside = [waiter.error for waiter in waiters]
    assert isinstance(begun, InFlightLost)
    assert begun.started is True
    assert isinstance(in_line, ActorStopped)
    assert not isinstance(in_line, InFlightLost)
    assert in_line.started is False
    assert isinstance(outside, ActorStopping)
    assert outside.started is False
    assert [
        waiter.error.handed_back for waiter in waiters if isinstance(waiter.error, ActorStopped)
    ] == messages
    assert stage.log == ["unwound"]
    assert books.counts(ref) == {"admitted": 2, "failed": 1, "rejected": 1, "refused": 1}
    assert stage.delays == []
    assert stage.events[-1] == ActorEnded("tree/a", 1, failed=False)


@pytest.mark.scenario(16)
@pytest.mark.rule("A2", "A7")
async def test_a_kill_tells_who_waits_for_a_token(
    stage: Any, books: Any, ticks: Any, autojump_clock: trio.abc.Clock
) -> None:
    """A message whose handler has left its answer to a token has begun, too: InFlightLost, in the same tick."""
    tokens = []

    async def detach(actor: Any) -> Any:
        await trio.lowlevel.checkpoint()
        tokens.append(actor.context.detach_reply())
        return tokens[0]

    waiter = Waiter(ticks)
    async with stage.open() as tree, trio.open_nursery() as nursery:
        ref = await books.start(tree)
        nursery.start_soon(waiter.ask, ref, stage.Do(detach))
        await trio.testing.wait_all_tasks_blocked()
        assert books.counts(ref) == {"admitted": 1, "running": 1}
        killed_in = ticks.now
        await ref.stop("kill")
    assert waiter.heard_in == killed_in + 1
    assert isinstance(waiter.error, InFlightLost)
    assert waiter.error.started is True
    assert books.counts(ref) == {"admitted": 1, "failed": 1}


# --- a handler that will not end ----------------------------------------------------------------------------


@attrs.define(eq=False)
class Stubborn:
    """A handler that swallows whatever is raised in it and goes on, until the test lets it go."""

    rests: bool = True
    released: bool = False
    swallowed: int = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.released = True  # or the tree would wait for it

    async def run(self, _: Any) -> str:
        while not self.released:
            await self.go_on()
        return "too late"

    async def go_on(self) -> None:
        try:
            await trio.sleep(1)
        except BaseException:  # noqa: ASYNC103, BLE001 - this is what must not hurt anybody else
            self.swallowed += 1
            if self.rests:
                with trio.CancelScope(shield=True):
                    await trio.sleep(1)


async def stopped_at(ref: Any, down: list[tuple[float, Down]]) -> None:
    """Note when the end of an actor is told, and how."""
    end = await ref.wait_stopped()
    down.append((trio.current_time(), end))


@pytest.mark.scenario(17)
@pytest.mark.rule("C6", "C5", "A2", "W1", "N1")
@pytest.mark.parametrize("mode", ["drain", "now", "kill"])
async def test_a_handler_that_swallows_everything_is_left_behind(
    stage: Any,
    books: Any,
    ticks: Any,
    mode: str,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: trio.abc.Clock,
) -> None:
    """When its time is up, the actor is reported as stuck with its stack; nobody waits, and its sibling works on."""
    down: list[tuple[float, Down]] = []
    running, in_line = Waiter(ticks), Waiter(ticks)
    killed_at = 0 if mode == "kill" else 7
    async with stage.open() as tree, trio.open_nursery() as nursery:
        with Stubborn() as stubborn:
            ref = await books.start(tree, stop_timeout=7, cleanup_timeout=2)
            sibling = await books.start(tree, "b")
            nursery.start_soon(stopped_at, ref, down)
            for waiter, message in (
                (running, stage.Do(stubborn.run)),
                (in_line, stage.Do(stage.say("in line"))),
            ):
                nursery.start_soon(waiter.ask, ref, message)
                await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(ref.stop, mode)
            await trio.sleep(killed_at + 3.5)
            assert stubborn.swallowed > 0
            assert down == []
            assert await sibling.ask(stage.Do(stage.say("beside it"))) == "beside it"
            await trio.sleep(1)
            assert [(at, end.path, end.reason) for at, end in down] == [(killed_at + 4, "tree/a", "stuck")]
            assert ref.stopped
            assert (running.heard_at, in_line.heard_at) == (killed_at, 0 if mode == "now" else killed_at)
            await hold_reports(stage, ref, caplog)
            assert await sibling.ask(stage.Do(stage.say("after it"))) == "after it"
            with pytest.raises(ActorStopped) as caught:
                await ref.ask(stage.Do(stage.say("never")))
            assert caught.value.started is False
    assert isinstance(running.error, InFlightLost)
    assert running.error.started is True
    assert isinstance(in_line.error, ActorStopped)
    assert in_line.error.started is False
    assert stage.log == ["beside it", "after it"]
    assert books.counts(sibling) == {"admitted": 2, "handled": 2}
    assert [event for event in stage.events if event.actor == "tree/b"] == [
        ActorReady("tree/b", 1),
        ActorEnded("tree/b", 1, failed=False),
    ]
    counts = books.counts(ref)
    assert (counts["admitted"], counts["failed"], counts["rejected"]) == (2, 1, 1)
    assert len(down) == 1
    assert stage.delays == []


async def hold_reports(stage: Any, ref: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Look at the event and the line of the log: once each, with where the handler stands."""
    await trio.lowlevel.checkpoint()
    (stuck,) = [event for event in stage.events if isinstance(event, ActorStuck)]
    assert (stuck.actor, stuck.incarnation) == (ref.path, 1)
    (line,) = [record.getMessage() for record in caplog.records if "stuck" in record.getMessage()]
    for text in (stuck.stack, line):
        assert "in go_on" in text
        assert __file__.rsplit("/", 1)[-1] in text
    assert "tree/a#1" in line


@pytest.mark.scenario(17)
@pytest.mark.rule("C6", "M7")
async def test_a_handler_that_spins_starves_nobody(
    stage: Any, books: Any, ticks: Any, mock_clock: trio.testing.MockClock
) -> None:
    """Each of its waits ends at once in a new cancellation; the stop still ends when its time is up."""
    stopped, waiter = trio.Event(), Waiter(ticks)

    async def stop() -> None:
        await ref.stop("now")
        stopped.set()

    async with stage.open() as tree, trio.open_nursery() as nursery:
        with Stubborn(rests=False) as stubborn:
            ref = await books.start(tree, stop_timeout=7, cleanup_timeout=2)
            sibling = await books.start(tree, "b")
            nursery.start_soon(waiter.ask, ref, stage.Do(stubborn.run))  # noqa: ASYNC111 - released, it ends
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(stop)
            for _ in range(20):
                await trio.lowlevel.checkpoint()
            assert waiter.heard_in is None
            mock_clock.jump(7)
            for _ in range(20):
                await trio.lowlevel.checkpoint()
            assert stubborn.swallowed > 10
            assert isinstance(waiter.error, InFlightLost)
            assert not stopped.is_set()
            mock_clock.jump(4)
            await stopped.wait()
            (stuck,) = [event for event in stage.events if isinstance(event, ActorStuck)]
            assert "in go_on" in stuck.stack
            assert (await ref.wait_stopped()).reason == "stuck"
            assert await sibling.ask(stage.Do(stage.say("beside it"))) == "beside it"
    assert books.counts(sibling) == {"admitted": 1, "handled": 1}
    assert stage.delays == []
