"""Models: making, describing and dropping them."""

from collections.abc import Mapping
from typing import Literal

import attrs

from tinker_actors.wire.field import since
from tinker_actors.wire.optimizer import ADAM_CONFIG, OptimizerConfig

__all__ = [
    "CreateModelRequest",
    "CreateModelResponse",
    "GetInfoRequest",
    "GetInfoResponse",
    "LoraConfig",
    "ModelData",
    "UnloadModelRequest",
    "UnloadModelResponse",
]


@attrs.frozen(kw_only=True)
class LoraConfig:
    """The adapter that is trained.

    Attributes:
        rank: rank of each adapter pair.
        seed: makes the initial weights repeatable.
        train_unembed: adapt the output layer.
        train_mlp: adapt the MLP layers.
        train_attn: adapt the attention layers.
    """

    rank: int
    seed: int | None = None
    train_unembed: bool = True
    train_mlp: bool = True
    train_attn: bool = True


@attrs.frozen(kw_only=True)
class CreateModelRequest:
    """Makes a new LoRA model over a base model. Takes number 0 of the model's own sequence."""

    session_id: str
    model_seq_id: int
    base_model: str
    user_metadata: Mapping[str, str] | None = None
    lora_config: LoraConfig | None = None
    optimizer_config: OptimizerConfig = attrs.field(default=ADAM_CONFIG, metadata=since("0.30.4"))
    type: Literal["create_model"] = "create_model"


@attrs.frozen
class CreateModelResponse:
    """The id of the new model."""

    model_id: str
    type: Literal["create_model"] = "create_model"


@attrs.frozen
class GetInfoRequest:
    """Asks what a model is."""

    model_id: str
    type: Literal["get_info"] = "get_info"


@attrs.frozen(kw_only=True)
class ModelData:
    """What a service says of the model's architecture and tokenizer."""

    arch: str | None = None
    model_name: str | None = None
    tokenizer_id: str | None = None


@attrs.frozen(kw_only=True)
class GetInfoResponse:
    """What a model is."""

    model_data: ModelData
    model_id: str
    optimizer_config: OptimizerConfig = attrs.field(default=ADAM_CONFIG, metadata=since("0.30.4"))
    is_lora: bool | None = None
    lora_rank: int | None = None
    model_name: str | None = None
    type: Literal["get_info"] | None = None


@attrs.frozen
class UnloadModelRequest:
    """Gives the model's slot on the service back."""

    model_id: str
    type: Literal["unload_model"] = "unload_model"


@attrs.frozen(kw_only=True)
class UnloadModelResponse:
    """The model is gone."""

    model_id: str | None = None
    type: Literal["unload_model"] | None = None
