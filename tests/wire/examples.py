"""One literal example, or several, of every request: the object, and the JSON it has."""

from __future__ import annotations

from typing import Any

from tinker_actors.wire.future import (
    CancelFutureRequest,
    RetrieveFutureRequest,
    RetrieveFuturesRequest,
    SamplingSessionTarget,
)
from tinker_actors.wire.input import Datum, ModelInput
from tinker_actors.wire.model import CreateModelRequest, GetInfoRequest, LoraConfig, UnloadModelRequest
from tinker_actors.wire.optimizer import AdamParams, OptimStepRequest
from tinker_actors.wire.sampling import (
    CreateSamplingSessionRequest,
    JoinSamplingSessionRequest,
    SampleRequest,
    SamplingParams,
)
from tinker_actors.wire.service import AuthTokenRequest, ClientConfigRequest
from tinker_actors.wire.session import (
    AssignSessionProjectRequest,
    CreateSessionRequest,
    FinishReason,
    FinishSessionRequest,
    SessionHeartbeatRequest,
    SessionSearchRequest,
)
from tinker_actors.wire.telemetry import GenericEvent, TelemetrySendRequest
from tinker_actors.wire.training import (
    CreateCustomLossRequest,
    CustomLossInput,
    ForwardBackwardInput,
    ForwardBackwardRequest,
    ForwardRequest,
)
from tinker_actors.wire.weights import (
    CopyWeightsRequest,
    LoadWeightsRequest,
    SaveWeightsExternalRequest,
    SaveWeightsForSamplerRequest,
    SaveWeightsRequest,
    SetCheckpointTtlRequest,
    WeightsInfoRequest,
)

TENSORS = {
    "target_tokens": {"data": [2, 3, 4], "dtype": "int64", "shape": [3]},
    "weights": {"data": [0.0, 1.0, 1.0], "dtype": "float32", "shape": [3]},
}
PROMPT = {"chunks": [{"tokens": [1, 2, 3], "type": "encoded_text"}]}
DATUM = Datum(ModelInput.from_ints([1, 2, 3]), {"target_tokens": [2, 3, 4], "weights": [0, 1, 1]})
MODEL = "sess-0001:train:0"

# protocol of tinker 0.38.0, less the fields that only its newest servers know; JSON gradients as in 0.24.1
EXAMPLES: list[tuple[object, dict[str, Any]]] = [
    (ClientConfigRequest("0.38.0"), {"sdk_version": "0.38.0"}),
    (
        CreateSessionRequest(tags=(), user_metadata={"k": "v"}, sdk_version="0.38.0"),
        {"tags": [], "user_metadata": {"k": "v"}, "sdk_version": "0.38.0", "type": "create_session"},
    ),
    (
        SessionHeartbeatRequest("sess-0001"),
        {"session_id": "sess-0001", "type": "session_heartbeat"},
    ),
    (FinishSessionRequest(FinishReason("success")), {"reason": {"type": "success"}, "detail": None}),
    (
        FinishSessionRequest(FinishReason("errored"), "done"),
        {"reason": {"type": "errored"}, "detail": "done"},
    ),
    (
        CreateModelRequest(
            session_id="sess-0001",
            model_seq_id=0,
            base_model="Qwen/Qwen3-8B",
            lora_config=LoraConfig(rank=8, seed=1),
        ),
        {
            "session_id": "sess-0001",
            "model_seq_id": 0,
            "base_model": "Qwen/Qwen3-8B",
            "lora_config": {
                "rank": 8,
                "seed": 1,
                "train_unembed": True,
                "train_mlp": True,
                "train_attn": True,
            },
            "type": "create_model",
        },
    ),
    (
        CreateModelRequest(session_id="s", model_seq_id=1, base_model="b", user_metadata={}),
        {
            "session_id": "s",
            "model_seq_id": 1,
            "base_model": "b",
            "user_metadata": {},
            "type": "create_model",
        },
    ),
    (GetInfoRequest(MODEL), {"model_id": MODEL, "type": "get_info"}),
    (UnloadModelRequest(MODEL), {"model_id": MODEL, "type": "unload_model"}),
    (
        RetrieveFutureRequest("sess-0001:1", allow_metadata_only=True),
        {"request_id": "sess-0001:1", "allow_metadata_only": True},
    ),
    (RetrieveFutureRequest("275"), {"request_id": "275", "allow_metadata_only": False}),
    (
        ForwardBackwardRequest(ForwardBackwardInput([DATUM], "cross_entropy"), MODEL, 1),
        {
            "forward_backward_input": {
                "data": [{"loss_fn_inputs": TENSORS, "model_input": PROMPT}],
                "loss_fn": "cross_entropy",
            },
            "model_id": MODEL,
            "seq_id": 1,
        },
    ),
    (
        ForwardRequest(
            ForwardBackwardInput([DATUM], "ppo", {"clip_low_threshold": 0.8, "mode": "x"}), MODEL, 3
        ),
        {
            "forward_input": {
                "data": [{"loss_fn_inputs": TENSORS, "model_input": PROMPT}],
                "loss_fn": "ppo",
                "loss_fn_config": {"clip_low_threshold": 0.8, "mode": "x"},
            },
            "model_id": MODEL,
            "seq_id": 3,
        },
    ),
    (
        OptimStepRequest(AdamParams(), MODEL, 2),
        {
            "model_id": MODEL,
            "seq_id": 2,
            "type": "optim_step",
            "adam_params": {
                "learning_rate": 0.0001,
                "beta1": 0.9,
                "beta2": 0.95,
                "eps": 1e-12,
                "weight_decay": 0.0,
                "grad_clip_norm": 0.0,
            },
        },
    ),
    (
        SaveWeightsRequest(model_id=MODEL, path="ck1", seq_id=4, ttl_seconds=3600),
        {"model_id": MODEL, "path": "ck1", "seq_id": 4, "ttl_seconds": 3600, "type": "save_weights"},
    ),
    (
        SaveWeightsForSamplerRequest(model_id=MODEL, path="s1", seq_id=5),
        {"model_id": MODEL, "path": "s1", "seq_id": 5, "type": "save_weights_for_sampler"},
    ),
    (
        SaveWeightsForSamplerRequest(model_id=MODEL, sampling_session_seq_id=0, seq_id=6),
        {"model_id": MODEL, "sampling_session_seq_id": 0, "seq_id": 6, "type": "save_weights_for_sampler"},
    ),
    (
        LoadWeightsRequest(model_id=MODEL, path="tinker://a/weights/b", optimizer=False, seq_id=7),
        {
            "model_id": MODEL,
            "path": "tinker://a/weights/b",
            "optimizer": False,
            "seq_id": 7,
            "type": "load_weights",
        },
    ),
    (
        CreateSamplingSessionRequest(
            session_id="sess-0001", sampling_session_seq_id=1, base_model="Qwen/Qwen3-8B"
        ),
        {
            "session_id": "sess-0001",
            "sampling_session_seq_id": 1,
            "base_model": "Qwen/Qwen3-8B",
            "type": "create_sampling_session",
        },
    ),
    (
        SampleRequest(
            num_samples=2,
            prompt=ModelInput.from_ints([1, 2, 3]),
            sampling_params=SamplingParams(max_tokens=4, stop=["\n"], temperature=0.7),
            sampling_session_id="sess-0001:sample:0",
            seq_id=0,
            prompt_logprobs=True,
            topk_prompt_logprobs=2,
        ),
        {
            "num_samples": 2,
            "prompt": PROMPT,
            "sampling_params": {
                "max_tokens": 4,
                "stop": ["\n"],
                "temperature": 0.7,
                "top_k": -1,
                "top_p": 1.0,
            },
            "sampling_session_id": "sess-0001:sample:0",
            "seq_id": 0,
            "prompt_logprobs": True,
            "topk_prompt_logprobs": 2,
            "type": "sample",
        },
    ),
    (
        SampleRequest(prompt=ModelInput.empty(), sampling_params=SamplingParams(stop=[])),
        {
            "num_samples": 1,
            "prompt": {"chunks": []},
            "sampling_params": {"stop": [], "temperature": 1.0, "top_k": -1, "top_p": 1.0},
            "topk_prompt_logprobs": 0,
            "type": "sample",
        },
    ),
    (
        TelemetrySendRequest(
            events=(
                GenericEvent(
                    event_id="e",
                    event_name="poll",
                    event_session_index=1,
                    timestamp="2026-11-20T08:40:07.467041Z",
                    event_data={"status_code": 408, "why": None},
                ),
                {"event": "MOOD", "mood": None},
            ),
            platform="Linux",
            sdk_version="0.38.0",
            session_id="sess-0001",
        ),
        {
            "events": [
                {
                    "event": "GENERIC_EVENT",
                    "event_id": "e",
                    "event_name": "poll",
                    "event_session_index": 1,
                    "severity": "INFO",
                    "timestamp": "2026-11-20T08:40:07.467041Z",
                    "event_data": {"status_code": 408, "why": None},
                },
                {"event": "MOOD", "mood": None},
            ],
            "platform": "Linux",
            "sdk_version": "0.38.0",
            "session_id": "sess-0001",
        },
    ),
    (AuthTokenRequest(), {}),
    (AssignSessionProjectRequest("p"), {"project_id": "p"}),
    (
        SessionSearchRequest(project_ids=("p",), user_metadata={"k": "v"}, limit=5),
        {"project_ids": ["p"], "user_metadata": {"k": "v"}, "owner": {"type": "own"}, "limit": 5},
    ),
    (
        CreateCustomLossRequest(
            session_id="sess-0001",
            custom_loss_seq_id=0,
            name="mine",
            inputs=(CustomLossInput("logprobs", 1),),
            graph={"nodes": []},
        ),
        {
            "session_id": "sess-0001",
            "custom_loss_seq_id": 0,
            "name": "mine",
            "inputs": [{"name": "logprobs", "rank": 1}],
            "graph": {"nodes": []},
            "type": "create_custom_loss",
        },
    ),
    (
        SaveWeightsExternalRequest(model_id=MODEL, path="a", seq_id=3, age_encryption_recipients=("age1x",)),
        {
            "model_id": MODEL,
            "path": "a",
            "seq_id": 3,
            "age_encryption_recipients": ["age1x"],
            "type": "save_weights_external",
        },
    ),
    (
        CopyWeightsRequest(source_path="tinker://r/weights/a", destination_project_id="p"),
        {"source_path": "tinker://r/weights/a", "destination_project_id": "p"},
    ),
    (WeightsInfoRequest("tinker://r/weights/a"), {"tinker_path": "tinker://r/weights/a"}),
    (SetCheckpointTtlRequest(60), {"ttl_seconds": 60}),
    (SetCheckpointTtlRequest(None), {"ttl_seconds": None}),
    (
        JoinSamplingSessionRequest("sess-0001:sample:0"),
        {"sampling_session_id": "sess-0001:sample:0", "type": "join_sampling_session"},
    ),
    (
        RetrieveFuturesRequest(
            target=SamplingSessionTarget(sampling_session_id="sess-0001:sample:0"),
            retrieved_request_ids=("r",),
        ),
        {
            "target": {
                "type": "sampling_session",
                "sampling_session_id": "sess-0001:sample:0",
                "cloned_sampler_id": 0,
            },
            "prev_cursor": 0,
            "retrieved_request_ids": ["r"],
        },
    ),
    (CancelFutureRequest("r"), {"request_id": "r"}),
]
