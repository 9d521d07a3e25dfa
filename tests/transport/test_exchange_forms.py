"""The form of what goes out: what answers teach about it."""

from __future__ import annotations

import random
from typing import Any

import httpx
import pytest
import trio

from tests.transport.script import INFO, Script, call, config
from tinker_actors.errors import APIStatusError, NotFoundError
from tinker_actors.protocol.capability import CapabilityRecord
from tinker_actors.transport.opening import open_transport
from tinker_actors.wire import protobuf
from tinker_actors.wire.compression import decompress
from tinker_actors.wire.endpoints import FORWARD, FORWARD_BACKWARD, GET_INFO
from tinker_actors.wire.model import GetInfoRequest

NO_ROUTE = httpx.Response(404, json={"detail": "Not Found"})
TAKEN = httpx.Response(202, json={"request_id": "r"})


@pytest.fixture
def forms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a simple request have a protobuf form."""
    monkeypatch.setattr(protobuf, "MESSAGES", frozenset({GetInfoRequest}))
    monkeypatch.setattr(protobuf, "encode", lambda value: b"proto")


def places(script: Script) -> list[str]:
    """Return the last part of each path."""
    return [request.url.path.rpartition("/")[2] for request in script.requests]


async def test_a_service_without_a_call_for_losses_is_sent_protobuf(forms: None) -> None:
    """There is none in protobuf: it goes where gradients go, at once and from then on."""
    answers = [NO_ROUTE, TAKEN, TAKEN]
    script = Script(lambda attempt: answers[attempt])
    async with open_transport(config(), rng=random.Random(0), through=script) as transport:
        for _ in range(2):
            await transport.call(FORWARD, GetInfoRequest("m"))
        assert (transport.capability.training_body, transport.capability.source) == ("protobuf", "probed")
    assert places(script) == ["forward", "forward_backward", "forward_backward"]
    assert [one.headers["content-type"] for one in script.requests[1:]] == ["application/x-protobuf"] * 2


@pytest.mark.parametrize("status", [404, 415, 422])
async def test_a_service_without_losses_is_left_as_it_is(forms: None, status: int) -> None:
    """If it takes no protobuf either, the 404 is the outcome, and gradients go out in JSON as before."""
    answers = [NO_ROUTE, httpx.Response(status, json={"detail": "Not Found"}), TAKEN]
    script = Script(lambda attempt: answers[attempt])
    async with open_transport(config(), rng=random.Random(0), through=script) as transport:
        with pytest.raises(NotFoundError, match=r"forward: Error code: 404 .*Not Found"):
            await transport.call(FORWARD, GetInfoRequest("m"))
        await transport.call(FORWARD_BACKWARD, GetInfoRequest("m"))
        assert transport.capability == CapabilityRecord()
    assert places(script) == ["forward", "forward_backward", "forward_backward"]
    assert script.requests[2].headers["content-type"] == "application/json"


async def test_trouble_teaches_nothing_about_forms(autojump_clock: Any, forms: None) -> None:
    """A broken exchange or a 503 is tried again from the beginning."""
    answers = [NO_ROUTE, httpx.Response(503), NO_ROUTE, httpx.ReadError("lost"), NO_ROUTE, TAKEN]
    script = Script(lambda attempt: answers[attempt])
    async with open_transport(config(), rng=random.Random(0), through=script) as transport:
        await transport.call(FORWARD, GetInfoRequest("m"))
        assert transport.capability.training_body == "protobuf"
    assert places(script) == ["forward", "forward_backward"] * 3


@pytest.mark.parametrize(
    ("settings", "answer"),
    [
        ({"training_body": "json"}, NO_ROUTE),
        ({}, httpx.Response(404, json={"detail": "Model m not found"})),
        ({}, httpx.Response(410, json={"detail": "Not Found"})),
    ],
)
async def test_a_404_that_teaches_nothing_is_the_outcome(
    forms: None, settings: dict[str, Any], answer: httpx.Response
) -> None:
    """If the user has chosen JSON, or the service speaks of a model."""
    script = Script(lambda _: answer)
    with pytest.raises(APIStatusError):
        await call(script, FORWARD, GetInfoRequest("m"), **settings)
    assert len(script.requests) == 1


async def test_requests_under_way_learn_the_form_from_the_first_answer(forms: None) -> None:
    """Each that was refused goes out once more, in the other form."""
    script = Script(lambda _: None)
    script.answer = lambda attempt: (
        TAKEN
        if script.requests[attempt].headers["content-type"] != "application/json"
        else httpx.Response(415)
    )
    async with (
        open_transport(config(), rng=random.Random(0), through=script) as transport,
        trio.open_nursery() as nursery,
    ):
        for _ in range(3):
            nursery.start_soon(transport.call, FORWARD_BACKWARD, GetInfoRequest("m"))
    assert len(script.requests) == 6


async def test_a_form_that_is_not_taken_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A 415 to a gradient request is answered with the other form, at once and from then on."""
    monkeypatch.setattr(protobuf, "MESSAGES", frozenset({GetInfoRequest}))
    monkeypatch.setattr(protobuf, "encode", lambda value: b"proto")
    answers = [415, 200, 200, 415]
    script = Script(lambda attempt: httpx.Response(answers[attempt], json=INFO))
    async with open_transport(config(), rng=random.Random(0), through=script) as transport:
        for _ in range(2):
            await transport.call(GET_INFO, GetInfoRequest("m"))
        with pytest.raises(APIStatusError, match="415"):
            await transport.call(GET_INFO, GetInfoRequest("m"))
    kinds = [request.headers["content-type"] for request in script.requests]
    assert kinds == ["application/json"] + ["application/x-protobuf"] * 3
    assert script.requests[1].content == b"proto"


async def test_forward_goes_where_gradients_go_as_protobuf(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protobuf has one message for both; long ones are compressed if the service wants that."""
    monkeypatch.setattr(protobuf, "MESSAGES", frozenset({GetInfoRequest}))
    monkeypatch.setattr(protobuf, "encode", lambda value: b"p" * 5000)
    script = Script(lambda _: httpx.Response(200, json={"request_id": "r"}))
    record = CapabilityRecord(training_body="protobuf", compression=True)
    async with open_transport(config(capability=record), rng=random.Random(0), through=script) as transport:
        await transport.call(FORWARD, GetInfoRequest("m"))
    (request,) = script.requests
    assert request.url.path == "/base/api/v1/forward_backward"
    assert request.headers["content-encoding"] == "zstd"
    assert decompress(request.content, "zstd", limit=10_000) == b"p" * 5000
