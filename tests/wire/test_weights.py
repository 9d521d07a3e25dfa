from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import attrs
import pytest

from tests.wire.refusals import refusal
from tinker_actors.wire.codec import decode
from tinker_actors.wire.weights import (
    CheckpointArchiveUrlResponse,
    CopyWeightsRequest,
    ExternalWeightsUrlsResponse,
    LoadWeightsRequest,
    SaveWeightsExternalRequest,
    SaveWeightsForSamplerResponse,
    SaveWeightsForSamplerResult,
)


@pytest.mark.parametrize(
    "place",
    [{"model_id": "m", "seq_id": 1}, {"session_id": "s", "model_seq_id": 0}],
    ids=["model", "session"],
)
def test_weights_are_loaded_into_a_model_or_make_one(place: dict[str, Any]) -> None:
    """Both ways to say where to are good."""
    request = LoadWeightsRequest(path="p", optimizer=True, **place)
    assert {name: value for name, value in attrs.asdict(request).items() if name in place} == place


@pytest.mark.parametrize(
    "place",
    [
        {},
        {"model_id": "m"},
        {"seq_id": 1},
        {"session_id": "s"},
        {"model_id": "m", "model_seq_id": 1},
        {"model_id": "m", "seq_id": 1, "session_id": "s"},
        {"model_id": "m", "seq_id": 1, "session_id": "s", "model_seq_id": 0},
    ],
    ids=range(7),
)
def test_it_must_be_said_where_weights_are_loaded_to(place: dict[str, Any]) -> None:
    """In one way, and in full."""
    assert refusal(LoadWeightsRequest, path="p", optimizer=True, **place) == (
        "model_id",
        place.get("model_id"),
    )


@pytest.mark.requirement("R90", "R11")
def test_users_see_only_the_path_of_weights_for_sampling() -> None:
    """The sampling session of unnamed ones is for the client that is made of it."""
    assert [field.name for field in attrs.fields(SaveWeightsForSamplerResponse)] == ["path"]
    body = b'{"path":null,"sampling_session_id":"s:sample:0"}'
    result = decode(SaveWeightsForSamplerResult, body, strict=True)
    assert (result.path, result.sampling_session_id) == (None, "s:sample:0")


def test_at_most_ten_can_be_let_read() -> None:
    """The eleventh is refused here."""
    request = SaveWeightsExternalRequest(model_id="m", path="p", age_encryption_recipients=("a",) * 10)
    assert len(request.age_encryption_recipients or ()) == 10
    many = {"model_id": "m", "path": "p", "age_encryption_recipients": ("a",) * 11}
    assert refusal(SaveWeightsExternalRequest, **many) == ("age_encryption_recipients", 11)


def test_tokens_and_signed_urls_are_not_shown() -> None:
    """Whoever reads the log cannot read the weights."""
    secret = "s3cret"
    values = [
        LoadWeightsRequest(model_id="m", seq_id=1, path="p", optimizer=True, weights_access_token=secret),
        CopyWeightsRequest(source_path="p", weights_access_token=secret),
        ExternalWeightsUrlsResponse({"a": secret}, "2026-01-01T00:00:00Z"),
        CheckpointArchiveUrlResponse(secret),
    ]
    assert [value for value in values if secret in repr(value)] == []


def test_urls_say_until_when_they_hold() -> None:
    """As an aware time; the archive's need not say it."""
    answer = decode(
        ExternalWeightsUrlsResponse, b'{"urls":{},"expires":"2026-01-01T00:00:00Z"}', strict=False
    )
    assert answer.expires == datetime(2026, 1, 1, tzinfo=UTC)
    assert decode(CheckpointArchiveUrlResponse, b'{"url":"u","expires":null}', strict=True).expires is None
