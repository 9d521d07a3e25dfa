from __future__ import annotations

import numpy as np
import pytest

from tinker_actors.local.cache import KeyValueCache, decode, prefill_rows
from tinker_actors.local.transformer import ModelConfig, Network, forward, initial_weights

CONFIG = ModelConfig(vocab_size=13, context_length=64, layers=2, width=16, heads=4, mlp_width=24)
NETWORK = Network(CONFIG, initial_weights(CONFIG, 0, np.float64))


def filled(tokens: np.ndarray, lengths: list[int]) -> tuple[KeyValueCache, list[int]]:
    """A cache with the first `lengths` tokens of each row, and the rows' slots."""
    cache = KeyValueCache(CONFIG, NETWORK.dtype, 8)
    tape = forward(NETWORK, tokens)
    slots = [cache.acquire() for _ in lengths]
    for row, (slot, length) in enumerate(zip(slots, lengths, strict=True)):
        cache.fill(slot, prefill_rows(tape, row, length))
    return cache, slots


def test_token_by_token_gives_what_the_whole_sequence_gives() -> None:
    """Decoding from the cache, at any length, agrees with the forward pass over all tokens."""
    tokens = np.random.default_rng(0).integers(0, 13, (3, 64))
    lengths = [1, 15, 40]
    cache, slots = filled(tokens, lengths)
    whole = forward(NETWORK, tokens).logits(NETWORK)
    for step in range(24):
        positions = np.array(lengths) + step
        logits = decode(NETWORK, cache, np.array(slots), positions, tokens[np.arange(3), positions])
        np.testing.assert_allclose(logits, whole[np.arange(3), positions], rtol=1e-9)


def test_what_a_slot_held_before_does_not_show() -> None:
    """A reused slot gives the bits of a fresh one, although it is not wiped."""
    tokens = np.random.default_rng(1).integers(0, 13, (1, 64))
    results = []
    for used in (False, True):
        cache = KeyValueCache(CONFIG, NETWORK.dtype, 1)
        slot = cache.acquire()
        if used:
            cache.fill(slot, np.full((2, 2, 64, 16), 1e3))
            cache.release(slot)
            slot = cache.acquire()
        cache.fill(slot, prefill_rows(forward(NETWORK, tokens), 0, 9))
        results.append(decode(NETWORK, cache, np.array([slot]), np.array([9]), tokens[:, 9]).tobytes())
    assert results[0] == results[1]


def test_slots_are_lent_and_given_back() -> None:
    """No slot is lent twice at a time, and there are no more than were asked for."""
    cache = KeyValueCache(CONFIG, NETWORK.dtype, 3)
    taken = [cache.acquire() for _ in range(3)]
    assert sorted(taken) == [0, 1, 2]
    assert cache.available == 0
    with pytest.raises(IndexError):
        cache.acquire()
    cache.release(taken[1])
    assert (cache.available, cache.acquire()) == (1, taken[1])
    assert cache.nbytes == 2 * 2 * 3 * 64 * 16 * 8
