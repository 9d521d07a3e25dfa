"""The fixture `crash_points` and the option `--crash-points`, in a project of a user's."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tinker_actors.testing.crash import Ended

USER_TESTS = """
from tinker_actors.testing.crash import Ended
from tinker_actors.types import AdamParams

def test_loop(crash_points):
    async def program(life):
        async with life.open_service() as service:
            training = await service.create_lora_training_client("scripted/model")
            await (await training.optim_step(AdamParams(learning_rate=1e-3)))
            life.files.replace("done", b"1")
            return Ended(training.model_id)

    report = crash_points.explore_lives(program, sample=5)
    print("tried", report.schedules, "of", len(report.points))
"""


@pytest.mark.slow
@pytest.mark.parametrize("option", [[], ["--crash-points"]])
def test_the_option_makes_explorations_thorough(option: list[str], tmp_path: Path) -> None:
    """Without it a few points are drawn, with it every one is tried; there is nothing to set up."""
    (tmp_path / "test_user.py").write_text(USER_TESTS, "utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", "utf-8")
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "-s", *option]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    match = re.search(r"tried (\d+) of (\d+)", done.stdout)
    assert match is not None
    tried, points = map(int, match.groups())
    assert tried == (points if option else 5)


def test_a_failing_exploration_fails_its_test(crash_points, pytestconfig) -> None:
    """The fixture checks by itself, so no test can forget to."""

    async def program(life) -> Ended:
        async with life.open_service() as service:
            return Ended((await service.create_lora_training_client("scripted/model")).model_id, life.number)

    assert crash_points.full == pytestconfig.getoption("--crash-points")
    with pytest.raises(AssertionError, match="the loop state is 2 instead of 1"):
        crash_points.explore_lives(program, sample=1)
