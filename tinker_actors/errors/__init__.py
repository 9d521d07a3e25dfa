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
    ├── JournalError                      a run's journal cannot be read or written; nothing more is sent (`path`)
    │   └── JournalFull                   it would take more room than it may; the step was not admitted
    ├── RunLocked                         another process has the run's directory open (`pid`, `host`)
    ├── RunMismatch                       the run was begun with something else (`fields`)
    ├── RestoreMismatch                   a restored model is not what was saved (`lost`)
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

from tinker_actors.errors.actor import (
    ActorError,
    ActorRestarting,
    ActorStopped,
    ActorStopping,
    AskCycle,
    Dropped,
    HandlerCrashed,
    InFlightLost,
    MailboxFull,
    RestartIntensityExceeded,
    StartFailed,
    Unhandled,
    Withdrawn,
)
from tinker_actors.errors.call import (
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    BillingError,
    ConflictError,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    SessionGoneError,
    TinkerError,
    UnprocessableEntityError,
    status_error_class,
)
from tinker_actors.errors.local import (
    ConfigError,
    DecodeError,
    ForeignCancellation,
    InputError,
    NotPicklable,
    PortalClosed,
    RetryableException,
    StreamAlreadyConsumed,
    UnobservedFailure,
)
from tinker_actors.errors.root import (
    TinkerActorsError,
)
from tinker_actors.errors.run import (
    JournalError,
    JournalFull,
    RestoreMismatch,
    RunLocked,
    RunMismatch,
)
from tinker_actors.errors.service import (
    ArchiveError,
    CredentialError,
    DeletionFailed,
    ModelLost,
    ModelPoisoned,
    ModelUnloaded,
    RequestFailedError,
    ResultLost,
    SamplerLost,
    ServiceClosing,
    ServiceTooOld,
    StepVoid,
)

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
    "JournalError",
    "JournalFull",
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
    "RestoreMismatch",
    "ResultLost",
    "RetryableException",
    "RunLocked",
    "RunMismatch",
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

for _name in __all__:  # tracebacks and pickles say where a class is to be found, not in which file it stands
    globals()[_name].__module__ = __name__
