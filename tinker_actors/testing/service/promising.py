"""Numbers and promises: what is done when, what is done again, and what polls are told.

Theory of operation. A request for a model takes its place by its number (`_place`), as the dialect says: it runs now,
is parked until its turn, is a repetition, or is in conflict. What runs is applied to the model at once and in order;
its result is there when the work is done, which is a time and nothing else, so it needs no task. A promise that is
asked for before that time is `Held`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, TypeAlias

import attrs

from .arithmetic import digest_of
from .call import Call
from .reply import Answer, Refusal
from .state import Failure, Model, Promise

__all__ = [
    "Outcome",
    "Result",
    "WorkFailed",
    "cancel_future",
    "promised",
    "retrieve_future",
    "retrieve_futures",
    "submit",
]


class WorkFailed(Exception):
    """Work that fails by itself: what it was asked to do makes no sense."""


@attrs.frozen
class Result:
    """What work comes to."""

    value: dict[str, object]
    kind: str | None = None


@attrs.frozen
class Pending:
    """An answer that is held, as endpoints see it: `look` is asked again with the time."""

    until: float
    look: Callable[[float], Outcome]


Outcome: TypeAlias = Answer | Pending
Work: TypeAlias = Callable[[], Result]
_Place: TypeAlias = Literal["run", "park", "replay", "reused", "conflict"]


def promised(call: Call, promise: Promise, model_id: str | None = None, **more: object) -> Answer:
    """Return the answer that gives a promise out."""
    call.promise = promise
    body = {"request_id": promise.request_id, **more}
    if model_id is not None:
        body["model_id"] = model_id
    return Answer(body, call.state.dialect.created_status)


def run(call: Call, promise: Promise, work: Work, now: float, free_at: float = 0.0) -> bool:
    """Do some work and keep its promise with it; returns whether it succeeded."""
    state = call.state
    promise.ready_at = state.done_at(now, free_at, call.rng)
    failure = call.failure
    if failure is None:
        try:
            result = work()
        except WorkFailed as error:
            failure = Failure(state.dialect.failures, str(error), "user", 400)
        else:
            promise.result, promise.kind = result.value, result.kind
            metrics = result.value.get("metrics")
            if isinstance(metrics, dict) and state.dialect.cycle > 0:
                metrics["clock_cycle:unique"] = float(state.cycle_of(promise.ready_at))
    promise.failure = failure
    state.changed()
    return failure is None


def submit(call: Call, model: Model, work: Work) -> Answer:
    """Put work for a model in its place and promise its result."""
    number = call.number()
    content = {key: value for key, value in call.body.items() if key != "seq_id"}
    digest = digest_of([call.request.endpoint, content])
    model.last_request = call.now
    place = _place(call, model, number, digest)
    if place == "reused":
        raise Refusal(409, f"sequence number was reused: {number} belongs to another request")
    if place == "replay" and number is not None:
        return promised(call, call.state.promises[model.seen[number][1]], model.model_id)
    promise = call.state.promise(call.request.endpoint, model.model_id)
    if place == "conflict":
        promise.ready_at = call.now
        text = f"Sequence conflict: expected {model.expected}, got {number}"
        promise.failure = Failure("status", text, "user", 409)
    elif place == "park" and number is not None:
        model.seen[number] = (digest, promise.request_id)
        model.parked[number] = lambda now: _run_in_turn(call, model, promise, work, now, digest)
    else:
        _run_in_turn(call, model, promise, work, call.now, digest)
        _unpark(model, call.now)
    return promised(call, promise, model.model_id)


def _place(call: Call, model: Model, number: int | None, digest: str) -> _Place:
    dialect = call.state.dialect
    if number is None:
        return "run"
    if dialect.dedupe == "replay" and number in model.seen:
        return "replay" if model.seen[number][0] == digest else "reused"
    if dialect.dedupe == "reject" and number < model.expected:
        return "conflict"
    if number > model.expected and dialect.early_numbers != "run":
        return "park" if dialect.early_numbers == "park" else "conflict"
    return "run"


def _run_in_turn(call: Call, model: Model, promise: Promise, work: Work, now: float, digest: str) -> None:
    number = call.number()
    done = run(call, promise, work, now, model.free_at)
    model.free_at = promise.ready_at
    if number is not None and (done or call.state.dialect.dedupe != "reject"):
        model.expected = max(model.expected, number + 1)
        model.seen[number] = (digest, promise.request_id)


def _unpark(model: Model, now: float) -> None:
    while (work := model.parked.pop(model.expected, None)) is not None:
        work(now)


# ---------------------------------------------------------------------------------------------------- polling


def retrieve_future(call: Call) -> Outcome:
    """Answer a poll, now or later."""
    promise = call.state.promises.get(call.need("request_id", str))
    allow_metadata = call.get("allow_metadata_only", bool, False)
    deadline = call.now + call.state.dialect.hold
    return _look(call, promise, allow_metadata, deadline, call.now)


def _look(call: Call, promise: Promise | None, allow_metadata: bool, deadline: float, now: float) -> Outcome:
    lost = call.state.dialect.unknown if promise is None else promise.lost
    if lost is not None and lost != "try_again":
        return _lost(lost, call.need("request_id", str))
    if promise is not None and lost is None and promise.ready_at <= now:
        return _result(call, promise, allow_metadata)
    if now >= deadline:
        return _try_again(call, now)
    due = deadline if promise is None or lost else min(deadline, promise.ready_at)
    return Pending(due, lambda later: _look(call, promise, allow_metadata, deadline, later))


def _lost(form: str, request_id: str) -> Answer:
    if form == "error":
        return Answer({"error": f"Unknown request_id {request_id}", "category": "User"})
    return Answer({"detail": f"Promise {request_id} is not known"}, int(form))


def _try_again(call: Call, now: float) -> Answer:
    pause = call.state.pause_at(now)
    body: dict[str, object] = {"type": "try_again", "request_id": call.need("request_id", str)}
    body["queue_state"] = "active" if pause is None else pause.queue_state
    if pause is not None and pause.reason is not None:
        body["queue_state_reason"] = pause.reason
    return Answer(body, call.state.dialect.hold_status)


def _result(call: Call, promise: Promise, allow_metadata: bool) -> Answer:
    if promise.failure is not None:
        return _failed(promise.failure)
    size = len(Answer(promise.result).encoded().body)
    limit = call.state.dialect.metadata_above
    if allow_metadata and limit is not None and size > limit:
        return Answer({"status": "complete_metadata", "response_payload_size": size})
    promise.reads += 1
    if call.state.dialect.consume_results:
        del call.state.promises[promise.request_id]
    return Answer(promise.result, kind=promise.kind)


def _failed(failure: Failure) -> Answer:
    match failure.form:
        case "error":
            return Answer({"error": failure.text, "category": failure.category})
        case "400":
            return Answer({"detail": failure.text}, 400)
        case "status":
            return Answer({"detail": failure.text}, failure.status)
        case "RequestFailedResponse":
            body = {"type": "RequestFailedResponse", "error_message": failure.text}
            return Answer(body, 400)
        case "422":
            return Answer({"detail": [{"type": "value_error", "loc": ["body"], "msg": failure.text}]}, 422)


def retrieve_futures(call: Call) -> Outcome:
    """Answer a poll for all promises of a sampling session, now or later."""
    target = call.need("target", dict)
    sampler = call.state.samplers.get(str(target.get("sampling_session_id")))
    if sampler is None:
        raise Refusal(404, f"Sampling session {target.get('sampling_session_id')} not found")
    for request_id in call.get("retrieved_request_ids", list, []):
        call.state.promises.pop(str(request_id), None)
    timeout = call.body.get("timeout")
    hold = call.state.dialect.hold if timeout is None else float(timeout)
    cursor, deadline = call.get("prev_cursor", int, 0), call.now + hold

    def look(now: float) -> Outcome:
        own = [call.state.promises[key] for key in sampler.promises if key in call.state.promises]
        gone = len(sampler.promises) - len(own)  # retrieved ones count on, so that cursors only grow
        own = sorted((one for one in own if one.lost != "try_again"), key=lambda one: one.ready_at)
        done = [promise for promise in own if promise.ready_at <= now]
        if gone + len(done) > cursor or now >= deadline:
            fresh = [_completion(promise) for promise in done[max(0, cursor - gone) :]]
            return Answer({"completions": fresh, "cursor": gone + len(done)})
        due = min((promise.ready_at for promise in own if promise.ready_at > now), default=math.inf)
        return Pending(min(due, deadline), look)

    return look(call.now)


def _completion(promise: Promise) -> dict[str, object]:
    if promise.failure is not None or promise.lost is not None:
        return {"state": "failed", "request_id": promise.request_id}
    size = len(Answer(promise.result).encoded().body)
    return {
        "state": "finished",
        "request_id": promise.request_id,
        "response_payload_uncompressed_size": size,
    }


def cancel_future(call: Call) -> Answer:
    """Give a promise up; it is not known from then on, unless its result is there."""
    request_id = call.need("request_id", str)
    promise = call.state.promises.get(request_id)
    call.state.cancelled.append(request_id)
    if promise is not None and promise.ready_at > call.now:
        promise.lost = "410"
        call.state.changed()
    return Answer({})
