"""How a batch in several requests goes out: order, numbers, bytes, and what becomes of a refusal."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import trio

from tests.actors.scripted import MODES
from tinker_actors.errors import BadRequestError, ModelPoisoned, RequestFailedError, StepVoid
from tinker_actors.protocol.capability import CapabilityRecord
from tinker_actors.testing import ServiceFaults, open_scripted_service
from tinker_actors.types import AdamParams

ADAM = AdamParams(learning_rate=1e-3)
MODEL = "tinker-actors/char-100k"
PARKING = CapabilityRecord(dedupe="replay", early_numbers="park")
ORDERED = CapabilityRecord(dedupe="replay")


@pytest.fixture
def three(stub: Any, batch: Any) -> list[Any]:
    """Return a batch of five datums for a service that takes two at once."""
    stub.rules["client/config"] = lambda _, __: httpx.Response(200, json={"fwdbwd_max_chunk_len": 2})
    return [datum for token in range(5) for datum in batch(token)]


def sizes(stub: Any) -> list[tuple[int, int]]:
    """Return (number, datums) of each gradient request, in order of arrival."""
    return [
        (body["seq_id"], len(body["forward_backward_input"]["data"]))
        for body in stub.bodies("forward_backward")
    ]


@pytest.mark.requirement("R113", "R114", "R124")
@pytest.mark.parametrize(
    ("capability", "order"),
    [(ORDERED, [(1, 2), (2, 2), (3, 1)]), (PARKING, [(2, 2), (3, 1), (1, 2)])],
    ids=["ordered", "parking"],
)
async def test_chunks_go_in_order_unless_early_numbers_are_kept(
    autojump_clock: Any, open_stub: Any, stub: Any, three: Any, capability: Any, order: Any
) -> None:
    """Then all but the first go at once, and the first after them; what follows comes after all of them."""
    async with open_stub(capability=capability) as service:
        training = await service.create_lora_training_client(MODEL)
        pending = await training.forward_backward(three, "cross_entropy")
        await training.optim_step(AdamParams())
        output = await pending
    seen = sizes(stub)
    if capability is PARKING:  # the two go in the same moment
        assert sorted(seen[:2]) == order[:2]
        assert seen[2] == order[2]
        assert stub.peak["forward_backward"] == 2
    else:
        assert seen == order
        assert stub.peak["forward_backward"] == 1
    assert stub.wire()[-1] == ("optim_step", 4)
    assert output.metrics == {"loss:sum": 5.0}
    logprobs = [one["logprobs"].data.tolist() for one in output.loss_fn_outputs]
    assert logprobs == [[float(token)] for token in range(5)]


@pytest.mark.requirement("R106", "R110")
async def test_the_results_of_chunks_are_waited_for_together(
    autojump_clock: Any, open_stub: Any, stub: Any, three: Any
) -> None:
    """One slow result does not keep the others from being fetched."""
    stub.held["forward_backward"] = trio.Event()
    async with open_stub(capability=ORDERED) as service:
        training = await service.create_lora_training_client(MODEL)
        pending = await training.forward_backward(three, "cross_entropy")
        await trio.sleep(1)
        assert stub.active["retrieve_future"] == 3
        stub.held["forward_backward"].set()
        await pending


def refuse(stub: Any, *numbers: int) -> None:
    """Refuse each of these numbers once."""
    left = list(numbers)

    def rule(body: dict[str, Any], _: int) -> httpx.Response | None:
        if body["seq_id"] not in left:
            return None
        left.remove(body["seq_id"])
        return httpx.Response(400, json={"detail": "too long"})

    stub.rules["forward_backward"] = stub.rules["forward"] = rule


async def test_a_refused_first_chunk_leaves_no_hole(
    autojump_clock: Any, open_stub: Any, stub: Any, three: Any, batch: Any
) -> None:
    """Nothing of the batch was taken: the step is void, and the next one begins with the same number."""
    refuse(stub, 1)
    async with open_stub(capability=ORDERED) as service:
        training = await service.create_lora_training_client(MODEL)
        first = await training.forward_backward(three, "cross_entropy")
        rest = await training.optim_step(AdamParams())
        with pytest.raises(BadRequestError):
            await first
        with pytest.raises(StepVoid):
            await rest
        await (await training.forward_backward(batch(7), "cross_entropy"))
    assert [number for number, _ in sizes(stub)] == [1, 1]


@pytest.mark.requirement("R117")
@pytest.mark.lesson("L2")
@pytest.mark.parametrize(("capability", "number"), [(ORDERED, 2), (PARKING, 1), (PARKING, 3)])
async def test_half_a_gradient_poisons_the_model(
    autojump_clock: Any, open_stub: Any, stub: Any, three: Any, batch: Any, capability: Any, number: int
) -> None:
    """Wherever the refusal is: a part of the batch is on the service."""
    refuse(stub, number)
    async with open_stub(capability=capability) as service:
        training = await service.create_lora_training_client(MODEL)
        first = await training.forward_backward(three, "cross_entropy")
        with pytest.raises(BadRequestError):
            await first
        with pytest.raises(ModelPoisoned):
            await (await training.forward_backward(batch(7), "cross_entropy"))


async def test_a_hole_is_filled_by_the_next_request(
    autojump_clock: Any, open_stub: Any, stub: Any, three: Any
) -> None:
    """A loss in several requests changes nothing: what comes next takes the number that is missing."""
    refuse(stub, 1)
    async with open_stub(capability=PARKING) as service:
        training = await service.create_lora_training_client(MODEL)
        with pytest.raises(BadRequestError):
            await (await training.forward(three, "cross_entropy"))
        await training.save_state("a")
        await training.save_state("b")
    numbers = [number for name, number in stub.wire() if name == "save_weights"]
    assert numbers == [1, 4]


async def test_models_share_a_budget_of_bytes(
    autojump_clock: Any, open_stub: Any, stub: Any, batch: Any
) -> None:
    """While a request stands beyond it, the next one waits; what weighs nothing waits as well, in order."""
    stub.gates["forward_backward"] = trio.Event()
    async with open_stub() as service:
        session = service._tree.session
        session.dispatch.ledger.free = 10
        models = [await service.create_lora_training_client(MODEL) for _ in range(2)]
        pendings = [await model.forward_backward(batch(1, 2, 3), "cross_entropy") for model in models]
        await trio.sleep(1)
        assert stub.names().count("forward_backward") == 1
        stub.gates["forward_backward"].set()
        for pending in pendings:
            await pending
        assert session.dispatch.ledger.free == 10


async def test_in_protobuf_a_loss_goes_where_gradients_go(
    autojump_clock: Any, open_stub: Any, stub: Any, batch: Any
) -> None:
    """A service that takes that form is sent it; the flag in it says that there shall be no gradient."""
    async with open_stub(capability=CapabilityRecord(training_body="protobuf")) as service:
        training = await service.create_lora_training_client(MODEL)
        await (await training.forward(batch(1), "cross_entropy"))
        await (await training.forward_backward(batch(2), "cross_entropy"))
    assert "forward" not in stub.names()
    bodies = stub.bodies("forward_backward")
    assert [("forward_input" in body, body["seq_id"]) for body in bodies] == [(True, 1), (False, 2)]


@pytest.mark.requirement("R116")
@pytest.mark.parametrize("mode", MODES)
async def test_a_number_that_failed_is_used_again_where_it_is_not_used_up(
    autojump_clock: Any, batch: Any, mode: str
) -> None:
    """A loss that could not be computed leaves no hole in the numbers, whatever the service thinks of them."""
    faults = ServiceFaults().fail(of="forward", nth=1).fail(of="forward_backward", nth=1)
    async with open_scripted_service(faults, dialect=MODES[mode]) as (service, scripted):
        training = await service.create_lora_training_client(MODEL)
        with pytest.raises(RequestFailedError):
            await (await training.forward(batch(1), "cross_entropy"))
        with pytest.raises(RequestFailedError):
            await (await training.forward_backward(batch(1), "cross_entropy"))
        await (await training.forward_backward(batch(2), "cross_entropy"))
        await (await training.optim_step(ADAM))
        applied = [(one.endpoint, one.seq_id) for one in scripted.trained[training.model_id]]
    first = 1 if mode == "reject" else 3
    assert applied == [("forward_backward", first), ("optim_step", first + 1)]
