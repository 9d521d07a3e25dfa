"""How the loss of a model or of its session shows, in the dialects of the services.

Measured on real services: 404 or 410 on a submit or a poll, 400 with "not loaded", and a failed request whose
text says the same. A beat that is answered 200 proves nothing.

In doubt is what may or may not have been carried out: a request without a complete answer, an answer 408, 5xx, or
one that says yes in words that cannot be read (the promise is lost, the work is done).
"""

from __future__ import annotations

from typing import Literal

from tinker_actors.errors import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    BadRequestError,
    NotFoundError,
    RequestFailedError,
    SessionGoneError,
)
from tinker_actors.protocol.step import OperationKind

__all__ = ["Loss", "classify", "session_lost"]

Loss = Literal["gone", "doubtful"]
"""`gone`: the model or its session is lost. `doubtful`: whether the last request was carried out is unknown."""

_LOST_TEXTS = ("not loaded", "model not found", "unknown model", "stale request")


def classify(error: BaseException, kind: OperationKind) -> Loss | None:
    """Say whether the failure of an operation means that the model has to be restored.

    A 404 for `load_state` speaks of the saved state unless its text says that it speaks of the model.

    Returns:
        None: an ordinary failure.
    """
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


def _says_lost(error: BaseException) -> bool:
    text = str(error).lower()
    return any(mark in text for mark in _LOST_TEXTS)


def session_lost(error: BaseException) -> bool:
    """Whether a refused creation means that the session has ended, and not that the request was wrong."""
    if isinstance(error, SessionGoneError):
        return True
    return isinstance(error, NotFoundError | BadRequestError) and "session" in str(error).lower()
