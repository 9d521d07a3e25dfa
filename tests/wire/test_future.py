from __future__ import annotations

from tests.wire.refusals import problems_of
from tinker_actors.wire.codec import structure
from tinker_actors.wire.future import (
    CompleteMetadata,
    FutureFailed,
    FutureFinished,
    RequestFailed,
    RetrieveFuturesRequest,
    RetrieveFuturesResponse,
    SamplingSessionTarget,
    TryAgain,
)


def test_answers_to_a_poll_have_their_marks() -> None:
    """What tells them apart is there without being asked for."""
    assert TryAgain("r").type == "try_again"
    assert TryAgain("r").queue_state == "active"
    assert RequestFailed("no").category == "unknown"
    assert CompleteMetadata(3).status == "complete_metadata"


def test_only_what_says_so_announces_a_result() -> None:
    """An object that happens to have a size is no announcement."""
    assert problems_of(CompleteMetadata, {"response_payload_size": 3}, strict=False) == [
        "required field missing: status @ $"
    ]


def test_many_promises_are_asked_for_from_the_start() -> None:
    """Those of the client that opened the session, unless it is said."""
    request = RetrieveFuturesRequest(target=SamplingSessionTarget(sampling_session_id="s"))
    assert (request.prev_cursor, request.timeout, request.retrieved_request_ids) == (0, None, ())
    assert request.target.cloned_sampler_id == 0


def test_a_state_that_is_not_known_spoils_no_answer() -> None:
    """The other completions are read; one without any state is refused."""
    body = {
        "completions": [
            {"state": "finished", "request_id": "a", "response_payload_uncompressed_size": 3},
            {"state": "cancelled", "request_id": "b"},
            {"state": "failed", "request_id": "c"},
        ],
        "cursor": 3,
    }
    assert structure(RetrieveFuturesResponse, body, strict=True).completions == (
        FutureFinished(request_id="a", response_payload_uncompressed_size=3),
        {"state": "cancelled", "request_id": "b"},
        FutureFailed(request_id="c"),
    )
    without = {"completions": [{"request_id": "b"}], "cursor": 1}
    assert problems_of(RetrieveFuturesResponse, without, strict=False) == [
        "required field missing: state @ $.completions[0]"
    ]
