"""Our objects to the official package's messages and back, plainly: what our codec is compared with."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.wire.protobuf.schema import OFFICIAL
from tinker_actors.wire.chunk import DmelChunk, EncodedTextChunk, ImageChunk
from tinker_actors.wire.input import Datum, ModelInput
from tinker_actors.wire.likeliest import PromptAltTokens, TopkLogprobs
from tinker_actors.wire.provenance import PromptProvenanceSpan, SampledProvenanceSpan
from tinker_actors.wire.sampling import SampledSequence, SampleResponse
from tinker_actors.wire.tensor import TensorData
from tinker_actors.wire.training import (
    ForwardBackwardInput,
    ForwardBackwardOutput,
    ForwardBackwardRequest,
    ForwardRequest,
)

CODES = {"float32": 1, "int64": 2}
NUMPY = {1: "<f4", 2: "<i8", 3: "<i4", 4: "<u2"}
STOP = {0: "stop", 1: "length"}

# The official classes are made when the tests run, so no checker knows their attributes: hence Any below.


def written(message: Any) -> bytes:
    """Return a message's bytes in an order that depends on nothing but its contents."""
    return message.SerializeToString(deterministic=True)


def canonical(name: str, data: bytes) -> bytes:
    """Return bytes as the official package would have written them."""
    return written(OFFICIAL[name].FromString(data))


# --- tensors ---------------------------------------------------------------------------------------------


def fill_tensor(message: Any, tensor: TensorData) -> None:
    message.dtype = CODES[tensor.dtype]
    message.shape.extend(tensor.shape)
    values = tensor.data.astype(NUMPY[message.dtype]).tobytes()
    if tensor.sparse_crow_indices is None:
        message.dense = values
    else:
        message.sparse_csr.values = values
        message.sparse_csr.crow_indices = tensor.sparse_crow_indices.astype("<i8").tobytes()
        message.sparse_csr.col_indices = tensor.sparse_col_indices.astype("<i8").tobytes()


def widened(data: bytes, code: int) -> tuple[np.ndarray, str]:
    values = np.frombuffer(data, NUMPY[code])
    if code == 4:
        return (values.astype(np.uint32) << 16).view(np.float32), "float32"
    return (values, "float32") if code == 1 else (values.astype(np.int64), "int64")


def tensor_of(message: Any) -> TensorData:
    if message.WhichOneof("encoding") == "sparse_csr":
        sparse = message.sparse_csr
        values, dtype = widened(sparse.values, message.dtype)
        crow, col = (np.frombuffer(data, "<i8") for data in (sparse.crow_indices, sparse.col_indices))
        return TensorData(values, dtype, tuple(message.shape), crow, col)
    values, dtype = widened(message.dense, message.dtype)
    shape = tuple(message.shape) if message.shape or values.size == 1 else values.shape
    return TensorData(values, dtype, shape)


def fill_topk(message: Any, topk: TopkLogprobs) -> None:
    message.length, message.k = topk.token_ids.shape
    message.token_ids = topk.token_ids.tobytes()
    message.logprobs = topk.logprobs.tobytes()


def topk_of(message: Any) -> TopkLogprobs | None:
    shape = (message.length, message.k)
    if 0 in shape:
        return None
    ids, logprobs = (
        np.frombuffer(data, dtype) for data, dtype in ((message.token_ids, "<i4"), (message.logprobs, "<f4"))
    )
    return TopkLogprobs(ids.reshape(shape), logprobs.reshape(shape))


# --- requests --------------------------------------------------------------------------------------------


def request_message(request: ForwardBackwardRequest | ForwardRequest) -> Any:
    message = OFFICIAL["ForwardBackwardRequest"]()
    forward_only = isinstance(request, ForwardRequest)
    batch = request.forward_input if forward_only else request.forward_backward_input
    message.model_id, message.seq_id, message.forward_only = request.model_id, request.seq_id, forward_only
    message.loss_fn = batch.loss_fn
    for name, value in (batch.loss_fn_config or {}).items():
        if isinstance(value, str):
            message.loss_fn_config_v2[name].text = value
        else:
            message.loss_fn_config[name] = message.loss_fn_config_v2[name].number = value
    for datum in batch.data:
        fill_datum(message.data.add(), datum)
    return message


def fill_datum(message: Any, datum: Datum) -> None:
    for chunk in datum.model_input.chunks:
        held = message.model_input.add()
        match chunk:
            case EncodedTextChunk():
                held.encoded_text.tokens = chunk.tokens_np.tobytes()
            case ImageChunk():
                held.image.data, held.image.format = chunk.data, chunk.format
                if chunk.expected_tokens is not None:
                    held.image.expected_tokens = chunk.expected_tokens
            case DmelChunk():
                held.dmel.dmel = chunk.dmel
    for name, tensor in datum.loss_fn_inputs.items():
        fill_tensor(message.loss_fn_inputs[name], tensor)
    for spans, held_spans in (
        (datum.model_input_spans, message.model_input_spans),
        (datum.loss_fn_input_spans, message.loss_fn_input_spans),
    ):
        for span in spans or ():
            held_span = held_spans.add()
            arm = (
                held_span.sampled_tokens
                if isinstance(span, SampledProvenanceSpan)
                else held_span.prompt_tokens
            )
            arm.sequence_id, arm.offset, arm.length = span.sequence_id, span.offset, span.length


def request_of(message: Any) -> ForwardBackwardRequest | ForwardRequest:
    config: dict[str, float | str] = {
        name: getattr(value, value.WhichOneof("value")) for name, value in message.loss_fn_config_v2.items()
    }
    batch = ForwardBackwardInput(
        [datum_of(datum) for datum in message.data],
        message.loss_fn,
        config or dict(message.loss_fn_config) or None,
    )
    kind = ForwardRequest if message.forward_only else ForwardBackwardRequest
    return kind(batch, message.model_id, message.seq_id)


def chunk_of(message: Any) -> Any:
    match message.WhichOneof("chunk"):
        case "encoded_text":
            return EncodedTextChunk(np.frombuffer(message.encoded_text.tokens, "<i4"))
        case "image":
            image = message.image
            expected = image.expected_tokens if image.HasField("expected_tokens") else None
            return ImageChunk(image.data, image.format, expected)
        case "dmel":
            return DmelChunk(message.dmel.dmel)
    raise ValueError("no chunk")


def span_of(message: Any) -> Any:
    kinds = {"prompt_tokens": PromptProvenanceSpan, "sampled_tokens": SampledProvenanceSpan}
    which = message.WhichOneof("span")
    arm = getattr(message, which)
    return kinds[which](sequence_id=arm.sequence_id, offset=arm.offset, length=arm.length)


def datum_of(message: Any) -> Datum:
    spans = [tuple(map(span_of, held)) for held in (message.model_input_spans, message.loss_fn_input_spans)]
    return Datum(
        ModelInput(list(map(chunk_of, message.model_input))),
        {name: tensor_of(tensor) for name, tensor in message.loss_fn_inputs.items()},
        *(spans if any(spans) else ()),
    )


# --- results ---------------------------------------------------------------------------------------------


def output_message(records: list[list[dict[str, TensorData]]], kind: str, metrics: dict[str, float]) -> Any:
    """Make an answer of runs of datums that fit into one record each."""
    message = OFFICIAL["ForwardBackwardOutput"](loss_fn_output_type=kind)
    message.metrics.update(metrics)
    for datums in records:
        record = message.loss_fn_outputs.add(type_tag=kind, num_datums=len(datums))
        for name, first in datums[0].items():
            batch = record.fields[name]
            batch.dtype = CODES[first.dtype]
            batch.trailing_shape.extend(first.shape[1:])
            parts = [datum[name].data.tobytes() for datum in datums]
            batch.data = b"".join(parts)
            batch.offsets = np.cumsum([0, *map(len, parts)], dtype="<i8").tobytes()
    return message


def output_of(message: Any) -> ForwardBackwardOutput:
    outputs: list[dict[str, TensorData]] = []
    for record in message.loss_fn_outputs:
        datums: list[dict[str, TensorData]] = [{} for _ in range(record.num_datums)]
        for name, batch in record.fields.items():
            offsets = np.frombuffer(batch.offsets, "<i8").tolist()
            assert len(offsets) == len(datums) + 1
            for index, datum in enumerate(datums):
                values, dtype = widened(batch.data[offsets[index] : offsets[index + 1]], batch.dtype)
                row = int(np.prod(batch.trailing_shape))
                datum[name] = TensorData(
                    values, dtype, (values.size // row if row else 0, *batch.trailing_shape)
                )
        outputs += datums
    kind = message.loss_fn_output_type.split(":")[-1] or "ArrayRecord"
    return ForwardBackwardOutput(kind, outputs, dict(message.metrics))


def sample_message(response: SampleResponse) -> Any:
    message = OFFICIAL["SampleResponse"]()
    for sequence in response.sequences:
        held = message.sequences.add()
        held.stop_reason = {"stop": 0, "length": 1}.get(sequence.stop_reason, 7)
        held.tokens = sequence.tokens_np.tobytes()
        if sequence.logprobs_np is not None:
            held.logprobs = sequence.logprobs_np.tobytes()
        if sequence.topk_logprobs_np is not None:
            fill_topk(held.topk_sampled_logprobs, sequence.topk_logprobs_np)
    if response.prompt_logprobs_np is not None:
        message.prompt_logprobs = response.prompt_logprobs_np.tobytes()
    if response.topk_prompt_logprobs_np is not None:
        fill_topk(message.topk_prompt_logprobs, response.topk_prompt_logprobs_np)
    if response.target_prompt_logprobs is not None:
        fill_tensor(message.target_prompt_logprobs, response.target_prompt_logprobs)
    if response.prompt_alt_tokens is not None:
        fill_tensor(message.prompt_alt_tokens.tokens, response.prompt_alt_tokens.tokens)
        fill_tensor(message.prompt_alt_tokens.logprobs, response.prompt_alt_tokens.logprobs)
    message.prompt_cache_hit_tokens = response.prompt_cache_hit_tokens
    return message


def sample_of(message: Any) -> SampleResponse:
    def floats(data: bytes) -> np.ndarray | None:
        return np.frombuffer(data, "<f4") if data else None

    drawn = message.prompt_alt_tokens
    return SampleResponse(
        tuple(
            SampledSequence(
                STOP.get(held.stop_reason, f"unknown:{held.stop_reason}"),
                np.frombuffer(held.tokens, "<i4"),
                floats(held.logprobs),
                topk_of(held.topk_sampled_logprobs),
            )
            for held in message.sequences
        ),
        floats(message.prompt_logprobs),
        topk_of(message.topk_prompt_logprobs),
        tensor_of(message.target_prompt_logprobs) if message.HasField("target_prompt_logprobs") else None,
        message.prompt_cache_hit_tokens,
        PromptAltTokens(tensor_of(drawn.tokens), tensor_of(drawn.logprobs))
        if message.HasField("prompt_alt_tokens")
        else None,
    )
