"""How a model is made: afresh, or of a saved state.

A model that starts from a saved state is made in one of two ways. A service that is known to take it is sent one
`load_weights`, addressed by session and number, that makes the model. All others are sent a `create_model`, for which
`weights_info` has told the shape of the state, and then a `load_weights` for the new model.
"""

from __future__ import annotations

from typing import Any

import attrs

from tinker_actors.actors.lineage import Lineage
from tinker_actors.wire.endpoint import Endpoint
from tinker_actors.wire.endpoints import CREATE_MODEL, LOAD_WEIGHTS
from tinker_actors.wire.future import UntypedAPIFuture
from tinker_actors.wire.model import CreateModelRequest, CreateModelResponse
from tinker_actors.wire.optimizer import ADAM_CONFIG
from tinker_actors.wire.weights import LoadWeightsRequest, LoadWeightsResponse

__all__ = ["Birth", "birth_of"]

# It changes no model that anybody knows of: sent twice it costs a slot, and no gradient.
_LOAD_INTO_NEW = attrs.evolve(LOAD_WEIGHTS, on_doubt="create")


@attrs.frozen(kw_only=True)
class Birth:
    """The request that makes a model.

    Attributes:
        endpoint: where it goes.
        request: what is sent.
        reply: the wire class of the promise's result, which may name the model.
        request_type: what the promise is called when its result is asked for.
        model_id: what the model is called unless the result names it.
        path: the saved state that it loads; None loads none.
    """

    endpoint: Endpoint[Any, UntypedAPIFuture]
    request: object
    reply: type[CreateModelResponse | LoadWeightsResponse]
    request_type: str
    model_id: str
    path: str | None = None


def birth_of(lineage: Lineage, session_id: str, number: int, *, by_loading: bool) -> Birth:
    """Return the request that makes the model of a lineage.

    Args:
        lineage: the model.
        session_id: the session that it is made in.
        number: its number there.
        by_loading: the service makes a model of a saved state in one request.
    """
    model_id = f"{session_id}:train:{number}"
    state = lineage.state
    if state is None or not by_loading:
        request = CreateModelRequest(
            session_id=session_id,
            model_seq_id=number,
            base_model=lineage.base_model,
            user_metadata=lineage.user_metadata,
            lora_config=lineage.lora_config,
            optimizer_config=lineage.optimizer_config or ADAM_CONFIG,
        )
        return Birth(
            endpoint=CREATE_MODEL,
            request=request,
            reply=CreateModelResponse,
            request_type="CreateModel",
            model_id=model_id,
        )
    load = LoadWeightsRequest(
        session_id=session_id,
        model_seq_id=number,
        base_model=lineage.base_model or None,
        user_metadata=lineage.user_metadata or None,
        optimizer_config=None if state.optimizer else lineage.optimizer_config,
        path=state.path,
        optimizer=state.optimizer,
        weights_access_token=state.weights_access_token,
    )
    return Birth(
        endpoint=_LOAD_INTO_NEW,
        request=load,
        reply=LoadWeightsResponse,
        request_type="LoadWeights",
        model_id=model_id,
        path=state.path,
    )
