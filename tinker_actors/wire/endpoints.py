"""The table of endpoints, read by the client and by the embedded service alike.

Paths, bodies and, where nothing else is said, timeouts: tinker 0.38.0 (`/api/v1` resources). What surrounds the
work (flags, finish, unload) has shorter ones, so that a service that does not answer is noticed soon.
"""

from tinker_actors.wire.endpoint import Endpoint, Lane
from tinker_actors.wire.future import RetrieveFutureRequest, UntypedAPIFuture
from tinker_actors.wire.model import CreateModelRequest, GetInfoRequest, GetInfoResponse, UnloadModelRequest
from tinker_actors.wire.optimizer import OptimStepRequest
from tinker_actors.wire.sampling import (
    CreateSamplingSessionRequest,
    CreateSamplingSessionResponse,
    SampleRequest,
    SampleSubmitted,
)
from tinker_actors.wire.service import (
    ClientConfigRequest,
    ClientConfigResponse,
    Empty,
    GetServerCapabilitiesResponse,
    HealthResponse,
)
from tinker_actors.wire.session import (
    CreateSessionRequest,
    CreateSessionResponse,
    FinishSessionRequest,
    SessionHeartbeatRequest,
    SessionHeartbeatResponse,
)
from tinker_actors.wire.telemetry import TelemetryResponse, TelemetrySendRequest
from tinker_actors.wire.training import ForwardBackwardRequest, ForwardRequest
from tinker_actors.wire.weights import LoadWeightsRequest, SaveWeightsForSamplerRequest, SaveWeightsRequest

__all__ = ["ENDPOINTS"]

HEALTH = Endpoint("healthz", "GET", "/api/v1/healthz", Empty, HealthResponse, Lane.SESSION)
CLIENT_CONFIG = Endpoint(
    "client_config",
    "POST",
    "/api/v1/client/config",
    ClientConfigRequest,
    ClientConfigResponse,
    Lane.SESSION,
    timeout=10.0,
    retries=2,  # the first call of all: whoever mistyped the URL should not wait a minute to learn it
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
FINISH_SESSION = Endpoint(
    "finish_session",
    "POST",
    "/api/v1/sessions/{session_id}/finish",
    FinishSessionRequest,
    Empty,
    Lane.SESSION,
    timeout=10.0,
    retries=2,
)
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
UNLOAD_MODEL = Endpoint(
    "unload_model",
    "POST",
    "/api/v1/unload_model",
    UnloadModelRequest,
    UntypedAPIFuture,
    Lane.TRAIN,
    timeout=10.0,
    retries=0,
)
FORWARD = Endpoint("forward", "POST", "/api/v1/forward", ForwardRequest, UntypedAPIFuture, Lane.TRAIN)
FORWARD_BACKWARD = Endpoint(
    "forward_backward",
    "POST",
    "/api/v1/forward_backward",
    ForwardBackwardRequest,
    UntypedAPIFuture,
    Lane.TRAIN,
    on_doubt="numbered",
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
CREATE_SAMPLING_SESSION = Endpoint(
    "create_sampling_session",
    "POST",
    "/api/v1/create_sampling_session",
    CreateSamplingSessionRequest,
    CreateSamplingSessionResponse,
    Lane.SESSION,
    on_doubt="create",
)
ASAMPLE = Endpoint(
    "asample", "POST", "/api/v1/asample", SampleRequest, SampleSubmitted, Lane.SAMPLE, retries=0
)
RETRIEVE_FUTURE = Endpoint(
    "retrieve_future",
    "POST",
    "/api/v1/retrieve_future",
    RetrieveFutureRequest,
    Empty,
    Lane.FUTURES,
    timeout=45.0,
    retries=0,
)
TELEMETRY = Endpoint(
    "telemetry",
    "POST",
    "/api/v1/telemetry",
    TelemetrySendRequest,
    TelemetryResponse,
    Lane.TELEMETRY,
    timeout=5.0,
    retries=0,
    on_doubt="give_up",
)

ENDPOINTS = (
    HEALTH,
    CLIENT_CONFIG,
    CAPABILITIES,
    CREATE_SESSION,
    SESSION_HEARTBEAT,
    FINISH_SESSION,
    CREATE_MODEL,
    GET_INFO,
    UNLOAD_MODEL,
    FORWARD,
    FORWARD_BACKWARD,
    OPTIM_STEP,
    LOAD_WEIGHTS,
    SAVE_WEIGHTS,
    SAVE_WEIGHTS_FOR_SAMPLER,
    CREATE_SAMPLING_SESSION,
    ASAMPLE,
    RETRIEVE_FUTURE,
    TELEMETRY,
)
