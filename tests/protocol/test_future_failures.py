"""How services say no, and what becomes of it: the dialects of failure, each to one typed error."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.protocol.answers import failure, raw, said
from tinker_actors.errors import (
    RequestFailedError,
    SessionGoneError,
)
from tinker_actors.protocol.future import (
    Answer,
    Polling,
)


@pytest.mark.requirement("R63", "R73", "R99")
@pytest.mark.parametrize(
    ("category", "expected"),
    [
        ("user", "user"),
        ("User", "user"),
        ("SERVER", "server"),
        ("Server", "server"),
        ("unknown", "unknown"),
        ("odd", "unknown"),
        (3, "unknown"),
        (None, "unknown"),
    ],
)
def test_an_error_in_the_body_is_a_failed_request(category: Any, expected: str) -> None:
    """Whose fault it is, is read in any case of letters; what nobody knows is unknown."""
    error = failure(said(200, {"error": "bad rank", "category": category}))
    assert isinstance(error, RequestFailedError)
    assert (str(error), error.category, error.started) == ("request r1 failed: bad rank", expected, True)


@pytest.mark.requirement("R74")
@pytest.mark.parametrize(("category", "retryable"), [("user", False), ("server", True), ("zzz", True)])
def test_only_what_is_not_the_users_fault_may_succeed_later(category: str, retryable: bool) -> None:
    """A policy may try the others again; this one is final at once."""
    assert failure(said(200, {"error": "x", "category": category})).retryable is retryable


def test_an_error_without_category_or_text_is_one() -> None:
    """Whatever stands under `error` is shown."""
    error = failure(said(200, {"error": {"code": 3}}))
    assert isinstance(error, RequestFailedError)
    assert (str(error), error.category) == ("request r1 failed: {'code': 3}", "unknown")
    assert isinstance(failure(said(200, {"type": "try_again", "error": "no"})), RequestFailedError)


FAILED = {
    "SkyRL, 400": (said(400, {"detail": "Maximum number reached"}), "BadRequestError", 400),
    "TuFT, 404": (said(404, {"detail": "Checkpoint not there"}), "NotFoundError", 404),
    "TuFT, 409": (said(409, {"detail": "expected 7, got 6"}), "ConflictError", 409),
    "TuFT, 422": (said(422, {"detail": "bad loss"}), "UnprocessableEntityError", 422),
    "open-rl, 400": (
        said(400, {"type": "RequestFailedResponse", "error_message": "no adapter"}),
        "RequestFailedError",
        None,
    ),
    "open-rl, silent": (said(400, {"type": "RequestFailedResponse"}), "RequestFailedError", None),
    "opentinker, 200": (said(200, {"error": "unknown", "category": "User"}), "RequestFailedError", None),
    "error_message, 200": (
        said(200, {"error_message": "no", "category": "user"}),
        "RequestFailedError",
        None,
    ),
    "with a category, 4xx": (said(409, {"error": "no", "category": "User"}), "RequestFailedError", None),
    "FastAPI, 422": (
        said(422, {"detail": [{"loc": ["body", "data", 0], "msg": "Field required", "type": "missing"}]}),
        "UnprocessableEntityError",
        422,
    ),
}


@pytest.mark.parametrize("name", FAILED)
def test_services_have_five_ways_to_say_no(name: str) -> None:
    """Each ends in a typed error that says what the service said."""
    answer, kind, status = FAILED[name]
    error = failure(answer, Polling("r1", bad_requests=3))
    assert type(error).__name__ == kind
    assert getattr(error, "status_code", None) == status


def test_what_pydantic_writes_is_read_for_people() -> None:
    """The place and the problem, one behind the other."""
    detail = [
        {"loc": ["body", "data", 0], "msg": "Field required"},
        {"loc": [], "msg": "odd"},
        {"msg": "bare"},
        "text",
        {"loc": ["x"]},
    ]
    text = str(failure(said(422, {"detail": detail})))
    assert text == (
        "request r1: error code 422 - body.data.0: Field required; odd; bare; text; {'loc': ['x']}"
    )


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (401, "AuthenticationError"),
        (403, "PermissionDeniedError"),
        (404, "NotFoundError"),
        (409, "ConflictError"),
        (418, "APIStatusError"),
        (422, "UnprocessableEntityError"),
        (302, "APIStatusError"),
    ],
)
def test_other_statuses_are_the_outcome(status: int, name: str) -> None:
    """With the class of the status, its number and what the service said."""
    error: Any = failure(said(status, {"detail": "expected 7, got 6"}, retry_after=3.0, should_retry=True))
    assert (type(error).__name__, error.status_code, error.body) == (
        name,
        status,
        {"detail": "expected 7, got 6"},
    )
    assert "expected 7, got 6" in str(error)
    assert (error.retry_after, error.should_retry) == (3.0, True)


def test_an_error_without_a_body_is_one() -> None:
    """Some services answer with the status alone, or with text."""
    bare: Any = failure(Answer(status=403))
    assert (bare.body, bare.status_code) == (None, 403)
    text: Any = failure(raw(403, b"Forbidden", "text/plain"))
    assert text.body == "Forbidden"


@pytest.mark.requirement("R109")
@pytest.mark.lesson("D42")
@pytest.mark.parametrize(
    ("status", "detail"),
    [
        (410, "broken"),
        (410, ""),
        (404, "Future 275 not found"),
        (404, "unknown request"),
        (404, "no such promise"),
    ],
)
def test_a_promise_that_is_gone_is_lost(status: int, detail: str) -> None:
    """There will be no answer; who may ask anew is told so."""
    error = failure(said(status, {"detail": detail}))
    assert isinstance(error, SessionGoneError)
    assert (error.status_code, error.retryable) == (status, True)
    assert detail in str(error)


@pytest.mark.requirement("R109")
@pytest.mark.parametrize(
    "answer",
    [
        said(200, {"error": "Unknown request_id r1", "category": "User"}),
        said(200, {"error": {"message": "unknown request: r1"}, "category": "server"}),
        said(200, {"error_message": "No such request"}),
        said(400, {"type": "RequestFailedResponse", "error_message": "request r1 not found"}),
        said(409, {"error": "Promise r1 has expired", "category": "User"}),
        said(400, {"detail": "Unknown request_id r1"}),
    ],
)
def test_a_failure_that_speaks_of_the_promise_is_a_lost_promise(answer: Answer) -> None:
    """Some services forget a result when it was read once; the second poll is told that the request is not known."""
    error: Any = failure(answer, Polling("r1", bad_requests=3))
    assert isinstance(error, SessionGoneError)
    assert (error.status_code, error.retryable) == (answer.status, True)
    assert error.body == orjson.loads(answer.payload.content)  # type: ignore[union-attr] # these have a body


def test_a_404_about_something_else_is_not_a_lost_promise() -> None:
    """It is how some services say that what was asked for does not exist."""
    error: Any = failure(said(404, {"detail": "no checkpoint 'a'"}))
    assert (type(error).__name__, error.retryable) == ("NotFoundError", False)
