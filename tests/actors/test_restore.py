"""A lost model: a new one, the last checkpoint, what came after once more; callers notice nothing but time."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import trio
import trio.testing

from tinker_actors.actors.message import SaveState
from tinker_actors.errors import (
    ModelLost,
    ModelPoisoned,
    NotFoundError,
    RequestFailedError,
)
from tinker_actors.protocol.event import ModelLostEvent, ModelRestored
from tinker_actors.types import AdamParams

ADAM = AdamParams(learning_rate=1e-3)
MODEL = "tinker-actors/char-100k"
NOT_LOADED = {"detail": "Model is not loaded"}


@pytest.mark.parametrize(
    "refusal",
    [
        httpx.Response(404, json={"detail": "Model 'x' is not loaded"}),
        httpx.Response(410, json={"detail": "gone"}),
        httpx.Response(400, json={"detail": "Model x not loaded (likely stale request)"}),
    ],
    ids=["404", "410", "400"],
)
async def test_a_lost_model_is_restored_and_its_steps_are_sent_again(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any, refusal: httpx.Response
) -> None:
    """A new model is loaded from the checkpoint, what came after is sent again, and callers notice nothing."""
    lost = {"s0:train:0": False}

    def refuse(body: dict[str, Any], _: int) -> httpx.Response | None:
        return refusal if lost.get(body["model_id"]) else None

    for name in ("forward_backward", "optim_step"):
        stub.rules[name] = refuse
    async with open_stub() as service:
        events = service.subscribe()
        training = await service.create_lora_training_client(MODEL, seed=7)
        for i in (1, 2):
            await training.forward_backward(batch(i), "cross_entropy")
            await training.optim_step(ADAM)
        saved = await training.save_state("two")
        await (await training.forward_backward(batch(3), "cross_entropy"))
        await (await training.optim_step(ADAM))
        lost["s0:train:0"] = True
        forward = await training.forward_backward(batch(4), "cross_entropy")
        await (await training.optim_step(ADAM))
        assert (await forward).metrics["loss:sum"] == 1.0
        assert training.model_id == "s0:train:1"
        happened = [event for event in _drain(events) if isinstance(event, ModelLostEvent | ModelRestored)]
    assert [type(event) for event in happened] == [ModelLostEvent, ModelRestored]
    assert happened[1] == ModelRestored("s0:train:0", "s0:train:1", saved.path, 3, 1, happened[0].cause)
    second = [(name, body) for name, body in stub.log if body.get("model_id") == "s0:train:1"]
    assert [(name, body.get("seq_id")) for name, body in second] == [
        ("load_weights", 1),
        ("forward_backward", 2),
        ("optim_step", 3),
        ("forward_backward", 4),
        ("optim_step", 5),
        ("unload_model", None),
    ]
    assert second[0][1] == {
        "model_id": "s0:train:1",
        "path": saved.path,
        "optimizer": True,
        "seq_id": 1,
        "type": "load_weights",
    }
    assert [_token(body) for name, body in second if name == "forward_backward"] == [3, 4]
    assert [body["model_id"] for body in stub.bodies("unload_model")] == ["s0:train:0", "s0:train:1"]


async def test_a_model_lost_before_its_first_checkpoint_is_made_again_from_its_seed(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """Without a checkpoint the new model gets the same seed, and everything is sent again."""
    stub.results["optim_step#0"] = httpx.Response(410, json={"detail": "promise broken"})
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        forward = await training.forward_backward(batch(1), "cross_entropy")
        await (await training.optim_step(ADAM))
        await forward
    first, second = stub.bodies("create_model")
    assert first["lora_config"] == second["lora_config"]
    assert isinstance(first["lora_config"]["seed"], int)
    assert first["user_metadata"] == {}  # some services want it even when it is empty
    again = [
        body for body in stub.bodies("forward_backward", "optim_step") if body["model_id"] == "s0:train:1"
    ]
    assert [body["seq_id"] for body in again] == [1, 2]


async def test_gradients_before_a_checkpoint_in_mid_step_are_sent_again(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """A saved state does not hold accumulated gradients, so an open step's are replayed after loading it."""
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        await training.forward_backward(batch(1), "cross_entropy")
        await training.optim_step(ADAM)
        await training.forward_backward(batch(2), "cross_entropy")
        await training.save_state("mid")
        stub.rules["optim_step"] = lambda body, _: (
            httpx.Response(404, json=NOT_LOADED) if body["model_id"] == "s0:train:0" else None
        )
        await (await training.optim_step(ADAM))
    again = [
        (name, body) for name, body in stub.log if body.get("model_id") == "s0:train:1" and "seq_id" in body
    ]
    assert [name for name, _ in again] == ["load_weights", "forward_backward", "optim_step"]
    assert _token(again[1][1]) == 2


async def test_a_doubtful_send_is_repeated_where_the_service_knows_numbers(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """With dedupe mode replay, the same bytes go out again under the same number, and the model lives."""

    def lose_reply(_: dict[str, Any], count: int) -> None:
        if count == 0:
            raise httpx.ReadError("connection lost")

    stub.rules["forward_backward"] = lose_reply
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        await (await training.forward_backward(batch(1), "cross_entropy"))
        assert training.model_id == "s0:train:0"
    first, second = stub.bodies("forward_backward")
    assert first == second


async def test_a_model_that_is_lost_while_it_is_restored_is_unloaded_too(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """Every id that was given up is given back, also if the first attempt to restore fails."""
    lost = httpx.Response(404, json={"detail": "Model is not loaded"})
    stub.rules["load_weights"] = lambda _, count: lost if count == 0 else None
    stub.rules["forward_backward"] = lambda _, count: lost if count == 0 else None
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        await training.save_state("a")
        await (await training.forward_backward(batch(1), "cross_entropy"))
        assert training.model_id == "s0:train:2"
    unloaded = [body["model_id"] for body in stub.bodies("unload_model")]
    assert sorted(unloaded[:2]) == ["s0:train:0", "s0:train:1"]
    assert unloaded[2:] == ["s0:train:2"]  # when the service is left


async def test_a_doubtful_send_fences_the_model_elsewhere(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """With dedupe mode none, whether it was carried out is unknown: the old id is never used again."""

    def lose_reply(_: dict[str, Any], count: int) -> None:
        if count == 0:
            raise httpx.ReadError("connection lost")

    stub.rules["forward_backward"] = lose_reply
    async with open_stub(dedupe="none") as service:
        training = await service.create_lora_training_client(MODEL)
        await (await training.forward_backward(batch(1), "cross_entropy"))
        await (await training.optim_step(ADAM))
        assert training.model_id == "s0:train:1"
    assert [body["model_id"] for body in stub.bodies("forward_backward")] == ["s0:train:0", "s0:train:1"]
    assert stub.bodies("unload_model")[0] == {"model_id": "s0:train:0", "type": "unload_model"}


async def test_a_model_that_cannot_be_restored_gives_typed_errors(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """When restores keep failing, what was in flight and what comes later is told why; the service lives on."""
    stub.rules["forward_backward"] = lambda _, __: httpx.Response(404, json=NOT_LOADED)
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        other = await service.create_lora_training_client(MODEL)
        pending = await training.forward_backward(batch(1), "cross_entropy")
        with pytest.raises(ModelPoisoned) as lost:
            await pending
        assert isinstance(lost.value.__cause__, ModelLost)
        assert isinstance(lost.value.__cause__.__cause__, NotFoundError)
        with pytest.raises(ModelPoisoned) as poisoned:
            await (await training.optim_step(ADAM))
        assert isinstance(poisoned.value.__cause__, ModelLost)
        assert (await (await other.optim_step(ADAM))).metrics is not None


async def test_more_than_the_replay_log_holds_poisons_instead_of_training_wrongly(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """A model that was lost with too much since its checkpoint is not half-restored."""
    stub.rules["optim_step"] = lambda body, count: (
        httpx.Response(404, json=NOT_LOADED) if count == 3 else None
    )
    async with open_stub(replay_bytes=1000) as service:
        training = await service.create_lora_training_client(MODEL)
        for i in range(3):
            await training.forward_backward(batch(i), "cross_entropy")
            await (await training.optim_step(ADAM))
        with pytest.raises(ModelPoisoned, match="replay log"):
            await (await training.optim_step(ADAM))
    assert stub.names().count("create_model") == 1


async def test_a_bug_in_the_actor_restores_the_model(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """An exception nobody foresaw ends in a restore too, not in a hang."""

    def bug(_: dict[str, Any], count: int) -> None:
        if count == 1:
            raise RuntimeError("a bug")

    stub.rules["optim_step"] = bug
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        for i in (1, 2):
            await training.forward_backward(batch(i), "cross_entropy")
            optim = await training.optim_step(ADAM)
        await optim
        assert training.model_id == "s0:train:1"
    steps = [body for body in stub.bodies("optim_step") if body["model_id"] == "s0:train:1"]
    assert len(steps) == 2


@pytest.mark.requirement("R103", "R144")
@pytest.mark.lesson("D55", "L7")
async def test_a_crash_of_the_futures_actor_loses_no_result(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """Whoever waits for a result asks the restarted FuturesActor again."""

    def bug(_: dict[str, Any], count: int) -> None:
        if count == 3:
            raise RuntimeError("a bug")

    stub.rules["retrieve_future"] = bug
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        pendings = [await training.forward_backward(batch(i), "cross_entropy") for i in range(5)]
        for pending in pendings:
            await pending
    assert stub.names().count("create_model") == 1


async def test_leaving_while_a_restore_is_under_way_finishes_it(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """A body that returns has everything it put in line carried out, through a restore."""
    stub.rules["optim_step"] = lambda body, _: (
        httpx.Response(404, json=NOT_LOADED) if body["model_id"] == "s0:train:0" else None
    )
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        await training.forward_backward(batch(1), "cross_entropy")
        optim = await training.optim_step(ADAM)
    assert (await optim).metrics is not None
    assert stub.names()[-1] == "finish"


async def test_a_lost_session_is_renewed_before_the_model_is_made_again(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """If the session is gone as well, one new session is opened and the model is restored in it."""

    def gone(body: dict[str, Any], _: int) -> httpx.Response | None:
        if "s0" in (body.get("session_id"), body.get("model_id", "").partition(":")[0]) and down:
            return httpx.Response(410, json={"detail": "session has ended"})
        return None

    down: list[bool] = []
    for name in ("create_model", "forward_backward", "optim_step"):
        stub.rules[name] = gone
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        await (await training.forward_backward(batch(1), "cross_entropy"))
        down.append(True)
        await (await training.optim_step(ADAM))
        assert service.session_id == "s1"
        assert training.model_id == "s1:train:0"
    assert stub.names().count("create_session") == 2


def _drain(channel: trio.MemoryReceiveChannel[Any]) -> list[Any]:
    events = []
    while True:
        try:
            events.append(channel.receive_nowait())
        except trio.WouldBlock:
            return events


def _token(body: dict[str, Any]) -> int:
    token: int = body["forward_backward_input"]["data"][0]["model_input"]["chunks"][0]["tokens"][0]
    return token


async def test_a_missing_state_to_load_is_that_callers_error(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """A 404 for load_state speaks of the path, not of the model: nothing is restored."""
    stub.rules["load_weights"] = lambda _, __: httpx.Response(404, json={"detail": "no such checkpoint"})
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        with pytest.raises(NotFoundError, match="no such checkpoint"):
            await training.load_state("tinker://x/weights/y")
        await (await training.forward_backward(batch(1), "cross_entropy"))
        assert training.model_id == "s0:train:0"


async def test_a_checkpoint_that_is_gone_poisons_the_model(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """If no saved state can be loaded, everybody who waits is told, and nothing is trained wrongly."""
    stub.rules["optim_step"] = lambda _, count: httpx.Response(404, json=NOT_LOADED) if count else None
    stub.rules["load_weights"] = lambda _, __: httpx.Response(404, json={"detail": "no such checkpoint"})
    async with open_stub(replay_bytes=1000) as service:
        training = await service.create_lora_training_client(MODEL)
        for i in range(3):  # more than the replay log holds
            await (await training.forward_backward(batch(i), "cross_entropy"))
        await (await training.optim_step(ADAM))
        await training.save_state("a")
        await (await training.forward_backward(batch(1), "cross_entropy"))
        with pytest.raises(ModelPoisoned, match="no such checkpoint"):
            await (await training.optim_step(ADAM))
        with pytest.raises(ModelPoisoned, match="no such checkpoint"):
            await (await training.forward_backward(batch(2), "cross_entropy"))
    assert stub.names().count("create_model") == 2
    assert {body["model_id"] for body in stub.bodies("unload_model")} == {"s0:train:0", "s0:train:1"}


async def test_a_checkpoint_that_is_gone_is_replaced_by_what_was_before_it(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """An older state, or the seed, and everything since, once more; the half-made model gives its slot back."""
    stub.rules["optim_step"] = lambda body, _: (
        httpx.Response(404, json=NOT_LOADED) if body["model_id"] == "s0:train:0" and lost else None
    )
    stub.rules["load_weights"] = lambda body, _: (
        httpx.Response(404, json={"detail": "no such checkpoint"}) if body["path"].endswith("b") else None
    )
    lost: list[bool] = []
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        for i, name in enumerate("ab"):
            await (await training.forward_backward(batch(i), "cross_entropy"))
            await (await training.optim_step(ADAM))
            await training.save_state(name)
        lost.append(True)
        await (await training.forward_backward(batch(7), "cross_entropy"))
        await (await training.optim_step(ADAM))
        assert training.model_id == "s0:train:2"
    again = [
        body for body in stub.bodies("load_weights", "forward_backward") if body["model_id"] == "s0:train:2"
    ]
    assert again[0]["path"].endswith("weights/a")
    assert [_token(body) for body in again[1:]] == [1, 7]
    assert [body["model_id"] for body in stub.bodies("unload_model")] == [f"s0:train:{i}" for i in range(3)]


async def test_who_waits_for_a_model_that_was_given_up_is_told_so(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """After the last restore has failed: that it was given up, and why; what comes later is refused likewise."""
    stub.rules["optim_step"] = lambda _, __: httpx.Response(404, json=NOT_LOADED)
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        await (await training.forward_backward(batch(1), "cross_entropy"))
        optim = await training.optim_step(ADAM)
        with pytest.raises(ModelPoisoned, match=r"s0:train:0 on the service is lost.*not loaded") as caught:
            await optim
        assert isinstance(caught.value.__cause__, ModelLost)
        with pytest.raises(ModelPoisoned, match="not loaded"):
            await (await training.forward_backward(batch(2), "cross_entropy"))
    assert stub.names().count("create_model") == 6


async def test_a_save_that_waits_for_earlier_results_survives_a_loss(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """The model is lost after the save's answer and before that of a gradient in front of it: it is saved again."""
    stub.held["forward_backward"] = trio.Event()
    stub.results["forward_backward#0"] = httpx.Response(410, json={"detail": "promise broken"})
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        forward = await training.forward_backward(batch(1), "cross_entropy")
        save = await training.submit(SaveState("a"))
        await trio.sleep(1)
        assert stub.names().count("retrieve_future") == 3  # the save's answer is there
        stub.held["forward_backward"].set()
        with trio.fail_after(10):
            assert (await save).path == "tinker://s0:train:1/weights/a"
        await forward


@pytest.mark.requirement("R144")
@pytest.mark.lesson("L7")
async def test_a_crash_of_a_poisoned_model_leaves_nobody_waiting(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """What was in flight when a poisoned model's actor crashed ends in ModelPoisoned."""
    stub.held["optim_step"] = stub.held["forward"] = trio.Event()
    stub.results["forward_backward#0"] = {"error": "boom"}
    stub.results["optim_step#0"] = httpx.Response(410, json={"detail": "promise broken"})
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        forward = await training.forward_backward(batch(1), "cross_entropy")
        optim = await training.optim_step(ADAM)
        with pytest.raises(RequestFailedError, match="boom"):
            await forward
        stub.held["optim_step"].set()
        with pytest.raises(ModelPoisoned, match="boom"):
            await optim


async def test_weights_of_another_account_are_loaded_again_with_their_token(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """They are the latest state, so a restore starts from them, and has to be admitted to them."""
    stub.rules["optim_step"] = lambda _, count: httpx.Response(404, json=NOT_LOADED) if count == 0 else None
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        await training.load_state_with_optimizer("tinker://r/weights/a", weights_access_token="secret")
        await (await training.forward_backward(batch(1), "cross_entropy"))
        await (await training.optim_step(ADAM))
        assert training.model_id == "s0:train:1"
    assert [body["weights_access_token"] for body in stub.bodies("load_weights")] == ["secret"] * 2
