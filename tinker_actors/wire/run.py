"""Training runs and their checkpoints, as the service lists them, and the paths that checkpoints have.

The service's own paths have three parts: `tinker://<run>/<weights, sampler_weights or external_weights>/<name>`, where
a run's id may have colons, as in `f00d:train:0`. What asks for a checkpoint's parts takes these alone. Other services
give paths of other shapes for what they saved: without the second part, with a scheme of their own, or that of a file.
Those can be loaded and sampled from as they were given (`check_weights_path`), and have no parts to ask for.
"""

import re
from collections.abc import Mapping
from typing import Literal, cast

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
    "check_weights_path",
]

CheckpointType = Literal["training", "sampler", "external"]

# tinker 0.38.0 types/checkpoint.py
_TYPES: Mapping[str, CheckpointType] = {
    "weights": "training",
    "sampler_weights": "sampler",
    "external_weights": "external",
}
_SCHEME = "tinker://"
# What would end a part early in the path of a URL, control characters, and half characters, which have no bytes.
_FORBIDDEN = re.compile("[/?#\x00-\x1f\x7f\ud800-\udfff]")
_PARTS = 3
_DOTS = ("", ".", "..")
_ANY_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://[^\x00-\x20\x7f]+")


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

    @property
    def name(self) -> str:
        """What the checkpoint was saved as."""
        return self.checkpoint_id.partition("/")[2]

    @classmethod
    def from_tinker_path(
        cls, tinker_path: str, *, field: str = "tinker_path"
    ) -> "ParsedCheckpointTinkerPath":
        """Take a path apart.

        Args:
            tinker_path: the path.
            field: what the caller calls it, for the error.

        Raises:
            InputError: not `tinker://<run>/<weights, sampler_weights or external_weights>/<name>`.
        """
        if not isinstance(cast("object", tinker_path), str):
            raise InputError(field, tinker_path, "must be a text")
        parts = tinker_path.removeprefix(_SCHEME).split("/")
        if not tinker_path.startswith(_SCHEME) or len(parts) != _PARTS or parts[1] not in _TYPES:
            why = f"must be {_SCHEME}<run>/<{', '.join(_TYPES)}>/<name>{_hint(tinker_path, parts)}"
            raise InputError(field, tinker_path, why)
        for part in parts:
            if part in _DOTS:
                raise InputError(field, tinker_path, f"a part of the path cannot be {part!r}")
            if found := _FORBIDDEN.search(part):
                raise InputError(field, tinker_path, f"a part of the path cannot hold {found.group()!r}")
        return cls(
            tinker_path=tinker_path,
            training_run_id=parts[0],
            checkpoint_type=_TYPES[parts[1]],
            checkpoint_id=f"{parts[1]}/{parts[2]}",
        )


def _hint(path: str, parts: list[str]) -> str:
    """Say what may have been meant by a path that another service gave."""
    if path.startswith(_SCHEME) and len(parts) == _PARTS - 1 and all(parts):
        return "; the checkpoints of the run are listed with their whole paths"
    return ""


def check_weights_path(field: str, value: str) -> str:
    """Return where saved weights are, as some service gave it: a path to load or to sample from, not to take apart.

    Args:
        field: what the caller calls it.
        value: a URL such as `tinker://...`, or the absolute path of a file on the service's machine.

    Raises:
        InputError: neither; a base model's name, perhaps.
    """
    if isinstance(cast("object", value), str) and (_ANY_SCHEME.fullmatch(value) or _is_file(value)):
        return value
    hint = "; a base model is given as base_model=" if field == "model_path" else ""
    raise InputError(field, value, f"must start with tinker://{hint}")


def _is_file(path: str) -> bool:
    return path.startswith("/") and path.strip("/") != "" and path.isprintable()
