"""Sessions: the life that models and samplers belong to, and finding out about others."""

from collections.abc import Mapping
from typing import Literal, TypeAlias

import attrs

from tinker_actors.errors import InputError
from tinker_actors.wire.field import Timestamp, null, timestamp

__all__ = [
    "AccessibleSearchOwner",
    "ActiveStatusQuery",
    "AssignSessionProjectRequest",
    "CancelledStatusQuery",
    "ClientFinishedStatusQuery",
    "CreateSessionRequest",
    "CreateSessionResponse",
    "FailedStatusQuery",
    "FinishReason",
    "FinishSessionRequest",
    "FinishType",
    "GetSessionResponse",
    "ListSessionsResponse",
    "OwnSearchOwner",
    "RequestReason",
    "SamplingSessionReason",
    "SearchOwner",
    "SessionActive",
    "SessionCancelled",
    "SessionClientFinished",
    "SessionFailed",
    "SessionFailedReason",
    "SessionHeartbeatRequest",
    "SessionHeartbeatResponse",
    "SessionSearchCursor",
    "SessionSearchRequest",
    "SessionSearchResponse",
    "SessionStatus",
    "SessionStatusQuery",
    "SessionSummary",
    "TraceExportResponse",
    "TrainingRunReason",
    "UserSearchOwner",
]

FinishType = Literal["success", "errored", "interrupted"]


@attrs.frozen(kw_only=True)
class CreateSessionRequest:
    """Opens a session.

    Attributes:
        tags: words to find it by.
        user_metadata: kept with it.
        sdk_version: the client's version.
        project_id: the project it belongs to.
        display_name: what it is called.
    """

    tags: tuple[str, ...]
    user_metadata: Mapping[str, str] = attrs.field(factory=dict)
    sdk_version: str
    project_id: str | None = None
    display_name: str | None = None
    type: Literal["create_session"] = "create_session"


@attrs.frozen(kw_only=True)
class CreateSessionResponse:
    """The session's id, and what the service wants to be told to the user."""

    session_id: str
    info_message: str | None = None
    warning_message: str | None = None
    error_message: str | None = None
    type: Literal["create_session"] | None = None


@attrs.frozen
class SessionHeartbeatRequest:
    """Says that the session's client is alive."""

    session_id: str
    type: Literal["session_heartbeat"] = "session_heartbeat"


@attrs.frozen
class SessionHeartbeatResponse:
    """The service heard it."""

    type: Literal["session_heartbeat"] | None = None


@attrs.frozen
class FinishReason:
    """How a session ended."""

    type: FinishType


@attrs.frozen
class FinishSessionRequest:
    """Ends a session."""

    reason: FinishReason
    detail: str | None = attrs.field(default=None, metadata=null())


@attrs.frozen(kw_only=True)
class GetSessionResponse:
    """What belongs to a session."""

    training_run_ids: tuple[str, ...]
    sampler_ids: tuple[str, ...]
    user_metadata: Mapping[str, str] | None = None
    display_name: str | None = None


@attrs.frozen
class ListSessionsResponse:
    """The ids of sessions."""

    sessions: tuple[str, ...]


@attrs.frozen
class AssignSessionProjectRequest:
    """Puts a session into a project."""

    project_id: str


@attrs.frozen(kw_only=True)
class TraceExportResponse:
    """How far the export of a session's trace is.

    Attributes:
        status: `pending`, `ready` or `failed`.
        url: where a trace that is ready can be fetched. Who has it can read the trace.
        error: why it failed.
    """

    status: str
    url: str | None = attrs.field(default=None, repr=False)
    error: str | None = None


# --- how sessions fare -----------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class RequestReason:
    """A request failed."""

    request_id: str
    request_type: str
    type: Literal["request"] = "request"


@attrs.frozen(kw_only=True)
class TrainingRunReason:
    """A training run failed."""

    training_run_id: str
    type: Literal["training_run"] = "training_run"


@attrs.frozen(kw_only=True)
class SamplingSessionReason:
    """A sampling session failed."""

    sampling_session_id: str
    type: Literal["sampling_session"] = "sampling_session"


SessionFailedReason: TypeAlias = (
    RequestReason | TrainingRunReason | SamplingSessionReason | Mapping[str, object]
)


@attrs.frozen(kw_only=True)
class SessionFailed:
    """It failed.

    Attributes:
        category: whose fault it was, `user` or `internal`.
        reason: what failed; a mapping if it is of a kind that this package does not know.
        message: why.
    """

    category: str
    reason: SessionFailedReason
    message: str
    type: Literal["failed"] = "failed"


@attrs.frozen(kw_only=True)
class SessionCancelled:
    """It was ended from outside."""

    detail: str | None = None
    type: Literal["cancelled"] = "cancelled"


@attrs.frozen(kw_only=True)
class SessionClientFinished:
    """Its client ended it.

    Attributes:
        reason: how; a mapping if it is of a kind that this package does not know.
        detail: what the client said about it.
    """

    reason: FinishReason | Mapping[str, object]
    detail: str | None = None
    type: Literal["client_finished"] = "client_finished"


@attrs.frozen
class SessionActive:
    """It lives."""

    type: Literal["active"] = "active"


SessionStatus: TypeAlias = (
    SessionFailed | SessionCancelled | SessionClientFinished | SessionActive | Mapping[str, object]
)
"""A mapping if it is of a kind that this package does not know."""


# --- search ----------------------------------------------------------------------------------------------

# tinker 0.38.0 types/session_search_request.py, types/search_owner.py
_MAX_LIMIT = 200
_MAX_OWNERS = 10


@attrs.frozen
class OwnSearchOwner:
    """Sessions of one's own."""

    type: Literal["own"] = "own"


@attrs.frozen
class AccessibleSearchOwner:
    """Sessions that one may see."""

    type: Literal["accessible"] = "accessible"


@attrs.frozen
class UserSearchOwner:
    """Sessions of certain users.

    Attributes:
        owner_urns: who they are, 1 to 10 of them.

    Raises:
        InputError: none, or too many.
    """

    owner_urns: tuple[str, ...]
    type: Literal["user"] = "user"

    def __attrs_post_init__(self) -> None:
        if not 1 <= len(self.owner_urns) <= _MAX_OWNERS:
            raise InputError("owner_urns", self.owner_urns, f"must be 1 to {_MAX_OWNERS}")


SearchOwner: TypeAlias = OwnSearchOwner | AccessibleSearchOwner | UserSearchOwner


@attrs.frozen
class ActiveStatusQuery:
    """Sessions that live."""

    type: Literal["active"] = "active"


@attrs.frozen
class CancelledStatusQuery:
    """Sessions that were ended from outside."""

    type: Literal["cancelled"] = "cancelled"


@attrs.frozen
class FailedStatusQuery:
    """Sessions that failed."""

    type: Literal["failed"] = "failed"


@attrs.frozen(kw_only=True)
class ClientFinishedStatusQuery:
    """Sessions that their client ended.

    Attributes:
        reasons: in one of these ways; None is any.

    Raises:
        InputError: no reason.
    """

    reasons: tuple[FinishType, ...] | None = None
    type: Literal["client_finished"] = "client_finished"

    def __attrs_post_init__(self) -> None:
        if self.reasons == ():
            raise InputError("reasons", self.reasons, "must not be empty")


SessionStatusQuery: TypeAlias = (
    ActiveStatusQuery | CancelledStatusQuery | FailedStatusQuery | ClientFinishedStatusQuery
)


@attrs.frozen(kw_only=True)
class SessionSearchCursor:
    """Where a page of sessions ended, and the next begins."""

    last_created_at: Timestamp = attrs.field(converter=timestamp)
    last_session_id: str


@attrs.frozen(kw_only=True)
class SessionSearchRequest:
    """Looks for sessions.

    Attributes:
        session_id: with this id, or the name below.
        project_ids: in one of these projects.
        user_metadata: with all of these.
        display_name: with these words in the name.
        owner: whose.
        statuses: in one of these states; None is any.
        limit: at most so many, 1 to 200.
        cursor: where the page before ended.

    Raises:
        InputError: an empty name, no state, a limit out of its range.
    """

    session_id: str | None = None
    project_ids: tuple[str, ...] | None = None
    user_metadata: Mapping[str, str] = attrs.field(factory=dict)
    display_name: str | None = None
    owner: SearchOwner = OwnSearchOwner()
    statuses: tuple[SessionStatusQuery, ...] | None = None
    limit: int = 50
    cursor: SessionSearchCursor | None = None

    def __attrs_post_init__(self) -> None:
        if self.display_name == "":
            raise InputError("display_name", self.display_name, "must not be empty")
        if self.statuses == ():
            raise InputError("statuses", self.statuses, "must not be empty")
        if not 1 <= self.limit <= _MAX_LIMIT:
            raise InputError("limit", self.limit, f"must be 1 to {_MAX_LIMIT}")


@attrs.frozen(kw_only=True)
class SessionSummary:
    """One session that was found.

    Attributes:
        session_id: its id.
        created_at: when it was opened.
        owner: whose it is.
        project_id: the project it belongs to.
        status: how it fares.
        checkpoints_count: how many checkpoints it has.
        display_name: what it is called.
        user_metadata: what is kept with it.
        checkpoint_storage_bytes: how much its checkpoints weigh.
    """

    session_id: str
    created_at: Timestamp = attrs.field(converter=timestamp)
    owner: str
    project_id: str | None = None
    status: SessionStatus | None = None
    checkpoints_count: int
    display_name: str | None = None
    user_metadata: Mapping[str, str] | None = None
    checkpoint_storage_bytes: int | None = None


@attrs.frozen
class SessionSearchResponse:
    """A page of sessions; `next_cursor` is for the next one, None if this is the last."""

    sessions: tuple[SessionSummary, ...]
    next_cursor: SessionSearchCursor | None = None
