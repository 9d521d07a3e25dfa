"""What can be done to a model: each function checks a request and returns the work that carries it out.

A check that fails raises before the request is accepted, so the request takes no sequence number. What can
only be known when its turn comes (a path that an earlier request is going to save) fails the request then.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from tinker_actors.errors import InputError
from tinker_actors.wire.future import UntypedAPIFuture
from tinker_actors.wire.model import CreateModelRequest, LoraConfig
from tinker_actors.wire.optimizer import ADAM_CONFIG, OptimStepRequest, OptimStepResponse
from tinker_actors.wire.training import ForwardBackwardInput, ForwardBackwardOutput
from tinker_actors.wire.weights import (
    LoadWeightsRequest,
    LoadWeightsResponse,
    SaveWeightsExternalRequest,
    SaveWeightsExternalResponse,
    SaveWeightsForSamplerRequest,
    SaveWeightsForSamplerResult,
    SaveWeightsRequest,
    SaveWeightsResponse,
)

from .archive import AdapterConfig, checkpoint_files, read_arrays, read_config
from .conversion import adam_params, examples, forward_backward_output, loss_config
from .engine import Engine
from .example import check_examples
from .losses import loss_spec
from .refusal import refusal
from .store import CheckpointKind, CheckpointPath, Note
from .worker import ModelWorker, Work

__all__ = [
    "forward_backward",
    "load_weights",
    "optim_step",
    "save_weights",
    "save_weights_external",
    "save_weights_for_sampler",
    "time_to_live",
]


def forward_backward(worker: ModelWorker, request: ForwardBackwardInput, *, backward: bool) -> Work:
    """Compute a loss and, with `backward`, accumulate its gradient.

    Raises:
        InputError: the batch, the loss or its configuration is bad.
    """
    batch, config = examples(request), loss_config(request)
    spec = loss_spec(request.loss_fn)
    spec.configured(config)
    check_examples(batch, spec, worker.base.config)

    async def run() -> ForwardBackwardOutput:
        slices = worker.model.forward_backward(batch, request.loss_fn, config, backward=backward)
        return forward_backward_output(await worker.compute.drive(slices))

    return Work(run)


def optim_step(worker: ModelWorker, request: OptimStepRequest) -> Work:
    """Apply the accumulated gradient.

    Raises:
        InputError: a parameter is out of its range.
    """
    params = adam_params(request.optim_params)

    async def run() -> OptimStepResponse:
        return OptimStepResponse(await worker.compute.call(lambda: worker.model.optim_step(params)))

    return Work(run)


def save_weights(engine: Engine, worker: ModelWorker, request: SaveWeightsRequest) -> Work:
    """Save weights and optimizer under a name.

    Raises:
        InputError: the name or the time to live is bad.
        ConflictError: the name is in use.
    """
    if request.path is None:
        raise InputError("path", None, "must be given")
    path = _free_path(engine, worker, "weights", request.path, overwrite=request.overwrite)
    ttl, about = time_to_live(request.ttl_seconds), request.user_metadata

    async def run() -> SaveWeightsResponse:
        over = request.overwrite
        await worker.compute.call(
            lambda: _save(engine, worker, path, ttl, about, optimizer=True, overwrite=over)
        )
        return SaveWeightsResponse(str(path), "save_weights")

    return Work(run, saves=path, lasts=True)


def save_weights_for_sampler(
    engine: Engine, worker: ModelWorker, request: SaveWeightsForSamplerRequest, digest: bytes
) -> Work:
    """Save weights for sampling: under a name, or as a new sampling session.

    Raises:
        InputError: name, number or time to live is bad, or not exactly one of the first two is given.
        ConflictError: the name or the number is in use.
    """
    if request.kind != "snapshot":
        raise InputError("kind", request.kind, "the embedded service has snapshots alone")
    number = request.sampling_session_seq_id
    if (request.path is None) == (number is None):
        raise InputError("path", request.path, "one of path and sampling_session_seq_id must be given")
    ttl = time_to_live(request.ttl_seconds)
    if request.path is not None:
        return _save_for_sampler(
            engine,
            worker,
            _free_path(engine, worker, "sampler_weights", request.path),
            ttl,
            request.user_metadata,
        )
    assert number is not None
    return _snapshot(engine, worker, engine.samplers.reserve(worker.session_id, number, digest))


def _save_for_sampler(
    engine: Engine, worker: ModelWorker, path: CheckpointPath, ttl: float, about: Mapping[str, str] | None
) -> Work:
    async def run() -> SaveWeightsForSamplerResult:
        await worker.compute.call(lambda: _save(engine, worker, path, ttl, about, optimizer=False))
        return SaveWeightsForSamplerResult(path=str(path), type="save_weights_for_sampler")

    return Work(run, saves=path, lasts=True)


def save_weights_external(engine: Engine, worker: ModelWorker, request: SaveWeightsExternalRequest) -> Work:
    """Save an adapter and its configuration, named as PEFT names them, for use elsewhere.

    Raises:
        InputError: the name or the time to live is bad, or it shall be encrypted.
        ConflictError: the name is in use.
    """
    if request.age_encryption_recipients is not None:
        field, recipients = "age_encryption_recipients", request.age_encryption_recipients
        raise InputError(field, recipients, "the embedded service does not encrypt")
    path = _free_path(engine, worker, "external_weights", request.path)
    ttl = time_to_live(request.ttl_seconds)

    async def run() -> SaveWeightsExternalResponse:
        await worker.compute.call(lambda: _save(engine, worker, path, ttl, None, optimizer=False))
        files = await worker.compute.call(lambda: engine.store.load(path, engine.date()))
        size = sum(map(len, files.values()))
        return SaveWeightsExternalResponse(path=str(path), size_bytes=size, type="save_weights_external")

    return Work(run, saves=path, lasts=True)


def _snapshot(engine: Engine, worker: ModelWorker, sampling_session_id: str) -> Work:
    async def run() -> SaveWeightsForSamplerResult:
        weights = await worker.compute.call(worker.model.snapshot)
        engine.samplers.add_snapshot(sampling_session_id, worker.base, weights)
        return SaveWeightsForSamplerResult(
            sampling_session_id=sampling_session_id, type="save_weights_for_sampler"
        )

    return Work(run)


def load_weights(engine: Engine, worker: ModelWorker, request: LoadWeightsRequest) -> Work:
    """Load saved weights, with the optimizer's state if asked.

    Raises:
        InputError: it is no checkpoint's path.
    """
    path = CheckpointPath.parse(request.path)

    async def run() -> LoadWeightsResponse:
        await worker.compute.call(lambda: _load(engine, worker, path, optimizer=request.optimizer))
        return LoadWeightsResponse(path=request.path, model_id=worker.model_id, type="load_weights")

    return Work(run, lasts=True)


async def create_from_checkpoint(
    engine: Engine, request: LoadWeightsRequest, digest: bytes
) -> UntypedAPIFuture:
    """Accept the creation of a model that starts from a checkpoint. Checkpoints.

    Raises:
        InputError: it is no checkpoint's path, another base model's, or has no optimizer's state and shall have one.
        NotFoundError: there is no such checkpoint, or no such session.
    """
    path = CheckpointPath.parse(request.path)
    files = await engine.compute.call(lambda: engine.store.load(path, engine.date()))
    config, arrays = read_config(files), read_arrays(files, optimizer=request.optimizer)
    if request.base_model not in (None, config.base_model_name_or_path):
        why = f"{path} was saved from {config.base_model_name_or_path}"
        raise InputError("base_model", request.base_model, why)
    assert request.session_id is not None, "it goes to a session"
    assert request.model_seq_id is not None, "and has a number there"
    adapter = config.lora_config()
    creation = CreateModelRequest(
        session_id=request.session_id,
        model_seq_id=request.model_seq_id,
        base_model=config.base_model_name_or_path,
        user_metadata=request.user_metadata,
        lora_config=LoraConfig(
            rank=adapter.rank,
            seed=0,  # what it draws is overwritten at once
            train_unembed=adapter.train_unembed,
            train_mlp=adapter.train_mlp,
            train_attn=adapter.train_attn,
        ),
        optimizer_config=request.optimizer_config or ADAM_CONFIG,
    )

    async def load(worker: ModelWorker) -> LoadWeightsResponse:
        await worker.compute.call(lambda: worker.model.load_state(arrays, optimizer=request.optimizer))
        return LoadWeightsResponse(path=request.path, model_id=worker.model_id, type="load_weights")

    return engine.create_model(creation, digest, load)


def _free_path(
    engine: Engine, worker: ModelWorker, kind: CheckpointKind, name: str, *, overwrite: bool = False
) -> CheckpointPath:
    path = CheckpointPath(worker.model_id, kind, name)
    if path in worker.reserved or (not overwrite and engine.store.exists(path, engine.date())):
        raise refusal(409, f"Checkpoint '{path}' already exists")
    return path


def time_to_live(seconds: int | None) -> float:
    """Return how long something is kept; None is for ever.

    Raises:
        InputError: no time at all.
    """
    if seconds is None:
        return math.inf
    if seconds < 1:
        raise InputError("ttl_seconds", seconds, "must be at least 1")
    return float(seconds)


def _save(
    engine: Engine,
    worker: ModelWorker,
    path: CheckpointPath,
    ttl: float,
    about: Mapping[str, str] | None,
    *,
    optimizer: bool,
    overwrite: bool = False,
) -> None:
    config = AdapterConfig.of(worker.base.name, worker.config)
    files = checkpoint_files(config, worker.model.state(optimizer=optimizer))
    now = engine.date()
    note = Note(time=now, user_metadata=about)
    engine.store.save(path, files, expires=now + ttl, note=note, overwrite=overwrite)


def _load(engine: Engine, worker: ModelWorker, path: CheckpointPath, *, optimizer: bool) -> None:
    files = engine.store.load(path, engine.date())
    saved, own = read_config(files), AdapterConfig.of(worker.base.name, worker.config)
    if saved != own:
        raise InputError("path", str(path), f"was saved from {_shape(saved)}; this model is {_shape(own)}")
    worker.model.load_state(read_arrays(files, optimizer=optimizer), optimizer=optimizer)


def _shape(config: AdapterConfig) -> str:
    modules = ", ".join(config.target_modules)
    return f"{config.base_model_name_or_path} with rank {config.r} on {modules}"
