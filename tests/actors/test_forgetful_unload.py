"""Services that forget what was saved of a model when it is unloaded, as TuFT does: what is needed stays loaded."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import trio

from tests.actors.scripted import ADAM, MODEL, batch, lineage, open_mode, steps
from tinker_actors.protocol.capability import CapabilityRecord
from tinker_actors.testing import ServiceFaults

FORGETS = CapabilityRecord(unload_forgets=True)


def open_forgetful(faults: ServiceFaults | None = None) -> contextlib.AbstractAsyncContextManager[Any]:
    """Open a client on a service that forgets, and carries repeated numbers out again."""
    return open_mode("none", faults, unload_forgets=True, capability=FORGETS)


async def train(training: Any, *tokens: int) -> None:
    """Take one step for each token."""
    for token in tokens:
        await (await training.forward_backward(batch(token), "cross_entropy"))
        await (await training.optim_step(ADAM))


async def test_a_fenced_model_stays_loaded_whose_state_the_next_one_needs(autojump_clock: Any) -> None:
    """It is restored from a state of the old model, which is never unloaded."""
    async with open_forgetful(ServiceFaults().drop("answer", of="optim_step", nth=2)) as (service, scripted):
        training = await service.create_lora_training_client(MODEL)
        await train(training, 1)
        first = training.model_id
        await training.save_state("s")
        with trio.fail_after(600):
            await train(training, 2, 3)
        assert training.model_id != first
        assert lineage(scripted, training.model_id) == steps(1, 2, 3)
        assert scripted.count("unload_model") == 0


@pytest.mark.parametrize("explicit", [False, True])
async def test_what_was_saved_outlives_the_service_that_is_left(autojump_clock: Any, explicit: bool) -> None:
    """Only models of which nothing was saved give their slot back; also where one is unloaded by name."""
    async with open_forgetful() as (service, scripted):
        saved, other = [await service.create_lora_training_client(MODEL) for _ in range(2)]
        await train(saved, 1)
        path = (await saved.save_state("s")).path
        if explicit:
            await saved.unload()
    unloaded = [
        request.body["model_id"] for request in scripted.requests if request.endpoint == "unload_model"
    ]
    assert unloaded == [other.model_id]
    assert path in scripted.checkpoints
