"""What becomes of one call of a service: no answer, an odd one, or one with an error status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tinker_actors.errors.root import TinkerActorsError

__all__ = [
    "APIConnectionError",
    "APIError",
    "APIResponseValidationError",
    "APIStatusError",
    "APITimeoutError",
    "AuthenticationError",
    "BadRequestError",
    "BillingError",
    "ConflictError",
    "InternalServerError",
    "NotFoundError",
    "PermissionDeniedError",
    "RateLimitError",
    "SessionGoneError",
    "TinkerError",
    "UnprocessableEntityError",
    "status_error_class",
]


class TinkerError(TinkerActorsError):
    """Root of what comes from a Tinker service, or from the attempt to use one."""


class APIError(TinkerError):
    """One call to the service failed.

    Attributes:
        request: the request as it was sent (`httpx.Request`); None if none was made. Not pickled with the error.
        response: the answer (`httpx.Response`); None if there was none. Not pickled with the error.
    """

    request: object = None
    response: object = None
    _unpickled = ("request", "response")

    def __init__(
        self, message: str, *, retryable: bool = False, request_id: str | None = None, attempts: int = 1
    ) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.request_id = request_id
        self.attempts = attempts


class APIConnectionError(APIError):
    """No complete answer was read.

    Attributes:
        doubtful: the first byte of the request was written, so the service may have carried it out.
    """

    def __init__(
        self, message: str, *, doubtful: bool = False, retryable: bool = True, attempts: int = 1
    ) -> None:
        super().__init__(message, retryable=retryable, attempts=attempts)
        self.doubtful = doubtful


class APITimeoutError(APIConnectionError):
    """The answer did not come in time."""


class APIResponseValidationError(APIError):
    """The service answered with something that is not of the expected shape.

    Attributes:
        problems: what was wrong, each with its path, such as `required field missing @ $.request_id`.
    """

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class APIStatusError(APIError):
    """The service answered with an error status.

    Attributes:
        status_code: the HTTP status.
        body: the answer's JSON value, else its text.
        retry_after: seconds the service asked to wait, if it did.
        should_retry: what the service said about trying again, if it did.
    """

    def __init__(
        self,
        message: str,
        *,
        status_code: int,
        body: object = None,
        retry_after: float | None = None,
        should_retry: bool | None = None,
        retryable: bool = False,
        attempts: int = 1,
    ) -> None:
        super().__init__(message, retryable=retryable, attempts=attempts)
        self.status_code = status_code
        self.body = body
        self.retry_after = retry_after
        self.should_retry = should_retry


class BadRequestError(APIStatusError):
    """400: the service refused the request as malformed."""


class AuthenticationError(APIStatusError):
    """401: the key was not accepted."""


class BillingError(APIStatusError):
    """402: the account cannot be charged."""


class PermissionDeniedError(APIStatusError):
    """403: the key does not allow this."""


class NotFoundError(APIStatusError):
    """404: no such thing on this service."""


class ConflictError(APIStatusError):
    """409: the request contradicts the state of the service."""


class SessionGoneError(APIStatusError):
    """410: the session or the promise has ended on the service."""


class UnprocessableEntityError(APIStatusError):
    """422: the request was understood and refused."""


class RateLimitError(APIStatusError):
    """429: too many requests; `retry_after` says how long to wait, if the service said so."""


class InternalServerError(APIStatusError):
    """500 and above: the service failed."""


_STATUS_ERRORS: Mapping[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    402: BillingError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    410: SessionGoneError,
    422: UnprocessableEntityError,
    429: RateLimitError,
}


def status_error_class(status_code: int) -> type[APIStatusError]:
    """Return the exception class for an HTTP error status."""
    if status_code >= 500:
        return InternalServerError
    return _STATUS_ERRORS.get(status_code, APIStatusError)
