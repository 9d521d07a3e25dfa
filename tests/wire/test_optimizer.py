from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

from tests.wire.refusals import refusal
from tinker_actors.wire.codec import encode, structure
from tinker_actors.wire.optimizer import (
    ADAM_CONFIG,
    AdamOptimizerConfig,
    AdamParams,
    DimuonOptimizerConfig,
    DimuonParams,
    OptimizerConfigBase,
    OptimParamsBase,
    OptimStepRequest,
)
from tinker_actors.wire.weights import WeightsInfoResponse


@pytest.mark.requirement("R83")
def test_the_defaults_of_adam_are_tinkers() -> None:
    """The numbers of tinker 0.38.0."""
    assert AdamParams() == AdamParams(
        learning_rate=1e-4, beta1=0.9, beta2=0.95, eps=1e-12, weight_decay=0.0, grad_clip_norm=0.0
    )


def test_the_defaults_of_dimuon_are_tinkers() -> None:
    """The step size has none; a negative norm is off."""
    params = DimuonParams(learning_rate=0)
    assert (params.grad_clip_norm, params.beta1, params.type) == (0.0, 0.9, "dimuon")
    assert DimuonParams(learning_rate=np.float32(0.5), grad_clip_norm=-1).grad_clip_norm == -1
    assert DimuonOptimizerConfig() == DimuonOptimizerConfig(version=1)
    assert AdamOptimizerConfig() == ADAM_CONFIG


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"learning_rate": -1e-9}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"learning_rate": True}, "learning_rate"),
        ({"learning_rate": "1"}, "learning_rate"),
        ({"grad_clip_norm": float("inf")}, "grad_clip_norm"),
        ({"beta1": 1.0}, "beta1"),
        ({"beta1": -0.1}, "beta1"),
    ],
    ids=range(7),
)
def test_settings_of_dimuon_out_of_their_range_are_refused(fields: dict[str, Any], field: str) -> None:
    """By their name."""
    assert refusal(DimuonParams, **{"learning_rate": 0.1, **fields}) == (field, fields[field])


@pytest.mark.parametrize("kind", [OptimizerConfigBase, OptimParamsBase])
@pytest.mark.parametrize(
    ("arguments", "field", "value"),
    [
        (("",), "type", ""),
        ((3,), "type", 3),
        (("a", [1]), "extra", [1]),
        (("a", {1: 2}), "extra", 1),
        (("a", {"type": "b"}), "extra", "type"),
    ],
    ids=range(5),
)
def test_an_optimizer_of_ones_own_has_a_name_and_settings(
    kind: Any, arguments: Any, field: str, value: object
) -> None:
    """No settings are none; they cannot take the place of the name."""
    assert kind("a", None) == kind("a")
    assert refusal(kind, *arguments) == (field, value)


def test_settings_are_apart_from_the_callers() -> None:
    """A mapping that is changed later changes nothing."""
    extra = {"lr": 1.0}
    params = OptimParamsBase("sgd", extra)
    extra["lr"] = 2.0
    assert params.extra == {"lr": 1.0}


@pytest.mark.parametrize(
    ("params", "wire"),
    [
        (AdamParams(), "adam_params"),
        (DimuonParams(learning_rate=0.1), "optimizer_params"),
        (OptimParamsBase("sgd", {"lr": 1}), "optimizer_params"),
    ],
    ids=["adam", "dimuon", "other"],
)
def test_the_settings_of_a_step_go_by_the_name_of_their_family(params: Any, wire: str) -> None:
    """Written under one name, read under each of three."""
    request = OptimStepRequest(params, "m", 1)
    body = orjson.loads(encode(request))
    assert set(body) == {"model_id", "seq_id", "type", wire}
    for name in ("adam_params", "optimizer_params", "optim_params"):
        other = {key: value for key, value in body.items() if key != wire} | {name: body[wire]}
        assert structure(OptimStepRequest, other, strict=True) == request


@pytest.mark.parametrize(
    ("config", "value"),
    [
        (ADAM_CONFIG, {"type": "adamw"}),
        (DimuonOptimizerConfig(), {"type": "dimuon", "version": 1}),
        (OptimizerConfigBase("lion", {"a": [None]}), {"type": "lion", "a": [None]}),
    ],
    ids=["adam", "dimuon", "other"],
)
def test_an_optimizer_that_nobody_knows_is_kept(config: Any, value: dict[str, Any]) -> None:
    """With all that it says of itself."""
    info = WeightsInfoResponse(base_model="b", is_lora=True, optimizer_config=config)
    assert orjson.loads(encode(info, newer=True))["optimizer_config"] == value
    body: Any = {"base_model": "b", "is_lora": True, "optimizer_config": value}
    assert structure(WeightsInfoResponse, body, strict=True) == info
