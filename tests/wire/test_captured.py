"""Bodies that the official client 0.38.0 sent and took, and ours beside them."""

from __future__ import annotations

from collections.abc import Iterable

import orjson
import pytest

from tinker_actors.wire.chunk import EncodedTextChunk
from tinker_actors.wire.codec import decode, encode, structure
from tinker_actors.wire.future import (
    CancelFutureRequest,
    CompleteMetadata,
    FutureFailed,
    FutureFinished,
    RequestFailed,
    RetrieveFutureRequest,
    RetrieveFuturesRequest,
    RetrieveFuturesResponse,
    SamplingSessionTarget,
    TryAgain,
    UntypedAPIFuture,
)
from tinker_actors.wire.input import ModelInput
from tinker_actors.wire.model import (
    CreateModelRequest,
    CreateModelResponse,
    GetInfoRequest,
    GetInfoResponse,
    LoraConfig,
    ModelData,
)
from tinker_actors.wire.optimizer import (
    AdamParams,
    DimuonParams,
    OptimParamsBase,
    OptimStepRequest,
    OptimStepResponse,
)
from tinker_actors.wire.sampling import (
    CreateSamplingSessionRequest,
    CreateSamplingSessionResponse,
    SampleRequest,
    SampleSubmitted,
    SamplingParams,
)
from tinker_actors.wire.service import AuthTokenRequest, ClientConfigRequest, ClientConfigResponse
from tinker_actors.wire.session import (
    CreateSessionRequest,
    CreateSessionResponse,
    FinishReason,
    FinishSessionRequest,
    SessionHeartbeatRequest,
    SessionHeartbeatResponse,
)
from tinker_actors.wire.telemetry import (
    GenericEvent,
    SessionStartEvent,
    TelemetryResponse,
    TelemetrySendRequest,
)
from tinker_actors.wire.training import CreateCustomLossRequest, CreateCustomLossResponse, CustomLossInput
from tinker_actors.wire.weights import (
    CopyWeightsRequest,
    CopyWeightsResponse,
    LoadWeightsRequest,
    LoadWeightsResponse,
    SaveWeightsForSamplerRequest,
    SaveWeightsForSamplerResult,
    SaveWeightsRequest,
    SaveWeightsResponse,
    SetCheckpointTtlRequest,
)

MODEL = "sess-0001:train:0"
SAMPLER = "sess-0001:sample:0"
GRAPH = {
    "format": 1,
    "nodes": [
        {"op": "placeholder", "name": "logprobs", "target": "logprobs", "args": [], "kwargs": {}},
        {"op": "call_method", "name": "sum_1", "target": "sum", "args": [{"ref": "logprobs"}], "kwargs": {}},
    ],
}

REQUESTS: list[tuple[object, str]] = [
    (ClientConfigRequest("0.38.0"), '{"sdk_version":"0.38.0"}'),
    (AuthTokenRequest(), "{}"),
    (
        CreateSessionRequest(
            tags=(), user_metadata={"k": "v"}, sdk_version="0.38.0", project_id="proj1", display_name="disp"
        ),
        (
            '{"tags":[],"user_metadata":{"k":"v"},"sdk_version":"0.38.0","project_id":"proj1","display_name":"disp",'
            '"type":"create_session"}'
        ),
    ),
    (
        CreateModelRequest(
            session_id="sess-0001",
            model_seq_id=0,
            base_model="Qwen/Qwen3-8B",
            lora_config=LoraConfig(rank=8, seed=1),
        ),
        (
            '{"session_id":"sess-0001","model_seq_id":0,"base_model":"Qwen/Qwen3-8B","lora_config":{"rank":8,"seed":1,'
            '"train_unembed":true,"train_mlp":true,"train_attn":true},"optimizer_config":{"type":"adamw"},'
            '"type":"create_model"}'
        ),
    ),
    (
        RetrieveFutureRequest("sess-0001:1", allow_metadata_only=True),
        '{"request_id":"sess-0001:1","allow_metadata_only":true}',
    ),
    (GetInfoRequest(MODEL), '{"model_id":"sess-0001:train:0","type":"get_info"}'),
    (
        OptimStepRequest(AdamParams(), MODEL, 2),
        (
            '{"model_id":"sess-0001:train:0","seq_id":2,"type":"optim_step","adam_params":{"learning_rate":0.0001,'
            '"beta1":0.9,"beta2":0.95,"eps":1e-12,"weight_decay":0.0,"grad_clip_norm":0.0}}'
        ),
    ),
    (
        OptimStepRequest(DimuonParams(learning_rate=0.001), "m", 1),
        (
            '{"model_id":"m","seq_id":1,"type":"optim_step","optimizer_params":{"type":"dimuon","learning_rate":0.001,'
            '"grad_clip_norm":0.0,"beta1":0.9}}'
        ),
    ),
    (
        OptimStepRequest(OptimParamsBase("sgd", {"lr": 1.0, "nested": {"a": None}}), "m"),
        '{"model_id":"m","type":"optim_step","optimizer_params":{"type":"sgd","lr":1.0,"nested":{"a":null}}}',
    ),
    (
        SaveWeightsRequest(model_id=MODEL, path="ck1", seq_id=4, ttl_seconds=3600, user_metadata={"a": "b"}),
        (
            '{"model_id":"sess-0001:train:0","path":"ck1","seq_id":4,"ttl_seconds":3600,"overwrite":false,'
            '"user_metadata":{"a":"b"},"type":"save_weights"}'
        ),
    ),
    (
        SaveWeightsForSamplerRequest(model_id=MODEL, path="s1", seq_id=5),
        '{"model_id":"sess-0001:train:0","path":"s1","kind":"snapshot","seq_id":5,"type":"save_weights_for_sampler"}',
    ),
    (
        SaveWeightsForSamplerRequest(model_id=MODEL, sampling_session_seq_id=0, seq_id=6),
        (
            '{"model_id":"sess-0001:train:0","sampling_session_seq_id":0,"kind":"snapshot","seq_id":6,'
            '"type":"save_weights_for_sampler"}'
        ),
    ),
    (
        CreateSamplingSessionRequest(
            session_id="sess-0001", sampling_session_seq_id=1, base_model="Qwen/Qwen3-8B"
        ),
        (
            '{"session_id":"sess-0001","sampling_session_seq_id":1,"base_model":"Qwen/Qwen3-8B",'
            '"type":"create_sampling_session"}'
        ),
    ),
    (
        SampleRequest(
            num_samples=2,
            prompt=ModelInput([EncodedTextChunk([1, 2, 3])]),
            sampling_params=SamplingParams(max_tokens=4, stop=["\n"], temperature=0.7),
            sampling_session_id=SAMPLER,
            seq_id=0,
            prompt_logprobs=True,
            topk_prompt_logprobs=2,
            record_stability_info=False,
        ),
        (
            '{"num_samples":2,"prompt":{"chunks":[{"tokens":[1,2,3],"type":"encoded_text"}]},"sampling_params":'
            '{"max_tokens":4,"stop":["\\n"],"temperature":0.7,"top_k":-1,"top_p":1.0},"sampling_session_id":'
            '"sess-0001:sample:0","seq_id":0,"prompt_logprobs":true,"topk_prompt_logprobs":2,"topk_sample_logprobs":0,'
            '"prompt_alt_tokens_k":0,"record_stability_info":false,"type":"sample"}'
        ),
    ),
    (
        LoadWeightsRequest(
            session_id="sess-0001",
            model_seq_id=1,
            path="tinker://sess-0001:train:0/weights/ck1",
            optimizer=False,
        ),
        (
            '{"session_id":"sess-0001","model_seq_id":1,"path":"tinker://sess-0001:train:0/weights/ck1",'
            '"optimizer":false,"type":"load_weights"}'
        ),
    ),
    (SessionHeartbeatRequest("sess-0001"), '{"session_id":"sess-0001","type":"session_heartbeat"}'),
    (CancelFutureRequest("sess-0001:sample:0:5:15"), '{"request_id":"sess-0001:sample:0:5:15"}'),
    (FinishSessionRequest(FinishReason("success"), "done"), '{"reason":{"type":"success"},"detail":"done"}'),
    (FinishSessionRequest(FinishReason("errored")), '{"reason":{"type":"errored"},"detail":null}'),
    (
        CopyWeightsRequest(
            destination_project_id="proj", source_path="tinker://r/weights/0001", ttl_seconds=7200
        ),
        '{"destination_project_id":"proj","source_path":"tinker://r/weights/0001","ttl_seconds":7200}',
    ),
    (SetCheckpointTtlRequest(3600), '{"ttl_seconds":3600}'),
    (SetCheckpointTtlRequest(None), '{"ttl_seconds":null}'),
    (
        RetrieveFuturesRequest(
            target=SamplingSessionTarget(sampling_session_id=SAMPLER),
            timeout=0.0,
            retrieved_request_ids=("a", "b"),
        ),
        (
            '{"target":{"type":"sampling_session","sampling_session_id":"sess-0001:sample:0","cloned_sampler_id":0},'
            '"prev_cursor":0,"timeout":0.0,"retrieved_request_ids":["a","b"]}'
        ),
    ),
    (
        TelemetrySendRequest(
            events=(
                SessionStartEvent(
                    event_id="u", event_session_index=0, timestamp="2026-11-20T08:40:07.467041Z"
                ),
                GenericEvent(
                    event_id="v",
                    event_name="APIFuture.result_async.api_status_error",
                    event_session_index=1,
                    severity="WARNING",
                    timestamp="2026-11-20T08:40:08Z",
                    event_data={"status_code": 408, "should_retry": True},
                ),
            ),
            platform="Linux",
            sdk_version="0.38.0",
            session_id="sess-0001",
            process_uuid="w",
        ),
        (
            '{"events":[{"event":"SESSION_START","event_id":"u","event_session_index":0,"severity":"INFO","timestamp":'
            '"2026-11-20T08:40:07.467041Z"},{"event":"GENERIC_EVENT","event_id":"v","event_name":'
            '"APIFuture.result_async.api_status_error","event_session_index":1,"severity":"WARNING","timestamp":'
            '"2026-11-20T08:40:08Z","event_data":{"status_code":408,"should_retry":true}}],"platform":"Linux",'
            '"sdk_version":"0.38.0","session_id":"sess-0001","process_uuid":"w"}'
        ),
    ),
    (
        CreateCustomLossRequest(
            session_id="s",
            custom_loss_seq_id=0,
            name="nll",
            inputs=(CustomLossInput("logprobs", 1), CustomLossInput("weights", 1)),
            graph=GRAPH,
        ),
        '{"session_id":"s","custom_loss_seq_id":0,"name":"nll","inputs":[{"name":"logprobs","rank":1},'
        '{"name":"weights","rank":1}],"graph":'
        + orjson.dumps(GRAPH).decode()
        + ',"type":"create_custom_loss"}',
    ),
]

ANSWERS: list[tuple[str, object]] = [
    ("{}", ClientConfigResponse()),
    (
        '{"type":"create_session","session_id":"sess-0001"}',
        CreateSessionResponse(session_id="sess-0001", type="create_session"),
    ),
    ('{"request_id":"sess-0001:1","model_id":"sess-0001:train:0"}', UntypedAPIFuture("sess-0001:1", MODEL)),
    (
        '{"type":"try_again","request_id":"x","queue_state":"paused_capacity","queue_state_reason":"why"}',
        TryAgain("x", "paused_capacity", "why"),
    ),
    ('{"type":"create_model","model_id":"sess-0001:train:0"}', CreateModelResponse(MODEL)),
    (
        (
            '{"type":"get_info","model_id":"sess-0001:train:0","model_data":{"arch":"qwen3","model_name":'
            '"Qwen/Qwen3-8B","tokenizer_id":"Qwen/Qwen3-8B"},"is_lora":true,"lora_rank":32,"model_name":"Qwen/Qwen3-8B"}'
        ),
        GetInfoResponse(
            model_data=ModelData(arch="qwen3", model_name="Qwen/Qwen3-8B", tokenizer_id="Qwen/Qwen3-8B"),
            model_id=MODEL,
            is_lora=True,
            lora_rank=32,
            model_name="Qwen/Qwen3-8B",
            type="get_info",
        ),
    ),
    ('{"status":"complete_metadata","response_payload_size":1234}', CompleteMetadata(1234)),
    ('{"metrics":{"lr":0.1}}', OptimStepResponse({"lr": 0.1})),
    (
        '{"type":"save_weights","path":"tinker://sess-0001:train:0/weights/ck1"}',
        SaveWeightsResponse("tinker://sess-0001:train:0/weights/ck1", "save_weights"),
    ),
    (
        '{"path":"tinker://sess-0001:train:0/sampler_weights/s1"}',
        SaveWeightsForSamplerResult(path="tinker://sess-0001:train:0/sampler_weights/s1"),
    ),
    (
        '{"sampling_session_id":"sess-0001:sample:0"}',
        SaveWeightsForSamplerResult(sampling_session_id=SAMPLER),
    ),
    ('{"sampling_session_id":"sess-0001:sample:1"}', CreateSamplingSessionResponse("sess-0001:sample:1")),
    ('{"request_id":"r","sample_sequence_ids":["r:0","r:1"]}', SampleSubmitted("r", ("r:0", "r:1"))),
    ('{"type":"load_weights","path":"p"}', LoadWeightsResponse(path="p", type="load_weights")),
    ('{"type":"session_heartbeat"}', SessionHeartbeatResponse("session_heartbeat")),
    ('{"tinker_path":"tinker://a/weights/b"}', CopyWeightsResponse("tinker://a/weights/b")),
    ('{"status":"accepted"}', TelemetryResponse("accepted")),
    ('{"loss_id":"loss-1"}', CreateCustomLossResponse("loss-1")),
    (
        (
            '{"completions":[{"state":"finished","request_id":"a","response_payload_uncompressed_size":7},'
            '{"state":"failed","request_id":"b"}],"cursor":2}'
        ),
        RetrieveFuturesResponse(
            (
                FutureFinished(request_id="a", response_payload_uncompressed_size=7),
                FutureFailed(request_id="b"),
            ),
            2,
        ),
    ),
    ('{"error":"bad thing","category":"user"}', RequestFailed("bad thing", "user")),
]


def names_of(objects: Iterable[object]) -> list[str]:
    return [f"{number}-{type(value).__name__}" for number, value in enumerate(objects)]


@pytest.mark.requirement("R80", "R83", "R93", "R98")
@pytest.mark.parametrize(("value", "body"), REQUESTS, ids=names_of(value for value, _ in REQUESTS))
def test_requests_are_those_of_the_official_client(value: object, body: str) -> None:
    """Written for a service that takes newer fields, and read strictly; only the order of fields is free."""
    assert sorted_bytes(orjson.loads(encode(value, newer=True))) == sorted_bytes(orjson.loads(body))
    assert structure(type(value), orjson.loads(body), strict=True) == value


@pytest.mark.requirement("R94")
@pytest.mark.parametrize(("body", "value"), ANSWERS, ids=names_of(value for _, value in ANSWERS))
def test_answers_are_understood(body: str, value: object) -> None:
    """As they came, and with a field that nobody knows."""
    assert decode(type(value), body.encode(), strict=False) == value
    assert structure(type(value), {**orjson.loads(body), "news": {"a": [None]}}, strict=False) == value


def sorted_bytes(value: object) -> bytes:
    """Bytes in which 1 and 1.0, and true and 1, differ."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
