"""Paths that other services give for what they saved: they are used as they were given."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tinker_actors.errors import InputError

MODEL = "tinker-actors/char-100k"

# As SkyRL, open-rl and Twinkle give them.
PATHS = ["tinker://m1/final", "/ckpt/m1/final", "twinkle://m1/weights/final"]


@pytest.mark.requirement("R154")
@pytest.mark.parametrize("path", PATHS)
async def test_what_a_service_saved_can_be_loaded_and_sampled_from(
    autojump_clock: Any, stub: Any, open_stub: Any, path: str
) -> None:
    """The path of an answer goes back as it came; what needs the parts of a path says which it needs."""

    def saved(_: Any, count: int) -> httpx.Response:
        return httpx.Response(200, json=stub.promise(f"saved#{count}", {"path": path}))

    stub.rules["save_weights"] = stub.rules["save_weights_for_sampler"] = saved
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL, rank=2)
        state = await training.save_state("final")
        assert state.path == path
        await training.load_state_with_optimizer(state.path)
        weights = await training.save_weights_for_sampler("final")
        await service.create_sampling_client(weights.path)
        assert stub.bodies("load_weights")[-1]["path"] == path
        assert stub.bodies("create_sampling_session")[-1]["model_path"] == path
        with pytest.raises(
            InputError, match="tinker://<run>/<weights, sampler_weights, external_weights>/<name>"
        ):
            await service.rest.delete_checkpoint_from_tinker_path(path)


@pytest.mark.parametrize("path", ["weights/final", MODEL, "", None])
async def test_what_is_no_path_is_refused(open_stub: Any, path: Any) -> None:
    """The name of a checkpoint, or of a model, is not where its weights are."""
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL, rank=2)
        for load in (training.load_state, training.load_state_with_optimizer):
            with pytest.raises(InputError, match="path"):
                await load(path)
