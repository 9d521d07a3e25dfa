"""Losses of the user's own: their place in line, what is sent, what becomes of failures and of lost models."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
import trio
import trio.testing

import tinker_actors as ta
from tinker_actors.actors.message import ForwardBackwardCustom, OptimStep, SaveState
from tinker_actors.errors import (
    ActorStopped,
    APIResponseValidationError,
    BadRequestError,
    InputError,
    ModelPoisoned,
    RequestFailedError,
    ResultLost,
    StepVoid,
    Withdrawn,
)
from tinker_actors.protocol.capability import CapabilityRecord
from tinker_actors.testing import ServiceDialect, open_scripted_service

ADAM = ta.AdamParams(learning_rate=1e-3)
MODEL = "tinker-actors/char-100k"
DOWN = httpx.Response(503, json={"detail": "after the work was taken"})
GONE = httpx.Response(404, json={"detail": "Model is not loaded"})


def squares(data: Any, logprobs: Any) -> ta.CustomLoss:
    """Return sum lp**2, and its gradient."""
    value = sum(float((one**2).sum()) for one in logprobs)
    return ta.CustomLoss(value, [2 * one for one in logprobs], {"batch:mean": float(len(data))})


def failing(*_: Any) -> ta.CustomLoss:
    raise ZeroDivisionError("in the user's code")


class Counting:
    """`squares`, with what it was called with, and how many calls were under way at once."""

    def __init__(self, gate: threading.Event | None = None) -> None:
        self.calls: list[Any] = []
        self.threads: list[int] = []
        self.peak = 0
        self._running = 0
        self._gate = gate
        self._lock = threading.Lock()
        self.began = threading.Event()

    def __call__(self, data: Any, logprobs: Any) -> ta.CustomLoss:
        with self._lock:
            self.calls.append((data, logprobs))
            self.threads.append(threading.get_ident())
            self._running += 1
            self.peak = max(self.peak, self._running)
        self.began.set()
        if self._gate is not None:
            assert self._gate.wait(30)
        with self._lock:
            self._running -= 1
        return squares(data, logprobs)


def weights(body: dict[str, Any]) -> list[Any]:
    """Return the weights of each datum of a batch that was sent."""
    (batch,) = (body[key] for key in ("forward_input", "forward_backward_input") if key in body)
    return [datum["loss_fn_inputs"]["weights"]["data"] for datum in batch["data"]]


@pytest.mark.requirement("R125")
async def test_both_passes_go_out_in_their_place(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """Forward, then backward with minus the gradient as weights, and only then the optim_step that stood behind."""
    function = Counting()
    data = batch(3, 5)
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        first = await training.forward_backward(batch(1), "cross_entropy")
        custom = await training.forward_backward_custom(data, function)
        optim = await training.optim_step(ADAM)
        await first
        result = await custom
        await optim
    assert stub.wire() == [
        ("forward_backward", 1),
        ("forward", 2),
        ("forward_backward", 3),
        ("optim_step", 4),
    ]
    (forward,) = stub.bodies("forward")
    _, backward = stub.bodies("forward_backward")
    assert weights(forward) == [[0.0, 0.0]]
    assert weights(backward) == [[-6.0, -10.0]]  # the stub's log probabilities are the targets themselves
    assert backward["forward_backward_input"]["loss_fn"] == "cross_entropy"
    ((seen, logprobs),) = function.calls
    assert list(seen) == data
    np.testing.assert_array_equal(logprobs, [np.array([3, 5], np.float32)], strict=True)
    assert result.metrics == {"surrogate_loss:sum": 1.0, "batch:mean": 1.0, "loss:sum": 34.0}


async def test_the_services_metrics_are_kept(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """What the service reports of the backward pass stands beside the user's metrics."""
    result = {"loss_fn_output_type": "a", "loss_fn_outputs": [], "metrics": {"loss:sum": 9.0, "x:mean": 4.0}}
    stub.results["forward_backward#0"] = result
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        output = await (await training.forward_backward_custom(batch(2), squares))
    wanted = {"surrogate_loss:sum": 9.0, "x:mean": 4.0, "batch:mean": 1.0, "loss:sum": 4.0}
    assert output.metrics == wanted


@pytest.mark.requirement("R125")
async def test_a_large_batch_is_cut_the_same_way_in_both_passes(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """Chunks of the forward pass take the first numbers, those of the backward pass the next, and the step follows."""
    stub.rules["client/config"] = lambda *_: httpx.Response(
        200, json={"sequence_dedupe": "replay", "fwdbwd_max_chunk_len": 2}
    )
    data = [datum for token in range(5) for datum in batch(token)]
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        custom = await training.forward_backward_custom(data, squares)
        await training.optim_step(ADAM)
        assert (await custom).metrics["loss:sum"] == 0 + 1 + 4 + 9 + 16
    wire = stub.wire()
    assert [name for name, _ in wire] == ["forward"] * 3 + ["forward_backward"] * 3 + ["optim_step"]
    assert [number for _, number in wire] == [1, 2, 3, 4, 5, 6, 7]
    assert [len(weights(body)) for body in stub.bodies("forward")] == [2, 2, 1]
    sent = [weights(body) for body in stub.bodies("forward_backward")]
    assert sent == [[[0.0], [-2.0]], [[-4.0], [-6.0]], [[-8.0]]]


@pytest.mark.requirement("R125")
async def test_nothing_of_the_model_runs_between_the_passes(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """While the forward pass has no result, what stands behind it stays in line; another model goes on."""
    stub.held["forward"] = trio.Event()
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        other = await service.create_lora_training_client(MODEL)
        custom = await training.forward_backward_custom(batch(1), squares)
        await training.optim_step(ADAM)
        await trio.sleep(5)
        await (await other.optim_step(ADAM))
        assert [name for name, _ in stub.wire()] == ["forward", "optim_step"]
        assert not custom.settled
        stub.held["forward"].set()
        await custom
    assert [name for name, _ in stub.wire()] == ["forward", "optim_step", "forward_backward", "optim_step"]


@pytest.mark.requirement("R125")
@pytest.mark.parametrize("confirm", [False, True])
async def test_it_is_part_of_a_step_like_any_other(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any, confirm: bool
) -> None:
    """Steps of two tasks do not mix, and an `optim_step` that waits for its gradients waits for this one too."""
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)

        async def train(token: int) -> None:
            async with training.step(confirm=confirm) as step:
                plain = step.forward_backward(batch(token), "cross_entropy")
                custom = step.forward_backward_custom(batch(token), squares)
                optim = step.optim_step(ADAM)
            assert (await custom).metrics["loss:sum"] == token**2
            await plain
            await optim

        async with trio.open_nursery() as nursery:
            nursery.start_soon(train, 2)
            nursery.start_soon(train, 3)
    one = ["forward_backward", "forward", "forward_backward", "optim_step"]
    assert [name for name, _ in stub.wire()] == one * 2
    assert [number for _, number in stub.wire()] == list(range(1, 9))
    first, second, third, fourth = stub.trained_tokens()
    assert (first, third) == (second, fourth)


# --- failures --------------------------------------------------------------------------------------------


@pytest.mark.requirement("R126")
@pytest.mark.lesson("L9", "L10")
async def test_a_function_that_fails_gives_its_step_up_and_leaves_no_hole(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """Its exception is the result, no gradient is sent, the rest of its step is not sent, and the next step is."""
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        custom = await training.forward_backward_custom(batch(1), failing)
        optim = await training.optim_step(ADAM)
        with pytest.raises(ZeroDivisionError, match="in the user's code") as caught:
            await custom
        (note,) = caught.value.__notes__
        assert note.startswith(
            "raised by the loss_fn of forward_backward_custom, which is given numpy arrays"
        )
        with pytest.raises(StepVoid, match="in the user's code"):
            await optim
        again = await training.forward_backward_custom(batch(1), squares)
        await (await training.optim_step(ADAM))
        await again
    wanted = [("forward", 1), ("forward", 2), ("forward_backward", 3), ("optim_step", 4)]
    assert stub.wire() == wanted


async def test_a_function_may_raise_what_no_coroutine_can(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """StopIteration, of data that ran out: it is the cause of an error that says where it was raised."""

    def exhausted(*_: Any) -> Any:
        return next(iter(()))

    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        with pytest.raises(RuntimeError, match="the loss_fn raised StopIteration") as caught:
            await (await training.forward_backward_custom(batch(1), exhausted))
    assert isinstance(caught.value.__cause__, StopIteration)
    (note,) = caught.value.__notes__
    assert note.startswith("raised by the loss_fn of forward_backward_custom")


@pytest.mark.requirement("R126")
async def test_a_function_that_fails_beside_another_gradient_poisons(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """The other gradient of the step cannot be taken back, so the model is not used any more."""
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        await training.forward_backward(batch(1), "cross_entropy")
        custom = await training.forward_backward_custom(batch(2), failing)
        optim = await training.optim_step(ADAM)
        with pytest.raises(ZeroDivisionError):
            await custom
        with pytest.raises(ModelPoisoned, match="in the user's code"):
            await optim
    assert [name for name, _ in stub.wire()] == ["forward_backward", "forward"]


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ((1.0, {}), "tinker_actors.bridges"),
        (ta.CustomLoss(float("nan"), [np.zeros(1)]), "loss = nan: must be finite"),
        (ta.CustomLoss(1.0, [np.zeros(2)]), r"gradients\[0\].shape = \(2,\)"),
    ],
    ids=["a tuple", "nan", "shape"],
)
async def test_what_the_function_returns_is_checked(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any, returned: Any, words: str
) -> None:
    """Nothing that is no loss is sent: the result is an error that names the place and the value."""
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        custom = await training.forward_backward_custom(batch(1), lambda *_: returned)
        with pytest.raises(InputError, match=words):
            await custom
    assert stub.names().count("forward_backward") == 0


async def test_a_forward_pass_that_is_refused_gives_the_step_up(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """The function is not called, the refused number goes to the next request, and the step is void."""
    stub.rules["forward"] = lambda _, count: httpx.Response(400, json={"detail": "no"}) if not count else None
    function = Counting()
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        custom = await training.forward_backward_custom(batch(1), function)
        optim = await training.optim_step(ADAM)
        with pytest.raises(BadRequestError):
            await custom
        with pytest.raises(StepVoid):
            await optim
        await (await training.forward_backward(batch(1), "cross_entropy"))
    assert function.calls == []
    assert stub.wire()[-1] == ("forward_backward", 1)


async def test_a_forward_pass_without_log_probabilities_is_told(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """An answer of another shape is the service's fault, and says so."""
    stub.results["forward#0"] = {"loss_fn_output_type": "a", "loss_fn_outputs": [{}], "metrics": {}}
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        custom = await training.forward_backward_custom(batch(1), squares)
        with pytest.raises(APIResponseValidationError, match="has no logprobs"):
            await custom


async def test_another_part_that_fails_meanwhile_takes_it_along(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """If an earlier gradient of the step fails during the forward pass, no backward pass is sent."""
    stub.held["forward"] = trio.Event()
    stub.results["forward_backward#0"] = {"error": "out of memory", "category": "server"}
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        first = await training.forward_backward(batch(1), "cross_entropy")
        custom = await training.forward_backward_custom(batch(2), squares)
        with pytest.raises(Exception, match="out of memory"):
            await first
        stub.held["forward"].set()
        with pytest.raises(StepVoid, match="out of memory"):
            await custom
    assert stub.names().count("forward_backward") == 1


async def test_a_backward_pass_that_fails_is_like_any_gradient(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """The service's error is the result; nothing else of its step was sent, so the next one begins afresh."""
    stub.results["forward_backward#0"] = {"error": "out of memory", "category": "server"}
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        custom = await training.forward_backward_custom(batch(1), squares)
        with pytest.raises(RequestFailedError, match="out of memory"):
            await custom
        again = await training.forward_backward_custom(batch(2), squares)
        assert (await again).metrics["loss:sum"] == 4.0


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda batch: (batch, None), "loss_fn"),
        (lambda batch: (batch, trio.sleep), "loss_fn"),
        (lambda _: ([], squares), "data"),
        (lambda _: ([ta.Datum(ta.ModelInput.from_ints([1]))], squares), "data[0].loss_fn_inputs"),
        (lambda _: (7, squares), "data"),
    ],
    ids=map(str, range(5)),
)
async def test_bad_input_is_refused_at_once(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any, call: Any, field: str
) -> None:
    """Before anything is in line."""
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        with pytest.raises(InputError) as caught:
            await training.forward_backward_custom(*call(batch()))
    assert caught.value.field == field
    assert stub.wire() == []


# --- leaving and taking back -----------------------------------------------------------------------------


async def test_it_is_taken_back_with_its_step(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """Before its forward pass it goes with its whole step; after that it stays."""
    stub.gates["save_weights"] = trio.Event()
    stub.held["forward"] = trio.Event()
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        await training.submit(SaveState("busy"))
        custom = await training.forward_backward_custom(batch(1), squares)
        optim = await training.optim_step(ADAM)
        later = await training.submit(ForwardBackwardCustom(batch(2), squares))
        assert await optim.withdraw()
        for pending in (custom, optim):
            with pytest.raises(Withdrawn):
                await pending
        stub.gates["save_weights"].set()
        await trio.sleep(1)
        assert not await later.withdraw()
        with trio.move_on_after(1):
            await later
        stub.held["forward"].set()
        assert (await later).metrics["loss:sum"] == 4.0
    assert [name for name, _ in stub.wire()] == ["save_weights", "forward", "forward_backward"]


async def test_a_body_that_raises_does_not_wait_for_ever(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """A forward pass without an end is given up after `grace`, and the body's exception is what is seen."""
    stub.held["forward"] = trio.Event()
    custom: Any = None
    with trio.fail_after(60), pytest.raises(ValueError, match="body"):
        async with open_stub(grace=20.0) as service:
            training = await service.create_lora_training_client(MODEL)
            custom = await training.forward_backward_custom(batch(1), squares)
            await trio.sleep(1)
            raise ValueError("body")
    with pytest.raises(ActorStopped):
        await custom
    assert stub.names().count("forward_backward") == 0


async def test_a_function_without_an_end_holds_nobody_up(batch: Any, open_stub: Any, stub: Any) -> None:
    """Leaving the service leaves the thread behind."""
    gate = threading.Event()
    function = Counting(gate)
    with trio.fail_after(30), pytest.raises(ValueError, match="body"):
        async with open_stub(heartbeat="thread", heartbeat_period=1000.0, grace=0.05) as service:
            training = await service.create_lora_training_client(MODEL)
            await training.forward_backward_custom(batch(1), function)
            await trio.to_thread.run_sync(function.began.wait, 30)
            raise ValueError("body")
    gate.set()


# --- lost models -----------------------------------------------------------------------------------------


def lost(model_id: str) -> Callable[[dict[str, Any], int], httpx.Response | None]:
    return lambda body, _: GONE if body["model_id"] == model_id else None


async def test_a_model_lost_before_the_backward_pass_does_it_all_again(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """The new model gets what came before, then both passes; what stood behind stays behind."""
    function = Counting()
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        await (await training.forward_backward(batch(1), "cross_entropy"))
        await (await training.optim_step(ADAM))
        stub.rules["forward"] = lost("s0:train:0")
        custom = await training.forward_backward_custom(batch(2), function)
        optim = await training.optim_step(ADAM)
        assert (await custom).metrics["loss:sum"] == 4.0
        await optim
    assert len(function.calls) == 1
    second = [
        (name, body["seq_id"])
        for name, body in stub.log
        if body.get("model_id") == "s0:train:1" and "seq_id" in body
    ]
    assert second == [
        ("forward_backward", 1),
        ("optim_step", 2),
        ("forward", 3),
        ("forward_backward", 4),
        ("optim_step", 5),
    ]


@pytest.mark.parametrize("times", [1, 3])
async def test_a_model_found_lost_by_the_result_of_the_forward_pass_is_restored(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any, times: int
) -> None:
    """As often as it is lost; the function is called once, by the model that lives."""
    for number in range(times):
        stub.results[f"forward#{number}"] = httpx.Response(410, json={"detail": "promise broken"})
    function = Counting()
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        custom = await training.forward_backward_custom(batch(2), function)
        await training.optim_step(ADAM)
        assert (await custom).metrics["loss:sum"] == 4.0
        assert training.model_id == f"s0:train:{times}"
    assert len(function.calls) == 1
    assert stub.names().count("forward_backward") == 1


async def test_a_model_lost_after_the_backward_pass_gets_the_same_weights_again(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """A restore sends what was decided: the recorded weights, without a forward pass, and without the function."""
    function = Counting()
    stub.rules["optim_step"] = lost("s0:train:0")
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        custom = await training.forward_backward_custom(batch(2, 3), function)
        await (await training.optim_step(ADAM))
        assert (await custom).metrics["loss:sum"] == 13.0
    assert len(function.calls) == 1
    assert stub.names().count("forward") == 1
    first, second = stub.bodies("forward_backward")
    assert (first["model_id"], second["model_id"]) == ("s0:train:0", "s0:train:1")
    assert weights(first) == weights(second) == [[-4.0, -6.0]]


async def test_a_result_lost_with_the_model_still_has_the_users_metrics(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """The next incarnation answers with the loss that the function returned in the one before."""
    stub.results["forward_backward#0"] = httpx.Response(410, json={"detail": "promise broken"})
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        custom = await training.forward_backward_custom(batch(2), squares)
        assert (await custom).metrics == {"surrogate_loss:sum": 1.0, "batch:mean": 1.0, "loss:sum": 4.0}


@pytest.mark.parametrize("losses", [2, 3])
async def test_a_forward_pass_whose_result_is_lost_is_made_again(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any, losses: int
) -> None:
    """A service that refuses the repetition has done it and nothing has changed, so it is asked anew: three times."""

    def rule(body: dict[str, Any], count: int) -> httpx.Response | None:
        if count >= losses * 2:
            return None
        if count % 2 == 0:
            return DOWN
        detail = f"Sequence conflict: expected {body['seq_id'] + 1}, got {body['seq_id']}"
        return httpx.Response(409, json={"detail": detail})

    stub.rules["forward_backward"] = rule  # where services that take protobuf have the forward pass, too
    record = CapabilityRecord(training_body="protobuf", dedupe="reject")
    async with open_stub(capability=record) as service:
        training = await service.create_lora_training_client(MODEL)
        custom = await training.forward_backward_custom(batch(2), squares)
        if losses == 2:
            assert (await custom).metrics["loss:sum"] == 4.0
            assert [number for _, number in stub.wire()] == [1, 1, 2, 2, 3, 4]
        else:
            with pytest.raises(ResultLost):
                await custom


# --- where the function runs -----------------------------------------------------------------------------


async def test_the_function_runs_in_a_thread_and_the_loop_goes_on(
    batch: Any, open_stub: Any, stub: Any
) -> None:
    """While it computes, the loop turns; with beats from the loop, as on virtual time, it runs there."""
    gate = threading.Event()
    function = Counting(gate)
    async with open_stub(heartbeat="thread", heartbeat_period=1000.0) as service:
        training = await service.create_lora_training_client(MODEL)
        custom = await training.forward_backward_custom(batch(2), function)
        await trio.to_thread.run_sync(function.began.wait, 30)
        other = await service.create_lora_training_client(MODEL)
        await (await other.forward_backward(batch(1), "cross_entropy"))
        gate.set()
        await custom
    assert function.threads != [threading.get_ident()]
    inline = Counting()
    async with open_stub(heartbeat="loop") as service:
        training = await service.create_lora_training_client(MODEL)
        await (await training.forward_backward_custom(batch(2), inline))
    assert inline.threads == [threading.get_ident()]


async def test_a_function_that_was_left_behind_is_waited_for(batch: Any, open_stub: Any, stub: Any) -> None:
    """If the model is lost while the function runs, it is called again, but never twice at the same time."""
    gate = threading.Event()
    function = Counting(gate)
    stub.held["forward_backward"] = trio.Event()
    stub.results["forward_backward#0"] = httpx.Response(410, json={"detail": "promise broken"})
    async with open_stub(heartbeat="thread", heartbeat_period=1000.0) as service:
        training = await service.create_lora_training_client(MODEL)
        await training.forward_backward(batch(1), "cross_entropy")
        custom = await training.forward_backward_custom(batch(2), function)
        await trio.to_thread.run_sync(function.began.wait, 30)
        stub.held["forward_backward"].set()
        while stub.names().count("forward") < 2:
            await trio.lowlevel.checkpoint()
        gate.set()
        assert (await custom).metrics["loss:sum"] == 4.0
    assert (len(function.calls), function.peak) == (2, 1)


# --- services --------------------------------------------------------------------------------------------


@pytest.mark.requirement("R125")
@pytest.mark.parametrize("name", ["tinker", "skyrl", "skyrl-0.3.0", "tuft", "opentinker"])
async def test_services_of_every_kind_can_be_trained_so(autojump_clock: Any, batch: Any, name: str) -> None:
    """JSON alone or protobuf, numbers repeated or not: each applies one gradient, with the weights computed."""
    async with open_scripted_service(dialect=ServiceDialect.like(name)) as (service, scripted):
        training = await service.create_lora_training_client(MODEL)
        data = [*batch(1, 2, 3), *batch(4)]
        custom = await training.submit(ForwardBackwardCustom(data, squares))
        await training.submit(OptimStep(ADAM))
        result = await custom
        applied = scripted.trained[training.model_id]
    lp = [np.array([-(1 + token) / 64 for token in tokens]) for tokens in ((1, 2, 3), (4,))]
    assert result.metrics["loss:sum"] == pytest.approx(sum(float((one**2).sum()) for one in lp))
    assert [one.endpoint for one in applied] == ["forward_backward", "optim_step"]
    sent = [datum["loss_fn_inputs"]["weights"]["data"] for datum in applied[0].content["data"]]
    for got, one in zip(sent, lp, strict=True):
        np.testing.assert_allclose(got, -2 * one)
