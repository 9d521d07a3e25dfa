"""The run that is killed on other people's servers: a few steps by `open_run`, then a look at the weights.

`crash.py` starts it, again and again in the same folder. It prints one JSON object per line: how it goes on, each step
as it begins, and at last what the fixed probe looks like to the final weights, and to those before the last step.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path

import attrs
import trio

sys.path.insert(0, str(Path(__file__).parents[2]))  # the project's root

import tinker_actors as ta
from tests.contract.smoke import ADAM, RANK, batch

PROBE = 1_000_000  # number of a batch that is never trained
SAVE_EVERY = 4  # steps: so that most kills come some steps after a checkpoint


def tell(**what: object) -> None:
    """Tell the parent."""
    print(json.dumps(what), flush=True)


async def main(options: argparse.Namespace) -> None:
    """Train to the end, from wherever the run stands."""
    async with ta.open_run(
        options.folder / "run",
        base_model=options.base_model,
        rank=RANK,
        seed=7,
        backend=options.url,
        api_key=options.api_key,
        capability=options.capability,
        checkpoints=ta.CheckpointPolicy(steps=SAVE_EVERY),
        telemetry=False,
        outage_timeout=60.0,
    ) as run:
        tell(resumed=attrs.asdict(run.resumed))
        ahead = None
        before: list[float] = []
        async for step in run.steps(options.steps):
            tell(step=step.index)
            if step.index == options.steps - 1:
                before = await probe(run.training)
            decided = await step.train(
                batch(step.index), "cross_entropy", ADAM, after={"steps": step.index + 1}
            )
            if ahead is not None:  # one step is always under way while the next one is decided
                with contextlib.suppress(
                    ta.errors.ResultLost
                ):  # it counts; TuFT does not give its result again
                    await ahead
            ahead = decided
        logprobs = await probe(run.training)
        tell(model_id=run.training.model_id, state=run.loop_state, logprobs=logprobs, before=before)


async def probe(training: ta.TrainingClient) -> list[float]:
    """Return the log probabilities of a fixed batch to the weights as they are now."""
    output = await (await training.forward(batch(PROBE), "cross_entropy"))
    return [float(one) for datum in output.loss_fn_outputs for one in datum["logprobs"].to_numpy()]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--api-key")
    parser.add_argument("--base-model", required=True)
    parser.add_argument("--capability", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    trio.run(main, parser.parse_args())
