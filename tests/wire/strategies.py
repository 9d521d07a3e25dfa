"""Hypothesis strategies for everything that crosses the network."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from tinker_actors.wire import chunk, likeliest, optimizer, provenance, sampling, tensor, training
from tinker_actors.wire import input as wire_input

FLOAT32_MAX = float(np.finfo(np.float32).max)

texts = st.text(max_size=8)
names = st.text("abcdefghijklmnopqrstuvwxyz_:", min_size=1, max_size=12)
counts = st.integers(0, 2**31 - 1)
int64s = st.integers(-(2**63), 2**63 - 1)
floats = st.floats(allow_nan=False, allow_infinity=False)
float32s = st.floats(width=32, allow_nan=False, allow_infinity=False)
token_lists = st.lists(st.integers(0, 2**31 - 1), max_size=6)
flags = st.booleans()

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | int64s | floats | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
json_objects = st.dictionaries(texts, json_values, max_size=3)


def optional(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """None, or what the strategy gives."""
    return st.none() | strategy


def tuples_of(strategy: st.SearchStrategy[Any], *, min_size: int = 0) -> st.SearchStrategy[Any]:
    """Up to three of them."""
    return st.lists(strategy, min_size=min_size, max_size=3).map(tuple)


def tag(word: str) -> st.SearchStrategy[Any]:
    """The tag of an answer, which may be missing."""
    return optional(st.just(word))


metrics = st.dictionaries(names, floats, max_size=3)
metadata = st.dictionaries(texts, texts, max_size=3)

zones = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30)), timezone(-timedelta(hours=8))])
times = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=zones) | st.sampled_from(  # noqa: DTZ001
    ["", "soon", "0000-00-00", "12 o'clock"]
)

# --- tensors, chunks, examples ---------------------------------------------------------------------------


def tensor_arrays() -> st.SearchStrategy[Any]:
    """Arrays of both dtypes and of any shape, also without dimensions and without values."""
    shapes = array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
    of_floats = arrays(np.float32, shapes, elements=float32s)
    return of_floats | arrays(np.int64, shapes, elements=int64s)


def sparse_arrays() -> st.SearchStrategy[Any]:
    """Matrices that are zero for the most part."""
    shapes = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=8)
    return arrays(np.int64, shapes, elements=st.just(0) | st.just(0) | st.just(0) | int64s) | arrays(
        np.float32, shapes, elements=st.just(0.0) | st.just(0.0) | float32s
    )


tensors = tensor_arrays().map(tensor.TensorData.from_numpy) | sparse_arrays().map(
    tensor.TensorData.from_sparse
)
text_chunks = st.builds(chunk.EncodedTextChunk, token_lists)
image_formats = st.sampled_from(["png", "jpeg"])
images = st.builds(chunk.ImageChunk, st.binary(max_size=8), image_formats, optional(counts))
pointers = st.builds(chunk.ImageAssetPointerChunk, image_formats, texts, optional(counts))
dmels = st.builds(chunk.DmelChunk, st.binary(max_size=8))
chunks = text_chunks | images | pointers | dmels
model_inputs = st.builds(wire_input.ModelInput, st.lists(chunks, max_size=3))
spans = st.builds(
    provenance.PromptProvenanceSpan, sequence_id=names, offset=counts, length=st.integers(0, 5)
) | st.builds(provenance.SampledProvenanceSpan, sequence_id=names, offset=counts, length=st.integers(0, 5))
plain_data = st.builds(wire_input.Datum, model_inputs, st.dictionaries(names, tensors, max_size=2))


@st.composite
def data_with_provenance(draw: st.DrawFn) -> wire_input.Datum:
    """An example each token of which comes from somewhere."""
    parts = draw(st.lists(spans, max_size=3))
    length = sum(part.length for part in parts)
    tokens = list(range(length))
    datum = wire_input.Datum(wire_input.ModelInput.from_ints(tokens), {"target_tokens": tokens})
    return datum.with_provenance(model_input=parts, loss_fn_inputs=parts)


data = plain_data | data_with_provenance()

# --- samples ---------------------------------------------------------------------------------------------

sampling_params = st.builds(
    sampling.SamplingParams,
    max_tokens=optional(counts),
    seed=optional(int64s),
    stop=optional(texts | st.lists(texts, max_size=3) | token_lists),
    temperature=floats,
    top_k=int64s,
    top_p=floats,
)
log_probs = st.lists(float32s | st.just(float("nan")), max_size=6).map(
    lambda values: np.array(values, np.float32)
)
topks = st.lists(optional(st.lists(st.tuples(counts, float32s), min_size=1, max_size=3)), max_size=3).map(
    likeliest.TopkLogprobs.from_lists
)
sampled_sequences = st.builds(
    sampling.SampledSequence,
    st.sampled_from(["length", "stop", "weather"]),
    token_lists.map(lambda tokens: np.array(tokens, np.int32)),
    optional(log_probs),
    optional(topks),
    optional(texts),
)
targets = arrays(np.int64, array_shapes(min_dims=2, max_dims=2, max_side=3), elements=int64s)
alt_tokens = st.builds(likeliest.PromptAltTokens, tensors, tensors)

# --- training --------------------------------------------------------------------------------------------

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
loss_inputs = st.builds(training.CustomLossInput, names, st.integers(0, 2))
adam_params = st.builds(
    optimizer.AdamParams,
    learning_rate=floats,
    beta1=floats,
    beta2=floats,
    eps=floats,
    weight_decay=floats,
    grad_clip_norm=floats,
)
dimuon_params = st.builds(
    optimizer.DimuonParams,
    learning_rate=st.floats(0, 10),
    grad_clip_norm=floats,
    beta1=st.floats(0, 1, exclude_max=True),
)
extras = st.dictionaries(names.map(lambda name: f"x_{name}"), json_values, max_size=2)
others = names.map(lambda name: f"my-{name}")
adam_configs = st.just(optimizer.AdamOptimizerConfig())
dimuon_configs = st.builds(optimizer.DimuonOptimizerConfig, version=counts)
other_configs = st.builds(optimizer.OptimizerConfigBase, others, extras)
optimizer_configs = adam_configs | dimuon_configs | other_configs
other_params = st.builds(optimizer.OptimParamsBase, others, extras)

WIRE: Mapping[type, st.SearchStrategy[Any]] = {
    # chunk, input, provenance, tensor
    chunk.EncodedTextChunk: text_chunks,
    chunk.ImageChunk: images,
    chunk.ImageAssetPointerChunk: pointers,
    chunk.DmelChunk: dmels,
    wire_input.ModelInput: model_inputs,
    wire_input.Datum: data,
    provenance.PromptProvenanceSpan: st.builds(
        provenance.PromptProvenanceSpan, sequence_id=names, offset=counts, length=counts
    ),
    provenance.SampledProvenanceSpan: st.builds(
        provenance.SampledProvenanceSpan, sequence_id=names, offset=counts, length=counts
    ),
    tensor.TensorData: tensors,
    # training, optimizer
    training.ForwardBackwardInput: batches,
    training.ForwardBackwardOutput: outputs,
    training.ForwardBackwardRequest: st.builds(training.ForwardBackwardRequest, batches, texts, counts),
    training.ForwardRequest: st.builds(training.ForwardRequest, batches, texts, counts),
    training.CustomLossInput: loss_inputs,
    training.CreateCustomLossRequest: st.builds(
        training.CreateCustomLossRequest,
        session_id=texts,
        custom_loss_seq_id=counts,
        name=texts,
        inputs=tuples_of(loss_inputs),
        graph=json_objects,
    ),
    training.CreateCustomLossResponse: st.builds(
        training.CreateCustomLossResponse, texts, tag("create_custom_loss")
    ),
    optimizer.AdamOptimizerConfig: adam_configs,
    optimizer.DimuonOptimizerConfig: dimuon_configs,
    optimizer.OptimizerConfigBase: other_configs,
    optimizer.AdamParams: adam_params,
    optimizer.DimuonParams: dimuon_params,
    optimizer.OptimParamsBase: other_params,
    optimizer.OptimStepRequest: st.builds(
        optimizer.OptimStepRequest, adam_params | dimuon_params | other_params, texts, optional(counts)
    ),
    optimizer.OptimStepResponse: st.builds(optimizer.OptimStepResponse, optional(metrics)),
    # sampling
    sampling.SamplingParams: sampling_params,
    sampling.SampledSequence: sampled_sequences,
    likeliest.TopkLogprobs: topks,
    likeliest.PromptAltTokens: alt_tokens,
    sampling.SampleRequest: st.builds(
        sampling.SampleRequest,
        prompt=model_inputs,
        sampling_params=sampling_params,
        num_samples=counts,
        sampling_session_id=optional(texts),
        seq_id=optional(counts),
        base_model=optional(texts),
        model_path=optional(texts),
        prompt_logprobs=optional(flags),
        topk_prompt_logprobs=counts,
        topk_sample_logprobs=counts,
        target_prompt_logprobs=optional(targets.map(tensor.TensorData.from_numpy)),
        prompt_alt_tokens_k=counts,
        prompt_logprobs_last_n=optional(st.integers(1, 9)),
        record_stability_info=optional(flags),
    ),
    sampling.SampleSubmitted: st.builds(
        sampling.SampleSubmitted, texts, optional(tuples_of(texts)), optional(texts)
    ),
    sampling.SampleResponse: st.builds(
        sampling.SampleResponse,
        tuples_of(sampled_sequences),
        optional(log_probs),
        optional(topks),
        optional(tensors),
        counts,
        optional(alt_tokens),
    ),
    sampling.CreateSamplingSessionRequest: st.builds(
        sampling.CreateSamplingSessionRequest,
        session_id=texts,
        sampling_session_seq_id=counts,
        base_model=optional(texts),
        model_path=optional(texts),
    ),
    sampling.CreateSamplingSessionResponse: st.builds(
        sampling.CreateSamplingSessionResponse, texts, tag("create_sampling_session")
    ),
    sampling.JoinSamplingSessionRequest: st.builds(sampling.JoinSamplingSessionRequest, texts),
    sampling.JoinSamplingSessionResponse: st.builds(
        sampling.JoinSamplingSessionResponse, counts, tag("join_sampling_session")
    ),
    sampling.GetSamplerResponse: st.builds(sampling.GetSamplerResponse, texts, texts, optional(texts)),
}
"""How to make an object of each class of the work itself; `strategies_around` has the rest."""
