from __future__ import annotations

import pytest

from tinker_actors.errors import DecodeError
from tinker_actors.wire.future import TryAgain
from tinker_actors.wire.payload import JSON, PROTOBUF, Payload, read
from tinker_actors.wire.service import HealthResponse


@pytest.mark.parametrize("content_type", [JSON, "application/json; charset=utf-8", "", "text/plain"])
def test_json_is_what_does_not_say_that_it_is_protobuf(content_type: str) -> None:
    """Services forget the content type, or have a reverse proxy that knows better."""
    payload = Payload(content_type, b'{"status":"ok"}')
    assert not payload.is_protobuf
    assert read(HealthResponse, payload) == HealthResponse("ok")


def test_json_is_read_as_strictly_as_asked() -> None:
    """Unknown fields are ignored unless they are forbidden."""
    payload = Payload(JSON, b'{"request_id":"1","type":"try_again","new":1}')
    assert read(TryAgain, payload).request_id == "1"
    with pytest.raises(DecodeError, match="unknown field: new"):
        read(TryAgain, payload, strict=True)


@pytest.mark.parametrize("content_type", [PROTOBUF, "Application/X-Protobuf; messageType=x"])
def test_protobuf_is_read_by_its_content_type(content_type: str) -> None:
    """Parameters and upper case do not matter; a class without this form is an error."""
    payload = Payload(content_type, b"")
    assert payload.is_protobuf
    with pytest.raises(DecodeError, match="no protobuf form"):
        read(HealthResponse, payload)


def test_what_a_payload_holds_is_not_in_its_repr() -> None:
    """It may have megabytes."""
    assert repr(Payload(PROTOBUF, bytes(9))) == "Payload(content_type='application/x-protobuf')"
