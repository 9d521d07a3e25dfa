"""Steps as units, confirmation, and what is refused before a byte is sent."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tinker_actors.actors.message import SaveState
from tinker_actors.errors import InputError, ModelPoisoned, RequestFailedError, StepVoid, Withdrawn
from tinker_actors.types import AdamParams

ADAM = AdamParams(learning_rate=1e-3)
MODEL = "tinker-actors/char-100k"
FAILED = {"error": "boom", "category": "user"}


async def test_a_step_goes_in_line_when_its_block_ends(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """Nothing is sent before; afterwards its parts are awaited like any Pending."""
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        async with training.step() as step:
            loss = step.forward(batch(5), "cross_entropy")
            forward = step.forward_backward(batch(1), "cross_entropy", {"x": 1.0})
            optim = step.optim_step(ADAM)
            await trio.sleep(1)
            assert stub.wire() == []
            assert repr(forward) == "<Planned ForwardBackward: not in line>"
            assert repr(step) == "<TrainingStep of Forward, ForwardBackward, OptimStep>"
            assert not optim.settled
            with pytest.raises(RuntimeError, match="OptimStep is not in line"):
                await optim
        assert (await forward).metrics == {"loss:sum": 1.0}
        assert (await loss).metrics == {"loss:sum": 1.0}
        assert (await optim).metrics == {"seq": 3.0}
        assert optim.settled
        assert "settled" in repr(optim)
        assert not await optim.withdraw()
    assert stub.wire() == [("forward", 1), ("forward_backward", 2), ("optim_step", 3)]


async def test_a_block_that_raises_sends_nothing(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """The exception leaves as itself, and what had been planned is not in line; nor is an empty step."""
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        forward: Any = None
        with pytest.raises(KeyError, match="mine"):
            async with training.step() as step:
                forward = step.forward_backward(batch(1), "cross_entropy")
                raise KeyError("mine")
        with pytest.raises(RuntimeError, match="not in line"):
            await forward.withdraw()
        async with training.step() as step:
            pass
        assert repr(step) == "<TrainingStep of nothing>"
    assert stub.wire() == []


async def test_an_optim_step_is_the_last_of_its_step(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """What comes behind it, or after the block, would be of another step."""
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        async with training.step() as step:
            step.optim_step(ADAM)
            with pytest.raises(InputError, match="step is closed"):
                step.forward_backward(batch(1), "cross_entropy")
        with pytest.raises(InputError, match="step is closed"):
            step.submit(SaveState("a"))
    assert stub.wire() == [("optim_step", 1)]


async def test_a_step_checks_its_parts_as_they_are_made(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """A bad batch raises where it stands; the rest of the step is not sent half."""
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        with pytest.raises(InputError, match="empty"):
            async with training.step() as step:
                step.forward_backward(batch(1), "cross_entropy")
                step.forward_backward([], "cross_entropy")
    assert stub.wire() == []


@pytest.mark.requirement("R113", "R120")
async def test_steps_of_several_tasks_never_mix(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """Each step's three requests are neighbours on the wire, and each task's steps keep their order."""
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)

        async def worker(start: int) -> None:
            for i in range(start, start + 30):
                async with training.step() as step:
                    step.forward_backward(batch(i), "cross_entropy")
                    await trio.lowlevel.checkpoint()
                    step.forward_backward(batch(i), "cross_entropy")
                    step.optim_step(ADAM)

        async with trio.open_nursery() as nursery:
            for start in (0, 1000, 2000):
                nursery.start_soon(worker, start)
    assert [name for name, _ in stub.wire()] == ["forward_backward", "forward_backward", "optim_step"] * 90
    tokens = stub.trained_tokens()
    assert tokens[::2] == tokens[1::2]
    for start in (0, 1000, 2000):
        assert [t for t in tokens[::2] if start <= t < start + 1000] == list(range(start, start + 30))


async def test_a_step_is_withdrawn_whole(autojump_clock: Any, batch: Any, open_stub: Any, stub: Any) -> None:
    """By any of its parts."""
    stub.gates["save_weights"] = trio.Event()
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        await training.submit(SaveState("busy"))
        async with training.step() as step:
            forward = step.forward_backward(batch(1), "cross_entropy")
            optim = step.optim_step(ADAM)
        await trio.sleep(1)
        assert await forward.withdraw()
        for part in (forward, optim):
            with pytest.raises(Withdrawn):
                await part
        stub.gates["save_weights"].set()
    assert stub.wire() == [("save_weights", 1)]


@pytest.mark.parametrize("how", ["step", "optim_step", "verb"])
async def test_a_confirmed_step_waits_for_its_gradient(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any, how: str
) -> None:
    """The optim_step is sent when the results of all its gradients are there, and not before."""
    stub.held["forward_backward"] = trio.Event()
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        if how == "verb":
            await training.forward_backward(batch(1), "cross_entropy")
            optim: Any = await training.optim_step(ADAM, confirm=True)
        else:
            async with training.step(confirm=how == "step") as step:
                step.forward_backward(batch(1), "cross_entropy")
                optim = step.optim_step(ADAM, confirm=None if how == "step" else True)
        later = await training.forward_backward(batch(2), "cross_entropy")
        await trio.sleep(5)
        assert stub.wire() == [("forward_backward", 1)]
        stub.held["forward_backward"].set()
        await optim
        await later
    assert stub.wire() == [("forward_backward", 1), ("optim_step", 2), ("forward_backward", 3)]


async def test_a_confirmed_step_whose_gradient_failed_is_not_sent(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """Its result is StepVoid with the cause; the step behind it is carried out."""
    stub.held["forward_backward"] = trio.Event()
    stub.results["forward_backward#0"] = FAILED
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        async with training.step(confirm=True) as step:
            forward = step.forward_backward(batch(1), "cross_entropy")
            optim = step.optim_step(ADAM)
        async with training.step(confirm=True) as behind:
            behind.forward_backward(batch(2), "cross_entropy")
            last = behind.optim_step(ADAM)
        await trio.sleep(1)
        stub.held["forward_backward"].set()
        with pytest.raises(RequestFailedError, match="boom"):
            await forward
        with pytest.raises(StepVoid, match="boom") as void:
            await optim
        assert isinstance(void.value.__cause__, RequestFailedError)
        assert void.value.started is False
        assert (await last).metrics == {"seq": 3.0}
    assert stub.wire() == [("forward_backward", 1), ("forward_backward", 2), ("optim_step", 3)]


async def test_a_confirmed_step_with_half_a_gradient_is_void_and_the_model_poisoned(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """The other gradient is on the service, so nothing may be built on it."""
    stub.results["forward_backward#1"] = FAILED
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        async with training.step(confirm=True) as step:
            first = step.forward_backward(batch(1), "cross_entropy")
            second = step.forward_backward(batch(2), "cross_entropy")
            optim = step.optim_step(ADAM)
        await first
        with pytest.raises(RequestFailedError):
            await second
        with pytest.raises(StepVoid, match="boom"):
            await optim
        with pytest.raises(ModelPoisoned, match="boom"):
            await (await training.forward_backward(batch(3), "cross_entropy"))
    assert "optim_step" not in stub.names()


async def test_a_confirmation_outlives_the_loss_of_the_model(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """The gradient is sent again to the new model, and its result is waited for again."""
    stub.held["forward_backward"] = trio.Event()
    stub.results["forward_backward#0"] = None  # the promise is not known any more
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        async with training.step(confirm=True) as step:
            forward = step.forward_backward(batch(1), "cross_entropy")
            optim = step.optim_step(ADAM)
        await trio.sleep(1)
        stub.held.pop("forward_backward").set()
        await forward
        await optim
        assert training.model_id == "s0:train:1"
    sent = [(name, body["model_id"]) for name, body in stub.log if name in ("forward_backward", "optim_step")]
    assert sent == [
        ("forward_backward", "s0:train:0"),
        ("forward_backward", "s0:train:1"),
        ("optim_step", "s0:train:1"),
    ]
