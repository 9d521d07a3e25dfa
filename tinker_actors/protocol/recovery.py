"""How the loss of a model or of its session shows, in the dialects of the services, and what is done about it. Pure.

Measured on real services: 404 or 410 on a submit or a poll, 400 with "not loaded", and a failed request whose
text says the same. A beat that is answered 200 proves nothing.

    service         where         how it shows                                  what it means
    Tinker          beat, submit  410                                           the session has ended
    any             poll          410                                           the promise is lost
    SkyRL           submit        400 "Model … not loaded (likely stale …)"     the model is lost
    SkyRL           beat          200, also after it has unloaded everything    nothing
    SkyRL, Twinkle  beat          404                                           the session has ended
    TuFT            beat          500, again and again                          ask whether the session is listed
    TuFT            poll          404 of `load_weights`                         there is no such saved state
    TuFT, SkyRL     poll          404                                           the promise is lost
    open-rl,        beat          200, whatever the id                          nothing
    Twinkle         poll          `try_again` for ever                          after the patience: in doubt
    opentinker      poll          200 "Unknown request_id": read once before    the result is lost, not the work

What is done about it is the *ladder*: the first rung that can be had, `next_rung`.

    cause                                         replay      reject      none
    the service is out of reach, nothing sent     resume      resume      resume
    a numbered request is in doubt                resume      resume      new model
    a request that may be repeated is in doubt    resume      resume      resume
    the service has applied it, no result         resume      resume      new model
    a result is lost                              new model   new model   new model
    the model is lost                             new model   new model   new model
    no model can be made in the session           new session, in every mode
    the session has ended                         new session, in every mode
    a step was given up, or nothing to load       poison, in every mode

`resume` goes on with the same model: the same bytes and number go out again, or the result is known to be lost. A new
model is loaded from the latest state that can be had, and gets what came after once more. After `MAX_RESTORES` restores
in a row that came to nothing the model is poisoned.

One 404 speaks of no model: some services take batches in protobuf only, where a flag says that there shall be no
gradient, and have no call of its own for that (`forward`); and older ones save nothing for use elsewhere.

In doubt is what may or may not have been carried out: a request without a complete answer, an answer 408, 5xx, or
one that says yes in words that cannot be read (the promise is lost, the work is done).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, cast

from tinker_actors.errors import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    CredentialError,
    NotFoundError,
    PermissionDeniedError,
    RequestFailedError,
    SessionGoneError,
    UnprocessableEntityError,
)
from tinker_actors.protocol.failure import explain, says_no_route
from tinker_actors.protocol.retry import DedupeMode, says_used
from tinker_actors.protocol.step import OperationKind
from tinker_actors.wire.codec import JsonValue
from tinker_actors.wire.run import Checkpoint

__all__ = [
    "MAX_LOADS",
    "MAX_RESTORES",
    "Cause",
    "Loss",
    "Rung",
    "classify",
    "find_saved",
    "frees_number",
    "is_refusal_of_key",
    "next_rung",
    "restore_delay",
    "sampler_lost",
    "says_not_done",
    "says_state_gone",
    "session_lost",
]

Loss = Literal["gone", "doubtful"]
"""`gone`: the model or its session is lost. `doubtful`: whether the last request was carried out is unknown."""

Cause = Literal[
    "out_of_reach",
    "doubtful_numbered",
    "doubtful",
    "applied",
    "result_lost",
    "model_lost",
    "no_model_in_session",
    "session_ended",
    "step_void",
    "nothing_to_load",
]
Rung = Literal["resume", "new_model", "new_session", "poison"]
MAX_RESTORES = 5
"""Restores in a row that may come to nothing."""

MAX_LOADS = 4
"""How often one saved state is loaded in vain, without a word that it is gone, before the one before it is."""

_LADDER: Mapping[Cause, Rung | Mapping[DedupeMode, Rung]] = {
    "out_of_reach": "resume",
    "doubtful_numbered": {"replay": "resume", "reject": "resume", "none": "new_model"},
    "doubtful": "resume",
    "applied": {"replay": "resume", "reject": "resume", "none": "new_model"},
    "result_lost": "new_model",
    "model_lost": "new_model",
    "no_model_in_session": "new_session",
    "session_ended": "new_session",
    "step_void": "poison",
    "nothing_to_load": "poison",
}


def next_rung(cause: Cause, dedupe: DedupeMode, *, restores: int = 0) -> Rung:
    """Say what is done about a loss; see the table at the head of the module.

    Args:
        cause: what happened.
        dedupe: what the service does with a number it has seen.
        restores: how many in a row have come to nothing.
    """
    if restores >= MAX_RESTORES:
        return "poison"
    rung = _LADDER[cause]
    return rung if isinstance(rung, str) else rung[dedupe]


def restore_delay(restores: int, chance: float) -> float:
    """Return the seconds before a restore: none before the first, then 1, 2, 4 up to 30, less up to a quarter.

    Args:
        restores: how many in a row have come to nothing.
        chance: a number in [0, 1).
    """
    return 0.0 if restores == 0 else min(30.0, 2.0 ** min(restores - 1, 5)) * (1 - 0.25 * chance)


_LOST_TEXTS = ("not loaded", "model not found", "unknown model", "stale request")


def classify(error: BaseException, kind: OperationKind) -> Loss | None:
    """Say whether the failure of an operation means that the model has to be restored.

    A 404 for `load_state` speaks of the saved state unless its text says that it speaks of the model.

    Returns:
        None: an ordinary failure.
    """
    if kind in _NOT_EVERYWHERE and isinstance(error, NotFoundError) and _is_no_call(error):
        return None
    if isinstance(error, SessionGoneError) or (isinstance(error, NotFoundError) and kind != "load_state"):
        return "gone"
    if isinstance(error, BadRequestError | NotFoundError | RequestFailedError) and _says_lost(error):
        return "gone"
    if isinstance(error, APIResponseValidationError) or (
        isinstance(error, APIConnectionError) and error.doubtful
    ):
        return "doubtful"
    if isinstance(error, APIStatusError) and (error.status_code == 408 or error.status_code >= 500):
        return "doubtful"
    return None


def says_not_done(error: BaseException) -> bool:
    """Whether the failure of a promise says that its request changed nothing.

    Others say only that its result is not had: too late, unreadable, or asked for with a key that has ended. So does
    one that says that the number was used, for who but this request has used it? A 404 is about what was to be loaded,
    unless `classify` says that the model is gone.
    """
    refused = BadRequestError | ConflictError | NotFoundError | UnprocessableEntityError
    return isinstance(error, RequestFailedError | refused) and not says_used(str(error))


_GONE_TEXTS = ("not found", "no such", "not exist")


def says_state_gone(error: BaseException) -> bool:
    """Whether the failure of a load says for sure that the saved state is not there, or of no use.

    Another failure is one of this time: a service that has no room for it now, or trouble with its store, may load it
    later. A 404 that only says that there is no such call is a proxy's.
    """
    if isinstance(error, NotFoundError):
        return not says_no_route(cast("JsonValue", error.body))
    if isinstance(error, BadRequestError | UnprocessableEntityError):
        return True
    if not isinstance(error, RequestFailedError) or error.category == "server":
        return False
    text = str(error).lower()
    return error.category == "user" or any(mark in text for mark in _GONE_TEXTS)


def frees_number(error: BaseException, dedupe: DedupeMode) -> bool:
    """Whether the number of a request whose promise failed is free for the next one.

    Where numbers that were used are refused (TuFT), one that failed is still expected, and so are refused all that come
    behind it.
    """
    return dedupe == "reject" and says_not_done(error)


# Calls that not every service has.
_NOT_EVERYWHERE: frozenset[OperationKind] = frozenset({"forward", "save_external"})


def _is_no_call(error: NotFoundError) -> bool:
    """Whether a submit was refused because there is no such call; a promise would say that there is."""
    return error.request_id is None and says_no_route(cast("JsonValue", error.body))


def _says_lost(error: BaseException) -> bool:
    text = str(error).lower()
    return any(mark in text for mark in _LOST_TEXTS)


def session_lost(error: BaseException, path: str | None = None) -> bool:
    """Whether a refused call means that the session has ended, and not that the request was wrong.

    Args:
        error: the refusal.
        path: of the saved state that the call was about, if any: it may have a session's name in it.
    """
    if isinstance(error, SessionGoneError):
        return True
    return isinstance(error, NotFoundError | BadRequestError) and _speaks_of_session(error, path)


def _speaks_of_session(error: APIStatusError, path: str | None = None) -> bool:
    """Whether a service speaks of a session; the name of a call that it does not have speaks of none."""
    body = cast("JsonValue", error.body)
    text = explain(body).replace(path, "") if path else explain(body)
    return "session" in text.lower() and not says_no_route(body)


def is_refusal_of_key(error: BaseException) -> bool:
    """Whether nothing can be done before somebody has changed the key or its rights."""
    return isinstance(error, AuthenticationError | PermissionDeniedError | CredentialError)


def sampler_lost(error: BaseException) -> bool:
    """Whether a refused sample means that its sampling session has ended, alone or with the session."""
    if isinstance(error, SessionGoneError):
        return True
    if isinstance(error, NotFoundError):
        return not says_no_route(cast("JsonValue", error.body))
    return isinstance(error, BadRequestError) and (_says_lost(error) or _speaks_of_session(error))


_SAVED_AS: Mapping[OperationKind, str] = {
    "save_state": "training",
    "save_for_sampler": "sampler",
    "save_external": "external",
}


def find_saved(checkpoints: Iterable[Checkpoint], kind: OperationKind, name: str | None) -> str | None:
    """Return the path of what a save has made, if it is among the checkpoints of its model; else None.

    Args:
        checkpoints: those of the model.
        kind: the save.
        name: what it was to be called; None: it had no name, and cannot be found.
    """
    wanted = _SAVED_AS.get(kind)
    for checkpoint in checkpoints:
        # The first part of an id differs among services, and the path of some has no such part at all.
        if checkpoint.checkpoint_type == wanted and checkpoint.checkpoint_id.rpartition("/")[2] == name:
            return checkpoint.tinker_path
    return None
