"""What is kept, as clients list and change it: runs, checkpoints, sessions, samplers. One function per endpoint.

There is one user, whose everything is; what is asked by scope or project is looked at, and makes no difference but
that nothing belongs to a project. A run is a model that the service has made, in this life or in an earlier one that it
knows of (`state`), or one that has checkpoints left in the store.

What reads or changes the store may touch a disk, so it is done where blocking does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, TypeVar

import attrs

from tinker_actors.errors import InputError, NotFoundError
from tinker_actors.wire.run import (
    Checkpoint,
    CheckpointsListResponse,
    CheckpointType,
    Cursor,
    TrainingRun,
    TrainingRunsResponse,
)
from tinker_actors.wire.sampling import GetSamplerResponse
from tinker_actors.wire.service import Empty
from tinker_actors.wire.session import GetSessionResponse, ListSessionsResponse
from tinker_actors.wire.weights import (
    CopyWeightsRequest,
    CopyWeightsResponse,
    SetCheckpointTtlRequest,
    WeightsInfoRequest,
    WeightsInfoResponse,
)

from .archive import CONFIG_FILE, read_config
from .call import Call, Handler
from .engine import Engine
from .operation import time_to_live
from .refusal import refusal
from .state import Run
from .store import CheckpointKind, CheckpointPath, Kept

__all__ = ["LISTING_HANDLERS", "path_of"]

T = TypeVar("T")

_OWNER = "embedded"
_TYPES: Mapping[CheckpointKind, CheckpointType] = {
    "weights": "training",
    "sampler_weights": "sampler",
    "external_weights": "external",
}
_MOST = 1000  # items of a page
_LONGEST = 18  # digits of a number; it is sent back


def path_of(parts: Mapping[str, str]) -> CheckpointPath:
    """Return the checkpoint that the parts of a URL's path name.

    Raises:
        InputError: they cannot name one.
    """
    run = parts["training_run_id"]
    return CheckpointPath(run, parts["kind"], parts["name"])  # type: ignore[arg-type]  # the kind is checked


# --------------------------------------------------------------------------------------------------------- pages


def _page(call: Call[Any], items: Sequence[T], usual: int) -> tuple[Sequence[T], Cursor]:
    """Cut the page out of a list that is asked for."""
    limit, offset = _number(call, "limit", usual, 1), _number(call, "offset", 0, 0)
    limit = min(limit, _MOST)
    cursor = Cursor(offset=offset, limit=limit, total_count=len(items))
    return items[offset : offset + limit], cursor


def _number(call: Call[Any], name: str, usual: int, least: int) -> int:
    text = call.query.get(name, str(usual))
    known = text.isascii() and text.isdecimal() and len(text) <= _LONGEST
    if not known or int(text) < least:
        raise InputError(name, text[:100], f"must be a whole number, at least {least}")
    return int(text)


# ---------------------------------------------------------------------------------------------------------- runs


def _checkpoint(kept: Kept) -> Checkpoint:
    return Checkpoint(
        checkpoint_id=f"{kept.path.kind}/{kept.path.name}",
        checkpoint_type=_TYPES[kept.path.kind],
        time=datetime.fromtimestamp(kept.note.time, UTC),
        tinker_path=str(kept.path),
        size_bytes=kept.size,
        public=kept.note.public,
        user_metadata=kept.note.user_metadata,
        expires_at=None if math.isinf(kept.expires) else datetime.fromtimestamp(kept.expires, UTC),
    )


def _run(run: Run, kept: Sequence[Kept]) -> TrainingRun:
    def last(kind: CheckpointKind) -> Checkpoint | None:
        return next((_checkpoint(one) for one in kept if one.path.kind == kind), None)

    return TrainingRun(
        training_run_id=run.run_id,
        base_model=run.base_model,
        model_owner=_OWNER,
        is_lora=True,
        lora_rank=run.rank,
        last_request_time=datetime.fromtimestamp(run.last_request, UTC),
        last_checkpoint=last("weights"),
        last_sampler_checkpoint=last("sampler_weights"),
        user_metadata=run.user_metadata or None,
    )


def _earlier(engine: Engine, kept: Kept) -> Run | None:
    """Describe a run that the service knows nothing of by its latest checkpoint; None if that is damaged or gone."""
    try:
        config = read_config(engine.store.load(kept.path, engine.date(), [CONFIG_FILE]))
    except (InputError, NotFoundError):
        return None
    return Run(
        run_id=kept.path.run,
        session_id="",
        base_model=config.base_model_name_or_path,
        rank=config.r,
        user_metadata={},
        last_request=kept.note.time,
    )


def _runs(engine: Engine, only: str | None = None) -> list[TrainingRun]:
    """Return the training runs, the latest first."""
    by_run: dict[str, list[Kept]] = {}
    for one in engine.store.kept(engine.date(), only):
        by_run.setdefault(one.path.run, []).append(one)
    made = [run for run in reversed(engine.runs.values()) if only in (None, run.run_id)]
    known = {run.run_id for run in made}
    earlier = [_earlier(engine, kept[0]) for run_id, kept in by_run.items() if run_id not in known]
    made += [run for run in earlier if run is not None]
    return [_run(run, by_run.get(run.run_id, [])) for run in made]


async def list_training_runs(engine: Engine, call: Call[Empty]) -> TrainingRunsResponse:
    """List every model there was, the latest first. Checkpoints."""
    runs = await engine.compute.call(lambda: _runs(engine))
    page, cursor = _page(call, [] if call.query.get("project_id") else runs, 20)
    return TrainingRunsResponse(tuple(page), cursor)


async def get_training_run(engine: Engine, call: Call[Empty]) -> TrainingRun:
    """Describe a model, loaded or not. Checkpoints."""
    return await _known_run(engine, call)


async def _known_run(engine: Engine, call: Call[Empty]) -> TrainingRun:
    run_id = call.path["training_run_id"]
    runs = await engine.compute.call(lambda: _runs(engine, run_id))
    if not runs:
        raise refusal(404, f"Training run {run_id!r} does not exist")
    return runs[0]


# --------------------------------------------------------------------------------------------------- checkpoints


async def list_checkpoints(engine: Engine, call: Call[Empty]) -> CheckpointsListResponse:
    """List the checkpoints of a run, the latest first. Checkpoints."""
    run_id = (await _known_run(engine, call)).training_run_id
    kept = await engine.compute.call(lambda: engine.store.kept(engine.date(), run_id))
    return CheckpointsListResponse(tuple(_checkpoint(one) for one in kept))


async def list_user_checkpoints(engine: Engine, call: Call[Empty]) -> CheckpointsListResponse:
    """List all checkpoints, the latest first. Checkpoints."""
    kept = await engine.compute.call(lambda: engine.store.kept(engine.date()))
    page, cursor = _page(call, kept, 100)
    return CheckpointsListResponse(tuple(_checkpoint(one) for one in page), cursor)


async def delete_checkpoint(engine: Engine, call: Call[Empty]) -> Empty:
    """Remove a checkpoint. Checkpoints."""
    path = path_of(call.path)
    await engine.compute.call(lambda: engine.store.delete(path, engine.date()))
    return Empty()


async def publish_checkpoint(engine: Engine, call: Call[Empty]) -> Empty:
    """Note that everybody may read a checkpoint, which makes no difference here. Checkpoints."""
    path = path_of(call.path)
    await engine.compute.call(lambda: engine.store.publish(path, engine.date(), public=True))
    return Empty()


async def unpublish_checkpoint(engine: Engine, call: Call[Empty]) -> Empty:
    """Note that nobody else may read a checkpoint. Checkpoints."""
    path = path_of(call.path)
    await engine.compute.call(lambda: engine.store.publish(path, engine.date(), public=False))
    return Empty()


async def set_checkpoint_ttl(engine: Engine, call: Call[SetCheckpointTtlRequest]) -> Empty:
    """Say how long a checkpoint is kept, from now; null is for ever. Checkpoints."""
    path, ttl = path_of(call.path), time_to_live(call.request.ttl_seconds)
    await engine.compute.call(lambda: engine.store.set_expiry(path, engine.date(), engine.date() + ttl))
    return Empty()


async def weights_info(engine: Engine, call: Call[WeightsInfoRequest]) -> WeightsInfoResponse:
    """Say what a checkpoint was made of. Checkpoints."""
    path = CheckpointPath.parse(call.request.tinker_path)
    files = await engine.compute.call(lambda: engine.store.load(path, engine.date(), [CONFIG_FILE]))
    config = read_config(files)
    lora = config.lora_config()
    return WeightsInfoResponse(
        base_model=config.base_model_name_or_path,
        is_lora=True,
        lora_rank=config.r,
        train_unembed=lora.train_unembed,
        train_mlp=lora.train_mlp,
        train_attn=lora.train_attn,
    )


async def copy_weights(engine: Engine, call: Call[CopyWeightsRequest]) -> CopyWeightsResponse:
    """Keep a checkpoint once more, in a run of its own that cannot be trained. Checkpoints."""
    request = call.request
    source, ttl = CheckpointPath.parse(request.source_path), time_to_live(request.ttl_seconds)
    run = f"copy-{call.digest.hex()[:8]}-{engine.life}"
    if request.session_id is not None and request.model_seq_id is not None:
        engine.sessions.check_alive(request.session_id)
        run = engine.model_id(request.session_id, request.model_seq_id)
    target = CheckpointPath(run, source.kind, source.name)

    def copy() -> None:
        now = engine.date()
        if request.session_id is None and engine.store.exists(target, now):
            return  # by the same request: its answer was lost
        note = attrs.evolve(engine.store.describe(source, now).note, time=now, public=False)
        engine.store.save(target, engine.store.load(source, now), expires=now + ttl, note=note)

    await engine.compute.call(copy)
    return CopyWeightsResponse(str(target))


# ------------------------------------------------------------------------------------------ sessions and samplers


def list_sessions(engine: Engine, call: Call[Empty]) -> ListSessionsResponse:
    """List the sessions that are remembered, the latest first."""
    page, _ = _page(call, engine.sessions.ids(), 20)
    return ListSessionsResponse(tuple(page))


def get_session(engine: Engine, call: Call[Empty]) -> GetSessionResponse:
    """Say what belongs to a session."""
    session_id = call.path["session_id"]
    metadata, name = engine.sessions.about(session_id)
    return GetSessionResponse(
        training_run_ids=tuple(run.run_id for run in engine.runs.values() if run.session_id == session_id),
        sampler_ids=tuple(engine.samplers.ids(session_id)),
        user_metadata=metadata,
        display_name=name,
    )


def get_sampler(engine: Engine, call: Call[Empty]) -> GetSamplerResponse:
    """Say what a sampling session samples from."""
    sampler_id = call.path["sampler_id"]
    base_model, path = engine.samplers.describe(sampler_id)
    return GetSamplerResponse(sampler_id=sampler_id, base_model=base_model, model_path=path)


LISTING_HANDLERS: Mapping[str, Handler] = MappingProxyType(
    {
        handler.__name__: handler
        for handler in (
            list_training_runs,
            get_training_run,
            list_checkpoints,
            list_user_checkpoints,
            delete_checkpoint,
            publish_checkpoint,
            unpublish_checkpoint,
            set_checkpoint_ttl,
            weights_info,
            copy_weights,
            list_sessions,
            get_session,
            get_sampler,
        )
    }
)
"""By the endpoint's name."""
