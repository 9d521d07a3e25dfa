"""What becomes of work that a service was given: credentials, archives, requests, models and samplers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from tinker_actors.errors.call import TinkerError
from tinker_actors.errors.root import TinkerActorsError

__all__ = [
    "ArchiveError",
    "CredentialError",
    "DeletionFailed",
    "ModelLost",
    "ModelPoisoned",
    "ModelUnloaded",
    "RequestFailedError",
    "ResultLost",
    "SamplerLost",
    "ServiceClosing",
    "ServiceTooOld",
    "StepVoid",
]


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
