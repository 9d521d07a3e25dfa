"""Every exception of tinker_actors, as a picture and as code.

    TinkerActorsError                     the one root
    ├── ConfigError                       local: a setting is missing, wrong or contradicts another
    ├── InputError                        local: a value refused before a byte was sent (`field`, `value`)
    ├── DecodeError                       bytes that are not the message they should be (`problems`)
    ├── StreamAlreadyConsumed             a response's body or events were asked for a second time
    ├── NotPicklable                      local: it cannot be sent to another process; says what can
    ├── UnobservedFailure                 an earlier operation failed and nobody had awaited it
    ├── ForeignCancellation               asyncio cancelled what trio had called there, or the other way round
    ├── PortalClosed                      a call through a portal that is closed, or closed before it had ended
    ├── RetryableException                raised by users: what failed may be tried again
    ├── TinkerError                       what comes from a Tinker service
    │   ├── APIError                      one call failed
    │   │   ├── APIConnectionError        no complete answer was read
    │   │   │   └── APITimeoutError
    │   │   ├── APIResponseValidationError   an answer that is not of the expected shape
    │   │   └── APIStatusError            an answer with an error status (`status_code`, `body`)
    │   │       ├── BadRequestError 400 · AuthenticationError 401 · BillingError 402
    │   │       ├── PermissionDeniedError 403 · NotFoundError 404 · ConflictError 409
    │   │       ├── SessionGoneError 410 · UnprocessableEntityError 422 · RateLimitError 429
    │   │       └── InternalServerError 500 and above
    │   ├── CredentialError               no usable key or token: expired, malformed, or the command gave none
    │   ├── ArchiveError                  a checkpoint's archive is not what it should be (`path`, `member`)
    │   ├── DeletionFailed                some of many checkpoints were not deleted (`deleted`, `failed`)
    │   ├── RequestFailedError            the service ran the request and it failed (`category`)
    │   ├── ResultLost                    the service carried the request out, and its result is lost
    │   ├── ModelLost                     the service no longer has the model
    │   ├── ModelPoisoned                 the model's state is not known any more; nothing is sent to it
    │   ├── SamplerLost                   weights to sample from are gone and cannot be had again
    │   ├── ModelUnloaded                 the model has given its slot back, as it was told to
    │   ├── StepVoid                      a step was given up because a part of it failed
    │   ├── ServiceTooOld                 the service answered without what was asked for (`field`)
    │   └── ServiceClosing                the service was closing before the operation started
    └── ActorError                        from the actor kernel
        ├── ActorStopped                  the actor has ended, or ended while the message was with it
        │   ├── ActorStopping             it is on its way out and takes nothing new
        │   ├── ActorRestarting           it is between two incarnations; the message was handed back
        │   └── InFlightLost              its handler had begun; the effect is not known
        ├── AskCycle                      the ask would wait for itself (`path`)
        ├── Dropped                       a full mailbox dropped the message, as its policy says
        ├── HandlerCrashed                the handler raised; the cause is chained
        ├── MailboxFull                   only from `*_nowait` and from mailboxes that refuse
        ├── Unhandled                     no handler for this message type
        ├── Withdrawn                     taken back by `Pending.withdraw` before it started
        ├── StartFailed                   a child did not start; the cause is chained
        └── RestartIntensityExceeded      too many restarts; the supervisor gave up (`history`)

The names below `TinkerError` are Tinker's own where Tinker has one; those below `ActorError` are the usual
words of actor runtimes. Retryability is an attribute, not a guess from the class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, Self, TypeVar

__all__ = [
    "APIConnectionError",
    "APIError",
    "APIResponseValidationError",
    "APIStatusError",
    "APITimeoutError",
    "ActorError",
    "ActorRestarting",
    "ActorStopped",
    "ActorStopping",
    "ArchiveError",
    "AskCycle",
    "AuthenticationError",
    "BadRequestError",
    "BillingError",
    "ConfigError",
    "ConflictError",
    "CredentialError",
    "DecodeError",
    "DeletionFailed",
    "Dropped",
    "ForeignCancellation",
    "HandlerCrashed",
    "InFlightLost",
    "InputError",
    "InternalServerError",
    "MailboxFull",
    "ModelLost",
    "ModelPoisoned",
    "ModelUnloaded",
    "NotFoundError",
    "NotPicklable",
    "PermissionDeniedError",
    "PortalClosed",
    "RateLimitError",
    "RequestFailedError",
    "RestartIntensityExceeded",
    "ResultLost",
    "RetryableException",
    "SamplerLost",
    "ServiceClosing",
    "ServiceTooOld",
    "SessionGoneError",
    "StartFailed",
    "StepVoid",
    "StreamAlreadyConsumed",
    "TinkerActorsError",
    "TinkerError",
    "Unhandled",
    "UnobservedFailure",
    "UnprocessableEntityError",
    "Withdrawn",
    "status_error_class",
]

_E = TypeVar("_E", bound="TinkerActorsError")
_VALUE_WIDTH = 120  # characters of a refused value that a message shows


class TinkerActorsError(Exception):
    """Root of everything this package raises on purpose.

    Attributes:
        retryable: doing the same again may succeed.
        started: whether the operation had begun when it failed; None where the word has no meaning.
        request_id: the service's id of the request, if one was given out.
        attempts: how many times it was tried; 0 if nothing was sent.
    """

    retryable: bool = False
    started: bool | None = None
    request_id: str | None = None
    attempts: int = 0
    _unpickled: ClassVar[tuple[str, ...]] = ()

    def __reduce__(self) -> tuple[object, ...]:
        """Take along attributes, notes, and the cause if it is one of ours: others may not survive pickling."""
        state = {name: value for name, value in self.__dict__.items() if name not in self._unpickled}
        cause = self.__cause__ if isinstance(self.__cause__, TinkerActorsError) else None
        return _rebuild, (type(self), self.args, state, cause)

    def renewed(self) -> Self:
        """Return a copy with an empty traceback and the same cause, context, notes and attributes.

        One exception object must not be raised in several tasks: its traceback would grow with every raise.
        """
        copy = _rebuild(type(self), self.args, dict(self.__dict__), self.__cause__)
        copy.__context__ = self.__context__
        copy.__suppress_context__ = self.__suppress_context__
        return copy


def _rebuild(
    cls: type[_E], args: tuple[object, ...], state: dict[str, object], cause: BaseException | None
) -> _E:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    if "__notes__" in state:
        error.__notes__ = list(error.__notes__)  # notes added to one copy must not show on another
    if cause is not None:  # setting it, even to None, would hide the context
        error.__cause__ = cause
    return error


def _shown(value: object) -> str:
    """Return a short text of a refused value, whatever its own `__repr__` does."""
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001 - a value of the user's; the refusal must reach them all the same
        text = f"<{type(value).__name__}, whose repr raises {type(error).__name__}>"
    return text if len(text) <= _VALUE_WIDTH else text[: _VALUE_WIDTH - 1] + "…"


class ConfigError(TinkerActorsError):
    """A setting is missing, wrong, or contradicts another one. Nothing was sent."""


class InputError(TinkerActorsError, ValueError):
    """A value was refused locally. Nothing was sent and nothing was lost.

    Attributes:
        field: path of the refused field, such as `data[3].loss_fn_inputs['weights'][7]`.
        value: the refused value.
        why: what it should be.
    """

    def __init__(self, field: str, value: object, why: str) -> None:
        super().__init__(f"{field} = {_shown(value)}: {why}")
        self.field = field
        self.value = value
        self.why = why
        self.started = False


class DecodeError(TinkerActorsError):
    """Bytes that are not the message they should be.

    Attributes:
        what: the message they should be.
        problems: what is wrong, each with its path, such as `required field missing @ $.model_id`.
    """

    def __init__(self, what: str, problems: Sequence[str]) -> None:
        super().__init__(f"not a {what}: {'; '.join(problems)}")
        self.what = what
        self.problems = tuple(problems)


class StreamAlreadyConsumed(TinkerActorsError):
    """A body or a stream of events can be gone through once, and it has been."""


class NotPicklable(TinkerActorsError, TypeError):
    """Something that lives in this process alone was pickled; the message says what to send in its place."""


class UnobservedFailure(TinkerActorsError):
    """An operation failed earlier and nobody had awaited its result; the failure is the cause.

    It is raised in place of the next operation of the same client, which was therefore not sent, or when
    the service is left.
    """


class ForeignCancellation(TinkerActorsError):
    """A call into the other event loop was cancelled there, by somebody who is not its caller.

    Neither loop's own cancellation says that: it would end the caller in silence.
    """

    started = True


class PortalClosed(TinkerActorsError):
    """The portal is closed: what was called did not begin, or was cancelled with the portal (`started`)."""

    started = False


class RetryableException(TinkerActorsError):
    """A failure that its author declares to be passing, so that policies try again.

    This package never raises it; a user's hook, transport or authentication may.
    """

    retryable = True


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


class CredentialError(TinkerError):
    """There is no usable key or token: it has expired, it is malformed, or the command that prints it gave none.

    Nothing was sent with it. The key itself is never in the message.
    """

    started = False


class ArchiveError(TinkerError):
    """A checkpoint's archive is not what it should be, or holds what is not taken out of one.

    Nothing of it is left behind.

    Attributes:
        path: the checkpoint's.
        member: what in the archive was refused; None if it is the archive itself.
    """

    def __init__(self, message: str, *, path: str, member: str | None = None) -> None:
        super().__init__(message)
        self.path = path
        self.member = member


class DeletionFailed(TinkerError):
    """Of many checkpoints that were to be deleted, some were not; the others are gone.

    Attributes:
        deleted: paths of those that are gone, in the order they were given.
        failed: why the others are not, by their paths.
    """

    def __init__(
        self, message: str, *, deleted: Sequence[str], failed: Mapping[str, TinkerActorsError]
    ) -> None:
        super().__init__(message)
        self.deleted = tuple(deleted)
        self.failed = dict(failed)
        self.retryable = any(error.retryable for error in self.failed.values())
        self.started = True


class RequestFailedError(TinkerError):
    """The service accepted the request, ran it, and it failed.

    Attributes:
        category: whose fault the service says it is.
    """

    def __init__(
        self,
        message: str,
        *,
        request_id: str | None = None,
        category: Literal["unknown", "server", "user"] = "unknown",
    ) -> None:
        super().__init__(message)
        self.request_id = request_id
        self.category = category
        self.started = True


class ResultLost(TinkerError):
    """The service carried the request out, but its result cannot be had any more.

    A service that refuses repeated numbers says so when a doubtful request is sent again: the first one had arrived.
    The effect counts; only what it would have answered is missing.
    """

    def __init__(self, message: str, *, request_id: str | None = None) -> None:
        super().__init__(message)
        self.request_id = request_id
        self.started = True


class ModelLost(TinkerError):
    """The service no longer has the model; a TrainingActor answers this by restoring it.

    Attributes:
        model_id: the id that is gone.
    """

    def __init__(self, message: str, *, model_id: str) -> None:
        super().__init__(message)
        self.model_id = model_id


class ModelPoisoned(TinkerError):
    """The model's state is not known any more, so nothing is sent to it; the first cause is chained.

    Attributes:
        model_id: the model that is fenced off.
    """

    def __init__(self, message: str, *, model_id: str, started: bool = False) -> None:
        super().__init__(message)
        self.model_id = model_id
        self.started = started


class SamplerLost(TinkerError):
    """The weights a SamplingClient samples from are gone with their session, and cannot be had again.

    That can befall weights that were published without a name, if the model has trained on and saved its state since,
    or is not used any more.
    """

    started = False


class ModelUnloaded(TinkerError):
    """The model has given its slot on the service back, as it was told to; nothing was sent.

    Attributes:
        model_id: the model.
    """

    def __init__(self, message: str, *, model_id: str) -> None:
        super().__init__(message)
        self.model_id = model_id
        self.started = False


class StepVoid(TinkerError):
    """The operation belonged to a step that was given up because another part failed; that is the cause."""

    started = False


class ServiceTooOld(TinkerError):
    """The service answered, and does not know something that was asked for: it is older than that.

    Attributes:
        field: the argument it does not know.
    """

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"the service is too old for {field}: {why}")
        self.field = field


class ServiceClosing(TinkerError):
    """The service was closing, so the operation never started."""

    def __init__(self, message: str = "the service is closing; the operation was not started") -> None:
        super().__init__(message)
        self.started = False


class ActorError(TinkerActorsError):
    """Root of what the actor kernel raises.

    Attributes:
        actor: path of the actor concerned.
        handed_back: the message that was not handled, or not to its end; None where there is none. It is not
            pickled with the error.
    """

    handed_back: object = None
    _unpickled = ("handed_back",)

    def __init__(self, message: str, *, actor: str = "", started: bool | None = None) -> None:
        super().__init__(message)
        self.actor = actor
        self.started = started


class ActorStopped(ActorError):
    """The actor has ended.

    `started` False: the message never began, and sending it elsewhere is safe. `started` True: its handler
    had begun.
    """


class ActorStopping(ActorStopped):
    """The actor is draining or stopping and takes no new message."""


class ActorRestarting(ActorStopped):
    """The actor is between two incarnations and hands its queued messages back."""


class InFlightLost(ActorStopped):
    """The actor ended after it had begun this message; the effect is not known."""


class AskCycle(ActorError):
    """The ask would wait for an answer that waits, directly or through others, for the asking handler.

    Attributes:
        path: the actors of the cycle, from the asking one back to itself.
    """

    def __init__(self, message: str, *, actor: str, path: Sequence[str]) -> None:
        super().__init__(message, actor=actor, started=False)
        self.path: tuple[str, ...] = tuple(path)


class Dropped(ActorError):
    """The mailbox was full and dropped the message, as its overflow policy says; it never started."""


class HandlerCrashed(ActorError):
    """The handler raised an exception it had not declared; the exception is the cause."""


class MailboxFull(ActorError):
    """The mailbox is full and its policy is not to wait.

    Attributes:
        depth: messages queued.
        capacity: messages it may hold.
    """

    def __init__(self, message: str, *, actor: str, depth: int, capacity: int) -> None:
        super().__init__(message, actor=actor, started=False)
        self.depth = depth
        self.capacity = capacity


class Unhandled(ActorError):
    """The actor has no handler for this type of message; it goes on living."""


class Withdrawn(ActorError):
    """The message was taken back before it started."""


class StartFailed(ActorError):
    """A child actor did not start; the reason is the cause."""


class RestartIntensityExceeded(ActorError):
    """A child was restarted too often, so its supervisor gave up; the last failure is the cause.

    Attributes:
        history: the failures of the window, oldest first, one line each.
    """

    def __init__(self, message: str, *, actor: str, history: Sequence[str]) -> None:
        super().__init__(message, actor=actor)
        self.history = tuple(history)
