"""How the loss of a model or of its session shows, in the dialects of the services.

Measured on real services: 404 or 410 on a submit or a poll, 400 with "not loaded", and a failed request whose
text says the same. A beat that is answered 200 proves nothing.

One 404 speaks of no model: some services take batches in protobuf only, where a flag says that there shall be no
gradient, and have no call of its own for that (`forward`).

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
    BadRequestError,
    ConflictError,
    NotFoundError,
    RequestFailedError,
    SessionGoneError,
    UnprocessableEntityError,
)
from tinker_actors.protocol.failure import says_no_route
from tinker_actors.protocol.step import OperationKind
from tinker_actors.wire.codec import JsonValue
from tinker_actors.wire.run import Checkpoint

__all__ = ["Loss", "classify", "find_saved", "says_not_done", "session_lost"]

Loss = Literal["gone", "doubtful"]
"""`gone`: the model or its session is lost. `doubtful`: whether the last request was carried out is unknown."""

_LOST_TEXTS = ("not loaded", "model not found", "unknown model", "stale request")


def classify(error: BaseException, kind: OperationKind) -> Loss | None:
    """Say whether the failure of an operation means that the model has to be restored.

    A 404 for `load_state` speaks of the saved state unless its text says that it speaks of the model.

    Returns:
        None: an ordinary failure.
    """
    if kind == "forward" and isinstance(error, NotFoundError) and _is_no_call(error):
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

    Others say only that its result is not had: too late, unreadable, or asked for with a key that has ended. A 404 is
    about what was to be loaded, unless `classify` says that the model is gone.
    """
    refused = BadRequestError | ConflictError | NotFoundError | UnprocessableEntityError
    return isinstance(error, RequestFailedError | refused)


def _is_no_call(error: NotFoundError) -> bool:
    """Whether a submit was refused because there is no such call; a promise would say that there is."""
    return error.request_id is None and says_no_route(cast("JsonValue", error.body))


def _says_lost(error: BaseException) -> bool:
    text = str(error).lower()
    return any(mark in text for mark in _LOST_TEXTS)


def session_lost(error: BaseException) -> bool:
    """Whether a refused creation means that the session has ended, and not that the request was wrong."""
    if isinstance(error, SessionGoneError):
        return True
    return isinstance(error, NotFoundError | BadRequestError) and "session" in str(error).lower()


_SAVED_AS: Mapping[OperationKind, str] = {"save_state": "training", "save_for_sampler": "sampler"}


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
