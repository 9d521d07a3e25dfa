"""The run that `crash_and_resume.py` kills: it trains addition, in one of three ways to go on after a crash.

It is started in the same folder until it has its result. It prints one JSON object per line: each step as it begins,
and at last the hash of the weights and the state of the loop.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import random
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import trio

import tinker_actors as ta

if TYPE_CHECKING:
    from tinker_actors.text import Tokenizer

MODEL = "tinker-actors/char-100k"
RANK = 8
BATCH = 32
ADAM = ta.AdamParams(learning_rate=1e-2)
SAVE_EVERY = 10  # steps
ASK_EVERY = 5
QUESTIONS = 8


@dataclass
class Stream:
    """The batches, and what was made of them so far: the state of the loop.

    Attributes:
        seed: what problems are drawn by.
        batch: number of the next batch.
        asked: problems put to the model on the way.
        right: answers that were right.
    """

    seed: int
    batch: int = 0
    asked: int = 0
    right: int = 0

    @classmethod
    def restore(cls, state: object, seed: int) -> Stream:
        """Go on from a state; None is the beginning."""
        return cls(seed) if state is None else cls(**cast("Mapping[str, int]", state))

    def problems(self, kind: str, count: int) -> list[tuple[str, str]]:
        """Return prompts and answers for the next batch; the same whenever it is asked."""
        rng = random.Random(f"{kind} {self.seed} {self.batch}")
        pairs = [(rng.randrange(100), rng.randrange(100)) for _ in range(count)]
        return [(f"{left}+{right}=", f"{left + right}\n") for left, right in pairs]

    def next(self, tokenizer: Tokenizer) -> list[ta.Datum]:
        """Return the next batch."""
        data = [datum(*problem, tokenizer) for problem in self.problems("batch", BATCH)]
        self.batch += 1
        return data


def datum(prompt: str, answer: str, tokenizer: Tokenizer) -> ta.Datum:
    """Make a training example: only the answer is learned."""
    asked, right = tokenizer.encode(prompt), tokenizer.encode(answer)
    tokens = [*asked, *right]
    weights = [0.0] * (len(asked) - 1) + [1.0] * len(right)
    return ta.Datum(ta.ModelInput.from_ints(tokens[:-1]), {"target_tokens": tokens[1:], "weights": weights})


async def ask(training: ta.TrainingClient, stream: Stream, tokenizer: Tokenizer) -> None:
    """Put a few problems to the model as it is now, and count the right answers."""
    sampling = await training.save_weights_and_get_sampling_client()

    async def one(index: int, prompt: str, answer: str) -> None:
        tokens = ta.ModelInput.from_ints(tokenizer.encode(prompt))
        params = ta.SamplingParams(max_tokens=4, stop=["\n"], seed=stream.batch * QUESTIONS + index)
        reply = await sampling.sample(tokens, num_samples=1, sampling_params=params)
        stream.asked += 1
        stream.right += tokenizer.decode(reply.sequences[0].tokens) == answer

    async with trio.open_nursery() as nursery:
        for index, problem in enumerate(stream.problems("question", QUESTIONS)):
            nursery.start_soon(one, index, *problem)


async def weights_sha256(service: ta.ServiceClient, training: ta.TrainingClient, name: str) -> str:
    """Return the hash of the model's weights."""
    path = (await training.save_state(name)).path
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "weights.tar"
        await service.rest.download_checkpoint(path, archive)
        with tarfile.open(archive) as tar:
            member = tar.extractfile("adapter_model.safetensors")
            assert member is not None
            return hashlib.sha256(member.read()).hexdigest()


# ----------------------------------------------------------------------------------------------- three ways to go on


def tell(**what: object) -> None:
    """Tell the parent."""
    print(json.dumps(what), flush=True)


async def train_in_a_run(options: argparse.Namespace) -> None:
    """Train by `open_run`: it knows where to go on."""
    async with ta.open_run(
        options.folder / "run",
        base_model=MODEL,
        rank=RANK,
        seed=options.seed,
        backend=options.url,
        checkpoints=ta.CheckpointPolicy(steps=SAVE_EVERY),
        telemetry=False,
    ) as run:
        tell(went_on=run.resumed.how)
        tokenizer = await run.training.get_tokenizer()
        stream = Stream.restore(run.loop_state, options.seed)
        async for step in run.steps(options.steps):
            tell(step=step.index)
            if step.index % ASK_EVERY == 0:
                await ask(run.training, stream, tokenizer)
            await step.train(stream.next(tokenizer), "cross_entropy", ADAM, after=asdict(stream))
        await tell_result(run.service, run.training, Stream.restore(run.loop_state, options.seed), options)


async def train_from_checkpoints(options: argparse.Namespace) -> None:
    """Train by hand: the last line of `checkpoints.jsonl` says where to go on."""
    records = options.folder / "checkpoints.jsonl"
    # Without a journal: a lost model ends the process, as it would elsewhere.
    async with ta.open_service(options.url, telemetry=False, replay_bytes=0, grace=1.0) as service:
        record = last_record(records)
        training = (
            await service.create_lora_training_client(MODEL, rank=RANK, seed=options.seed)
            if record is None
            else await service.create_training_client_from_state_with_optimizer(record["path"])
        )
        stream = Stream.restore(None if record is None else record["stream"], options.seed)
        loop = _Loop(training, stream, await training.get_tokenizer(), records, options)
        await (loop.saves_at_boundaries() if options.way == "checkpoint" else loop.saves_when_it_finishes())
        await tell_result(service, training, stream, options)


class _Loop:
    """Two loops that save, and what they have in common."""

    def __init__(
        self,
        training: ta.TrainingClient,
        stream: Stream,
        tokenizer: Tokenizer,
        records: Path,
        options: argparse.Namespace,
    ) -> None:
        self._training = training
        self._stream = stream
        self._tokenizer = tokenizer
        self._records = records
        self._options = options

    async def saves_at_boundaries(self) -> None:
        """Wait for each step; save between two, and note which batch is next."""
        for step in range(self._stream.batch, self._options.steps):
            for pending in await self._submit(step):
                await pending
            if (step + 1) % SAVE_EVERY == 0:
                await self._save(step, asdict(self._stream))

    async def saves_when_it_finishes(self) -> None:
        """Keep one batch ahead; save when a batch is finished, and note which batch that was."""
        ahead: tuple[int, dict[str, int], Sequence[ta.Pending[Any]]] | None = None
        for step in range(self._stream.batch, self._options.steps):
            before = asdict(self._stream)
            submitted = step, before, await self._submit(step)
            if ahead is not None:
                await self._finish(*ahead)
            ahead = submitted
        if ahead is not None:
            await self._finish(*ahead)

    async def _finish(self, step: int, before: dict[str, int], pendings: Sequence[ta.Pending[Any]]) -> None:
        if step % SAVE_EVERY == 0 and step > 0:
            await self._save(step, before)
        for pending in pendings:
            await pending

    async def _submit(self, step: int) -> Sequence[ta.Pending[Any]]:
        tell(step=step)
        if step % ASK_EVERY == 0:
            await ask(self._training, self._stream, self._tokenizer)
        batch = self._stream.next(self._tokenizer)
        forward = await self._training.forward_backward(batch, "cross_entropy")
        return forward, await self._training.optim_step(ADAM)

    async def _save(self, step: int, stream: dict[str, int]) -> None:
        path = (await self._training.save_state(f"{step:06d}")).path
        with self._records.open("a", encoding="utf-8") as file:  # noqa: ASYNC230 - a line
            file.write(json.dumps({"path": path, "stream": stream}) + "\n")


def last_record(path: Path) -> dict[str, Any] | None:
    """Return the newest record that is whole."""
    for line in reversed(path.read_text(encoding="utf-8").splitlines() if path.exists() else []):
        with contextlib.suppress(json.JSONDecodeError):
            return dict(json.loads(line))
    return None


async def tell_result(
    service: ta.ServiceClient, training: ta.TrainingClient, stream: Stream, options: argparse.Namespace
) -> None:
    """Tell the parent how it ended."""
    sha256 = await weights_sha256(service, training, f"final-{options.start}")
    tell(sha256=sha256, model_id=training.model_id, stream=asdict(stream))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--way", required=True)
    parser.add_argument("--url", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument(
        "--start", type=int, required=True, help="how often it was started, this time included"
    )
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    chosen = parser.parse_args()
    trio.run(train_in_a_run if chosen.way == "open_run" else train_from_checkpoints, chosen)
