from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinker_actors.errors import APIResponseValidationError, InputError
from tinker_actors.protocol.creation import check_base_model, check_optimizer, lora_config, shape_of
from tinker_actors.wire.model import LoraConfig
from tinker_actors.wire.optimizer import AdamOptimizerConfig, DimuonOptimizerConfig, OptimizerConfigBase
from tinker_actors.wire.weights import WeightsInfoResponse

PATH = "tinker://run/weights/a"


def adapter(**changes: Any) -> LoraConfig:
    settings: dict[str, Any] = {"rank": 8, "seed": None, "train_unembed": True, "train_mlp": True}
    return lora_config(**({**settings, "train_attn": True} | changes), draw=lambda: 99)


def test_an_adapter_has_a_seed_of_its_own_or_a_drawn_one() -> None:
    """So it can be made again just as it was."""
    assert adapter() == LoraConfig(rank=8, seed=99)
    assert adapter(rank=np.int64(4), seed=np.int32(7)) == LoraConfig(rank=4, seed=7)
    assert type(adapter(rank=np.int64(4)).rank) is int
    assert adapter(seed=0, train_mlp=False) == LoraConfig(rank=8, seed=0, train_mlp=False)


@pytest.mark.requirement("R20")
@pytest.mark.lesson("D32")
@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        (
            {"train_unembed": False, "train_mlp": False, "train_attn": False},
            "train_mlp, train_attn, train_unembed",
            False,
        ),
        ({"rank": 0}, "rank", 0),
        ({"rank": 4097}, "rank", 4097),
        ({"rank": True}, "rank", True),
        ({"rank": 8.0}, "rank", 8.0),
        ({"train_mlp": "no"}, "train_mlp", "no"),
        ({"train_attn": 1}, "train_attn", 1),
        ({"train_unembed": None}, "train_unembed", None),
        ({"seed": -1}, "seed", -1),
        ({"seed": 2**63}, "seed", 2**63),
        ({"seed": "1"}, "seed", "1"),
    ],
)
def test_other_adapters_are_refused(changes: Any, field: str, value: object) -> None:
    """Field and value are told."""
    with pytest.raises(InputError) as caught:
        adapter(**changes)
    assert (caught.value.field, caught.value.value) == (field, value)


def test_models_and_optimizers_have_names() -> None:
    """Anything else is refused before it is sent."""
    assert check_base_model("a/b") == "a/b"
    for name in ("", None, 3):
        with pytest.raises(InputError, match="base_model"):
            check_base_model(name)
    for config in (None, AdamOptimizerConfig(), DimuonOptimizerConfig(), OptimizerConfigBase("lion")):
        assert check_optimizer(config) is config
    with pytest.raises(InputError, match="optimizer"):
        check_optimizer("adamw")


@pytest.mark.lesson("D61")
@pytest.mark.parametrize("said", [True, False, None])
def test_a_state_keeps_what_was_trained(said: bool | None) -> None:
    """What the service does not say was trained, was."""
    info = WeightsInfoResponse(base_model="m", is_lora=True, lora_rank=4, train_attn=said, train_mlp=True)
    assert shape_of(PATH, info, 7) == LoraConfig(rank=4, seed=7, train_attn=said is not False)
    info = WeightsInfoResponse(base_model="m", is_lora=True, lora_rank=4, train_mlp=said, train_unembed=said)
    trained = said is not False
    assert shape_of(PATH, info, 7) == LoraConfig(rank=4, seed=7, train_mlp=trained, train_unembed=trained)


def test_a_state_of_another_kind_of_model_is_refused() -> None:
    """No adapters, or no rank."""
    with pytest.raises(InputError, match="without adapters"):
        shape_of(PATH, WeightsInfoResponse(base_model="m", is_lora=False), 7)
    with pytest.raises(APIResponseValidationError, match="rank"):
        shape_of(PATH, WeightsInfoResponse(base_model="m", is_lora=True), 7)
