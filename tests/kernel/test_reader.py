"""The task that takes messages, as others see it."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from tinker_actors.kernel.reader import CURRENT_READER, Reader, waiting_on

PLACE: Any = SimpleNamespace(owner="tree/a")


def test_interrupting_cancels_the_handler_that_runs() -> None:
    """The scope is used up; a reader that has none yet only remembers it."""
    reader = Reader(PLACE, [])
    reader.interrupt("early")
    assert reader.interrupted

    async def main() -> None:
        reader = Reader(PLACE, [])
        with trio.CancelScope() as scope:
            reader.scope = scope
            reader.interrupt("now")
            await trio.sleep_forever()
        assert scope.cancelled_caught
        assert reader.interrupted

    trio.run(main)


def test_notes_of_waits_come_and_go() -> None:
    """Also when the wait ends in an error, and when one waits twice on the same place."""
    reader = Reader(PLACE, [])
    other: Any = SimpleNamespace(owner="tree/b")
    with (
        waiting_on(reader, PLACE),
        waiting_on(reader, other),
        pytest.raises(KeyError),
        waiting_on(reader, PLACE),
    ):
        assert reader.waits == [PLACE, other, PLACE]
        raise KeyError
    assert reader.waits == []


def test_nobody_reads_outside() -> None:
    """No reader is known in a task of the user's own."""
    assert CURRENT_READER.get() is None


def test_a_reader_can_be_collected() -> None:
    """It may be referred to weakly, and nothing keeps it."""
    reader = Reader(PLACE, [])
    gone = weakref.ref(reader)
    del reader
    gc.collect()
    assert gone() is None


async def test_each_task_knows_its_own_reader(stage: Any) -> None:
    """In a handler and the tasks of its nurseries it is the handler's; in a spawned task there is none."""
    found: dict[str, Any] = {}

    async def look(actor: Any) -> None:
        await trio.lowlevel.checkpoint()
        found["handler"] = CURRENT_READER.get()
        actor.context.spawn(note, "spawned")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(note, "nursery")

    async def note(name: str) -> None:
        await trio.lowlevel.checkpoint()
        found[name] = CURRENT_READER.get()

    async with stage.open() as tree:
        ref = await stage.start(tree)
        await ref.ask(stage.Do(look))
        await trio.testing.wait_all_tasks_blocked()
        assert CURRENT_READER.get() is None
    assert found["handler"] is not None
    assert found["nursery"] is found["handler"]
    assert found["spawned"] is None


@pytest.mark.rule("C1")
async def test_an_interrupted_reader_goes_on(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Message after message may be left by its caller; each one has a scope that is fresh."""
    async with stage.open() as tree:
        ref = await stage.start(tree)
        for number in range(5):
            with trio.move_on_after(1):
                await ref.ask(stage.Do(stage.sleep(100, number)))
            assert await ref.ask(stage.Do(stage.sleep(1, "full"))) == "full"
    assert [value for kind, value in stage.log if kind == "cancelled"] == list(range(5))
