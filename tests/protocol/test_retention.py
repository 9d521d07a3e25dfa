"""Which checkpoints of a run are kept."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinker_actors.errors import InputError
from tinker_actors.protocol.retention import CheckpointState, Retention, RunCheckpoint, sort_out


def saved(step: int, state: CheckpointState = "verified", **facts: Any) -> RunCheckpoint:
    """Make a checkpoint after a step."""
    return RunCheckpoint(
        name=f"r-{step}", path=f"tinker://m/weights/r-{step}", step=step, state=state, **facts
    )


def outdated(retention: Retention, *checkpoints: RunCheckpoint) -> list[int]:
    """Return the steps of those that no rule keeps."""
    return [one.step for one in sort_out(retention, checkpoints).outdated]


TEN = [saved(step) for step in range(0, 100, 10)]


def test_the_newest_are_kept() -> None:
    """As many as asked for, and no others."""
    assert outdated(Retention(last=3), *TEN) == [0, 10, 20, 30, 40, 50, 60]
    assert outdated(Retention(last=20), *TEN) == []


def test_every_kth_is_kept() -> None:
    """Those whose step is a multiple, the first one too."""
    assert outdated(Retention(every=40), *TEN) == [10, 20, 30, 50, 60, 70]


def test_the_best_are_kept() -> None:
    """By the highest metric or the lowest; what has none is never among the best, and of equals the newer wins."""
    metrics = [None, 0.5, 0.9, 0.9, 0.1, 0.2, None, 0.3, 0.0, 0.0]
    rated = [saved(10 * at, metric=metric) for at, metric in enumerate(metrics)]
    assert outdated(Retention(best=1), *rated) == [0, 10, 20, 40, 50, 60, 70]
    assert outdated(Retention(best=2), *rated) == [0, 10, 40, 50, 60, 70]
    assert outdated(Retention(best=3, best_is="lowest"), *rated) == [0, 10, 20, 30, 50, 60, 70]
    assert outdated(Retention(best=99), *rated) == [0, 60]


def test_what_is_pinned_is_kept() -> None:
    """Whatever the rules say."""
    assert outdated(Retention(), saved(0, pinned=True), *TEN[1:]) == [10, 20, 30, 40, 50, 60, 70]


def test_a_run_always_has_two_to_fall_back_on() -> None:
    """As long as two are not verified nothing goes, and nothing goes that is newer than the older of the two."""
    assert outdated(Retention(), saved(0, "done"), saved(10, "begun"), saved(20, "done"), saved(30)) == []
    after = [saved(0), saved(10), saved(20, "done"), saved(30), saved(40, "begun")]
    assert outdated(Retention(), *after) == [0]


def test_one_that_is_not_verified_counts_for_nothing() -> None:
    """A save that was never seen on the service is no reason to let go of one that was, and goes when it is old."""
    assert outdated(Retention(last=3), saved(0), saved(10, "done"), saved(20), saved(30)) == [10]


def test_what_is_gone_is_neither_kept_nor_outdated() -> None:
    """There is nothing to be deleted."""
    sorted_out = sort_out(Retention(), [saved(0, "gone"), saved(10), saved(20), saved(30)])
    assert [one.step for one in sorted_out.outdated] == [10]
    assert "r-0" not in sorted_out.kept


def test_it_says_why() -> None:
    """The first reason of each."""
    kept = sort_out(Retention(last=3, every=40), [saved(0, pinned=True), *TEN[1:]]).kept
    assert kept == {
        "r-0": "pinned",
        "r-40": "every 40",
        "r-70": "last 3",
        "r-80": "newest",
        "r-90": "newest",
    }
    assert set(sort_out(Retention(), TEN[:1]).kept.values()) == {"two that are verified must be there"}


STATES: tuple[CheckpointState, ...] = ("begun", "done", "verified", "gone")
states = st.sampled_from(STATES)
runs = st.lists(st.tuples(states, st.none() | st.integers(0, 3), st.booleans()), max_size=12).map(
    lambda facts: [
        saved(10 * at, state, metric=None if metric is None else float(metric), pinned=pinned)
        for at, (state, metric, pinned) in enumerate(facts)
    ]
)
retentions = st.builds(
    Retention, last=st.integers(2, 4), every=st.none() | st.integers(1, 50), best=st.integers(0, 3)
)


@given(retentions, runs)
def test_a_newest_pair_survives_any_rules(retention: Retention, run: list[RunCheckpoint]) -> None:
    """What goes is never one of the two newest verified, nor newer, nor pinned; and all others are accounted for."""
    result = sort_out(retention, run)
    verified = [one for one in run if one.state == "verified"]
    for one in result.outdated:
        assert len(verified) >= 2
        assert one.step < verified[-2].step
        assert not one.pinned
    names = {one.name for one in run if one.state != "gone"}
    assert result.kept.keys() | {one.name for one in result.outdated} == names


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("last", value) for value in (1, 0, True, 2.0)],
        *[("every", value) for value in (0, -3, True)],
        *[("best", value) for value in (-1, 0.5)],
        ("best_is", "biggest"),
        *[("ttl_seconds", value) for value in (0, 60, 1.5, 10**12)],
        ("delete", 1),
    ],
)
def test_rules_that_say_nothing_are_refused(field: str, value: object) -> None:
    """A number out of its range is named with its field."""
    with pytest.raises(InputError, match=rf"^retention\.{field} = "):
        Retention(**{field: value})  # type: ignore[arg-type]  # of a wrong type on purpose
