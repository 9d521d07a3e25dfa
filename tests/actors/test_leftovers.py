"""What is left of models, samplers and samples that have ended: nothing that grows with their number."""

from __future__ import annotations

import contextlib
import gc
from collections import Counter
from typing import Any

import pytest
import trio
import trio.testing

from tinker_actors.types import AdamParams, ModelInput, SamplingParams

MODEL = "tinker-actors/char-100k"
PROMPT = ModelInput.from_ints([1, 2, 3])
PARAMS = SamplingParams(max_tokens=2)


def objects_of_ours() -> Counter[str]:
    """Count the objects of our classes that are alive."""
    gc.collect()
    kinds = [type(one) for one in gc.get_objects()]
    return Counter(kind.__qualname__ for kind in kinds if str(kind.__module__).startswith("tinker_actors."))


@pytest.mark.requirement("R136", "R143")
async def test_nothing_is_kept_of_what_has_ended(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """Models that were unloaded, samplers that were dropped, samples whose caller left or failed, subscriptions."""

    async def live(service: Any) -> None:
        training = await service.create_lora_training_client(MODEL)
        await (await training.forward_backward(batch(), "cross_entropy"))
        await (await training.optim_step(AdamParams()))
        samplers = [await training.save_weights_and_get_sampling_client()]
        samplers.append(await service.create_sampling_client(base_model=MODEL))
        for sampling in samplers:
            await sampling.sample(PROMPT, 1, PARAMS)
            with trio.move_on_after(0):
                await sampling.sample(PROMPT, 1, PARAMS)
            with contextlib.suppress(ExceptionGroup):  # its user's task ends badly
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(sampling.sample, PROMPT, 1, PARAMS)
                    await trio.lowlevel.checkpoint()
                    raise LookupError
        with service.ref.subscribe():
            await training.save_state("a")
        await training.unload()
        stub.log.clear()
        stub.headers.clear()
        stub.results.clear()

    async def counts(service: Any, lives: int) -> Counter[str]:
        for _ in range(lives):
            await live(service)
        await trio.sleep(600)  # what is told once a minute, or sent after a while, is over
        await trio.testing.wait_all_tasks_blocked()
        return objects_of_ours()

    async with open_stub() as service:
        await counts(service, 3)
        before = await counts(service, 1)
        after = await counts(service, 20)
    assert {name: more for name, more in (after - before).items() if more >= 10} == {}
