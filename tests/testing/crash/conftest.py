"""Loops to crash, right ones and wrong ones."""

from __future__ import annotations

from typing import Any

import pytest

from tinker_actors.testing.crash import Ended, Life
from tinker_actors.types import AdamParams, Datum, ModelInput

MODEL = "scripted/model"
ADAM = AdamParams(learning_rate=1e-3)
STEPS = 4


def batch(token: int) -> list[Datum]:
    """Make the batch of a step."""
    return [Datum(ModelInput.from_ints([token]), {"target_tokens": [token], "weights": [1.0]})]


async def resume(service: Any, life: Life) -> tuple[Any, int]:
    """Go on from the last line of a file of checkpoints: a path, and the step to go on with."""
    lines = [line.split() for line in life.files.read("checkpoints").decode().splitlines()]
    if not lines:
        return await service.create_lora_training_client(MODEL), 0
    path, begin = lines[-1]
    return await service.create_training_client_from_state_with_optimizer(path), int(begin)


async def honest(life: Life) -> Ended:
    """Save after each step, when it is done, and name the step to go on with."""
    async with life.open_service() as service:
        training, begin = await resume(service, life)
        for step in range(begin, STEPS):
            forward = await training.forward_backward(batch(step), "cross_entropy")
            done = await training.optim_step(ADAM)
            await forward
            await done
            saved = await training.save_state(f"{life.number}-{step}")
            life.files.replace("checkpoints", f"{saved.path} {step + 1}\n".encode())
        return Ended(training.model_id, STEPS)


async def cookbook(life: Life) -> Ended:
    """Submit one batch ahead and save behind it, under the number of the batch before: a rule that is in use."""
    async with life.open_service() as service:
        training, begin = await resume(service, life)
        ahead: list[Any] = []
        for step in range(begin, STEPS):
            forward = await training.forward_backward(batch(step), "cross_entropy")
            ahead.append((step, forward, await training.optim_step(ADAM)))
            if len(ahead) < 2 and step + 1 < STEPS:
                continue
            for number, *pendings in ahead[: 1 if step + 1 < STEPS else 2]:
                for pending in pendings:
                    await pending
                saved = await training.save_state(f"{life.number}-{number}")
                life.files.append("checkpoints", f"{saved.path} {number + 1}\n".encode())
            ahead = ahead[1:]
        return Ended(training.model_id, STEPS)


async def forgetful(life: Life) -> Ended:
    """Begin anew, and believe that it goes on."""
    async with life.open_service() as service:
        training = await service.create_lora_training_client(MODEL)
        for step in range(len(life.files.read("steps")), STEPS):
            await (await training.forward_backward(batch(step), "cross_entropy"))
            await (await training.optim_step(ADAM))
            life.files.append("steps", b".")
        return Ended(training.model_id, len(life.files.read("steps")))


class Loops:
    """The loops above, for tests: test folders are no packages."""

    honest = staticmethod(honest)
    cookbook = staticmethod(cookbook)
    forgetful = staticmethod(forgetful)
    steps = STEPS
    batch = staticmethod(batch)
    adam = ADAM


@pytest.fixture
def loops() -> type[Loops]:
    """Give the loops."""
    return Loops
