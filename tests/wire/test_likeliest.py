from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.refusals import refusal
from tests.wire.strategies import topks
from tinker_actors.wire.codec import encode
from tinker_actors.wire.likeliest import TopkLogprobs

CELLS: Any = [[(3, -0.5), (4, -1.5)], None, [(5, -2.0)]]


def test_rows_become_matrices_with_empty_cells_and_come_back() -> None:
    """Token 0 with -99999.0 is an empty cell; a row that begins with one is None."""
    topk = TopkLogprobs.from_lists(CELLS)
    assert topk.token_ids.tolist() == [[3, 4], [0, 0], [5, 0]]
    assert topk.logprobs.tolist() == [[-0.5, -1.5], [-99999.0, -99999.0], [-2.0, -99999.0]]
    assert (topk.token_ids.dtype, topk.logprobs.dtype) == (np.int32, np.float32)
    assert topk.tolist() == CELLS


@pytest.mark.parametrize(
    ("ids", "logprobs", "rows"),
    [
        ([[0, 3]], [[-99999.0, -1.0]], [None]),
        ([[3, 0, 4]], [[-1.0, -99999.0, -2.0]], [[(3, -1.0), (0, -99999.0), (4, -2.0)]]),
        ([[0, 0]], [[-1.0, -99999.0]], [[(0, -1.0)]]),
        ([[7, 0]], [[-99999.0, -99999.0]], [[(7, -99999.0)]]),
        (np.zeros((2, 0), int), np.zeros((2, 0)), [None, None]),
        (np.zeros((0, 3), int), np.zeros((0, 3)), []),
    ],
    ids=["empty first", "empty between", "token 0", "unlikely", "no columns", "no rows"],
)
def test_empty_cells_are_cut_off_at_the_end(ids: Any, logprobs: Any, rows: object) -> None:
    """Not between others, and not where only one half of the cell looks empty."""
    assert TopkLogprobs(np.array(ids), np.array(logprobs)).tolist() == rows


@given(topks)
def test_the_list_form_loses_nothing(topk: TopkLogprobs) -> None:
    """Matrices made of the list form are the same."""
    assert TopkLogprobs.from_lists(topk.tolist()) == topk


@given(st.lists(st.floats(-100, 0, width=32), min_size=1, max_size=4))
def test_log_probabilities_are_written_with_the_digits_of_a_float32(values: list[float]) -> None:
    """Half as long as those of a float64, and exact."""
    topk = TopkLogprobs.from_lists([[(1, value)] for value in values])
    written = orjson.loads(encode(topk))
    assert [np.float32(row[0][1]) for row in written] == [np.float32(value) for value in values]
    rows = [[[1, np.float32(value)]] for value in values]
    assert written == orjson.loads(orjson.dumps(rows, option=orjson.OPT_SERIALIZE_NUMPY))


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: TopkLogprobs(np.zeros((2, 1), int), np.zeros((1, 2))), "token_ids"),
        (lambda: TopkLogprobs(np.zeros(2, int), np.zeros(2)), "token_ids"),
        (lambda: TopkLogprobs(np.zeros((1, 1)), np.zeros((1, 1))), "token_ids[0][0]"),
        (lambda: TopkLogprobs.from_lists([[(1.5, -1.0)]]), "token_ids[0]"),
        (lambda: TopkLogprobs.from_lists([[(1, None), (2, "a")]]), "logprobs[0]"),
        (lambda: TopkLogprobs.from_lists([[(1, -1.0, 2)]]), "pairs"),
    ],
    ids=range(6),
)
def test_what_does_not_fit_together_is_refused(make: Any, field: str) -> None:
    """Different shapes, no matrices, floats as tokens, no numbers, triples."""
    assert refusal(make)[0] == field
