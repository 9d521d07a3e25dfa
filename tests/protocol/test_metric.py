from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinker_actors.protocol.metric import REDUCTIONS, reduce_metrics

values = st.floats(-1e6, 1e6)


@pytest.mark.lesson("D36")
def test_the_reductions_are_these() -> None:
    """And `unique`, which makes several metrics of one."""
    assert set(REDUCTIONS) == {"sum", "mean", "min", "max", "slack", "hash2", "hash_unordered"}


@pytest.mark.requirement("R123")
@pytest.mark.lesson("D36", "D67", "L28")
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
        ("version:unique", [7.0, 7.0], [1, 1], {"version:unique": 7.0, "version:unique_1": 7.0}),
        (
            "version:unique",
            [7.0, 8.0, 7.0, 9.0],
            [1, 1, 1, 1],
            {
                "version:unique": 7.0,
                "version:unique_1": 8.0,
                "version:unique_2": 7.0,
                "version:unique_3": 9.0,
            },
        ),
        ("ids:hash_unordered", [3.0, 1.9], [1, 1], {"ids:hash_unordered": float(hash((1, 3)))}),
        ("loss:median", [1.0, 2.0], [1, 1], {}),
        ("loss:median", [2.0, 2.0], [1, 1], {"loss:median": 2.0}),
        ("loss:median", [2.0], [0], {"loss:median": 2.0}),
        ("loss", [1.0, 2.0], [1, 1], {}),
        ("loss", [1.5], [0], {"loss": 1.5}),
        ("a:b:c", [1.5, 1.5], [1, 1], {"a:b:c": 1.5}),
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


@pytest.mark.lesson("L28")
def test_only_what_every_chunk_reports_is_kept() -> None:
    """Half a sum would be a wrong one."""
    chunks = [{"a:sum": 1.0, "b:sum": 2.0}, {"b:sum": 3.0, "c:sum": 4.0}]
    assert reduce_metrics(chunks, [1, 1]) == {"b:sum": 5.0}
    assert reduce_metrics([], []) == {}


def test_a_hash_of_nothing_finite_is_not_a_number() -> None:
    """A diverged model must not crash whoever reads its metrics."""
    for odd in (math.nan, math.inf, -math.inf):
        for name in ("h:hash2", "h:hash_unordered"):
            assert math.isnan(reduce_metrics([{name: odd}, {name: 1.0}], [1, 1])[name])
    assert math.isnan(reduce_metrics([{"loss:sum": math.nan}, {"loss:sum": 1.0}], [1, 1])["loss:sum"])


@given(st.lists(st.tuples(values, st.integers(0, 100)), min_size=1, max_size=6))
def test_means_lie_between_the_extremes(parts: list[tuple[float, int]]) -> None:
    """Whatever the weights; and the slack is what the maximum has over the mean."""
    chunks = [{"x:mean": value, "x:min": value, "x:max": value, "x:slack": value} for value, _ in parts]
    reduced = reduce_metrics(chunks, [weight for _, weight in parts])
    assert reduced["x:min"] - 1e-6 <= reduced["x:mean"] <= reduced["x:max"] + 1e-6
    assert reduced["x:slack"] == pytest.approx(reduced["x:max"] - reduced["x:mean"])


@given(
    st.dictionaries(
        st.sampled_from(["a:sum", "a:mean", "a:min", "a:max", "a:unique", "bare", "a:b:c"]), values
    ),
    st.integers(1, 9),
)
def test_one_chunk_keeps_its_metrics(metrics: dict[str, float], weight: int) -> None:
    """A batch that fits into one request reports what the service reported."""
    assert reduce_metrics([metrics], [weight]) == pytest.approx(metrics)


@pytest.mark.requirement("R123")
@pytest.mark.lesson("D67")
@given(st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=30), st.data())
def test_every_reduction_of_the_parts_is_that_of_the_whole(numbers: list[int], data: st.DataObject) -> None:
    """Wherever a batch is cut: a service that computes a metric of each part leaves us with the metric of all."""
    cuts = sorted(data.draw(st.sets(st.integers(1, len(numbers))) if len(numbers) > 1 else st.just(set())))
    edges = [0, *cuts, len(numbers)]
    parts = [numbers[start:stop] for start, stop in pairwise(edges) if start < stop]

    def metrics(part: list[int]) -> dict[str, float]:
        return {
            "x:sum": float(sum(part)),
            "x:mean": sum(part) / len(part),
            "x:min": float(min(part)),
            "x:max": float(max(part)),
            "x:hash2": float(sum(part) % 2**64) if sum(part) >= 0 else float(sum(part)),
            "same": 7.0,
        }

    reduced = reduce_metrics([metrics(part) for part in parts], [len(part) for part in parts])
    whole = metrics(numbers)
    whole["x:hash2"] = float(sum(numbers) % 2**64)
    assert reduced == pytest.approx(whole)
