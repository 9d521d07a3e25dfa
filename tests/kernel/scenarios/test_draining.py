"""Drains with enough and with too little time, and sends to an actor that drains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tinker_actors.errors import ActorStopped, ActorStopping, AskCycle, InFlightLost


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


@attrs.define
class Sender:
    """One who asks or tells, and what came of it."""

    ref: Any
    message: Any
    how: str = "ask"
    end: Any = None

    async def run(self) -> None:
        try:
            self.end = await getattr(self.ref, self.how)(self.message), trio.current_time()
        except ActorStopped as error:
            assert error.handed_back is self.message  # noqa: PT017 - one of several ends
            self.end = type(error), error.started, trio.current_time()


async def line_up(stage: Any, ref: Any, nursery: trio.Nursery) -> list[Sender]:
    """Let one message run for a second, five fill the line, and three more wait for room."""
    ways = ["ask", "ask", "tell", "ask", "tell", "tell", "ask", "tell", "ask"]
    senders = [Sender(ref, stage.Do(stage.sleep(1, n)), how) for n, how in enumerate(ways)]
    for sender in senders:
        nursery.start_soon(sender.run)
        await trio.testing.wait_all_tasks_blocked()
    seen = ref.statistics()
    assert (seen.running, seen.queued, seen.parked) == (1, 5, 3)
    return senders


TURNED_AWAY = [(ActorStopping, False, 0.0)] * 3  # who waits for room when the stop begins


@pytest.mark.scenario(22)
@pytest.mark.rule("D1", "D2", "M2", "A3")
@pytest.mark.parametrize("whole_tree", [False, True])
async def test_a_drain_with_enough_time_handles_all_that_is_in_line(
    stage: Any, books: Any, whole_tree: bool, autojump_clock: trio.abc.Clock
) -> None:
    """What was admitted is handled in order; who waited for room is refused when the drain begins."""
    async with trio.open_nursery() as nursery:
        async with stage.open(grace=6.5) as tree:
            ref = await books.start(tree, factory=hearing(stage), capacity=5)
            senders = await line_up(stage, ref, nursery)
            if not whole_tree:
                await ref.stop("drain", timeout=6.5)
                assert ref.stopped
        assert trio.current_time() == 6.0
    handled = [(0, 1.0), (1, 2.0), (None, 0.0), (3, 4.0), (None, 0.0), (None, 0.0)]
    assert [sender.end for sender in senders] == handled + TURNED_AWAY
    assert [entry for entry in stage.log if entry[0] != "begin"] == [
        *[("end", n) for n in range(6)],
        ("stopped", "drain"),
    ]
    assert not tree.dead_letters.recent
    assert books.counts(ref) == {"admitted": 6, "handled": 6, "refused": 3}


@pytest.mark.scenario(22)
@pytest.mark.rule("D1", "M2", "A2", "A3", "O3")
@pytest.mark.parametrize("whole_tree", [False, True])
async def test_a_drain_with_too_little_time_gives_the_rest_back(
    stage: Any, books: Any, whole_tree: bool, autojump_clock: trio.abc.Clock
) -> None:
    """When time is up, what runs is lost, asks in line get `ActorStopped`, tells reach `on_undelivered` once."""
    async with trio.open_nursery() as nursery:
        async with stage.open(grace=1.5) as tree:
            ref = await books.start(tree, factory=hearing(stage), capacity=5)
            senders = await line_up(stage, ref, nursery)
            if not whole_tree:
                await ref.stop("drain", timeout=1.5)
                assert ref.stopped
        assert trio.current_time() == 1.5
    rest = [(None, 0.0), (ActorStopping, False, 1.5), (None, 0.0), (None, 0.0)]
    assert [sender.end for sender in senders] == [(0, 1.0), (InFlightLost, True, 1.5), *rest, *TURNED_AWAY]
    tells = [senders[n].message for n in (2, 4, 5)]
    assert stage.log[3:] == [("cancelled", 1), ("undelivered", tells), ("stopped", "kill")]
    assert [(letter.reason, letter.seq) for letter in tree.dead_letters.recent] == [
        ("stopped", 2),
        ("stopped", 4),
        ("stopped", 5),
    ]
    counts = {"admitted": 6, "handled": 1, "failed": 1, "rejected": 4, "refused": 3}
    assert books.counts(ref) == counts


# --- sends to an actor that drains --------------------------------------------------------------------------


@pytest.mark.scenario(23)
@pytest.mark.rule("D1", "D2", "M8", "A3")
@pytest.mark.parametrize("origin", ["outside", "own handler", "own task"])
async def test_a_draining_actor_refuses_every_send_at_once(
    stage: Any, books: Any, ticks: Any, origin: str, autojump_clock: trio.abc.Clock
) -> None:
    """All ways of sending are refused within a tick, with the message handed back, and nothing is admitted."""

    async def send_all(*_: Any) -> None:
        for name in ("ask", "tell", "submit", "submit_many", "tell_nowait", "submit_nowait"):
            message, before = stage.Do(stage.say("never")), ticks.now
            kind = AskCycle if (origin, name) == ("own handler", "ask") else ActorStopping
            with pytest.raises(kind) as caught:
                result = getattr(ref, name)([message] if name == "submit_many" else message)
                assert "nowait" not in name
                await result
            assert ticks.now - before <= (0 if "nowait" in name else 1)
            assert caught.value.started is False
            assert caught.value.handed_back is (message if kind is ActorStopping else None)
            stage.log.append(name)

    async def run(actor: Any) -> str:
        await trio.sleep(1)  # the drain has begun
        if origin == "own handler":
            await send_all()
        elif origin == "own task":
            actor.context.spawn(send_all)
            await trio.sleep(1)
        return "handled"

    async with stage.open() as tree:
        ref = await books.start(tree)
        answer = await ref.submit(stage.Do(run))
        in_line = await ref.submit(stage.Do(stage.say("in line")))
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ref.stop)
            await trio.testing.wait_all_tasks_blocked()
            if origin == "outside":
                await send_all()
        assert (await answer, await in_line) == ("handled", "in line")
    sends = ["ask", "tell", "submit", "submit_many", "tell_nowait", "submit_nowait"]
    assert stage.log == [*sends, "in line"]
    assert stage.delays == []
    refusals = 5 if origin == "own handler" else 6
    assert books.counts(ref) == {"admitted": 2, "handled": 2, "refused": refusals}
