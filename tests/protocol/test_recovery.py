from __future__ import annotations

from typing import cast, get_args

import orjson
import pytest

from tinker_actors.errors import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    ConfigError,
    CredentialError,
    DecodeError,
    RequestFailedError,
    TinkerActorsError,
    status_error_class,
)
from tinker_actors.protocol.future import Answer, Failed, Polling, decide
from tinker_actors.protocol.recovery import (
    MAX_RESTORES,
    Cause,
    classify,
    find_saved,
    frees_number,
    is_refusal_of_key,
    next_rung,
    restore_delay,
    sampler_lost,
    says_not_done,
    says_state_gone,
    session_lost,
)
from tinker_actors.protocol.retry import DedupeMode
from tinker_actors.protocol.step import OperationKind
from tinker_actors.wire.codec import JsonValue
from tinker_actors.wire.payload import JSON, Payload
from tinker_actors.wire.run import Checkpoint

KINDS = cast("tuple[OperationKind, ...]", get_args(OperationKind))
STALE = "Model a5b1 not loaded (likely stale request from previous server)"


def status(code: int, body: object = None) -> APIStatusError:
    """Make what transport raises for an answer with an error status."""
    return status_error_class(code)(f"optim_step: error code {code} - {body}", status_code=code, body=body)


def polled(code: int, body: JsonValue) -> TinkerActorsError:
    """Make what becomes of the answer to a poll, after the bad requests that are forgiven."""
    command = decide(
        Polling("r", bad_requests=3), Answer(status=code, payload=Payload(JSON, orjson.dumps(body)))
    )
    assert isinstance(command, Failed)
    return command.error


# What services were seen to answer when the model, or the session it belonged to, was gone.
GONE = {
    "SkyRL, submit after expiry or restart": status(400, {"detail": STALE}),
    "SkyRL, poll after expiry": polled(400, {"detail": STALE}),
    "SkyRL and TuFT, unknown promise": polled(404, {"detail": "Future 275 not found"}),
    "TuFT, submit to an unknown model": status(404, {"detail": "Model not found"}),
    "open-rl, failed request": polled(
        400, {"type": "RequestFailedResponse", "error_message": "model a5b1 not loaded"}
    ),
    "opentinker, failed request": polled(200, {"error": "Unknown model: m", "category": "User"}),
    "Twinkle, failed request with a traceback": polled(
        200, {"error": "Traceback (most recent call last): ... Model not found: m", "category": "Server"}
    ),
    "ended session, submit": status(410, {"detail": "session has ended"}),
    "broken promise": polled(410, {"detail": "the model is gone"}),
}

# What may or may not have been carried out.
DOUBTFUL = {
    "connection cut after the first byte": APIConnectionError("cut", doubtful=True),
    "no answer in time": APITimeoutError("slow", doubtful=True),
    "408": status(408),
    "FastAPI, unhandled exception": status(500, "Internal Server Error"),
    "proxy": status(502),
    "an answer that cannot be read": APIResponseValidationError(
        "odd", ["required field missing @ $.request_id"]
    ),
}

# What is an ordinary failure: the model is as it was.
ORDINARY = {
    "no connection": APIConnectionError("refused", doubtful=False),
    "bad request": status(400, {"detail": "rank too large"}),
    "SkyRL, too many adapters": status(400, {"detail": "Maximum number of LoRA adapters (2) reached"}),
    "wrong key": status(401),
    "no money": status(402),
    "forbidden": status(403),
    "SkyRL, reused number": status(409, {"detail": "sequence number was reused"}),
    "TuFT, gap": polled(409, {"detail": "Sequence conflict: expected 7, got 8"}),
    "pydantic": status(422, [{"msg": "extra_forbidden"}]),
    "throttled": status(429),
    "failed request": RequestFailedError("loss is not finite", category="user"),
    "local": ConfigError("not loaded"),
    "decoding": DecodeError("X", ["not loaded"]),
    "foreign": ValueError("not loaded"),
}


@pytest.mark.parametrize("name", GONE)
def test_a_lost_model_is_known_in_every_dialect(name: str) -> None:
    """Whatever was being done with it."""
    assert {classify(GONE[name], kind) for kind in KINDS} == {"gone"}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_what_may_have_been_carried_out_is_doubtful(name: str) -> None:
    """Whatever it was."""
    assert {classify(DOUBTFUL[name], kind) for kind in KINDS} == {"doubtful"}


@pytest.mark.parametrize("name", ORDINARY)
def test_other_failures_leave_the_model_alone(name: str) -> None:
    """It is not restored for them."""
    assert {classify(ORDINARY[name], kind) for kind in KINDS} == {None}


def test_a_saved_state_that_is_not_there_is_no_lost_model() -> None:
    """A 404 for a load speaks of the path, for everything else of the model."""
    error = status(404, {"detail": "no such checkpoint"})
    assert {kind: classify(error, kind) for kind in KINDS} == {
        kind: None if kind == "load_state" else "gone" for kind in KINDS
    }


def test_a_call_that_the_service_does_not_have_is_no_lost_model() -> None:
    """A loss without a gradient and a save for elsewhere are what services lack; the model is as it was."""
    error, polls = status(404, {"detail": "Not Found"}), polled(404, {"detail": "Not Found"})
    lacking: set[OperationKind] = {"forward", "save_external"}
    for kind in lacking:
        assert classify(error, kind) is None
        assert classify(status(404, {"detail": "Model m not found"}), kind) == "gone"
        assert classify(polls, kind) == "gone"  # there is a promise, so the call was there
    assert {classify(error, kind) for kind in KINDS if kind not in lacking | {"load_state"}} == {"gone"}


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (status(410, {"detail": "gone"}), True),
        (status(404, {"detail": "Session s not found"}), True),
        (status(400, {"detail": "unknown session: s"}), True),
        (status(404, {"detail": "base model 'x' is not offered"}), False),
        (status(400, {"detail": "rank too large"}), False),
        (status(401, {"detail": "session key"}), False),
        (status(500, {"detail": "session"}), False),
        (RequestFailedError("unknown session"), False),
        (APIConnectionError("session"), False),
    ],
    ids=str,
)
def test_a_refused_creation_tells_whether_the_session_has_ended(error: BaseException, lost: bool) -> None:
    """By its class, or by its text where services use a general status."""
    assert session_lost(error) is lost


def test_a_path_that_has_a_sessions_name_speaks_of_no_session() -> None:
    """Only the rest of what the service says counts."""
    path = "tinker://session-1:train:0/weights/a"

    def missing(text: str) -> APIStatusError:
        return status(404, {"detail": text})

    assert session_lost(missing(f"Checkpoint {path} not found"))
    assert not session_lost(missing(f"Checkpoint {path} not found"), path)
    assert session_lost(missing("Session session-1 not found"), path)


SAVED = [
    Checkpoint(
        checkpoint_id="weights/a",
        checkpoint_type="training",
        time="2026-10-21T07:28:00Z",
        tinker_path="tinker://m/weights/a",
    ),
    Checkpoint(
        checkpoint_id="sampler_weights/a",
        checkpoint_type="sampler",
        time="2026-10-21T07:28:00Z",
        tinker_path="tinker://m/a",
    ),
    Checkpoint(
        checkpoint_id="b",
        checkpoint_type="training",
        time="2026-10-21T07:28:00Z",
        tinker_path="tinker://m/weights/b",
    ),
]


@pytest.mark.parametrize(
    ("kind", "name", "path"),
    [
        ("save_state", "a", "tinker://m/weights/a"),
        ("save_for_sampler", "a", "tinker://m/a"),
        ("save_state", "b", "tinker://m/weights/b"),
        ("save_for_sampler", "b", None),
        ("save_state", "c", None),
        ("save_for_sampler", None, None),
        ("optim_step", "a", None),
    ],
)
def test_what_was_saved_is_found_by_its_kind_and_name(
    kind: OperationKind, name: str | None, path: str | None
) -> None:
    """In the forms of ids that services use."""
    assert find_saved(SAVED, kind, name) == path


@pytest.mark.parametrize(
    ("error", "certain"),
    [
        (RequestFailedError("boom", category="server"), True),
        (polled(400, {"detail": "no such loss"}), True),
        (status(404), True),
        (status(409), True),
        (polled(409, {"detail": "Sequence conflict: expected 7, got 8"}), True),
        (polled(409, {"detail": "Sequence conflict: expected 7, got 6"}), False),
        (polled(409, {"detail": "sequence number was reused"}), False),
        (status(422), True),
        (APITimeoutError("too late", doubtful=True), False),
        (APIResponseValidationError("unreadable", []), False),
        (status(401), False),
        (status(402), False),
        (status(503), False),
        (CredentialError("the token has expired"), False),
    ],
    ids=str,
)
def test_only_what_speaks_of_the_request_says_that_nothing_was_done(error: Exception, certain: bool) -> None:
    """A result that cannot be had may be that of a request that was carried out."""
    assert says_not_done(error) is certain


@pytest.mark.parametrize(
    ("error", "gone"),
    [
        (status(404, {"detail": "no such checkpoint"}), True),
        (status(404, "<html>404 Not Found</html>"), False),
        (status(404, {"detail": "Not Found"}), False),
        (status(400, {"detail": "rank 8 is not 16"}), True),
        (status(422, {"detail": "a path has three parts"}), True),
        (status(403), False),
        (status(429), False),
        (status(500), False),
        (RequestFailedError("checkpoint x not found", category="unknown"), True),
        (RequestFailedError("[Errno 2] No such file or directory", category="unknown"), True),
        (RequestFailedError("x does not exist", category="unknown"), True),
        (RequestFailedError("out of memory", category="unknown"), False),
        (RequestFailedError("library not found", category="server"), False),
        (RequestFailedError("another rank", category="user"), True),
        (APITimeoutError("too late"), False),
    ],
    ids=str,
)
def test_only_what_speaks_of_the_state_says_that_it_is_gone(error: Exception, gone: bool) -> None:
    """A service that has failed, or is busy, may load it another time; nor is a missing call a missing state."""
    assert says_state_gone(error) is gone


@pytest.mark.parametrize(
    ("error", "dedupe", "free"),
    [
        (RequestFailedError("bad batch"), "reject", True),
        (RequestFailedError("bad batch"), "replay", False),
        (RequestFailedError("bad batch"), "none", False),
        (polled(409, {"detail": "Sequence conflict: expected 7, got 8"}), "reject", True),
        (polled(409, {"detail": "Sequence conflict: expected 7, got 6"}), "reject", False),
        (APIConnectionError("no answer"), "reject", False),
    ],
)
def test_a_number_that_failed_is_free_where_it_is_still_expected(
    error: Exception, dedupe: DedupeMode, free: bool
) -> None:
    """Of a result that is not had nobody knows, and a number that was used is used up."""
    assert frees_number(error, dedupe) is free


# --- the dialects, one row per service -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "kind", "meaning"),
    [
        (status(410, {"detail": "session has ended"}), "optim_step", "gone"),  # Tinker
        (polled(410, {"detail": "promise expired"}), "forward_backward", "gone"),  # any
        (
            status(400, {"detail": STALE}),
            "optim_step",
            "gone",
        ),  # SkyRL, also after its heartbeat was answered 200
        (polled(404, {"detail": "Future 275 not found"}), "optim_step", "gone"),  # SkyRL, TuFT
        (polled(404, {"detail": "Checkpoint tinker://m/weights/x not found"}), "load_state", None),  # TuFT
        (
            polled(409, {"detail": "Sequence conflict: expected 7, got 8"}),
            "optim_step",
            None,
        ),  # TuFT: too early
        (
            polled(200, {"error": "Unknown request_id 3f2a", "category": "User"}),
            "optim_step",
            "gone",
        ),  # opentinker
        (
            polled(400, {"type": "RequestFailedResponse", "error_message": "model not found"}),
            "optim_step",
            "gone",
        ),  # open-rl
        (
            APITimeoutError("nothing but `try_again`", doubtful=True),
            "optim_step",
            "doubtful",
        ),  # open-rl, Twinkle
        (status(500, "Internal Server Error"), "optim_step", "doubtful"),  # all of them, after a defect
    ],
    ids=str,
)
def test_each_service_tells_of_a_loss_in_its_dialect(
    error: BaseException, kind: OperationKind, meaning: str | None
) -> None:
    """The table at the head of the module; what speaks of a path to load from restarts no model."""
    assert classify(error, kind) == meaning


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (status(410, {"detail": "Session s has ended"}), True),
        (status(404, {"detail": "Sampling session x not found"}), True),
        (status(404, {"detail": "Not Found"}), False),
        (status(400, {"detail": "Model x not loaded (likely stale request from previous server)"}), True),
        (status(400, {"detail": "unknown sampling_session_id"}), True),
        (status(400, {"detail": "max_tokens is missing"}), False),
        (status(503, {"detail": "session"}), False),
        (RequestFailedError("session"), False),
    ],
    ids=str,
)
def test_a_refused_sample_tells_whether_its_sampling_session_has_ended(
    error: BaseException, lost: bool
) -> None:
    """A call that is not there, and a bad parameter, tell of no loss."""
    assert sampler_lost(error) is lost


def test_only_the_key_is_told_at_once() -> None:
    """401, 403 and a missing key: no restore can help."""
    assert is_refusal_of_key(status(401))
    assert is_refusal_of_key(status(403))
    assert is_refusal_of_key(CredentialError("none"))
    assert not is_refusal_of_key(status(402))
    assert not is_refusal_of_key(status(503))


# --- the ladder ---------------------------------------------------------------------------------------------------

LADDER = """
out_of_reach         resume       resume       resume
doubtful_numbered    resume       resume       new_model
doubtful             resume       resume       resume
applied              resume       resume       new_model
result_lost          new_model    new_model    new_model
model_lost           new_model    new_model    new_model
no_model_in_session  new_session  new_session  new_session
session_ended        new_session  new_session  new_session
step_void            poison       poison       poison
nothing_to_load      poison       poison       poison
"""


def test_the_ladder_has_a_rung_for_every_cause_in_every_mode() -> None:
    """Resume the same model, a new one in the session, a new session, poison."""
    rows = {line.split()[0]: line.split()[1:] for line in LADDER.strip().splitlines()}
    assert set(rows) == set(get_args(Cause))
    for cause in get_args(Cause):
        assert [next_rung(cause, mode) for mode in get_args(DedupeMode)] == rows[cause]


def test_restores_that_come_to_nothing_are_bounded() -> None:
    """Whatever the cause, the fifth one in a row was the last."""
    for cause in get_args(Cause):
        for mode in get_args(DedupeMode):
            assert next_rung(cause, mode, restores=MAX_RESTORES) == "poison"
            assert next_rung(cause, mode, restores=MAX_RESTORES - 1) == next_rung(cause, mode)


def test_the_first_restore_is_at_once_and_the_next_ones_wait() -> None:
    """One second, twice as long each time, never more than half a minute, less up to a quarter."""
    assert [restore_delay(n, 0.0) for n in range(8)] == [0, 1, 2, 4, 8, 16, 30, 30]
    assert restore_delay(7, 1.0) == 22.5
