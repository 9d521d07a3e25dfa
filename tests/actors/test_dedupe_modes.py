"""A step in each dedupe mode, on the scripted service: lost replies, and a chunk that fails too late."""

from __future__ import annotations

from typing import Any

import pytest

from tests.actors.scripted import MODES
from tinker_actors.actors.message import SaveState
from tinker_actors.errors import ConflictError, ModelPoisoned, RequestFailedError, ResultLost, StepVoid
from tinker_actors.testing import Fixed, ServiceFaults, open_scripted_service
from tinker_actors.types import AdamParams

MODEL = "base"
ADAM = AdamParams(learning_rate=1e-3)


def seen(scripted: Any, model_id: str) -> list[str]:
    """Return what is in a model."""
    return [one.endpoint for one in scripted.trained[model_id]]


@pytest.mark.requirement("R118")
@pytest.mark.parametrize("dedupe", MODES)
@pytest.mark.parametrize("lost", ["forward_backward", "optim_step"])
async def test_a_lost_reply_changes_no_step(autojump_clock: Any, batch: Any, dedupe: str, lost: str) -> None:
    """Replay: sent again, nothing happened. Reject: applied, its result lost. None: restored on a new model."""
    faults = ServiceFaults().drop("answer", of=lost, nth=1)
    async with open_scripted_service(faults, dialect=MODES[dedupe]) as (service, scripted):
        training = await service.create_lora_training_client(MODEL)
        pendings = {
            "forward_backward": await training.forward_backward(batch(1), "cross_entropy"),
            "optim_step": await training.optim_step(ADAM),
        }
        for name, pending in pendings.items():
            if dedupe == "reject" and name == lost:
                with pytest.raises(ResultLost):
                    await pending
            else:
                await pending
        await (await training.forward_backward(batch(2), "cross_entropy"))
        await (await training.optim_step(ADAM))
        step = ["forward_backward", "optim_step"]
        assert seen(scripted, training.model_id) == step * 2
        assert training.model_id == f"session-0:train:{int(dedupe == 'none')}"
        assert scripted.models == (training.model_id,)


@pytest.mark.requirement("R117", "R118")
@pytest.mark.lesson("L2")
@pytest.mark.parametrize("dedupe", MODES)
async def test_a_chunk_that_fails_after_its_optim_step_was_sent_voids_the_step(
    autojump_clock: Any, batch: Any, dedupe: str
) -> None:
    """Its Pendings get the cause, whether they were answered or not, and the model is used no more."""
    faults = ServiceFaults(work=Fixed(1.0)).fail(of="forward_backward", nth=2)
    flags = {"fwdbwd_max_chunk_len": 1}
    async with open_scripted_service(faults, dialect=MODES[dedupe], flags=flags) as (service, scripted):
        training = await service.create_lora_training_client(MODEL)
        data = [*batch(1), *batch(2), *batch(3)]
        forward = await training.forward_backward(data, "cross_entropy")
        optim = await training.optim_step(ADAM)
        saved = await training.submit(SaveState("spoilt"))
        behind = await training.forward_backward(batch(4), "cross_entropy")
        with pytest.raises(RequestFailedError) as cause:
            await forward
        with pytest.raises(StepVoid) as void:
            await optim
        assert str(void.value.__cause__) == str(cause.value)
        # Where a number that failed is not used up, what stands behind it is refused before that is known.
        for one in (saved, behind):
            with pytest.raises(ConflictError if dedupe == "reject" else ModelPoisoned):
                await one
        with pytest.raises(ModelPoisoned) as poisoned:
            await (await training.optim_step(ADAM))
        assert str(poisoned.value.__cause__) == str(cause.value)
        sent = [
            one.endpoint for one in scripted.requests if one.endpoint in ("forward_backward", "optim_step")
        ]
    assert sent[:4] == ["forward_backward"] * 3 + ["optim_step"]
