"""What an answer to a poll means. Pure.

    answer                                        then
    200 protobuf, 200 with a JSON object          done
    200 `try_again` or `pending`, 408             poll again at once: the service holds the answer back by itself
    200 `complete_metadata`                       fetch the result itself, once there is room for it
    200 the same again, when fetching             the answer is invalid
    200 `error`, `error_message`, `failed`        the request failed; the same in a 4xx
    any of these that does not know the promise   the promise is lost
    200 JSON that is no object                    the answer is invalid
    200 that cannot be read (HTML, empty)         poll again, three times; then the answer is invalid
    400                                           poll again, three times; then the request was bad
    400 without a body, or that may be retried    as 5xx: it comes from something before the service
    402                                           poll again after a pause, within the billing window
    404 that speaks of the promise, 410           the promise is lost
    429, 5xx, no answer                           poll again after a growing delay, or after what the service asked
    any other status                              the error of that status

    a result in protobuf that cannot be read      the same: it may have been cut short, as JSON may
    a result in JSON of another shape             the answer is invalid

The last two show when the result is read, which is done once, by who knows what was promised (`take`).

Every 2xx counts as a 200. A result and a 408 make the counts begin anew. A service holds a poll for as long as there
is no result, so polling again at once makes no busy loop; some do not hold: after an answer that came sooner than
`MIN_HOLD` seconds, the rest of these is waited for. A 408 that keeps coming at once, without a word of a queue, is a
proxy's whose service is away: after `_QUICK` of them the pauses grow.

Two services answer `try_again` for ever about a promise they do not know. Who waits may therefore set an end; the
error then carries the service's last word. If he has not, there is an end for services that are known for this
(`Polling.patience`): so much time with nothing but this answer, the pauses of a queue left out, which tell that the
promise is known.
"""

from __future__ import annotations

import re
from typing import Generic, Literal, TypeAlias, TypeVar, cast

import attrs
import orjson

from tinker_actors.errors import (
    APIResponseValidationError,
    APITimeoutError,
    DecodeError,
    TinkerError,
    status_error_class,
)
from tinker_actors.protocol.failure import excerpt, explain, failed_request, promise_lost
from tinker_actors.protocol.queue_state import ACTIVE
from tinker_actors.wire.codec import JsonValue
from tinker_actors.wire.payload import JSON, Payload, read

__all__ = [
    "MIN_HOLD",
    "Answer",
    "Command",
    "Done",
    "Failed",
    "FetchPayload",
    "PollAgain",
    "Polling",
    "QueueReport",
    "Result",
    "Waiting",
    "decide",
    "overdue",
    "take",
]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

MIN_HOLD = 0.05  # seconds; a service that answers `try_again` faster is asked at most 20 times a second
_QUICK = 20  # answers 408 in a row that came at once, which is a second's worth of them
_BUDGET = 3  # bad requests and unreadable answers; tinker 0.38.0 lib/api_future_impl.py
_SHORT_DELAY = 0.25  # seconds before the first poll after one of them; the next ones wait twice as long
_MAX_DELAY = 30.0  # seconds; tinker 0.38.0 lib/api_future_impl.py
_LONG_HOLD = 30.0  # seconds; the shortest time for which services hold a poll, and the longest is 300
# What stands in every answer that is not a result. Results are long and hardly ever hold one of these, so they are not
# parsed here to find that out.
_MARK = re.compile(rb'"(?:error|try_again|status)')

Waiting: TypeAlias = Literal["result", "billing", "limit", "service"]
"""What a poll waits for: the result, the account, the end of a rate limit, a service that answers."""


@attrs.frozen
class QueueReport:
    """What a service says about the queue a request stands in.

    Attributes:
        state: `active`, `paused_capacity`, `paused_rate_limit`, or what a newer service calls it.
        reason: its words for it.
    """

    state: str
    reason: str | None = None

    @property
    def is_paused(self) -> bool:
        """Whether nothing of it runs."""
        return self.state.startswith("paused")


@attrs.frozen
class Polling:
    """How far the polling of one promise has come.

    Attributes:
        request_id: the promise.
        iteration: polls answered so far.
        metadata_first: the service may answer with the size of the result in place of the result.
        failures: polls without a usable answer since the last usable one.
        bad_requests: answers with status 400 since then.
        unreadable: answers with status 200 that are none, since then.
        last_word: what the last answer said, in a few words.
        held: seconds in which there was no answer that tells whether the service knows the promise.
        patience: how many of these there may be; None: as many as it takes.
        quick: answers 408 in a row that came at once and said nothing of a queue.
    """

    request_id: str
    iteration: int = 0
    metadata_first: bool = False
    failures: int = 0
    bad_requests: int = 0
    unreadable: int = 0
    last_word: str = "none"
    held: float = 0.0
    patience: float | None = None
    quick: int = 0


@attrs.frozen(kw_only=True)
class Answer:
    """What one poll brought.

    Attributes:
        status: HTTP status; None if no complete answer was read.
        payload: the body.
        elapsed: seconds the poll took.
        retry_after: seconds the service asked to wait.
        should_retry: what the service said about trying again.
        error: why no complete answer was read.
    """

    status: int | None
    payload: Payload | None = None
    elapsed: float = 0.0
    retry_after: float | None = None
    should_retry: bool | None = None
    error: Exception | None = None


@attrs.frozen
class Done:
    """The result is there; it has not been decoded."""

    payload: Payload


@attrs.frozen
class Result(Generic[T_co]):
    """The result, read."""

    value: T_co


@attrs.frozen
class Failed:
    """There will be no result."""

    error: TinkerError


@attrs.frozen
class PollAgain:
    """Poll again after `delay` seconds.

    Attributes:
        delay: seconds.
        polling: how far it has come.
        waiting: for what.
        queue: what the service said about its queue, if it did.
    """

    delay: float
    polling: Polling
    waiting: Waiting = "result"
    queue: QueueReport | None = None


@attrs.frozen
class FetchPayload:
    """The result is there and has `size` bytes: poll again, once there is room for them."""

    size: int
    polling: Polling


Command: TypeAlias = Done | Failed | PollAgain | FetchPayload


def decide(polling: Polling, answer: Answer, *, pause: float | None = None) -> Command:
    """Decide about one answer; the table stands at the head of the module.

    Args:
        polling: how far the polling of the promise has come.
        answer: what the poll brought.
        pause: after a 402: seconds to wait, as `BillingPause` says; None if its window is over.
    """
    payload = answer.payload
    if answer.status is not None and 200 <= answer.status < 300 and payload is not None:
        if payload.is_protobuf or _is_plain_object(payload.content):
            return Done(payload)
        return _judge_body(polling, answer, payload)
    return _judge_status(attrs.evolve(polling, iteration=polling.iteration + 1), answer, pause)


def take(polling: Polling, payload: Payload, kind: type[T]) -> Result[T] | PollAgain | Failed:
    """Read a result that `decide` has found; one that cannot be read may be asked for again.

    Args:
        polling: as it was for `decide`.
        payload: the result.
        kind: the wire class that was promised.
    """
    try:
        return Result(read(kind, payload))
    except DecodeError as error:
        polling = attrs.evolve(polling, iteration=polling.iteration + 1)
        if payload.is_protobuf or _json(payload.content) is None:
            return _unreadable(polling, payload, error)
        return _invalid(polling, str(error), error)


def overdue(polling: Polling, seconds: float) -> Failed:
    """Return the outcome of a promise that was waited for long enough."""
    why = f"no result within {seconds:g} s; the service's last word was: {polling.last_word}"
    return _timed_out(polling, why, retryable=False)


def _timed_out(polling: Polling, why: str, *, retryable: bool = True) -> Failed:
    error = APITimeoutError(f"request {polling.request_id}: {why}", doubtful=True, retryable=retryable)
    error.request_id = polling.request_id
    return Failed(error)


# --- answers with a body that may be a result -------------------------------------------------------------


def _is_plain_object(content: bytes) -> bool:
    """Whether it looks like a JSON object that is a result; only what may be something else is parsed here."""
    return content[:1] == b"{" and content[-1:] == b"}" and _MARK.search(content) is None


def _judge_body(polling: Polling, answer: Answer, payload: Payload) -> Command:
    polling = attrs.evolve(polling, iteration=polling.iteration + 1)
    known = _json(payload.content)
    if known is None:
        return _unreadable(polling, payload)
    body = known[0]
    if not isinstance(body, dict):
        return _invalid(polling, f"the answer is no JSON object: {excerpt(payload)}")
    failure = failed_request(polling.request_id, body, 200)
    if failure is not None:
        return Failed(failure)
    if body.get("type") == "try_again" or body.get("status") == "pending":
        return _hold(polling, answer, body)
    if body.get("status") == "complete_metadata":
        return _fetch(polling, body.get("response_payload_size"))
    if body.get("status") == "completed" and "result" in body:
        return Done(Payload(JSON, orjson.dumps(body["result"])))
    return Done(payload)


def _json(content: bytes) -> tuple[JsonValue] | None:
    """Return the JSON value in a body, alone in a tuple; None if it is none."""
    try:
        return (cast("JsonValue", orjson.loads(content)),)
    except orjson.JSONDecodeError:
        return None


def _unreadable(polling: Polling, payload: Payload, error: DecodeError | None = None) -> PollAgain | Failed:
    seen = f"content type {payload.content_type or 'not given'}: {excerpt(payload)}"
    if polling.unreadable >= _BUDGET:
        why = "the answer is neither JSON nor protobuf" if error is None else str(error)
        return _invalid(polling, f"{why}; {seen}", error)
    again = attrs.evolve(polling, unreadable=polling.unreadable + 1, last_word=f"an answer of {seen}")
    return PollAgain(_SHORT_DELAY * 2.0**polling.unreadable, again, "service")


def _fetch(polling: Polling, size: JsonValue) -> Command:
    if not polling.metadata_first:
        return _invalid(polling, "the result was asked for and the service answered with its size")
    known = size if isinstance(size, int) and size > 0 else 0
    return FetchPayload(known, _renewed(polling, "the result is ready", metadata_first=False))


def _invalid(polling: Polling, why: str, cause: DecodeError | None = None) -> Failed:
    problems = [why] if cause is None else cause.problems
    error = APIResponseValidationError(f"request {polling.request_id}: {why}", problems)
    error.__cause__ = cause
    error.request_id = polling.request_id
    return Failed(error)


# --- answers without a result -----------------------------------------------------------------------------


def _judge_status(polling: Polling, answer: Answer, pause: float | None) -> Command:
    match answer.status:
        case None | 429:
            return _later(polling, answer)
        case 400 if answer.should_retry:
            return _later(polling, answer)
        case 402 if pause is not None:
            word = "the account cannot be charged (status 402)"
            return PollAgain(pause, attrs.evolve(polling, last_word=word), "billing")
        case 408:
            return _hold(polling, answer, _body(answer))
        case status if status >= 500:
            return _later(polling, answer)
        case status if status < 300:
            return _unreadable(polling, Payload("", b""))
        case status:
            return _refused(polling, answer, status)


def _body(answer: Answer) -> JsonValue:
    if answer.payload is None:
        return None
    known = _json(answer.payload.content)
    return excerpt(answer.payload) if known is None else known[0]


def _hold(polling: Polling, answer: Answer, body: JsonValue) -> PollAgain | Failed:
    queue = _queue(body)
    word = "no result yet" if queue is None else f"no result yet, queue {queue.state}"
    if queue is not None and queue.reason:
        word = f"{word} ({queue.reason})"
    paused = queue is not None and queue.state != ACTIVE
    held = 0.0 if paused else polling.held + max(answer.elapsed, MIN_HOLD)
    is_quick = answer.status == 408 and queue is None and answer.elapsed < MIN_HOLD
    quick = polling.quick + 1 if is_quick else 0
    again = attrs.evolve(_renewed(polling, word), held=held, quick=quick)
    pause = max(0.0, MIN_HOLD - answer.elapsed)
    if quick > _QUICK:
        pause = min(_MAX_DELAY, MIN_HOLD * 2.0 ** min(quick - _QUICK, 10))
    return _while_patient(PollAgain(pause, again, "result", queue))


def _while_patient(command: PollAgain) -> PollAgain | Failed:
    polling, patience = command.polling, command.polling.patience
    if patience is None or polling.held < patience:
        return command
    why = f"nothing but `try_again`, or no answer in time, for {patience:g} s ({polling.last_word})"
    return _timed_out(polling, f"{why}; this service also says so of a request that it does not know")


def _queue(body: JsonValue) -> QueueReport | None:
    if not isinstance(body, dict):
        return None
    state, reason = body.get("queue_state"), body.get("queue_state_reason")
    if not isinstance(state, str):
        return None
    return QueueReport(state, reason if isinstance(reason, str) else None)


def _renewed(polling: Polling, word: str, *, metadata_first: bool | None = None) -> Polling:
    first = polling.metadata_first if metadata_first is None else metadata_first
    return Polling(polling.request_id, polling.iteration, first, last_word=word, patience=polling.patience)


def _later(polling: Polling, answer: Answer) -> PollAgain | Failed:
    asked = answer.retry_after
    delay = asked if asked is not None and asked > 0 else float(2 ** min(polling.failures, 10))
    word = str(answer.error or "no answer") if answer.status is None else f"status {answer.status}"
    again = attrs.evolve(polling, failures=polling.failures + 1, last_word=word)
    if _was_held(answer):
        return _while_patient(
            PollAgain(0.0, attrs.evolve(again, held=polling.held + answer.elapsed), "service")
        )
    return PollAgain(min(delay, _MAX_DELAY), again, "limit" if answer.status == 429 else "service")


def _was_held(answer: Answer) -> bool:
    """Whether the service had the poll and was silent for as long as services hold polls, or longer."""
    error = answer.error
    return isinstance(error, APITimeoutError) and error.doubtful and answer.elapsed >= _LONG_HOLD


def _refused(polling: Polling, answer: Answer, status: int) -> Command:
    body = _body(answer)
    failure = failed_request(polling.request_id, body, status)
    if failure is not None:
        return Failed(failure)
    if status == 400 and polling.bad_requests < _BUDGET:
        word = f"status 400 - {explain(body)}"
        again = attrs.evolve(polling, bad_requests=polling.bad_requests + 1, last_word=word)
        return PollAgain(_SHORT_DELAY * 2.0**polling.bad_requests, again, "service")
    return Failed(_status_error(polling.request_id, answer, status, body))


def _status_error(request_id: str, answer: Answer, status: int, body: JsonValue) -> TinkerError:
    said = explain(body)
    lost = promise_lost(request_id, body, status, said)
    if lost is not None:
        return lost
    error = status_error_class(status)(
        f"request {request_id}: error code {status} - {said}",
        status_code=status,
        body=body,
        retry_after=answer.retry_after,
        should_retry=answer.should_retry,
    )
    error.request_id = request_id
    return error
