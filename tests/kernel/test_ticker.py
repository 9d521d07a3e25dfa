from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinker_actors.kernel.ticker import next_tick

TIMES = st.floats(0, 1e9, allow_nan=False)
PERIODS = st.floats(1e-3, 1e6)


@given(TIMES, PERIODS, st.floats(0, 1e6))
def test_the_next_tick_lies_ahead_and_at_most_a_period_away(
    start: float, period: float, later: float
) -> None:
    """Whenever one asks, the next tick is in the future, and no tick of the grid is left out before it."""
    now = start + later
    due = next_tick(start, period, now)
    assert due > now
    assert due - now <= period * (1 + 1e-6) + 1e-6


@given(TIMES, PERIODS, st.integers(0, 1000))
def test_ticks_lie_on_the_grid(start: float, period: float, missed: int) -> None:
    """A late caller gets no drift: the tick is a whole number of periods after the start."""
    due = next_tick(start, period, start + missed * period)
    ticks = (due - start) / period
    assert math.isclose(ticks, round(ticks), abs_tol=1e-3)


def test_the_first_tick_is_a_period_after_the_start() -> None:
    """Nothing is due at the start itself, nor before it."""
    assert next_tick(100.0, 10.0, 100.0) == 110.0
    assert next_tick(100.0, 10.0, 95.0) == 110.0


def test_missed_ticks_are_skipped() -> None:
    """Who comes three periods late gets the next tick, not three at once."""
    assert next_tick(0.0, 10.0, 35.0) == 40.0
    assert next_tick(0.0, 10.0, 40.0) == 50.0


@pytest.mark.parametrize("period", [0.0, -1.0])
def test_a_period_is_positive(period: float) -> None:
    """There is no tick without a period."""
    with pytest.raises(ValueError, match="must be positive"):
        next_tick(0.0, period, 0.0)
