"""Handlers that take long are named."""

from __future__ import annotations

import logging
import math
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from tinker_actors.kernel.envelope import Envelope
from tinker_actors.kernel.patrol import Patrol
from tinker_actors.kernel.reader import Reader


def busy(name: str = "a", seq: int = 0) -> Reader:
    """Make a reader that has a message."""
    station: Any = SimpleNamespace(owner=f"tree/{name}")
    reader = Reader(station, [])
    envelope: Envelope[Any] = Envelope(SimpleNamespace())  # type: ignore[arg-type]  # any message will do
    envelope.seq = seq
    reader.envelope = envelope
    return reader


def slow(patrol: Patrol, now: float) -> dict[str, list[float]]:
    """Look, and return the seconds by actor."""
    return {path: [seconds for seconds, _ in found] for path, found in patrol.look(now).items()}


def test_named_after_a_period_and_at_every_doubling() -> None:
    """A handler is named when it was there a whole period, then after twice, four times as long."""
    reader = busy()
    patrol = Patrol(10.0, lambda: [("tree/a", reader)])
    named = {now: seconds for now in range(0, 200, 10) for seconds in slow(patrol, now).get("tree/a", [])}
    assert named == {10: 10.0, 20: 20.0, 40: 40.0, 80: 80.0, 160: 160.0}


def test_another_message_begins_anew() -> None:
    """The message counts, not the reader that has it."""
    reader = busy()
    patrol = Patrol(10.0, lambda: [("tree/a", reader)])
    assert slow(patrol, 0) == {}
    reader.envelope = busy().envelope
    assert slow(patrol, 10) == {}
    assert slow(patrol, 20) == {"tree/a": [10.0]}


def test_what_has_ended_is_forgotten() -> None:
    """No message is kept alive by having been seen."""
    readers = [("tree/a", busy())]
    patrol = Patrol(10.0, lambda: readers)
    patrol.look(0)
    readers.clear()
    assert slow(patrol, 10) == {}
    assert patrol._seen == {}


def test_those_of_an_actor_come_together_the_slowest_first() -> None:
    """Several handlers of one actor are one entry."""
    readers = [("tree/a", busy()), ("tree/b", busy("b"))]
    patrol = Patrol(10.0, lambda: readers)
    patrol.look(0)
    readers.insert(0, ("tree/a", busy(seq=1)))
    assert slow(patrol, 5) == {}
    assert slow(patrol, 15) == {"tree/a": [15.0, 10.0], "tree/b": [15.0]}


@pytest.mark.rule("C3")
async def test_the_log_says_who_takes_long_and_on_whom_it_waits(
    stage: Any, caplog: pytest.LogCaptureFixture, autojump_clock: trio.abc.Clock
) -> None:
    """One line per actor, with how many handlers, the message, and what it waits on."""
    caplog.set_level(logging.WARNING, "tinker_actors.kernel")
    async with stage.open(slow_after=10.0) as tree:
        a = await stage.start(tree, "a")
        b = await stage.start(tree.start_supervisor("group"), "b", concurrency=2)

        async def ask_b(_: Any) -> Any:
            return await b.ask(stage.Do(stage.sleep(55)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.ask, stage.Do(ask_b))
            await trio.sleep(1)
            nursery.start_soon(b.ask, stage.Finish(stage.sleep(25)))
    assert [record.getMessage() for record in caplog.records] == [
        "tree/a: 1 handlers run for long; Do (#0) for more than 10 s, waiting on tree/group/b",
        "tree/group/b: 2 handlers run for long; Do (#0) for more than 10 s",
        "tree/a: 1 handlers run for long; Do (#0) for more than 20 s, waiting on tree/group/b",
        "tree/group/b: 2 handlers run for long; Do (#0) for more than 20 s",
        "tree/a: 1 handlers run for long; Do (#0) for more than 40 s, waiting on tree/group/b",
        "tree/group/b: 1 handlers run for long; Do (#0) for more than 40 s",
    ]


async def test_quick_handlers_are_never_named(
    stage: Any, caplog: pytest.LogCaptureFixture, autojump_clock: trio.abc.Clock
) -> None:
    """Many messages that are each quick are no slow one; and with `inf` nobody looks at all."""
    caplog.set_level(logging.WARNING, "tinker_actors.kernel")
    async with stage.open(slow_after=10.0) as tree:
        ref = await stage.start(tree)
        for _ in range(20):
            await ref.ask(stage.Do(stage.sleep(4)))
    async with stage.open(slow_after=math.inf) as tree:
        ref = await stage.start(tree)
        await ref.ask(stage.Do(stage.sleep(1000)))
    assert caplog.records == []
