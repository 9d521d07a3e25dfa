"""Opening a run while its service is not there."""

from __future__ import annotations

import logging
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import trio

import tinker_actors as ta
from tests.actors.scripted import MODES, steps
from tests.runs.loop import ADAM, MODEL, batch, opened
from tests.runs.world import Wire, World
from tinker_actors.errors import APIConnectionError
from tinker_actors.journal.looking import look_at
from tinker_actors.testing import ScriptedService

ROOT = Path(__file__).parents[2]
NOBODY = "http://127.0.0.1:9"
"""A port that nobody listens on."""


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Make a service that remembers what it was sent."""
    return World(ScriptedService(dialect=MODES["replay"]), tmp_path / "r")


def dead(world: World) -> Wire:
    """Return a way to the service that leads nowhere."""
    wire = Wire(world.service)
    wire.dead = True
    return wire


async def test_a_fresh_run_fails_as_open_service(autojump_clock: Any, world: World) -> None:
    """Each time, within seconds; when the service is there it begins."""
    for _ in range(2):
        began = trio.current_time()
        with pytest.raises(APIConnectionError, match=r"client_config: .*cannot connect"):
            async with world.process(dead(world)):
                pytest.fail("it was opened")
        assert trio.current_time() - began < 30
    point = await world.live(2, killed=False)
    assert (point.how, point.step) == ("fresh", 0)
    assert world.trained == steps(0, 1)


@pytest.mark.slow
async def test_open_run_says_which_service_is_absent(tmp_path: Path) -> None:
    """By the error, which names it; nothing is decided, and the directory can be opened elsewhere."""
    with pytest.raises(APIConnectionError, match=re.escape(NOBODY)):
        async with ta.open_run(
            tmp_path / "r", base_model="m", base_url=NOBODY, api_key="tml-x", signals=False
        ):
            pytest.fail("it was opened")
    assert look_at(tmp_path / "r").steps == 0


async def test_a_run_that_goes_on_waits_for_its_service(
    autojump_clock: Any, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Longer than any actor's start may take; the log says what for, and that this may last."""
    await world.live(2, killed=True)
    caplog.clear()
    wire = dead(world)

    async def restart_service() -> None:
        await trio.sleep(5000)
        wire.dead = False

    with caplog.at_level(logging.WARNING, "tinker_actors.service"):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(restart_service)
            async with world.process(wire) as run:
                assert trio.current_time() > 5000
                assert run.decided == 2
    said = caplog.text
    assert "http://scripted cannot be reached; the work waits for it, however long that takes" in said
    assert re.search(r"http://scripted can be reached again, after 50\d\d s", said)
    await world.live(3, killed=False)
    assert world.trained == steps(0, 1, 2)


async def test_outage_timeout_ends_that(
    autojump_clock: Any, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """With what it met, also behind the time that other actors have to start; the log says when."""
    await world.live(2, killed=True)
    world.settings = {"outage_timeout": 1200.0}
    began = trio.current_time()
    with pytest.raises(APIConnectionError):
        async with world.process(dead(world)):
            pytest.fail("it was opened")
    assert 1200 <= trio.current_time() - began < 1300
    assert "the work waits for it, 1200 s at most" in caplog.text
    world.settings = {}
    assert (await world.live(3, killed=False)).step == 2


PROGRAM = """
import signal
import sys
import trio
import tinker_actors as ta

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what is in the background without

async def main():
    async with ta.open_run(
        sys.argv[1], base_model=sys.argv[2], rank=2, base_url=sys.argv[3], api_key="tml-x", accept=["backend"]
    ):
        print("open")

trio.run(main)
"""


async def train_one(folder: Path) -> None:
    """Train a run of one step."""
    async with opened(folder, accept=["backend"]) as run:
        async for step in run.steps(1):
            await step.train(batch(0), "cross_entropy", ADAM, after=None)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_waiting(tmp_path: Path, number: signal.Signals) -> None:
    """The first one does, for there is no step to finish; the run can be opened as before."""
    folder = tmp_path / "r"
    trio.run(train_one, folder)
    command = [sys.executable, "-c", PROGRAM, str(folder), MODEL, NOBODY]
    for _ in range(2):
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if "the work waits for it" in line:
                    break
            began = time.monotonic()
            process.send_signal(number)
            try:
                process.communicate(timeout=20)
            finally:
                process.kill()
            assert process.returncode == -number
            assert time.monotonic() - began < 10
    trio.run(train_one, folder)
    assert look_at(folder).steps == 1
