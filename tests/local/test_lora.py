from __future__ import annotations

import numpy as np
import pytest

from tinker_actors.errors import InputError
from tinker_actors.local.lora import (
    ALPHA,
    LoraConfig,
    LoraGradient,
    LoraLayout,
    LoraWeights,
    adapted,
    merge,
    stream,
)
from tinker_actors.local.model import load_base_model
from tinker_actors.local.transformer import (
    FullGradient,
    ModelConfig,
    Network,
    backward,
    forward,
    initial_weights,
)

CONFIG = ModelConfig(vocab_size=13, context_length=16, layers=2, width=16, heads=4, mlp_width=24)
FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


def test_a_fresh_adapter_leaves_the_logits_bit_for_bit() -> None:
    """With B = 0 the adapted model computes the very bits of the base model."""
    base = load_base_model("tinker-actors/char-100k")
    layout = LoraLayout(base.config, LoraConfig(rank=8, seed=3))
    network = adapted(base.network, layout, layout.initial(FLOAT32))
    tokens = np.random.default_rng(0).integers(3, 100, (4, 24))
    plain, with_adapter = (forward(net, tokens).logits(net) for net in (base.network, network))
    assert plain.tobytes() == with_adapter.tobytes()


def test_an_adapter_with_weights_does_change_the_logits() -> None:
    """The identity above is not due to the adapter being ignored."""
    base = load_base_model("tinker-actors/char-100k")
    layout = LoraLayout(base.config, LoraConfig(rank=8, seed=3))
    flat = layout.initial(FLOAT32)
    layout.view(flat, "layers.0.attn.qkv.lora_b")[0, 0] = 0.1
    network = adapted(base.network, layout, flat)
    tokens = np.random.default_rng(0).integers(3, 100, (1, 8))
    assert not np.array_equal(
        forward(network, tokens).logits(network), forward(base.network, tokens).logits(base.network)
    )


def test_initial_a_follows_the_seed_and_b_is_zero() -> None:
    """A is uniform in ±1/sqrt(inputs), another for another seed and another matrix; B is zero."""
    one, same, other = (LoraLayout(CONFIG, LoraConfig(8, seed)) for seed in (1, 1, 2))
    views = one.views(one.initial(FLOAT32))
    assert (
        one.initial(FLOAT32).tobytes() == same.initial(FLOAT32).tobytes() != other.initial(FLOAT32).tobytes()
    )
    assert not np.array_equal(views["layers.0.attn.qkv.lora_a"], views["layers.1.attn.qkv.lora_a"])
    for name, array in views.items():
        if name.endswith("lora_b"):
            assert not array.any()
        else:
            assert 0.5 < np.abs(array).max() * array.shape[0] ** 0.5 <= 1


@pytest.mark.parametrize(
    ("switches", "names"),
    [
        ({}, {"attn.qkv", "attn.out", "mlp.up", "mlp.down", "unembed"}),
        ({"train_unembed": False}, {"attn.qkv", "attn.out", "mlp.up", "mlp.down"}),
        ({"train_attn": False, "train_unembed": False}, {"mlp.up", "mlp.down"}),
        ({"train_mlp": False, "train_attn": False}, {"unembed"}),
    ],
)
def test_switches_choose_the_adapted_matrices(switches: dict[str, bool], names: set[str]) -> None:
    """train_mlp, train_attn and train_unembed each add their matrices, with an A and a B."""
    layout = LoraLayout(CONFIG, LoraConfig(rank=4, **switches))
    found = {
        name.removeprefix("layers.0.").removeprefix("layers.1.").rsplit(".", 1)[0] for name in layout.slots
    }
    assert found == names
    assert sum(name.endswith(".lora_a") for name in layout.slots) * 2 == len(layout.slots)


def test_slots_tile_the_flat_vector() -> None:
    """Every number of the vector belongs to exactly one array."""
    layout = LoraLayout(CONFIG, LoraConfig(rank=3))
    flat = np.zeros(layout.size)
    for view in layout.views(flat).values():
        np.add(view, 1, out=view)
    assert (flat == 1).all()


@pytest.mark.parametrize("bad", [{"rank": 0}, {"rank": 65}])
def test_bad_rank_is_refused(bad: dict[str, int]) -> None:
    """The error names the rank."""
    with pytest.raises(InputError, match="rank"):
        LoraConfig(**bad)


def test_an_adapter_of_nothing_is_refused() -> None:
    """With all three switches off there would be nothing to train."""
    with pytest.raises(InputError, match="at least one of"):
        LoraConfig(train_mlp=False, train_attn=False, train_unembed=False)


def test_merge_adds_the_scaled_product() -> None:
    """W + 32 / rank * A B, and matrices without an adapter stay the same objects."""
    weights = initial_weights(CONFIG, 0, np.float64)
    layout = LoraLayout(CONFIG, LoraConfig(rank=2, train_unembed=False))
    flat = np.random.default_rng(0).standard_normal(layout.size)
    merged = merge(weights, layout, flat)
    a, b = (layout.view(flat, f"layers.1.mlp.up.lora_{side}") for side in "ab")
    np.testing.assert_allclose(merged["layers.1.mlp.up"], weights["layers.1.mlp.up"] + ALPHA / 2 * a @ b)
    assert merged["unembed"] is weights["unembed"]


@pytest.mark.parametrize("off", ["", "train_mlp", "train_attn", "train_unembed"])
@pytest.mark.parametrize("rank", [1, 5, 8])
def test_adapter_gradients_are_the_merged_matrix_gradient_through_the_factors(rank: int, off: str) -> None:
    """Summed over the data, dA = s G Bᵀ and dB = s Aᵀ G with G the full gradient, for any rank and choice."""
    layout = LoraLayout(CONFIG, LoraConfig(rank=rank, **({off: False} if off else {})))
    random = np.random.default_rng(1)
    flat = random.standard_normal(layout.size) * 0.1
    network = adapted(Network(CONFIG, initial_weights(CONFIG, 0, np.float64)), layout, flat)
    tape = forward(network, random.integers(0, 13, (3, 16)))
    grad_logits = random.standard_normal((3, 16, 13))
    full = FullGradient(network)
    backward(network, tape, grad_logits, full)
    rows = np.empty((5, layout.size))
    sink = LoraGradient(layout, flat, rows)
    sink.begin(2)
    backward(network, tape, grad_logits, sink)
    for name, a, b in layout.adapters(flat):
        whole = full.arrays[name]
        summed_a, summed_b = (layout.view(rows[2:], f"{name}.lora_{side}").sum(axis=0) for side in "ab")
        np.testing.assert_allclose(summed_a, layout.scale * whole @ b.T, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(summed_b, layout.scale * a.T @ whole, rtol=1e-9, atol=1e-11)


def test_weights_come_back_from_named_arrays_and_are_frozen() -> None:
    """A sampler's weights survive being stored by name, and nobody can change them."""
    config = LoraConfig(rank=4)
    layout = LoraLayout(CONFIG, config)
    frozen = LoraWeights.from_flat(layout, layout.initial(FLOAT32))
    again = LoraWeights.from_arrays(CONFIG, config, {**frozen.arrays(), "something else": np.ones(1)})
    assert again.flat.tobytes() == frozen.flat.tobytes()
    with pytest.raises(ValueError, match="read-only"):
        frozen.flat[0] = 1


@pytest.mark.parametrize("damage", ["missing", "shape", "nan"])
def test_damaged_arrays_are_refused_by_name(damage: str) -> None:
    """What is missing, ill-shaped or not finite is named."""
    layout = LoraLayout(CONFIG, LoraConfig(rank=4))
    arrays = dict(layout.views(layout.initial(FLOAT64)))
    name = "layers.1.mlp.up.lora_b"
    if damage == "missing":
        del arrays[name]
    else:
        arrays[name] = np.full((4, 24) if damage == "nan" else (4, 23), np.nan)
    with pytest.raises(InputError, match=name):
        layout.gather(arrays, "", FLOAT32)


def test_any_integer_is_a_seed_and_streams_differ() -> None:
    """Negative and huge seeds work; neighbours in seed or index share nothing."""
    draws = {stream(seed, index).random() for seed in (-1, 0, 1, 2**64 - 2, 2**70 + 5) for index in (0, 1)}
    assert len(draws) == 10
    assert stream(-1, 0).random() == stream(2**64 - 1, 0).random()
