"""How models, samplers and sessions come to be: their numbers, side by side, and what the session is told."""

from __future__ import annotations

from typing import Any

import attrs
import httpx
import pytest
import trio
import trio.testing

from tinker_actors.actors.message import OptimStep
from tinker_actors.errors import NotFoundError
from tinker_actors.local.service import EmbeddedService
from tinker_actors.opening import open_service
from tinker_actors.testing import open_scripted_service
from tinker_actors.transport.config import Config
from tinker_actors.types import AdamParams, ModelInput, SamplingParams
from tinker_actors.version import __version__

MODEL = "tinker-actors/char-100k"
PROMPT = ModelInput.from_ints([1, 2, 3])
PARAMS = SamplingParams(max_tokens=2)


@pytest.mark.requirement("R19", "R98")
async def test_numbers_in_a_session_are_never_used_twice(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """Models and samplers count for themselves, and a creation that failed has used its number up."""
    refused = httpx.Response(404, json={"detail": "no such model"})
    for name in ("create_model", "create_sampling_session"):
        stub.rules[name] = lambda body, _: refused if body["base_model"] == "none" else None
    async with open_stub() as service:
        for model in (MODEL, "none", MODEL, "none", MODEL):
            for create in (service.create_lora_training_client, service.create_sampling_client):
                if model == "none":
                    with pytest.raises(NotFoundError):
                        await create(base_model=model)
                else:
                    await create(base_model=model)
    for name, number in (
        ("create_model", "model_seq_id"),
        ("create_sampling_session", "sampling_session_seq_id"),
    ):
        assert [body[number] for body in stub.bodies(name)] == [0, 1, 2, 3, 4]
        assert {body["session_id"] for body in stub.bodies(name)} == {"s0"}


@pytest.mark.requirement("R138")
async def test_creations_run_side_by_side(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """Eight models and eight samplers are asked for before the first of them is there."""
    for name in ("create_model", "create_sampling_session"):
        stub.gates[name] = trio.Event()
    async with open_stub() as service, trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(service.create_lora_training_client, MODEL)
            nursery.start_soon(service.create_sampling_client, None, MODEL)
        await trio.sleep(1)
        assert (stub.active["create_model"], stub.active["create_sampling_session"]) == (8, 8)
        for event in stub.gates.values():
            event.set()


@pytest.mark.requirement("R138")
async def test_a_model_of_the_embedded_service_is_there_at_once(autojump_clock: Any) -> None:
    """Nothing in its creation, nor in that of a sampler, sleeps or waits for a poll: it takes no virtual time."""
    embedded = EmbeddedService(seed=1, compute="inline")
    async with open_service(embedded=embedded, heartbeat="loop") as service:
        started = trio.current_time()
        await service.create_lora_training_client(MODEL, rank=2)
        await service.create_sampling_client(base_model=MODEL)
        assert trio.current_time() - started < 1


@pytest.mark.requirement("R137")
async def test_a_client_can_be_used_as_soon_as_it_is_there(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """By any task, without a wait, and by many at once: what serves it was started before it was given out."""
    async with open_stub() as service, trio.open_nursery() as nursery:

        async def train() -> None:
            training = await service.create_lora_training_client(MODEL)
            await training.ref.submit_nowait(OptimStep(AdamParams()))

        async def sample() -> None:
            sampling = await service.create_sampling_client(base_model=MODEL)
            async with trio.open_nursery() as many:
                for _ in range(20):
                    many.start_soon(sampling.sample, PROMPT, 1, PARAMS)

        for _ in range(5):
            nursery.start_soon(train)
            nursery.start_soon(sample)
    assert stub.names().count("optim_step") == 5
    assert stub.names().count("asample") == 100


@pytest.mark.requirement("R142", "R148")
@pytest.mark.lesson("D4", "D7")
async def test_a_session_is_told_who_we_are_and_ends_before_we_leave(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """Its creation carries tags, metadata and version; after the service was left there is no beat, for an hour."""
    async with open_stub(tags=("a", "b"), user_metadata={"run": "7"}, heartbeat_period=1):
        await trio.sleep(5)
    count = stub.names().count("session_heartbeat")
    assert count >= 5
    await trio.sleep(3600)
    assert stub.names().count("session_heartbeat") == count
    (body,) = stub.bodies("create_session")
    assert body["tags"] == ["a", "b"]
    assert body["user_metadata"] == {"run": "7"}
    assert body["sdk_version"] == __version__


@pytest.mark.lesson("D46")
async def test_one_version_is_told_everywhere_and_cannot_be_set(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """The session, the flags, telemetry and each request's header name the package's own."""
    assert [field.name for field in attrs.fields(Config) if "version" in field.name] == []
    async with open_stub(telemetry=True):
        await trio.sleep(11)
    names = ("client/config", "client/dynamic_config", "create_session", "telemetry")
    told = [{body["sdk_version"] for body in stub.bodies(name)} for name in names]
    assert told == [{__version__}] * 4
    assert {headers["x-stainless-package-version"] for headers in stub.headers} == {__version__}


@pytest.mark.requirement("R10")
@pytest.mark.parametrize("where", ["embedded", "scripted"])
async def test_a_saved_state_has_a_path(autojump_clock: Any, where: str) -> None:
    """`tinker://`, the model, what was saved, and the name; weights for samplers have theirs."""
    if where == "embedded":
        embedded = EmbeddedService(seed=1, compute="inline")
        opening: Any = open_service(embedded=embedded, heartbeat="loop")
    else:
        opening = open_scripted_service()
    async with opening as opened:
        service = opened if where == "embedded" else opened[0]
        training = await service.create_lora_training_client(MODEL)
        saved = await training.save_state("a-1")
        assert saved.path == f"tinker://{training.model_id}/weights/a-1"
        weights = await training.save_weights_for_sampler("b")
        assert weights.path == f"tinker://{training.model_id}/sampler_weights/b"
        assert [field.name for field in attrs.fields(type(weights))] == ["path"]
