"""Failures at awkward moments: while the rest of the step is on its way, waits for room, or is sent again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import httpx
import pytest
import trio
import trio.testing

from tests.actors.conftest import first_token
from tinker_actors.actors.message import (
    ForwardBackward,
    OptimStep,
    SaveState,
    SaveWeightsExternal,
    SaveWeightsForSampler,
)
from tinker_actors.errors import (
    BadRequestError,
    ModelPoisoned,
    RequestFailedError,
    StepVoid,
    TinkerError,
    UnprocessableEntityError,
)
from tinker_actors.types import AdamParams

ADAM = AdamParams(learning_rate=1e-3)
MODEL = "tinker-actors/char-100k"
FAILED = {"error": "boom", "category": "user"}
NOT_LOADED = {"detail": "Model is not loaded"}


async def outcomes(pendings: Iterable[Any]) -> list[Any]:
    """Return what each is answered with: the type of its error, or None for a value."""
    found: list[Any] = []
    for pending in pendings:
        try:
            await pending
        except TinkerError as error:
            found.append(type(error))
        else:
            found.append(None)
    return found


@pytest.mark.requirement("R117")
async def test_a_gradient_that_was_on_its_way_when_another_failed_is_not_applied(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """It got there all the same, so nothing may be built on it: the next step would apply it too."""
    stub.held["forward_backward"] = trio.Event()
    stub.results["forward_backward#0"] = FAILED
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        first = await training.forward_backward(batch(1), "cross_entropy")
        await trio.sleep(1)
        stub.gates["forward_backward"] = trio.Event()
        line = [await training.forward_backward(batch(2), "cross_entropy"), await training.optim_step(ADAM)]
        line += [await training.forward_backward(batch(3), "cross_entropy"), await training.optim_step(ADAM)]
        await trio.sleep(1)
        stub.held.pop("forward_backward").set()
        await trio.sleep(1)
        assert first.settled
        stub.gates.pop("forward_backward").set()
        assert await outcomes([first, *line]) == [RequestFailedError, *[ModelPoisoned] * 4]
    assert stub.trained_tokens() == [1, 2]
    assert "optim_step" not in stub.names()


@pytest.mark.requirement("R117")
async def test_an_optim_step_that_was_on_its_way_when_its_gradient_failed_poisons(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """It was carried out without a gradient; the step behind it is told that, and not that it is void itself."""
    stub.held["forward_backward"] = trio.Event()
    stub.results["forward_backward#0"] = FAILED
    stub.gates["optim_step"] = trio.Event()
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        line = []
        for token in (1, 2):
            line.append(await training.forward_backward(batch(token), "cross_entropy"))
            line.append(await training.optim_step(ADAM))
        await trio.sleep(1)
        stub.held.pop("forward_backward").set()
        await trio.sleep(1)
        stub.gates.pop("optim_step").set()
        assert await outcomes(line) == [RequestFailedError, StepVoid, ModelPoisoned, ModelPoisoned]
    assert stub.wire() == [("forward_backward", 1), ("optim_step", 2)]


@pytest.mark.requirement("R117")
async def test_what_was_built_on_a_step_is_done_when_the_step_is(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """Its own result may be there first; if the step turns out to be void, it is worth nothing."""
    stub.held["forward_backward"] = trio.Event()
    stub.results["forward_backward#0"] = FAILED
    stub.results["save_weights_external#0"] = {"path": "tinker://m/external_weights/b"}
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        line = [await training.forward_backward(batch(1), "cross_entropy"), await training.optim_step(ADAM)]
        line.append(await training.submit(SaveWeightsForSampler()))
        line.append(await training.submit(SaveWeightsExternal("b")))
        line.append(await training.optim_step(ADAM))
        look = await training.forward(batch(2), "cross_entropy")
        await look
        await trio.sleep(5)
        assert not any(pending.settled for pending in line)
        stub.held.pop("forward_backward").set()
        assert await outcomes(line) == [RequestFailedError, StepVoid, *[ModelPoisoned] * 3]


@pytest.mark.requirement("R117")
async def test_an_earlier_failure_that_is_known_later_counts_as_well(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """A model that is poisoned already is not the more sound between the two."""
    stub.held["forward_backward"] = trio.Event()
    stub.results["forward_backward#0"] = FAILED

    def bad(data: Any, logprobs: Any) -> Any:
        raise ZeroDivisionError

    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        line = [await training.forward_backward(batch(1), "cross_entropy")]
        line += [await training.optim_step(ADAM), await training.optim_step(ADAM)]
        line.append(await training.forward_backward(batch(2), "cross_entropy"))
        with pytest.raises(ZeroDivisionError):
            await (await training.forward_backward_custom(batch(3), bad))
        assert not any(pending.settled for pending in line)
        stub.held.pop("forward_backward").set()
        assert (await outcomes(line))[:3] == [RequestFailedError, StepVoid, ModelPoisoned]


@pytest.mark.requirement("R117")
async def test_an_optim_step_that_was_refused_on_its_way_closes_nothing(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """The gradient is there, so it may be sent again; what stood in line behind it would be applied with it."""
    stub.gates["optim_step"] = trio.Event()
    stub.rules["optim_step"] = lambda _, count: (
        httpx.Response(422, json={"detail": "no"}) if count == 0 else None
    )
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        line = []
        for token in (1, 2, 3):
            line.append(await training.forward_backward(batch(token), "cross_entropy"))
            line.append(await training.optim_step(ADAM))
        await trio.sleep(1)
        stub.gates.pop("optim_step").set()
        assert await outcomes(line) == [None, UnprocessableEntityError, *[StepVoid] * 4]
        await (await training.optim_step(ADAM))
        await (await training.forward_backward(batch(2), "cross_entropy"))
        await (await training.optim_step(ADAM))
    assert stub.trained_tokens() == [1, 2]
    assert [name for name, _ in stub.wire()] == [
        "forward_backward",
        "optim_step",
        "optim_step",
        "forward_backward",
        "optim_step",
    ]


@pytest.mark.requirement("R117")
async def test_a_void_step_stays_void_when_the_model_is_lost(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """The next incarnation finds the rest of it in line, and does not send it."""
    stub.held["forward_backward"] = trio.Event()
    stub.results["forward_backward#0"] = FAILED
    stub.gates["save_weights"] = trio.Event()
    stub.rules["save_weights"] = lambda _, count: httpx.Response(404, json=NOT_LOADED) if count == 0 else None
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        line = [await training.forward_backward(batch(1), "cross_entropy")]
        line.append(await training.submit(SaveState("a")))
        line.append(await training.forward_backward(batch(2), "cross_entropy"))
        line.append(await training.optim_step(ADAM))
        line.append(await training.forward_backward(batch(3), "cross_entropy"))
        line.append(await training.optim_step(ADAM))
        await trio.sleep(1)
        stub.held.pop("forward_backward").set()
        await trio.sleep(1)
        stub.gates.pop("save_weights").set()
        assert await outcomes(line) == [RequestFailedError, None, StepVoid, StepVoid, None, None]
        assert training.model_id == "s0:train:1"
    assert stub.trained_tokens() == [1, 3]
    assert stub.names().count("optim_step") == 1


@pytest.mark.requirement("R117")
@pytest.mark.parametrize("behind", [False, True], ids=["alone", "with another gradient"])
async def test_a_gradient_that_fails_when_it_is_sent_again_voids_the_rest_of_its_step(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any, behind: bool
) -> None:
    """Although the rest was on the wire before the loss: to the new model it is not sent; the next step is."""
    stub.held["forward_backward"] = trio.Event()
    stub.rules["forward_backward"] = lambda body, _: (
        httpx.Response(400, json={"detail": "no"})
        if body["model_id"] == "s0:train:1" and first_token(body) == 1
        else None
    )
    stub.rules["save_weights"] = lambda _, count: httpx.Response(404, json=NOT_LOADED) if count == 0 else None
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        line = [await training.forward_backward(batch(1), "cross_entropy")]
        if behind:
            line.append(await training.forward_backward(batch(1), "cross_entropy"))
        line.append(await training.optim_step(ADAM))
        line.append(await training.forward_backward(batch(2), "cross_entropy"))
        line.append(await training.optim_step(ADAM))
        await trio.sleep(1)
        line.append(await training.submit(SaveState("a")))
        await trio.sleep(1)
        stub.held.pop("forward_backward").set()
        void = [StepVoid] * (1 + behind)
        assert await outcomes(line) == [BadRequestError, *void, None, None, None]
    sent = [
        (name, body["seq_id"])
        for name, body in stub.log
        if body.get("model_id") == "s0:train:1" and "seq_id" in body
    ]
    again = [("forward_backward", 1)] * 2 + [("optim_step", 2), ("save_weights", 3)]
    assert sent == again


@pytest.mark.requirement("R117")
async def test_what_waits_for_room_in_line_belongs_to_a_void_step_too(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """It was submitted before anybody knew; what is submitted later is a new step."""
    stub.gates["save_weights"] = trio.Event()
    stub.held["forward_backward"] = trio.Event()
    stub.results["forward_backward#0"] = FAILED
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        first = await training.forward_backward(batch(1), "cross_entropy")
        busy = await training.submit(SaveState("busy"))
        await trio.sleep(1)
        room = training.ref.statistics().capacity
        line = [await training.forward_backward(batch(2), "cross_entropy") for _ in range(room)]
        late: list[Any] = []

        async def rest() -> None:
            late.append(await training.ref.submit(ForwardBackward(batch(3), "cross_entropy")))

        async def left() -> None:
            with trio.move_on_after(2.5):
                await training.ref.submit(ForwardBackward(batch(4), "cross_entropy"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(rest)
            await trio.sleep(0.5)
            nursery.start_soon(left)
            await trio.sleep(0.5)
            stub.held.pop("forward_backward").set()
            with pytest.raises(RequestFailedError):
                await first
            await trio.sleep(3)
            stub.gates.pop("save_weights").set()
        await busy
        assert await outcomes([*line, *late]) == [StepVoid] * (room + 1)
        new = [
            await training.ref.submit(ForwardBackward(batch(5), "cross_entropy")),
            await training.ref.submit(OptimStep(ADAM)),
        ]
        assert await outcomes(new) == [None, None]
    assert stub.trained_tokens() == [1, 5]
