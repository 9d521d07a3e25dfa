from __future__ import annotations

from itertools import count
from typing import Any, cast, get_args

import orjson
import pytest

from tinker_actors.errors import APIResponseValidationError
from tinker_actors.protocol.journal import Operation
from tinker_actors.protocol.plan import Place, model_id_of, parts, reply_of, request_of
from tinker_actors.protocol.step import OperationKind
from tinker_actors.wire import endpoints
from tinker_actors.wire.input import Datum, ModelInput
from tinker_actors.wire.optimizer import AdamParams, OptimStepRequest, OptimStepResponse
from tinker_actors.wire.payload import JSON, Payload
from tinker_actors.wire.tensor import TensorData
from tinker_actors.wire.training import ForwardBackwardInput, ForwardBackwardRequest, ForwardRequest
from tinker_actors.wire.weights import (
    LoadWeightsRequest,
    LoadWeightsResponse,
    SaveWeightsForSamplerRequest,
    SaveWeightsForSamplerResult,
    SaveWeightsRequest,
    SaveWeightsResponse,
)

DATA = tuple(Datum(ModelInput.from_ints([token] * 5), {"weights": [1.0] * 5}) for token in range(5))
KINDS = cast("tuple[OperationKind, ...]", get_args(OperationKind))


def as_json(value: Any) -> Payload:
    return Payload(JSON, orjson.dumps(value))


def no_sampler() -> int:
    raise AssertionError("no sampling session is to be made")


def request(operation: Operation) -> tuple[Any, object]:
    return request_of(operation, Place(model_id="m", seq_id=7, take_sampler_seq=no_sampler))


# --- parts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["forward", "forward_backward"])
def test_a_batch_goes_out_in_parts_of_the_same_operation(kind: Any) -> None:
    """Each with its share of the data, and with everything else; one part if it fits."""
    whole = Operation(kind=kind, data=DATA, loss_fn="ppo", loss_fn_config={"clip_low_threshold": 0.5})
    cut = parts(whole, max_datums=2, max_bytes=10**6)
    assert [part.data for part in cut] == [DATA[:2], DATA[2:4], DATA[4:]]
    assert {(part.kind, part.loss_fn, str(part.loss_fn_config)) for part in cut} == {
        (kind, "ppo", "{'clip_low_threshold': 0.5}")
    }
    assert parts(whole, max_datums=5, max_bytes=10**6) == [whole]
    assert [len(part.data) for part in parts(whole, max_datums=5, max_bytes=80)] == [2, 2, 1]


def test_what_has_no_batch_is_one_request() -> None:
    """It is not cut, and not lost either."""
    operation = Operation(kind="optim_step", adam_params=AdamParams())
    assert parts(operation, max_datums=1, max_bytes=1) == [operation]


# --- requests --------------------------------------------------------------------------------------------


def test_gradients_and_losses() -> None:
    """Both carry the batch and the loss; only the endpoint tells whether there is a gradient."""
    batch = ForwardBackwardInput(DATA, "ppo", {"clip_low_threshold": 0.5})
    operation = Operation(
        kind="forward_backward", data=DATA, loss_fn="ppo", loss_fn_config={"clip_low_threshold": 0.5}
    )
    assert request(operation) == (endpoints.FORWARD_BACKWARD, ForwardBackwardRequest(batch, "m", 7))
    forward = Operation(kind="forward", data=DATA)
    expected = ForwardRequest(ForwardBackwardInput(DATA, "cross_entropy"), "m", 7)
    assert request(forward) == (endpoints.FORWARD, expected)


def test_a_loss_in_protobuf_goes_where_gradients_go() -> None:
    """The form has a flag for it; in JSON it has an endpoint of its own."""
    place = Place(model_id="m", seq_id=7, take_sampler_seq=no_sampler, training_body="protobuf")
    forward = request_of(Operation(kind="forward", data=DATA), place)
    batch = ForwardBackwardInput(DATA, "cross_entropy")
    assert forward == (endpoints.FORWARD_BACKWARD, ForwardRequest(batch, "m", 7))
    backward = request_of(Operation(kind="forward_backward", data=DATA), place)
    assert backward == (endpoints.FORWARD_BACKWARD, ForwardBackwardRequest(batch, "m", 7))


def test_optimizer_saves_and_loads() -> None:
    """Each gets the fields of its kind, its model and its number."""
    adam = AdamParams(learning_rate=0.5)
    assert request(Operation(kind="optim_step", adam_params=adam)) == (
        endpoints.OPTIM_STEP,
        OptimStepRequest(adam, "m", 7),
    )
    assert request(Operation(kind="save_state", name="a", ttl_seconds=60)) == (
        endpoints.SAVE_WEIGHTS,
        SaveWeightsRequest(model_id="m", path="a", seq_id=7, ttl_seconds=60),
    )
    assert request(Operation(kind="load_state", path="tinker://x/weights/a", optimizer=True)) == (
        endpoints.LOAD_WEIGHTS,
        LoadWeightsRequest(model_id="m", path="tinker://x/weights/a", optimizer=True, seq_id=7),
    )


def test_a_sampler_has_a_name_or_takes_a_number() -> None:
    """The number of a sampling session is taken only when one is made, and once."""
    assert request(Operation(kind="save_for_sampler", name="s")) == (
        endpoints.SAVE_WEIGHTS_FOR_SAMPLER,
        SaveWeightsForSamplerRequest(model_id="m", path="s", seq_id=7),
    )
    numbers = count(3)
    place = Place(model_id="m", seq_id=7, take_sampler_seq=lambda: next(numbers))
    assert request_of(Operation(kind="save_for_sampler", ttl_seconds=9), place) == (
        endpoints.SAVE_WEIGHTS_FOR_SAMPLER,
        SaveWeightsForSamplerRequest(model_id="m", sampling_session_seq_id=3, seq_id=7, ttl_seconds=9),
    )
    assert next(numbers) == 4


@pytest.mark.parametrize("kind", ["optim_step", "save_state", "load_state"])
def test_an_operation_that_is_not_whole_is_never_sent(kind: Any) -> None:
    """Default settings, an empty name or no path would be another operation than the one that was decided."""
    with pytest.raises(AssertionError):
        request(Operation(kind=kind))


# --- replies ---------------------------------------------------------------------------------------------

REPLIES: dict[OperationKind, tuple[Any, object]] = {
    "optim_step": ({"metrics": {"grad_norm": 2}}, OptimStepResponse({"grad_norm": 2.0})),
    "save_state": ({"path": "tinker://m/weights/a"}, SaveWeightsResponse("tinker://m/weights/a")),
    "save_for_sampler": (
        {"sampling_session_id": "s:sample:0"},
        SaveWeightsForSamplerResult(sampling_session_id="s:sample:0"),
    ),
    "load_state": ({"type": "load_weights", "path": "p"}, LoadWeightsResponse(path="p", type="load_weights")),
}


def test_outputs_of_the_parts_become_one() -> None:
    """In the order of the parts, with reduced metrics; fields we do not know are ignored."""

    def value(logprob: float, loss: float) -> Any:
        outputs = [{"logprobs": {"data": [logprob], "dtype": "float32", "shape": [1]}}]
        return {
            "loss_fn_output_type": "x",
            "loss_fn_outputs": outputs,
            "metrics": {"loss:sum": loss},
            "new": 1,
        }

    reply: Any = reply_of(
        Operation(kind="forward_backward", data=DATA), [as_json(value(-1.0, 2.0)), as_json(value(-2.0, 3.0))]
    )
    assert reply.metrics == {"loss:sum": 5.0}
    assert [one["logprobs"] for one in reply.loss_fn_outputs] == [
        TensorData([-1.0], "float32"),
        TensorData([-2.0], "float32"),
    ]


@pytest.mark.parametrize("kind", REPLIES)
def test_each_operation_has_its_reply(kind: OperationKind) -> None:
    """Whatever newer services add to it."""
    value, expected = REPLIES[kind]
    assert reply_of(Operation(kind=kind), [as_json({**value, "new": True})]) == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [None, 3, "done", [], {"metrics": 5, "path": 5}], ids=repr)
def test_a_result_of_another_shape_is_told(kind: OperationKind, value: Any) -> None:
    """With the operation, and each problem with its path."""
    with pytest.raises(APIResponseValidationError, match=rf"^{kind}: not a ") as caught:
        reply_of(Operation(kind=kind), [as_json(value)])
    assert caught.value.problems
    assert caught.value.__cause__ is not None


def test_the_id_of_a_new_model() -> None:
    """Read from the result of its creation."""
    assert model_id_of(as_json({"type": "create_model", "model_id": "s:train:0", "new": 1})) == "s:train:0"
    with pytest.raises(
        APIResponseValidationError, match=r"create_model: .* required field missing @ \$.model_id"
    ):
        model_id_of(as_json({"type": "create_model"}))
