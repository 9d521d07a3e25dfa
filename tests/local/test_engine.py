from __future__ import annotations

import httpx
import pytest
import trio
import trio.testing

from tinker_actors.errors import InputError, NotFoundError
from tinker_actors.wire.future import RetrieveFutureRequest
from tinker_actors.wire.model import CreateModelRequest, GetInfoRequest, LoraConfig, UnloadModelRequest
from tinker_actors.wire.session import FinishReason, FinishSessionRequest, SessionHeartbeatRequest
from tinker_actors.wire.weights import SaveWeightsRequest


async def test_a_model_is_created_once_per_number(make_service, connect, kit) -> None:
    """A repeated creation gets the first answer, another model under its number is 409."""
    service = make_service()
    async with connect(service) as caller:
        model_id = await caller.create_model(number=3)
        assert model_id == f"{caller.session_id}:train:3"
        assert await caller.create_model(number=3) == model_id
        assert service.statistics().models == 1
        other = CreateModelRequest(
            session_id=caller.session_id, model_seq_id=3, base_model="tiny", lora_config=LoraConfig(rank=2)
        )
        assert (await caller.send(other)).status_code == 409
        assert await caller.create_model(number=1) == f"{caller.session_id}:train:1"


@pytest.mark.parametrize(
    ("fields", "status", "detail"),
    [
        ({"base_model": "huge"}, 400, "base_model = 'huge': the embedded service has tiny"),
        ({"lora_config": None}, 400, "lora_config = None"),
        ({"lora_config": LoraConfig(rank=65)}, 400, "lora_config.rank = 65"),
        ({"lora_config": LoraConfig(rank=0)}, 400, "lora_config.rank = 0"),
        ({"model_seq_id": -1}, 400, "model_seq_id = -1"),
        ({"session_id": "nobody"}, 404, "Session 'nobody' is not known"),
    ],
)
async def test_models_that_cannot_be_made(make_service, connect, fields, status: int, detail: str) -> None:
    """The answer names the field and the value; the number stays free."""
    async with connect(make_service()) as caller:
        session_id = await caller.open()
        good = {
            "session_id": session_id,
            "model_seq_id": 0,
            "base_model": "tiny",
            "lora_config": LoraConfig(rank=4),
        }
        response = await caller.send(CreateModelRequest(**{**good, **fields}))
        assert response.status_code == status
        assert detail in response.json()["detail"]
        await caller.run(CreateModelRequest(**good))


async def test_adapters_without_a_seed_are_drawn_from_the_services_stream(make_service, connect) -> None:
    """They differ from each other, and are the same in another service of the same seed."""

    async def two(seed: int) -> list[bytes]:
        async with connect(make_service(seed=seed)) as caller:
            models = [await caller.create_model(number=number, seed=None) for number in range(2)]
            return [await caller.weights_of(model_id, 1) for model_id in models]

    first = await two(1)
    assert first[0] != first[1]
    assert await two(1) == first
    assert (await two(2))[0] != first[0]


async def test_a_dropped_model_breaks_what_was_promised(make_service, connect, kit) -> None:
    """Polls end with 410, held ones too; later requests are 404 "is not loaded"; what was saved stays."""
    service = make_service()
    async with connect(service) as caller:
        model_id = await caller.create_model()
        saved = await caller.run(SaveWeightsRequest(model_id=model_id, path="a", seq_id=1))
        done = (await caller.ask(kit.optim_step(model_id, 2))).request_id
        await caller.poll(done)
        parked = (await caller.ask(kit.optim_step(model_id, 4))).request_id
        answers: list[httpx.Response] = []

        async def poll() -> None:
            answers.append(await caller.poll(parked))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(poll)
            await trio.testing.wait_all_tasks_blocked()
            service.drop_model(model_id)
        (answer,) = answers
        assert answer.status_code == 410
        assert "is not loaded" in answer.json()["detail"]
        assert (await caller.send(RetrieveFutureRequest(parked))).status_code == 410
        assert (await caller.send(RetrieveFutureRequest(done))).status_code == 200
        for request in (kit.optim_step(model_id, 3), kit.optim_step(model_id, 2), GetInfoRequest(model_id)):
            response = await caller.send(request)
            assert response.status_code == 404
            assert response.json() == {"detail": f"Model '{model_id}' is not loaded"}
        assert await caller.archive(saved["path"])
        with pytest.raises(NotFoundError):
            service.drop_model(model_id)
        statistics = service.statistics()
        assert (statistics.models, statistics.models_dropped, statistics.promises_pending) == (0, 1, 0)


@pytest.mark.parametrize("compute", ["inline", "thread"])
async def test_a_model_is_dropped_with_a_request_in_flight(make_service, connect, kit, compute: str) -> None:
    """The nth request that begins takes its model along, unfinished; other models do not notice."""
    service = make_service(compute=compute)
    async with connect(service) as caller:
        first, second = [await caller.create_model(number=number) for number in range(2)]
        service.drop_model_at("forward_backward", 3)
        await caller.run(kit.forward_backward(first, 1))
        await caller.run(kit.forward_backward(second, 1))
        requests = (
            kit.optim_step(second, 3),
            kit.forward_backward(second, 2, size=400),
        )  # the first one waits
        lost = [(await caller.ask(request)).request_id for request in requests]
        assert [(await caller.poll(request_id)).status_code for request_id in lost] == [410, 410]
        assert service.statistics().jobs_begun == {"create_model": 2, "forward_backward": 3}
        assert (await caller.send(kit.optim_step(second, 4))).status_code == 404
        await caller.run(kit.forward_backward(first, 2))
        assert service.statistics().models_dropped == 1


async def test_faults_that_could_never_happen_are_refused(make_service, connect, kit) -> None:
    """Unknown operations and requests that have begun already are InputErrors."""
    service = make_service()
    with pytest.raises(InputError, match="operation = 'asample'"):
        service.drop_model_at("asample", 1)
    with pytest.raises(InputError, match="nth = 0"):
        service.drop_model_at("optim_step", 0)
    async with connect(service) as caller:
        await caller.run(kit.optim_step(await caller.create_model(), 1))
        with pytest.raises(InputError, match="nth = 1: 1 have begun already"):
            service.drop_model_at("optim_step", 1)


async def test_unloading_gives_the_model_back(make_service, connect, kit) -> None:
    """The promise of an unloading is kept at once; the model is gone, its open promises are broken."""
    async with connect(make_service()) as caller:
        model_id = await caller.create_model()
        parked = (await caller.ask(kit.optim_step(model_id, 2))).request_id
        assert (await caller.run(UnloadModelRequest(model_id)))["model_id"] == model_id
        assert (await caller.send(UnloadModelRequest(model_id))).status_code == 404
        assert (await caller.poll(parked)).status_code == 410


async def test_a_silent_session_ends_with_all_it_owns(make_service, connect, kit, autojump_clock) -> None:
    """After 300 virtual seconds without a beat its models are gone; a session that beats lives on."""
    service = make_service()
    async with connect(service) as caller:
        silent = await caller.create_model()
        old_session = caller.session_id
        parked = (await caller.ask(kit.optim_step(silent, 2))).request_id
        start = trio.current_time()
        caller.session_id = ""
        alive = await caller.create_model()
        async with trio.open_nursery() as nursery:

            async def beat() -> None:
                while True:
                    await trio.sleep(10)
                    await caller.ask(SessionHeartbeatRequest(caller.session_id))

            nursery.start_soon(beat)
            assert (await caller.poll(parked)).status_code == 410
            assert trio.current_time() - start == pytest.approx(300, abs=0.01)
            nursery.cancel_scope.cancel()
        assert (await caller.send(SessionHeartbeatRequest(old_session))).status_code == 410
        assert (await caller.send(GetInfoRequest(silent))).status_code == 404
        await caller.run(kit.optim_step(alive, 1))
        statistics = service.statistics()
        assert (statistics.sessions, statistics.models) == (1, 1)
        assert statistics.beats in (29, 30)  # the 30th beat and the end come at the same moment


async def test_a_finished_session_is_gone(make_service, connect, kit) -> None:
    """Finishing frees the models; beats are 410, new models too; finishing again is no error."""
    service = make_service()
    async with connect(service) as caller:
        model_id = await caller.create_model()
        finish = FinishSessionRequest(FinishReason("success"), "done")
        for _ in range(2):
            assert (await caller.send(finish, session_id=caller.session_id)).status_code == 200
        assert (await caller.send(finish, session_id="nobody")).status_code == 404
        assert (await caller.send(SessionHeartbeatRequest(caller.session_id))).status_code == 410
        assert (await caller.send(SessionHeartbeatRequest("nobody"))).status_code == 404
        request = CreateModelRequest(
            session_id=caller.session_id, model_seq_id=9, base_model="tiny", lora_config=LoraConfig(rank=4)
        )
        assert (await caller.send(request)).status_code == 410
        assert (await caller.send(kit.optim_step(model_id, 1))).status_code == 404
        assert (service.statistics().sessions, service.statistics().models) == (0, 0)
