"""The fields of every class as they are in JSON: their names, and their defaults."""

from __future__ import annotations

import attrs
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wire.strategies_around import EVERYTHING
from tinker_actors.wire.codec import encode, unstructure
from tinker_actors.wire.likeliest import TopkLogprobs
from tinker_actors.wire.optimizer import OptimizerConfigBase, OptimParamsBase
from tinker_actors.wire.run import ParsedCheckpointTinkerPath

# The inventory of tinker 0.38.0, older services' answers, and our three flags. What has no default is required.
FIELDS = """\
AccessibleSearchOwner type="accessible"
ActiveStatusQuery type="active"
AdamOptimizerConfig type="adamw"
AdamParams learning_rate=0.0001 beta1=0.9 beta2=0.95 eps=1e-12 weight_decay=0.0 grad_clip_norm=0.0
ApiKeyDetails org_details=null user_details=null
ApiKeyResponse key_id name=null note=null details=null
AssignSessionProjectRequest project_id
AuditLogEntry timestamp event event_details={} model_id=null tinker_path=null purpose=null
AuditLogResponse entries
AuthTokenRequest
AuthTokenResponse jwt
BillingUsageEvent bucket_start bucket_end base_model=null user_id=null user_name=null session_id=null
  project_id=null estimated_cost_usd=null effective_rate_usd_per_million_tokens=null
  effective_rate_usd_per_gigabyte_month=null event_info
BillingUsageResponse data sessions={} cost_data_through=null
BillingUsageSession user_metadata=null
CancelFutureRequest request_id
CancelledStatusQuery type="cancelled"
Checkpoint checkpoint_id checkpoint_type time tinker_path size_bytes=null public=false user_metadata=null
  expires_at=null
CheckpointArchiveUrlResponse url expires=null
CheckpointBillingEvent count type="checkpoint"
CheckpointStorageUsage project_id=null org_user_urn=null user_email=null user_name=null checkpoint_count
  size_bytes size_gigabytes estimated_monthly_cost_usd=null
CheckpointsListResponse checkpoints cursor=null
ClientConfigRequest sdk_version
ClientConfigResponse pjwt_auth_enabled=false credential_default_source="api_key"
  sample_dispatch_bytes_semaphore_size=10485760 inflight_response_bytes_semaphore_size=52428800
  parallel_fwdbwd_chunks=true proto_compress_fwdbwd=false fwdbwd_max_chunk_len=1024
  fwdbwd_max_chunk_bytes_count=5000000 fwdbwd_dispatch_bytes_semaphore_size=50000000
  billing_exception_max_pause_duration_sec=3600 sample_no_retries=false sample_enable_stuck_detection=true
  sample_max_concurrent_requests=2000 use_pyqwest_transport=true sample_use_retrieve_futures=false
  custom_loss_server_side=false sample_join_sampling_session=false sequence_dedupe=null training_body=null
  newer_fields=null early_numbers=null restart_ends_models=null session_timeout=null
ClientDynamicConfigResponse refresh_interval_sec=300 sample_cancel_enabled=false sample_cancel_max_batch_size=64
ClientFinishedStatusQuery reasons=null type="client_finished"
CompleteMetadata response_payload_size status="complete_metadata"
CopyWeightsRequest source_path destination_project_id=null session_id=null model_seq_id=null ttl_seconds=null
  weights_access_token=null
CopyWeightsResponse tinker_path
CreateCustomLossRequest session_id custom_loss_seq_id name inputs graph type="create_custom_loss"
CreateCustomLossResponse loss_id type=null
CreateModelRequest session_id model_seq_id base_model user_metadata=null lora_config=null
  optimizer_config={"type":"adamw"} type="create_model"
CreateModelResponse model_id type="create_model"
CreateSamplingSessionRequest session_id sampling_session_seq_id base_model=null model_path=null
  type="create_sampling_session"
CreateSamplingSessionResponse sampling_session_id type=null
CreateSessionRequest tags user_metadata={} sdk_version project_id=null display_name=null type="create_session"
CreateSessionResponse session_id info_message=null warning_message=null error_message=null type=null
CurrentCheckpointStorageUsageResponse effective_rate_usd_per_gigabyte_month=null data
Cursor offset limit total_count
CustomLossInput name rank
Datum model_input loss_fn_inputs={} model_input_spans=null loss_fn_input_spans=null
DimuonOptimizerConfig type="dimuon" version=1
DimuonParams type="dimuon" learning_rate grad_clip_norm=0.0 beta1=0.9
DmelChunk dmel type="dmel"
Empty
EncodedTextChunk tokens type="encoded_text"
ExternalWeightsUrlsResponse urls expires
FailedStatusQuery type="failed"
FinishReason type
FinishSessionRequest reason detail=null
ForwardBackwardInput data loss_fn loss_fn_config=null
ForwardBackwardOutput loss_fn_output_type="" loss_fn_outputs=[] metrics={}
ForwardBackwardRequest forward_backward_input model_id seq_id
ForwardRequest forward_input model_id seq_id
FutureFailed request_id state="failed"
FutureFinished request_id response_payload_uncompressed_size=null state="finished"
GenericEvent event="GENERIC_EVENT" event_id event_name event_session_index severity="INFO" timestamp
  event_data={}
GetInfoRequest model_id type="get_info"
GetInfoResponse model_data model_id optimizer_config={"type":"adamw"} is_lora=null lora_rank=null
  model_name=null type=null
GetSamplerResponse sampler_id base_model model_path=null
GetServerCapabilitiesResponse supported_models
GetSessionResponse training_run_ids sampler_ids user_metadata=null display_name=null
HealthResponse status
ImageAssetPointerChunk format location expected_tokens=null type="image_asset_pointer"
ImageChunk data format expected_tokens=null type="image"
JoinSamplingSessionRequest sampling_session_id type="join_sampling_session"
JoinSamplingSessionResponse client_counter type=null
ListSessionsResponse sessions
LoadWeightsRequest model_id=null session_id=null model_seq_id=null base_model=null user_metadata=null
  optimizer_config=null path optimizer seq_id=null weights_access_token=null type="load_weights"
LoadWeightsResponse path=null model_id=null type=null
LoraConfig rank seed=null train_unembed=true train_mlp=true train_attn=true
ModelData arch=null model_name=null tokenizer_id=null
ModelInput chunks
OptimStepRequest optim_params model_id seq_id=null type="optim_step"
OptimStepResponse metrics=null
OrgDetails name=null
OwnSearchOwner type="own"
PromptAltTokens tokens logprobs
PromptProvenanceSpan sequence_id offset=0 length type="prompt_tokens"
RequestFailed error category="unknown"
RequestReason request_id request_type type="request"
RetrieveFutureRequest request_id allow_metadata_only=false
RetrieveFuturesRequest target prev_cursor=0 timeout=null retrieved_request_ids=[]
RetrieveFuturesResponse completions cursor
SampleRequest num_samples=1 prompt sampling_params base_model=null model_path=null sampling_session_id=null
  seq_id=null prompt_logprobs=null topk_prompt_logprobs=0 topk_sample_logprobs=0 target_prompt_logprobs=null
  prompt_alt_tokens_k=0 prompt_logprobs_last_n=null record_stability_info=null type="sample"
SampleResponse sequences prompt_logprobs=null topk_prompt_logprobs=null target_prompt_logprobs=null
  prompt_cache_hit_tokens=0 prompt_alt_tokens=null type="sample"
SampleSubmitted request_id sample_sequence_ids=null model_id=null
SampledProvenanceSpan sequence_id offset=0 length type="sampled_tokens"
SampledSequence stop_reason tokens logprobs=null topk_logprobs=null sequence_id=null
SamplingParams max_tokens=null seed=null stop=null temperature=1.0 top_k=-1 top_p=1.0
SamplingPrefillBillingEvent cached token_count type="sampling_prefill"
SamplingSampleBillingEvent token_count type="sampling_sample"
SamplingSessionReason sampling_session_id type="sampling_session"
SamplingSessionTarget sampling_session_id cloned_sampler_id=0 type="sampling_session"
SaveWeightsExternalRequest model_id path seq_id=null ttl_seconds=null age_encryption_recipients=null
  type="save_weights_external"
SaveWeightsExternalResponse path size_bytes=null type=null
SaveWeightsForSamplerRequest model_id path=null sampling_session_seq_id=null kind="snapshot" seq_id=null
  ttl_seconds=null user_metadata=null type="save_weights_for_sampler"
SaveWeightsForSamplerResponse path
SaveWeightsForSamplerResult path=null sampling_session_id=null type=null
SaveWeightsRequest model_id path=null seq_id=null ttl_seconds=null overwrite=false user_metadata=null
  type="save_weights"
SaveWeightsResponse path type=null
SessionActive type="active"
SessionCancelled detail=null type="cancelled"
SessionClientFinished reason detail=null type="client_finished"
SessionEndEvent duration event="SESSION_END" event_id event_session_index severity="INFO" timestamp
SessionFailed category reason message type="failed"
SessionHeartbeatRequest session_id type="session_heartbeat"
SessionHeartbeatResponse type=null
SessionSearchCursor last_created_at last_session_id
SessionSearchRequest session_id=null project_ids=null user_metadata={} display_name=null owner={"type":"own"}
  statuses=null limit=50 cursor=null
SessionSearchResponse sessions next_cursor=null
SessionStartEvent event="SESSION_START" event_id event_session_index severity="INFO" timestamp
SessionSummary session_id created_at owner project_id=null status=null checkpoints_count display_name=null
  user_metadata=null checkpoint_storage_bytes=null
SetCheckpointTtlRequest ttl_seconds
StorageBillingEvent free=false gigabyte_hours type="storage"
SupportedModel model_name=null max_context_length=null trainable=null sampleable=null
TelemetryResponse status
TelemetrySendRequest events platform sdk_version session_id process_uuid=null
TensorData data dtype shape=null sparse_crow_indices=null sparse_col_indices=null
TraceExportResponse status url=null error=null
TrainingBillingEvent token_count type="training"
TrainingRun training_run_id base_model model_owner is_lora corrupted=false lora_rank=null last_request_time
  last_checkpoint=null last_sampler_checkpoint=null user_metadata=null
TrainingRunReason training_run_id type="training_run"
TrainingRunsResponse training_runs cursor
TryAgain request_id queue_state="active" queue_state_reason=null type="try_again"
UnhandledExceptionEvent error_message error_type event="UNHANDLED_EXCEPTION" event_id event_session_index
  severity="ERROR" timestamp traceback=null
UnloadModelRequest model_id type="unload_model"
UnloadModelResponse model_id=null type=null
UntypedAPIFuture request_id model_id=null
UserDetails email=null
UserSearchOwner owner_urns type="user"
WeightsInfoRequest tinker_path
WeightsInfoResponse base_model is_lora optimizer_config={"type":"adamw"} lora_rank=null train_unembed=null
  train_mlp=null train_attn=null
WhoamiResponse user_urn org_urn email=null
"""
TABLE = {line.split()[0]: line.split()[1:] for line in FIELDS.replace("\n  ", " ").splitlines()}

# What has no fields of its own, keeps what it is given, or never travels.
FREE = {TopkLogprobs, OptimizerConfigBase, OptimParamsBase, ParsedCheckpointTinkerPath}
KINDS = [kind for kind in EVERYTHING if kind not in FREE]
# The settings of an optimizer's step go by the name of their family.
FAMILIES = {"adam_params": "optim_params", "optimizer_params": "optim_params"}


def word(field: attrs.Attribute[object]) -> str:
    """Return a field as it is in the table."""
    name: str = field.metadata.get("named", field.name)
    if field.default is attrs.NOTHING:
        return name
    default = field.default.factory() if isinstance(field.default, attrs.Factory) else field.default  # type: ignore[arg-type]  # attrs types it as a function
    value = unstructure(default) if attrs.has(type(default)) else default
    return f"{name}={orjson.dumps(value).decode()}"


def name_of(kind: type) -> str:
    return kind.__name__


@pytest.mark.lesson("D10", "D21")
@pytest.mark.parametrize("kind", KINDS, ids=name_of)
def test_names_and_defaults_are_those_of_the_table(kind: type) -> None:
    """A field that comes, goes or changes is a decision, not an accident."""
    assert [word(field) for field in attrs.fields(kind)] == TABLE[kind.__name__]


@pytest.mark.requirement("R25")
def test_the_table_has_all_classes_and_no_others() -> None:
    """What is gone from the code is gone from the table; there are more than eighty."""
    assert set(TABLE) == {kind.__name__ for kind in KINDS}
    assert len(TABLE) > 80


@pytest.mark.requirement("R96")
@pytest.mark.parametrize("kind", KINDS, ids=name_of)
@settings(max_examples=10)
@given(drawn=st.data())
def test_nothing_but_what_is_in_the_table_is_written(kind: type, drawn: st.DataObject) -> None:
    """No name of an attribute and no field for our own use reaches the network."""
    value = drawn.draw(EVERYTHING[kind])
    for newer in (False, True):
        written = {FAMILIES.get(name, name) for name in orjson.loads(encode(value, newer=newer))}
        assert written <= {entry.partition("=")[0] for entry in TABLE[kind.__name__]}


@pytest.mark.requirement("R79")
@pytest.mark.parametrize("kind", [kind for kind in EVERYTHING if attrs.fields(kind)], ids=name_of)
@settings(max_examples=1)
@given(drawn=st.data())
def test_objects_cannot_be_changed(kind: type, drawn: st.DataObject) -> None:
    """What is in line is what was put there."""
    value = drawn.draw(EVERYTHING[kind])
    name = attrs.fields(kind)[0].name
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(value, name, None)
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        kind(no_such_field=1)
