"""Training runs and their checkpoints, as the service lists them."""

from collections.abc import Mapping
from typing import Literal

import attrs

from tinker_actors.errors import InputError
from tinker_actors.wire.field import Timestamp, timestamp

__all__ = [
    "Checkpoint",
    "CheckpointType",
    "CheckpointsListResponse",
    "Cursor",
    "ParsedCheckpointTinkerPath",
    "TrainingRun",
    "TrainingRunsResponse",
]

CheckpointType = Literal["training", "sampler", "external"]

# tinker 0.38.0 types/checkpoint.py
_TYPES: Mapping[str, CheckpointType] = {
    "weights": "training",
    "sampler_weights": "sampler",
    "external_weights": "external",
}
_SCHEME = "tinker://"


@attrs.frozen(kw_only=True)
class Checkpoint:
    """Saved weights.

    Attributes:
        checkpoint_id: such as `weights/0001`.
        checkpoint_type: `training`, `sampler` or `external`.
        time: when they were saved.
        tinker_path: `tinker://<run>/<checkpoint id>`.
        size_bytes: how much they weigh.
        public: whether everybody may read them.
        user_metadata: what is kept with them.
        expires_at: when they go; None is never.
    """

    checkpoint_id: str
    checkpoint_type: str
    time: Timestamp = attrs.field(converter=timestamp)
    tinker_path: str
    size_bytes: int | None = None
    public: bool = False
    user_metadata: Mapping[str, str] | None = None
    expires_at: Timestamp | None = attrs.field(default=None, converter=attrs.converters.optional(timestamp))


@attrs.frozen(kw_only=True)
class Cursor:
    """Which part of a list a page is."""

    offset: int
    limit: int
    total_count: int


@attrs.frozen
class CheckpointsListResponse:
    """A list of checkpoints; all of them if there is no cursor."""

    checkpoints: tuple[Checkpoint, ...]
    cursor: Cursor | None = None


@attrs.frozen(kw_only=True)
class TrainingRun:
    """One model that was trained.

    Attributes:
        training_run_id: the model's id.
        base_model: what it was made of.
        model_owner: whose it is.
        is_lora: whether an adapter was trained.
        corrupted: whether it was lost to a failure and cannot be gone on with.
        lora_rank: rank of the adapter.
        last_request_time: when it was last used.
        last_checkpoint: the newest checkpoint with the optimizer.
        last_sampler_checkpoint: the newest checkpoint for sampling.
        user_metadata: what is kept with it.
    """

    training_run_id: str
    base_model: str
    model_owner: str
    is_lora: bool
    corrupted: bool = False
    lora_rank: int | None = None
    last_request_time: Timestamp = attrs.field(converter=timestamp)
    last_checkpoint: Checkpoint | None = None
    last_sampler_checkpoint: Checkpoint | None = None
    user_metadata: Mapping[str, str] | None = None


@attrs.frozen
class TrainingRunsResponse:
    """A page of training runs."""

    training_runs: tuple[TrainingRun, ...]
    cursor: Cursor


@attrs.frozen(kw_only=True)
class ParsedCheckpointTinkerPath:
    """The parts of a checkpoint's path.

    Attributes:
        tinker_path: the whole.
        training_run_id: the model that was saved.
        checkpoint_type: `training`, `sampler` or `external`.
        checkpoint_id: such as `weights/0001`.
    """

    tinker_path: str
    training_run_id: str
    checkpoint_type: CheckpointType
    checkpoint_id: str

    @classmethod
    def from_tinker_path(cls, tinker_path: str) -> "ParsedCheckpointTinkerPath":
        """Take a path apart.

        Raises:
            InputError: not `tinker://<run>/<weights, sampler_weights or external_weights>/<name>`.
        """
        run, _, checkpoint_id = tinker_path.removeprefix(_SCHEME).partition("/")
        segment, _, name = checkpoint_id.partition("/")
        good = tinker_path.startswith(_SCHEME) and run and name and "/" not in name
        if not good or segment not in _TYPES:
            why = f"must be {_SCHEME}<run>/<{', '.join(_TYPES)}>/<name>"
            raise InputError("tinker_path", tinker_path, why)
        return cls(
            tinker_path=tinker_path,
            training_run_id=run,
            checkpoint_type=_TYPES[segment],
            checkpoint_id=checkpoint_id,
        )
