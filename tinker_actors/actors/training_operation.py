"""From a training message to the operation that is recorded and sent. Pure."""

from __future__ import annotations

from typing import TypeAlias, assert_never

from tinker_actors.actors.lineage import StartState
from tinker_actors.actors.message import (
    Forward,
    ForwardBackward,
    LoadState,
    OptimStep,
    SaveState,
    SaveWeightsExternal,
    SaveWeightsForSampler,
)
from tinker_actors.actors.run_message import Train
from tinker_actors.protocol.journal import Operation
from tinker_actors.wire.weights import SaveWeightsResponse

__all__ = ["checkpoint_path", "load_operation", "operation_of", "train_operations"]

_Message: TypeAlias = (
    Forward
    | ForwardBackward
    | OptimStep
    | SaveState
    | SaveWeightsForSampler
    | SaveWeightsExternal
    | LoadState
)


def operation_of(message: _Message) -> Operation:
    """Return the operation that a message asks for."""
    match message:
        case Forward() | ForwardBackward():
            return Operation(
                kind="forward" if isinstance(message, Forward) else "forward_backward",
                data=message.data,
                loss_fn=message.loss_fn,
                loss_fn_config=message.loss_fn_config,
            )
        case OptimStep():
            return Operation(kind="optim_step", optim_params=message.optim_params)
        case LoadState():
            return load_operation(message)
        case _:
            return _save_operation(message)


def train_operations(message: Train) -> tuple[Operation, Operation]:
    """Return the gradient and the step that a message decides together."""
    gradient = Operation(
        kind="forward_backward",
        data=message.data,
        loss_fn=message.loss_fn,
        loss_fn_config=message.loss_fn_config,
    )
    return gradient, Operation(kind="optim_step", optim_params=message.optim_params)


def _save_operation(message: SaveState | SaveWeightsForSampler | SaveWeightsExternal) -> Operation:
    match message:
        case SaveState():
            return Operation(
                kind="save_state",
                name=message.name,
                ttl_seconds=message.ttl_seconds,
                overwrite=message.overwrite,
                user_metadata=message.user_metadata,
            )
        case SaveWeightsForSampler():
            return Operation(
                kind="save_for_sampler",
                name=message.name,
                ttl_seconds=message.ttl_seconds,
                user_metadata=message.user_metadata,
                sampler_kind=message.kind,
            )
        case SaveWeightsExternal():
            return Operation(
                kind="save_external",
                name=message.name,
                ttl_seconds=message.ttl_seconds,
                recipients=message.age_encryption_recipients,
            )
        case _:
            assert_never(message)


def load_operation(state: LoadState | StartState) -> Operation:
    """Return the operation that loads a saved state."""
    return Operation(
        kind="load_state",
        path=state.path,
        optimizer=state.optimizer,
        weights_access_token=state.weights_access_token,
    )


def checkpoint_path(operation: Operation, reply: object) -> str | None:
    """Return the path of the state an operation has made the newest one to restore from."""
    if operation.kind == "save_state" and isinstance(reply, SaveWeightsResponse):
        return reply.path
    if operation.kind == "load_state" and operation.optimizer:
        return operation.path
    return None
