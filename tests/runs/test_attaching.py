"""A process that is gone without a word, a service that lives on, and the next process on the same model."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from tests.actors.scripted import ADAM, MODES, batch, steps
from tests.runs.world import Wire, World
from tinker_actors.errors import TinkerActorsError
from tinker_actors.testing import ScriptedService, ServiceFaults


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Make a service that remembers what it was sent."""
    return World(ScriptedService(dialect=MODES["replay"]), tmp_path / "r")


async def test_the_next_process_goes_on_with_the_same_model(autojump_clock: Any, world: World) -> None:
    """Nothing is sent twice, nothing is missing, and it says that it is attached."""
    await world.live(3, killed=True)
    model_id = world.model_id
    point = await world.live(5, killed=False)
    assert (point.how, point.step, point.replayed, point.why) == ("attached", 3, 0, "")
    assert world.model_id == model_id
    assert world.trained == steps(0, 1, 2, 3, 4)


async def test_after_too_long_a_gap_it_is_restored(autojump_clock: Any, world: World) -> None:
    """From checkpoint 0, with all that came after, and it says why."""
    await world.live(3, killed=True)
    world.gap = 90.0
    point = await world.live(5, killed=False)
    assert (point.how, point.step, point.replayed) == ("restored", 3, 3)
    assert point.checkpoint is not None
    assert point.checkpoint.endswith("r-000000")
    assert "stood still for longer" in point.why
    assert world.trained == steps(0, 1, 2, 3, 4)


async def test_behind_an_end_in_good_order_it_is_restored(autojump_clock: Any, world: World) -> None:
    """The model has given its slot back; the last checkpoint holds everything."""
    await world.live(3, killed=False)
    point = await world.live(5, killed=False)
    assert (point.how, point.replayed) == ("restored", 0)
    assert (point.checkpoint or "").endswith("r-000003")


async def test_a_save_that_fails_is_told_of_and_due_again(
    autojump_clock: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The run goes on, and the next step boundary saves what that one should have."""
    faults = ServiceFaults().fail(of="save_weights", nth=1).fail(of="save_weights", nth=2)
    world = World(ScriptedService(faults, dialect=MODES["replay"]), tmp_path / "r")
    wire = Wire(world.service)
    with caplog.at_level(logging.WARNING, "tinker_actors.runs"):
        async with world.process(wire) as run:
            async for step in run.steps(3):
                await (await step.train(batch(step.index), "cross_entropy", ADAM, after=step.index))
                if step.index == 1:
                    with pytest.raises(TinkerActorsError):
                        await run.checkpoint()
            assert (await run.checkpoint()).step == 3
            assert [one.step for one in run.checkpoints] == [3]
    assert caplog.text.count("was not saved") == 2
    assert world.trained == steps(0, 1, 2)


async def test_what_cannot_be_asked_for_is_not_gone(autojump_clock: Any, tmp_path: Path) -> None:
    """Who loads it will see: a service that does not answer about a checkpoint costs no checkpoint."""
    faults = ServiceFaults().refuse(500, of="weights_info")
    world = World(ScriptedService(faults, dialect=MODES["replay"]), tmp_path / "r")
    await world.live(3, killed=False)
    point = await world.live(4, killed=False)
    assert (point.checkpoint or "").endswith("r-000003")
    assert world.trained == steps(0, 1, 2, 3)


async def test_a_step_that_is_dropped_is_not_counted_as_sent_again(
    autojump_clock: Any, tmp_path: Path
) -> None:
    """A gradient that the service refuses when it is sent again takes its step with it."""
    faults = ServiceFaults().refuse(400, of="forward_backward", nth=4)  # the second of those sent again
    world = World(ScriptedService(faults, dialect=MODES["replay"]), tmp_path / "r", gap=90.0)
    await world.live(2, killed=True)
    point = await world.live(3, killed=False)
    assert (point.how, point.step, point.replayed) == ("restored", 2, 1)
    assert world.trained == steps(0, 2)
