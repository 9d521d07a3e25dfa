"""A process that is killed in the middle of its run, and the next one that goes on."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.runs.loop import weights_of

ROOT = Path(__file__).parents[2]
PROGRAM = """
import os, signal, sys
from pathlib import Path
import trio
from tests.runs.loop import ADAM, MODEL, batch
import tinker_actors as ta

folder, at, moment = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]

def die(step, now):
    if (step, now) == (at, moment):
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    policy = ta.CheckpointPolicy(steps=3)
    async with ta.open_run(folder, base_model=MODEL, rank=2, seed=5, checkpoints=policy, backend="local") as run:
        assert run.loop_state == (None if run.decided == 0 else [run.decided])
        async for step in run.steps(8):
            die(step.index, "before")
            done = await step.train(batch(step.index), "cross_entropy", ADAM, after=[step.index + 1])
            die(step.index, "decided")
            await done
            die(step.index, "done")
        print(run.decided)

trio.run(main)
"""


def live(folder: Path, at: int = -1, moment: str = "") -> subprocess.CompletedProcess[str]:
    """Run a process on the run; it kills itself at a moment of a step."""
    command = [sys.executable, "-c", PROGRAM, str(folder), str(at), moment]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.slow
def test_a_run_whose_process_is_killed_ends_with_the_same_weights(
    tmp_path: Path, slow_count: Callable[[int], int]
) -> None:
    """Before a step is decided, behind that, and behind its result; state and weights are those of one process."""
    assert live(tmp_path / "whole").stdout == "8\n"
    parts = tmp_path / "parts"
    kills = [(6, "decided"), (2, "before"), (4, "decided"), (5, "done"), (0, "decided")][: slow_count(5)]
    for at, moment in sorted(kills):
        killed = live(parts, at, moment)
        assert killed.returncode == -9, killed.stderr
    last = live(parts)
    assert last.stdout == "8\n", last.stderr
    assert re.search(rf"run parts, opened for the {len(kills) + 1}\w\w time, goes on at step 7", last.stderr)
    assert weights_of(parts) == weights_of(tmp_path / "whole")
