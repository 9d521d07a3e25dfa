"""Sessions, promises, capabilities, telemetry: what surrounds the work."""

from collections.abc import Mapping, Sequence
from typing import Literal

import attrs

__all__ = [
    "ClientConfigRequest",
    "ClientConfigResponse",
    "CreateSessionRequest",
    "CreateSessionResponse",
    "Empty",
    "FinishReason",
    "FinishSessionRequest",
    "GetServerCapabilitiesResponse",
    "HealthResponse",
    "RequestFailed",
    "RetrieveFutureRequest",
    "SessionHeartbeatRequest",
    "SessionHeartbeatResponse",
    "SupportedModel",
    "TelemetryResponse",
    "TelemetrySendRequest",
    "TryAgain",
    "UntypedAPIFuture",
]


@attrs.frozen
class Empty:
    """No fields."""


@attrs.frozen
class HealthResponse:
    """The service answers."""

    status: Literal["ok"]


@attrs.frozen
class ClientConfigRequest:
    """Asks for the flags a service sets for its clients."""

    sdk_version: str


@attrs.frozen(kw_only=True)
class ClientConfigResponse:
    """A service's flags for its clients; defaults are tinker 0.38.0 types/client_config_response.py.

    Attributes:
        fwdbwd_max_chunk_len: datums per request.
        fwdbwd_max_chunk_bytes_count: estimated bytes per request.
        sample_max_concurrent_requests: samples in flight.
        pjwt_auth_enabled: keys are to be exchanged for tokens.
        credential_default_source: `credential_cmd` has the exchange use the credential command.
        proto_compress_fwdbwd: protobuf bodies should be compressed.
        billing_exception_max_pause_duration_sec: seconds that 402 may pause the work.
        sequence_dedupe: what the service does with a repeated number; our own services say `replay`. This and the
            rest are extensions of this package: None, the service does not say.
        training_body: the form it takes gradient requests in.
        newer_fields: it takes fields that came after the first versions of the protocol.
    """

    fwdbwd_max_chunk_len: int = 1024
    fwdbwd_max_chunk_bytes_count: int = 5_000_000
    sample_max_concurrent_requests: int = 2000
    pjwt_auth_enabled: bool = False
    credential_default_source: str = "api_key"
    proto_compress_fwdbwd: bool = False
    billing_exception_max_pause_duration_sec: float = 3600
    sequence_dedupe: Literal["replay", "reject", "none"] | None = None
    training_body: Literal["json", "protobuf"] | None = None
    newer_fields: bool | None = None


@attrs.frozen(kw_only=True)
class SupportedModel:
    """One model a service offers."""

    model_name: str | None = None
    max_context_length: int | None = None


@attrs.frozen
class GetServerCapabilitiesResponse:
    """What a service offers."""

    supported_models: tuple[SupportedModel, ...]


@attrs.frozen(kw_only=True)
class CreateSessionRequest:
    """Opens a session, the life that models and samplers belong to."""

    tags: Sequence[str]
    user_metadata: Mapping[str, str]
    sdk_version: str
    type: Literal["create_session"] = "create_session"


@attrs.frozen(kw_only=True)
class CreateSessionResponse:
    """The session's id, and what the service wants to be told to the user."""

    session_id: str
    info_message: str | None = None
    warning_message: str | None = None
    error_message: str | None = None


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

    type: Literal["success", "errored", "interrupted"]


@attrs.frozen
class FinishSessionRequest:
    """Ends a session."""

    reason: FinishReason
    detail: str | None = None


@attrs.frozen
class UntypedAPIFuture:
    """A promise: ask for its result with the id."""

    request_id: str
    model_id: str | None = None


@attrs.frozen
class RetrieveFutureRequest:
    """Asks for a promise's result; the service holds the answer back until there is one, or for a while."""

    request_id: str
    allow_metadata_only: bool = False


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
class RequestFailed:
    """The request ran and failed, or its promise is broken."""

    error: str
    category: Literal["unknown", "server", "user"] = "unknown"


@attrs.frozen(kw_only=True)
class TelemetrySendRequest:
    """A batch of events about the client."""

    events: Sequence[Mapping[str, object]]
    platform: str
    sdk_version: str
    session_id: str


@attrs.frozen
class TelemetryResponse:
    """The service took the events."""

    status: Literal["accepted"]
