"""The forms that bodies and answers may have: JSON or protobuf, compressed or not."""

from __future__ import annotations

import gzip
import sys

import pytest
import zstandard

from tinker_actors.wire import protobuf
from tinker_actors.wire.codec import encode, structure
from tinker_actors.wire.compression import compress
from tinker_actors.wire.future import RetrieveFutureRequest, UntypedAPIFuture
from tinker_actors.wire.payload import JSON, PROTOBUF
from tinker_actors.wire.sampling import SampleResponse
from tinker_actors.wire.service import ClientConfigRequest
from tinker_actors.wire.training import ForwardBackwardOutput, ForwardRequest

TRAIN = "/api/v1/forward_backward"
EITHER = {"accept": f"{PROTOBUF}, {JSON};q=0.5"}


async def post(caller, path: str, body: bytes, **headers: str):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await caller.http.post(path, content=body, headers=named)


async def submit(caller, body: bytes, **headers: str) -> str:
    response = await post(caller, TRAIN, body, content_type=PROTOBUF, **headers)
    assert response.status_code == 200, response.text
    return structure(UntypedAPIFuture, response.json(), strict=True).request_id


async def result(caller, request_id: str, accept: str):
    while True:
        body = encode(RetrieveFutureRequest(request_id))
        response = await post(caller, "/api/v1/retrieve_future", body, accept=accept)
        if response.status_code != 408:
            return response
        assert response.headers["content-type"] == JSON


async def test_a_batch_in_protobuf_is_computed_as_in_json(make_service, connect, kit) -> None:
    """Two models of one seed answer alike, whichever form the batch came in and the answer went out."""
    async with connect(make_service()) as caller:
        first, second = await caller.create_model(), await caller.create_model(number=1)
        await caller.open()
        expected = await caller.run(kit.forward_backward(first, 1))
        request_id = await submit(caller, protobuf.encode(kit.forward_backward(second, 1)))
        as_json = await result(caller, request_id, JSON)
        as_protobuf = await result(caller, request_id, EITHER["accept"])
    assert as_json.json() == expected
    assert as_json.headers["content-type"] == JSON
    assert as_protobuf.headers["content-type"] == PROTOBUF
    output = protobuf.decode(ForwardBackwardOutput, as_protobuf.content)
    assert output == structure(ForwardBackwardOutput, expected, strict=True)


async def test_the_flag_asks_for_the_loss_alone(make_service, connect, kit) -> None:
    """A forward request in protobuf goes where gradients go, and leaves none."""
    async with connect(make_service()) as caller:
        model_id = await caller.create_model()
        before = await caller.weights_of(model_id, 1, "before")
        batch = kit.forward_backward(model_id, 0).forward_backward_input
        request_id = await submit(caller, protobuf.encode(ForwardRequest(batch, model_id, 2)))
        assert (await result(caller, request_id, JSON)).json()["metrics"]["loss:sum"] > 0
        await caller.run(kit.optim_step(model_id, 3))
        assert await caller.weights_of(model_id, 4, "after") == before


async def test_samples_are_answered_in_protobuf_to_who_accepts_it(make_service, connect, kit) -> None:
    """Both forms hold the same sample; the submission names its sequences."""
    async with connect(make_service()) as caller:
        submitted = await caller.ask(kit.sample(base_model="tiny", num_samples=2, prompt_logprobs=True))
        assert len(set(submitted.sample_sequence_ids)) == 2
        as_json = await result(caller, submitted.request_id, "*/*")
        as_protobuf = await result(caller, submitted.request_id, PROTOBUF)
    response = protobuf.decode(SampleResponse, as_protobuf.content)
    assert response == structure(SampleResponse, as_json.json(), strict=True)
    assert len(response.sequences) == 2


async def test_all_else_is_json_whatever_is_accepted(make_service, connect, kit, monkeypatch) -> None:
    """Failures, optimizer steps and refusals have no other form."""
    async with connect(make_service()) as caller:
        model_id = await caller.create_model()
        step = (await caller.ask(kit.optim_step(model_id, 1))).request_id
        stepped = await result(caller, step, PROTOBUF)
        unknown = await result(caller, "nobody", PROTOBUF)
        monkeypatch.setattr("tinker_actors.local.trainer.LoraModel.optim_step", lambda *_: 1 / 0)
        step = (await caller.ask(kit.optim_step(model_id, 2))).request_id
        failed = await result(caller, step, PROTOBUF)
    assert failed.json()["category"] == "server"
    assert stepped.status_code == 200
    assert unknown.status_code == 404
    assert {answer.headers["content-type"] for answer in (failed, stepped, unknown)} == {JSON}


async def test_compressed_bodies_are_repetitions_of_plain_ones(make_service, connect, kit) -> None:
    """zstd, gzip and both: the same bytes once decompressed, so the same request; JSON may be compressed too."""
    async with connect(make_service()) as caller:
        model_id = await caller.create_model()
        body = protobuf.encode(kit.forward_backward(model_id, 1))
        ways = {
            "zstd": compress(body),
            "gzip": gzip.compress(body),
            "gzip, zstd": compress(gzip.compress(body)),
            "identity": body,
        }
        ids = {await submit(caller, data, content_encoding=name) for name, data in ways.items()}
        assert ids == {await submit(caller, body)}
        config = compress(encode(ClientConfigRequest("1")))
        answer = await post(caller, "/api/v1/client/config", config, content_encoding="zstd")
        assert answer.json()["training_body"] == "protobuf"


@pytest.mark.requirement("R97")
async def test_forms_that_are_not_known_are_415(make_service, connect, kit, monkeypatch) -> None:
    """Other content types, protobuf where there is none, unknown encodings, and zstd without its package."""
    async with connect(make_service()) as caller:
        model_id = await caller.create_model()
        body = protobuf.encode(kit.forward_backward(model_id, 1))
        assert (await post(caller, TRAIN, body, content_type="text/plain")).status_code == 415
        for path in ("/api/v1/asample", "/api/v1/forward"):
            assert (await post(caller, path, body, content_type=PROTOBUF)).status_code == 415
        refused = await post(caller, TRAIN, body, content_type=PROTOBUF, content_encoding="br")
        assert (refused.status_code, refused.json()) == (
            415,
            {"detail": "content encoding 'br' is not supported"},
        )
        monkeypatch.setitem(sys.modules, "zstandard", None)
        refused = await post(caller, TRAIN, body, content_type=PROTOBUF, content_encoding="zstd")
        assert refused.status_code == 415
        assert "tinker-actors[zstd]" in refused.json()["detail"]


@pytest.mark.parametrize("encoding", ["", "zstd"])
async def test_bytes_that_are_no_request_are_422(make_service, connect, encoding, monkeypatch) -> None:
    """Garbage, garbage within zstd, a chunk of no kind, and what is too large once it is decompressed."""
    monkeypatch.setattr("tinker_actors.local.app.MAX_BODY", 1000)

    def packed(data: bytes) -> bytes:
        return zstandard.compress(data) if encoding else data

    async with connect(make_service()) as caller:
        for path, body, problem in (
            (TRAIN, packed(b"\x0a\x05ab"), "truncated"),
            (TRAIN, packed(b"\x1a\x02\x0a\x00"), "$.data[0].model_input[0]"),
            (TRAIN, packed(bytes(1001)), "larger than 1000 bytes"),
            (TRAIN, b"\xff\xff", "not a zstd body" if encoding else "truncated"),
        ):
            headers = {"content_type": PROTOBUF} | ({"content_encoding": encoding} if encoding else {})
            answer = await post(caller, path, body, **headers)
            assert answer.status_code == 422
            assert problem in answer.json()["detail"]
