"""Checks of what a model is to be, made before a byte is sent, and the shape of one that a saved state fits into."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from typing import cast

from tinker_actors.errors import APIResponseValidationError, InputError
from tinker_actors.protocol.batch import check_flag
from tinker_actors.wire.model import LoraConfig
from tinker_actors.wire.optimizer import (
    AdamOptimizerConfig,
    DimuonOptimizerConfig,
    OptimizerConfig,
    OptimizerConfigBase,
)
from tinker_actors.wire.weights import WeightsInfoResponse

__all__ = ["check_base_model", "check_optimizer", "lora_config", "shape_of"]

_MAX_RANK = 4096
_MAX_SEED = 2**63


def check_base_model(name: object) -> str:
    """Return the name of a base model.

    Raises:
        InputError: it is none.
    """
    if not isinstance(name, str) or not name:
        raise InputError("base_model", name, "must be the name of a model")
    return name


def check_optimizer(config: object) -> OptimizerConfig | None:
    """Return which optimizer a model is trained with; None is the usual one.

    Raises:
        InputError: it is none.
    """
    if config is None or isinstance(
        config, AdamOptimizerConfig | DimuonOptimizerConfig | OptimizerConfigBase
    ):
        return config
    why = "must be AdamOptimizerConfig, DimuonOptimizerConfig, OptimizerConfigBase or None"
    raise InputError("optimizer", config, why)


def lora_config(
    rank: object,
    seed: object,
    train_unembed: bool,
    train_mlp: bool,
    train_attn: bool,
    *,
    draw: Callable[[], int],
) -> LoraConfig:
    """Return an adapter with an explicit seed, so that it can be made again.

    Args:
        rank: of the adapters.
        seed: makes the initial adapters repeatable; None draws one.
        train_unembed: adapt the output layer.
        train_mlp: adapt the MLP layers.
        train_attn: adapt the attention layers.
        draw: gives a seed.

    Raises:
        InputError: nothing to train, a layer that is neither adapted nor not, or a rank or seed out of range.
    """
    check_flag("train_mlp", train_mlp)
    check_flag("train_attn", train_attn)
    check_flag("train_unembed", train_unembed)
    if not (train_mlp or train_attn or train_unembed):
        raise InputError("train_mlp, train_attn, train_unembed", False, "at least one must be true")
    if not _is_integer(rank) or not 1 <= cast("int", rank) <= _MAX_RANK:
        raise InputError("rank", rank, f"must be an integer, 1 to {_MAX_RANK}")
    if seed is not None and not (_is_integer(seed) and 0 <= cast("int", seed) < _MAX_SEED):
        raise InputError("seed", seed, "must be an integer in [0, 2**63), or None")
    return LoraConfig(
        rank=int(cast("int", rank)),
        seed=draw() if seed is None else int(cast("int", seed)),
        train_unembed=train_unembed,
        train_mlp=train_mlp,
        train_attn=train_attn,
    )


def _is_integer(value: object) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, numbers.Integral)  # numpy's integers are some too


def shape_of(path: str, info: WeightsInfoResponse, seed: int) -> LoraConfig:
    """Return the adapter of a model that a saved state can be loaded into.

    Args:
        path: where the state is.
        info: what the service says of it. What it does not say was trained, was: None is true.
        seed: of the adapter; it is overwritten, and makes the model repeatable all the same.

    Raises:
        InputError: the state is of no LoRA model.
        APIResponseValidationError: the service does not say the rank.
    """
    if not info.is_lora:
        raise InputError("path", path, "was saved from a model without adapters, which cannot be made here")
    if info.lora_rank is None:
        raise APIResponseValidationError(f"the service does not say the rank of {path}")
    return LoraConfig(
        rank=info.lora_rank,
        seed=seed,
        train_unembed=info.train_unembed is not False,
        train_mlp=info.train_mlp is not False,
        train_attn=info.train_attn is not False,
    )
