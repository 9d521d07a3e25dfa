from __future__ import annotations

import copy
import pickle
import re
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from tinker_actors import errors
from tinker_actors.errors import (
    ActorError,
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    APIStatusError,
    ArchiveError,
    AskCycle,
    ConfigError,
    CredentialError,
    DecodeError,
    DeletionFailed,
    InputError,
    JournalError,
    JournalFull,
    MailboxFull,
    ModelLost,
    ModelPoisoned,
    ModelUnloaded,
    RequestFailedError,
    RestartIntensityExceeded,
    RestoreMismatch,
    ResultLost,
    RunLocked,
    RunMismatch,
    SamplerLost,
    ServiceClosing,
    ServiceTooOld,
    StepVoid,
    TinkerActorsError,
    TinkerError,
    status_error_class,
)

CLASSES = sorted(
    (
        item
        for item in vars(errors).values()
        if isinstance(item, type) and issubclass(item, TinkerActorsError)
    ),
    key=lambda item: item.__name__,
)

MAKERS: dict[type, Callable[[Any], TinkerActorsError]] = {
    InputError: lambda kind: kind("data[3]", [1, 2], "must be more"),
    DecodeError: lambda kind: kind("Datum", ["required field missing @ $.a"]),
    APIConnectionError: lambda kind: kind("cut", doubtful=True, attempts=3),
    APIResponseValidationError: lambda kind: kind("odd", ["missing @ $.b"]),
    APIStatusError: lambda kind: kind(
        "no",
        status_code=418,
        body={"detail": "x"},
        retry_after=1.5,
        should_retry=True,
        retryable=True,
        attempts=2,
    ),
    APIError: lambda kind: kind("no", retryable=True, request_id="r", attempts=4),
    ArchiveError: lambda kind: kind("unsafe", path="tinker://r/weights/a", member="../x"),
    DeletionFailed: lambda kind: kind("some", deleted=["a"], failed={}),
    CredentialError: lambda kind: kind("expired"),
    RequestFailedError: lambda kind: kind("failed", request_id="r", category="user"),
    ModelLost: lambda kind: kind("gone", model_id="m"),
    ResultLost: lambda kind: kind("applied", request_id="r"),
    ModelPoisoned: lambda kind: kind("spoilt", model_id="m", started=True),
    SamplerLost: lambda kind: kind("gone"),
    ModelUnloaded: lambda kind: kind("gone", model_id="m"),
    StepVoid: lambda kind: kind("void"),
    ServiceClosing: lambda kind: kind(),
    JournalError: lambda kind: kind("malformed", path="runs/a/journal.sqlite"),
    JournalFull: lambda kind: kind("full", path="runs/a", held=90, wanted=20, limit=100),
    RunLocked: lambda kind: kind("open elsewhere", path="runs/a", pid=7, host="here"),
    RunMismatch: lambda kind: kind("another rank", fields={"rank": [8, 32]}),
    RestoreMismatch: lambda kind: kind("not it", model_id="m", checkpoint=None, lost="optimizer"),
    ServiceTooOld: lambda kind: kind("prompt_alt_tokens_k", "there are none"),
    AskCycle: lambda kind: kind("a waits for itself", actor="b", path=["a", "b", "a"]),
    MailboxFull: lambda kind: kind("full", actor="a/b", depth=3, capacity=3),
    RestartIntensityExceeded: lambda kind: kind("too often", actor="a", history=["x", "y"]),
    ActorError: lambda kind: kind("no", actor="a/b", started=True),
    TinkerActorsError: lambda kind: kind("plain"),
}


def make(kind: type[TinkerActorsError]) -> TinkerActorsError:
    """Make an error with every argument of its class set, by the nearest maker."""
    return MAKERS[next(base for base in kind.__mro__ if base in MAKERS)](kind)


def raised(kind: type[TinkerActorsError], cause: BaseException) -> TinkerActorsError:
    """Make an error that was really raised: with a traceback, a cause and a note."""
    with pytest.raises(kind) as caught:
        raise make(kind) from cause
    caught.value.add_note("seen at step 3")
    return caught.value


# --- the tree --------------------------------------------------------------------------------------------


def drawn_tree() -> dict[str, str | None]:
    """Read the picture in the module's docstring: name to name of the parent."""
    parents: dict[str, str | None] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^ {4}((?:[│├└─ ]{4})*)([A-Z]\w+(?: .*)?)$", line)
        if match is None:
            continue
        depth = len(match[1]) // 4
        listed = "·" in match[2]
        for name in re.findall(r"[A-Z]\w+", match[2])[: None if listed else 1]:
            parents[name] = path[depth - 1] if depth else None
            path[depth:] = [name]
    return parents


def test_the_picture_is_the_tree() -> None:
    """The docstring shows every class below its true parent, and no others."""
    real = {
        kind.__name__: kind.__mro__[1].__name__ if kind is not TinkerActorsError else None for kind in CLASSES
    }
    assert drawn_tree() == real


def test_every_class_is_public() -> None:
    """`__all__` is the tree and the one function."""
    assert len(set(errors.__all__)) == len(errors.__all__)
    assert set(errors.__all__) == {kind.__name__ for kind in CLASSES} | {"status_error_class"}


def test_input_errors_are_value_errors() -> None:
    """Whoever guards against ValueError gets them, too; nothing else is caught with them."""
    assert [kind.__name__ for kind in CLASSES if issubclass(kind, ValueError)] == ["InputError"]


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (400, "BadRequestError"),
        (401, "AuthenticationError"),
        (402, "BillingError"),
        (403, "PermissionDeniedError"),
        (404, "NotFoundError"),
        (408, "APIStatusError"),
        (409, "ConflictError"),
        (410, "SessionGoneError"),
        (418, "APIStatusError"),
        (422, "UnprocessableEntityError"),
        (429, "RateLimitError"),
        (500, "InternalServerError"),
        (503, "InternalServerError"),
        (599, "InternalServerError"),
        (302, "APIStatusError"),
    ],
)
def test_each_status_has_its_class(status: int, name: str) -> None:
    """Those of Tinker, and 402 and 410 beside them."""
    assert status_error_class(status).__name__ == name


# --- copies ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_a_renewed_error_is_another_with_the_same_contents(kind: type[TinkerActorsError]) -> None:
    """Class, text, attributes, cause and notes are the same; the traceback is empty, the object new."""
    error = raised(kind, KeyError("why"))
    fresh = error.renewed()
    assert fresh is not error
    assert type(fresh) is kind
    assert (str(fresh), fresh.args, fresh.__dict__) == (str(error), error.args, error.__dict__)
    assert fresh.__cause__ is error.__cause__
    assert fresh.__suppress_context__
    assert fresh.__traceback__ is None
    assert error.__traceback__ is not None
    fresh.add_note("only here")
    assert error.__notes__ == ["seen at step 3"]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_an_error_survives_pickling(kind: type[TinkerActorsError]) -> None:
    """Everything but the traceback arrives in another process, the cause too if it is one of ours."""
    error = raised(kind, make(ConfigError))
    got = pickle.loads(pickle.dumps(error))
    assert type(got) is kind
    assert (str(got), got.args, got.__dict__) == (str(error), error.args, error.__dict__)
    assert type(got.__cause__) is ConfigError
    assert got.__notes__ == ["seen at step 3"]
    assert got.__traceback__ is None


def test_a_foreign_cause_stays_behind() -> None:
    """It may be of a class that cannot be pickled, and the error must arrive all the same."""

    class Unpicklable(Exception):
        def __reduce__(self) -> str:
            raise TypeError("no")

    got = pickle.loads(pickle.dumps(raised(APIError, Unpicklable())))
    assert (got.request_id, got.attempts, got.__cause__) == ("r", 4, None)


def test_a_copy_does_not_hide_the_context() -> None:
    """An error without a cause, raised again elsewhere, still shows what was being handled there."""
    plain = ConfigError("x")
    for twin in (plain.renewed(), copy.copy(plain), pickle.loads(pickle.dumps(plain))):
        assert not twin.__suppress_context__
    with pytest.raises(ConfigError) as caught:
        try:
            raise KeyError("first")
        except KeyError:
            raise plain  # noqa: B904 - the context is what is tested
    hidden = ConfigError("y")
    hidden.__suppress_context__ = True  # what `raise ... from None` does
    assert hidden.renewed().__suppress_context__
    fresh = plain.renewed()
    assert fresh.__context__ is caught.value.__context__
    assert "KeyError: 'first'" in "".join(traceback.format_exception(fresh))


def test_raising_renewed_errors_does_not_lengthen_a_traceback() -> None:
    """However often a failure is handed out, the one that is kept stays as it is."""
    error = raised(APIError, KeyError())
    before = len(traceback.extract_tb(error.__traceback__))
    for _ in range(5):
        with pytest.raises(APIError):
            raise error.renewed()
    assert len(traceback.extract_tb(error.__traceback__)) == before


# --- what they say ---------------------------------------------------------------------------------------


def test_every_error_says_whether_it_can_be_tried_again() -> None:
    """The attributes of the root are there on every class."""
    for kind in CLASSES:
        error = make(kind)
        assert isinstance(error.retryable, bool)
        assert error.started in (None, True, False)
        assert isinstance(error.attempts, int)
        assert error.request_id is None or isinstance(error.request_id, str)


@pytest.mark.parametrize(
    ("error", "attributes"),
    [
        (APIConnectionError("x"), {"doubtful": False, "retryable": True, "attempts": 1}),
        (make(APIConnectionError), {"doubtful": True, "retryable": True, "attempts": 3}),
        (make(RequestFailedError), {"category": "user", "request_id": "r", "started": True}),
        (make(ModelPoisoned), {"model_id": "m", "started": True}),
        (make(ModelUnloaded), {"model_id": "m", "started": False}),
        (make(StepVoid), {"started": False}),
        (make(SamplerLost), {"started": False}),
        (ServiceClosing(), {"started": False}),
        (make(MailboxFull), {"actor": "a/b", "depth": 3, "capacity": 3, "started": False}),
        (make(AskCycle), {"actor": "b", "path": ("a", "b", "a"), "started": False}),
        (make(RestartIntensityExceeded), {"history": ("x", "y"), "actor": "a"}),
        (make(JournalError), {"path": "runs/a/journal.sqlite", "started": False}),
        (make(JournalFull), {"path": "runs/a", "held": 90, "wanted": 20, "limit": 100, "started": False}),
        (make(RunLocked), {"path": "runs/a", "pid": 7, "host": "here", "started": False}),
        (make(RunMismatch), {"fields": {"rank": (8, 32)}, "started": False}),
        (make(RestoreMismatch), {"model_id": "m", "checkpoint": None, "lost": "optimizer"}),
        (make(DecodeError), {"what": "Datum", "problems": ("required field missing @ $.a",)}),
        (TinkerError("x"), {"retryable": False, "started": None, "request_id": None, "attempts": 0}),
    ],
    ids=lambda value: f"{type(value).__name__} {value}"[:40] if isinstance(value, BaseException) else "",
)
def test_attributes_are_those_that_were_given(
    error: TinkerActorsError, attributes: dict[str, object]
) -> None:
    """What a handler decides by is data, not text."""
    assert {name: getattr(error, name) for name in attributes} == attributes


def test_an_input_error_names_field_and_value() -> None:
    """In its text and as attributes; a long value is cut in the text only."""
    error = InputError("data[0]", list(range(1000)), "too long")
    assert (error.field, error.value, error.why, error.started) == (
        "data[0]",
        list(range(1000)),
        "too long",
        False,
    )
    assert str(error).startswith("data[0] = [0, 1, 2, ")
    assert str(error).endswith("…: too long")
    assert len(str(error)) < 160


def test_an_input_error_does_not_depend_on_the_values_repr() -> None:
    """A value that cannot be shown is still refused with its name."""

    class Shy:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    assert str(InputError("x", Shy(), "odd")) == "x = <Shy, whose repr raises RuntimeError>: odd"
    assert "ValueError" in str(InputError("x", 10**5000, "odd"))  # Python shows no such numbers
