"""Models and their saved weights."""

from collections.abc import Mapping
from typing import Literal

import attrs

__all__ = [
    "CreateModelRequest",
    "CreateModelResponse",
    "GetInfoRequest",
    "GetInfoResponse",
    "LoadWeightsRequest",
    "LoadWeightsResponse",
    "LoraConfig",
    "ModelData",
    "SaveWeightsForSamplerRequest",
    "SaveWeightsForSamplerResponse",
    "SaveWeightsRequest",
    "SaveWeightsResponse",
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
    is_lora: bool | None = None
    lora_rank: int | None = None
    model_name: str | None = None
    type: Literal["get_info"] | None = None


@attrs.frozen(kw_only=True)
class LoadWeightsRequest:
    """Loads saved weights into a model, with the optimizer's state if asked."""

    model_id: str
    path: str
    optimizer: bool
    seq_id: int
    type: Literal["load_weights"] = "load_weights"


@attrs.frozen(kw_only=True)
class LoadWeightsResponse:
    """The weights are loaded."""

    path: str | None = None
    model_id: str | None = None
    type: Literal["load_weights"] | None = None


@attrs.frozen(kw_only=True)
class SaveWeightsRequest:
    """Saves weights and optimizer under a name."""

    model_id: str
    path: str
    seq_id: int
    ttl_seconds: int | None = None
    type: Literal["save_weights"] = "save_weights"


@attrs.frozen
class SaveWeightsResponse:
    """Where the weights are.

    Attributes:
        path: `tinker://<model id>/weights/<name>`.
    """

    path: str
    type: Literal["save_weights"] | None = None


@attrs.frozen(kw_only=True)
class SaveWeightsForSamplerRequest:
    """Saves weights for sampling: under a name (`path`), or as a sampling session at once."""

    model_id: str
    seq_id: int
    path: str | None = None
    sampling_session_seq_id: int | None = None
    ttl_seconds: int | None = None
    type: Literal["save_weights_for_sampler"] = "save_weights_for_sampler"


@attrs.frozen(kw_only=True)
class SaveWeightsForSamplerResponse:
    """Where the sampler's weights are: a path if named, a sampling session if not."""

    path: str | None = None
    sampling_session_id: str | None = None
    type: Literal["save_weights_for_sampler"] | None = None


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
