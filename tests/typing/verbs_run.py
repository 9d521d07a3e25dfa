"""What a run and its steps give; checked, never run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_type

import tinker_actors as ta
from tinker_actors.rl.losses import cross_entropy
from tinker_actors.runs.keeping import Collected
from tinker_actors.wire.codec import JsonValue


async def runs() -> None:
    """They are opened with everything that a service is, and more."""
    async with ta.open_run(
        "runs/a",
        base_model="b",
        rank=8,
        seed=1,
        loss="ppo",
        identity={"data": {"version": 3}},
        accept=["loss"],
        checkpoints=ta.CheckpointPolicy(steps=10, seconds=None, tokens=1_000_000),
        retention=ta.Retention(last=3, every=100, best=1, best_is="lowest", ttl_seconds=None),
        durability="machine",
        outage_timeout=60.0,
    ) as run:
        assert_type(run, ta.Run)
        assert_type(run.service, ta.ServiceClient)
        assert_type(run.training, ta.TrainingClient)
        assert_type(run.resumed, ta.ResumePoint)
        assert_type(run.loop_state, JsonValue)
        assert_type(run.decided, int)
        assert_type(run.draining, bool)
        run.drain("enough")


async def steps(run: ta.Run, data: Sequence[ta.Datum]) -> None:
    """They are decided when a verb returns; results are waited for."""
    async for step in run.steps(3, ahead=1):
        assert_type(step, ta.RunStep)
        done = await step.train(data, "ppo", ta.AdamParams(), after={"a": [1]}, groups=["g"])
        assert_type(done, ta.DecidedStep)
        assert_type(await done, ta.ForwardBackwardOutput)
        assert_type(done.forward, ta.Pending[ta.ForwardBackwardOutput])
        assert_type(done.optim, ta.Pending[ta.OptimStepResponse])
        assert_type(await step.forward_backward(data, "ppo"), ta.Pending[ta.ForwardBackwardOutput])
        custom = await step.forward_backward_custom(data, cross_entropy)
        assert_type(custom, ta.Pending[ta.ForwardBackwardOutput])
        assert_type(await step.optim_step(ta.AdamParams(), after=None), ta.Pending[ta.OptimStepResponse])
        await step.skip(after=None)


async def checkpoints(run: ta.Run) -> None:
    """They are values."""
    assert_type(await run.checkpoint(metric=0.5, pin=True), ta.RunCheckpoint)
    assert_type(run.checkpoints, tuple[ta.RunCheckpoint, ...])
    assert_type(run.pin("a", pinned=False), ta.RunCheckpoint)
    assert_type(run.rate("a", 1.0), ta.RunCheckpoint)
    assert_type(await run.gc(), Collected)
    assert_type(await run.gc(dry_run=False), Collected)
