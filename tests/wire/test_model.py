from __future__ import annotations

from tinker_actors.wire.model import LoraConfig


def test_the_defaults_of_an_adapter_are_tinkers() -> None:
    """Every part of the model is adapted unless it is left out."""
    assert LoraConfig(rank=8) == LoraConfig(
        rank=8, seed=None, train_unembed=True, train_mlp=True, train_attn=True
    )
