"""How the service says no: Tinker's own status errors, raised by whoever decides, written out by the app."""

from __future__ import annotations

from tinker_actors.errors import APIStatusError, status_error_class

__all__ = ["refusal"]


def refusal(status_code: int, message: str, *, retry_after: float | None = None) -> APIStatusError:
    """Return the error of a status: what a handler raises here, the client raises there.

    Args:
        status_code: the HTTP status.
        message: becomes `detail` in the answer's body.
        retry_after: seconds after which the same request may succeed; becomes the header.
    """
    retryable = retry_after is not None
    return status_error_class(status_code)(
        message, status_code=status_code, retry_after=retry_after, retryable=retryable
    )
