from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.wire.protobuf.schema import OFFICIAL
from tinker_actors.wire.protobuf.field import Malformed
from tinker_actors.wire.protobuf.tensor import read_tensor, read_topk, write_tensor
from tinker_actors.wire.tensor import TensorData


def tensor(**fields: Any) -> bytes:
    return OFFICIAL["Tensor"](**fields).SerializeToString()


def read(data: bytes) -> TensorData:
    return read_tensor(data, 0, len(data))


def why(data: bytes) -> str:
    with pytest.raises(Malformed) as caught:
        read(data)
    return f"{caught.value.why} @ {caught.value.path}"


def test_narrow_dtypes_are_widened() -> None:
    """INT32 becomes int64, and BFLOAT16 the float32 whose upper half it is; both are read-only."""
    ints = read(tensor(dense=np.array([-1, 7], "<i4").tobytes(), dtype=3, shape=[2]))
    assert (ints.dtype, ints.tolist(), ints.data.dtype) == ("int64", [-1, 7], np.int64)
    halves = np.array([1.5, -2.0, np.inf], np.float32).view(np.uint32) >> 16
    floats = read(tensor(dense=halves.astype("<u2").tobytes(), dtype=4, shape=[3]))
    assert (floats.dtype, floats.tolist(), floats.data.dtype) == ("float32", [1.5, -2.0, np.inf], np.float32)
    for values in (ints.data, floats.data):
        assert not values.flags.writeable


def test_a_shape_that_was_not_said_is_that_of_the_values() -> None:
    """One value without a shape has no dimensions, as a tensor without any is written; several are a row."""
    assert read(tensor(dense=bytes(8), dtype=2)).shape == ()
    assert read(tensor(dense=bytes(24), dtype=2)).shape == (3,)
    assert read(tensor(dtype=1)).shape == (0,)
    scalar = TensorData(np.float32(1.5), "float32")
    assert read(write_tensor(scalar).join()) == scalar


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (tensor(dense=bytes(4), shape=[1]), "unknown dtype 0 @ .dtype"),
        (tensor(dense=bytes(4), dtype=9, shape=[1]), "unknown dtype 9 @ .dtype"),
        (tensor(dense=bytes(5), dtype=1, shape=[1]), "5 bytes do not hold whole values of 4 @ "),
        (tensor(dense=bytes(8), dtype=1, shape=[3]), "[3] does not hold 2 values @ .shape"),
        (tensor(dense=bytes(8), dtype=1, shape=[-1, -2]), "[-1, -2] does not hold 2 values @ .shape"),
        (tensor(dense=bytes(8), dtype=1, shape=[2**62, 2**62]), "does not hold 2 values"),
        (tensor(dense=b"", dtype=1, shape=[0, 2**62, 2**62]), "@ .shape"),
        (tensor(dense=bytes(4), dtype=1, shape=[1] * 70), "@ .shape"),
        (tensor(sparse_csr={"values": bytes(4)}, dtype=1, shape=[1]), "a sparse tensor has rows and columns"),
        (tensor(sparse_csr={"values": bytes(4)}, dtype=1, shape=[2**40, 9]), "1099511627776 rows take"),
        (tensor(sparse_csr={"crow_indices": bytes(7)}, dtype=1, shape=[1, 1]), "7 bytes do not hold"),
    ],
)
def test_what_does_not_make_a_tensor_is_refused(data: bytes, what: str) -> None:
    """Unknown dtypes, sizes that do not agree, and dimensions that nothing could hold."""
    assert what in why(data)


def topk(**fields: Any) -> Any:
    data = OFFICIAL["TopkLogprobs"](**fields).SerializeToString()
    return read_topk(data, 0, len(data))


def test_a_matrix_without_cells_is_none() -> None:
    """No positions, or none of the likeliest tokens, are nothing."""
    assert topk(k=0, length=5) is None
    assert topk(k=5, length=0) is None


@pytest.mark.parametrize("shape", [(1, 2), (3, 1), (2**31 + 1, 2**31 + 1)])
def test_a_matrix_with_other_cells_than_it_says_is_refused(shape: tuple[int, int]) -> None:
    """Both arrays must have as many cells as positions times tokens."""
    with pytest.raises(Malformed, match="is not 1 token ids and 2 log probabilities"):
        topk(token_ids=bytes(4), logprobs=bytes(8), length=shape[0], k=shape[1])
