from __future__ import annotations

import numpy as np
import pytest

from tinker_actors.local.transformer import (
    Array,
    FullGradient,
    ModelConfig,
    Network,
    backward,
    forward,
    initial_weights,
    linear,
    linear_shapes,
    log_softmax,
    padded_length,
    weight_shapes,
)

CONFIG = ModelConfig(vocab_size=13, context_length=16, layers=2, width=16, heads=4, mlp_width=24)


def log_probability(weights: dict[str, Array], tokens: np.ndarray, direction: Array) -> float:
    """A scalar of everything the network computes: a random combination of all log-probabilities."""
    network = Network(CONFIG, weights)
    return float((log_softmax(forward(network, tokens).logits(network)) * direction).sum())


def full_gradient(weights: dict[str, Array], tokens: np.ndarray, direction: Array) -> dict[str, Array]:
    network = Network(CONFIG, weights)
    tape = forward(network, tokens)
    every = log_softmax(tape.logits(network))
    grad_logits = direction - np.exp(every) * direction.sum(axis=-1, keepdims=True)
    sink = FullGradient(network)
    backward(network, tape, grad_logits, sink)
    return sink.arrays


@pytest.mark.parametrize("name", list(weight_shapes(CONFIG)))
def test_backward_matches_central_differences_for_every_kind_of_weight(name: str) -> None:
    """Every base weight's gradient equals the slope of the forward pass to 1e-6 in float64."""
    random = np.random.default_rng(1)
    weights = initial_weights(CONFIG, 0, np.float64)
    tokens = random.integers(0, 13, (3, 16))
    direction = random.standard_normal((3, 16, 13))
    gradient = full_gradient(weights, tokens, direction)[name]
    step = random.standard_normal(gradient.shape)
    slopes = []
    for sign in (1, -1):
        moved = {**weights, name: weights[name] + sign * 1e-6 * step}
        slopes.append(log_probability(moved, tokens, direction))
    assert (slopes[0] - slopes[1]) / 2e-6 == pytest.approx(float((gradient * step).sum()), rel=1e-6)


def test_single_entries_of_the_gradient_match_central_differences() -> None:
    """Not only along random directions: the largest and some arbitrary entries of each weight agree too."""
    random = np.random.default_rng(2)
    weights = initial_weights(CONFIG, 3, np.float64)
    tokens = random.integers(0, 13, (2, 8))
    direction = random.standard_normal((2, 8, 13))
    for name, gradient in full_gradient(weights, tokens, direction).items():
        for index in {int(np.abs(gradient).argmax()), *random.integers(0, gradient.size, 2).tolist()}:
            at = np.unravel_index(index, gradient.shape)
            values = []
            for sign in (1, -1):
                moved = {**weights, name: weights[name].copy()}
                moved[name][at] += sign * 1e-6
                values.append(log_probability(moved, tokens, direction))
            slope = (values[0] - values[1]) / 2e-6
            assert slope == pytest.approx(gradient[at], rel=1e-4, abs=1e-7), (name, at)


def test_forward_agrees_with_a_plain_transcription_of_the_formulas() -> None:
    """The tiled, head-splitting pass computes what the module's docstring says, written here with loops."""
    weights = initial_weights(CONFIG, 5, np.float64)
    network = Network(CONFIG, weights)
    tokens = np.random.default_rng(3).integers(0, 13, (1, 8))

    def norm(x: Array) -> Array:
        return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + CONFIG.norm_epsilon)

    x = weights["embed"][tokens[0]] + weights["position"][:8]
    for layer in range(2):
        qkv = norm(x) @ weights[f"layers.{layer}.attn.qkv"]
        mixed = np.zeros((8, 16))
        for head in range(4):
            q, k, v = (qkv[:, part * 16 + head * 4 : part * 16 + head * 4 + 4] for part in range(3))
            for i in range(8):
                scores = np.exp([q[i] @ k[j] / 2 for j in range(i + 1)])
                mixed[i, head * 4 : head * 4 + 4] = scores @ v[: i + 1] / scores.sum()
        x = x + mixed @ weights[f"layers.{layer}.attn.out"]
        x = (
            x
            + np.maximum(norm(x) @ weights[f"layers.{layer}.mlp.up"], 0) ** 2
            @ weights[f"layers.{layer}.mlp.down"]
        )
    np.testing.assert_allclose(
        forward(network, tokens).logits(network)[0], norm(x) @ weights["unembed"], rtol=1e-10
    )


def test_a_token_changes_nothing_before_it() -> None:
    """Attention is causal, bit for bit."""
    network = Network(CONFIG, initial_weights(CONFIG, 0))
    tokens = np.random.default_rng(4).integers(0, 13, (1, 16))
    changed = tokens.copy()
    changed[0, 9] = (changed[0, 9] + 1) % 13
    before, after = (forward(network, row).logits(network) for row in (tokens, changed))
    assert before[0, :9].tobytes() == after[0, :9].tobytes()
    assert not np.array_equal(before[0, 9], after[0, 9])


def test_linear_gives_a_row_the_same_bits_wherever_it_stands() -> None:
    """The product of a row and a matrix depends neither on its place in a tile nor on the other rows."""
    random = np.random.default_rng(5)
    row = random.standard_normal(64).astype(np.float32)
    for outputs in (64, 100, 192):
        matrix = random.standard_normal((64, outputs)).astype(np.float32)
        seen = set()
        for place in range(24):
            rows = random.standard_normal((24, 64)).astype(np.float32)
            rows[place] = row
            seen.add(linear(rows, matrix)[place].tobytes())
        assert len(seen) == 1


def test_padded_length_is_the_next_multiple_of_eight() -> None:
    """Products never have fewer than 8 rows, nor a number that is no multiple of 8."""
    assert [padded_length(n) for n in (1, 7, 8, 9, 16, 127)] == [8, 8, 8, 16, 16, 128]


def test_weight_shapes_of_the_shipped_sizes() -> None:
    """The default sizes make about 100,000 parameters, and every dense matrix is among them."""
    config = ModelConfig(vocab_size=100)
    sizes = {name: rows * columns for name, (rows, columns) in weight_shapes(config).items()}
    assert sum(sizes.values()) == 102_912
    assert set(sizes) == {"embed", "position", *linear_shapes(config)}


def test_initial_weights_follow_the_seed() -> None:
    """The same seed gives the same bits, another seed others."""
    a, b, c = (initial_weights(CONFIG, seed) for seed in (1, 1, 2))
    assert all(a[name].tobytes() == b[name].tobytes() != c[name].tobytes() for name in weight_shapes(CONFIG))
