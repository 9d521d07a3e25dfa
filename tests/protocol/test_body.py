from __future__ import annotations

import gc

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.strategies import data as datums
from tinker_actors.errors import DecodeError, InputError
from tinker_actors.protocol.body import decode_batch, encode_batch
from tinker_actors.wire import codec, protobuf
from tinker_actors.wire.chunk import DmelChunk, EncodedTextChunk, ImageAssetPointerChunk, ImageChunk
from tinker_actors.wire.input import Datum, ModelInput
from tinker_actors.wire.provenance import PromptProvenanceSpan, SampledProvenanceSpan
from tinker_actors.wire.tensor import TensorData
from tinker_actors.wire.training import ForwardBackwardInput, ForwardBackwardRequest

batches = st.lists(datums, max_size=4).map(tuple)
ROW = Datum(ModelInput.from_ints([1, 2, 3]), {"weights": [0.0, 1.0, 1.0]})


def request(data: tuple[Datum, ...]) -> ForwardBackwardRequest:
    return ForwardBackwardRequest(ForwardBackwardInput(data, "ppo"), "m", 3)


def as_protobuf(data: tuple[Datum, ...]) -> bytes | str:
    try:
        return protobuf.encode(request(data))
    except InputError as error:  # pointers to images have no such form
        return str(error)


@given(batches)
def test_a_batch_comes_back_as_it_was(data: tuple[Datum, ...]) -> None:
    """Every kind of chunk, tensor and span, and the requests made of it are the same to the last byte."""
    got = decode_batch(encode_batch(data))
    assert got == data
    assert codec.encode(request(got), newer=True) == codec.encode(request(data), newer=True)
    assert as_protobuf(got) == as_protobuf(data)


def test_the_bits_of_numbers_are_kept() -> None:
    """Also those that are equal to others, and those that are equal to nothing."""
    bits = np.array([0x80000000, 0x7FC00001, 0xFFC00000, 0x7F800000, 1], np.uint32)
    datum = Datum(ModelInput.empty(), {"x": TensorData(bits.view(np.float32), "float32")})
    (got,) = decode_batch(encode_batch([datum]))
    assert got.loss_fn_inputs["x"].data.view(np.uint32).tolist() == bits.tolist()


def test_the_same_batch_gives_the_same_bytes() -> None:
    """However its arrays lie in memory: what is named by its hash is stored once."""
    grid = np.arange(12, dtype=np.int64).reshape(3, 4)
    one = Datum(ModelInput.empty(), {"x": TensorData(grid.T.copy(), "int64")})
    other = Datum(ModelInput.empty(), {"x": TensorData(grid.T, "int64")})
    assert encode_batch([one]) == encode_batch([other])
    assert encode_batch([one]) != encode_batch([one, one])


def test_an_empty_batch_has_a_body() -> None:
    """It is a batch, too."""
    assert decode_batch(encode_batch([])) == ()


def test_every_kind_of_part_is_kept() -> None:
    """One batch with all that there is, whatever the generator draws."""
    chunks = (
        EncodedTextChunk([7]),
        ImageChunk(b"abc", "png"),
        ImageAssetPointerChunk("jpeg", "s3://x", 4),
        DmelChunk(b"\1\2"),
    )
    sparse = TensorData.from_sparse(np.eye(9, dtype=np.int64))
    assert sparse.is_sparse
    spans = [
        PromptProvenanceSpan(sequence_id="a", offset=1, length=1),
        SampledProvenanceSpan(sequence_id="b", length=2),
    ]
    told = Datum(ModelInput.from_ints([1, 2, 3]), {"target_tokens": [2, 3, 4]})
    told = told.with_provenance(model_input=spans, loss_fn_inputs=spans)
    batch = (Datum(ModelInput(chunks), {"x": sparse}), told)
    assert decode_batch(encode_batch(batch)) == batch


def test_values_outlive_the_bytes_they_came_in() -> None:
    """They are views, and hold what they are views of; nobody can change them."""
    (got,) = decode_batch(encode_batch([ROW]))
    gc.collect()
    assert got == ROW
    assert not got.model_input.to_numpy().flags.writeable


def test_text_that_cannot_be_sent_cannot_be_kept() -> None:
    """It is refused before anything is decided."""
    with pytest.raises(InputError, match="data"):
        encode_batch([Datum(ModelInput.empty(), {"\ud800": TensorData([1], "int64")})])


# --- bytes that are none ---------------------------------------------------------------------------------


def body(header: object, values: bytes = b"") -> bytes:
    text = orjson.dumps(header)
    head = b"tab1" + len(text).to_bytes(4, "little") + text
    return head + bytes(-len(head) % 8) + values


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"tab1",
        b"tab2" + encode_batch([ROW])[4:],
        encode_batch([ROW])[:-8],
        encode_batch([ROW]) + bytes(8),
        body(3),
        body([[[["t", -1]], []]]),
        body([[[["x", 1]], []]]),
        body([[[], [["x", "int8", [0]]]]]),
        body([[[], [["x", "int64", [2], 1, 2]]]]),
        body([[[], [], [["z", "a", 0, 0]], []]]),
        body([[[], [], [["s", "a", 0, 1]], []]]),
        body([[["i", 0, "bmp", None]], []]),
        body([[[["i", 0, "bmp", None]], []]]),
    ],
)
def test_what_is_no_batch_is_refused(data: bytes) -> None:
    """With an error that says that it is none, whatever is wrong."""
    with pytest.raises(DecodeError, match="not a batch"):
        decode_batch(data)


@given(batches, st.data())
def test_no_bytes_are_read_beyond_the_end(data: tuple[Datum, ...], draw: st.DataObject) -> None:
    """A body that is cut anywhere is refused, or is the batch all the same if nothing but padding is missing."""
    whole = encode_batch(data)
    cut = whole[: draw.draw(st.integers(0, len(whole)))]
    try:
        got = decode_batch(cut)
    except DecodeError:
        return
    assert got == data
