from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.wire.refusals import refusal
from tinker_actors.wire.codec import encode, structure
from tinker_actors.wire.model import CreateModelRequest
from tinker_actors.wire.sampling import CreateSamplingSessionRequest
from tinker_actors.wire.session import (
    ClientFinishedStatusQuery,
    CreateSessionRequest,
    FinishReason,
    OwnSearchOwner,
    RequestReason,
    SessionClientFinished,
    SessionFailed,
    SessionSearchRequest,
    SessionSummary,
    TraceExportResponse,
    UserSearchOwner,
)


@pytest.mark.requirement("R98")
def test_what_belongs_to_a_session_says_which_and_has_a_number_there() -> None:
    """A model and a sampling session; the session itself is made without either."""
    made = [
        CreateModelRequest(session_id="s", model_seq_id=2, base_model="b"),
        CreateSamplingSessionRequest(session_id="s", sampling_session_seq_id=3, base_model="b"),
    ]
    bodies = [orjson.loads(encode(request)) for request in made]
    assert [
        (body["session_id"], body.get("model_seq_id", body.get("sampling_session_seq_id"))) for body in bodies
    ] == [
        ("s", 2),
        ("s", 3),
    ]


def test_a_session_has_metadata_although_none_is_given() -> None:
    """Some services want the field to be there."""
    request = CreateSessionRequest(tags=(), sdk_version="1")
    assert orjson.loads(encode(request)) == {
        "tags": [],
        "user_metadata": {},
        "sdk_version": "1",
        "type": "create_session",
    }


def test_a_search_is_for_ones_own_sessions_unless_it_is_said() -> None:
    """Fifty of them."""
    request = SessionSearchRequest()
    assert (request.owner, request.limit, request.user_metadata) == (OwnSearchOwner(), 50, {})
    assert orjson.loads(encode(request)) == {"user_metadata": {}, "owner": {"type": "own"}, "limit": 50}
    narrow = SessionSearchRequest(
        owner=UserSearchOwner(("a",)), statuses=(ClientFinishedStatusQuery(reasons=("errored",)),)
    )
    body = orjson.loads(encode(narrow))
    assert body["owner"] == {"type": "user", "owner_urns": ["a"]}
    assert body["statuses"] == [{"type": "client_finished", "reasons": ["errored"]}]
    assert structure(SessionSearchRequest, body, strict=True) == narrow


@pytest.mark.parametrize(
    ("make", "fields", "field"),
    [
        (SessionSearchRequest, {"limit": 0}, "limit"),
        (SessionSearchRequest, {"limit": 201}, "limit"),
        (SessionSearchRequest, {"display_name": ""}, "display_name"),
        (SessionSearchRequest, {"statuses": ()}, "statuses"),
        (ClientFinishedStatusQuery, {"reasons": ()}, "reasons"),
        (UserSearchOwner, {"owner_urns": ()}, "owner_urns"),
        (UserSearchOwner, {"owner_urns": ("a",) * 11}, "owner_urns"),
    ],
    ids=range(7),
)
def test_a_search_that_no_service_takes_is_refused(make: Any, fields: dict[str, Any], field: str) -> None:
    """By the field."""
    assert refusal(make, **fields) == (field, fields[field])


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (
            {
                "type": "failed",
                "category": "user",
                "reason": {"type": "request", "request_id": "r", "request_type": "Sample"},
                "message": "m",
            },
            SessionFailed(
                category="user", reason=RequestReason(request_id="r", request_type="Sample"), message="m"
            ),
        ),
        (
            {"type": "client_finished", "reason": {"type": "success"}},
            SessionClientFinished(reason=FinishReason("success")),
        ),
    ],
    ids=["failed", "finished"],
)
def test_how_a_session_fares_is_one_of_several_things(value: Any, status: object) -> None:
    """Told apart by their types, also those of what failed."""
    summary = {
        "session_id": "s",
        "created_at": "now",
        "owner": "o",
        "project_id": "p",
        "checkpoints_count": 0,
    }
    assert structure(SessionSummary, {**summary, "status": value}, strict=True).status == status


def test_the_url_of_a_trace_is_not_shown() -> None:
    """Whoever has it can read the trace."""
    assert "secret" not in repr(TraceExportResponse(status="ready", url="https://secret"))
