"""How the loss of a model or of its session shows, in the dialects of the services.

Measured on real services: 404 or 410 on a submit or a poll, 400 with "not loaded", and a failed request whose
text says the same. A beat that is answered 200 proves nothing.
"""

from __future__ import annotations

from typing import Literal

from tinker_actors.errors import (
    APIConnectionError,
    APIStatusError,
    BadRequestError,
    NotFoundError,
    RequestFailedError,
    SessionGoneError,
)

__all__ = ["Loss", "classify", "session_lost"]

Loss = Literal["gone", "doubtful"]
"""`gone`: the model or its session is lost. `doubtful`: whether the last request was carried out is unknown."""

_LOST_TEXTS = ("not loaded", "model not found", "unknown model", "stale request")


def classify(error: BaseException) -> Loss | None:
    """Say whether an error means that the model has to be restored; None if it is an ordinary failure."""
    if isinstance(error, NotFoundError | SessionGoneError):
        return "gone"
    if isinstance(error, BadRequestError | RequestFailedError) and _says_lost(error):
        return "gone"
    if isinstance(error, APIConnectionError) and error.doubtful:
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
