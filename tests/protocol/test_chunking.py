from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.strategies import data as datums
from tests.wire.strategies import outputs
from tinker_actors.protocol.chunking import (
    MAX_CHUNK_BYTES,
    MAX_CHUNK_DATUMS,
    chunk_batch,
    datum_bytes,
    merge_outputs,
    waves,
)
from tinker_actors.wire.chunk import DmelChunk, EncodedTextChunk, ImageAssetPointerChunk, ImageChunk
from tinker_actors.wire.input import Datum, ModelInput
from tinker_actors.wire.tensor import TensorData, TensorLike
from tinker_actors.wire.training import ForwardBackwardOutput

batches = st.lists(datums, max_size=12)
limits = st.integers(1, 12), st.integers(1, 400)


def datum(tokens: int) -> Datum:
    return Datum(ModelInput.from_ints([1] * tokens))


def test_a_datum_weighs_four_bytes_a_token_and_its_tensors() -> None:
    """The estimate of tinker 0.38.0."""
    inputs: dict[str, TensorLike] = {
        "target_tokens": np.zeros(3, np.int64),
        "weights": np.zeros(3, np.float32),
    }
    assert datum_bytes(Datum(ModelInput.from_ints([1, 2, 3]), inputs)) == 3 * 4 + 3 * 8 + 3 * 4
    assert datum_bytes(Datum(ModelInput.empty())) == 0


def test_a_sparse_tensor_weighs_its_values_and_its_indices() -> None:
    """Eight bytes for each index; what is not listed weighs nothing."""
    tensor = TensorData(
        np.ones(3, np.float32),
        "float32",
        (4, 1000),
        sparse_crow_indices=[0, 1, 2, 3, 3],
        sparse_col_indices=[5, 6, 7],
    )
    one = Datum(ModelInput.empty(), {"weights": tensor})
    assert datum_bytes(one) == 3 * 4 + (5 + 3) * 8


@pytest.mark.requirement("R122")
def test_the_limits_are_tinkers() -> None:
    """Of 0.38.0, where the service sets no others."""
    assert (MAX_CHUNK_DATUMS, MAX_CHUNK_BYTES) == (1024, 5_000_000)


@pytest.mark.requirement("R122")
@pytest.mark.lesson("L3")
@pytest.mark.parametrize(
    ("tokens", "max_datums", "max_bytes", "sizes"),
    [
        ([1, 1, 1, 1, 1], 2, 1000, [2, 2, 1]),
        ([1, 1, 1, 1], 100, 8, [2, 2]),
        ([2, 1, 1], 100, 8, [1, 2]),
        ([50, 1, 50, 1, 1], 100, 8, [1, 1, 1, 2]),
        ([50], 1, 8, [1]),
        ([], 1, 8, []),
        ([0, 0, 0], 2, 8, [2, 1]),
    ],
)
def test_where_a_batch_is_cut(tokens: list[int], max_datums: int, max_bytes: int, sizes: list[int]) -> None:
    """A chunk is closed before the datum that would exceed a limit; one that is too large alone goes alone."""
    batch = [datum(count) for count in tokens]
    chunks = chunk_batch(batch, max_datums=max_datums, max_bytes=max_bytes)
    assert [len(chunk) for chunk in chunks] == sizes


@pytest.mark.requirement("R122")
@pytest.mark.lesson("D39", "L3")
@given(batches, *limits)
def test_the_chunks_are_the_batch(batch: list[Datum], max_datums: int, max_bytes: int) -> None:
    """Nothing is lost, doubled or moved; no chunk is empty or over a limit it could have kept; none is too short."""
    chunks = chunk_batch(batch, max_datums=max_datums, max_bytes=max_bytes)
    assert [one for chunk in chunks for one in chunk] == batch
    weights = [sum(map(datum_bytes, chunk)) for chunk in chunks]
    for chunk, weight in zip(chunks, weights, strict=True):
        assert 1 <= len(chunk) <= max_datums
        assert weight <= max_bytes or len(chunk) == 1
    for (chunk, weight), (following, _) in pairwise(zip(chunks, weights, strict=True)):
        assert len(chunk) == max_datums or weight + datum_bytes(following[0]) > max_bytes


@pytest.mark.requirement("R123", "R124")
@pytest.mark.lesson("D67")
@given(batches.filter(bool), *limits)
def test_chunk_then_merge_is_the_whole(batch: list[Datum], max_datums: int, max_bytes: int) -> None:
    """A batch sent in chunks gives the output that it gives in one piece."""

    def compute(part: tuple[Datum, ...]) -> ForwardBackwardOutput:
        """Stand for a service: an output for each datum, and metrics that are exact in any order of adding."""
        lengths = [datum_bytes(one) % 9 for one in part]
        fields = [{"logprobs": TensorData(np.full(length, -length), "float32")} for length in lengths]
        metrics = {
            "tokens:sum": float(sum(lengths)),
            "longest:max": float(max(lengths)),
            "shortest:min": float(min(lengths)),
            "length:mean": sum(lengths) / len(lengths),
            "check:hash2": float(sum(lengths)),
        }
        return ForwardBackwardOutput("ArrayRecord", fields, metrics)

    whole = compute(tuple(batch))
    merged = merge_outputs(
        [compute(chunk) for chunk in chunk_batch(batch, max_datums=max_datums, max_bytes=max_bytes)]
    )
    assert merged.loss_fn_outputs == whole.loss_fn_outputs
    assert merged.loss_fn_output_type == whole.loss_fn_output_type
    assert merged.metrics == pytest.approx(whole.metrics)


@pytest.mark.requirement("R124")
@given(st.lists(outputs, min_size=1, max_size=4))
def test_outputs_are_put_in_chunk_order(several: list[ForwardBackwardOutput]) -> None:
    """Outputs one behind the other, the type of the first, only metrics that all chunks have."""
    merged = merge_outputs(several)
    assert list(merged.loss_fn_outputs) == [one for output in several for one in output.loss_fn_outputs]
    assert merged.loss_fn_output_type == several[0].loss_fn_output_type


@pytest.mark.parametrize(
    ("count", "together", "order"),
    [
        (0, False, []),
        (1, True, [[0]]),
        (3, False, [[0], [1], [2]]),
        (3, True, [[1, 2], [0]]),
        (2, True, [[1], [0]]),
        (128, True, [list(range(1, 128)), [0]]),
        (129, True, [list(range(1, 128)), [0], [128]]),
        (300, True, [[*range(1, 128)], [0], [*range(129, 256)], [128], [*range(257, 300)], [256]]),
    ],
)
def test_in_which_order_chunks_are_submitted(count: int, together: bool, order: list[list[int]]) -> None:
    """One by one; where early numbers are kept, all but the first at once and then the first, 128 at a time."""
    assert [list(wave) for wave in waves(count, together=together)] == order


def test_nothing_cannot_be_merged() -> None:
    """There is no output of no chunk."""
    with pytest.raises(ValueError, match="no output"):
        merge_outputs([])


@pytest.mark.lesson("D24")
def test_what_is_no_text_weighs_its_bytes_and_sparse_tensors_their_indices() -> None:
    """The estimate of tinker 0.38.0: data and locations by their length, 8 bytes for each index."""
    chunks = (
        ImageChunk(b"12345", "png"),
        ImageAssetPointerChunk("jpeg", "abc"),
        DmelChunk(b"1234567"),
        EncodedTextChunk([1]),
    )
    sparse = TensorData([5], "int64", (1, 9), [0, 1], [2])
    assert datum_bytes(Datum(ModelInput(chunks))) == 5 + 3 + 7 + 4
    assert datum_bytes(Datum(ModelInput.empty(), {"target_tokens": sparse})) == 8 + 2 * 8 + 8
