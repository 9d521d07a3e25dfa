"""Periodic work without drift."""

from __future__ import annotations

import math

__all__ = ["next_tick"]


def next_tick(start: float, period: float, now: float) -> float:
    """Return the first time after `now` on the grid `start + k * period`; ticks that were missed are skipped.

    Raises:
        ValueError: a period that is not positive.
    """
    if period <= 0:
        raise ValueError(f"a period must be positive, not {period}")
    ticks = max(0, math.floor((now - start) / period)) + 1
    due = start + ticks * period
    return due if due > now else due + period  # rounding may land exactly on `now`
