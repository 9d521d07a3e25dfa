"""A saved state that could not be loaded this time, and one that is gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from tests.actors.scripted import MODES, steps
from tests.runs.world import World
from tinker_actors.errors import ModelPoisoned
from tinker_actors.journal.looking import look_at
from tinker_actors.testing import ScriptedService, ServiceFaults

TRIES = 4
"""How often one state is loaded before the one before it is."""


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Make a service that remembers what it was sent."""
    return World(ScriptedService(dialect=MODES["replay"]), tmp_path / "r")


def failing(count: int, text: str = "out of memory", category: str = "server") -> ServiceFaults:
    """Return a service's bad time: so many loads fail."""
    faults = ServiceFaults()
    for nth in range(1, count + 1):
        faults = faults.fail(of="load_weights", nth=nth, text=text, category=category)
    return faults


def states(world: World) -> dict[str, str]:
    """Return what is known of the checkpoints."""
    return {one.name: one.state for one in look_at(world.folder).checkpoints}


def loads(world: World) -> list[str]:
    """Return what was loaded, or was to be; what is loaded without its optimizer only checks another load."""
    requests = [one.body for one in world.service.requests if one.endpoint == "load_weights"]
    sent = [body["path"] for body in requests if body.get("optimizer")]
    return [path.rpartition("/")[2] for path in sent]


async def leave(world: World, faults: ServiceFaults) -> None:
    """Train three steps with two saved states, and be killed for so long that the next process restores."""
    world.service = ScriptedService(faults, dialect=MODES["replay"])
    await world.live(3, killed=True, save_at=[1, 2])
    world.gap = 1000.0


@pytest.mark.parametrize("count", [1, TRIES - 1])
async def test_a_load_that_fails_for_a_while_is_tried_again(
    autojump_clock: Any, world: World, count: int
) -> None:
    """After a second, two, four; the newest state is restored, and none is given up."""
    await leave(world, failing(count))
    began = trio.current_time()
    point = await world.live(4, killed=False)
    assert (point.how, point.replayed) == ("restored", 1)
    assert loads(world) == ["r-000002"] * (count + 1)
    assert trio.current_time() - began < 60
    assert "gone" not in states(world).values()
    assert world.trained == steps(0, 1, 2, 3)


async def test_one_that_fails_longer_is_left_out_by_this_process_alone(
    autojump_clock: Any, world: World
) -> None:
    """The one before it takes its place; the next process loads it as if nothing had been."""
    await leave(world, failing(TRIES))
    point = await world.live(4, killed=True)
    assert point.replayed == 2
    assert point.checkpoint.endswith("r-000001")
    assert loads(world) == ["r-000002"] * TRIES + ["r-000001"]
    assert "gone" not in states(world).values()
    point = await world.live(5, killed=False)
    assert point.replayed == 2
    assert point.checkpoint.endswith("r-000002")
    assert world.trained == steps(0, 1, 2, 3, 4)


@pytest.mark.parametrize(
    ("text", "category"), [("checkpoint r-000002 not found", "unknown"), ("not for this rank", "user")]
)
async def test_one_that_is_gone_is_not_tried_again(
    autojump_clock: Any, world: World, text: str, category: str
) -> None:
    """Where the service says that it is not there, or not to be loaded, that is for good."""
    world.service = ScriptedService(failing(1, text, category), dialect=MODES["replay"])
    await world.live(3, killed=True, save_at=[1, 2])
    world.gap = 1000.0
    await world.live(4, killed=False)
    assert loads(world) == ["r-000002", "r-000001"]
    assert states(world)["r-000002"] == "gone"
    assert world.trained == steps(0, 1, 2, 3)


async def test_where_nothing_is_loaded_the_run_stays_as_it_was(autojump_clock: Any, world: World) -> None:
    """The model is given up after five restores in a row, no state is, and another process goes on."""
    await leave(world, failing(6))
    with pytest.raises(ModelPoisoned, match="out of memory"):
        await world.live(4, killed=False)
    assert loads(world) == ["r-000002"] * TRIES + ["r-000001"] * 2
    assert "gone" not in states(world).values()
    await world.live(4, killed=False)
    assert world.trained == steps(0, 1, 2, 3)


async def test_what_is_left_out_is_kept_in_order_through_later_checkpoints(
    autojump_clock: Any, world: World
) -> None:
    """States that are saved and verified after it leave a line that every process can restore from."""
    await leave(world, failing(TRIES))
    await world.live(6, killed=True, save_at=[4, 5])
    point = await world.live(8, killed=False, save_at=[7])
    assert point.checkpoint.endswith("r-000005")
    assert world.trained == steps(*range(8))
