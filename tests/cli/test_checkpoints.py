"""A run's checkpoints from the command line: shown while it is trained, collected when it is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner, Result

import tinker_actors as ta
from tests.runs.loop import ADAM, batch, opened
from tinker_actors.cli.checkpoints import checkpoints, gc
from tinker_actors.errors import ConfigError, JournalError, RunLocked, RunMismatch


def call(command: Any, *arguments: str) -> Result:
    """Run a command, here."""
    return CliRunner().invoke(command, arguments, catch_exceptions=False)


async def save(folder: Path, metrics: list[float]) -> None:
    """Train a step for each metric, and save a checkpoint of it."""
    async with opened(folder, backend="local", retention=ta.Retention(ttl_seconds=None)) as run:
        for step, metric in enumerate(metrics, 1):
            async for one in run.steps(step):
                await one.train(batch(one.index), "cross_entropy", ADAM, after=None)
            await run.checkpoint(metric=metric)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a run with five checkpoints."""
    trio.run(save, tmp_path / "r", [0.1, 0.9, 0.3, 0.2])
    return tmp_path / "r"


def test_they_are_shown(folder: Path) -> None:
    """As a table, or as JSON for other programs."""
    lines = call(checkpoints, str(folder)).stdout.splitlines()
    assert lines[0] == "4 steps decided, opened 1 times"
    assert lines[1].split() == ["name", "step", "state", "metric", "path"]
    assert [line.split()[:4] for line in lines[3:]] == [
        ["r-000001", "1", "verified", "0.1"],
        ["r-000002", "2", "verified", "0.9"],
        ["r-000003", "3", "verified", "0.3"],
        ["r-000004", "4", "verified", "0.2"],
    ]
    rows = [json.loads(line) for line in call(checkpoints, str(folder), "--json").stdout.splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4]
    assert rows[4]["path"].endswith("/weights/r-000004")


def test_garbage_is_collected(folder: Path) -> None:
    """A dry run changes nothing; then it is gone, here and on the service, and the run goes on."""
    dry = call(gc, str(folder), "--dry-run", "--best", "1").stdout.splitlines()
    assert [line.split()[:3] for line in dry[:2]] == [
        ["would", "delete", "r-000000"],
        ["would", "delete", "r-000001"],
    ]
    assert dry[2:] == ["kept r-000003  newest", "kept r-000004  newest", "kept r-000002  best 1"]
    done = json.loads(call(gc, str(folder), "--best", "1", "--json").stdout)
    assert done == {
        "dry_run": False,
        "deleted": ["r-000000", "r-000001"],
        "kept": {"r-000003": "newest", "r-000004": "newest", "r-000002": "best 1"},
        "failed": {},
    }
    assert json.loads(call(gc, str(folder), "--best", "1", "--json").stdout)["deleted"] == []
    trio.run(save, folder, [0.5] * 5)
    assert "r-000005" in call(checkpoints, str(folder)).stdout


def test_a_run_that_is_open_is_shown_and_left_alone(tmp_path: Path) -> None:
    """Whoever looks does not disturb it; whoever would delete is refused."""

    async def main() -> None:
        async with opened(tmp_path / "r", backend="local") as run:
            async for step in run.steps(2):
                await step.train(batch(step.index), "cross_entropy", ADAM, after=None)
                shown = await trio.to_thread.run_sync(call, checkpoints, str(tmp_path / "r"))
                assert shown.stdout.startswith(f"{step.index + 1} steps decided")
            with pytest.raises(RunLocked):
                await trio.to_thread.run_sync(call, gc, str(tmp_path / "r"))

    trio.run(main)


def test_a_directory_without_a_run_is_refused(tmp_path: Path) -> None:
    """And nothing is made in it."""
    for command in (checkpoints, gc):
        with pytest.raises(JournalError, match="there is no run in"):
            call(command, str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_run_whose_service_is_not_known_wants_to_be_told(tmp_path: Path) -> None:
    """It was made by something else than open_run."""
    from tinker_actors.journal.opening import open_journal

    open_journal(tmp_path / "r", inline=True).close()
    with pytest.raises(ConfigError, match="--backend"):
        call(gc, str(tmp_path / "r"))


def test_another_service_is_not_asked_for_them(folder: Path) -> None:
    """What it lacks is not gone: the run has to be opened there first."""
    before = call(checkpoints, str(folder)).stdout.splitlines()
    with pytest.raises(RunMismatch, match=r"backend was 'local' and is 'http://127.0.0.1:1'"):
        call(gc, str(folder), "--backend", "http://127.0.0.1:1")
    assert call(checkpoints, str(folder)).stdout.splitlines()[1:] == before[1:]
