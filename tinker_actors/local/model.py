"""The base models the package brings along: frozen weights, sizes and a tokenizer, in a folder of files."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import attrs
import cattrs
import numpy as np
from safetensors.numpy import load, save
from tokenizers import Tokenizer

from tinker_actors.errors import ConfigError, InputError

from .lora import checked_array
from .tokenizer import EOS_TOKEN, token_texts
from .transformer import Array, ModelConfig, Network, weight_shapes

__all__ = ["BASE_MODELS", "BaseModel", "load_base_model", "load_tokenizer"]

BASE_MODELS: Mapping[str, Path] = MappingProxyType(
    {"tinker-actors/char-100k": Path(__file__).parent / "models" / "char-100k"}
)
CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE = "config.json", "model.safetensors", "tokenizer.json"


@attrs.frozen(eq=False)
class BaseModel:
    """A base model. Nothing of it ever changes, so any number of trainers and samplers share one.

    Attributes:
        name: what clients ask for, such as `tinker-actors/char-100k`.
        config: sizes.
        weights: read-only arrays, all of `weight_shapes(config)`, float32 (or float64 in numerical tests).
        tokenizer: from text to tokens and back.
        network: the weights in the form the passes use.
        token_texts: the text of each token, by id.
        eos: id of the token that ends a sample when the request names no stop of its own.
    """

    name: str
    config: ModelConfig
    weights: Mapping[str, Array]
    tokenizer: Tokenizer
    network: Network
    token_texts: tuple[str, ...]
    eos: int

    @classmethod
    def build(
        cls, name: str, config: ModelConfig, weights: Mapping[str, Array], tokenizer: Tokenizer
    ) -> BaseModel:
        """Return a base model over copies of these weights.

        Raises:
            InputError: a weight is missing or has another shape, or the tokenizer another vocabulary.
        """
        if tokenizer.get_vocab_size() != config.vocab_size:
            raise InputError(
                "vocab_size", config.vocab_size, f"the tokenizer has {tokenizer.get_vocab_size()}"
            )
        eos = tokenizer.token_to_id(EOS_TOKEN)
        if eos is None:
            raise InputError("tokenizer", EOS_TOKEN, "the vocabulary lacks the token that ends a text")
        frozen = {
            key: _frozen(checked_array(weights, key, shape)) for key, shape in weight_shapes(config).items()
        }
        return cls(
            name,
            config,
            MappingProxyType(frozen),
            tokenizer,
            Network(config, frozen),
            token_texts(tokenizer),
            eos,
        )

    @classmethod
    def load(cls, path: Path, name: str | None = None) -> BaseModel:
        """Read a folder written by `save`. Weights stored as float16 are widened to float32, which is exact.

        Raises:
            ConfigError: a file is missing or not what it should be; the cause is chained.
        """
        try:
            sizes = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8"))
            config = cattrs.structure(sizes, ModelConfig)
            stored = load((path / WEIGHTS_FILE).read_bytes())
            tokenizer = Tokenizer.from_file(str(path / TOKENIZER_FILE))
            weights = {key: array.astype(np.float32) for key, array in stored.items()}
            return cls.build(name or path.name, config, weights, tokenizer)
        except Exception as exc:  # tokenizers and safetensors raise plain Exception
            raise ConfigError(f"{path} does not hold a base model: {exc}") from exc

    def save(self, path: Path) -> None:
        """Write config.json, model.safetensors (float16) and tokenizer.json into a folder."""
        path.mkdir(parents=True, exist_ok=True)
        sizes = json.dumps(attrs.asdict(self.config), indent=2) + "\n"
        (path / CONFIG_FILE).write_text(sizes, encoding="utf-8")
        stored = {key: array.astype(np.float16) for key, array in self.weights.items()}
        (path / WEIGHTS_FILE).write_bytes(save(stored))
        self.tokenizer.save(str(path / TOKENIZER_FILE))


def _frozen(array: Array) -> Array:
    copy = np.ascontiguousarray(array).copy()
    copy.setflags(write=False)
    return copy


def load_base_model(name: str) -> BaseModel:
    """Return a base model of this package, read once per process.

    Raises:
        InputError: there is none of this name; the message lists those there are.
    """
    if name not in BASE_MODELS:
        raise InputError("base_model", name, f"the embedded service has {', '.join(BASE_MODELS)}")
    return _load_once(name)


@functools.cache
def _load_once(name: str) -> BaseModel:
    return BaseModel.load(BASE_MODELS[name], name)


def load_tokenizer(name: str) -> Tokenizer:
    """Return the tokenizer of a base model of this package.

    Raises:
        InputError: there is no such model.
    """
    return load_base_model(name).tokenizer
