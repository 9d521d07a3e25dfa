"""What a request carries."""

from __future__ import annotations

from typing import Any

import attrs
import orjson
import pytest

from tinker_actors.errors import InputError
from tinker_actors.protocol.capability import CapabilityRecord
from tinker_actors.transport import body as bodies
from tinker_actors.transport import build
from tinker_actors.transport.body import NO_BODY, Body, compressed, form, make_body
from tinker_actors.wire import protobuf
from tinker_actors.wire.compression import decompress
from tinker_actors.wire.input import ModelInput
from tinker_actors.wire.model import GetInfoRequest
from tinker_actors.wire.payload import JSON, PROTOBUF
from tinker_actors.wire.sampling import SampleRequest, SamplingParams
from tinker_actors.wire.service import Empty

JSON_SERVICE = CapabilityRecord()
PROTOBUF_SERVICE = CapabilityRecord(training_body="protobuf")


def test_each_kind_of_request_has_its_body() -> None:
    """Nothing, bytes, JSON values and wire objects."""
    assert make_body(Empty(), {}, JSON_SERVICE) is NO_BODY
    assert make_body(b"x", {}, JSON_SERVICE) == Body(b"x", "application/octet-stream")
    assert make_body({"a": [1]}, {}, JSON_SERVICE) == Body(b'{"a":[1]}', JSON)
    assert make_body(GetInfoRequest("m"), {}, PROTOBUF_SERVICE) == Body(
        b'{"model_id":"m","type":"get_info"}', JSON
    )
    own = Body(b"y", "text/plain")
    assert make_body(own, {}, JSON_SERVICE) is own


@pytest.mark.requirement("R173")
def test_further_members_lie_over_those_of_the_type() -> None:
    """Members of a call replace those of the same name; without a body they are the body."""
    body = make_body(GetInfoRequest("m"), {"model_id": "n", "more": {"a": 1}}, JSON_SERVICE)
    assert orjson.loads(body.content) == {"model_id": "n", "type": "get_info", "more": {"a": 1}}
    assert make_body(Empty(), {"a": 1}, JSON_SERVICE) == Body(b'{"a":1}', JSON)


@pytest.mark.requirement("R173")
@pytest.mark.parametrize("request_", [b"x", [1], Body(b"y", "text/plain")])
def test_members_need_an_object(request_: Any) -> None:
    """There is nothing to merge them into, and that is told."""
    with pytest.raises(InputError, match=r"options\.json"):
        make_body(request_, {"a": 1}, JSON_SERVICE)


def test_training_batches_go_out_in_the_form_the_service_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protobuf where the service takes it and the message has it; JSON if members are to be merged."""
    monkeypatch.setattr(protobuf, "MESSAGES", frozenset({GetInfoRequest}))
    monkeypatch.setattr(protobuf, "encode", lambda value: b"proto " + value.model_id.encode())
    assert make_body(GetInfoRequest("m"), {}, PROTOBUF_SERVICE) == Body(b"proto m", PROTOBUF)
    assert make_body(GetInfoRequest("m"), {}, JSON_SERVICE).content_type == JSON
    assert make_body(GetInfoRequest("m"), {"a": 1}, PROTOBUF_SERVICE).content_type == JSON


@pytest.mark.parametrize("size", [bodies.LEAST_BYTES, bodies.THREAD_BYTES])
async def test_long_bodies_are_compressed(size: int) -> None:
    """As zstd, in a thread if they are very long, and so that the service can undo it."""
    body = await compressed(Body(b"a" * size, PROTOBUF))
    assert (body.encoding, body.content_type) == ("zstd", PROTOBUF)
    assert decompress(body.content, "zstd", limit=size) == b"a" * size


async def test_without_the_extra_bodies_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that asks for compression takes bodies without it, too; and answers are not asked for as zstd."""
    monkeypatch.setattr(bodies, "knows_zstd", lambda: False)
    monkeypatch.setattr(build, "knows_zstd", lambda: False)
    long = Body(b"a" * 5000, PROTOBUF)
    assert await compressed(long) is long
    assert build.accepted_encodings() == "gzip, deflate"


def test_newer_fields_go_to_services_that_know_them() -> None:
    """Others get them only where they were set."""
    request = SampleRequest(prompt=ModelInput.from_ints([1]), sampling_params=SamplingParams(max_tokens=1))
    older, newer = (
        orjson.loads(make_body(request, {}, CapabilityRecord(newer_fields=known)).content)
        for known in (False, True)
    )
    assert newer["prompt_alt_tokens_k"] == 0
    assert set(newer) > set(older)


async def test_short_and_compressed_bodies_stay_as_they_are() -> None:
    """It would not be worth it, or has been done."""
    short = Body(b"a", PROTOBUF)
    assert await compressed(short) is short
    done = attrs.evolve(short, content=b"a" * 5000, encoding="zstd")
    assert await compressed(done) is done


@pytest.mark.requirement("R48")
def test_a_form_has_fields_and_files() -> None:
    """Httpx draws the boundary; fields that are None are left out."""
    body = form(
        {"a": "1", "b": [True, "x"], "c": None}, {"file": ("name.bin", b"\x00\x01", "application/x-bin")}
    )
    assert body.content_type is not None
    kind, _, boundary = body.content_type.partition("; boundary=")
    assert kind == "multipart/form-data"
    assert boundary.encode() in body.content
    for part in (
        b'name="a"\r\n\r\n1',
        b'name="b"\r\n\r\ntrue',
        b'name="b"\r\n\r\nx',
        b'filename="name.bin"',
        b"\x00\x01",
    ):
        assert part in body.content
    assert b'name="c"' not in body.content


def test_a_form_holds_plain_values() -> None:
    """A mapping has no form here; the field is told."""
    with pytest.raises(InputError, match="a = "):
        form({"a": {"b": 1}}, {"f": b""})


def test_a_body_is_not_shown() -> None:
    """It may be long, and private."""
    assert "hush" not in repr(Body(b"hush", JSON))
