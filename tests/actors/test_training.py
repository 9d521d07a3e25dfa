"""The TrainingActor: order on the wire, results, failures that are answers, steps."""

from __future__ import annotations

import contextlib
from typing import Any

import httpx
import pytest
import trio
import trio.testing

from tinker_actors.actors.message import SaveState
from tinker_actors.errors import (
    APIResponseValidationError,
    APITimeoutError,
    BadRequestError,
    ModelPoisoned,
    NotFoundError,
    RequestFailedError,
    StepVoid,
    UnobservedFailure,
    UnprocessableEntityError,
    Withdrawn,
)
from tinker_actors.types import AdamParams

ADAM = AdamParams(learning_rate=1e-3)
MODEL = "tinker-actors/char-100k"
NOT_LOADED = {"detail": "Model is not loaded"}


async def test_a_step_gives_its_results(autojump_clock: Any, batch: Any, open_stub: Any) -> None:
    """forward_backward and optim_step return Pendings that give the service's results."""
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL, rank=4)
        forward = await training.forward_backward(batch(), "cross_entropy")
        optim = await training.optim_step(ADAM)
        assert (await forward).metrics == {"loss:sum": 1.0}
        assert (await optim).metrics == {"seq": 2.0}


@pytest.mark.requirement("R111", "R112")
@pytest.mark.lesson("L1")
async def test_a_thousand_pairs_reach_the_wire_in_program_order(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """1,000 pairs submitted without awaiting results arrive in order, numbered without a hole."""
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        pendings = []
        for i in range(1000):
            pendings.append(await training.forward_backward(batch(i), "cross_entropy"))
            pendings.append(await training.optim_step(ADAM))
        for pending in pendings:
            await pending
    assert stub.trained_tokens() == list(range(1000))
    assert stub.wire() == [(("forward_backward", "optim_step")[i % 2], i + 1) for i in range(2000)]


@pytest.mark.requirement("R120")
async def test_two_tasks_keep_their_own_orders(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """What each of two tasks submits arrives in that task's order."""
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)

        async def submit(start: int) -> None:
            for i in range(start, start + 300):
                await training.forward_backward(batch(i), "cross_entropy")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(submit, 0)
            nursery.start_soon(submit, 1000)
    tokens = stub.trained_tokens()
    assert [t for t in tokens if t < 1000] == list(range(300))
    assert [t for t in tokens if t >= 1000] == list(range(1000, 1300))


@pytest.mark.requirement("R114")
async def test_the_next_message_goes_out_before_the_last_result_is_there(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """optim_step is on the wire while forward_backward still runs."""
    stub.held["forward_backward"] = trio.Event()
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        forward = await training.forward_backward(batch(), "cross_entropy")
        await training.optim_step(ADAM)
        await trio.sleep(1)
        assert [name for name, _ in stub.wire()] == ["forward_backward", "optim_step"]
        assert not forward.settled
        stub.held["forward_backward"].set()
        await forward


async def test_a_full_mailbox_makes_the_caller_wait(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """While the service does not take requests, submitting waits once the mailbox is full."""
    stub.gates["forward_backward"] = trio.Event()
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        admitted = 0
        with trio.move_on_after(5) as scope:
            for i in range(200):
                await training.forward_backward(batch(i), "cross_entropy")
                admitted += 1
        assert scope.cancelled_caught
        assert admitted == training.ref.statistics().capacity + 1  # one is being sent
        stub.gates["forward_backward"].set()
    assert stub.trained_tokens() == list(range(admitted))


@pytest.mark.requirement("R105")
async def test_leaving_a_pending_changes_nothing(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """`with move_on_after(0): await pending` leaves what was admitted as it was."""
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        first = await training.forward_backward(batch(1), "cross_entropy")
        second = await training.optim_step(ADAM)
        for pending in (first, second):
            with trio.move_on_after(0) as scope:
                await pending
            assert scope.cancelled_caught
        assert (await first).metrics["loss:sum"] == 1.0
        await second
    assert [name for name, _ in stub.wire()] == ["forward_backward", "optim_step"]


@pytest.mark.requirement("R115")
async def test_withdraw_takes_back_a_whole_step(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """A step of which nothing has begun is taken back whole; the step behind it is not."""
    stub.gates["save_weights"] = trio.Event()
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        await training.submit(SaveState("busy"))  # the actor is stuck in sending this
        forward = await training.forward_backward(batch(1), "cross_entropy")
        optim = await training.optim_step(ADAM)
        later = await training.forward_backward(batch(2), "cross_entropy")
        assert await optim.withdraw()
        for pending in (forward, optim):
            with pytest.raises(Withdrawn) as caught:
                await pending
            assert caught.value.started is False
        assert not await optim.withdraw()
        stub.gates["save_weights"].set()
        await later
    assert stub.trained_tokens() == [2]
    assert "optim_step" not in stub.names()


async def test_withdraw_takes_back_nothing_of_a_step_that_has_begun(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """Once the first part of a step is being sent, withdraw returns False and the step goes on."""
    stub.gates["forward_backward"] = trio.Event()
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        forward = await training.forward_backward(batch(1), "cross_entropy")
        optim = await training.optim_step(ADAM)
        await trio.testing.wait_all_tasks_blocked()
        assert not await optim.withdraw()
        assert not await forward.withdraw()
        stub.gates["forward_backward"].set()
        await forward
        await optim
    assert [name for name, _ in stub.wire()] == ["forward_backward", "optim_step"]


# --- failures that are answers -------------------------------------------------------------------------------


@pytest.mark.requirement("R116")
async def test_a_refused_request_hands_its_number_on(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """A submit that the service refuses leaves no hole in the numbers."""
    stub.rules["forward_backward"] = lambda _, count: (
        httpx.Response(400, json={"detail": "no"}) if count == 0 else None
    )
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        with pytest.raises(BadRequestError):
            await (await training.forward_backward(batch(), "cross_entropy"))
        await (await training.forward_backward(batch(), "cross_entropy"))
        await (await training.optim_step(ADAM))
    assert stub.wire() == [("forward_backward", 1), ("forward_backward", 1), ("optim_step", 2)]


async def test_a_step_whose_gradient_was_refused_is_void(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """The optim_step that stood in line behind a refused gradient is not sent; the next step is."""
    stub.gates["forward_backward"] = trio.Event()
    stub.rules["forward_backward"] = lambda _, count: (
        httpx.Response(422, json={"detail": "no"}) if count == 0 else None
    )
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        forward = await training.forward_backward(batch(1), "cross_entropy")
        optim = await training.optim_step(ADAM)
        next_forward = await training.forward_backward(batch(2), "cross_entropy")
        next_optim = await training.optim_step(ADAM)
        stub.gates["forward_backward"].set()
        with pytest.raises(UnprocessableEntityError) as refused:
            await forward
        with pytest.raises(StepVoid) as void:
            await optim
        assert type(void.value.__cause__) is type(refused.value)
        await next_forward
        await next_optim
    assert stub.wire() == [("forward_backward", 1), ("forward_backward", 1), ("optim_step", 2)]


async def test_a_step_after_a_seen_failure_is_not_void(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """What is submitted after the failure was known belongs to a new step."""
    stub.results["forward_backward#0"] = {"error": "bad token", "category": "user"}
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        with pytest.raises(RequestFailedError, match="bad token"):
            await (await training.forward_backward(batch(1), "cross_entropy"))
        forward = await training.forward_backward(batch(2), "cross_entropy")
        optim = await training.optim_step(ADAM)
        await forward
        await optim
    assert stub.wire() == [("forward_backward", 1), ("forward_backward", 2), ("optim_step", 3)]


@pytest.mark.requirement("R117")
@pytest.mark.parametrize("unknown", ["too late", "unreadable"])
async def test_a_gradient_that_may_be_there_poisons_the_model(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any, unknown: str
) -> None:
    """A result that is not had does not say that nothing was accumulated: the next step must not apply it."""
    if unknown == "too late":
        stub.held["forward_backward"] = trio.Event()
    else:
        stub.results["forward_backward#0"] = httpx.Response(200, json={"metrics": 1})
    async with open_stub(promise_timeout=5.0) as service:
        training = await service.create_lora_training_client(MODEL)
        with pytest.raises((APITimeoutError, APIResponseValidationError)):
            await (await training.forward_backward(batch(1), "cross_entropy"))
        with pytest.raises(ModelPoisoned):
            await (await training.forward_backward(batch(2), "cross_entropy"))
    assert stub.wire() == [("forward_backward", 1)]


@pytest.mark.parametrize("unknown", [True, False], ids=["too late", "no such state"])
async def test_weights_that_may_have_been_replaced_are_not_trained_on(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any, unknown: bool
) -> None:
    """A load whose result is not had poisons the model; one that failed leaves it as it was."""
    if unknown:
        stub.held["load_weights"] = trio.Event()
    stub.results["load_weights#0"] = httpx.Response(404, json={"detail": "no such checkpoint"})
    async with open_stub(promise_timeout=5.0) as service:
        training = await service.create_lora_training_client(MODEL)
        with pytest.raises(APITimeoutError if unknown else NotFoundError):
            await training.load_state("tinker://r/weights/a")
        with pytest.raises(ModelPoisoned) if unknown else contextlib.nullcontext():
            await (await training.forward_backward(batch(1), "cross_entropy"))


@pytest.mark.requirement("R117")
@pytest.mark.lesson("L2")
async def test_a_gradient_that_fails_after_its_optim_step_poisons_the_model(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """The step is void, the optim_step too although it was answered, and nothing is sent to the model any more."""
    stub.held["forward_backward"] = trio.Event()
    stub.results["forward_backward#0"] = {"error": "boom", "category": "server"}
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        forward = await training.forward_backward(batch(1), "cross_entropy")
        optim = await training.optim_step(ADAM)
        await trio.sleep(1)
        assert [name for name, _ in stub.wire()] == ["forward_backward", "optim_step"]
        assert not optim.settled  # it was answered, and what it has applied is not known
        stub.held["forward_backward"].set()
        with pytest.raises(RequestFailedError, match="boom"):
            await forward
        with pytest.raises(StepVoid, match="boom") as void:
            await optim
        assert isinstance(void.value.__cause__, RequestFailedError)
        assert void.value.started is True
        with pytest.raises(ModelPoisoned, match="boom") as poisoned:
            await (await training.optim_step(ADAM))
        assert isinstance(poisoned.value.__cause__, RequestFailedError)
        assert poisoned.value.started is False
    assert [name for name, _ in stub.wire()] == ["forward_backward", "optim_step"]


@pytest.mark.requirement("R117")
@pytest.mark.lesson("L2")
async def test_a_partial_gradient_poisons_the_model(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """If one of two gradients of a step fails, the other one must never be applied."""
    stub.results["forward_backward#1"] = {"error": "boom"}
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        await (await training.forward_backward(batch(1), "cross_entropy"))
        with pytest.raises(RequestFailedError):
            await (await training.forward_backward(batch(2), "cross_entropy"))
        with pytest.raises(ModelPoisoned):
            await (await training.optim_step(ADAM))
    assert "optim_step" not in stub.names()


async def test_an_answer_of_another_shape_is_a_typed_error(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """A result that is not what it should be names what is missing."""
    stub.results["save_weights#0"] = {"nothing": 1}
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        with pytest.raises(APIResponseValidationError, match="path"):
            await training.save_state("a")


async def test_a_failure_nobody_awaited_is_raised_by_the_next_operation(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """The next operation raises it in its own place, once, and is not sent."""
    stub.results["forward#0"] = {"error": "boom"}
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        await training.forward(batch(), "cross_entropy")
        await trio.sleep(1)
        with pytest.raises(UnobservedFailure, match="boom") as caught:
            await training.optim_step(ADAM)
        assert isinstance(caught.value.__cause__, RequestFailedError)
        assert "optim_step" not in stub.names()
        await (await training.optim_step(ADAM))


async def test_a_failure_nobody_awaited_is_raised_at_the_exit(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """Leaving the service shows it; a body that raises itself gets it as a note."""
    stub.results["forward#0"] = stub.results["forward#1"] = {"error": "boom"}
    with pytest.raises(UnobservedFailure, match="boom"):
        async with open_stub() as service:
            training = await service.create_lora_training_client(MODEL)
            await training.forward(batch(), "cross_entropy")
    with pytest.raises(KeyError) as caught:
        async with open_stub() as service:
            training = await service.create_lora_training_client(MODEL)
            await training.forward(batch(), "cross_entropy")
            await trio.sleep(1)
            raise KeyError("the body's own")
    assert "boom" in "".join(caught.value.__notes__)


async def test_a_pending_left_by_its_waiter_is_still_unobserved(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """A waiter that was cancelled before the failure has not seen it."""
    stub.held["forward"] = trio.Event()
    stub.results["forward#0"] = {"error": "boom"}
    with pytest.raises(UnobservedFailure, match="boom"):
        async with open_stub() as service:
            training = await service.create_lora_training_client(MODEL)
            pending = await training.forward(batch(), "cross_entropy")
            with trio.move_on_after(1):
                await pending
            stub.held["forward"].set()


@pytest.mark.requirement("R124")
async def test_large_batches_go_out_in_chunks_and_come_back_whole(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """The service's limit is kept; outputs are in datum order and metrics are reduced."""
    stub.rules["client/config"] = lambda _, __: httpx.Response(
        200, json={"sequence_dedupe": "replay", "fwdbwd_max_chunk_len": 2}
    )
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        data = [one for i in range(5) for one in batch(i + 1)]
        output = await (await training.forward_backward(data, "cross_entropy"))
        await (await training.optim_step(ADAM))
    assert [int(one["logprobs"].data[0]) for one in output.loss_fn_outputs] == [1, 2, 3, 4, 5]
    assert output.metrics == {"loss:sum": 5.0}
    assert [seq for _, seq in stub.wire()] == [1, 2, 3, 4]
