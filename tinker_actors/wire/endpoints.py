"""The table of endpoints, read by the client and by the embedded service alike.

Every call that the official client has or had, from 0.4.1 to 0.38.0. Paths, bodies and, where nothing else is said,
timeouts: tinker 0.38.0 (`/api/v1` resources, lib/). Dates: its wheels 0.4.1, 0.6.3, 0.25.0, 0.30.4, 0.36.0, 0.38.0.

A call that any of the official client's layers sends again has ten retries here, in the only layer there is; one
that is sent again by something above the transport (samples, polls, beats, telemetry) has none. What surrounds the
work (flags, finish, unload) has shorter times, so that a service that does not answer is noticed soon.
"""

from typing import Any

from tinker_actors.wire.billing import (
    AuditLogResponse,
    BillingUsageResponse,
    CurrentCheckpointStorageUsageResponse,
)
from tinker_actors.wire.endpoint import Endpoint, Lane
from tinker_actors.wire.future import (
    CancelFutureRequest,
    RetrieveFutureRequest,
    RetrieveFuturesRequest,
    RetrieveFuturesResponse,
    UntypedAPIFuture,
)
from tinker_actors.wire.model import CreateModelRequest, GetInfoRequest, GetInfoResponse, UnloadModelRequest
from tinker_actors.wire.optimizer import OptimStepRequest
from tinker_actors.wire.payload import Payload
from tinker_actors.wire.run import CheckpointsListResponse, TrainingRun, TrainingRunsResponse
from tinker_actors.wire.sampling import (
    CreateSamplingSessionRequest,
    CreateSamplingSessionResponse,
    GetSamplerResponse,
    JoinSamplingSessionRequest,
    JoinSamplingSessionResponse,
    SampleRequest,
    SampleSubmitted,
)
from tinker_actors.wire.service import (
    ApiKeyResponse,
    AuthTokenRequest,
    AuthTokenResponse,
    ClientConfigRequest,
    ClientConfigResponse,
    ClientDynamicConfigResponse,
    Empty,
    GetServerCapabilitiesResponse,
    HealthResponse,
)
from tinker_actors.wire.session import (
    AssignSessionProjectRequest,
    CreateSessionRequest,
    CreateSessionResponse,
    FinishSessionRequest,
    GetSessionResponse,
    ListSessionsResponse,
    SessionHeartbeatRequest,
    SessionHeartbeatResponse,
    SessionSearchRequest,
    SessionSearchResponse,
    TraceExportResponse,
)
from tinker_actors.wire.telemetry import TelemetryResponse, TelemetrySendRequest
from tinker_actors.wire.training import CreateCustomLossRequest, ForwardBackwardRequest, ForwardRequest
from tinker_actors.wire.weights import (
    CheckpointArchiveUrlResponse,
    CopyWeightsRequest,
    CopyWeightsResponse,
    ExternalWeightsUrlsResponse,
    LoadWeightsRequest,
    SaveWeightsExternalRequest,
    SaveWeightsForSamplerRequest,
    SaveWeightsRequest,
    SetCheckpointTtlRequest,
    WeightsInfoRequest,
    WeightsInfoResponse,
)

__all__ = ["ENDPOINTS"]

_RUN = "/api/v1/training_runs/{training_run_id}"
_CHECKPOINT = _RUN + "/checkpoints/{checkpoint_id}"

# --- the service and its sessions ----------------------------------------------------------------------

HEALTH = Endpoint("healthz", "GET", "/api/v1/healthz", Empty, HealthResponse, Lane.SESSION)
# The first call of all: whoever mistyped the URL should not wait for minutes to learn it.
CLIENT_CONFIG = Endpoint(
    "client_config",
    "POST",
    "/api/v1/client/config",
    ClientConfigRequest,
    ClientConfigResponse,
    Lane.SESSION,
    timeout=10.0,
    retries=2,
    since="0.18.0",
)
# No retries: it is asked for again before long.
CLIENT_DYNAMIC_CONFIG = Endpoint(
    "client_dynamic_config",
    "POST",
    "/api/v1/client/dynamic_config",
    ClientConfigRequest,
    ClientDynamicConfigResponse,
    Lane.SESSION,
    timeout=10.0,
    retries=0,
    since="0.25.0",
)
AUTH_TOKEN = Endpoint(
    "auth_token",
    "POST",
    "/api/v1/auth/token",
    AuthTokenRequest,
    AuthTokenResponse,
    Lane.SESSION,
    since="0.18.0",
)
GET_API_KEY = Endpoint(
    "get_api_key",
    "GET",
    "/api/v1/auth/apikey/me",
    Empty,
    ApiKeyResponse,
    Lane.SESSION,
    timeout=30.0,
    since="0.26.0",
)
DELETE_API_KEY = Endpoint(
    "delete_api_key",
    "DELETE",
    "/api/v1/auth/apikey/me",
    Empty,
    Empty,
    Lane.SESSION,
    timeout=30.0,
    since="0.26.0",
)
CAPABILITIES = Endpoint(
    "get_server_capabilities",
    "GET",
    "/api/v1/get_server_capabilities",
    Empty,
    GetServerCapabilitiesResponse,
    Lane.SESSION,
)
CREATE_SESSION = Endpoint(
    "create_session",
    "POST",
    "/api/v1/create_session",
    CreateSessionRequest,
    CreateSessionResponse,
    Lane.SESSION,
    on_doubt="create",
)
# No retries: the next beat follows.
SESSION_HEARTBEAT = Endpoint(
    "session_heartbeat",
    "POST",
    "/api/v1/session_heartbeat",
    SessionHeartbeatRequest,
    SessionHeartbeatResponse,
    Lane.SESSION,
    timeout=10.0,
    on_doubt="give_up",
    retries=0,
)
# The last call of all: leaving must not take a minute.
FINISH_SESSION = Endpoint(
    "finish_session",
    "POST",
    "/api/v1/sessions/{session_id}/finish",
    FinishSessionRequest,
    Empty,
    Lane.SESSION,
    timeout=10.0,
    retries=2,
    since="<=0.30.4",
)

# --- models and training -------------------------------------------------------------------------------

CREATE_MODEL = Endpoint(
    "create_model",
    "POST",
    "/api/v1/create_model",
    CreateModelRequest,
    UntypedAPIFuture,
    Lane.TRAIN,
    on_doubt="create",
)
GET_INFO = Endpoint("get_info", "POST", "/api/v1/get_info", GetInfoRequest, GetInfoResponse, Lane.TRAIN)
# No retries: a service that is asked in vain drops the model by itself.
UNLOAD_MODEL = Endpoint(
    "unload_model",
    "POST",
    "/api/v1/unload_model",
    UnloadModelRequest,
    UntypedAPIFuture,
    Lane.TRAIN,
    timeout=10.0,
    retries=0,
    until="<=0.26.0",
)
# The latest services want a forward_backward that says it is a forward only.
FORWARD = Endpoint(
    "forward", "POST", "/api/v1/forward", ForwardRequest, UntypedAPIFuture, Lane.TRAIN, until="0.25.0"
)
FORWARD_BACKWARD = Endpoint(
    "forward_backward",
    "POST",
    "/api/v1/forward_backward",
    ForwardBackwardRequest,
    UntypedAPIFuture,
    Lane.TRAIN,
    on_doubt="numbered",
    sends="either",
)
OPTIM_STEP = Endpoint(
    "optim_step",
    "POST",
    "/api/v1/optim_step",
    OptimStepRequest,
    UntypedAPIFuture,
    Lane.TRAIN,
    on_doubt="numbered",
)
CREATE_CUSTOM_LOSS = Endpoint(
    "create_custom_loss",
    "POST",
    "/api/v1/create_custom_loss",
    CreateCustomLossRequest,
    UntypedAPIFuture,
    Lane.TRAIN,
    on_doubt="numbered",
    since="<=0.36.0",
)

# --- weights -------------------------------------------------------------------------------------------

LOAD_WEIGHTS = Endpoint(
    "load_weights",
    "POST",
    "/api/v1/load_weights",
    LoadWeightsRequest,
    UntypedAPIFuture,
    Lane.TRAIN,
    on_doubt="numbered",
)
SAVE_WEIGHTS = Endpoint(
    "save_weights",
    "POST",
    "/api/v1/save_weights",
    SaveWeightsRequest,
    UntypedAPIFuture,
    Lane.TRAIN,
    on_doubt="named",
)
SAVE_WEIGHTS_FOR_SAMPLER = Endpoint(
    "save_weights_for_sampler",
    "POST",
    "/api/v1/save_weights_for_sampler",
    SaveWeightsForSamplerRequest,
    UntypedAPIFuture,
    Lane.TRAIN,
    on_doubt="named",
)
SAVE_WEIGHTS_EXTERNAL = Endpoint(
    "save_weights_external",
    "POST",
    "/api/v1/save_weights_external",
    SaveWeightsExternalRequest,
    UntypedAPIFuture,
    Lane.TRAIN,
    on_doubt="named",
    since="<=0.30.4",
)
WEIGHTS_INFO = Endpoint(
    "weights_info",
    "POST",
    "/api/v1/weights_info",
    WeightsInfoRequest,
    WeightsInfoResponse,
    Lane.SESSION,
    since="0.5.1",
)
COPY_WEIGHTS = Endpoint(
    "copy_weights",
    "POST",
    "/api/v1/copy_weights",
    CopyWeightsRequest,
    CopyWeightsResponse,
    Lane.SESSION,
    on_doubt="create",
    since="0.26.2",
)

# --- sampling ------------------------------------------------------------------------------------------

CREATE_SAMPLING_SESSION = Endpoint(
    "create_sampling_session",
    "POST",
    "/api/v1/create_sampling_session",
    CreateSamplingSessionRequest,
    CreateSamplingSessionResponse,
    Lane.SESSION,
    on_doubt="create",
)
JOIN_SAMPLING_SESSION = Endpoint(
    "join_sampling_session",
    "POST",
    "/api/v1/join_sampling_session",
    JoinSamplingSessionRequest,
    JoinSamplingSessionResponse,
    Lane.SESSION,
    since="<=0.36.0",
)
# No retries: a refusal holds back everybody who samples, so the samplers themselves send again.
ASAMPLE = Endpoint(
    "asample", "POST", "/api/v1/asample", SampleRequest, SampleSubmitted, Lane.SAMPLE, retries=0
)

# --- promises ------------------------------------------------------------------------------------------

# No retries: what becomes of a poll is decided by whoever waits for the promise.
RETRIEVE_FUTURE = Endpoint(
    "retrieve_future",
    "POST",
    "/api/v1/retrieve_future",
    RetrieveFutureRequest,
    Payload,
    Lane.FUTURES,
    timeout=45.0,
    retries=0,
    accepts="either",
)
# Likewise no retries.
RETRIEVE_FUTURES = Endpoint(
    "retrieve_futures",
    "POST",
    "/api/v1/retrieve_futures",
    RetrieveFuturesRequest,
    RetrieveFuturesResponse,
    Lane.FUTURES,
    timeout=45.0,
    retries=0,
    since="0.26.2",
)
CANCEL_FUTURE = Endpoint(
    "cancel_future",
    "POST",
    "/api/v1/cancel_future",
    CancelFutureRequest,
    Empty,
    Lane.FUTURES,
    timeout=30.0,
    since="0.26.0",
)
# No retries: events that the service does not take are dropped.
TELEMETRY = Endpoint(
    "telemetry",
    "POST",
    "/api/v1/telemetry",
    TelemetrySendRequest,
    TelemetryResponse,
    Lane.TELEMETRY,
    timeout=5.0,
    on_doubt="give_up",
    retries=0,
)

# --- training runs and their checkpoints ---------------------------------------------------------------

LIST_TRAINING_RUNS = Endpoint(
    "list_training_runs",
    "GET",
    "/api/v1/training_runs",
    Empty,
    TrainingRunsResponse,
    Lane.SESSION,
    query=("limit", "offset", "access_scope", "project_id"),
)
GET_TRAINING_RUN = Endpoint(
    "get_training_run", "GET", _RUN, Empty, TrainingRun, Lane.SESSION, query=("access_scope",)
)
LIST_CHECKPOINTS = Endpoint(
    "list_checkpoints", "GET", _RUN + "/checkpoints", Empty, CheckpointsListResponse, Lane.SESSION
)
LIST_USER_CHECKPOINTS = Endpoint(
    "list_user_checkpoints",
    "GET",
    "/api/v1/checkpoints",
    Empty,
    CheckpointsListResponse,
    Lane.SESSION,
    query=("limit", "offset"),
)
DELETE_CHECKPOINT = Endpoint("delete_checkpoint", "DELETE", _CHECKPOINT, Empty, Empty, Lane.SESSION)
PUBLISH_CHECKPOINT = Endpoint(
    "publish_checkpoint", "POST", _CHECKPOINT + "/publish", Empty, Empty, Lane.SESSION
)
UNPUBLISH_CHECKPOINT = Endpoint(
    "unpublish_checkpoint", "DELETE", _CHECKPOINT + "/publish", Empty, Empty, Lane.SESSION
)
SET_CHECKPOINT_TTL = Endpoint(
    "set_checkpoint_ttl",
    "PUT",
    _CHECKPOINT + "/ttl",
    SetCheckpointTtlRequest,
    Empty,
    Lane.SESSION,
    since="<=0.13.0",
)
CHECKPOINT_ARCHIVE_URL = Endpoint(
    "get_checkpoint_archive_url",
    "GET",
    _CHECKPOINT + "/archive",
    Empty,
    CheckpointArchiveUrlResponse,
    Lane.SESSION,
    redirects="answer",
    until="<=0.36.0",
)
EXTERNAL_WEIGHTS_URLS = Endpoint(
    "get_external_weights_urls",
    "GET",
    _CHECKPOINT + "/external_weights_urls",
    Empty,
    ExternalWeightsUrlsResponse,
    Lane.SESSION,
    since="<=0.30.4",
)

# --- sessions and samplers, looked at from outside -----------------------------------------------------

LIST_SESSIONS = Endpoint(
    "list_sessions",
    "GET",
    "/api/v1/sessions",
    Empty,
    ListSessionsResponse,
    Lane.SESSION,
    query=("limit", "offset", "access_scope"),
    since="<=0.6.3",
)
GET_SESSION = Endpoint(
    "get_session",
    "GET",
    "/api/v1/sessions/{session_id}",
    Empty,
    GetSessionResponse,
    Lane.SESSION,
    query=("access_scope",),
    since="<=0.6.3",
)
SEARCH_SESSIONS = Endpoint(
    "search_sessions",
    "POST",
    "/api/v1/sessions/search",
    SessionSearchRequest,
    SessionSearchResponse,
    Lane.SESSION,
    since="<=0.36.0",
)
ASSIGN_SESSION_PROJECT = Endpoint(
    "assign_session_project",
    "PUT",
    "/api/v1/sessions/{session_id}/project",
    AssignSessionProjectRequest,
    Empty,
    Lane.SESSION,
    since="<=0.25.0",
)
EXPORT_SESSION_TRACE = Endpoint(
    "export_session_trace",
    "GET",
    "/api/v1/sessions/{session_id}/trace_export",
    Empty,
    TraceExportResponse,
    Lane.SESSION,
    since="0.24.0",
)
GET_SAMPLER = Endpoint(
    "get_sampler",
    "GET",
    "/api/v1/samplers/{sampler_id}",
    Empty,
    GetSamplerResponse,
    Lane.SESSION,
    since="<=0.6.3",
)

# --- for administrators --------------------------------------------------------------------------------

AUDIT_LOG = Endpoint(
    "get_audit_log",
    "GET",
    "/api/v1/audit",
    Empty,
    AuditLogResponse,
    Lane.SESSION,
    query=("event_type", "day"),
    redirects="anywhere",
    since="0.20.0",
)
BILLING_USAGE = Endpoint(
    "get_billing_usage",
    "GET",
    "/api/v1/billing/usage/events",
    Empty,
    BillingUsageResponse,
    Lane.SESSION,
    query=("starting_on", "ending_before"),
    since="0.23.3",
)
CHECKPOINT_STORAGE = Endpoint(
    "get_current_checkpoint_storage_usage",
    "GET",
    "/api/v1/billing/usage/checkpoints/current",
    Empty,
    CurrentCheckpointStorageUsageResponse,
    Lane.SESSION,
    query=("project_id",),
    since="<=0.36.0",
)

ENDPOINTS: tuple[Endpoint[Any, Any], ...] = tuple(
    endpoint for endpoint in tuple(globals().values()) if isinstance(endpoint, Endpoint)
)
"""All of them, in this order."""
