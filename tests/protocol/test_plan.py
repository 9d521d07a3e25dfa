from __future__ import annotations

from itertools import count
from typing import Any, cast, get_args

import pytest

from tinker_actors.protocol.journal import Operation
from tinker_actors.protocol.plan import (
    REPLIES,
    REQUEST_TYPES,
    Place,
    parts,
    parts_by_plan,
    plan_of,
    reply_of,
    request_of,
)
from tinker_actors.protocol.step import OperationKind
from tinker_actors.wire import endpoints
from tinker_actors.wire.input import Datum, ModelInput
from tinker_actors.wire.optimizer import AdamParams, OptimStepRequest, OptimStepResponse
from tinker_actors.wire.tensor import TensorData
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
    SaveWeightsForSamplerRequest,
    SaveWeightsForSamplerResult,
    SaveWeightsRequest,
    SaveWeightsResponse,
)

DATA = tuple(Datum(ModelInput.from_ints([token] * 5), {"weights": [1.0] * 5}) for token in range(5))
KINDS = cast("tuple[OperationKind, ...]", get_args(OperationKind))


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


def test_a_batch_is_cut_again_as_it_was_cut_before() -> None:
    """By its plan, whatever the limits have become since; sums of floats depend on it."""
    whole = Operation(kind="forward_backward", data=DATA)
    cut = parts(whole, max_datums=2, max_bytes=10**6)
    assert plan_of(cut) == (2, 2, 1)
    assert [part.data for part in parts_by_plan(whole, plan_of(cut))] == [part.data for part in cut]
    assert parts_by_plan(whole, (5,)) == [whole]
    step = Operation(kind="optim_step")
    assert parts_by_plan(step, plan_of([step])) == [step]


def test_what_has_no_batch_is_one_request() -> None:
    """It is not cut, and not lost either."""
    operation = Operation(kind="optim_step", optim_params=AdamParams())
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


@pytest.mark.lesson("D10")
def test_optimizer_saves_and_loads() -> None:
    """Each gets the fields of its kind, its model and its number."""
    adam = AdamParams(learning_rate=0.5)
    assert request(Operation(kind="optim_step", optim_params=adam)) == (
        endpoints.OPTIM_STEP,
        OptimStepRequest(adam, "m", 7),
    )
    assert request(Operation(kind="save_state", name="a", ttl_seconds=60)) == (
        endpoints.SAVE_WEIGHTS,
        SaveWeightsRequest(model_id="m", path="a", seq_id=7, ttl_seconds=60),
    )
    full = Operation(kind="save_state", name="a", overwrite=True, user_metadata={"k": "v"})
    assert request(full) == (
        endpoints.SAVE_WEIGHTS,
        SaveWeightsRequest(model_id="m", path="a", seq_id=7, overwrite=True, user_metadata={"k": "v"}),
    )
    external = Operation(kind="save_external", name="e", ttl_seconds=3600, recipients=("age1x",))
    assert request(external) == (
        endpoints.SAVE_WEIGHTS_EXTERNAL,
        SaveWeightsExternalRequest(
            model_id="m", path="e", seq_id=7, ttl_seconds=3600, age_encryption_recipients=("age1x",)
        ),
    )
    token = Operation(kind="load_state", path="tinker://x/weights/a", weights_access_token="t")
    assert request(token)[1] == LoadWeightsRequest(
        model_id="m", path="tinker://x/weights/a", optimizer=False, seq_id=7, weights_access_token="t"
    )
    assert request(Operation(kind="load_state", path="tinker://x/weights/a", optimizer=True)) == (
        endpoints.LOAD_WEIGHTS,
        LoadWeightsRequest(model_id="m", path="tinker://x/weights/a", optimizer=True, seq_id=7),
    )


@pytest.mark.lesson("D19")
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
    inflight = Operation(kind="save_for_sampler", sampler_kind="inflight", user_metadata={"k": "v"})
    assert request_of(inflight, place)[1] == SaveWeightsForSamplerRequest(
        model_id="m", sampling_session_seq_id=5, seq_id=7, kind="inflight", user_metadata={"k": "v"}
    )


@pytest.mark.parametrize("kind", ["optim_step", "save_state", "save_external", "load_state"])
def test_an_operation_that_is_not_whole_is_never_sent(kind: Any) -> None:
    """Default settings, an empty name or no path would be another operation than the one that was decided."""
    with pytest.raises(AssertionError):
        request(Operation(kind=kind))


# --- replies ---------------------------------------------------------------------------------------------


def test_outputs_of_the_parts_become_one() -> None:
    """In the order of the parts, with reduced metrics."""

    def output(logprob: float, loss: float) -> ForwardBackwardOutput:
        return ForwardBackwardOutput(
            "x", ({"logprobs": TensorData([logprob], "float32")},), {"loss:sum": loss}
        )

    reply: Any = reply_of([output(-1.0, 2.0), output(-2.0, 3.0)])
    assert reply.metrics == {"loss:sum": 5.0}
    assert [one["logprobs"] for one in reply.loss_fn_outputs] == [
        TensorData([-1.0], "float32"),
        TensorData([-2.0], "float32"),
    ]


@pytest.mark.parametrize(
    "reply",
    [
        OptimStepResponse({"grad_norm": 2.0}),
        SaveWeightsResponse("tinker://m/weights/a"),
        SaveWeightsForSamplerResult(sampling_session_id="s:sample:0"),
        LoadWeightsResponse(path="p", type="load_weights"),
    ],
)
def test_what_has_no_parts_has_its_result_as_its_reply(reply: Any) -> None:
    """As it was read."""
    assert reply_of([reply]) is reply


def test_every_kind_of_operation_has_a_reply_and_a_name() -> None:
    """The name is what its promise is called when it is asked for."""
    assert set(REPLIES) == set(REQUEST_TYPES) == set(KINDS)
