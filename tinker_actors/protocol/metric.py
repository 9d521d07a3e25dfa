"""How the metrics of a batch's chunks become the metrics of the batch.

Names are `name:reduction`; what stands after the last colon counts. Weights are the numbers of outputs of each chunk
(tinker 0.38.0 lib/chunked_fwdbwd_helpers.py). Only metrics that every chunk reports are kept.

    sum, min, max     what they say
    mean              weighted average; a plain one if no chunk has an output
    slack             the maximum less the mean
    hash2             sum of the integer parts, modulo 2**64
    hash_unordered    what came before it: Python's hash of the sorted integer parts
    unique            the first chunk's value; that of each further chunk under `<name>_1`, `<name>_2`, ...
    others, or none   kept if all chunks say the same: nobody knows how to reduce it
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

__all__ = ["REDUCTIONS", "reduce_metrics"]


def _mean(values: Sequence[float], weights: Sequence[int]) -> float:
    total = sum(weights)
    if not total:
        return sum(values) / len(values)
    return sum(v * w for v, w in zip(values, weights, strict=True)) / total


def _hash2(values: Sequence[float], _: Sequence[int]) -> float:
    if not all(map(math.isfinite, values)):
        return math.nan
    return float(sum(int(value) % 2**64 for value in values) % 2**64)


def _hash_unordered(values: Sequence[float], _: Sequence[int]) -> float:
    if not all(map(math.isfinite, values)):
        return math.nan
    return float(hash(tuple(sorted(map(int, values)))))  # of integers it is the same in every process


def _slack(values: Sequence[float], weights: Sequence[int]) -> float:
    return max(values) - _mean(values, weights)


REDUCTIONS: Mapping[str, Callable[[Sequence[float], Sequence[int]], float]] = {
    "sum": lambda values, _: sum(values),
    "mean": _mean,
    "min": lambda values, _: min(values),
    "max": lambda values, _: max(values),
    "slack": _slack,
    "hash2": _hash2,
    "hash_unordered": _hash_unordered,
}


def reduce_metrics(chunks: Sequence[Mapping[str, float]], weights: Sequence[int]) -> dict[str, float]:
    """Reduce the metrics of chunks, in chunk order.

    Args:
        chunks: one mapping per chunk.
        weights: outputs in each chunk.

    Returns:
        the batch's metrics.
    """
    reduced: dict[str, float] = {}
    for name in chunks[0] if chunks else ():
        if not all(name in chunk for chunk in chunks):
            continue
        values = [chunk[name] for chunk in chunks]
        _, colon, reduction = name.rpartition(":")
        if colon and reduction == "unique":
            reduced.update(_unique(name, values))
        elif colon and reduction in REDUCTIONS:
            reduced[name] = REDUCTIONS[reduction](values, weights)
        elif len(set(values)) == 1:
            reduced[name] = values[0]
    return reduced


def _unique(name: str, values: Sequence[float]) -> dict[str, float]:
    return {name if i == 0 else f"{name}_{i}": value for i, value in enumerate(values)}
