"""Models give their slot back: by `unload`, and when the service is left."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import trio

from tinker_actors.actors.message import SaveState, Unload
from tinker_actors.errors import ModelUnloaded, RequestFailedError
from tinker_actors.types import AdamParams

ADAM = AdamParams(learning_rate=1e-3)
MODEL = "tinker-actors/char-100k"


async def test_a_model_is_unloaded_when_all_before_it_is_done(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """Its place in line counts: a result that is still awaited comes first."""
    stub.held["forward_backward"] = trio.Event()
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        forward = await training.forward_backward(batch(1), "cross_entropy")
        done = await training.submit(Unload())
        await trio.sleep(5)
        assert "unload_model" not in stub.names()
        stub.held["forward_backward"].set()
        await done
        assert (await forward).metrics == {"loss:sum": 1.0}
        assert stub.bodies("unload_model") == [{"model_id": "s0:train:0", "type": "unload_model"}]


async def test_later_operations_of_an_unloaded_model_are_typed_errors(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """Those in line behind it, and those that come when it is gone; a second unload does nothing."""
    stub.gates["save_weights"] = trio.Event()
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        other = await service.create_lora_training_client(MODEL)
        await training.submit(SaveState("a"))
        done = await training.submit(Unload())
        behind = await training.forward_backward(batch(1), "cross_entropy")
        stub.gates["save_weights"].set()
        await done
        with pytest.raises(ModelUnloaded, match="s0:train:0") as caught:
            await behind
        assert (caught.value.model_id, caught.value.started) == ("s0:train:0", False)
        with pytest.raises(ModelUnloaded):
            await training.optim_step(ADAM)
        await training.unload()
        assert training.get_info().model_id == "s0:train:0"
        await (await other.forward_backward(batch(2), "cross_entropy"))
    assert [body["model_id"] for body in stub.bodies("unload_model")] == ["s0:train:0", "s0:train:1"]


async def test_leaving_the_service_unloads_its_models_before_the_session_ends(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """Each of them, also when the body raises."""
    with pytest.raises(KeyError):
        async with open_stub() as service:
            for _ in range(3):
                await service.create_lora_training_client(MODEL)
            raise KeyError("mine")
    names = stub.names()
    assert sorted(body["model_id"] for body in stub.bodies("unload_model")) == [
        f"s0:train:{i}" for i in range(3)
    ]
    assert names.index("finish") > max(i for i, name in enumerate(names) if name == "unload_model")


@pytest.mark.parametrize("status", [404, 405, 500])
async def test_a_service_without_that_call_is_left_all_the_same(
    autojump_clock: Any, open_stub: Any, stub: Any, status: int
) -> None:
    """The newest services free models with their session, and nothing is lost if they cannot be told."""
    stub.rules["unload_model"] = lambda _, __: httpx.Response(status, json={"detail": "no such call"})
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        await training.unload()
        await service.create_lora_training_client(MODEL)
    assert stub.names().count("unload_model") == 2
    assert stub.names()[-1] == "finish"


async def test_a_service_that_does_not_answer_delays_the_end_by_seconds(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """The slot is given back as well as may be."""
    stub.gates["unload_model"] = trio.Event()
    async with open_stub() as service:
        await service.create_lora_training_client(MODEL)
        left = trio.current_time()
    assert trio.current_time() - left < 5


async def test_an_unload_outlives_the_loss_of_the_model(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """What stood before it is done on the new model, which is the one that is unloaded in the end."""
    stub.held["forward_backward"] = trio.Event()
    stub.results["forward_backward#0"] = None  # the promise is not known any more
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        forward = await training.forward_backward(batch(1), "cross_entropy")
        done = await training.submit(Unload())
        await trio.sleep(1)
        stub.held.pop("forward_backward").set()
        await done
        await forward
    assert [body["model_id"] for body in stub.bodies("unload_model")] == ["s0:train:0", "s0:train:1"]


async def test_a_poisoned_model_gives_its_slot_back_too(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """It is not used any more, which is all the more reason."""
    stub.results["forward_backward#1"] = {"error": "boom"}
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        await (await training.forward_backward(batch(1), "cross_entropy"))
        with pytest.raises(RequestFailedError):
            await (await training.forward_backward(batch(2), "cross_entropy"))
        await training.unload()
        assert stub.names().count("unload_model") == 1
