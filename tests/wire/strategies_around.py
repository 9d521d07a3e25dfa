"""Hypothesis strategies for what surrounds the work: models, sessions, promises, lists, bills."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from tests.wire.strategies import (
    WIRE,
    counts,
    flags,
    floats,
    int64s,
    json_objects,
    metadata,
    names,
    optimizer_configs,
    optional,
    tag,
    texts,
    times,
    tuples_of,
)
from tinker_actors.wire import billing, future, model, run, service, session, telemetry, weights

# Of a kind that this package does not know.
unknown_kinds = st.builds(lambda kind, rest: {**rest, "type": f"x-{kind}"}, names, json_objects)

lora_configs = st.builds(
    model.LoraConfig,
    rank=counts,
    seed=optional(int64s),
    train_unembed=flags,
    train_mlp=flags,
    train_attn=flags,
)
model_data = st.builds(
    model.ModelData, arch=optional(texts), model_name=optional(texts), tokenizer_id=optional(texts)
)

MODELS: Mapping[type, st.SearchStrategy[Any]] = {
    model.LoraConfig: lora_configs,
    model.ModelData: model_data,
    model.CreateModelRequest: st.builds(
        model.CreateModelRequest,
        session_id=texts,
        model_seq_id=counts,
        base_model=texts,
        user_metadata=optional(metadata),
        lora_config=optional(lora_configs),
        optimizer_config=optimizer_configs,
    ),
    model.CreateModelResponse: st.builds(model.CreateModelResponse, texts),
    model.GetInfoRequest: st.builds(model.GetInfoRequest, texts),
    model.GetInfoResponse: st.builds(
        model.GetInfoResponse,
        model_data=model_data,
        model_id=texts,
        optimizer_config=optimizer_configs,
        is_lora=optional(flags),
        lora_rank=optional(counts),
        model_name=optional(texts),
        type=tag("get_info"),
    ),
    model.UnloadModelRequest: st.builds(model.UnloadModelRequest, texts),
    model.UnloadModelResponse: st.builds(
        model.UnloadModelResponse, model_id=optional(texts), type=tag("unload_model")
    ),
}

loads = {"path": texts, "optimizer": flags, "weights_access_token": optional(texts)}
WEIGHTS: Mapping[type, st.SearchStrategy[Any]] = {
    weights.LoadWeightsRequest: st.builds(weights.LoadWeightsRequest, model_id=texts, seq_id=counts, **loads)
    | st.builds(
        weights.LoadWeightsRequest,
        session_id=texts,
        model_seq_id=counts,
        base_model=optional(texts),
        user_metadata=optional(metadata),
        optimizer_config=optional(optimizer_configs),
        **loads,
    ),
    weights.LoadWeightsResponse: st.builds(
        weights.LoadWeightsResponse, path=optional(texts), model_id=optional(texts), type=tag("load_weights")
    ),
    weights.SaveWeightsRequest: st.builds(
        weights.SaveWeightsRequest,
        model_id=texts,
        path=optional(texts),
        seq_id=optional(counts),
        ttl_seconds=optional(counts),
        overwrite=flags,
        user_metadata=optional(metadata),
    ),
    weights.SaveWeightsResponse: st.builds(weights.SaveWeightsResponse, texts, type=tag("save_weights")),
    weights.SaveWeightsForSamplerRequest: st.builds(
        weights.SaveWeightsForSamplerRequest,
        model_id=texts,
        path=optional(texts),
        sampling_session_seq_id=optional(counts),
        kind=st.sampled_from(["snapshot", "inflight"]),
        seq_id=optional(counts),
        ttl_seconds=optional(counts),
        user_metadata=optional(metadata),
    ),
    weights.SaveWeightsForSamplerResult: st.builds(
        weights.SaveWeightsForSamplerResult,
        path=optional(texts),
        sampling_session_id=optional(texts),
        type=tag("save_weights_for_sampler"),
    ),
    weights.SaveWeightsForSamplerResponse: st.builds(weights.SaveWeightsForSamplerResponse, texts),
    weights.SaveWeightsExternalRequest: st.builds(
        weights.SaveWeightsExternalRequest,
        model_id=texts,
        path=texts,
        seq_id=optional(counts),
        ttl_seconds=optional(counts),
        age_encryption_recipients=optional(tuples_of(texts)),
    ),
    weights.SaveWeightsExternalResponse: st.builds(
        weights.SaveWeightsExternalResponse,
        path=texts,
        size_bytes=optional(counts),
        type=tag("save_weights_external"),
    ),
    weights.CopyWeightsRequest: st.builds(
        weights.CopyWeightsRequest,
        source_path=texts,
        destination_project_id=optional(texts),
        session_id=optional(texts),
        model_seq_id=optional(counts),
        ttl_seconds=optional(counts),
        weights_access_token=optional(texts),
    ),
    weights.CopyWeightsResponse: st.builds(weights.CopyWeightsResponse, texts),
    weights.SetCheckpointTtlRequest: st.builds(weights.SetCheckpointTtlRequest, optional(counts)),
    weights.WeightsInfoRequest: st.builds(weights.WeightsInfoRequest, texts),
    weights.WeightsInfoResponse: st.builds(
        weights.WeightsInfoResponse,
        base_model=texts,
        is_lora=flags,
        optimizer_config=optimizer_configs,
        lora_rank=optional(counts),
        train_unembed=optional(flags),
        train_mlp=optional(flags),
        train_attn=optional(flags),
    ),
    weights.ExternalWeightsUrlsResponse: st.builds(weights.ExternalWeightsUrlsResponse, metadata, times),
    weights.CheckpointArchiveUrlResponse: st.builds(
        weights.CheckpointArchiveUrlResponse, texts, optional(times)
    ),
}

checkpoints = st.builds(
    run.Checkpoint,
    checkpoint_id=texts,
    checkpoint_type=st.sampled_from(["training", "sampler", "external", "other"]),
    time=times,
    tinker_path=texts,
    size_bytes=optional(counts),
    public=flags,
    user_metadata=optional(metadata),
    expires_at=optional(times),
)
cursors = st.builds(run.Cursor, offset=counts, limit=counts, total_count=counts)
training_runs = st.builds(
    run.TrainingRun,
    training_run_id=texts,
    base_model=texts,
    model_owner=texts,
    is_lora=flags,
    corrupted=flags,
    lora_rank=optional(counts),
    last_request_time=times,
    last_checkpoint=optional(checkpoints),
    last_sampler_checkpoint=optional(checkpoints),
    user_metadata=optional(metadata),
)
paths = st.sampled_from(["weights", "sampler_weights", "external_weights"]).map(
    lambda segment: run.ParsedCheckpointTinkerPath.from_tinker_path(f"tinker://s:train:0/{segment}/0001")
)

RUNS: Mapping[type, st.SearchStrategy[Any]] = {
    run.Checkpoint: checkpoints,
    run.CheckpointsListResponse: st.builds(
        run.CheckpointsListResponse, tuples_of(checkpoints), optional(cursors)
    ),
    run.Cursor: cursors,
    run.ParsedCheckpointTinkerPath: paths,
    run.TrainingRun: training_runs,
    run.TrainingRunsResponse: st.builds(run.TrainingRunsResponse, tuples_of(training_runs), cursors),
}

finish_types = st.sampled_from(["success", "errored", "interrupted"])
finish_reasons = st.builds(session.FinishReason, finish_types)
request_reasons = st.builds(session.RequestReason, request_id=texts, request_type=texts)
run_reasons = st.builds(session.TrainingRunReason, training_run_id=texts)
sampling_reasons = st.builds(session.SamplingSessionReason, sampling_session_id=texts)
failed = st.builds(
    session.SessionFailed,
    category=texts,
    reason=request_reasons | run_reasons | sampling_reasons | unknown_kinds,
    message=texts,
)
cancelled = st.builds(session.SessionCancelled, detail=optional(texts))
client_finished = st.builds(session.SessionClientFinished, reason=finish_reasons, detail=optional(texts))
active = st.just(session.SessionActive())
user_owners = st.builds(session.UserSearchOwner, tuples_of(texts, min_size=1))
finished_queries = st.builds(
    session.ClientFinishedStatusQuery, reasons=optional(tuples_of(finish_types, min_size=1))
)
plain_queries = st.sampled_from(
    [session.ActiveStatusQuery(), session.CancelledStatusQuery(), session.FailedStatusQuery()]
)
search_cursors = st.builds(session.SessionSearchCursor, last_created_at=times, last_session_id=texts)
summaries = st.builds(
    session.SessionSummary,
    session_id=texts,
    created_at=times,
    owner=texts,
    project_id=optional(texts),
    status=optional(failed | cancelled | client_finished | active | unknown_kinds),
    checkpoints_count=counts,
    display_name=optional(texts),
    user_metadata=optional(metadata),
    checkpoint_storage_bytes=optional(counts),
)

SESSIONS: Mapping[type, st.SearchStrategy[Any]] = {
    session.CreateSessionRequest: st.builds(
        session.CreateSessionRequest,
        tags=tuples_of(texts),
        user_metadata=metadata,
        sdk_version=texts,
        project_id=optional(texts),
        display_name=optional(texts),
    ),
    session.CreateSessionResponse: st.builds(
        session.CreateSessionResponse,
        session_id=texts,
        info_message=optional(texts),
        warning_message=optional(texts),
        error_message=optional(texts),
        type=tag("create_session"),
    ),
    session.SessionHeartbeatRequest: st.builds(session.SessionHeartbeatRequest, texts),
    session.SessionHeartbeatResponse: st.builds(session.SessionHeartbeatResponse, tag("session_heartbeat")),
    session.FinishReason: finish_reasons,
    session.FinishSessionRequest: st.builds(session.FinishSessionRequest, finish_reasons, optional(texts)),
    session.GetSessionResponse: st.builds(
        session.GetSessionResponse,
        training_run_ids=tuples_of(texts),
        sampler_ids=tuples_of(texts),
        user_metadata=optional(metadata),
        display_name=optional(texts),
    ),
    session.ListSessionsResponse: st.builds(session.ListSessionsResponse, tuples_of(texts)),
    session.AssignSessionProjectRequest: st.builds(session.AssignSessionProjectRequest, texts),
    session.TraceExportResponse: st.builds(
        session.TraceExportResponse, status=texts, url=optional(texts), error=optional(texts)
    ),
    session.RequestReason: request_reasons,
    session.TrainingRunReason: run_reasons,
    session.SamplingSessionReason: sampling_reasons,
    session.SessionFailed: failed,
    session.SessionCancelled: cancelled,
    session.SessionClientFinished: client_finished,
    session.SessionActive: active,
    session.OwnSearchOwner: st.just(session.OwnSearchOwner()),
    session.AccessibleSearchOwner: st.just(session.AccessibleSearchOwner()),
    session.UserSearchOwner: user_owners,
    session.ActiveStatusQuery: st.just(session.ActiveStatusQuery()),
    session.CancelledStatusQuery: st.just(session.CancelledStatusQuery()),
    session.FailedStatusQuery: st.just(session.FailedStatusQuery()),
    session.ClientFinishedStatusQuery: finished_queries,
    session.SessionSearchCursor: search_cursors,
    session.SessionSearchRequest: st.builds(
        session.SessionSearchRequest,
        session_id=optional(texts),
        project_ids=optional(tuples_of(texts)),
        user_metadata=metadata,
        display_name=optional(names),
        owner=st.just(session.OwnSearchOwner()) | st.just(session.AccessibleSearchOwner()) | user_owners,
        statuses=optional(tuples_of(plain_queries | finished_queries, min_size=1)),
        limit=st.integers(1, 200),
        cursor=optional(search_cursors),
    ),
    session.SessionSummary: summaries,
    session.SessionSearchResponse: st.builds(
        session.SessionSearchResponse, tuples_of(summaries), optional(search_cursors)
    ),
}

supported_models = st.builds(
    service.SupportedModel,
    model_name=optional(texts),
    max_context_length=optional(counts),
    trainable=optional(flags),
    sampleable=optional(flags),
)
orgs = st.builds(service.OrgDetails, name=optional(texts))
users = st.builds(service.UserDetails, email=optional(texts))
key_details = st.builds(service.ApiKeyDetails, org_details=optional(orgs), user_details=optional(users))

SERVICE: Mapping[type, st.SearchStrategy[Any]] = {
    service.Empty: st.just(service.Empty()),
    service.HealthResponse: st.just(service.HealthResponse("ok")),
    service.SupportedModel: supported_models,
    service.GetServerCapabilitiesResponse: st.builds(
        service.GetServerCapabilitiesResponse, tuples_of(supported_models)
    ),
    service.ClientConfigRequest: st.builds(service.ClientConfigRequest, texts),
    service.ClientConfigResponse: st.builds(
        service.ClientConfigResponse,
        pjwt_auth_enabled=flags,
        credential_default_source=texts,
        sample_dispatch_bytes_semaphore_size=counts,
        inflight_response_bytes_semaphore_size=counts,
        parallel_fwdbwd_chunks=flags,
        proto_compress_fwdbwd=flags,
        fwdbwd_max_chunk_len=counts,
        fwdbwd_max_chunk_bytes_count=counts,
        fwdbwd_dispatch_bytes_semaphore_size=counts,
        billing_exception_max_pause_duration_sec=floats,
        sample_no_retries=flags,
        sample_enable_stuck_detection=flags,
        sample_max_concurrent_requests=counts,
        use_pyqwest_transport=flags,
        sample_use_retrieve_futures=flags,
        custom_loss_server_side=flags,
        sample_join_sampling_session=flags,
        sequence_dedupe=optional(st.sampled_from(["replay", "reject", "none"])),
        training_body=optional(st.sampled_from(["json", "protobuf"])),
        newer_fields=optional(flags),
        early_numbers=optional(st.sampled_from(["park", "refuse", "run"])),
        restart_ends_models=optional(flags),
        session_timeout=optional(floats),
    ),
    service.ClientDynamicConfigResponse: st.builds(
        service.ClientDynamicConfigResponse,
        refresh_interval_sec=floats,
        sample_cancel_enabled=flags,
        sample_cancel_max_batch_size=counts,
    ),
    service.AuthTokenRequest: st.just(service.AuthTokenRequest()),
    service.AuthTokenResponse: st.builds(service.AuthTokenResponse, texts),
    service.OrgDetails: orgs,
    service.UserDetails: users,
    service.ApiKeyDetails: key_details,
    service.ApiKeyResponse: st.builds(
        service.ApiKeyResponse,
        key_id=counts,
        name=optional(texts),
        note=optional(texts),
        details=optional(key_details),
    ),
    service.WhoamiResponse: st.builds(
        service.WhoamiResponse, user_urn=texts, org_urn=texts, email=optional(texts)
    ),
}

targets = st.builds(future.SamplingSessionTarget, sampling_session_id=texts, cloned_sampler_id=counts)
finished = st.builds(
    future.FutureFinished, request_id=texts, response_payload_uncompressed_size=optional(counts)
)
broken = st.builds(future.FutureFailed, request_id=texts)

FUTURES: Mapping[type, st.SearchStrategy[Any]] = {
    future.UntypedAPIFuture: st.builds(future.UntypedAPIFuture, texts, optional(texts)),
    future.RetrieveFutureRequest: st.builds(future.RetrieveFutureRequest, texts, flags),
    future.CancelFutureRequest: st.builds(future.CancelFutureRequest, texts),
    future.TryAgain: st.builds(future.TryAgain, texts, texts, optional(texts)),
    future.CompleteMetadata: st.builds(future.CompleteMetadata, counts),
    future.RequestFailed: st.builds(
        future.RequestFailed, texts, st.sampled_from(["unknown", "server", "user"])
    ),
    future.SamplingSessionTarget: targets,
    future.RetrieveFuturesRequest: st.builds(
        future.RetrieveFuturesRequest,
        target=targets,
        prev_cursor=counts,
        timeout=optional(floats),
        retrieved_request_ids=tuples_of(texts),
    ),
    future.FutureFinished: finished,
    future.FutureFailed: broken,
    future.RetrieveFuturesResponse: st.builds(
        future.RetrieveFuturesResponse, tuples_of(finished | broken), counts
    ),
}

event_fields = {
    "event_id": texts,
    "event_session_index": counts,
    "severity": st.sampled_from(["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]),
    "timestamp": times,
}
starts = st.builds(telemetry.SessionStartEvent, **event_fields)
ends = st.builds(telemetry.SessionEndEvent, duration=texts, **event_fields)
exceptions = st.builds(
    telemetry.UnhandledExceptionEvent,
    error_message=texts,
    error_type=texts,
    traceback=optional(texts),
    **event_fields,
)
generics = st.builds(telemetry.GenericEvent, event_name=texts, event_data=json_objects, **event_fields)
unknown_events = st.builds(lambda kind, rest: {**rest, "event": f"x-{kind}"}, names, json_objects)

TELEMETRY: Mapping[type, st.SearchStrategy[Any]] = {
    telemetry.SessionStartEvent: starts,
    telemetry.SessionEndEvent: ends,
    telemetry.UnhandledExceptionEvent: exceptions,
    telemetry.GenericEvent: generics,
    telemetry.TelemetrySendRequest: st.builds(
        telemetry.TelemetrySendRequest,
        events=tuples_of(starts | ends | exceptions | generics | unknown_events),
        platform=texts,
        sdk_version=texts,
        session_id=texts,
        process_uuid=optional(texts),
    ),
    telemetry.TelemetryResponse: st.just(telemetry.TelemetryResponse("accepted")),
}

of_training = st.builds(billing.TrainingBillingEvent, token_count=counts)
of_prefill = st.builds(billing.SamplingPrefillBillingEvent, cached=flags, token_count=counts)
of_samples = st.builds(billing.SamplingSampleBillingEvent, token_count=counts)
of_checkpoints = st.builds(billing.CheckpointBillingEvent, count=counts)
of_storage = st.builds(billing.StorageBillingEvent, free=flags, gigabyte_hours=floats)
usage = st.builds(
    billing.BillingUsageEvent,
    bucket_start=times,
    bucket_end=times,
    base_model=optional(texts),
    user_id=optional(texts),
    user_name=optional(texts),
    session_id=optional(texts),
    project_id=optional(texts),
    estimated_cost_usd=optional(floats),
    effective_rate_usd_per_million_tokens=optional(floats),
    effective_rate_usd_per_gigabyte_month=optional(floats),
    event_info=of_training | of_prefill | of_samples | of_checkpoints | of_storage | unknown_kinds,
)
usage_sessions = st.builds(billing.BillingUsageSession, user_metadata=optional(metadata))
storage = st.builds(
    billing.CheckpointStorageUsage,
    project_id=optional(texts),
    org_user_urn=optional(texts),
    user_email=optional(texts),
    user_name=optional(texts),
    checkpoint_count=counts,
    size_bytes=counts,
    size_gigabytes=floats,
    estimated_monthly_cost_usd=optional(floats),
)
entries = st.builds(
    billing.AuditLogEntry,
    timestamp=times,
    event=texts,
    event_details=json_objects,
    model_id=optional(texts),
    tinker_path=optional(texts),
    purpose=optional(texts),
)

BILLING: Mapping[type, st.SearchStrategy[Any]] = {
    billing.TrainingBillingEvent: of_training,
    billing.SamplingPrefillBillingEvent: of_prefill,
    billing.SamplingSampleBillingEvent: of_samples,
    billing.CheckpointBillingEvent: of_checkpoints,
    billing.StorageBillingEvent: of_storage,
    billing.BillingUsageEvent: usage,
    billing.BillingUsageSession: usage_sessions,
    billing.BillingUsageResponse: st.builds(
        billing.BillingUsageResponse,
        data=tuples_of(usage),
        sessions=st.dictionaries(texts, usage_sessions, max_size=2),
        cost_data_through=optional(times),
    ),
    billing.CheckpointStorageUsage: storage,
    billing.CurrentCheckpointStorageUsageResponse: st.builds(
        billing.CurrentCheckpointStorageUsageResponse,
        effective_rate_usd_per_gigabyte_month=optional(floats),
        data=tuples_of(storage),
    ),
    billing.AuditLogEntry: entries,
    billing.AuditLogResponse: st.builds(billing.AuditLogResponse, tuples_of(entries)),
}

EVERYTHING: Mapping[type, st.SearchStrategy[Any]] = {
    **WIRE,
    **MODELS,
    **WEIGHTS,
    **RUNS,
    **SESSIONS,
    **SERVICE,
    **FUTURES,
    **TELEMETRY,
    **BILLING,
}
"""How to make an object of each class; tests/wire/test_codec.py sees that none is missing."""
