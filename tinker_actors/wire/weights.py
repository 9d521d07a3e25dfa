"""Saved weights: saving, loading, copying them, and what they are."""

from collections.abc import Mapping
from typing import Literal

import attrs

from tinker_actors.errors import InputError
from tinker_actors.wire.field import Timestamp, null, since, timestamp
from tinker_actors.wire.optimizer import ADAM_CONFIG, OptimizerConfig
from tinker_actors.wire.sampling import SamplingClientKind

__all__ = [
    "CheckpointArchiveUrlResponse",
    "CopyWeightsRequest",
    "CopyWeightsResponse",
    "ExternalWeightsUrlsResponse",
    "LoadWeightsRequest",
    "LoadWeightsResponse",
    "SaveWeightsExternalRequest",
    "SaveWeightsExternalResponse",
    "SaveWeightsForSamplerRequest",
    "SaveWeightsForSamplerResponse",
    "SaveWeightsForSamplerResult",
    "SaveWeightsRequest",
    "SaveWeightsResponse",
    "SetCheckpointTtlRequest",
    "WeightsInfoRequest",
    "WeightsInfoResponse",
]

# tinker 0.38.0 lib/public_interfaces/training_client.py
_MAX_RECIPIENTS = 10


@attrs.frozen(kw_only=True)
class LoadWeightsRequest:
    """Loads saved weights, with the optimizer's state if asked.

    It goes to a model that exists (`model_id` and `seq_id`), or makes one in a session (`session_id` and
    `model_seq_id`), for which the other settings are.

    Attributes:
        model_id: the model.
        seq_id: the request's number there.
        session_id: the session that gets a new model.
        model_seq_id: the new model's number there.
        path: where the weights are.
        optimizer: load the optimizer's state too.
        base_model: of the new model.
        user_metadata: of the new model.
        optimizer_config: of the new model.
        weights_access_token: admits to weights of another account.

    Raises:
        InputError: it is not said where to, or it is said in both ways.
    """

    model_id: str | None = None
    session_id: str | None = None
    model_seq_id: int | None = None
    base_model: str | None = None
    user_metadata: Mapping[str, str] | None = None
    optimizer_config: OptimizerConfig | None = None
    path: str
    optimizer: bool
    seq_id: int | None = None
    weights_access_token: str | None = attrs.field(default=None, repr=False)
    type: Literal["load_weights"] = "load_weights"

    def __attrs_post_init__(self) -> None:
        model = (self.model_id is not None, self.seq_id is not None)
        session = (self.session_id is not None, self.model_seq_id is not None)
        if sorted((model, session)) != [(False, False), (True, True)]:
            why = "either model_id and seq_id, or session_id and model_seq_id must be given"
            raise InputError("model_id", self.model_id, why)


@attrs.frozen(kw_only=True)
class LoadWeightsResponse:
    """The weights are loaded."""

    path: str | None = None
    model_id: str | None = None
    type: Literal["load_weights"] | None = None


@attrs.frozen(kw_only=True)
class SaveWeightsRequest:
    """Saves weights and optimizer under a name.

    Attributes:
        model_id: the model.
        path: the name; the service finds one if there is none.
        seq_id: the request's number.
        ttl_seconds: how long they are kept; None is for ever.
        overwrite: take the place of weights of the same name.
        user_metadata: kept with the weights.
    """

    model_id: str
    path: str | None = None
    seq_id: int | None = None
    ttl_seconds: int | None = None
    overwrite: bool = attrs.field(default=False, metadata=since("0.20.0"))
    user_metadata: Mapping[str, str] | None = None
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
    path: str | None = None
    sampling_session_seq_id: int | None = None
    kind: SamplingClientKind = attrs.field(default="snapshot", metadata=since("0.38.0"))
    seq_id: int | None = None
    ttl_seconds: int | None = None
    user_metadata: Mapping[str, str] | None = None
    type: Literal["save_weights_for_sampler"] = "save_weights_for_sampler"


@attrs.frozen(kw_only=True)
class SaveWeightsForSamplerResult:
    """What the service answers: a path if the weights are named, a sampling session if not.

    Users see a `SaveWeightsForSamplerResponse`, or a client of the session.
    """

    path: str | None = None
    sampling_session_id: str | None = None
    type: Literal["save_weights_for_sampler"] | None = None


@attrs.frozen
class SaveWeightsForSamplerResponse:
    """Where weights for sampling are.

    Attributes:
        path: `tinker://<model id>/sampler_weights/<name>`.
    """

    path: str


@attrs.frozen(kw_only=True)
class SaveWeightsExternalRequest:
    """Saves weights in the format of PEFT, for use elsewhere.

    Attributes:
        model_id: the model.
        path: the name.
        seq_id: the request's number.
        ttl_seconds: how long they are kept; None is for ever.
        age_encryption_recipients: who can read them, by public keys of age; None is everybody with the URL.

    Raises:
        InputError: more recipients than the service takes.
    """

    model_id: str
    path: str
    seq_id: int | None = None
    ttl_seconds: int | None = None
    age_encryption_recipients: tuple[str, ...] | None = None
    type: Literal["save_weights_external"] = "save_weights_external"

    def __attrs_post_init__(self) -> None:
        recipients = len(self.age_encryption_recipients or ())
        if recipients > _MAX_RECIPIENTS:
            raise InputError(
                "age_encryption_recipients", recipients, f"at most {_MAX_RECIPIENTS} may read them"
            )


@attrs.frozen(kw_only=True)
class SaveWeightsExternalResponse:
    """Where the weights are.

    Attributes:
        path: `tinker://<model id>/external_weights/<name>`.
        size_bytes: how much they weigh.
    """

    path: str
    size_bytes: int | None = None
    type: Literal["save_weights_external"] | None = None


@attrs.frozen(kw_only=True)
class CopyWeightsRequest:
    """Copies a checkpoint into a project, or to a model of a session.

    Attributes:
        source_path: the checkpoint.
        destination_project_id: the project that gets it.
        session_id: the session that gets it.
        model_seq_id: the number of its model there.
        ttl_seconds: how long the copy is kept; None is for ever.
        weights_access_token: admits to weights of another account.
    """

    source_path: str
    destination_project_id: str | None = None
    session_id: str | None = None
    model_seq_id: int | None = None
    ttl_seconds: int | None = None
    weights_access_token: str | None = attrs.field(default=None, repr=False)


@attrs.frozen
class CopyWeightsResponse:
    """Where the copy is."""

    tinker_path: str


@attrs.frozen
class SetCheckpointTtlRequest:
    """Says how long a checkpoint is kept.

    Attributes:
        ttl_seconds: from now; None is for ever.
    """

    ttl_seconds: int | None = attrs.field(metadata=null())


# --- what they are ---------------------------------------------------------------------------------------


@attrs.frozen
class WeightsInfoRequest:
    """Asks what a checkpoint was made of."""

    tinker_path: str


@attrs.frozen(kw_only=True)
class WeightsInfoResponse:
    """What a checkpoint was made of: enough to make a model that can load it."""

    base_model: str
    is_lora: bool
    optimizer_config: OptimizerConfig = attrs.field(default=ADAM_CONFIG, metadata=since("0.30.4"))
    lora_rank: int | None = None
    train_unembed: bool | None = None
    train_mlp: bool | None = None
    train_attn: bool | None = None


@attrs.frozen
class ExternalWeightsUrlsResponse:
    """Where the files of external weights can be fetched.

    Attributes:
        urls: the URL of each file, by its path. Who has it can read the file.
        expires: until when they hold.
    """

    urls: Mapping[str, str] = attrs.field(repr=False)
    expires: Timestamp = attrs.field(converter=timestamp)


@attrs.frozen
class CheckpointArchiveUrlResponse:
    """Where a checkpoint's archive can be fetched, from services of before 0.36.0.

    Attributes:
        url: who has it can read the archive.
        expires: until when it holds.
    """

    url: str = attrs.field(repr=False)
    expires: Timestamp | None = attrs.field(default=None, converter=attrs.converters.optional(timestamp))
