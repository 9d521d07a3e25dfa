"""How long a promise is waited for, and what is said then."""

from __future__ import annotations

import pytest

from tests.protocol.answers import again, failure, raw, said
from tinker_actors.errors import (
    APIConnectionError,
    APITimeoutError,
)
from tinker_actors.protocol.future import (
    MIN_HOLD,
    Answer,
    FetchPayload,
    Polling,
    decide,
    overdue,
)


@pytest.mark.requirement("R108")
@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (said(200, {"type": "try_again"}), "no result yet"),
        (
            said(408, {"queue_state": "paused_capacity", "queue_state_reason": "no room"}),
            "no result yet, queue paused_capacity (no room)",
        ),
        (Answer(status=503), "status 503"),
        (said(402), "the account cannot be charged (status 402)"),
        (said(400, {"detail": "odd"}), "status 400 - odd"),
        (Answer(status=None, error=APIConnectionError("refused")), "refused"),
        (Answer(status=None), "no answer"),
        (raw(200, b"<html>", "text/html"), "an answer of content type text/html: <html>"),
    ],
)
def test_who_has_waited_long_enough_is_told_the_last_word(answer: Answer, word: str) -> None:
    """The error of the overall deadline says what the service had said until then."""
    error = overdue(again(answer).polling, 90.0).error
    assert isinstance(error, APITimeoutError)
    assert (error.request_id, error.doubtful, error.retryable) == ("r1", True, False)
    assert str(error) == f"request r1: no result within 90 s; the service's last word was: {word}"


def held(seconds: float, *, state: str = "active", status: int = 200) -> Answer:
    """Make an answer that says nothing, after it was held back for a while."""
    return said(status, {"type": "try_again", "queue_state": state}, elapsed=seconds)


@pytest.mark.parametrize("status", [200, 408])
def test_try_again_for_ever_has_an_end_where_it_says_nothing(status: int) -> None:
    """Some services answer so about a promise they do not know; then the patience with them ends."""
    polling = Polling("r1", patience=100.0)
    for count in range(1, 4):
        polling = again(held(30.0, status=status), polling).polling
        assert (polling.held, polling.patience) == (30.0 * count, 100.0)
    error = failure(held(30.0, status=status), polling)
    assert isinstance(error, APITimeoutError)
    assert error.doubtful
    assert "for 100 s" in str(error)
    assert "queue active" in str(error)


def test_a_poll_that_is_held_for_longer_than_we_wait_is_one_of_many() -> None:
    """Some services hold polls for minutes: we leave before, and come again at once; their silence uses up patience."""
    silence = Answer(status=None, elapsed=45.0, error=APITimeoutError("no answer in time", doubtful=True))
    polling = Polling("r1", bad_requests=1, patience=100.0)
    for count in range(1, 3):
        command = again(silence, polling)
        polling = command.polling
        assert (command.delay, polling.held, polling.failures, polling.bad_requests) == (
            0.0,
            45.0 * count,
            count,
            1,
        )
    error = failure(silence, polling)
    assert isinstance(error, APITimeoutError)
    assert "no answer in time, for 100 s" in str(error)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(status=None, elapsed=5.0, error=APITimeoutError("no connection in time", doubtful=False)),
        Answer(status=None, elapsed=45.0, error=APITimeoutError("no connection in time", doubtful=False)),
        Answer(status=None, elapsed=45.0, error=APIConnectionError("broken off", doubtful=True)),
        Answer(status=None, elapsed=1.0, error=APITimeoutError("no answer in time", doubtful=True)),
    ],
)
def test_a_service_that_is_not_reached_is_not_holding_anything(answer: Answer) -> None:
    """It is asked again after growing delays, and nothing is learned of the promise."""
    command = again(answer, Polling("r1", failures=2, held=90.0, patience=100.0))
    assert (command.delay, command.polling.held) == (4.0, 90.0)


def test_what_says_that_the_promise_is_known_renews_the_patience() -> None:
    """A pause of its queue, or the size of its result; trouble on the way neither counts nor renews it."""
    polling = Polling("r1", metadata_first=True, held=90.0, patience=100.0)
    for answer in (Answer(status=503, elapsed=30.0), Answer(status=None), said(400), raw(200, b"<html>")):
        assert again(answer, polling).polling.held == 90.0
    paused = again(held(30.0, state="paused_capacity"), polling).polling
    assert (paused.held, paused.patience) == (0.0, 100.0)
    fetch = decide(polling, said(200, {"status": "complete_metadata", "response_payload_size": 9}))
    assert isinstance(fetch, FetchPayload)
    assert (fetch.polling.held, fetch.polling.patience) == (0.0, 100.0)


def test_a_service_that_does_not_hold_uses_up_the_patience_by_our_pauses() -> None:
    """The time between polls counts as well."""
    assert again(held(0.0), Polling("r1", patience=100.0)).polling.held == MIN_HOLD


def test_without_that_patience_has_no_end() -> None:
    """A queue may be long."""
    assert again(held(30.0), Polling("r1", held=1e9)).delay == 0.0
