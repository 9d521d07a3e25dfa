"""What an answer to a poll means. Pure.

    answer                                  then
    200 with a result                       done
    200 `try_again`, 408                    poll again at once: the service holds the answer back by itself
    200 with an `error` that is not null    the request failed
    402                                     poll again in 5 s
    404, 410                                the promise is lost
    400                                     poll again, three times; then the request failed
    429, 5xx, no answer                     poll again after a growing delay, or after what the service asked for
    anything else                           the request failed

A service holds a poll for as long as there is no result, so polling again at once makes no busy loop. Some do not
hold: after an answer that came sooner than `MIN_HOLD` seconds, the rest of these is waited for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

import attrs

from tinker_actors.errors import RequestFailedError, SessionGoneError, TinkerError, status_error_class
from tinker_actors.wire.codec import JsonValue

__all__ = ["MIN_HOLD", "Answer", "Command", "Done", "Failed", "PollAgain", "Polling", "decide"]

MIN_HOLD = 0.05  # seconds; a service that answers `try_again` faster is asked at most 20 times a second
_BAD_REQUEST_BUDGET = 3  # tinker 0.38.0 lib/api_future_impl.py
_BILLING_PAUSE = 5.0
_MAX_DELAY = 30.0  # tinker 0.38.0 lib/api_future_impl.py
_Category: TypeAlias = Literal["unknown", "server", "user"]
_CATEGORIES: Mapping[str, _Category] = {"server": "server", "user": "user"}


@attrs.frozen
class Polling:
    """How far the polling of one promise has come.

    Attributes:
        request_id: the promise.
        failures: polls without a usable answer since the last usable one.
        bad_requests: answers with status 400 since the last usable one.
    """

    request_id: str
    failures: int = 0
    bad_requests: int = 0


@attrs.frozen(kw_only=True)
class Answer:
    """What one poll brought.

    Attributes:
        status: HTTP status; None if no complete answer was read.
        body: the answer's JSON value.
        elapsed: seconds the poll took.
        retry_after: seconds the service asked to wait.
    """

    status: int | None
    body: JsonValue = None
    elapsed: float = 0.0
    retry_after: float | None = None


@attrs.frozen
class Done:
    """The result is there."""

    value: JsonValue


@attrs.frozen
class Failed:
    """There will be no result."""

    error: TinkerError


@attrs.frozen
class PollAgain:
    """Poll again after `delay` seconds; `paused` names the service's reason to make us wait, if it gave one."""

    delay: float
    polling: Polling
    paused: str | None = None


Command: TypeAlias = Done | Failed | PollAgain


def decide(polling: Polling, answer: Answer) -> Command:
    """Decide about one answer; the table stands at the head of the module."""
    body = answer.body if isinstance(answer.body, dict) else {}
    match answer.status:
        case 200 if body.get("error") is not None:
            return Failed(_request_failed(polling.request_id, body))
        case 200 if body.get("type") != "try_again":
            return Done(answer.body)
        case 200 | 408:
            return _hold(polling, answer, body)
        case 402:
            return PollAgain(_BILLING_PAUSE, polling, "billing")
        case 400 if polling.bad_requests < _BAD_REQUEST_BUDGET:
            again = attrs.evolve(polling, bad_requests=polling.bad_requests + 1)
            return PollAgain(_growing(polling.bad_requests), again)
        case None | 429:
            return _later(polling, answer)
        case status if status >= 500:
            return _later(polling, answer)
        case status:
            return Failed(_status_error(polling, status, answer.body))


def _hold(polling: Polling, answer: Answer, body: dict[str, JsonValue]) -> PollAgain:
    state = body.get("queue_state")
    paused = state if isinstance(state, str) and state.startswith("paused") else None
    return PollAgain(max(0.0, MIN_HOLD - answer.elapsed), Polling(polling.request_id), paused)


def _later(polling: Polling, answer: Answer) -> PollAgain:
    asked = answer.retry_after
    delay = asked if asked is not None and asked > 0 else _growing(polling.failures)
    return PollAgain(min(delay, _MAX_DELAY), attrs.evolve(polling, failures=polling.failures + 1))


def _growing(count: int) -> float:
    return float(min(2 ** min(count, 10), _MAX_DELAY))


def _request_failed(request_id: str, body: dict[str, JsonValue]) -> RequestFailedError:
    named = str(body.get("category", "")).lower()  # some services write it with a capital letter
    category = _CATEGORIES.get(named, "unknown")
    return RequestFailedError(str(body["error"]), request_id=request_id, category=category)


def _status_error(polling: Polling, status: int, body: JsonValue) -> TinkerError:
    if status in (404, 410):
        message = f"the promise {polling.request_id!r} is lost: {body}"
        error: TinkerError = SessionGoneError(message, status_code=status, body=body)
    else:
        error = status_error_class(status)(f"Error code: {status} - {body}", status_code=status, body=body)
    error.request_id = polling.request_id
    return error
