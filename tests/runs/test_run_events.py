"""What a run tells those who listen, and those who look at its directory."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from tests.runs.loop import ADAM, Left, Loop, batch, opened
from tinker_actors import CheckpointPolicy
from tinker_actors.errors import JournalError
from tinker_actors.events import CheckpointSaved, RunDraining, RunOpened, StepDecided, StepsLost
from tinker_actors.observe import FileBegun, read_events

KINDS = (RunOpened, StepDecided, CheckpointSaved, RunDraining)


def told(folder: Path) -> list[Any]:
    """Return what a run has told in its event file."""
    return [one.event for one in read_events(folder) if isinstance(one.event, KINDS)]


async def test_the_life_of_a_run_stands_in_its_event_file(autojump_clock: Any, tmp_path: Path) -> None:
    """How it came to where it goes on, each step once when it is decided, each checkpoint when it is verified."""
    loop = Loop(tmp_path, total=3, arguments={"checkpoints": CheckpointPolicy(steps=2, seconds=None)})

    async def leave(run: Any, step: Any) -> None:
        raise Left

    with pytest.raises(Left):
        await loop.live(2, leave)
    first = told(tmp_path)
    assert (first[0].how, first[0].step, first[0].incarnation) == ("fresh", 0, 1)
    assert [one for one in first if isinstance(one, StepDecided)] == [StepDecided(0), StepDecided(1)]
    await loop.live()
    second = told(tmp_path)[len(first) :]
    assert (second[0].run, second[0].step, second[0].incarnation) == (tmp_path.name, 2, 2)
    assert [one for one in second if isinstance(one, StepDecided)] == [StepDecided(2)]
    saved = [one for one in told(tmp_path) if isinstance(one, CheckpointSaved)]
    assert {one.step for one in saved} == {0, 2, 3}
    assert len(saved) == 3
    assert all(one.path.endswith(one.name) for one in saved)
    assert len([one for one in read_events(tmp_path) if isinstance(one.event, FileBegun)]) == 2


async def test_single_operations_and_skips_decide_as_well(autojump_clock: Any, tmp_path: Path) -> None:
    """And a drain is told with its reason, once."""
    async with opened(tmp_path) as run, run.service.ref.subscribe(StepDecided, RunDraining) as events:
        async for step in run.steps():
            if step.index == 0:
                await step.skip(after=None)
            else:
                await step.forward_backward(batch(1), "cross_entropy")
                await step.optim_step(ADAM, after=None)
                run.drain("it is good enough")
                run.drain("and again")
        seen = [events.receive_nowait() for _ in range(3)]
    assert seen == [StepDecided(0, skipped=True), StepDecided(1), RunDraining("it is good enough", 2)]


async def test_an_event_file_that_cannot_be_had_is_told_of(autojump_clock: Any, tmp_path: Path) -> None:
    """The run is not opened, and nothing is sent; it says which file it is."""
    (tmp_path / "events.jsonl").mkdir()
    with pytest.raises(JournalError, match=r"events\.jsonl cannot be used"):
        async with opened(tmp_path):
            pass
    (tmp_path / "events.jsonl").rmdir()
    async with opened(tmp_path) as run:
        assert run.resumed.how == "fresh"


async def test_steps_that_are_lost_with_the_machine_are_told(
    autojump_clock: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By an event, in the log and in `resumed`; the loop takes them once more."""

    async def leave(run: Any, step: Any) -> None:
        raise Left

    loop = Loop(tmp_path, total=4)
    with pytest.raises(Left):
        await loop.live(3, leave)
    segment = max((tmp_path / "bodies").glob("*.seg"))
    segment.write_bytes(segment.read_bytes()[:-10])
    with caplog.at_level(logging.WARNING, "tinker_actors.runs"):
        point = await loop.live()
    assert (point.step, point.lost) == (2, 1)
    assert "steps from 2 on were decided and are lost with the machine: 1" in caplog.text
    told_of = [one.event for one in read_events(tmp_path) if isinstance(one.event, StepsLost)]
    assert told_of == [StepsLost(2, 1)]
    assert loop.seen == [0, 1, 2, 3, 2, 3]
    assert (await loop.live()).lost == 0
