from __future__ import annotations

import math
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.answers import START, again, failure, raw, said
from tests.wire.strategies import json_values
from tinker_actors.errors import (
    APIResponseValidationError,
    APIStatusError,
    DecodeError,
    RequestFailedError,
)
from tinker_actors.protocol.future import (
    MIN_HOLD,
    Answer,
    Done,
    Failed,
    FetchPayload,
    PollAgain,
    Polling,
    QueueReport,
    Result,
    decide,
    take,
)
from tinker_actors.wire import protobuf
from tinker_actors.wire.optimizer import OptimStepResponse
from tinker_actors.wire.payload import JSON, PROTOBUF, Payload
from tinker_actors.wire.sampling import SampledSequence, SampleResponse
from tinker_actors.wire.training import ForwardBackwardOutput

# --- results ---------------------------------------------------------------------------------------------


@pytest.mark.lesson("D3")
@pytest.mark.parametrize(
    "content",
    [
        b'{"type":"create_model","model_id":"m"}',
        b'{"metrics":null}',
        b"{}",
        b' {"path": "p"}\n',
        b'{"error":null,"path":"tinker://a/weights/b"}',
        b'{"queue_state":"active"}',
        b'{"metrics":{"error:mean":0.5}}',
        b'{"status":"odd"}',
        b'{"type":"sample","sequences":[{"stop_reason":"stop","tokens":[1]}]}',
    ],
    ids=repr,
)
@pytest.mark.parametrize("content_type", [JSON, "application/json; charset=utf-8", "text/plain", ""])
def test_a_json_object_is_the_result(content: bytes, content_type: str) -> None:
    """As it came, whatever the service calls it, unless it says that there is no result."""
    polling = Polling("r1", failures=3, bad_requests=2)
    assert decide(polling, raw(200, content, content_type)) == Done(Payload(content_type, content))


@pytest.mark.parametrize("content_type", [PROTOBUF, "Application/X-Protobuf; proto=x"])
def test_protobuf_is_the_result(content_type: str) -> None:
    """It is not looked into: status objects are JSON in both forms of the API."""
    answer = raw(200, b'{"error":"no"}', content_type)
    assert decide(START, answer) == Done(Payload(content_type, b'{"error":"no"}'))


def test_every_2xx_is_a_success() -> None:
    """Services differ in which they choose."""
    assert isinstance(decide(START, said(202, {"path": "p"})), Done)
    assert again(said(201, {"type": "try_again"}, elapsed=1.0)).delay == 0.0


def test_a_long_json_result_is_not_parsed_to_find_that_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its only decoding is the one that makes the reply of it."""
    monkeypatch.setattr("tinker_actors.protocol.future.orjson", None)
    content = orjson.dumps({"type": "sample", "sequences": [{"tokens": list(range(1000))}]})
    assert decide(START, raw(200, content)) == Done(Payload("", content))


@pytest.mark.requirement("R99")
def test_the_words_of_older_services_are_understood() -> None:
    """They wrap the result, and call the states pending, completed and failed."""
    assert again(said(200, {"status": "pending"}, elapsed=1.0)).delay == 0.0
    completed = {"status": "completed", "result": {"path": "p"}}
    assert decide(START, said(200, completed)) == Done(Payload(JSON, b'{"path":"p"}'))
    assert isinstance(decide(START, said(200, {"status": "completed"})), Done)
    assert "no reason" in str(failure(said(200, {"status": "failed"})))
    error = failure(said(200, {"status": "failed", "error": {"message": "bad rank"}, "category": "User"}))
    assert isinstance(error, RequestFailedError)
    assert (str(error), error.category) == ("request r1 failed: bad rank", "user")


# --- reading results --------------------------------------------------------------------------------------

SAMPLES = SampleResponse(
    (
        SampledSequence(
            "stop", np.array([1, 2, 3], np.int32), logprobs_np=np.array([-0.5, -0.25, -1.0], np.float32)
        ),
    )
)


def test_a_result_is_read_as_what_was_promised() -> None:
    """In the form it came in, and whatever newer services add to it."""
    assert take(START, Payload(PROTOBUF, protobuf.encode(SAMPLES)), SampleResponse) == Result(SAMPLES)
    content = b'{"metrics":{"norm":2},"new":1}'
    assert take(START, Payload(JSON, content), OptimStepResponse) == Result(OptimStepResponse({"norm": 2.0}))


BROKEN = {
    "cut short": Payload(PROTOBUF, protobuf.encode(SAMPLES)[:-3]),
    "no protobuf": Payload(PROTOBUF, b"<html>502</html>"),
    "without a form": Payload(PROTOBUF, b""),
    "JSON that only begins and ends as an object": Payload(JSON, b'{"sequences": [{"tokens": [1, 2}'),
}


@pytest.mark.lesson("L30")
@pytest.mark.parametrize("name", BROKEN)
def test_a_result_that_cannot_be_read_is_asked_for_again(name: str) -> None:
    """Like any other answer that is none: three more polls, then a typed error that shows it; the counts are one."""
    kind: Any = OptimStepResponse if name == "without a form" else SampleResponse
    polling, delays = Polling("r1", iteration=4), []
    for _ in range(3):
        command = take(polling, BROKEN[name], kind)
        assert isinstance(command, PollAgain)
        assert command.waiting == "service"
        assert command.polling.iteration == polling.iteration + 1
        delays.append(command.delay)
        polling = command.polling
    assert delays == [0.25, 0.5, 1.0]
    last = take(polling, BROKEN[name], kind)
    assert isinstance(last, Failed)
    error = last.error
    assert isinstance(error, APIResponseValidationError)
    assert (error.request_id, isinstance(error.__cause__, DecodeError)) == ("r1", True)
    assert str(error).startswith(f"request r1: not a {kind.__name__}: ")
    assert "content type" in str(error)
    assert str(error).isprintable()
    assert isinstance(failure(raw(200, b"<html>"), polling), APIResponseValidationError)


@pytest.mark.parametrize("value", [{}, {"metrics": 5}, {"sequences": 3}])
@pytest.mark.parametrize("kind", [SampleResponse, ForwardBackwardOutput])
def test_a_result_in_json_of_another_shape_is_an_invalid_answer(value: Any, kind: Any) -> None:
    """The service itself wrote it, so asking again would not help; each problem has its path."""
    command = take(START, Payload(JSON, orjson.dumps(value)), kind)
    assert isinstance(command, Failed)
    error = command.error
    assert isinstance(error, APIResponseValidationError)
    assert "content type" not in str(error)
    assert error.problems
    assert "@ $" in error.problems[0]
    assert error.request_id == "r1"


# --- no result yet ----------------------------------------------------------------------------------------


@pytest.mark.requirement("R99")
@pytest.mark.parametrize("status", [200, 408])
def test_no_result_yet_is_polled_again_at_once(status: int) -> None:
    """The service has held the answer back; counts of failures begin anew."""
    body = {"type": "try_again", "request_id": "r1", "queue_state": "active"}
    polling = Polling("r1", iteration=7, metadata_first=True, failures=5, bad_requests=3, unreadable=2)
    command = again(said(status, body, elapsed=30.0), polling)
    word = "no result yet, queue active"
    fresh = Polling("r1", iteration=8, metadata_first=True, last_word=word, held=30.0)
    assert command == PollAgain(0.0, fresh, "result", QueueReport("active"))


@pytest.mark.requirement("R99")
@pytest.mark.parametrize("answer", [Answer(status=408, elapsed=1.0), raw(408, b"timeout", elapsed=1.0)])
def test_a_408_needs_no_body(answer: Answer) -> None:
    """Some services say it with the status alone."""
    command = again(answer)
    assert (command.delay, command.queue) == (0.0, None)


@pytest.mark.requirement("R100")
@pytest.mark.lesson("D41", "L18")
@pytest.mark.parametrize(
    ("body", "queue"),
    [
        ({"queue_state": "paused_capacity"}, QueueReport("paused_capacity")),
        (
            {"queue_state": "paused_rate_limit", "queue_state_reason": "too many"},
            QueueReport("paused_rate_limit", "too many"),
        ),
        ({"queue_state": "something new", "queue_state_reason": 3}, QueueReport("something new")),
        ({"queue_state": 7}, None),
        ({}, None),
    ],
)
def test_the_queue_is_told_with_its_reason(body: Any, queue: QueueReport | None) -> None:
    """What makes us wait reaches whoever asks what a run is waiting for."""
    command = again(said(200, {"type": "try_again", **body}, elapsed=1.0))
    assert command.queue == queue
    assert queue is None or queue.is_paused is queue.state.startswith("paused")
    assert again(said(408, body, elapsed=1.0)).queue == queue


@pytest.mark.parametrize(
    ("elapsed", "delay"), [(0.0, MIN_HOLD), (MIN_HOLD / 4, MIN_HOLD * 0.75), (MIN_HOLD, 0.0)]
)
@pytest.mark.parametrize("status", [200, 408])
def test_a_service_that_does_not_hold_is_not_asked_without_a_pause(
    status: int, elapsed: float, delay: float
) -> None:
    """At most 20 polls a second."""
    answer = said(status, {"type": "try_again"}, elapsed=elapsed)
    assert again(answer).delay == pytest.approx(delay)


# --- large results ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "known"), [(4096, 4096), (0, 0), (-1, 0), ("many", 0), (None, 0)])
def test_the_size_of_a_result_comes_before_the_result(size: Any, known: int) -> None:
    """The result itself is asked for next, and the counts begin anew."""
    body = {"status": "complete_metadata", "request_id": "r1", "response_payload_size": size}
    polling = Polling("r1", iteration=2, metadata_first=True, failures=4)
    command = decide(polling, said(200, body))
    assert command == FetchPayload(known, Polling("r1", iteration=3, last_word="the result is ready"))


def test_a_size_in_place_of_the_result_is_an_invalid_answer() -> None:
    """Asked for twice, it would be asked for for ever."""
    error = failure(said(200, {"status": "complete_metadata", "response_payload_size": 5}))
    assert isinstance(error, APIResponseValidationError)
    assert error.problems


# --- trouble ----------------------------------------------------------------------------------------------


def test_a_billing_pause_is_waited_out() -> None:
    """402 is asked again after the pause it is given, and the counts stay; without one it is the outcome."""
    polling = Polling("r1", failures=2, bad_requests=1)
    command = again(said(402), polling)
    assert (command.delay, command.waiting) == (5.0, "billing")
    assert (command.polling.failures, command.polling.bad_requests) == (2, 1)
    error: Any = failure(said(402, {"detail": "no money"}), polling)
    assert (type(error).__name__, error.status_code) == ("BillingError", 402)


@pytest.mark.lesson("D58")
def test_three_bad_requests_are_forgiven() -> None:
    """The fourth in a row is the outcome; any usable answer in between begins anew."""
    delays = []
    polling = START
    for _ in range(3):
        command = again(said(400, {"detail": "x"}), polling)
        delays.append(command.delay)
        polling = command.polling
    assert delays == [0.25, 0.5, 1.0]
    error = failure(said(400, {"detail": "not loaded"}), polling)
    assert type(error).__name__ == "BadRequestError"
    assert "not loaded" in str(error)
    renewed = again(said(408), polling).polling
    assert again(said(400), renewed).delay == 0.25


@pytest.mark.lesson("D58")
def test_a_400_that_may_be_tried_again_is_no_bad_request() -> None:
    """It comes from something before the service: as a 503 it is waited out, and uses up nothing."""
    polling = START
    for delay in (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0):
        command = again(raw(400, b"", should_retry=True), polling)
        assert (command.delay, command.waiting) == (delay, "service")
        polling = command.polling
    assert polling.bad_requests == 0
    assert again(raw(400, b"", should_retry=False), polling).polling.bad_requests == 1


@pytest.mark.parametrize("body", [b"", b"<html>busy</html>", b'{"type": "sam', b"\xff\xfe"])
@pytest.mark.parametrize("content_type", ["", "text/html", JSON, "image/png"])
def test_an_answer_that_cannot_be_read_is_asked_for_again(body: bytes, content_type: str) -> None:
    """Something in between may have written it: three more polls, then a typed error that shows it."""
    polling = START
    delays = []
    for _ in range(3):
        command = again(raw(200, body, content_type), polling)
        delays.append(command.delay)
        polling = command.polling
    assert delays == [0.25, 0.5, 1.0]
    error = failure(raw(200, body, content_type), polling)
    assert isinstance(error, APIResponseValidationError)
    assert "content type" in str(error)
    assert again(said(408), polling).polling.unreadable == 0


def test_an_answer_without_any_body_cannot_be_read() -> None:
    """A 204 is no result."""
    assert again(Answer(status=204)).polling.unreadable == 1


@pytest.mark.lesson("L19")
@pytest.mark.parametrize("body", [None, 3, "done", [], [1, 2], True])
def test_json_that_is_no_object_is_an_invalid_answer(body: Any) -> None:
    """The service itself wrote it, so asking again would not help."""
    error = failure(said(200, body))
    assert isinstance(error, APIResponseValidationError)
    assert error.problems


def test_a_long_answer_is_shown_by_its_beginning() -> None:
    """An error is for people."""
    text = str(failure(raw(200, b"x" * 10_000), Polling("r1", unreadable=3)))
    assert len(text) < 400
    assert "xxx…" in text
    assert "(empty)" in str(failure(raw(200, b""), Polling("r1", unreadable=3)))


@pytest.mark.lesson("D54", "L18", "D27")
@pytest.mark.parametrize("status", [None, 429, 500, 502, 599])
def test_trouble_is_waited_out_with_growing_delays(status: int | None) -> None:
    """1, 2, 4 ... 30 seconds, without an end: a service that is away is a state, not a failure."""
    polling = Polling("r1", bad_requests=2)
    answer = Answer(status=status, payload=Payload("text/plain", b"Internal Server Error"))
    delays, waiting = [], set()
    for _ in range(12):
        command = again(answer, polling)
        delays.append(command.delay)
        waiting.add(command.waiting)
        polling = command.polling
    assert delays == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0, 30.0, 30.0, 30.0, 30.0]
    assert (polling.failures, polling.bad_requests) == (12, 2)
    assert waiting == {"limit" if status == 429 else "service"}


@pytest.mark.parametrize(
    ("asked", "delay"), [(0.5, 0.5), (7.0, 7.0), (300.0, 30.0), (math.inf, 30.0), (0.0, 4.0), (None, 4.0)]
)
def test_what_the_service_asks_for_is_kept_up_to_half_a_minute(asked: float | None, delay: float) -> None:
    """Asking for no pause at all does not make us knock without one."""
    assert again(Answer(status=503, retry_after=asked), Polling("r1", failures=2)).delay == delay


# --- anything ---------------------------------------------------------------------------------------------

bodies = json_values | st.fixed_dictionaries(
    {},
    optional={
        "type": json_values | st.sampled_from(["try_again", "RequestFailedResponse"]),
        "status": json_values | st.sampled_from(["complete_metadata", "pending", "completed", "failed"]),
        "error": json_values,
        "error_message": json_values,
        "category": json_values,
        "detail": json_values,
        "queue_state": json_values | st.just("paused_capacity"),
        "queue_state_reason": json_values,
        "response_payload_size": json_values,
        "result": json_values,
    },
)
payloads = st.builds(
    Payload,
    st.sampled_from([JSON, "", "text/html", PROTOBUF]) | st.text(max_size=9),
    bodies.map(orjson.dumps) | st.binary(max_size=40),
)
answers = st.builds(
    Answer,
    status=st.none() | st.integers(200, 599) | st.sampled_from([200, 400, 402, 404, 408, 410, 429, 500]),
    payload=st.none() | payloads,
    elapsed=st.floats(0, 1e6),
    retry_after=st.none() | st.floats(),
)
pollings = st.builds(
    Polling,
    st.just("r1"),
    metadata_first=st.booleans(),
    failures=st.integers(0, 10**6),
    bad_requests=st.integers(0, 3),
    unreadable=st.integers(0, 3),
)


@pytest.mark.lesson("L19")
@pytest.mark.requirement("R63", "R99")
@given(pollings, answers, st.none() | st.just(5.0))
def test_any_answer_ends_the_wait_or_goes_on(polling: Polling, answer: Answer, pause: float | None) -> None:
    """Whatever a service says: a result, a typed error, or another poll within half a minute; never a crash."""
    command = decide(polling, answer, pause=pause)
    if isinstance(command, Done):
        assert answer.payload is not None
        command = take(polling, command.payload, SampleResponse)
    if isinstance(command, Result):
        assert isinstance(command.value, SampleResponse)
    elif isinstance(command, Failed):
        assert isinstance(command.error, APIStatusError | APIResponseValidationError | RequestFailedError)
        assert command.error.request_id == "r1"
        assert "r1" in str(command.error)
    elif isinstance(command, FetchPayload):
        assert command.size >= 0
        assert polling.metadata_first
        assert not command.polling.metadata_first
    else:
        assert 0 <= command.delay <= 30
        assert command.polling.request_id == "r1"
        assert max(command.polling.bad_requests, command.polling.unreadable) <= 3


@given(st.lists(answers, min_size=1, max_size=30))
def test_bad_requests_cannot_go_on_for_ever(several: list[Answer]) -> None:
    """In any sequence of answers, no more than three 400s, and three that cannot be read, pass between usable ones."""
    polling = START
    for answer in several:
        command = decide(polling, answer)
        if not isinstance(command, PollAgain):
            return
        usable = command.waiting == "result"
        bad = 0 if usable else polling.bad_requests + (answer.status == 400)
        assert command.polling.bad_requests == bad <= 3
        polling = command.polling


@pytest.mark.lesson("D54")
def test_a_408_that_keeps_coming_at_once_is_asked_for_less_and_less() -> None:
    """A second of them is a service that does not hold polls; more is a proxy without one, asked twice a minute."""
    polling, pauses = Polling("r"), []
    for _ in range(40):
        command = decide(polling, Answer(status=408, payload=Payload("", b"")), pause=None)
        assert isinstance(command, PollAgain)
        pauses.append(command.delay)
        polling = command.polling
    assert pauses[:20] == [0.05] * 20
    assert pauses[20:24] == [0.1, 0.2, 0.4, 0.8]
    assert pauses[-1] == 30.0
    held = decide(polling, Answer(status=408, payload=Payload("", b""), elapsed=30.0), pause=None)
    assert isinstance(held, PollAgain)
    assert (held.delay, held.polling.quick) == (0.0, 0)
