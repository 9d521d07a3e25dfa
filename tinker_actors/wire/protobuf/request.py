"""Training requests, to bytes and from bytes.

`ForwardBackwardRequest` and `ForwardRequest` are one message here; a flag tells them apart. What its head, the names
and the shapes take is written once for all tensors of one name, dtype and shape; the tensors themselves are put into
the body as they are, and copied once, when the body is joined.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias, cast

import numpy as np

from tinker_actors.errors import InputError
from tinker_actors.wire.chunk import DmelChunk, EncodedTextChunk, ImageChunk, ImageFormat, ModelInputChunk
from tinker_actors.wire.input import Datum, ModelInput
from tinker_actors.wire.provenance import PromptProvenanceSpan, ProvenanceSpan, SampledProvenanceSpan
from tinker_actors.wire.tensor import TensorData
from tinker_actors.wire.training import (
    ForwardBackwardInput,
    ForwardBackwardRequest,
    ForwardRequest,
    LossFnType,
)

from .field import (
    DOUBLE_VALUE,
    INT32,
    NAME,
    VALUE,
    Fields,
    Malformed,
    array,
    double,
    each,
    entries,
    fixed_key,
    integer,
    merged,
    message_key,
    oneof,
    scan,
    text,
    varint_key,
    within,
)
from .message import Message, utf8, varint, write_integer
from .tensor import ARRAY_DTYPES, dtype_field, octets, read_tensor, shape_field, write_tensor

__all__ = ["TrainingRequest", "read_request", "write_request"]

TrainingRequest: TypeAlias = ForwardBackwardRequest | ForwardRequest

# ForwardBackwardRequest
_MODEL_ID = message_key(1)
_SEQ_ID = varint_key(2)
_DATA = message_key(3)
_LOSS_FN = message_key(4)
_CONFIG = message_key(5)
_FORWARD_ONLY = varint_key(6)
_CONFIG_V2 = message_key(7)
# LossConfigValue
_NUMBER = fixed_key(1)
_TEXT = message_key(2)
# Datum
_MODEL_INPUT = message_key(1)
_INPUTS = message_key(2)
_INPUT_SPANS = message_key(3)
_LOSS_SPANS = message_key(4)
# ProvenanceSpan
_PROMPT = message_key(1)
_SAMPLED = message_key(2)
# both kinds of span
_SEQUENCE_ID = message_key(1)
_OFFSET = varint_key(2)
_LENGTH = varint_key(3)
# Chunk
_ENCODED_TEXT = message_key(1)
_IMAGE = message_key(2)
_DMEL = message_key(3)
# EncodedTextChunk
_TOKENS = message_key(1)
# ImageChunk
_IMAGE_DATA = message_key(1)
_FORMAT = message_key(2)
_EXPECTED = varint_key(3)
# DmelChunk
_DMEL_BYTES = message_key(1)
# Tensor
_DENSE = message_key(1)
_DTYPE = varint_key(3)
_SHAPE = message_key(4)

# Keys as bytes, for what is written by the thousand.
_TOKENS_TAG, _ENCODED_TEXT_TAG, _MODEL_INPUT_TAG = map(varint, (_TOKENS, _ENCODED_TEXT, _MODEL_INPUT))
_DENSE_TAG, _NAME_TAG, _VALUE_TAG, _INPUTS_TAG = map(varint, (_DENSE, NAME, VALUE, _INPUTS))

_Frames: TypeAlias = dict[tuple[str, str, tuple[int, ...]], tuple[bytes, bytes, int]]
"""By name, dtype and shape of a dense tensor: what stands before its values, what behind, and the size of all."""


# --- writing ---------------------------------------------------------------------------------------------


def write_request(request: TrainingRequest) -> Message:
    """Write a training request.

    Raises:
        InputError: a chunk that training requests cannot hold, or a number that does not fit.
    """
    forward_only = isinstance(request, ForwardRequest)
    step = "forward_input" if forward_only else "forward_backward_input"
    batch = request.forward_input if isinstance(request, ForwardRequest) else request.forward_backward_input
    message = Message()
    message.text(_MODEL_ID, request.model_id, "model_id")
    message.integer(_SEQ_ID, write_integer("seq_id", request.seq_id))
    frames: _Frames = {}
    for index, datum in enumerate(batch.data):
        try:
            message.message(_DATA, _write_datum(datum, frames))
        except InputError as error:
            raise InputError(f"{step}.data[{index}].{error.field}", error.value, error.why) from error
    message.text(_LOSS_FN, batch.loss_fn, f"{step}.loss_fn")
    config = {} if batch.loss_fn_config is None else batch.loss_fn_config
    field = f"{step}.loss_fn_config"
    for name, value in config.items():
        if not isinstance(value, str):
            entry = _entry(field, name)
            entry.double(DOUBLE_VALUE, value, f"{field}[{name!r}]")
            message.message(_CONFIG, entry)
    if forward_only:
        message.integer(_FORWARD_ONLY, varint(1))
    for name, value in config.items():
        message.message(_CONFIG_V2, _value_entry(field, name, value))
    return message


def _entry(field: str, name: str) -> Message:
    """Begin an entry of a map."""
    entry = Message()
    entry.text(NAME, name, field)
    return entry


def _value_entry(field: str, name: str, value: float | str) -> Message:
    held = Message()
    if isinstance(value, str):
        held.octets(_TEXT, utf8(f"{field}[{name!r}]", value))
    else:
        held.double(_NUMBER, value, f"{field}[{name!r}]")
    entry = _entry(field, name)
    entry.message(VALUE, held)
    return entry


def _write_datum(datum: Datum, frames: _Frames) -> Message:
    message = Message()
    for index, chunk in enumerate(datum.model_input.chunks):
        if isinstance(chunk, EncodedTextChunk):
            _add_text(message, chunk)
        else:
            message.message(_MODEL_INPUT, _write_chunk(f"model_input.chunks[{index}]", chunk))
    for name, tensor in datum.loss_fn_inputs.items():
        if tensor.sparse_crow_indices is None:
            _add_dense(message, name, tensor, frames)
        else:
            entry = _entry("loss_fn_inputs", name)
            entry.message(VALUE, write_tensor(tensor))
            message.message(_INPUTS, entry)
    _add_spans(message, _INPUT_SPANS, "model_input_spans", datum.model_input_spans)
    _add_spans(message, _LOSS_SPANS, "loss_fn_input_spans", datum.loss_fn_input_spans)
    return message


def _add_text(message: Message, chunk: EncodedTextChunk) -> None:
    """Add a chunk of tokens: three messages around one array."""
    tokens = np.ascontiguousarray(chunk.tokens_np, INT32)
    size = tokens.nbytes
    head = _TOKENS_TAG + varint(size)
    head = _ENCODED_TEXT_TAG + varint(len(head) + size) + head
    head = _MODEL_INPUT_TAG + varint(len(head) + size) + head
    message.parts += (head, tokens)
    message.size += len(head) + size


def _add_dense(message: Message, name: str, tensor: TensorData, frames: _Frames) -> None:
    """Add an entry of `loss_fn_inputs`: what surrounds the values is looked up."""
    same = name, tensor.dtype, tensor.shape
    frame = frames.get(same)
    if frame is None:
        frames[same] = frame = _frame(name, tensor)
    before, behind, size = frame
    message.parts += (before, np.ascontiguousarray(tensor.data, ARRAY_DTYPES[tensor.dtype]), behind)
    message.size += size


def _frame(name: str, tensor: TensorData) -> tuple[bytes, bytes, int]:
    behind = dtype_field(_DTYPE, tensor.dtype) + shape_field(_SHAPE, tensor.shape)
    values = tensor.data.nbytes
    head = _DENSE_TAG + varint(values)
    written = utf8("loss_fn_inputs", name)
    name_field = _NAME_TAG + varint(len(written)) + written
    head = name_field + _VALUE_TAG + varint(len(head) + values + len(behind)) + head
    size = len(head) + values + len(behind)
    head = _INPUTS_TAG + varint(size) + head
    return head, behind, len(head) + values + len(behind)


def _write_chunk(field: str, chunk: ModelInputChunk) -> Message:
    inner = Message()
    match chunk:
        case ImageChunk():
            number = _IMAGE
            inner.octets(_IMAGE_DATA, chunk.data)
            inner.text(_FORMAT, chunk.format, f"{field}.format")
            if chunk.expected_tokens is not None:
                expected = write_integer(f"{field}.expected_tokens", chunk.expected_tokens)
                inner.raw(varint(_EXPECTED) + expected)
        case DmelChunk():
            number = _DMEL
            inner.octets(_DMEL_BYTES, chunk.dmel)
        case _:
            raise InputError(field, chunk, f"a training request cannot hold a {type(chunk).__name__}")
    message = Message()
    message.message(number, inner)
    return message


def _add_spans(message: Message, number: int, field: str, spans: Sequence[ProvenanceSpan] | None) -> None:
    for index, span in enumerate(spans or ()):
        step = f"{field}[{index}]"
        inner = Message()
        inner.text(_SEQUENCE_ID, span.sequence_id, f"{step}.sequence_id")
        inner.integer(_OFFSET, write_integer(f"{step}.offset", span.offset, 64))
        inner.integer(_LENGTH, write_integer(f"{step}.length", span.length, 64))
        outer = Message()
        outer.message(_SAMPLED if isinstance(span, SampledProvenanceSpan) else _PROMPT, inner)
        message.message(number, outer)


# --- reading ---------------------------------------------------------------------------------------------


def read_request(data: bytes, start: int, end: int) -> TrainingRequest:
    """Read a training request of either kind.

    Raises:
        Malformed: it is none.
    """
    fields = scan(data, start, end)
    examples = each(data, fields, _DATA, ".data", _read_datum)
    loss_fn = cast("LossFnType", text(data, fields, _LOSS_FN, ".loss_fn"))
    try:
        batch = ForwardBackwardInput(examples, loss_fn, _read_config(data, fields))
    except InputError as error:
        raise within("", error) from error
    kind = ForwardRequest if integer(fields, _FORWARD_ONLY, 64) else ForwardBackwardRequest
    return kind(batch, text(data, fields, _MODEL_ID, ".model_id"), integer(fields, _SEQ_ID))


def _read_config(data: bytes, fields: Fields) -> Mapping[str, float | str] | None:
    """Return the configuration: the second form if it is there, else the first, which has only numbers."""
    config: dict[str, float | str] = {}
    for name, entry in entries(data, fields, _CONFIG_V2, ".loss_fn_config_v2"):
        try:
            config[name] = _read_value(*merged(data, entry.get(VALUE)))
        except Malformed as error:
            raise error.under(f".loss_fn_config_v2[{name!r}]") from error
    if not config:
        for name, entry in entries(data, fields, _CONFIG, ".loss_fn_config"):
            config[name] = double(data, entry, DOUBLE_VALUE)
    return config or None


def _read_value(data: bytes, start: int, end: int) -> float | str:
    fields = scan(data, start, end)
    member = oneof(fields, _NUMBER, _TEXT)
    if member is None:
        raise Malformed("there is no value")
    return text(data, fields, _TEXT, ".text") if member[0] == _TEXT else double(data, fields, _NUMBER)


def _read_datum(data: bytes, start: int, end: int) -> Datum:
    fields = scan(data, start, end)
    chunks = each(data, fields, _MODEL_INPUT, ".model_input", _read_chunk)
    tensors: dict[str, TensorData] = {}
    for name, entry in entries(data, fields, _INPUTS, ".loss_fn_inputs"):
        try:
            tensors[name] = read_tensor(*merged(data, entry.get(VALUE)))
        except Malformed as error:
            raise error.under(f".loss_fn_inputs[{name!r}]") from error
    of_input = each(data, fields, _INPUT_SPANS, ".model_input_spans", _read_span)
    of_loss = each(data, fields, _LOSS_SPANS, ".loss_fn_input_spans", _read_span)
    if not of_input and not of_loss:
        return Datum(ModelInput(chunks), tensors)
    return Datum(ModelInput(chunks), tensors, of_input, of_loss)


def _read_chunk(data: bytes, start: int, end: int) -> ModelInputChunk:
    member = oneof(scan(data, start, end), _ENCODED_TEXT, _IMAGE, _DMEL)
    if member is None:
        raise Malformed("a chunk of an unknown kind")
    kind, places = member
    data, start, end = merged(data, places)
    fields = scan(data, start, end)
    if kind == _ENCODED_TEXT:
        return EncodedTextChunk(array(data, *octets(fields, _TOKENS), INT32))
    if kind == _DMEL:
        first, last = octets(fields, _DMEL_BYTES)
        return DmelChunk(data[first:last])
    first, last = octets(fields, _IMAGE_DATA)
    form = cast("ImageFormat", text(data, fields, _FORMAT, ".image.format"))  # the class looks at it
    return ImageChunk(data[first:last], form, integer(fields, _EXPECTED) if _EXPECTED in fields else None)


def _read_span(data: bytes, start: int, end: int) -> ProvenanceSpan:
    member = oneof(scan(data, start, end), _PROMPT, _SAMPLED)
    if member is None:
        raise Malformed("a span of an unknown kind")
    kind, places = member
    data, start, end = merged(data, places)
    fields = scan(data, start, end)
    return (SampledProvenanceSpan if kind == _SAMPLED else PromptProvenanceSpan)(
        sequence_id=text(data, fields, _SEQUENCE_ID, ".sequence_id"),
        offset=integer(fields, _OFFSET, 64),
        length=integer(fields, _LENGTH, 64),
    )
