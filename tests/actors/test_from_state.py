"""Models made of saved states: with numbers on the embedded service, and in both addressings on scripted ones."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import attrs
import numpy as np
import pytest
from safetensors.numpy import load

from tinker_actors.actors.service_client import ServiceClient, open_client
from tinker_actors.errors import InputError, NotFoundError, RequestFailedError
from tinker_actors.local.service import EmbeddedService
from tinker_actors.local.store import CheckpointPath
from tinker_actors.protocol.capability import KNOWN
from tinker_actors.testing import ServiceFaults, open_scripted_service
from tinker_actors.transport.config import Config
from tinker_actors.transport.inprocess import InProcessTransport
from tinker_actors.types import AdamParams, Datum, ModelInput
from tinker_actors.wire.optimizer import DimuonOptimizerConfig

MODEL = "tinker-actors/char-100k"
ADAM = AdamParams(learning_rate=1e-2)
TINKER = KNOWN["tinker"]
OURS = KNOWN["tinker_actors"]
FAILED = {"detail": "the state cannot be read"}


def batch(seed: int) -> list[Datum]:
    """Make a batch that can be told apart."""
    rng = random.Random(seed)
    tokens = [rng.randrange(5, 90) for _ in range(9)]
    return [Datum(ModelInput.from_ints(tokens[:-1]), {"target_tokens": tokens[1:], "weights": [1.0] * 8})]


@contextlib.asynccontextmanager
async def open_embedded(**settings: Any) -> AsyncIterator[tuple[ServiceClient, EmbeddedService]]:
    """Open a client on an embedded service in the loop."""
    embedded = EmbeddedService(seed=1, compute="inline")
    async with InProcessTransport(embedded.app) as inner:

        @contextlib.asynccontextmanager
        async def borrowed() -> AsyncIterator[Any]:
            yield inner

        async with open_client(
            Config(base_url="http://embedded", heartbeat="loop", **settings),
            rng=random.Random(3),
            backend="local",
            chosen="x",
            through=inner,
            beat_through=borrowed,
        ) as service:
            yield service, embedded


def scripted_config(capability: Any) -> Config:
    """Return how to behave towards a scripted service of which this is known."""
    return Config(
        base_url="http://scripted", heartbeat="loop", telemetry=False, capability=capability, dedupe="replay"
    )


async def step(training: Any, seed: int) -> None:
    """Train one step."""
    await training.forward_backward(batch(seed), "cross_entropy")
    await (await training.optim_step(ADAM))


async def state(training: Any, embedded: EmbeddedService, name: str) -> dict[str, Any]:
    """Save a model's state and return its arrays."""
    path = CheckpointPath.parse((await training.save_state(name)).path)
    files = embedded.store.load(path, 0.0)
    return {**load(files["adapter_model.safetensors"]), **load(files["optimizer.safetensors"])}


@pytest.fixture(params=["create, then load", "load into new"])
def capability(request: pytest.FixtureRequest) -> Any:
    """Return what is known of a service: how a model is made of a state there."""
    return attrs.evolve(OURS, creates_by_loading=request.param == "load into new")


@pytest.mark.requirement("R4")
async def test_with_the_optimizer_the_next_step_is_that_of_the_uninterrupted_run(
    autojump_clock: Any, capability: Any
) -> None:
    """Weights and moments are equal in every bit after the same step."""
    async with open_embedded(capability=capability) as (service, embedded):
        training = await service.create_lora_training_client(MODEL, rank=4, train_attn=False)
        for seed in (1, 2):
            await step(training, seed)
        saved = await training.save_state("two")
        restored = await service.create_training_client_from_state_with_optimizer(saved.path)
        for one in (training, restored):
            await step(one, 3)
        whole, again = [await state(one, embedded, "three") for one in (training, restored)]
        assert restored.get_info().lora_rank == 4
        assert restored.model_id != training.model_id
        assert repr(restored) == f"<TrainingClient {restored.model_id} of {MODEL}>"
    assert set(whole) == set(again)
    assert not any("attn" in name for name in again)
    assert all(np.array_equal(whole[name], again[name]) for name in whole)
    assert again["optimizer.t"] == 3


@pytest.mark.requirement("R3")
async def test_without_the_optimizer_its_moments_are_zero(autojump_clock: Any, capability: Any) -> None:
    """The weights are the saved ones; the next step is another than that of the uninterrupted run."""
    async with open_embedded(capability=capability) as (service, embedded):
        training = await service.create_lora_training_client(MODEL, rank=4)
        for seed in (1, 2):
            await step(training, seed)
        whole = await state(training, embedded, "two")
        path = f"tinker://{training.model_id}/weights/two"
        restored = await service.create_training_client_from_state(path, user_metadata={"from": "two"})
        fresh = await state(restored, embedded, "fresh")
        for one in (training, restored):
            await step(one, 3)
        third, other = [await state(one, embedded, "three") for one in (training, restored)]
    weights = [name for name in whole if not name.startswith("optimizer.")]
    assert weights
    assert all(np.array_equal(whole[name], fresh[name]) for name in weights)
    assert all(not np.any(value) for name, value in fresh.items() if name.startswith("optimizer."))
    assert any(np.any(value) for name, value in whole.items() if name.startswith("optimizer."))
    assert other["optimizer.t"] == 1
    assert not all(np.array_equal(third[name], other[name]) for name in weights)


async def test_a_restore_before_the_first_save_starts_from_the_state(
    autojump_clock: Any, capability: Any
) -> None:
    """The state is the beginning of the lineage: what came after is trained again upon it, bit for bit."""
    async with open_embedded(capability=capability) as (service, embedded):
        training = await service.create_lora_training_client(MODEL, rank=4)
        await step(training, 1)
        saved = await training.save_state("one")
        restored = await service.create_training_client_from_state_with_optimizer(saved.path)
        for one in (training, restored):
            await step(one, 2)
        old = restored.model_id
        embedded.drop_model(old)
        for one in (training, restored):
            await step(one, 3)
        assert restored.model_id != old
        whole, again = [await state(one, embedded, "three") for one in (training, restored)]
    assert all(np.array_equal(whole[name], again[name]) for name in whole)


@pytest.mark.requirement("R19")
@pytest.mark.parametrize("known", [OURS, TINKER], ids=["others", "Tinker"])
async def test_the_two_addressings_on_the_wire(autojump_clock: Any, known: Any) -> None:
    """One request that makes and loads where that is known; else the state's shape, a model, and the load."""
    async with open_scripted_service(config=scripted_config(known)) as (service, scripted):
        training = await service.create_lora_training_client(MODEL)
        saved = await training.save_state("a")
        before = len(scripted.requests)
        restored = await service.create_training_client_from_state(
            saved.path, user_metadata={"k": "v"}, weights_access_token="secret"
        )
        assert restored.model_id == "session-0:train:1"
        await (await restored.optim_step(ADAM))
        sent = [one for one in scripted.requests[before:] if one.endpoint != "session_heartbeat"]
    made = [
        one for one in sent if one.endpoint in ("weights_info", "create_model", "load_weights", "optim_step")
    ]
    load = next(one.body for one in made if one.endpoint == "load_weights")
    assert load["optimizer"] is False
    assert load["weights_access_token"] == "secret"
    names = [one.endpoint for one in made]
    if known is TINKER:
        assert names == ["load_weights", "optim_step"]
        assert (load["session_id"], load["model_seq_id"]) == ("session-0", 1)
        assert load["user_metadata"] == {"k": "v"}
        assert "model_id" not in load
        assert made[-1].body["seq_id"] == 1
    else:
        assert names == ["weights_info", "create_model", "load_weights", "optim_step"]
        assert (load["model_id"], load["seq_id"]) == ("session-0:train:1", 1)
        assert made[1].body["user_metadata"] == {"k": "v"}
        assert made[-1].body["seq_id"] == 2


@pytest.mark.parametrize("known", [OURS, TINKER], ids=["others", "Tinker"])
async def test_a_load_that_fails_gives_the_slot_back(autojump_clock: Any, known: Any) -> None:
    """The caller gets the reason, no model is left over, and the next one has another number."""
    faults = ServiceFaults().fail(of="load_weights", nth=1)
    async with open_scripted_service(faults, config=scripted_config(known)) as (service, scripted):
        training = await service.create_lora_training_client(MODEL)
        saved = await training.save_state("a")
        with pytest.raises(RequestFailedError):
            await service.create_training_client_from_state(saved.path)
        assert scripted.models == ("session-0:train:0",)
        restored = await service.create_training_client_from_state(saved.path)
        assert restored.model_id == "session-0:train:2"


@pytest.mark.parametrize("known", [OURS, TINKER], ids=["others", "Tinker"])
async def test_a_state_that_is_not_there_is_told(autojump_clock: Any, known: Any) -> None:
    """Though its path speaks of a session, no session is taken for lost."""
    async with open_scripted_service(config=scripted_config(known)) as (service, scripted):
        with pytest.raises(NotFoundError, match="not found"):
            await service.create_training_client_from_state("tinker://session-9:train:0/weights/none")
        assert scripted.sessions == ("session-0",)
        assert scripted.models == ()


@pytest.mark.requirement("R20")
@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"path": "weights/a"}, "path"),
        ({"path": "tinker://r/weights/a", "base_model": ""}, "base_model"),
        ({"path": "tinker://r/weights/a", "user_metadata": {"a": 1}}, "user_metadata['a']"),
        ({"path": "tinker://r/weights/a", "optimizer": "adam"}, "optimizer"),
    ],
)
async def test_bad_arguments_are_refused_before_a_byte_is_sent(
    autojump_clock: Any, arguments: Any, field: str
) -> None:
    """Field and value are told."""
    async with open_scripted_service() as (service, scripted):
        before = len(scripted.requests)
        with pytest.raises(InputError) as caught:
            await service.create_training_client_from_state(**arguments)
        assert caught.value.field == field
        assert not {"weights_info", "create_model"} & {one.endpoint for one in scripted.requests[before:]}


async def test_the_optimizer_travels_if_it_is_set_or_taken(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """Strict services refuse the field, so Adam is not named to them; another optimizer is."""
    for newer in (False, True):
        known = attrs.evolve(OURS, newer_fields=newer)
        async with open_stub(capability=known) as service:
            await service.create_lora_training_client(MODEL)
            await service.create_lora_training_client(MODEL, optimizer=DimuonOptimizerConfig())
    usual, dimuon, newer_usual, newer_dimuon = [
        body.get("optimizer_config") for body in stub.bodies("create_model")
    ]
    assert usual is None
    assert newer_usual == {"type": "adamw"}
    assert dimuon == newer_dimuon == {"type": "dimuon", "version": 1}
