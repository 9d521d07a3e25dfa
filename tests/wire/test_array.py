from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.wire.refusals import refusal
from tinker_actors.wire.array import exact_array, flat_array


def test_exact_array_is_new_and_read_only() -> None:
    """It shares no memory with what it was made of, and cannot be written."""
    source = np.array([1, 2], np.int32)
    array = exact_array("tokens", source, "int32")
    assert not np.shares_memory(array, source)
    assert not array.flags.writeable
    assert refusal(exact_array, "tokens", [1, 2**31], "int32") == ("tokens[1]", 2**31)


@pytest.mark.parametrize(
    ("array", "kept"),
    [
        (np.frombuffer(b"12345678", np.int32), True),
        (np.frombuffer(b"12345678", np.int32)[1:], True),
        (np.frombuffer(bytearray(b"12345678"), np.int32), False),
        (np.arange(4, dtype=np.int32), False),
        (np.arange(4, dtype=np.int64), False),
        (np.arange(4, dtype=">i4"), False),
    ],
    ids=["bytes", "part of bytes", "bytearray", "writable", "other dtype", "other endian"],
)
def test_what_cannot_be_written_is_not_copied(array: np.ndarray, kept: bool) -> None:
    """Neither through the array nor through what it is a part of."""
    got = exact_array("tokens", array, "int32")
    assert (got is array) == kept
    assert got.tolist() == array.tolist()
    assert (got.dtype, got.dtype.isnative, got.flags.writeable) == (np.int32, True, False)


def test_a_view_of_what_can_be_written_is_copied() -> None:
    """The view itself cannot be written, its source can; a view with gaps is put together."""
    source = np.arange(6, dtype=np.int32)
    view = source[1:]
    view.setflags(write=False)
    got = exact_array("tokens", view, "int32")
    source[:] = 9
    assert got.tolist() == [1, 2, 3, 4, 5]
    gaps = np.arange(6, dtype=np.int32)
    gaps.setflags(write=False)
    assert exact_array("tokens", gaps[::2], "int32").flags.c_contiguous


@pytest.mark.parametrize(
    ("values", "dtype"),
    [([1, 2], np.int64), ((1.0, 2.0), np.float64), ([], np.int64)],
    ids=["integers", "floats", "nothing"],
)
def test_a_flat_list_of_one_kind_becomes_an_array(values: Any, dtype: Any) -> None:
    """And nothing else does."""
    array = flat_array(values)
    assert array is not None
    assert (array.tolist(), array.dtype) == (list(values), dtype)


@pytest.mark.parametrize(
    "values", [[1, 2.0], [True], ["1"], [[1]], [2**64], "12", None, np.zeros(2)], ids=range(8)
)
def test_what_is_no_flat_list_of_one_kind_does_not(values: Any) -> None:
    """Mixed, nested, too large; and what is no list."""
    assert flat_array(values) is None
