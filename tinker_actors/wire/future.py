"""Promises: what the service gives for work that takes long, and asking for the results."""

from collections.abc import Mapping
from typing import Literal, TypeAlias

import attrs

from tinker_actors.wire.field import needed

__all__ = [
    "CancelFutureRequest",
    "CompleteMetadata",
    "FailedCategory",
    "FutureCompletion",
    "FutureFailed",
    "FutureFinished",
    "RequestFailed",
    "RetrieveFutureRequest",
    "RetrieveFuturesRequest",
    "RetrieveFuturesResponse",
    "SamplingSessionTarget",
    "TryAgain",
    "UntypedAPIFuture",
]

FailedCategory = Literal["unknown", "server", "user"]


@attrs.frozen
class UntypedAPIFuture:
    """A promise: ask for its result with the id."""

    request_id: str
    model_id: str | None = None


@attrs.frozen
class RetrieveFutureRequest:
    """Asks for a promise's result; the service holds the answer back until there is one, or for a while.

    Attributes:
        request_id: the promise.
        allow_metadata_only: a large result may be announced by its size first.
    """

    request_id: str
    allow_metadata_only: bool = False


@attrs.frozen
class CancelFutureRequest:
    """Says that nobody waits for a promise's result any more."""

    request_id: str


@attrs.frozen
class TryAgain:
    """No result yet.

    Attributes:
        queue_state: `active`, `paused_capacity` or `paused_rate_limit`.
    """

    request_id: str
    queue_state: str = "active"
    queue_state_reason: str | None = None
    type: Literal["try_again"] = "try_again"


@attrs.frozen
class CompleteMetadata:
    """There is a result, of that many bytes; it comes when it is asked for without `allow_metadata_only`."""

    response_payload_size: int
    status: Literal["complete_metadata"] = attrs.field(default="complete_metadata", metadata=needed())


@attrs.frozen
class RequestFailed:
    """The request ran and failed, or its promise is broken."""

    error: str
    category: FailedCategory = "unknown"


# --- many at once ----------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class SamplingSessionTarget:
    """The promises of one client of a sampling session.

    Attributes:
        sampling_session_id: the session.
        cloned_sampler_id: which client; 0 opened the session.
    """

    sampling_session_id: str
    cloned_sampler_id: int = 0
    type: Literal["sampling_session"] = "sampling_session"


@attrs.frozen(kw_only=True)
class RetrieveFuturesRequest:
    """Asks which promises have come to their end since the last time.

    Attributes:
        target: whose promises.
        prev_cursor: the cursor of the answer before; 0 at first.
        timeout: how many seconds the answer may be held back; None leaves it to the service.
        retrieved_request_ids: promises whose results have arrived and may be forgotten.
    """

    target: SamplingSessionTarget
    prev_cursor: int = 0
    timeout: float | None = None
    retrieved_request_ids: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class FutureFinished:
    """There is a result, of that many bytes."""

    request_id: str
    response_payload_uncompressed_size: int | None = None
    state: Literal["finished"] = "finished"


@attrs.frozen(kw_only=True)
class FutureFailed:
    """There is an error."""

    request_id: str
    state: Literal["failed"] = "failed"


FutureCompletion: TypeAlias = FutureFinished | FutureFailed | Mapping[str, object]
"""A mapping if its state is a word that this package does not know; the other completions can be read all the same."""


@attrs.frozen
class RetrieveFuturesResponse:
    """Which promises have come to their end, and where to go on."""

    completions: tuple[FutureCompletion, ...]
    cursor: int
