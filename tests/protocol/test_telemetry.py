from __future__ import annotations

import enum
import json
import math
import time
from unittest.mock import ANY

import numpy as np
import orjson
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tinker_actors.errors import (
    APIConnectionError,
    APIResponseValidationError,
    APITimeoutError,
    InputError,
    RequestFailedError,
    status_error_class,
)
from tinker_actors.protocol.event import ActorFailed, LoopBlocked, ModelLostEvent
from tinker_actors.protocol.policy import is_user_error
from tinker_actors.protocol.telemetry import (
    BATCH_SIZE,
    FLUSH_PERIOD,
    MAX_QUEUED,
    TelemetryQueue,
    event_of,
    failure_event,
    poll_failure,
    scrubbed,
)


class Severe(enum.IntEnum):
    """A number with a name."""

    HIGH = 3


class Silent:
    """A thing that cannot say what it is."""

    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.requirement("R147")
def test_the_sizes_are_tinkers() -> None:
    """Of 0.38.0: 10,000 events, batches of 100, a flush every 10 seconds."""
    assert (MAX_QUEUED, BATCH_SIZE, FLUSH_PERIOD) == (10_000, 100, 10.0)


@pytest.mark.requirement("R147")
def test_a_full_queue_drops_the_new_and_counts_them() -> None:
    """What is there stays; whoever adds is told and goes on."""
    queue = TelemetryQueue()
    assert all(queue.add({"n": n}) for n in range(MAX_QUEUED))
    assert not queue.add({"n": -1})
    assert not queue.add({"n": -2})
    assert (len(queue), queue.dropped) == (MAX_QUEUED, 2)
    assert queue.take_batch() == [{"n": n} for n in range(BATCH_SIZE)]
    assert queue.add({"n": MAX_QUEUED})
    assert queue.dropped == 2


@given(st.lists(st.integers(0, 150) | st.none(), max_size=20), st.integers(1, 300))
def test_events_leave_in_order_and_once(acts: list[int | None], room: int) -> None:
    """Any sequence of adding (a number) and taking (None) is that of a bounded list."""
    queue = TelemetryQueue(max_queued=room)
    model: list[dict[str, object]] = []
    added = dropped = 0
    for act in acts:
        if act is None:
            assert queue.take_batch() == model[:BATCH_SIZE]
            del model[:BATCH_SIZE]
            continue
        for _ in range(act):
            fits = len(model) < room
            assert queue.add({"n": added}) == fits
            if fits:
                model.append({"n": added})
            dropped += not fits
            added += 1
        assert (len(queue), queue.dropped) == (len(model), dropped)


def caused(error: BaseException) -> ValueError:
    """Make an error that says nothing itself."""
    outer = ValueError("hunter2")
    outer.__cause__ = error
    return outer


def test_what_belongs_together_is_refused_together() -> None:
    """There is room for all of it or for none."""
    queue = TelemetryQueue(max_queued=3)
    assert queue.add({"n": 0}, {"n": 1})
    assert not queue.add({"n": 2}, {"n": 3})
    assert (len(queue), queue.dropped) == (2, 2)
    assert queue.add({"n": 4})


@pytest.mark.requirement("R72", "R149")
@pytest.mark.parametrize(
    ("error", "users", "data"),
    [
        (status_error_class(400)("hunter2", status_code=400), True, {"status_code": 400}),
        (status_error_class(408)("hunter2", status_code=408), False, {}),
        (status_error_class(503)("hunter2", status_code=503), False, {}),
        (InputError("api_key", "hunter2", "no"), True, {}),
        (caused(status_error_class(404)("hunter2", status_code=404)), True, {}),
        (ValueError("hunter2"), False, {}),
    ],
    ids=repr,
)
def test_whose_fault_it_was_goes_by_the_rule_of_retries(
    error: BaseException, users: bool, data: dict[str, object]
) -> None:
    """A user's error is a warning, others are exceptions; what they say is not told."""
    kind = type(error).__name__
    assert is_user_error(error) is users
    event = failure_event(error)
    assert "hunter2" not in repr(event)
    if users:
        assert event == {
            "event": "GENERIC_EVENT",
            "severity": "WARNING",
            "event_name": "user_error",
            "event_data": {"error_type": kind, **data},
        }
    else:
        assert event == {
            "event": "UNHANDLED_EXCEPTION",
            "severity": "ERROR",
            "error_type": kind,
            "error_message": kind if getattr(error, "status_code", None) is None else ANY,
        }


def test_a_failure_says_its_numbers_and_ids_and_nothing_else() -> None:
    """Enough to find it in the service's own log."""
    error = status_error_class(503)("hunter2", status_code=503)
    error.request_id = "r7"
    error.attempts = 3
    event = failure_event(error)
    assert event["error_message"] == "InternalServerError: status_code 503, request_id r7, attempts 3"


def raised(cause: BaseException | None = None) -> BaseException:
    """Raise an error from this very line, and return it."""
    try:
        raise KeyError("hunter2") from cause
    except KeyError as error:
        return error


def test_a_failure_says_where_it_was_raised() -> None:
    """File, line and function of each frame, of its cause as well; neither what it says nor a line of code."""
    text = failure_event(raised(raised()))["traceback"]
    assert isinstance(text, str)
    here = "tests/protocol/test_telemetry.py"
    line = raised.__code__.co_firstlineno + 3
    assert text.splitlines() == [
        "KeyError",
        f"  {here}:{line} in raised",
        "caused by KeyError",
        f"  {here}:{line} in raised",
    ]
    assert "traceback" not in failure_event(ValueError("never raised"))


def test_a_failure_that_is_its_own_cause_is_told_once() -> None:
    """However it came to that."""
    error = raised()
    error.__cause__ = error
    assert str(failure_event(error)["traceback"]).count("KeyError") == 1


def test_a_group_of_one_is_that_one() -> None:
    """Whoever waits in a nursery has a failure of the same name."""
    inner = status_error_class(400)("no", status_code=400)
    group = ExceptionGroup("all", [ExceptionGroup("inner", [inner])])
    assert failure_event(group) == failure_event(inner)
    assert failure_event(ExceptionGroup("two", [ValueError(), KeyError()]))["error_type"] == "ExceptionGroup"


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (RequestFailedError("no", request_id="r", category="server"), "application_error"),
        (status_error_class(404)("no", status_code=404), "api_status_error"),
        (APITimeoutError("late", doubtful=True), "timeout"),
        (APIConnectionError("cut", doubtful=True), "connection_error"),
        (APIResponseValidationError("odd"), "validation_error"),
        (ValueError("hm"), "exception"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_failed_waits_have_tinkers_names(error: BaseException, what: str) -> None:
    """So that whoever counts them there counts ours with them."""
    assert poll_failure(error) == f"APIFuture.result_async.{what}"


def test_a_services_events_are_told_by_their_ids_and_numbers() -> None:
    """What may hold a text of the user's is left out, with the kinds of events that are nothing else."""
    assert event_of(ModelLostEvent("m", "hunter2", 3)) == (
        "ModelLostEvent",
        {"model_id": "m", "in_flight": 3},
    )
    assert event_of(ActorFailed("a", "hunter2", None)) is None
    assert event_of(LoopBlocked(1.0, "hunter2")) is None


def test_what_json_cannot_hold_is_named_by_its_type() -> None:
    """Nothing that is logged can spoil the batch it is in, and nothing is shown by its own repr."""
    odd = {"a": {1, 2}, 2: b"hunter2", "nan": math.nan, "n": None, "list": [1, 2.5, (True, "x")]}
    assert scrubbed(odd) == {
        "a": "<set>",
        "2": "<bytes>",
        "nan": "nan",
        "n": None,
        "list": [1, 2.5, [True, "x"]],
    }
    deep: list[object] = []
    deep.append(deep)
    json.dumps(scrubbed(deep))
    assert scrubbed("x" * 10_000) == "x" * 5000
    assert scrubbed(list(range(1000))) == list(range(100))


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (np.float64(1.5), 1.5),
        (np.float64("inf"), "inf"),
        (np.float32(1.5), "<float32>"),
        (Severe.HIGH, 3),
        (2**64 - 1, 2**64 - 1),
        (-(2**63), -(2**63)),
        (2**64, "<int>"),
        (-(2**63) - 1, "<int>"),
        ("a\ud800b", "a\\ud800b"),
        (
            {None: 1, True: 2, 1.5: 3, 4: 5, Silent(): 6},
            {"None": 1, "True": 2, "1.5": 3, "4": 5, "<Silent>": 6},
        ),
    ],
)
def test_what_is_almost_json_is_sent_as_json(value: object, sent: object) -> None:
    """Numbers of numpy, enumerations, half characters, numbers out of bounds, keys of any kind: the codec takes it."""
    given = scrubbed({"x": value})
    assert given == {"x": sent}
    assert orjson.loads(orjson.dumps(given)) == given


def test_a_large_value_is_cut_as_a_whole() -> None:
    """Many texts in many lists are no more than a fixed number of characters, and numbers count as well."""
    texts: object = "x" * 1000
    for _ in range(4):
        texts = [texts] * 100
    assert len(orjson.dumps(scrubbed(texts))) < 200_000
    assert len(orjson.dumps(scrubbed([[[[1] * 100] * 100] * 100] * 100))) < 200_000
    assert len(orjson.dumps(scrubbed({"k" * 5000 + str(n): 1 for n in range(100)}))) < 200_000


@pytest.mark.parametrize("piece", ["a?", "eyJ", "://a", "bearer ", "tml-", "?", "eyJ-.", "a?b"])
def test_masking_takes_no_longer_than_reading(piece: str) -> None:
    """A megabyte of what almost looks like a secret is no work either; the loop would stand still meanwhile."""
    started = time.process_time()
    scrubbed(piece * (1_000_000 // len(piece)))
    for _ in range(20):
        scrubbed(piece * (5000 // len(piece)))
    assert time.process_time() - started < 1.0


@pytest.mark.parametrize("secret", ["hunter2" * 3, "tml-" + "x" * 300, "http://u:" + "p" * 900 + "@host"])
@pytest.mark.parametrize("before", [4990, 5000, 6000, 0])
def test_no_half_of_a_secret_is_left_where_a_text_is_cut(secret: str, before: int) -> None:
    """Masks make a text shorter, so what was cut off behind them must not move into it."""
    text = "y" * before + f" {secret}" * 2000
    sent = scrubbed(text, (secret[:9], secret))
    assert isinstance(sent, str)
    assert not any(secret[start : start + 6] in sent for start in range(4, len(secret) - 6))


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("key tml-abc_D-1 here", "key *** here"),
        ("jwt eyJhbGci.eyJzdWIi.c2ln!", "jwt ***!"),
        ("Authorization: Bearer abc.def", "Authorization: ***"),
        ("http://user:pass@host/x", "http://***host/x"),
        ("https://bucket/x.tar?X-Sig=abc&y=1 end", "https://bucket/x.tar*** end"),
        ("https://bucket/x?/?b?sig=abc end", "https://bucket/x?/?b*** end"),
        ("a header eyJhbGciOiJub25lIn0 alone", "a header *** alone"),
        ("plain text, a@b.c, 1 ? 2 : 3", "plain text, a@b.c, 1 ? 2 : 3"),
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str, left: str) -> None:
    """Also one that nobody told us of."""
    assert scrubbed(text) == left


def test_of_errors_that_are_not_ours_only_the_type_is_told() -> None:
    """What others keep in attributes of the same names may be anything, a prompt included."""

    class Theirs(Exception):
        category = "hunter2"
        request_id = "hunter2"
        attempts = 7

    assert failure_event(Theirs())["error_message"] == "Theirs"


PLACES = st.recursive(
    st.just("@"), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)


@given(PLACES, st.text(st.characters(codec="utf-8"), min_size=6, max_size=20), st.text(max_size=30))
def test_no_secret_that_is_known_is_ever_in_what_is_sent(place: object, secret: str, around: str) -> None:
    """Wherever it was put: in a key, in a value, inside a longer text."""

    def planted(value: object) -> object:
        match value:
            case str():
                return f"{around}{secret}{around}"
            case list():
                return [planted(item) for item in value]
            case dict():
                return {f"{key}{secret}": planted(item) for key, item in value.items()}
        return value

    sent = json.dumps(scrubbed(planted(place), (secret,)), ensure_ascii=False)
    clean = json.dumps(scrubbed(place, ()), ensure_ascii=False)
    assume(secret not in "***" and secret not in around * 2 and secret not in clean)
    assume(not set(secret) <= set(around + '*"[]{}:, \\nrtbfu0123456789abcdef'))
    assert secret not in sent
