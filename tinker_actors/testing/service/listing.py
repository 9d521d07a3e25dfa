"""Endpoints that list and describe what is kept: runs and checkpoints."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import attrs

from .call import Call
from .reply import Answer, Refusal
from .session import page_of
from .state import Checkpoint, Model

__all__ = [
    "checkpoint_of",
    "delete_checkpoint",
    "get_training_run",
    "list_checkpoints",
    "list_training_runs",
    "list_user_checkpoints",
    "publish_checkpoint",
    "set_checkpoint_ttl",
    "time_of",
    "unpublish_checkpoint",
    "weights_info",
]

_TYPES = {"weights": "training", "sampler_weights": "sampler", "external_weights": "external"}


def time_of(call: Call, at: float) -> str:
    """Return a time of the service as text."""
    return datetime.fromtimestamp(call.state.epoch + at, UTC).isoformat()


def _checkpoint(call: Call, one: Checkpoint) -> dict[str, object]:
    return {
        "checkpoint_id": f"{one.kind}/{one.name}",
        "checkpoint_type": _TYPES[one.kind],
        "time": time_of(call, one.created),
        "tinker_path": one.path,
        "size_bytes": 1024,
        "public": one.public,
        "user_metadata": one.user_metadata,
        "expires_at": None if one.expires_at == math.inf else time_of(call, one.expires_at),
    }


def _alive(call: Call, model_id: str | None = None) -> list[Checkpoint]:
    every = call.state.checkpoints.values()
    return [one for one in every if one.expires_at > call.now and model_id in (None, one.model_id)]


def _run(call: Call, model: Model) -> dict[str, object]:
    last = {kind: call.state.latest(model.model_id, kind) for kind in _TYPES}
    shown = {kind: None if one is None else _checkpoint(call, one) for kind, one in last.items()}
    return {
        "training_run_id": model.model_id,
        "base_model": model.base_model,
        "model_owner": "scripted",
        "is_lora": True,
        "lora_rank": model.rank,
        "last_request_time": time_of(call, model.last_request),
        "corrupted": model.corrupted,
        "last_checkpoint": shown["weights"],
        "last_sampler_checkpoint": shown["sampler_weights"],
        "user_metadata": model.user_metadata,
    }


def list_training_runs(call: Call) -> Answer:
    """List the models there ever were."""
    page, cursor = page_of(call, [_run(call, model) for model in call.state.models.values()], 20)
    return Answer({"training_runs": page, "cursor": cursor})


def get_training_run(call: Call) -> Answer:
    """Describe a model, loaded or not."""
    return Answer(_run(call, _run_of(call)))


def _run_of(call: Call) -> Model:
    model = call.state.models.get(call.request.params["run"])
    if model is None:
        raise Refusal(404, "Training run not found")
    return model


def list_checkpoints(call: Call) -> Answer:
    """List a model's checkpoints."""
    return Answer({"checkpoints": [_checkpoint(call, one) for one in _alive(call, _run_of(call).model_id)]})


def list_user_checkpoints(call: Call) -> Answer:
    """List all checkpoints."""
    page, cursor = page_of(call, [_checkpoint(call, one) for one in _alive(call)], 100)
    return Answer({"checkpoints": page, "cursor": cursor})


def checkpoint_of(call: Call) -> Checkpoint:
    """Return the checkpoint that a path names.

    Raises:
        Refusal: there is none.
    """
    params = call.request.params
    return call.state.checkpoint(f"tinker://{params['run']}/{params['kind']}/{params['name']}", call.now)


def delete_checkpoint(call: Call) -> Answer:
    """Remove a checkpoint."""
    del call.state.checkpoints[checkpoint_of(call).path]
    return Answer({})


def _publish(call: Call, *, public: bool) -> Answer:
    checkpoint = checkpoint_of(call)
    if checkpoint.public == public:
        raise Refusal(409, f"Checkpoint {checkpoint.path} is {'' if public else 'not '}public")
    call.state.checkpoints[checkpoint.path] = attrs.evolve(checkpoint, public=public)
    return Answer({})


def publish_checkpoint(call: Call) -> Answer:
    """Make a checkpoint public."""
    return _publish(call, public=True)


def unpublish_checkpoint(call: Call) -> Answer:
    """Make a checkpoint private."""
    return _publish(call, public=False)


def set_checkpoint_ttl(call: Call) -> Answer:
    """Say when a checkpoint expires; null is never."""
    if "ttl_seconds" not in call.body:
        call.need("ttl_seconds", int)  # refuses
    ttl = call.number("ttl_seconds")
    checkpoint = checkpoint_of(call)
    expires = math.inf if ttl is None else call.now + ttl
    call.state.checkpoints[checkpoint.path] = attrs.evolve(checkpoint, expires_at=expires)
    return Answer({})


def weights_info(call: Call) -> Answer:
    """Describe the model that a checkpoint is of."""
    checkpoint = call.state.checkpoint(call.need("tinker_path", str), call.now)
    body = {
        "base_model": checkpoint.base_model,
        "is_lora": True,
        "lora_rank": checkpoint.rank,
        "train_unembed": True,
        "train_mlp": True,
        "train_attn": True,
    }
    return Answer(body)
