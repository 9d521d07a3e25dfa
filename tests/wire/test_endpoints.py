"""The table of endpoints: what goes out and comes back, and the exceptions some of them make.

Where each call goes, and when it is given up, stands in tests/transport/test_calls.py, as it is seen there.
"""

from __future__ import annotations

import pytest

from tinker_actors.wire import endpoints, protobuf
from tinker_actors.wire.endpoint import Endpoint
from tinker_actors.wire.endpoints import ENDPOINTS, FORWARD_BACKWARD

# name, request, reply
TYPES = """
healthz                              Empty                         HealthResponse
client_config                        ClientConfigRequest           ClientConfigResponse
client_dynamic_config                ClientConfigRequest           ClientDynamicConfigResponse
auth_token                           AuthTokenRequest              AuthTokenResponse
get_api_key                          Empty                         ApiKeyResponse
delete_api_key                       Empty                         Empty
get_server_capabilities              Empty                         GetServerCapabilitiesResponse
create_session                       CreateSessionRequest          CreateSessionResponse
session_heartbeat                    SessionHeartbeatRequest       SessionHeartbeatResponse
finish_session                       FinishSessionRequest          Empty
create_model                         CreateModelRequest            UntypedAPIFuture
get_info                             GetInfoRequest                GetInfoResponse
unload_model                         UnloadModelRequest            UntypedAPIFuture
forward                              ForwardRequest                UntypedAPIFuture
forward_backward                     ForwardBackwardRequest        UntypedAPIFuture
optim_step                           OptimStepRequest              UntypedAPIFuture
create_custom_loss                   CreateCustomLossRequest       UntypedAPIFuture
load_weights                         LoadWeightsRequest            UntypedAPIFuture
save_weights                         SaveWeightsRequest            UntypedAPIFuture
save_weights_for_sampler             SaveWeightsForSamplerRequest  UntypedAPIFuture
save_weights_external                SaveWeightsExternalRequest    UntypedAPIFuture
weights_info                         WeightsInfoRequest            WeightsInfoResponse
copy_weights                         CopyWeightsRequest            CopyWeightsResponse
create_sampling_session              CreateSamplingSessionRequest  CreateSamplingSessionResponse
join_sampling_session                JoinSamplingSessionRequest    JoinSamplingSessionResponse
asample                              SampleRequest                 SampleSubmitted
retrieve_future                      RetrieveFutureRequest         Payload
retrieve_futures                     RetrieveFuturesRequest        RetrieveFuturesResponse
cancel_future                        CancelFutureRequest           Empty
telemetry                            TelemetrySendRequest          TelemetryResponse
list_training_runs                   Empty                         TrainingRunsResponse
get_training_run                     Empty                         TrainingRun
list_checkpoints                     Empty                         CheckpointsListResponse
list_user_checkpoints                Empty                         CheckpointsListResponse
delete_checkpoint                    Empty                         Empty
publish_checkpoint                   Empty                         Empty
unpublish_checkpoint                 Empty                         Empty
set_checkpoint_ttl                   SetCheckpointTtlRequest       Empty
get_checkpoint_archive_url           Empty                         CheckpointArchiveUrlResponse
get_external_weights_urls            Empty                         ExternalWeightsUrlsResponse
list_sessions                        Empty                         ListSessionsResponse
get_session                          Empty                         GetSessionResponse
search_sessions                      SessionSearchRequest          SessionSearchResponse
assign_session_project               AssignSessionProjectRequest   Empty
export_session_trace                 Empty                         TraceExportResponse
get_sampler                          Empty                         GetSamplerResponse
get_audit_log                        Empty                         AuditLogResponse
get_billing_usage                    Empty                         BillingUsageResponse
get_current_checkpoint_storage_usage Empty                         CurrentCheckpointStorageUsageResponse
"""


def test_the_bodies_are_these() -> None:
    """Each call's request and reply class."""
    types = [[one.name, one.request.__name__, one.reply.__name__] for one in ENDPOINTS]
    assert types == [line.split() for line in TYPES.strip().splitlines()]


def test_every_endpoint_is_in_the_table_once() -> None:
    """Names are unique, and so are methods with their paths; no endpoint is defined beside the table."""
    defined = [item for item in vars(endpoints).values() if isinstance(item, Endpoint)]
    assert {one.name for one in defined} == {one.name for one in ENDPOINTS}
    targets = {(one.method, one.path) for one in ENDPOINTS}
    assert len({one.name for one in ENDPOINTS}) == len(targets) == len(ENDPOINTS)


def test_paths_have_only_named_places() -> None:
    """A path is completed by name, and the same thing has the same name everywhere."""
    assert all(one.path.startswith("/api/v1/") for one in ENDPOINTS)
    assert {place for one in ENDPOINTS for place in one.places} == {
        "checkpoint_id",
        "sampler_id",
        "session_id",
        "training_run_id",
    }


def test_what_a_doubtful_send_means() -> None:
    """What changes a model, what saves it, what makes something new and what is not worth it differ from all else."""
    kinds = {one.name: one.on_doubt for one in ENDPOINTS if one.on_doubt != "resend"}
    assert kinds == {
        "create_session": "create",
        "session_heartbeat": "give_up",
        "create_model": "create",
        "forward_backward": "numbered",
        "optim_step": "numbered",
        "create_custom_loss": "numbered",
        "load_weights": "numbered",
        "save_weights": "named",
        "save_weights_for_sampler": "named",
        "save_weights_external": "named",
        "copy_weights": "create",
        "create_sampling_session": "create",
        "telemetry": "give_up",
    }


@pytest.mark.requirement("R97")
def test_what_is_written_otherwise_says_so() -> None:
    """Bodies and answers are JSON but for these, and two calls have answers elsewhere."""
    assert [one.name for one in ENDPOINTS if one.sends != "json"] == ["forward_backward"]
    assert FORWARD_BACKWARD.request in protobuf.MESSAGES
    assert [one.name for one in ENDPOINTS if one.accepts != "json"] == ["retrieve_future"]
    assert {one.name: one.redirects for one in ENDPOINTS if one.redirects != "inside"} == {
        "get_checkpoint_archive_url": "answer",
        "get_audit_log": "anywhere",
    }


def test_what_has_a_query_is_read_only() -> None:
    """Only calls that look have a query."""
    assert {one.method for one in ENDPOINTS if one.query} == {"GET"}


def test_calls_with_a_get_or_delete_have_no_body() -> None:
    """What stands in the path is all there is to say."""
    bodies = {one.request.__name__ for one in ENDPOINTS if one.method in {"GET", "DELETE"}}
    assert bodies == {"Empty"}
