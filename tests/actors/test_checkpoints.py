"""The colour rule: whatever is awaited in the public interface is a checkpoint, always."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from trio.testing import assert_checkpoints

from tinker_actors.types import AdamParams, Datum, ModelInput, SamplingParams

MODEL = "tinker-actors/char-100k"
DATA = [Datum(ModelInput.from_ints([1]), {"target_tokens": [1], "weights": [1.0]})]

VERBS: dict[str, Callable[[Any, Any, Any], Awaitable[object]]] = {
    "forward": lambda _, training, __: training.forward(DATA, "cross_entropy"),
    "forward_backward": lambda _, training, __: training.forward_backward(DATA, "cross_entropy"),
    "optim_step": lambda _, training, __: training.optim_step(AdamParams()),
    "save_state": lambda _, training, __: training.save_state("a"),
    "load_state": lambda _, training, __: training.load_state("tinker://a/weights/b"),
    "save_weights_for_sampler": lambda _, training, __: training.save_weights_for_sampler("a"),
    "publish": lambda _, training, __: training.save_weights_and_get_sampling_client(),
    "get_tokenizer": lambda _, training, __: training.get_tokenizer(),
    "create_training": lambda service, _, __: service.create_lora_training_client(MODEL),
    "create_sampling": lambda service, _, __: service.create_sampling_client(base_model=MODEL),
    "sample": lambda _, __, sampling: sampling.sample(ModelInput.from_ints([1]), 1, SamplingParams()),
}


@pytest.mark.parametrize("verb", VERBS)
async def test_every_verb_is_a_checkpoint(autojump_clock: Any, open_stub: Any, verb: str) -> None:
    """Each verb lets others run and can be cancelled."""
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        sampling = await training.save_weights_and_get_sampling_client()
        with assert_checkpoints():
            await VERBS[verb](service, training, sampling)


async def test_a_pending_is_a_checkpoint_even_when_it_is_settled(autojump_clock: Any, open_stub: Any) -> None:
    """Awaiting, awaiting again, and withdrawing too late."""
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        pending = await training.optim_step(AdamParams())
        await pending
        with assert_checkpoints():
            await pending
        with assert_checkpoints():
            assert not await pending.withdraw()
