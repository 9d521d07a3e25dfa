from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinker_actors.protocol.metric import REDUCTIONS, reduce_metrics

values = st.floats(-1e6, 1e6)


def test_the_reductions_are_these() -> None:
    """And `unique`, which makes several metrics of one."""
    assert set(REDUCTIONS) == {"sum", "mean", "min", "max", "slack", "hash2"}


@pytest.mark.parametrize(
    ("name", "chunks", "weights", "expected"),
    [
        ("loss:mean", [1.0, 4.0], [1, 3], {"loss:mean": 3.25}),
        ("load:slack", [1.0, 4.0], [1, 3], {"load:slack": 0.75}),
        ("ids:hash2", [5.9, -1.0], [1, 1], {"ids:hash2": 4.0}),
        ("ids:hash2", [2.0**40, 1.0], [1, 1], {"ids:hash2": 2.0**40 + 1}),
        ("loss:sum", [1.5, 2.5, -1.0], [1, 9, 0], {"loss:sum": 3.0}),
        ("x:min", [3.0, -2.0], [1, 1], {"x:min": -2.0}),
        ("x:max", [3.0, -2.0], [1, 1], {"x:max": 3.0}),
        ("version:unique", [7.0, 7.0], [1, 1], {"version:unique": 7.0}),
        (
            "version:unique",
            [7.0, 8.0, 7.0, 9.0],
            [1, 1, 1, 1],
            {"version:unique": 7.0, "version:unique_1": 8.0, "version:unique_2": 9.0},
        ),
        ("loss:median", [1.0, 2.0], [1, 1], {}),
        ("loss", [1.0, 2.0], [1, 1], {}),
        ("sum", [1.0, 2.0], [1, 1], {}),
        ("loss:", [1.0, 2.0], [1, 1], {}),
        ("custom/a:b:sum", [1.0, 2.0], [1, 1], {"custom/a:b:sum": 3.0}),
        ("loss:mean", [2.5], [0], {"loss:mean": 2.5}),
        ("loss:mean", [1.0, 4.0], [0, 0], {"loss:mean": 2.5}),
        ("loss:mean", [1.0, 4.0], [0, 2], {"loss:mean": 4.0}),
    ],
)
def test_what_becomes_of_a_metric(
    name: str, chunks: list[float], weights: list[int], expected: dict[str, float]
) -> None:
    """The checked numbers of the protocol, and the edges: no outputs, no reduction, an unknown one."""
    assert reduce_metrics([{name: value} for value in chunks], weights) == expected


def test_only_what_every_chunk_reports_is_kept() -> None:
    """Half a sum would be a wrong one."""
    chunks = [{"a:sum": 1.0, "b:sum": 2.0}, {"b:sum": 3.0, "c:sum": 4.0}]
    assert reduce_metrics(chunks, [1, 1]) == {"b:sum": 5.0}
    assert reduce_metrics([], []) == {}


def test_a_hash_of_nothing_finite_is_not_a_number() -> None:
    """A diverged model must not crash whoever reads its metrics."""
    for odd in (math.nan, math.inf, -math.inf):
        reduced = reduce_metrics([{"h:hash2": odd}, {"h:hash2": 1.0}], [1, 1])
        assert math.isnan(reduced["h:hash2"])
    assert math.isnan(reduce_metrics([{"loss:sum": math.nan}, {"loss:sum": 1.0}], [1, 1])["loss:sum"])


@given(st.lists(st.tuples(values, st.integers(0, 100)), min_size=1, max_size=6))
def test_means_lie_between_the_extremes(parts: list[tuple[float, int]]) -> None:
    """Whatever the weights; and the slack is what the maximum has over the mean."""
    chunks = [{"x:mean": value, "x:min": value, "x:max": value, "x:slack": value} for value, _ in parts]
    reduced = reduce_metrics(chunks, [weight for _, weight in parts])
    assert reduced["x:min"] - 1e-6 <= reduced["x:mean"] <= reduced["x:max"] + 1e-6
    assert reduced["x:slack"] == pytest.approx(reduced["x:max"] - reduced["x:mean"])


@given(
    st.dictionaries(st.sampled_from(["a:sum", "a:mean", "a:min", "a:max", "a:unique"]), values),
    st.integers(1, 9),
)
def test_one_chunk_keeps_its_metrics(metrics: dict[str, float], weight: int) -> None:
    """A batch that fits into one request reports what the service reported."""
    assert reduce_metrics([metrics], [weight]) == pytest.approx(metrics)
