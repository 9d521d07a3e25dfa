"""Real numbers: whether an optimizer came along is told by a step that is taken without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from tests.runs.loop import ADAM, batch, embedded, opened
from tinker_actors.events import OptimizerUnverified, RestoreMismatchFound, RestoreVerified
from tinker_actors.local import operation


async def train(run: Any, until: int) -> None:
    """Train steps to their end."""
    async for step in run.steps(until):
        await (await step.train(batch(step.index), "cross_entropy", ADAM, after={}))


@pytest.mark.parametrize("loses", [False, True])
async def test_a_run_finds_out_at_its_next_steps(
    autojump_clock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loses: bool
) -> None:
    """The model is lost right behind a checkpoint; a service that then loads the weights alone is found out."""
    service, load = embedded(tmp_path), operation._load
    newest = ""

    def weights_alone(engine: Any, worker: Any, path: Any, *, optimizer: bool) -> None:
        load(engine, worker, path, optimizer=optimizer and str(path) != newest)

    kinds = OptimizerUnverified, RestoreVerified, RestoreMismatchFound
    async with opened(tmp_path, embedded=service) as run, run.service.ref.subscribe(*kinds) as events:
        await train(run, 3)
        await run.checkpoint()
        await train(run, 6)
        await run.checkpoint()
        path = run.checkpoints[-1].path
        assert path is not None
        if loses:
            newest = path
            monkeypatch.setattr(operation, "_load", weights_alone)
        service.drop_model(run.training.model_id)
        await train(run, 8)
        await trio.sleep(60.0)
        await train(run, 9)
        assert isinstance(events.receive_nowait(), OptimizerUnverified)
        said = events.receive_nowait()
        if loses:
            assert isinstance(said, RestoreMismatchFound)
            assert (said.lost, said.checkpoint) == ("optimizer", path)
            said = events.receive_nowait()
        assert isinstance(said, RestoreVerified)
        assert (said.checkpoint == path) is not loses
        assert service.statistics().models == 1
