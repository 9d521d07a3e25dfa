"""One function per endpoint: from a decoded request to the reply.

All but one are plain functions: a request is decided as a whole, with nothing in between. What they raise
becomes the answer's status (see `app`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any

import trio

from tinker_actors.errors import InputError
from tinker_actors.wire.future import RetrieveFutureRequest, TryAgain, UntypedAPIFuture
from tinker_actors.wire.model import (
    CreateModelRequest,
    GetInfoRequest,
    GetInfoResponse,
    ModelData,
    UnloadModelRequest,
    UnloadModelResponse,
)
from tinker_actors.wire.optimizer import OptimStepRequest
from tinker_actors.wire.sampling import (
    CreateSamplingSessionRequest,
    CreateSamplingSessionResponse,
    SampleRequest,
    SampleSubmitted,
)
from tinker_actors.wire.service import (
    ClientConfigRequest,
    ClientConfigResponse,
    Empty,
    GetServerCapabilitiesResponse,
    HealthResponse,
    SupportedModel,
)
from tinker_actors.wire.session import (
    CreateSessionRequest,
    CreateSessionResponse,
    FinishSessionRequest,
    SessionHeartbeatRequest,
    SessionHeartbeatResponse,
)
from tinker_actors.wire.telemetry import TelemetryResponse, TelemetrySendRequest
from tinker_actors.wire.training import ForwardBackwardRequest, ForwardRequest
from tinker_actors.wire.weights import (
    LoadWeightsRequest,
    SaveWeightsExternalRequest,
    SaveWeightsForSamplerRequest,
    SaveWeightsRequest,
)

from . import operation
from .call import Call, Handler, Reply
from .engine import Engine
from .listing import LISTING_HANDLERS
from .worker import ModelWorker, Work

__all__ = ["ANY_LOOP", "HANDLERS"]

# --------------------------------------------------------------------------------------- service and session


def healthz(_: Engine, __: Call[Empty]) -> HealthResponse:
    """Answer."""
    return HealthResponse("ok")


def client_config(engine: Engine, _: Call[ClientConfigRequest]) -> ClientConfigResponse:
    """Tell clients how to behave."""
    return ClientConfigResponse(
        sequence_dedupe="replay",
        early_numbers="park",
        newer_fields=True,
        training_body="protobuf",
        restart_ends_models=True,
        session_timeout=engine.sessions.timeout,
    )


def get_server_capabilities(engine: Engine, _: Call[Empty]) -> GetServerCapabilitiesResponse:
    """List the base models."""
    models = (engine.catalog.get(name) for name in engine.catalog.names)
    return GetServerCapabilitiesResponse(
        tuple(
            SupportedModel(model_name=model.name, max_context_length=model.config.context_length)
            for model in models
        )
    )


def create_session(engine: Engine, call: Call[CreateSessionRequest]) -> CreateSessionResponse:
    """Open a session."""
    request = call.request
    session_id = engine.create_session(request.tags, request.user_metadata, request.display_name)
    return CreateSessionResponse(session_id=session_id)


def session_heartbeat(engine: Engine, call: Call[SessionHeartbeatRequest]) -> SessionHeartbeatResponse:
    """Note a beat. Runs in any thread's loop and touches nothing but the session table."""
    engine.sessions.heartbeat(call.request.session_id)
    return SessionHeartbeatResponse("session_heartbeat")


def finish_session(engine: Engine, call: Call[FinishSessionRequest]) -> Empty:
    """End a session and free what belongs to it."""
    engine.sessions.finish(call.path["session_id"])
    engine.free_ended_sessions()
    return Empty()


def telemetry(engine: Engine, call: Call[TelemetrySendRequest]) -> TelemetryResponse:
    """Count events; nobody reads them."""
    engine.telemetry_events += len(call.request.events)
    return TelemetryResponse("accepted")


# ---------------------------------------------------------------------------------------------------- models


def create_model(engine: Engine, call: Call[CreateModelRequest]) -> UntypedAPIFuture:
    """Make a LoRA model."""
    return engine.create_model(call.request, call.digest)


def get_info(engine: Engine, call: Call[GetInfoRequest]) -> GetInfoResponse:
    """Describe a model."""
    worker = engine.model(call.request.model_id)
    name = worker.base.name
    return GetInfoResponse(
        type="get_info",
        model_id=worker.model_id,
        model_data=ModelData(arch="tinker-actors", model_name=name, tokenizer_id=name),
        is_lora=True,
        lora_rank=worker.config.rank,
        model_name=name,
    )


def unload_model(engine: Engine, call: Call[UnloadModelRequest]) -> UntypedAPIFuture:
    """Remove a model."""
    model_id = call.request.model_id
    request_id = engine.unload_model(model_id)
    engine.promises.open(request_id, request_id)
    engine.promises.resolve(request_id, UnloadModelResponse(model_id=model_id, type="unload_model"))
    return UntypedAPIFuture(request_id, model_id)


def forward(engine: Engine, call: Call[ForwardRequest]) -> UntypedAPIFuture:
    """Compute a loss."""
    data = call.request.forward_input
    return _submit(
        engine, call, "forward", lambda worker: operation.forward_backward(worker, data, backward=False)
    )


def forward_backward(engine: Engine, call: Call[ForwardBackwardRequest | ForwardRequest]) -> UntypedAPIFuture:
    """Compute a loss and accumulate its gradient; in protobuf, a flag asks for the loss alone."""
    request = call.request
    if isinstance(request, ForwardRequest):
        return forward(engine, Call(request, call.digest, call.path, call.disconnected))
    data = request.forward_backward_input
    return _submit(
        engine,
        call,
        "forward_backward",
        lambda worker: operation.forward_backward(worker, data, backward=True),
    )


def optim_step(engine: Engine, call: Call[OptimStepRequest]) -> UntypedAPIFuture:
    """Apply the accumulated gradient."""
    return _submit(engine, call, "optim_step", lambda worker: operation.optim_step(worker, call.request))


def load_weights(
    engine: Engine, call: Call[LoadWeightsRequest]
) -> UntypedAPIFuture | Awaitable[UntypedAPIFuture]:
    """Load a checkpoint into a model, or make a model of it."""
    if call.request.session_id is not None:
        return operation.create_from_checkpoint(engine, call.request, call.digest)
    return _submit(
        engine, call, "load_weights", lambda worker: operation.load_weights(engine, worker, call.request)
    )


def save_weights(engine: Engine, call: Call[SaveWeightsRequest]) -> UntypedAPIFuture:
    """Save a checkpoint."""
    return _submit(
        engine, call, "save_weights", lambda worker: operation.save_weights(engine, worker, call.request)
    )


def save_weights_for_sampler(engine: Engine, call: Call[SaveWeightsForSamplerRequest]) -> UntypedAPIFuture:
    """Save weights to sample from."""
    return _submit(
        engine,
        call,
        "save_weights_for_sampler",
        lambda worker: operation.save_weights_for_sampler(engine, worker, call.request, call.digest),
    )


def save_weights_external(engine: Engine, call: Call[SaveWeightsExternalRequest]) -> UntypedAPIFuture:
    """Save weights for use elsewhere."""
    return _submit(
        engine,
        call,
        "save_weights_external",
        lambda worker: operation.save_weights_external(engine, worker, call.request),
    )


def _submit(
    engine: Engine, call: Call[Any], name: str, prepare: Callable[[ModelWorker], Work]
) -> UntypedAPIFuture:
    """Accept a numbered request for a model, unless it repeats an earlier one."""
    request = call.request
    for field in ("model_id", "seq_id"):  # other services do without them, or find the model by its session
        if getattr(request, field) is None:
            raise InputError(field, None, "must be given")
    worker = engine.model(request.model_id)
    request_id = worker.queue.repeated(request.seq_id, call.digest)
    if request_id is None:
        request_id = worker.submit(request.seq_id, name, call.digest, prepare(worker))
    return UntypedAPIFuture(request_id, worker.model_id)


# ------------------------------------------------------------------------------------- sampling and promises


def create_sampling_session(
    engine: Engine, call: Call[CreateSamplingSessionRequest]
) -> CreateSamplingSessionResponse:
    """Open a place to sample from."""
    return CreateSamplingSessionResponse(engine.samplers.create_session(call.request, call.digest))


def asample(engine: Engine, call: Call[SampleRequest]) -> SampleSubmitted:
    """Draw sequences."""
    return engine.samplers.submit(call.request, call.digest, engine.nursery)


async def retrieve_future(engine: Engine, call: Call[RetrieveFutureRequest]) -> object:
    """Wait for a promise's result, as long as the client does. Checkpoints."""
    promise = engine.promises.find(call.request.request_id)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cancel_when, call.disconnected, nursery.cancel_scope)
        await engine.promises.wait(promise)
        nursery.cancel_scope.cancel(reason="the poll is answered")
    outcome = engine.promises.outcome(promise)
    return Reply(408, outcome) if isinstance(outcome, TryAgain) else outcome


async def _cancel_when(event: Callable[[], Awaitable[None]], scope: trio.CancelScope) -> None:
    await event()
    scope.cancel(reason="the client has left")


HANDLERS: Mapping[str, Handler] = MappingProxyType(
    {**LISTING_HANDLERS}
    | {
        handler.__name__: handler
        for handler in (
            healthz,
            client_config,
            get_server_capabilities,
            create_session,
            session_heartbeat,
            finish_session,
            telemetry,
            create_model,
            get_info,
            unload_model,
            forward,
            forward_backward,
            optim_step,
            load_weights,
            save_weights,
            save_weights_for_sampler,
            save_weights_external,
            create_sampling_session,
            asample,
            retrieve_future,
        )
    }
)
"""By the endpoint's name."""

ANY_LOOP = frozenset({"session_heartbeat", "healthz"})
"""Endpoints that may be called from the loop of another thread."""
