"""An answer's body as a value."""

from __future__ import annotations

from typing import Any

import pytest

from tinker_actors.errors import APIResponseValidationError
from tinker_actors.transport.parsing import parse
from tinker_actors.wire.model import GetInfoResponse
from tinker_actors.wire.payload import JSON, Payload
from tinker_actors.wire.service import Empty

TEXT = "text/plain"


@pytest.mark.requirement("R64")
@pytest.mark.parametrize(
    ("kind", "content_type", "content", "value"),
    [
        (Empty, TEXT, b"anything", Empty()),
        (None, TEXT, b"anything", None),
        (type(None), TEXT, b"anything", None),
        (bytes, TEXT, b"\xff", b"\xff"),
        (str, TEXT, b"a", "a"),
        (str, "text/plain; charset=latin-1", b"\xe9", "é"),
        (int, TEXT, b" 3\n", 3),
        (float, TEXT, b"1.5", 1.5),
        (bool, TEXT, b"True", True),
        (bool, JSON, b"false", False),
        (object, JSON, b'{"a": 1}', {"a": 1}),
        (object, TEXT, b"{}", {}),
        (object, TEXT, b"hello", "hello"),
        (Any, JSON, b"[1]", [1]),
        (dict, JSON, b'{"a": 1}', {"a": 1}),
        (list, JSON, b"[1, 2]", [1, 2]),
        (list[int], JSON, b"[1, 2]", [1, 2]),
        (dict[str, float], JSON, b'{"a": 1.5}', {"a": 1.5}),
        (Payload, TEXT, b"x", Payload(TEXT, b"x")),
    ],
)
def test_each_type_has_its_reading(kind: Any, content_type: str, content: bytes, value: object) -> None:
    """Plain types from text, mappings and lists from JSON, anything as JSON if it is some."""
    assert parse(kind, Payload(content_type, content), strict=False, what="call") == value


@pytest.mark.requirement("R64")
def test_a_wire_type_is_read_as_json_whatever_the_header_says() -> None:
    """Some services forget the content type."""
    content = b'{"model_id": "m", "model_data": {}}'
    assert parse(GetInfoResponse, Payload("", content), strict=False, what="call").model_id == "m"


@pytest.mark.requirement("R62")
@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (int, b"three"),
        (float, b""),
        (bool, b"1"),
        (dict, b"[]"),
        (list, b"{}"),
        (dict, b"<html>"),
        (list[int], b'["a"]'),
        (GetInfoResponse, b"<html>"),
        (GetInfoResponse, b'{"model_id": 3, "model_data": {}}'),
    ],
)
def test_another_shape_is_a_typed_error(kind: Any, content: bytes) -> None:
    """What is wrong is told, with the call's name."""
    with pytest.raises(APIResponseValidationError, match="call: ") as caught:
        parse(kind, Payload(JSON, content), strict=False, what="call")
    assert caught.value.problems


@pytest.mark.requirement("R62", "R175")
def test_strictness_can_be_switched() -> None:
    """Off, unknown fields are ignored; on, they are an error with their path."""
    payload = Payload(JSON, b'{"model_id": "m", "model_data": {"new": 1}}')
    assert parse(GetInfoResponse, payload, strict=False, what="call").model_id == "m"
    with pytest.raises(APIResponseValidationError, match="model_data") as caught:
        parse(GetInfoResponse, payload, strict=True, what="call")
    assert any("new" in problem for problem in caught.value.problems)
