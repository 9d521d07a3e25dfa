"""Hypothesis strategies for what has a protobuf form; both codecs can write all of it without a loss."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from tinker_actors.wire.chunk import DmelChunk, EncodedTextChunk, ImageChunk
from tinker_actors.wire.input import Datum, ModelInput
from tinker_actors.wire.likeliest import PromptAltTokens, TopkLogprobs
from tinker_actors.wire.provenance import PromptProvenanceSpan, SampledProvenanceSpan
from tinker_actors.wire.sampling import SampledSequence, SampleResponse
from tinker_actors.wire.tensor import TensorData
from tinker_actors.wire.training import (
    LOSS_FNS,
    ForwardBackwardInput,
    ForwardBackwardOutput,
    ForwardBackwardRequest,
    ForwardRequest,
)

texts = st.text(max_size=8)
names = st.text("abcdefghijklmnopqrstuvwxyz_é", min_size=1, max_size=8)
counts = st.integers(0, 2**31 - 1)
doubles = st.floats(allow_nan=False)
optional = st.none().__or__

float32s = st.floats(width=32)
int64s = st.integers(-(2**63), 2**63 - 1)


def _arrays(shapes: Any) -> st.SearchStrategy[Any]:
    return arrays(np.float32, shapes, elements=float32s) | arrays(np.int64, shapes, elements=int64s)


dense_tensors = _arrays(array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)).map(
    TensorData.from_numpy
)


@st.composite
def sparse_tensors(draw: Any) -> TensorData:
    rows, columns = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    listed = draw(arrays(np.bool_, (rows, columns)))
    crow = np.concatenate([[0], np.cumsum(listed.sum(1))]).astype(np.int64)
    values = draw(_arrays((int(crow[-1]),)))
    dtype = "int64" if values.dtype == np.int64 else "float32"
    return TensorData(values, dtype, (rows, columns), crow, np.nonzero(listed)[1].astype(np.int64))


tensors = dense_tensors | sparse_tensors()

text_chunks = st.lists(counts, max_size=6).map(EncodedTextChunk)
chunks = (
    text_chunks
    | st.builds(ImageChunk, st.binary(max_size=9), st.sampled_from(["png", "jpeg"]), optional(counts))
    | st.builds(DmelChunk, st.binary(max_size=9))
)


@st.composite
def spans(draw: Any, length: int) -> list[PromptProvenanceSpan | SampledProvenanceSpan]:
    cuts = sorted(draw(st.lists(st.integers(0, length), max_size=2)))
    kinds = st.sampled_from([PromptProvenanceSpan, SampledProvenanceSpan])
    return [
        draw(kinds)(sequence_id=draw(names), offset=draw(st.integers(0, 2**63 - 1)), length=end - start)
        for start, end in zip([0, *cuts], [*cuts, length], strict=True)
    ]


@st.composite
def data(draw: Any) -> Datum:
    if draw(st.booleans()):
        return Datum(
            ModelInput(draw(st.lists(chunks, max_size=3))), draw(st.dictionaries(names, tensors, max_size=2))
        )
    read = ModelInput(draw(st.lists(text_chunks, min_size=1, max_size=2)))
    targets = draw(st.lists(counts, max_size=4))
    of_input, of_loss = draw(spans(read.length)), draw(spans(len(targets)))
    return Datum(read, {"target_tokens": targets}, of_input, of_loss)


batches = st.builds(
    ForwardBackwardInput,
    st.lists(data(), max_size=3),
    st.sampled_from(LOSS_FNS),
    optional(st.dictionaries(texts, doubles | texts, min_size=1, max_size=3)),
)
requests = st.builds(ForwardBackwardRequest, batches, texts, counts) | st.builds(
    ForwardRequest, batches, texts, counts
)

metrics = st.dictionaries(texts, doubles, max_size=3)


@st.composite
def records(draw: Any, *, min_fields: int = 1) -> list[dict[str, TensorData]]:
    """Datums that fit into one record: of one name they have one dtype and the same further dimensions."""
    frames = draw(
        st.dictionaries(
            names,
            st.tuples(
                st.sampled_from(["float32", "int64"]), array_shapes(min_dims=0, max_dims=2, max_side=3)
            ),
            min_size=min_fields,
            max_size=2,
        )
    )
    elements = {"float32": float32s, "int64": int64s}

    def values(dtype: str, trailing: tuple[int, ...]) -> TensorData:
        shape = (draw(st.integers(0, 3)), *trailing)
        return TensorData.from_numpy(draw(arrays(dtype, shape, elements=elements[dtype])))

    return [{name: values(*frame) for name, frame in frames.items()} for _ in range(draw(st.integers(1, 3)))]


output_types = st.text("abcT", min_size=1, max_size=5)
outputs = st.builds(
    lambda kind, runs, held: ForwardBackwardOutput(kind, [datum for run in runs for datum in run], held),
    output_types,
    st.lists(records(min_fields=0), max_size=3),
    metrics,
)

flat_floats = arrays(np.float32, st.integers(1, 6), elements=float32s)
flat_tokens = arrays(np.int32, st.integers(0, 6), elements=counts)


@st.composite
def topk(draw: Any) -> TopkLogprobs:
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    return TopkLogprobs(
        draw(arrays(np.int32, shape, elements=counts)), draw(arrays(np.float32, shape, elements=float32s))
    )


sequences = st.builds(
    SampledSequence,
    st.sampled_from(["stop", "length", "unknown:7"]),
    flat_tokens,
    optional(flat_floats),
    optional(topk()),
)
samples = st.builds(
    SampleResponse,
    st.lists(sequences, max_size=3).map(tuple),
    optional(flat_floats),
    optional(topk()),
    optional(tensors),
    counts,
    optional(st.builds(PromptAltTokens, dense_tensors, dense_tensors)),
)
