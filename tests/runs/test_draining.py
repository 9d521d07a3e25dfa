"""The first signal lets a run end in good order, the second cancels it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.runs.loop import ADAM, batch, opened
from tinker_actors import Run


def kill(number: signal.Signals) -> None:
    """Send this process a signal."""
    os.kill(os.getpid(), number)


async def train(run: Run, total: int, at: int, number: signal.Signals, times: int = 1) -> list[int]:
    """Train; in the middle of a step the signal comes."""
    seen = []
    async for step in run.steps(total):
        seen.append(step.index)
        if step.index == at:
            for _ in range(times):
                kill(number)
                await trio.sleep(1)
        await step.train(batch(step.index), "cross_entropy", ADAM, after=step.index)
    return seen


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_first_signal_ends_the_run_behind_this_step(
    autojump_clock: Any, tmp_path: Path, number: signal.Signals
) -> None:
    """The step is finished, a checkpoint holds it, and the program goes on behind the run."""
    async with opened(tmp_path, signals=True) as run:
        assert await train(run, 9, 2, number) == [0, 1, 2]
        assert run.draining
    async with opened(tmp_path) as run:
        assert run.decided == 3
        assert run.checkpoints[-1].step == 3
        assert run.resumed.replayed == 0


@pytest.mark.parametrize(
    ("number", "leaves"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
async def test_the_second_one_cancels_it(
    autojump_clock: Any,
    tmp_path: Path,
    number: signal.Signals,
    leaves: type[BaseException],
) -> None:
    """The program ends as it would have by the signal; nothing of the step is decided."""
    with pytest.raises(leaves) as caught:
        async with opened(tmp_path, signals=True) as run:
            await train(run, 9, 2, number, times=2)
    if isinstance(caught.value, SystemExit):
        assert caught.value.code == 128 + signal.SIGTERM
    async with opened(tmp_path) as run:
        assert run.decided == 2


async def test_a_program_may_drain_its_run_itself(autojump_clock: Any, tmp_path: Path) -> None:
    """As a signal does."""
    async with opened(tmp_path) as run:
        async for step in run.steps():
            await step.train(batch(step.index), "cross_entropy", ADAM, after=step.index)
            if step.index == 3:
                run.drain("it is good enough")
                run.drain("and again")
        assert run.decided == 4
        assert run.draining


async def test_signals_are_left_alone_outside_the_main_thread(tmp_path: Path) -> None:
    """Where none arrive."""

    async def main() -> int:
        async with opened(tmp_path, signals=True) as run:
            async for step in run.steps(1):
                await step.skip(after=None)
            return run.decided

    assert await trio.to_thread.run_sync(trio.run, main) == 1
