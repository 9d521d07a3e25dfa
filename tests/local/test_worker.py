from __future__ import annotations

import numpy as np
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tinker_actors.wire.input import Datum, ModelInput
from tinker_actors.wire.training import ForwardBackwardInput, ForwardBackwardRequest, ForwardRequest
from tinker_actors.wire.weights import LoadWeightsRequest, SaveWeightsForSamplerRequest, SaveWeightsRequest

STEPS = 8


@settings(max_examples=12)
@given(order=st.permutations(range(1, STEPS + 1)))
def test_requests_run_in_sequence_whatever_order_they_arrive_in(make_service, connect, kit, order) -> None:
    """Every order of arrival, each request sent twice, gives the weights of the ordered run, bit for bit."""

    async def train(arrivals: list[int]) -> bytes:
        async with connect(make_service()) as caller:
            model_id = await caller.create_model()
            requests = {
                number: kit.forward_backward(model_id, number, shift=number)
                if number % 2
                else kit.optim_step(model_id, number)
                for number in range(1, STEPS + 1)
            }
            ids = {number: (await caller.ask(requests[number])).request_id for number in arrivals}
            again = {number: (await caller.ask(requests[number])).request_id for number in reversed(arrivals)}
            assert again == ids
            for request_id in ids.values():
                assert "error" not in (await caller.poll(request_id)).json()
            return await caller.weights_of(model_id, STEPS + 1)

    expected = _ORDERED.get("weights") or _ORDERED.setdefault(
        "weights", trio.run(train, list(range(1, STEPS + 1)))
    )
    assert trio.run(train, list(order)) == expected


_ORDERED: dict[str, bytes] = {}


async def test_early_requests_are_parked_up_to_a_limit(make_service, connect, kit) -> None:
    """Requests that run ahead wait; beyond 256 they get 429 with a time to come again."""
    service = make_service()
    async with connect(service) as caller:
        model_id = await caller.create_model()
        for number in range(2, 258):
            await caller.ask(kit.optim_step(model_id, number))
        response = await caller.send(kit.optim_step(model_id, 258))
        assert (response.status_code, response.headers["retry-after"]) == (429, "1")
        assert (service.statistics().jobs_parked, service.statistics().jobs_queued) == (256, 256)
        await caller.ask(kit.optim_step(model_id, 1))
        last = await caller.ask(kit.optim_step(model_id, 258))
        await caller.poll(last.request_id)
        assert service.statistics().jobs_begun["optim_step"] == 258


async def test_a_number_cannot_be_used_for_something_else(make_service, connect, kit) -> None:
    """Another body or another operation under a used number is 409, while it waits and after it has run."""
    async with connect(make_service()) as caller:
        model_id = await caller.create_model()
        first = kit.optim_step(model_id, 1)
        await caller.run(first)
        for other in (kit.optim_step(model_id, 1, learning_rate=0.5), kit.forward_backward(model_id, 1)):
            response = await caller.send(other)
            assert response.status_code == 409
            assert "sequence number was reused" in response.json()["detail"]
        assert (await caller.run(first))["metrics"]


async def test_a_refused_request_has_not_taken_its_number(make_service, connect, kit) -> None:
    """After 400, 422, 404 and 409 the same number is free for a good request."""
    async with connect(make_service()) as caller:
        model_id = await caller.create_model()
        await caller.run(SaveWeightsRequest(model_id=model_id, path="used", seq_id=1))
        bad = [
            (kit.optim_step(model_id, 2, learning_rate=float("inf")), 422),  # infinity has no JSON
            (kit.optim_step(model_id, 2, beta1=2.0), 400),
            (kit.optim_step("nobody", 2), 404),
            (SaveWeightsRequest(model_id=model_id, path="used", seq_id=2), 409),
            (SaveWeightsRequest(model_id=model_id, path="a/b", seq_id=2), 400),
            (SaveWeightsRequest(model_id=model_id, path="a", seq_id=2, ttl_seconds=0), 400),
            (SaveWeightsForSamplerRequest(model_id=model_id, seq_id=2), 400),
            (LoadWeightsRequest(model_id=model_id, path="used", optimizer=True, seq_id=2), 400),
            (
                LoadWeightsRequest(
                    session_id="s", model_seq_id=2, path="tinker://a/weights/b", optimizer=True
                ),
                404,
            ),
            (SaveWeightsRequest(model_id=model_id, path="unnumbered"), 400),
            (SaveWeightsRequest(model_id=model_id, seq_id=2), 400),
            (SaveWeightsForSamplerRequest(model_id=model_id, path="a", kind="inflight", seq_id=2), 400),
        ]
        for request, status in bad:
            response = await caller.send(request)
            assert response.status_code == status, (request, response.text)
        await caller.run(kit.optim_step(model_id, 2))


@pytest.mark.parametrize(
    ("tokens", "inputs", "loss", "config", "detail"),
    [
        (None, {}, "cross_entropy", None, "data = []"),
        ([10], {"target_tokens": [10], "weights": [1.0]}, "dro", None, "loss_fn = 'dro'"),
        ([10], {"target_tokens": [10], "weights": [np.nan]}, "cross_entropy", None, "['weights'][0] = nan"),
        (
            [10],
            {"target_tokens": [10, 11], "weights": [1.0]},
            "cross_entropy",
            None,
            "['target_tokens'] = (2,)",
        ),
        ([10], {"target_tokens": [10]}, "cross_entropy", None, "cross_entropy needs 'weights'"),
        ([7000], {"target_tokens": [10], "weights": [1.0]}, "cross_entropy", None, "model_input[0] = 7000"),
        (
            [10],
            {"target_tokens": [10], "weights": [1.0]},
            "cross_entropy",
            {"mode": "x"},
            "loss_fn_config.mode",
        ),
        (
            [10],
            {"target_tokens": [10], "weights": [1.0]},
            "cross_entropy",
            {"b": 1.0},
            "loss_fn_config.b = 1.0",
        ),
    ],
)
async def test_bad_batches_name_field_and_value(
    make_service, connect, tokens, inputs, loss, config, detail: str
) -> None:
    """A bad batch is 400 before it takes its number, and the answer says where and what."""
    data = [] if tokens is None else [Datum(ModelInput.from_ints(tokens), inputs)]
    async with connect(make_service()) as caller:
        model_id = await caller.create_model()
        for request in (
            ForwardBackwardRequest(ForwardBackwardInput(data, loss, config), model_id, 1),
            ForwardRequest(ForwardBackwardInput(data, loss, config), model_id, 1),
        ):
            response = await caller.send(request)
            assert response.status_code == 400
            assert detail in response.json()["detail"]


async def test_a_request_that_fails_has_had_its_turn(make_service, connect, kit) -> None:
    """A failure at run time is the promise's result, with its category, and the next number runs."""
    async with connect(make_service()) as caller:
        model_id = await caller.create_model()
        missing = LoadWeightsRequest(model_id=model_id, path="tinker://a/weights/b", optimizer=True, seq_id=1)
        response = await caller.poll((await caller.ask(missing)).request_id)
        assert response.status_code == 200
        assert response.json() == {
            "error": "Checkpoint 'tinker://a/weights/b' does not exist",
            "category": "user",
        }
        await caller.run(kit.optim_step(model_id, 2))
