"""A loop for tests of runs: it trains on batches that depend on the step alone, and can be left anywhere."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import attrs
import trio

import tinker_actors as ta
from tinker_actors.local.service import EmbeddedService
from tinker_actors.local.store import CheckpointPath, CheckpointStore

MODEL = "tinker-actors/char-100k"
ADAM = ta.AdamParams(learning_rate=1e-2)
NEVER = ta.CheckpointPolicy(steps=None, seconds=None)
QUIET: dict[str, Any] = {"heartbeat": "loop", "telemetry": False, "signals": False}


def batch(step: int) -> list[ta.Datum]:
    """Make the batch of a step."""
    rng = random.Random(step)
    data = []
    for _ in range(2):
        tokens = [rng.randrange(5, 90) for _ in range(6)]
        inputs = {"target_tokens": tokens[1:], "weights": [1.0] * 5}
        data.append(ta.Datum(ta.ModelInput.from_ints(tokens[:-1]), inputs))
    return data


def embedded(folder: Path) -> EmbeddedService:
    """Make a service that computes in the loop, as virtual time needs it, and keeps its state in a directory."""
    return EmbeddedService(state=folder / "service", compute="inline", seed=1)


@contextlib.asynccontextmanager
async def opened(folder: Path, **arguments: Any) -> AsyncIterator[ta.Run]:
    """Open a run on an embedded service of its own."""
    arguments = {"base_model": MODEL, "rank": 2, "seed": 5, "checkpoints": NEVER} | QUIET | arguments
    if "backend" not in arguments and "embedded" not in arguments:
        arguments["embedded"] = embedded(folder)
    async with ta.open_run(folder, **arguments) as run:
        yield run


class Left(Exception):
    """The loop was left in the middle."""


@attrs.define(eq=False)
class Loop:
    """Trains a run to its end.

    Attributes:
        folder: of the run.
        total: how many steps it has.
        arguments: for `open_run`.
        seen: the steps whose body began, in all its lives.
    """

    folder: Path
    total: int = 6
    arguments: dict[str, Any] = attrs.field(factory=dict[str, Any])
    seen: list[int] = attrs.field(factory=list[int])

    async def live(
        self, at: int = -1, leave: Callable[[ta.Run, ta.RunStep], Any] | None = None
    ) -> ta.ResumePoint:
        """Train until the end, or call `leave` in the body of a step."""
        async with opened(self.folder, **self.arguments) as run:
            assert run.loop_state == (None if run.decided == 0 else {"next": run.decided})
            async for step in run.steps(self.total):
                self.seen.append(step.index)
                if step.index == at and leave is not None:
                    await leave(run, step)
                if not step.decided:
                    await step.train(batch(step.index), "cross_entropy", ADAM, after={"next": step.index + 1})
            return run.resumed

    def weights(self) -> dict[str, bytes]:
        """Return weights and optimizer of the newest checkpoint."""
        return weights_of(self.folder)


def weights_of(folder: Path) -> dict[str, bytes]:
    """Return weights and optimizer of the checkpoint that was saved last, whatever it is called."""
    store = CheckpointStore(folder / "service")
    newest = max(store.kept(0.0), key=lambda kept: str(kept.path).rpartition("-")[2])
    files = store.load(CheckpointPath.parse(str(newest.path)), 0.0)
    return {name: content for name, content in files.items() if name.endswith("safetensors")}


async def settle(seconds: float = 1.0) -> None:
    """Let everything happen that is under way."""
    await trio.sleep(seconds)
