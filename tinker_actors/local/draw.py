"""Choosing the next token of many rows at once, each by its own rule and its own random number.

Every row is worked on by itself: which rows stand beside it changes nothing in it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .lora import stream
from .transformer import Array

__all__ = ["choose", "keep_top", "uniforms"]


def uniforms(seed: int, sample: int, count: int) -> NDArray[np.float64]:
    """Return one random number in [0, 1) per token of a sample, from the sample's own Philox stream."""
    return stream(seed, sample).random(count)


def choose(
    logprobs: Array,
    temperature: NDArray[np.float64],
    top_k: NDArray[np.int64],
    top_p: NDArray[np.float64],
    uniform: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Return a token per row.

    Args:
        logprobs: (R, vocab) of the model.
        temperature: (R,); rows of 0 take the likeliest token, the lowest id winning ties.
        top_k: (R,); -1 is off.
        top_p: (R,); 1 is off.
        uniform: (R,) numbers in [0, 1): the row takes the first token at which the cumulative share exceeds
            it.
    """
    chosen = logprobs.argmax(axis=-1)
    warm = np.flatnonzero(temperature > 0)
    if warm.size:
        scaled = logprobs[warm].astype(np.float64)
        scaled -= scaled.max(axis=-1, keepdims=True)
        with np.errstate(over="ignore"):  # a tiny temperature sends all but the likeliest to -inf
            scaled /= temperature[warm, None]
        shares = np.exp(scaled)
        cut = np.flatnonzero((top_k[warm] > 0) | (top_p[warm] < 1))
        if cut.size:
            shares[cut] = keep_top(shares[cut], top_k[warm][cut], top_p[warm][cut])
        chosen[warm] = _invert(shares, uniform[warm])
    return np.asarray(chosen)


def keep_top(shares: Array, top_k: NDArray[np.int64], top_p: NDArray[np.float64]) -> Array:
    """Zero what top-k and then top-p leave out.

    Of the k likeliest tokens, the shortest likeliest-first run is kept whose share of their sum reaches
    `top_p`; at least one token stays. Lower ids win ties.

    Args:
        shares: (R, vocab) unnormalized probabilities.
        top_k: (R,); -1 is off.
        top_p: (R,); 1 is off.
    """
    order = np.argsort(-shares, axis=-1, kind="stable")
    ranked = np.take_along_axis(shares, order, axis=-1)
    rank = np.arange(shares.shape[-1])
    ranked[(top_k[:, None] > 0) & (rank >= top_k[:, None])] = 0
    before = np.cumsum(ranked, axis=-1)
    total = before[:, -1:].copy()
    before -= ranked
    ranked[(top_p[:, None] < 1) & (before >= top_p[:, None] * total)] = 0
    kept = np.zeros_like(shares)
    np.put_along_axis(kept, order, ranked, axis=-1)
    return kept


def _invert(shares: Array, uniform: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return per row the first index whose cumulative share exceeds `uniform` of the total."""
    reached = np.cumsum(shares, axis=-1)
    total = reached[:, -1:].copy()
    reached[reached == total] = np.inf  # rounding must not step over the last token that has a share
    return np.asarray((reached <= uniform[:, None] * total).sum(axis=-1))
