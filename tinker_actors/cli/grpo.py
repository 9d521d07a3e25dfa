"""The main job: GRPO on addition, through the actors.

Each step samples groups of answers from the latest published weights, centres the rewards of each group, puts a
gradient and an optimizer step in line, and publishes the new weights. Every `checkpoint_every` steps the state
is saved. Nothing here knows about failures: the actors restore a lost model by themselves.
"""

from __future__ import annotations

import hashlib
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import attrs
import trio

from tinker_actors.actors.sampling_client import SamplingClient
from tinker_actors.actors.service_client import ServiceClient
from tinker_actors.actors.training_client import TrainingClient
from tinker_actors.cli.addition import STOP, Problem, centred, datum, problems, reward, sample_seed
from tinker_actors.errors import NotFoundError
from tinker_actors.text.tokenizer import Tokenizer
from tinker_actors.types import AdamParams, Datum, LossFnType, ModelInput, SamplingParams

__all__ = ["Plan", "StepReport", "train", "weights_sha256"]

_ADAPTER = "adapter_model.safetensors"


@attrs.frozen(kw_only=True)
class Plan:
    """What is trained, and how.

    Attributes:
        base_model: the model that is adapted.
        rank: rank of the adapters.
        seed: makes everything repeatable.
        steps: optimizer steps.
        groups: problems per step.
        group_size: answers per problem.
        max_tokens: longest answer.
        learning_rate: of Adam.
        loss_fn: the loss.
        checkpoint_every: steps between saved states.
    """

    base_model: str = "tinker-actors/char-100k"
    rank: int = 8
    seed: int = 0
    steps: int = 300
    groups: int = 16
    group_size: int = 8
    max_tokens: int = 5
    learning_rate: float = 1.5e-3
    loss_fn: LossFnType = "importance_sampling"
    checkpoint_every: int = 10


@attrs.frozen
class StepReport:
    """What one step brought.

    Attributes:
        step: counts from 1.
        reward: mean over all answers.
        samples: answers drawn.
        version: version of the weights they were drawn from.
        saved: where the state was saved after this step, if it was.
    """

    step: int
    reward: float
    samples: int
    version: int
    saved: str | None


@attrs.frozen
class _Group:
    """The answers to one problem."""

    rewards: list[float]
    data: list[Datum]


async def train(service: ServiceClient, plan: Plan, report: Callable[[StepReport], None]) -> TrainingClient:
    """Train, telling `report` after each step; return the client of the trained model."""
    training = await service.create_lora_training_client(plan.base_model, plan.rank, plan.seed)
    tokenizer = await training.get_tokenizer()
    sampling = await training.save_weights_and_get_sampling_client()
    adam = AdamParams(learning_rate=plan.learning_rate)
    for step in range(1, plan.steps + 1):
        groups = await _sample_groups(sampling, tokenizer, plan, step)
        batch = _with_signal(groups)
        forward = await training.forward_backward(batch, plan.loss_fn)
        optim = await training.optim_step(adam)
        version = sampling.version
        sampling = await training.save_weights_and_get_sampling_client()
        saved = None
        if step % plan.checkpoint_every == 0:
            saved = (await training.save_state(f"step-{step}")).path
        await forward
        await optim
        rewards = [value for group in groups for value in group.rewards]
        report(StepReport(step, sum(rewards) / len(rewards), len(rewards), version, saved))
    return training


def _with_signal(groups: list[_Group]) -> list[Datum]:
    """Return the examples of groups whose answers differ in reward; of all of them if there is none.

    Where all answers are right, or all wrong, every advantage is zero and so is the gradient.
    """
    mixed = [group for group in groups if len(set(group.rewards)) > 1]
    return [one for group in mixed or groups for one in group.data]


async def _sample_groups(
    sampling: SamplingClient, tokenizer: Tokenizer, plan: Plan, step: int
) -> list[_Group]:
    asked = problems(plan.seed, step, plan.groups)
    groups: list[_Group | None] = [None] * len(asked)

    async def sample(index: int, problem: Problem) -> None:
        seed = sample_seed(plan.seed, step, index)
        groups[index] = await _sample_group(sampling, tokenizer, plan, problem, seed)

    async with trio.open_nursery() as nursery:
        for index, problem in enumerate(asked):
            nursery.start_soon(sample, index, problem)
    return [group for group in groups if group is not None]


async def _sample_group(
    sampling: SamplingClient, tokenizer: Tokenizer, plan: Plan, problem: Problem, seed: int
) -> _Group:
    prompt: list[int] = tokenizer.encode(problem.prompt)
    params = SamplingParams(max_tokens=plan.max_tokens, seed=seed, stop=[STOP])
    reply = await sampling.sample(ModelInput.from_ints(prompt), plan.group_size, params)
    rewards = [reward(problem, tokenizer.decode(sequence.tokens)) for sequence in reply.sequences]
    pairs = zip(reply.sequences, centred(rewards), strict=True)
    return _Group(rewards, [datum(prompt, sequence, advantage) for sequence, advantage in pairs])


async def weights_sha256(service: ServiceClient, training: TrainingClient) -> str | None:
    """Return the hash of the model's adapters; None if the service gives no archives."""
    path = (await training.save_state("final")).path
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "final.tar"
        try:
            await service.rest.download_checkpoint(path, archive)
        except NotFoundError:
            return None
        with tarfile.open(archive) as tar:
            member = tar.extractfile(_ADAPTER)
            return None if member is None else hashlib.sha256(member.read()).hexdigest()
