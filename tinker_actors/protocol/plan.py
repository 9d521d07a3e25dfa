"""From an operation to its requests, and from their results to its reply. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any, TypeAlias, assert_never

import attrs

from tinker_actors.protocol.capability import TrainingBody
from tinker_actors.protocol.chunking import chunk_batch, merge_outputs
from tinker_actors.protocol.journal import Operation
from tinker_actors.protocol.step import OperationKind
from tinker_actors.wire import endpoints
from tinker_actors.wire.endpoint import Endpoint
from tinker_actors.wire.future import UntypedAPIFuture
from tinker_actors.wire.optimizer import OptimStepRequest, OptimStepResponse
from tinker_actors.wire.training import (
    ForwardBackwardInput,
    ForwardBackwardOutput,
    ForwardBackwardRequest,
    ForwardRequest,
)
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

__all__ = [
    "REPLIES",
    "REQUEST_TYPES",
    "Place",
    "Reply",
    "parts",
    "parts_by_plan",
    "plan_of",
    "reply_of",
    "request_of",
]

# tinker 0.38.0 lib/public_interfaces/training_client.py: what each promise is called when its result is asked for.
REQUEST_TYPES: Mapping[OperationKind, str] = {
    "forward": "Forward",
    "forward_backward": "ForwardBackward",
    "optim_step": "OptimStep",
    "save_state": "SaveWeights",
    "save_for_sampler": "SaveWeightsForSampler",
    "save_external": "SaveWeightsExternal",
    "load_state": "LoadWeights",
}

Reply: TypeAlias = (
    ForwardBackwardOutput
    | OptimStepResponse
    | SaveWeightsResponse
    | SaveWeightsForSamplerResult
    | SaveWeightsExternalResponse
    | LoadWeightsResponse
)
REPLIES: Mapping[OperationKind, type[Reply]] = {
    "forward": ForwardBackwardOutput,
    "forward_backward": ForwardBackwardOutput,
    "optim_step": OptimStepResponse,
    "save_state": SaveWeightsResponse,
    "save_for_sampler": SaveWeightsForSamplerResult,
    "save_external": SaveWeightsExternalResponse,
    "load_state": LoadWeightsResponse,
}
"""What each kind of operation is answered with, and each of its parts."""

Submit: TypeAlias = "tuple[Endpoint[Any, UntypedAPIFuture], object]"


@attrs.frozen(kw_only=True)
class Place:
    """Where a request goes: the model, and its number there.

    Attributes:
        model_id: the model.
        seq_id: the request's number.
        take_sampler_seq: gives the number of a new sampling session, if one is to be made.
        training_body: the form the service takes batches in. In protobuf a flag says that there shall be no gradient,
            and both go to one endpoint; in JSON each has its own.
    """

    model_id: str
    seq_id: int
    take_sampler_seq: Callable[[], int]
    training_body: TrainingBody = "json"


def plan_of(cut: Sequence[Operation]) -> tuple[int, ...]:
    """Return how many datums are in each of an operation's parts."""
    return tuple(len(part.data) for part in cut)


def parts_by_plan(operation: Operation, plan: Sequence[int]) -> list[Operation]:
    """Cut an operation into the very parts it was cut into before.

    Args:
        operation: with its whole batch.
        plan: the datums in each part.
    """
    assert sum(plan) == len(operation.data), "the plan is that of this batch"
    if len(plan) == 1:
        return [operation]
    ends = list(accumulate(plan))
    return [
        attrs.evolve(operation, data=operation.data[end - size : end])
        for end, size in zip(ends, plan, strict=True)
    ]


def parts(operation: Operation, *, max_datums: int, max_bytes: int) -> list[Operation]:
    """Cut an operation into what goes out as single requests, in order."""
    if len(operation.data) <= max_datums and operation.data_bytes <= max_bytes:
        return [operation]
    chunks = chunk_batch(operation.data, max_datums=max_datums, max_bytes=max_bytes, sizes=operation.sizes)
    return [attrs.evolve(operation, data=chunk) for chunk in chunks]


def request_of(part: Operation, place: Place) -> Submit:
    """Return the endpoint and the request of one part; the fields of its kind are set."""
    match part.kind:
        case "forward":
            one = place.training_body == "protobuf"
            target = endpoints.FORWARD_BACKWARD if one else endpoints.FORWARD
            return target, ForwardRequest(_batch(part), place.model_id, place.seq_id)
        case "forward_backward":
            request = ForwardBackwardRequest(_batch(part), place.model_id, place.seq_id)
            return endpoints.FORWARD_BACKWARD, request
        case "optim_step":
            return endpoints.OPTIM_STEP, _optim_step(part, place)
        case "save_state":
            return endpoints.SAVE_WEIGHTS, _save(part, place)
        case "save_for_sampler":
            return endpoints.SAVE_WEIGHTS_FOR_SAMPLER, _save_for_sampler(part, place)
        case "save_external":
            return endpoints.SAVE_WEIGHTS_EXTERNAL, _save_external(part, place)
        case "load_state":
            return endpoints.LOAD_WEIGHTS, _load(part, place)
        case _:
            assert_never(part.kind)


def _batch(part: Operation) -> ForwardBackwardInput:
    return ForwardBackwardInput(part.data, part.loss_fn, part.loss_fn_config)


def _optim_step(part: Operation, place: Place) -> OptimStepRequest:
    assert part.optim_params is not None, "the defaults are another decision than none"
    return OptimStepRequest(part.optim_params, place.model_id, place.seq_id)


def _save(part: Operation, place: Place) -> SaveWeightsRequest:
    assert part.name is not None, "a saved state has a name"
    return SaveWeightsRequest(
        model_id=place.model_id,
        path=part.name,
        seq_id=place.seq_id,
        ttl_seconds=part.ttl_seconds,
        overwrite=part.overwrite,
        user_metadata=part.user_metadata,
    )


def _save_for_sampler(part: Operation, place: Place) -> SaveWeightsForSamplerRequest:
    return SaveWeightsForSamplerRequest(
        model_id=place.model_id,
        path=part.name,
        sampling_session_seq_id=place.take_sampler_seq() if part.name is None else None,
        kind=part.sampler_kind,
        seq_id=place.seq_id,
        ttl_seconds=part.ttl_seconds,
        user_metadata=part.user_metadata,
    )


def _save_external(part: Operation, place: Place) -> SaveWeightsExternalRequest:
    assert part.name is not None, "what is used elsewhere has a name"
    return SaveWeightsExternalRequest(
        model_id=place.model_id,
        path=part.name,
        seq_id=place.seq_id,
        ttl_seconds=part.ttl_seconds,
        age_encryption_recipients=part.recipients,
    )


def _load(part: Operation, place: Place) -> LoadWeightsRequest:
    assert part.path is not None, "a state is loaded from somewhere"
    return LoadWeightsRequest(
        model_id=place.model_id,
        path=part.path,
        optimizer=part.optimizer,
        seq_id=place.seq_id,
        weights_access_token=part.weights_access_token,
    )


def reply_of(results: Sequence[Reply]) -> Reply:
    """Make an operation's reply of its parts' results: batches may have several."""
    outputs = [result for result in results if isinstance(result, ForwardBackwardOutput)]
    return merge_outputs(outputs) if outputs else results[0]
