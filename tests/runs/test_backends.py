"""A run that is opened on another service than the one it was on, or on one that has lost what it had."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from tests.actors.scripted import MODES, steps
from tests.runs.loop import Left, Loop, opened
from tests.runs.world import Wire, World
from tinker_actors import Run, RunStep
from tinker_actors.errors import APIConnectionError, ModelPoisoned, RunMismatch
from tinker_actors.journal.looking import RunSeen, look_at
from tinker_actors.testing import ScriptedService, ServiceFaults

NOBODY = "http://127.0.0.1:1"
"""A port that nobody listens on."""


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Make a service that remembers what it was sent."""
    return World(ScriptedService(dialect=MODES["replay"]), tmp_path / "r")


def another(world: World, backend: str = "http://other", **changes: Any) -> World:
    """Return the same run on another service, which has nothing."""
    service = ScriptedService(dialect=MODES["replay"])
    return attrs.evolve(world, service=service, backend=backend, **changes)


def kept(folder: Path) -> tuple[Any, ...]:
    """Return what must not have changed: what is known of the checkpoints, and where the run is."""
    seen: RunSeen = look_at(folder)
    return seen.facts.get("backend"), [(one.name, one.state) for one in seen.checkpoints], seen.steps


async def leave(run: Run, step: RunStep) -> None:
    """Leave the loop."""
    raise Left


async def test_another_backend_is_refused_by_name(autojump_clock: Any, tmp_path: Path) -> None:
    """Before anything is asked of it, and the run is as it was."""
    with pytest.raises(Left):
        await Loop(tmp_path).live(2, leave)
    before = kept(tmp_path)
    assert before[0] == "local"
    with pytest.raises(RunMismatch, match=r"backend was 'local' and is 'http://127.0.0.1:1'") as caught:
        async with opened(tmp_path, backend=NOBODY):
            pass
    assert caught.value.fields == {"backend": ("local", NOBODY)}
    assert kept(tmp_path) == before
    assert (await Loop(tmp_path).live()).step == 2


async def test_a_backend_that_does_not_answer_is_not_noted(autojump_clock: Any, world: World) -> None:
    """Neither by a new run nor by one that was somewhere else, whatever was accepted."""
    dead = Wire(world.service)
    dead.dead = True
    with pytest.raises(APIConnectionError):
        async with world.process(dead):
            pytest.fail("it was opened")
    assert kept(world.folder) == (None, [], 0)
    await world.live(1, killed=False)
    before = kept(world.folder)
    with trio.move_on_after(60):  # it is waited for
        async with another(world, accept=["backend"]).process(dead):
            pytest.fail("it was opened")
    assert kept(world.folder) == before


async def test_a_service_may_have_moved(autojump_clock: Any, world: World) -> None:
    """If that is accepted, its model is made again from the newest checkpoint, and where it is now is noted."""
    await world.live(3, killed=True, save_at=[2])
    moved = attrs.evolve(world, backend="http://moved", accept=["backend"])
    point = await moved.live(5, killed=False)
    assert (point.how, point.step, point.replayed) == ("restored", 3, 1)
    assert "another backend" in point.why
    assert moved.trained == steps(0, 1, 2, 3, 4)
    assert kept(world.folder)[0] == "http://moved"
    assert (await attrs.evolve(moved, accept=()).live(5, killed=False)).step == 5


async def test_what_another_service_lacks_is_not_gone(autojump_clock: Any, world: World) -> None:
    """The run is not opened there, though it was accepted; where it was it goes on as if nothing had been."""
    await world.live(3, killed=True, save_at=[1, 2])
    before = kept(world.folder)
    with pytest.raises(RunMismatch, match=r"does not have checkpoint .*r-000002 of the run") as caught:
        await another(world, accept=["backend"]).live(5, killed=False)
    assert caught.value.fields == {"backend": ("http://scripted", "http://other")}
    assert kept(world.folder) == before
    point = await world.live(5, killed=False)
    assert point.step == 3
    assert world.trained == steps(0, 1, 2, 3, 4)


async def test_what_cannot_be_loaded_elsewhere_is_not_gone(autojump_clock: Any, world: World) -> None:
    """A service that cannot be asked for checkpoints refuses to load one: the run is not opened, and is as it was."""
    await world.live(3, killed=True, save_at=[1, 2])
    before = kept(world.folder)
    other = another(world, accept=["backend"])
    faults = ServiceFaults()
    for nth in range(1, 40):  # with all attempts
        faults = faults.refuse(500, of="weights_info", nth=nth)
    other.service = ScriptedService(faults, dialect=MODES["replay"])
    with pytest.raises(ModelPoisoned):
        await other.live(5, killed=False)
    assert kept(world.folder) == before
    await world.live(5, killed=False)
    assert world.trained == steps(0, 1, 2, 3, 4)


async def test_who_lacks_all_checkpoints_makes_none_gone(
    autojump_clock: Any, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """An empty service under the old address is hardly the one that the run was on."""
    await world.live(4, killed=True, save_at=[1, 2, 3])
    before = kept(world.folder)
    with (
        caplog.at_level(logging.WARNING, "tinker_actors.runs"),
        pytest.raises(ModelPoisoned, match="r-000003"),
    ):
        await another(world, world.backend).live(5, killed=False)
    assert "none of the run's checkpoints" in caplog.text
    assert kept(world.folder) == before
    await world.live(5, killed=False)
    assert world.trained == steps(0, 1, 2, 3, 4)


async def test_a_run_that_holds_all_its_steps_begins_anew(autojump_clock: Any, world: World) -> None:
    """As long as two checkpoints were not verified, a service that has lost everything costs time alone."""
    await world.live(3, killed=True)
    empty = another(world, world.backend)
    point = await empty.live(5, killed=False)
    assert (point.how, point.checkpoint, point.replayed) == ("restored", None, 3)
    assert empty.trained == steps(0, 1, 2, 3, 4)
