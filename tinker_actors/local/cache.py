"""Keys and values of the tokens a decoder has seen, and the one-token forward pass over them.

Each active sample owns a slot with room for a whole context; there are as many slots as the decoder's
`max_rows`. Attention of a row works on its own slot alone, cut to the smallest of a few fixed lengths that
holds it, so shapes and bits depend on that row's length only. The heads' queries of a row stand in one matrix
of at least 8 rows (head h in columns of head h, zeros elsewhere), which turns the attention of all heads into
one product.
"""

from __future__ import annotations

import attrs
import numpy as np
from numpy.typing import NDArray

from .transformer import (
    TILE,
    Array,
    ModelConfig,
    Network,
    Tape,
    linear,
    normalize,
    padded_length,
    softmax_in_place,
)

__all__ = ["KeyValueCache", "decode", "prefill_rows"]


class KeyValueCache:
    """Slots of keys and values.

    Args:
        config: of the model.
        dtype: of its weights.
        slots: how many.
    """

    def __init__(self, config: ModelConfig, dtype: np.dtype[np.floating], slots: int) -> None:
        self._config = config
        self._store = np.zeros((config.layers, 2, slots, config.context_length, config.width), dtype)
        self._free = list(reversed(range(slots)))

    @property
    def nbytes(self) -> int:
        """Bytes of address space; the system gives memory to slots as they are first used."""
        return self._store.nbytes

    @property
    def available(self) -> int:
        """Free slots."""
        return len(self._free)

    def acquire(self) -> int:
        """Take a free slot, of which there must be one."""
        return self._free.pop()

    def release(self, slot: int) -> None:
        """Give a slot back."""
        self._free.append(slot)

    def fill(self, slot: int, prompt: Array) -> None:
        """Store a prompt's (layers, 2, n, width) keys and values at the start of a slot."""
        self._store[:, :, slot, : prompt.shape[2]] = prompt

    def put(self, layer: int, slots: NDArray[np.int64], positions: NDArray[np.int64], rows: Array) -> None:
        """Store one new token per slot: (R, 2 * width) keys and values side by side."""
        width = self._config.width
        self._store[layer, 0, slots, positions] = rows[:, :width]
        self._store[layer, 1, slots, positions] = rows[:, width:]

    def get(self, layer: int, slots: NDArray[np.int64], length: int) -> tuple[Array, Array]:
        """Return copies of the first `length` keys and values (R, length, width) of some slots."""
        return self._store[layer, 0, slots, :length], self._store[layer, 1, slots, :length]


def prefill_rows(tape: Tape, row: int, length: int) -> Array:
    """Return a copy (layers, 2, length, width) of one sequence's keys and values from a forward pass."""
    return np.stack([(layer.keys[row, :length], layer.values[row, :length]) for layer in tape.layers])


@attrs.frozen(eq=False)
class _Span:
    """Rows whose slots are read up to the same length."""

    rows: NDArray[np.int64]
    slots: NDArray[np.int64]
    length: int
    mask: Array  # (R, 1, length): 0 where the key exists, else -inf


def decode(
    network: Network,
    cache: KeyValueCache,
    slots: NDArray[np.int64],
    positions: NDArray[np.int64],
    tokens: NDArray[np.int64],
) -> Array:
    """Feed one token to each of R slots at its position and return the (R, vocab) logits behind it."""
    count, weights, config = len(slots), network.weights, network.config
    x = np.zeros((padded_length(count), config.width), network.dtype)
    x[:count] = weights["embed"][tokens] + weights["position"][positions]
    spans = _spans(slots, positions, network)
    for layer in range(config.layers):
        name = f"layers.{layer}."
        qkv = linear(normalize(x, config.norm_epsilon)[0], weights[name + "attn.qkv"])
        cache.put(layer, slots, positions, qkv[:count, config.width :])
        mixed = np.zeros_like(x)
        for span in spans:
            keys, values = cache.get(layer, span.slots, span.length)
            mixed[span.rows] = _attend(config, qkv[span.rows, : config.width], keys, values, span.mask)
        x += linear(mixed, weights[name + "attn.out"])
        hidden = linear(normalize(x, config.norm_epsilon)[0], weights[name + "mlp.up"])
        np.maximum(hidden, 0, out=hidden)
        x += linear(np.square(hidden, out=hidden), weights[name + "mlp.down"])
    return head(network, normalize(x, config.norm_epsilon)[0])[:count]


def head(network: Network, final: Array) -> Array:
    """Return the logits of normalized (R, width) rows, R a multiple of 8."""
    return linear(final, network.weights["unembed"])


def _spans(slots: NDArray[np.int64], positions: NDArray[np.int64], network: Network) -> list[_Span]:
    """Sort the rows by the length at which their slots are read: 16, 32, 64, ... up to the context."""
    context = network.config.context_length
    needed = 2 * TILE * 2 ** np.ceil(np.log2(np.maximum((positions + 1) / (2 * TILE), 1))).astype(np.int64)
    lengths = np.minimum(needed, context)
    spans = []
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        missing = np.arange(length) > positions[rows, None]
        mask = np.where(missing, -np.inf, 0.0).astype(network.dtype)[:, None, :]
        spans.append(_Span(rows, slots[rows], int(length), mask))
    return spans


def _attend(config: ModelConfig, query: Array, keys: Array, values: Array, mask: Array) -> Array:
    """Return what (R, width) queries find in their own (R, S, width) keys and values."""
    rows, heads, head_width = len(query), config.heads, config.head_width
    spread = np.zeros((rows, padded_length(heads), heads, head_width), query.dtype)
    which = np.arange(heads)
    spread[:, which, which] = query.reshape(rows, heads, head_width) * config.head_width**-0.5
    scores = np.matmul(spread.reshape(rows, -1, config.width), keys.swapaxes(1, 2))
    scores += mask
    found = np.matmul(softmax_in_place(scores), values)
    mixed = found.reshape(rows, -1, heads, head_width)[:, which, which]
    return np.asarray(mixed.reshape(rows, config.width))
