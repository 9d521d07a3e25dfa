"""The front on loopback: sockets that really break; and that both fronts say the same."""

from __future__ import annotations

import ssl

import httpx
import pytest
import trio
import trustme

from tinker_actors.testing import (
    ScriptedService,
    ScriptedTransport,
    ServiceDialect,
    ServiceFaults,
    serve_scripted,
)

CREATE = {"tags": [], "user_metadata": {}, "sdk_version": "1"}
OF = "create_session"


async def test_requests_are_answered_on_a_kept_connection() -> None:
    """Bodies, queries and statuses come through; a second request uses the same connection."""
    service = ScriptedService()
    async with serve_scripted(service) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
        for _ in range(2):
            assert (await client.post("/api/v1/create_session", json=CREATE)).status_code == 200
        assert (await client.get("/api/v1/sessions", params={"limit": 1})).json() == {
            "sessions": ["session-1"]
        }
        assert (await client.get("/api/v1/nowhere")).status_code == 404
    assert [request.body for request in service.requests] == [CREATE, CREATE, None, None]


@pytest.mark.parametrize(
    ("faults", "error"),
    [
        (ServiceFaults().drop("connect", of=OF), httpx.RemoteProtocolError),
        (ServiceFaults().drop("request", of=OF), httpx.RemoteProtocolError),
        (ServiceFaults().drop("answer", of=OF), httpx.RemoteProtocolError),
        (ServiceFaults().drop("body", of=OF), httpx.RemoteProtocolError),
        (ServiceFaults().drop("reset", of=OF), httpx.ReadError),
        (ServiceFaults().stall("answer", of=OF), httpx.ReadTimeout),
        (ServiceFaults().stall("body", of=OF), httpx.ReadTimeout),
    ],
    ids=["connect", "request", "answer", "body", "reset", "stall", "stalled body"],
)
async def test_sockets_break_as_planned(faults, error) -> None:
    """The same classes as at the seam, but that a refused connection is one that is closed at once."""
    async with (
        serve_scripted(ScriptedService(faults)) as url,
        httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as client,
    ):
        patience = httpx.Timeout(30, read=0.1 if error is httpx.ReadTimeout else 30)
        with pytest.raises(error):
            await client.post("/api/v1/create_session", json=CREATE, timeout=patience)
        assert (await client.post("/api/v1/create_session", json=CREATE)).status_code == 200


async def test_an_answer_sent_twice_lies_on_the_connection() -> None:
    """The second copy follows the first one, byte by byte."""
    service = ScriptedService(ServiceFaults().duplicate("answer", of="healthz"))
    async with serve_scripted(service) as url:
        host, port = url.removeprefix("http://").split(":")
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await stream.send_all(b"GET /api/v1/healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            seen = b""
            while seen.count(b'{"status":"ok"}') < 2:
                seen += await stream.receive_some(4096)
    assert seen[: len(seen) // 2] * 2 == seen


async def test_a_client_that_leaves_ends_its_wait() -> None:
    """A held poll does not outlive its connection, nor keep the server from closing."""
    service = ScriptedService(ServiceFaults().evict("try_again", of="create_model"))
    async with serve_scripted(service) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
        session = (await client.post("/api/v1/create_session", json=CREATE)).json()["session_id"]
        body = {"session_id": session, "model_seq_id": 0, "base_model": "m"}
        promise = (await client.post("/api/v1/create_model", json=body)).json()
        with trio.move_on_after(0.05) as scope:
            await client.post("/api/v1/retrieve_future", json={"request_id": promise["request_id"]})
        assert scope.cancelled_caught
        assert (await client.get("/api/v1/healthz")).status_code == 200


async def test_the_bodys_own_exception_leaves_as_it_is() -> None:
    """Never in an exception group."""
    with pytest.raises(KeyError, match="mine"):
        async with serve_scripted(ScriptedService()):
            raise KeyError("mine")


async def test_what_is_no_http_closes_the_connection() -> None:
    """The server goes on with others."""
    async with serve_scripted(ScriptedService()) as url:
        host, port = url.removeprefix("http://").split(":")
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await stream.send_all(b"\x16\x03\x01 no http at all\r\n\r\n")
            with trio.fail_after(5):
                assert await stream.receive_some(4096) == b""
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
            assert (await client.get("/api/v1/healthz")).status_code == 200


CALLS = [
    ("POST", "/api/v1/client/config", {"sdk_version": "1"}),
    ("POST", "/api/v1/create_session", CREATE),
    ("POST", "/api/v1/create_model", {"session_id": "session-0", "model_seq_id": 0, "base_model": "m"}),
    ("POST", "/api/v1/retrieve_future", {"request_id": "session-0:train:0:1"}),
    ("POST", "/api/v1/optim_step", {"model_id": "session-0:train:0", "seq_id": 2, "adam_params": {}}),
    ("POST", "/api/v1/retrieve_future", {"request_id": "session-0:train:0:2"}),
    ("POST", "/api/v1/optim_step", {"model_id": "session-0:train:0"}),
    ("GET", "/api/v1/sessions?limit=1", None),
    ("POST", "/api/v1/create_session", CREATE),
    ("POST", "/api/v1/asample", {"prompt": {"chunks": []}}),
    ("PUT", "/api/v1/healthz", None),
]


async def test_both_fronts_answer_alike() -> None:
    """Identical requests get identical statuses, headers and bodies, with and without faults."""

    def fresh() -> ScriptedService:
        faults = (
            ServiceFaults()
            .garbage("html", of="create_session", nth=2)
            .refuse(429, of="asample", retry_after=2, retry_after_form="ms")
        )
        return ScriptedService(faults, dialect=ServiceDialect(hold=0.0), seed=4)

    async def play(client: httpx.AsyncClient) -> list[tuple[object, ...]]:
        answers = []
        for method, path, body in CALLS:
            response = await client.request(method, path, json=body)
            answers.append((response.status_code, sorted(response.headers.items()), response.content))
        return answers

    seam, loopback = fresh(), fresh()
    async with httpx.AsyncClient(transport=ScriptedTransport(seam), base_url="http://scripted") as client:
        expected = await play(client)
    async with serve_scripted(loopback) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
        assert await play(client) == expected
    assert [one.fault for one in seam.injected] == [one.fault for one in loopback.injected]
    assert {status for status, _, _ in expected} == {200, 405, 408, 429}


async def test_it_speaks_tls() -> None:
    """With a context of its own it is https, to who trusts it."""
    authority = trustme.CA()
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(serving)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with serve_scripted(ScriptedService(), ssl_context=serving) as url:
        assert url.startswith("https://")
        async with httpx.AsyncClient(base_url=url, verify=trusting, trust_env=False) as client:
            for _ in range(2):
                assert (await client.get("/api/v1/healthz")).json() == {"status": "ok"}
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
            with pytest.raises(httpx.ConnectError):
                await client.get("/api/v1/healthz")
