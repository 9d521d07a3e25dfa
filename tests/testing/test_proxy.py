"""The proxy: what comes through is noted, and answers are lost as told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import trio

from tinker_actors import open_service
from tinker_actors.testing import (
    RecordingProxy,
    ScriptedService,
    ServiceFaults,
    open_recording_proxy,
    serve_scripted,
)
from tinker_actors.types import AdamParams, Datum, ModelInput

CREATE = {"tags": [], "user_metadata": {}, "sdk_version": "1"}


@asynccontextmanager
async def proxied(service: ScriptedService) -> AsyncIterator[tuple[RecordingProxy, httpx.AsyncClient]]:
    """Put a proxy before a scripted service, and a client before both."""
    async with (
        serve_scripted(service) as upstream,
        open_recording_proxy(upstream) as proxy,
        httpx.AsyncClient(base_url=proxy.url, trust_env=False, timeout=30) as client,
    ):
        yield proxy, client


async def test_requests_and_answers_come_through_and_are_noted() -> None:
    """Bodies, queries and statuses are the service's own, and the recording tells of each."""
    service = ScriptedService()
    async with proxied(service) as (proxy, client):
        reply = await client.post("/api/v1/create_session", json=CREATE)
        assert (await client.get("/api/v1/sessions", params={"limit": 1})).json() == {
            "sessions": ["session-0"]
        }
        assert (await client.get("/api/v1/nowhere")).status_code == 404
    noted = [(one.method, one.endpoint, one.status, one.delivered) for one in proxy.recording.exchanges]
    assert noted == [
        ("POST", "create_session", 200, True),
        ("GET", "sessions", 200, True),
        ("GET", "nowhere", 404, True),
    ]
    assert proxy.recording.exchanges[0].fields["sdk_version"] == "1"
    assert proxy.recording.exchanges[0].reply["session_id"] == reply.json()["session_id"]
    assert [request.body for request in service.requests] == [CREATE, None, None]


async def test_an_answer_can_be_lost() -> None:
    """The service took the request and the client does not hear of it, once."""
    service = ScriptedService()
    async with proxied(service) as (proxy, client):
        proxy.lose_answers("create_session")
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post("/api/v1/create_session", json=CREATE)
        assert (await client.post("/api/v1/create_session", json=CREATE)).status_code == 200
    assert [(one.status, one.delivered) for one in proxy.recording.exchanges] == [(200, False), (200, True)]
    assert service.sessions == ("session-0", "session-1")


async def test_what_a_client_that_left_had_asked_is_noted_with_its_answer() -> None:
    """A client that dies while the service works cannot hide that its request was taken."""
    service = ScriptedService(ServiceFaults().delay(0.1, of="create_session"))
    async with proxied(service) as (proxy, client):
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/api/v1/create_session", json=CREATE, timeout=httpx.Timeout(30, read=0.02))
        with trio.fail_after(5):
            await proxy.settle()
    (exchange,) = proxy.recording.exchanges
    assert (exchange.status, exchange.delivered) == (200, False)


async def test_a_service_that_is_not_there_costs_the_connection() -> None:
    """The client sees a connection that is cut off, and the recording a request without an answer."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    await listeners[0].aclose()
    async with (
        open_recording_proxy(f"http://127.0.0.1:{port}") as proxy,
        httpx.AsyncClient(base_url=proxy.url, trust_env=False) as client,
    ):
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post("/api/v1/create_session", json=CREATE)
    (exchange,) = proxy.recording.exchanges
    assert (exchange.status, exchange.accepted) == (None, False)


async def test_a_training_run_through_the_proxy_is_read_off_the_recording() -> None:
    """Two steps by our own client, one of them with a lost answer, are in the model once each, in order."""
    async with serve_scripted(ScriptedService()) as upstream, open_recording_proxy(upstream) as proxy:
        proxy.lose_answers("optim_step")
        async with open_service(proxy.url, telemetry=False) as client:
            training = await client.create_lora_training_client("tinker-actors/char-100k", rank=8)
            for token in (1, 2):
                data = [Datum(ModelInput.from_ints([token]), {"target_tokens": [token], "weights": [1.0]})]
                await training.forward_backward(data, "cross_entropy")
                await (await training.optim_step(AdamParams(learning_rate=1e-3)))
    (model_id,) = {one.model_id for one in proxy.recording.of("optim_step")}
    assert model_id is not None
    lineage = proxy.recording.lineage(model_id)
    assert [one.kind for one in lineage] == ["forward_backward", "optim_step"] * 2
    assert lineage[0].content != lineage[2].content
    assert proxy.recording.failed() == frozenset()
