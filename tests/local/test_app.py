from __future__ import annotations

import httpx

from tinker_actors.local.handler import HANDLERS
from tinker_actors.protocol.failure import says_no_route
from tinker_actors.wire.endpoints import ENDPOINTS
from tinker_actors.wire.model import GetInfoRequest
from tinker_actors.wire.service import ClientConfigRequest, Empty
from tinker_actors.wire.telemetry import TelemetrySendRequest
from tinker_actors.wire.weights import SaveWeightsRequest

PLACES = {"training_run_id": "r", "checkpoint_id": "weights/a", "session_id": "s", "sampler_id": "s"}
SERVED = [endpoint for endpoint in ENDPOINTS if endpoint.name in HANDLERS]


def test_every_handler_has_its_endpoint() -> None:
    """No handler is left over."""
    assert set(HANDLERS) <= {endpoint.name for endpoint in ENDPOINTS}


async def test_what_has_no_handler_says_so(make_service, connect) -> None:
    """A call that the service does not have is 404 with its name; archives have a route of their own."""
    async with connect(make_service()) as caller:
        for endpoint in ENDPOINTS:
            if endpoint in SERVED or endpoint.name == "get_checkpoint_archive_url":
                continue
            target = endpoint.target({place: PLACES[place] for place in endpoint.places})
            response = await caller.http.request(endpoint.method, target)
            assert response.status_code == 404
            assert response.json() == {"detail": f"the embedded service has no route for {endpoint.name}"}
            assert says_no_route(response.json())


async def test_every_handler_has_its_route(make_service, connect) -> None:
    """No path of what is served is unknown (404 without our detail) or knows another method only (405)."""
    async with connect(make_service()) as caller:
        for endpoint in SERVED:
            target = endpoint.path.format(**PLACES)
            response = await caller.http.request(endpoint.method, target)
            bare = endpoint.request is Empty
            expected = (404 if endpoint.places else 200) if bare else 422
            assert response.status_code == expected, (endpoint.name, response.text)
            assert response.json() != {"detail": "Not Found"}
        assert (await caller.http.get("/api/v1/nothing")).json() == {"detail": "Not Found"}
        assert (await caller.http.get("/api/v1/asample")).json() == {"detail": "Method Not Allowed"}


async def test_what_the_service_says_of_itself(make_service, connect) -> None:
    """Its health, its models, and what it does with repeated numbers."""
    service = make_service()
    async with connect(service) as caller:
        assert (await caller.http.get("/api/v1/healthz")).json() == {"status": "ok"}
        assert (await caller.http.get("/api/v1/get_server_capabilities")).json() == {
            "supported_models": [{"model_name": "tiny", "max_context_length": 32}]
        }
        said = await caller.ask(ClientConfigRequest("1.0"))
        assert (said.sequence_dedupe, said.early_numbers) == ("replay", "park")
        assert said.restart_ends_models
        assert said.session_timeout == 300.0
        model_id = await caller.create_model(rank=6)
        info = await caller.ask(GetInfoRequest(model_id))
        assert (info.model_id, info.model_name, info.is_lora, info.lora_rank) == (model_id, "tiny", True, 6)
        events = [{"event": "A"}, {"event": "B"}]
        sent = TelemetrySendRequest(
            events=events, platform="p", sdk_version="1", session_id=caller.session_id
        )
        assert (await caller.ask(sent)).status == "accepted"
        assert service.statistics().telemetry_events == 2


async def test_bodies_are_decoded_strictly(make_service, connect) -> None:
    """An unknown field, a wrong type and no JSON at all are 422 with each place named."""
    async with connect(make_service()) as caller:
        path = "/api/v1/session_heartbeat"
        for body, place in (
            (b'{"session_id": "s", "extra": 1}', "extra"),
            (b'{"session_id": 3}', "$.session_id"),
            (b"{}", "session_id"),
            (b"hello", "not JSON"),
        ):
            response = await caller.http.post(path, content=body)
            assert response.status_code == 422
            assert any(place in problem for problem in response.json()["problems"]), response.text


async def test_a_key_is_asked_for_where_one_is_set(make_service, connect, kit) -> None:
    """Without the key, and with a wrong one, every endpoint is 401; the signed download needs none."""
    service = make_service(api_key="tml-secret")
    async with connect(service, **{"x-api-key": "tml-secret"}) as caller:
        model_id = await caller.create_model()
        saved = await caller.run(SaveWeightsRequest(model_id=model_id, path="a", seq_id=1))
        located = await caller.http.get(kit.archive_url(f"tinker://{model_id}/weights/a"))
        stranger = httpx.AsyncClient(transport=caller.http._transport, base_url="http://embedded")
        for headers in ({}, {"x-api-key": "tml-other"}):
            for endpoint in SERVED:
                path = endpoint.path.format(**PLACES)
                response = await stranger.request(endpoint.method, path, headers=headers)
                assert response.status_code == 401, endpoint.name
            refused = await stranger.get(kit.archive_url(f"tinker://{model_id}/weights/a"), headers=headers)
            assert refused.status_code == 401
        assert (await stranger.get(located.headers["location"])).status_code == 200
        unsigned = located.headers["location"].partition("?")[0]
        for address in (unsigned, f"{unsigned}?signature=00"):
            assert (await stranger.get(address)).status_code == 403
        assert saved["path"]


async def test_an_error_of_ours_is_the_servers(make_service, connect, kit, caplog, monkeypatch) -> None:
    """A crash in a job is category server, one in a handler is 500; both are logged with their traceback."""
    async with connect(make_service()) as caller:
        model_id = await caller.create_model()
        monkeypatch.setattr("tinker_actors.local.trainer.LoraModel.optim_step", lambda *_: 1 / 0)
        response = await caller.poll((await caller.ask(kit.optim_step(model_id, 1))).request_id)
        assert response.json() == {"error": "division by zero", "category": "server"}
        assert caplog.text.count("ZeroDivisionError") == 1
        monkeypatch.setattr("tinker_actors.local.engine.Engine.model", lambda *_: 1 / 0)
        response = await caller.send(GetInfoRequest(model_id))
        assert response.status_code == 500
        assert response.json() == {"detail": "get_info failed: ZeroDivisionError('division by zero')"}
        assert caplog.text.count("Traceback") == 2
