"""The front at the transport's seam: what httpx's users see of a plan."""

from __future__ import annotations

import httpx
import pytest
import trio

from tinker_actors.testing import Fixed, ScriptedService, ScriptedTransport, ServiceDialect, ServiceFaults


def client_on(faults=None, timeout=None, **options):
    transport = ScriptedTransport(ScriptedService(faults, **options))
    return httpx.AsyncClient(transport=transport, base_url="http://scripted/deep/below", timeout=timeout)


CREATE = {"tags": [], "user_metadata": {}, "sdk_version": "1"}
OF = "create_session"


async def test_delays_take_virtual_time(autojump_clock) -> None:
    """An answer comes as late as its plan says."""
    async with client_on(ServiceFaults(latency=Fixed(3)).delay(3600, of=OF)) as client:
        start = trio.current_time()
        response = await client.post("/api/v1/create_session", json=CREATE)
        assert response.json()["session_id"] == "session-0"
        assert trio.current_time() - start == 3603


@pytest.mark.parametrize(
    ("faults", "error"),
    [
        (ServiceFaults().drop("connect", of=OF), httpx.ConnectError),
        (ServiceFaults().drop("request", of=OF), httpx.RemoteProtocolError),
        (ServiceFaults().drop("answer", of=OF), httpx.RemoteProtocolError),
        (ServiceFaults().drop("body", of=OF), httpx.RemoteProtocolError),
        (ServiceFaults().drop("reset", of=OF), httpx.ReadError),
        (ServiceFaults().stall("answer", of=OF), httpx.ReadTimeout),
        (ServiceFaults().stall("body", of=OF), httpx.ReadTimeout),
    ],
    ids=["connect", "request", "answer", "body", "reset", "stall", "stalled body"],
)
async def test_what_breaks_is_an_error_of_httpx(autojump_clock, faults, error) -> None:
    """The same class that a connection raises; the next request is answered."""
    async with client_on(faults, timeout=30) as client:
        with pytest.raises(error):
            await client.post("/api/v1/create_session", json=CREATE)
        assert (await client.post("/api/v1/create_session", json=CREATE)).status_code == 200


async def test_a_stalled_body_has_a_head_and_a_half(autojump_clock) -> None:
    """A deadline of the caller ends it as well, and what came before it was read."""
    async with client_on(ServiceFaults().stall(of=OF)) as client:
        parts = []
        with trio.move_on_after(100) as scope:
            async with client.stream("POST", "/api/v1/create_session", json=CREATE) as response:
                assert response.status_code == 200
                async for part in response.aiter_bytes():
                    parts.append(part)  # noqa: PERF401 - the list is kept when the iteration breaks off
        assert scope.cancelled_caught
        assert 0 < len(b"".join(parts)) < int(response.headers["content-length"])


async def test_a_held_poll_ends_when_the_service_changes(autojump_clock) -> None:
    """A parked request's promise is waited for; the one that fills the gap lets it go at once."""
    async with client_on(dialect=ServiceDialect(hold=1000)) as client:
        session = (await client.post("/api/v1/create_session", json=CREATE)).json()["session_id"]
        body = {"session_id": session, "model_seq_id": 0, "base_model": "m"}
        model = (await client.post("/api/v1/create_model", json=body)).json()["model_id"]
        late = {"model_id": model, "seq_id": 2, "adam_params": {}}
        early = (await client.post("/api/v1/optim_step", json=late)).json()
        async with trio.open_nursery() as nursery:

            async def fill() -> None:
                await trio.sleep(7)
                await client.post("/api/v1/optim_step", json=late | {"seq_id": 1})

            nursery.start_soon(fill)
            start = trio.current_time()
            result = await client.post("/api/v1/retrieve_future", json=early)
            assert (result.status_code, trio.current_time() - start) == (200, 7)


async def test_two_transports_lead_to_one_service(autojump_clock) -> None:
    """They share its time and its state."""
    service = ScriptedService()
    async with (
        httpx.AsyncClient(transport=ScriptedTransport(service), base_url="http://a") as one,
        httpx.AsyncClient(transport=ScriptedTransport(service), base_url="http://b") as two,
    ):
        await one.post("/api/v1/create_session", json=CREATE)
        await trio.sleep(5)
        assert (await two.get("/api/v1/sessions")).json() == {"sessions": ["session-0"]}
        assert [request.at for request in service.requests] == [0.0, 5.0]


async def test_a_watcher_is_told_of_each_request_before_and_after(autojump_clock) -> None:
    """It hears of a request that has not reached the service, and again when it was carried out; it may raise."""
    service = ScriptedService()
    seen = []

    def watch(moment, request) -> None:
        seen.append((moment, request.path, len(service.sessions)))
        if len(seen) == 4:
            raise KeyError

    transport = ScriptedTransport(service, watch)
    async with httpx.AsyncClient(transport=transport, base_url="http://scripted") as client:
        await client.post("/api/v1/create_session", json=CREATE)
        with pytest.raises(KeyError):
            await client.post("/api/v1/create_session", json=CREATE)
    path = "/api/v1/create_session"
    assert seen == [("request", path, 0), ("answer", path, 1), ("request", path, 1), ("answer", path, 2)]


async def test_a_service_that_begins_late_ends_its_polls(autojump_clock) -> None:
    """Times are sums, and sums are rounded: a held answer that is due is given, and not asked for again for ever."""
    for start in (0.1, 0.7, 1.1, 2.3, 7.9):
        await trio.sleep(start)
        async with client_on(ServiceFaults(work=Fixed(0.7), latency=Fixed(0.1))) as client:
            for number in range(5):
                session = (await client.post("/api/v1/create_session", json=CREATE)).json()["session_id"]
                body = {"session_id": session, "model_seq_id": number, "base_model": "m"}
                promise = (await client.post("/api/v1/create_model", json=body)).json()["request_id"]
                with trio.fail_after(60):
                    answer = await client.post("/api/v1/retrieve_future", json={"request_id": promise})
                assert answer.status_code == 200
