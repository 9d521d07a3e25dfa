"""The example: it runs, its books balance, and each fault ends as the example says."""

from __future__ import annotations

import importlib.util
import json
import logging
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "scored_rollouts.py"


@pytest.fixture(scope="module")
def example() -> Iterator[ModuleType]:
    """Load the script as a module, and silence the kernel's log of what crashes on purpose."""
    spec = importlib.util.spec_from_file_location("scored_rollouts", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # attrs looks its classes up there
    spec.loader.exec_module(module)
    log = logging.getLogger("tinker_actors.kernel")
    before = log.level
    log.setLevel(logging.CRITICAL + 1)
    yield module
    log.setLevel(before)
    del sys.modules[spec.name]


def faults(example: ModuleType, groups: int, seed: int) -> Counter[str | None]:
    """Count what goes wrong with the rollouts that are played: those of "maze" end at the broken level."""
    played = {name: example.BROKEN_LEVEL if name == "maze" else groups for name in example.ENVIRONMENTS}
    return Counter(
        example.draw_fault(name, number, seed)
        for name, count in played.items()
        for number in range(count * example.GROUP)
    )


def test_it_runs_and_ends_with_json() -> None:
    """The script prints a table and, last, its counts; without `--log` it writes nothing to stderr."""
    command = [sys.executable, "-W", "error", str(SCRIPT), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    *shown, last = done.stdout.splitlines()
    assert any("maze" in line and "level 2 cannot be loaded" in line for line in shown)
    assert json.loads(last)["scored"] > 0


@pytest.mark.parametrize("seed", [0, 3])
async def test_every_rollout_ends_as_its_fault_says(
    example: ModuleType, autojump_clock: Any, seed: int
) -> None:
    """What breaks once is scored, what breaks always is given up as poison, what has no score has none."""
    report = await example.run(example.parse(["--seed", str(seed)]))
    fault = faults(example, 20, seed)
    assert min(fault[name] for name in example.FAULTS) > 0, "a seed that shows all of them"
    assert report.outcomes == {
        "scored": fault[None] + fault["breaks once"] + fault["no number"],
        "no score": fault["no score"],
        "given up": fault["breaks always"],
    }
    assert report.letters == {
        ("poison", "Score"): fault["breaks always"],
        ("crashed", "Enter"): fault["no number"],
        ("crashed", "Play"): 3,
    }


async def test_the_scoreboard_keeps_its_totals_across_crashes(
    example: ModuleType, autojump_clock: Any
) -> None:
    """Each score that is no number costs the scoreboard a life, and no other score."""
    report = await example.run(example.parse([]))
    fault = faults(example, 20, 0)
    assert report.scoreboard_lives == 1 + fault["no number"] > 1
    entered = sum(count for count, _ in report.totals.values())
    assert entered == report.outcomes["scored"] - fault["no number"]


async def test_one_environment_is_given_up_alone(example: ModuleType, autojump_clock: Any) -> None:
    """The referee is told of four ends: one failed, with its cause, and three in good order."""
    report = await example.run(example.parse(["--quick"]))
    ends = {end.path.rpartition("/")[2]: end for end in report.ends}
    assert {name: end.reason for name, end in ends.items()} == {
        "addition": "stopped",
        "chess": "stopped",
        "maze": "failed",
        "words": "stopped",
    }
    assert isinstance(ends["maze"].cause, OSError)


async def test_the_limiter_holds_all_judges_back(example: ModuleType, autojump_clock: Any) -> None:
    """Four judges never have more than two rollouts at the service."""
    report = await example.run(example.parse(["--quick"]))
    assert report.most_at_once == example.CONNECTIONS < example.JUDGES
