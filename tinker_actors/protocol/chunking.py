"""Cutting a batch into requests, their order, and merging their outputs. Pure; chunk then merge is the whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, assert_never

from tinker_actors.protocol.metric import reduce_metrics
from tinker_actors.wire.chunk import DmelChunk, EncodedTextChunk, ImageAssetPointerChunk, ImageChunk
from tinker_actors.wire.input import Datum, ModelInput
from tinker_actors.wire.training import ForwardBackwardOutput

__all__ = [
    "MAX_CHUNK_BYTES",
    "MAX_CHUNK_DATUMS",
    "chunk_batch",
    "datum_bytes",
    "input_bytes",
    "merge_outputs",
    "waves",
]

_OtherChunk: TypeAlias = ImageChunk | ImageAssetPointerChunk | DmelChunk

# tinker 0.38.0 types/client_config_response.py: fwdbwd_max_chunk_len, fwdbwd_max_chunk_bytes_count
MAX_CHUNK_DATUMS = 1024
MAX_CHUNK_BYTES = 5_000_000
_TOKEN_BYTES = 4
_TOGETHER = (
    128  # chunks that go out together: our own services keep 256 early requests for a model, and not more
)


def datum_bytes(datum: Datum) -> int:
    """Estimate what a datum weighs on the wire, in bytes."""
    size = input_bytes(datum.model_input, token_bytes=_TOKEN_BYTES)
    for tensor in datum.loss_fn_inputs.values():
        size += tensor.data.nbytes
        if tensor.sparse_crow_indices is not None and tensor.sparse_col_indices is not None:
            size += tensor.sparse_crow_indices.nbytes + tensor.sparse_col_indices.nbytes
    return size


def input_bytes(model_input: ModelInput, *, token_bytes: int) -> int:
    """Estimate what a model's input weighs on the wire: its tokens, images, pointers and audio, in bytes."""
    size = 0
    for chunk in model_input.chunks:
        if isinstance(chunk, EncodedTextChunk):  # nearly always
            size += token_bytes * len(chunk.tokens_np)
        else:
            size += _other_bytes(chunk)
    return size


def _other_bytes(chunk: _OtherChunk) -> int:
    match chunk:
        case ImageChunk():
            return len(chunk.data)
        case ImageAssetPointerChunk():
            return len(chunk.location)
        case DmelChunk():
            return len(chunk.dmel)
        case _:
            assert_never(chunk)


def chunk_batch(
    data: Sequence[Datum],
    *,
    max_datums: int = MAX_CHUNK_DATUMS,
    max_bytes: int = MAX_CHUNK_BYTES,
    sizes: Sequence[int] | None = None,
) -> list[tuple[Datum, ...]]:
    """Cut a batch into chunks of at most `max_datums` and `max_bytes`; a larger single datum goes alone.

    Args:
        data: the batch.
        max_datums: in one chunk.
        max_bytes: in one chunk.
        sizes: what each datum weighs, if that is known already.
    """
    chunks: list[tuple[Datum, ...]] = []
    current: list[Datum] = []
    weight = 0
    for datum, size in zip(data, map(datum_bytes, data) if sizes is None else sizes, strict=True):
        if current and (len(current) >= max_datums or weight + size > max_bytes):
            chunks.append(tuple(current))
            current, weight = [], 0
        current.append(datum)
        weight += size
    if current:
        chunks.append(tuple(current))
    return chunks


def waves(count: int, *, together: bool) -> list[range]:
    """Return in which order the chunks of a batch are submitted: those of one wave at the same time.

    One after the other, in the order of their numbers, unless the service is known to keep early numbers until it is
    their turn. Then all but the first go together, and the first when they are there: they are what it waits for
    (tinker 0.38.0 lib/public_interfaces/training_client.py). Of very many so go some, and then the next ones.
    """
    size = _TOGETHER if together else 1
    groups = [range(start, min(start + size, count)) for start in range(0, count, size)]
    return [wave for group in groups for wave in (group[1:], group[:1]) if wave]


def merge_outputs(outputs: Sequence[ForwardBackwardOutput]) -> ForwardBackwardOutput:
    """Merge the outputs of a batch's chunks, in chunk order.

    Raises:
        ValueError: there is none.
    """
    if not outputs:
        raise ValueError("there is no output to merge")
    weights = [len(output.loss_fn_outputs) for output in outputs]
    return ForwardBackwardOutput(
        outputs[0].loss_fn_output_type,
        [one for output in outputs for one in output.loss_fn_outputs],
        reduce_metrics([output.metrics for output in outputs], weights),
    )
