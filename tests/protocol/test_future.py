from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.strategies import json_values
from tinker_actors.errors import RequestFailedError, SessionGoneError, TinkerError
from tinker_actors.protocol.future import MIN_HOLD, Answer, Done, Failed, PollAgain, Polling, decide

START = Polling("r1")


def again(answer: Answer, polling: Polling = START) -> PollAgain:
    command = decide(polling, answer)
    assert isinstance(command, PollAgain)
    return command


def failure(answer: Answer, polling: Polling = START) -> TinkerError:
    command = decide(polling, answer)
    assert isinstance(command, Failed)
    assert command.error.request_id == "r1"
    return command.error


@pytest.mark.parametrize(
    "body",
    [
        {"type": "create_model", "model_id": "m"},
        {"metrics": None},
        {},
        {"error": None, "path": "tinker://a/weights/b"},
        {"queue_state": "active"},
        [1, 2],
        None,
        "text",
    ],
    ids=repr,
)
def test_a_result_is_done(body: Any) -> None:
    """200 with anything but `try_again` and `error` is the result, as it came."""
    assert decide(Polling("r1", failures=3, bad_requests=2), Answer(status=200, body=body)) == Done(body)


@pytest.mark.parametrize("status", [200, 408])
def test_no_result_yet_is_polled_again_at_once(status: int) -> None:
    """The service has held the answer back; counts of failures begin anew."""
    body: Any = {"type": "try_again", "request_id": "r1", "queue_state": "active"}
    command = again(Answer(status=status, body=body, elapsed=30.0), Polling("r1", failures=5, bad_requests=3))
    assert command == PollAgain(0.0, START)


def test_a_408_needs_no_body() -> None:
    """Some services say it with the status alone."""
    assert again(Answer(status=408, body=None, elapsed=1.0)) == PollAgain(0.0, START)
    assert again(Answer(status=408, body="timeout", elapsed=1.0)) == PollAgain(0.0, START)


@pytest.mark.parametrize(
    ("state", "paused"),
    [
        ("active", None),
        ("paused_capacity", "paused_capacity"),
        ("paused_rate_limit", "paused_rate_limit"),
        ("something new", None),
        (7, None),
    ],
)
def test_a_pause_is_told_by_its_name(state: Any, paused: str | None) -> None:
    """What makes us wait reaches whoever asks what a run is waiting for."""
    body: Any = {"type": "try_again", "queue_state": state}
    assert again(Answer(status=200, body=body, elapsed=1.0)).paused == paused


@pytest.mark.parametrize(
    ("elapsed", "delay"), [(0.0, MIN_HOLD), (MIN_HOLD / 4, MIN_HOLD * 0.75), (MIN_HOLD, 0.0)]
)
def test_a_service_that_does_not_hold_is_not_asked_without_a_pause(elapsed: float, delay: float) -> None:
    """At most 20 polls a second."""
    answer = Answer(status=200, body={"type": "try_again"}, elapsed=elapsed)
    assert again(answer).delay == pytest.approx(delay)


@pytest.mark.parametrize(
    ("category", "expected"),
    [
        ("user", "user"),
        ("User", "user"),
        ("SERVER", "server"),
        ("Server", "server"),
        ("odd", "unknown"),
        (3, "unknown"),
    ],
)
def test_an_error_in_the_body_is_a_failed_request(category: Any, expected: str) -> None:
    """Whose fault it is, is read in any case of letters."""
    error = failure(Answer(status=200, body={"error": "bad rank", "category": category}))
    assert isinstance(error, RequestFailedError)
    assert (str(error), error.category, error.started) == ("bad rank", expected, True)


def test_an_error_without_category_or_text_is_one() -> None:
    """Whatever stands under `error` is shown."""
    error = failure(Answer(status=200, body={"error": {"code": 3}}))
    assert isinstance(error, RequestFailedError)
    assert (str(error), error.category) == ("{'code': 3}", "unknown")
    assert isinstance(
        failure(Answer(status=200, body={"type": "try_again", "error": "no"})), RequestFailedError
    )


def test_a_billing_pause_is_waited_out() -> None:
    """402 is asked again every 5 seconds, and the counts stay."""
    polling = Polling("r1", failures=2, bad_requests=1)
    assert again(Answer(status=402), polling) == PollAgain(5.0, polling, "billing")


@pytest.mark.parametrize("status", [404, 410])
def test_a_promise_that_is_gone_is_lost(status: int) -> None:
    """Both statuses mean that there will be no answer."""
    error = failure(Answer(status=status, body={"detail": "no such request"}))
    assert isinstance(error, SessionGoneError)
    assert error.status_code == status
    assert "no such request" in str(error)


def test_three_bad_requests_are_forgiven() -> None:
    """The fourth in a row is the outcome; any usable answer in between begins anew."""
    delays = []
    polling = START
    for _ in range(3):
        command = again(Answer(status=400, body={"detail": "x"}), polling)
        delays.append(command.delay)
        polling = command.polling
    assert delays == [1.0, 2.0, 4.0]
    error = failure(Answer(status=400, body={"detail": "not loaded"}), polling)
    assert type(error).__name__ == "BadRequestError"
    assert "not loaded" in str(error)
    renewed = again(Answer(status=408), polling).polling
    assert again(Answer(status=400), renewed).delay == 1.0


@pytest.mark.parametrize("status", [None, 429, 500, 502, 599])
def test_trouble_is_waited_out_with_growing_delays(status: int | None) -> None:
    """1, 2, 4 ... 30 seconds, without an end: a service that is away is a state, not a failure."""
    polling = Polling("r1", bad_requests=2)
    delays = []
    for _ in range(12):
        command = again(Answer(status=status, body="Internal Server Error"), polling)
        delays.append(command.delay)
        polling = command.polling
    assert delays == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0, 30.0, 30.0, 30.0, 30.0]
    assert polling == Polling("r1", failures=12, bad_requests=2)


@pytest.mark.parametrize(
    ("asked", "delay"), [(0.5, 0.5), (7.0, 7.0), (300.0, 30.0), (math.inf, 30.0), (0.0, 4.0), (None, 4.0)]
)
def test_what_the_service_asks_for_is_kept_up_to_half_a_minute(asked: float | None, delay: float) -> None:
    """Asking for no pause at all does not make us knock without one."""
    assert again(Answer(status=503, retry_after=asked), Polling("r1", failures=2)).delay == delay


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (401, "AuthenticationError"),
        (403, "PermissionDeniedError"),
        (409, "ConflictError"),
        (418, "APIStatusError"),
        (422, "UnprocessableEntityError"),
        (302, "APIStatusError"),
    ],
)
def test_other_statuses_are_the_outcome(status: int, name: str) -> None:
    """With the class of the status, its number and what the service said."""
    error: Any = failure(Answer(status=status, body={"detail": "expected 7, got 6"}))
    assert (type(error).__name__, error.status_code, error.body) == (
        name,
        status,
        {"detail": "expected 7, got 6"},
    )
    assert "expected 7, got 6" in str(error)


answers = st.builds(
    Answer,
    status=st.none() | st.integers(100, 599) | st.sampled_from([200, 400, 402, 404, 408, 410, 429, 500]),
    body=json_values
    | st.fixed_dictionaries(
        {},
        optional={
            "type": json_values | st.just("try_again"),
            "error": json_values,
            "category": json_values,
            "queue_state": json_values | st.just("paused_capacity"),
        },
    ),
    elapsed=st.floats(0, 1e6),
    retry_after=st.none() | st.floats(),
)
pollings = st.builds(Polling, st.just("r1"), failures=st.integers(0, 10**6), bad_requests=st.integers(0, 3))


@given(pollings, answers)
def test_any_answer_ends_the_wait_or_goes_on(polling: Polling, answer: Answer) -> None:
    """Whatever a service says: a result, a typed error, or another poll within half a minute; never a crash."""
    command = decide(polling, answer)
    if isinstance(command, Done):
        assert command.value == answer.body
    elif isinstance(command, Failed):
        assert isinstance(command.error, TinkerError)
        assert command.error.request_id == "r1"
    else:
        assert 0 <= command.delay <= 30
        assert command.polling.request_id == "r1"
        assert command.polling.bad_requests <= 3


@given(st.lists(answers, min_size=1, max_size=30))
def test_bad_requests_cannot_go_on_for_ever(several: list[Answer]) -> None:
    """In any sequence of answers, no more than three 400s pass between usable ones."""
    polling, bad = START, 0
    for answer in several:
        command = decide(polling, answer)
        if not isinstance(command, PollAgain):
            return
        usable = answer.status in (200, 408)
        bad = 0 if usable else bad + (answer.status == 400)
        assert command.polling.bad_requests == bad <= 3
        polling = command.polling
