"""Hypothesis strategies for everything that crosses the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from tinker_actors.wire import input as wire_input
from tinker_actors.wire import model, sampling, session, tensor, training

FLOAT32_MAX = float(np.finfo(np.float32).max)

texts = st.text(max_size=8)
names = st.text("abcdefghijklmnopqrstuvwxyz_:", min_size=1, max_size=12)
counts = st.integers(0, 2**31 - 1)
int64s = st.integers(-(2**63), 2**63 - 1)
floats = st.floats(allow_nan=False, allow_infinity=False)
float32s = st.floats(width=32, allow_nan=False, allow_infinity=False)
token_lists = st.lists(st.integers(0, 2**31 - 1), max_size=6)

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | int64s | floats | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def optional(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """None, or what the strategy gives."""
    return st.none() | strategy


def tensor_arrays() -> st.SearchStrategy[Any]:
    """Arrays of both dtypes and of any shape, also without dimensions and without values."""
    shapes = array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
    of_floats = arrays(np.float32, shapes, elements=float32s)
    return of_floats | arrays(np.int64, shapes, elements=int64s)


tensors = tensor_arrays().map(tensor.TensorData.from_numpy)
chunks = st.builds(wire_input.EncodedTextChunk, token_lists)
model_inputs = st.builds(wire_input.ModelInput, st.lists(chunks, max_size=3))
data = st.builds(wire_input.Datum, model_inputs, st.dictionaries(names, tensors, max_size=2))
metrics = st.dictionaries(names, floats, max_size=3)
metadata = st.dictionaries(texts, texts, max_size=3)

lora_configs = st.builds(
    model.LoraConfig,
    rank=counts,
    seed=optional(int64s),
    train_unembed=st.booleans(),
    train_mlp=st.booleans(),
    train_attn=st.booleans(),
)
model_data = st.builds(
    model.ModelData, arch=optional(texts), model_name=optional(texts), tokenizer_id=optional(texts)
)
sampling_params = st.builds(
    sampling.SamplingParams,
    max_tokens=optional(counts),
    seed=optional(int64s),
    stop=optional(texts | st.lists(texts, max_size=3) | token_lists),
    temperature=floats,
    top_k=int64s,
    top_p=floats,
)
sampled_sequences = st.builds(
    sampling.SampledSequence,
    st.sampled_from(["length", "stop"]),
    token_lists.map(lambda tokens: np.array(tokens, np.int32)),
    optional(st.lists(float32s, max_size=6).map(lambda values: np.array(values, np.float32))),
)
topk_rows = optional(st.lists(st.tuples(counts, floats), max_size=3).map(tuple))
losses = st.sampled_from(training.LOSS_FNS)
batches = st.builds(
    training.ForwardBackwardInput,
    st.lists(data, max_size=3),
    losses,
    optional(st.dictionaries(names, floats | int64s | texts, max_size=2)),
)
outputs = st.builds(
    training.ForwardBackwardOutput,
    texts,
    st.lists(st.dictionaries(names, tensors, max_size=2), max_size=3),
    metrics,
)
adam_params = st.builds(
    training.AdamParams,
    learning_rate=floats,
    beta1=floats,
    beta2=floats,
    eps=floats,
    weight_decay=floats,
    grad_clip_norm=floats,
)
supported_models = st.builds(
    session.SupportedModel, model_name=optional(texts), max_context_length=optional(counts)
)

WIRE: Mapping[type, st.SearchStrategy[Any]] = {
    # input, tensor
    wire_input.EncodedTextChunk: chunks,
    wire_input.ModelInput: model_inputs,
    wire_input.Datum: data,
    tensor.TensorData: tensors,
    # training
    training.AdamParams: adam_params,
    training.ForwardBackwardInput: batches,
    training.ForwardBackwardOutput: outputs,
    training.ForwardBackwardRequest: st.builds(training.ForwardBackwardRequest, batches, texts, counts),
    training.ForwardRequest: st.builds(training.ForwardRequest, batches, texts, counts),
    training.OptimStepRequest: st.builds(training.OptimStepRequest, adam_params, texts, counts),
    training.OptimStepResponse: st.builds(training.OptimStepResponse, optional(metrics)),
    # model
    model.LoraConfig: lora_configs,
    model.ModelData: model_data,
    model.CreateModelRequest: st.builds(
        model.CreateModelRequest,
        session_id=texts,
        model_seq_id=counts,
        base_model=texts,
        user_metadata=optional(metadata),
        lora_config=optional(lora_configs),
    ),
    model.CreateModelResponse: st.builds(model.CreateModelResponse, texts),
    model.GetInfoRequest: st.builds(model.GetInfoRequest, texts),
    model.GetInfoResponse: st.builds(
        model.GetInfoResponse,
        model_data=model_data,
        model_id=texts,
        is_lora=optional(st.booleans()),
        lora_rank=optional(counts),
        model_name=optional(texts),
        type=optional(st.just("get_info")),
    ),
    model.LoadWeightsRequest: st.builds(
        model.LoadWeightsRequest, model_id=texts, path=texts, optimizer=st.booleans(), seq_id=counts
    ),
    model.LoadWeightsResponse: st.builds(
        model.LoadWeightsResponse,
        path=optional(texts),
        model_id=optional(texts),
        type=optional(st.just("load_weights")),
    ),
    model.SaveWeightsRequest: st.builds(
        model.SaveWeightsRequest, model_id=texts, path=texts, seq_id=counts, ttl_seconds=optional(counts)
    ),
    model.SaveWeightsResponse: st.builds(
        model.SaveWeightsResponse, texts, type=optional(st.just("save_weights"))
    ),
    model.SaveWeightsForSamplerRequest: st.builds(
        model.SaveWeightsForSamplerRequest,
        model_id=texts,
        seq_id=counts,
        path=optional(texts),
        sampling_session_seq_id=optional(counts),
        ttl_seconds=optional(counts),
    ),
    model.SaveWeightsForSamplerResponse: st.builds(
        model.SaveWeightsForSamplerResponse,
        path=optional(texts),
        sampling_session_id=optional(texts),
        type=optional(st.just("save_weights_for_sampler")),
    ),
    model.UnloadModelRequest: st.builds(model.UnloadModelRequest, texts),
    model.UnloadModelResponse: st.builds(
        model.UnloadModelResponse, model_id=optional(texts), type=optional(st.just("unload_model"))
    ),
    # sampling
    sampling.SamplingParams: sampling_params,
    sampling.SampledSequence: sampled_sequences,
    sampling.SampleRequest: st.builds(
        sampling.SampleRequest,
        prompt=model_inputs,
        sampling_params=sampling_params,
        num_samples=counts,
        sampling_session_id=optional(texts),
        seq_id=optional(counts),
        base_model=optional(texts),
        model_path=optional(texts),
        prompt_logprobs=optional(st.booleans()),
        topk_prompt_logprobs=counts,
    ),
    sampling.SampleSubmitted: st.builds(
        sampling.SampleSubmitted, texts, optional(st.lists(texts, max_size=3).map(tuple))
    ),
    sampling.SampleResponse: st.builds(
        sampling.SampleResponse,
        st.lists(sampled_sequences, max_size=3).map(tuple),
        optional(st.lists(optional(floats), max_size=4).map(tuple)),
        optional(st.lists(topk_rows, max_size=3).map(tuple)),
    ),
    sampling.CreateSamplingSessionRequest: st.builds(
        sampling.CreateSamplingSessionRequest,
        session_id=texts,
        sampling_session_seq_id=counts,
        base_model=optional(texts),
        model_path=optional(texts),
    ),
    sampling.CreateSamplingSessionResponse: st.builds(sampling.CreateSamplingSessionResponse, texts),
    # session
    session.Empty: st.just(session.Empty()),
    session.HealthResponse: st.just(session.HealthResponse("ok")),
    session.ClientConfigRequest: st.builds(session.ClientConfigRequest, texts),
    session.ClientConfigResponse: st.builds(
        session.ClientConfigResponse,
        fwdbwd_max_chunk_len=counts,
        fwdbwd_max_chunk_bytes_count=counts,
        sample_max_concurrent_requests=counts,
        sequence_dedupe=st.sampled_from(["replay", "reject", "none"]),
    ),
    session.SupportedModel: supported_models,
    session.GetServerCapabilitiesResponse: st.builds(
        session.GetServerCapabilitiesResponse, st.lists(supported_models, max_size=3).map(tuple)
    ),
    session.CreateSessionRequest: st.builds(
        session.CreateSessionRequest,
        tags=st.lists(texts, max_size=3).map(tuple),
        user_metadata=metadata,
        sdk_version=texts,
    ),
    session.CreateSessionResponse: st.builds(
        session.CreateSessionResponse,
        session_id=texts,
        info_message=optional(texts),
        warning_message=optional(texts),
        error_message=optional(texts),
    ),
    session.SessionHeartbeatRequest: st.builds(session.SessionHeartbeatRequest, texts),
    session.SessionHeartbeatResponse: st.builds(
        session.SessionHeartbeatResponse, optional(st.just("session_heartbeat"))
    ),
    session.FinishReason: st.builds(
        session.FinishReason, st.sampled_from(["success", "errored", "interrupted"])
    ),
    session.FinishSessionRequest: st.builds(
        session.FinishSessionRequest,
        st.builds(session.FinishReason, st.sampled_from(["success", "errored", "interrupted"])),
        optional(texts),
    ),
    session.UntypedAPIFuture: st.builds(session.UntypedAPIFuture, texts, optional(texts)),
    session.RetrieveFutureRequest: st.builds(session.RetrieveFutureRequest, texts, st.booleans()),
    session.TryAgain: st.builds(session.TryAgain, texts, texts, optional(texts)),
    session.RequestFailed: st.builds(
        session.RequestFailed, texts, st.sampled_from(["unknown", "server", "user"])
    ),
    session.TelemetrySendRequest: st.builds(
        session.TelemetrySendRequest,
        events=st.lists(st.dictionaries(texts, json_values, max_size=3), max_size=3).map(tuple),
        platform=texts,
        sdk_version=texts,
        session_id=texts,
    ),
    session.TelemetryResponse: st.just(session.TelemetryResponse("accepted")),
}
"""How to make an object of each class; tests/wire/test_codec.py sees that none is missing."""
