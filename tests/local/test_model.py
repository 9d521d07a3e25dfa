from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models

from tinker_actors.errors import ConfigError, InputError
from tinker_actors.local.model import BASE_MODELS, BaseModel, load_base_model, load_tokenizer
from tinker_actors.local.tokenizer import character_tokenizer
from tinker_actors.local.transformer import ModelConfig, initial_weights, weight_shapes

CONFIG = ModelConfig(vocab_size=100, context_length=16, layers=1, width=16, heads=4, mlp_width=24)
NAME = "tinker-actors/char-100k"


def tiny() -> BaseModel:
    weights = {
        name: weight.astype(np.float16).astype(np.float32)
        for name, weight in initial_weights(CONFIG, 0).items()
    }
    return BaseModel.build("tiny", CONFIG, weights, character_tokenizer())


def test_the_shipped_model_has_about_100k_finite_parameters() -> None:
    """It is what its name says, float32 in memory, and small on disk."""
    base = load_base_model(NAME)
    assert base.name == NAME
    assert 90_000 < sum(weight.size for weight in base.weights.values()) < 110_000
    assert all(weight.dtype == np.float32 and np.isfinite(weight).all() for weight in base.weights.values())
    assert sum(file.stat().st_size for file in BASE_MODELS[NAME].iterdir()) < 450_000
    assert base.tokenizer.token_to_id("a") == base.token_texts.index("a")


def test_a_model_is_read_once_and_nobody_can_change_it() -> None:
    """All trainers and samplers of a process share one, so its arrays are read-only."""
    base = load_base_model(NAME)
    assert load_base_model(NAME) is base
    assert load_tokenizer(NAME) is base.tokenizer
    with pytest.raises(ValueError, match="read-only"):
        base.weights["embed"][0, 0] = 1
    with pytest.raises(TypeError):
        base.weights["embed"] = np.zeros(1)  # type: ignore[index]  # that is what is tried


def test_an_unknown_model_is_refused_with_the_list_of_known_ones() -> None:
    """A name meant for another service is answered with what this one has."""
    with pytest.raises(InputError, match=r"Llama.*tinker-actors/char-100k"):
        load_base_model("meta-llama/Llama-3.1-8B")


def test_save_and_load_round_trip(tmp_path: Path) -> None:
    """Sizes, tokenizer and every weight come back; float16 on disk loses nothing of float16 weights."""
    base = tiny()
    base.save(tmp_path / "model")
    again = BaseModel.load(tmp_path / "model")
    assert (again.name, again.config) == ("model", CONFIG)
    assert again.tokenizer.to_str() == base.tokenizer.to_str()
    assert all(
        again.weights[name].tobytes() == base.weights[name].tobytes() for name in weight_shapes(CONFIG)
    )


@pytest.mark.parametrize("damage", ["no folder", "weights", "config", "sizes", "tokenizer"])
def test_a_damaged_folder_is_a_config_error_with_its_cause(tmp_path: Path, damage: str) -> None:
    """The error names the folder; what went wrong inside is chained."""
    folder = tmp_path / "model"
    if damage != "no folder":
        tiny().save(folder)
    if damage == "weights":
        (folder / "model.safetensors").write_bytes(b"\0" * 20)
    elif damage == "config":
        (folder / "config.json").write_text("{", encoding="utf-8")
    elif damage == "sizes":
        sizes = {**json.loads((folder / "config.json").read_text(encoding="utf-8")), "mlp_width": 32}
        (folder / "config.json").write_text(json.dumps(sizes), encoding="utf-8")
    elif damage == "tokenizer":
        (folder / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match="model does not hold a base model") as caught:
        BaseModel.load(folder)
    assert caught.value.__cause__ is not None


def test_weights_that_do_not_fit_are_refused_by_name() -> None:
    """Missing or ill-shaped weights, or another vocabulary, are named."""
    weights = initial_weights(CONFIG, 0)
    with pytest.raises(InputError, match="position"):
        BaseModel.build("x", CONFIG, {**weights, "position": np.zeros((8, 16))}, character_tokenizer())
    with pytest.raises(InputError, match="unembed"):
        BaseModel.build(
            "x",
            CONFIG,
            {name: weight for name, weight in weights.items() if name != "unembed"},
            character_tokenizer(),
        )
    lacking = Tokenizer(models.WordLevel({str(index): index for index in range(100)}, unk_token="0"))
    with pytest.raises(InputError, match="token that ends a text"):
        BaseModel.build("x", CONFIG, weights, lacking)
    with pytest.raises(InputError, match="vocab_size"):
        BaseModel.build("x", ModelConfig(vocab_size=101), weights, character_tokenizer())
