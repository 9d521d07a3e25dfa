"""Interleaved pairs: two ways to do the same work, measured in turn, in CPU seconds.

A machine's speed changes while one measures: other processes, heat, frequency. So both ways are measured close
together and compared with each other only, and the median is taken over the ratios of many such pairs. Who goes first
alternates. CPU seconds count what this process did, not what others took from it.
"""

from __future__ import annotations

import gc
import statistics
import sys
from collections.abc import Callable, Iterator
from typing import TypeAlias

import attrs

__all__ = ["Comparison", "Pair", "Side", "measure"]

Side: TypeAlias = Callable[[int], float]
"""Does so many operations, and returns the CPU seconds they took, without setting up and tearing down."""


@attrs.frozen
class Pair:
    """What is compared with what.

    Attributes:
        ours: one side.
        theirs: the other.
        count: operations in one run of a side.
    """

    ours: Side
    theirs: Side
    count: int


@attrs.frozen
class Comparison:
    """What came out.

    Attributes:
        ours: operations per CPU second, the median.
        theirs: the same of the other side.
        ratio: ours / theirs, the median over the pairs.
    """

    ours: float
    theirs: float
    ratio: float


def measure(name: str, pair: Pair, pairs: int) -> Comparison:
    """Measure a pair so many times; a short run of each side goes first and does not count."""
    for side in (pair.ours, pair.theirs):
        side(max(1, pair.count // 10))
    rates = [_rates(pair, ours_first=at % 2 == 0) for at in _progress(name, pairs)]
    return Comparison(
        ours=statistics.median(ours for ours, _ in rates),
        theirs=statistics.median(theirs for _, theirs in rates),
        ratio=statistics.median(ours / theirs for ours, theirs in rates),
    )


def _rates(pair: Pair, *, ours_first: bool) -> tuple[float, float]:
    if ours_first:
        ours = _rate(pair.ours, pair.count)
        return ours, _rate(pair.theirs, pair.count)
    theirs = _rate(pair.theirs, pair.count)
    return _rate(pair.ours, pair.count), theirs


def _rate(side: Side, count: int) -> float:
    """Run one side without the garbage collector, which would present one side with the bill of the other."""
    gc.collect()
    gc.disable()
    try:
        return count / side(count)
    finally:
        gc.enable()


def _progress(name: str, total: int) -> Iterator[int]:
    """Count up to `total`, and say so on a terminal."""
    shown = sys.stderr.isatty()
    for at in range(total):
        if shown:
            print(f"\r\033[K{name}: pair {at + 1} of {total}", end="", file=sys.stderr, flush=True)
        yield at
    if shown:
        print("\r\033[K", end="", file=sys.stderr, flush=True)
