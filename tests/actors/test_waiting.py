"""Who waits for what: results that come late or twice, callers that have left, and models that are busy."""

from __future__ import annotations

import logging
from typing import Any

import httpx
import pytest
import trio
import trio.testing

from tinker_actors.actors.message import SaveState
from tinker_actors.errors import TinkerActorsError
from tinker_actors.protocol.capability import CapabilityRecord
from tinker_actors.transport.config import Config
from tinker_actors.types import AdamParams, ModelInput, SamplingParams

MODEL = "tinker-actors/char-100k"
ADAM = AdamParams()
PROMPT = ModelInput.from_ints([1, 2, 3])
PARAMS = SamplingParams(max_tokens=4)
TEN_HOURS = 36_000.0


def polls(stub: Any, maker: str) -> int:
    """Return how often the results of one kind of request were asked for."""
    return sum(body["request_id"].startswith(maker) for body in stub.bodies("retrieve_future"))


# --- results -----------------------------------------------------------------------------------------------


@pytest.mark.requirement("R107")
async def test_a_result_is_fetched_once_and_is_one_object(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """However many tasks wait for it, and however often it is awaited when it is there."""
    stub.held["forward_backward"] = trio.Event()
    seen: list[Any] = []
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        pending = await training.forward_backward(batch(), "cross_entropy")

        async def wait() -> None:
            seen.append(await pending)

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            stub.held["forward_backward"].set()
        assert await pending is await pending is seen[0]
    assert len(seen) == 10
    assert len({id(one) for one in seen}) == 1
    assert polls(stub, "forward_backward") == 1


@pytest.mark.requirement("R17")
@pytest.mark.lesson("D53")
async def test_a_wait_has_no_end_that_nobody_set(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """A step and a saving that take ten hours are waited for; only what the user sets ends a wait earlier."""
    assert Config(base_url="http://stub").promise_timeout is None
    for name in ("forward_backward", "save_weights"):
        stub.held[name] = trio.Event()
    async with open_stub() as service, trio.open_nursery() as nursery:
        training = await service.create_lora_training_client(MODEL)
        started = trio.current_time()
        forward = await training.forward_backward(batch(), "cross_entropy")
        nursery.start_soon(training.save_state, "a")
        await trio.sleep(TEN_HOURS)
        for event in stub.held.values():
            event.set()
        assert (await forward).metrics == {"loss:sum": 1.0}
        assert trio.current_time() - started >= TEN_HOURS
    assert polls(stub, "forward_backward") >= TEN_HOURS / 60  # no poll was held longer than its own limit


@pytest.mark.requirement("R104")
@pytest.mark.lesson("D64")
async def test_a_result_that_nobody_waits_for_any_more_is_no_trouble(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Its caller has left before it came: no line in the log, no failure, and the next call is served."""
    for name in ("forward_backward", "asample"):
        stub.held[name] = trio.Event()
    with caplog.at_level(logging.INFO):
        async with open_stub() as service:
            training = await service.create_lora_training_client(MODEL)
            sampling = await training.save_weights_and_get_sampling_client()
            pending = await training.forward_backward(batch(), "cross_entropy")
            with trio.move_on_after(5):
                await pending
            with trio.move_on_after(5):
                await sampling.sample(PROMPT, 1, PARAMS)
            for event in stub.held.values():
                event.set()
            await trio.sleep(60)
            await (await training.optim_step(ADAM))
            await sampling.sample(PROMPT, 1, PARAMS)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.requirement("R103", "R118")
@pytest.mark.lesson("L7")
@pytest.mark.parametrize("who", ["futures", "model", "sampling"])
async def test_a_killed_actor_leaves_nobody_waiting(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any, who: str
) -> None:
    """Whoever is killed, everybody who waits has a typed error before long, and once."""
    for name in ("forward_backward", "asample"):
        stub.held[name] = trio.Event()
    seen: list[BaseException] = []
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        sampling = await training.save_weights_and_get_sampling_client()

        async def wait(what: Any) -> None:
            try:
                await what
            except TinkerActorsError as error:
                seen.append(error)

        killed = {"futures": service._tree.futures, "model": training.ref, "sampling": sampling.ref}[who]
        async with trio.open_nursery() as nursery:
            if who != "sampling":
                for _ in range(5):
                    nursery.start_soon(wait, await training.forward_backward(batch(), "cross_entropy"))
            if who != "model":
                for _ in range(5):
                    nursery.start_soon(wait, sampling.sample(PROMPT, 1, PARAMS))
            await trio.sleep(1)
            started = trio.current_time()
            with trio.fail_after(60):
                await killed.stop("kill")
        assert trio.current_time() - started < (60 if who == "futures" else 1)  # samples are asked for anew
    assert len(seen) == (10 if who == "futures" else 5)


# --- models that are busy ----------------------------------------------------------------------------------


@pytest.mark.requirement("R115")
@pytest.mark.lesson("L5")
async def test_a_busy_model_is_no_obstacle(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """While it waits to be let through, questions about it are answered at once, and others are made."""
    stub.gates["save_weights"] = trio.Event()
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        saving = await training.submit(SaveState("a"))
        waiting = await training.forward_backward(batch(), "cross_entropy")
        await trio.sleep(30)
        started = trio.current_time()
        assert training.get_info().model_id == training.model_id
        assert training.ref.statistics().queued == 1
        assert await waiting.withdraw()
        other = await service.create_lora_training_client(MODEL)
        await (await other.optim_step(ADAM))
        assert trio.current_time() - started < 1
        stub.gates["save_weights"].set()
        await saving


@pytest.mark.requirement("R115", "R146")
async def test_a_service_can_be_left_while_a_model_is_busy(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """A request that is never answered holds up a leaving for the time of grace, and no longer."""
    stub.gates["save_weights"] = trio.Event()
    with trio.CancelScope() as scope:
        async with open_stub(grace=10) as service:
            training = await service.create_lora_training_client(MODEL)
            await training.submit(SaveState("a"))
            await trio.sleep(1)
            started = trio.current_time()
            scope.cancel()
    assert trio.current_time() - started <= 10 + 2 * 5  # grace, and two clean-up hooks


@pytest.mark.requirement("R121")
async def test_models_do_not_wait_for_each_other(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """One is stuck in sending and one in waiting for a result; a third is trained meanwhile."""
    stub.gates["forward"] = trio.Event()
    stub.held["save_weights"] = trio.Event()
    async with open_stub() as service:
        sending, waiting, free = [await service.create_lora_training_client(MODEL) for _ in range(3)]
        pendings: list[Any] = [
            await sending.forward(batch(), "cross_entropy"),
            await waiting.submit(SaveState("a")),
        ]
        await trio.sleep(1)
        started = trio.current_time()
        for _ in range(10):
            forward = await free.forward_backward(batch(), "cross_entropy")
            await (await free.optim_step(ADAM))
            await forward
        assert trio.current_time() - started < 1
        assert not any(pending.settled for pending in pendings)
        stub.gates["forward"].set()
        stub.held["save_weights"].set()
        for pending in pendings:
            await pending


@pytest.mark.requirement("R113", "R120")
@pytest.mark.parametrize("early", ["park", "run"])
async def test_parts_of_a_batch_stay_together(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any, early: Any
) -> None:
    """Two tasks send batches of three parts each: the numbers of a batch follow each other without a hole."""
    stub.rules["client/config"] = lambda _, __: httpx.Response(200, json={"fwdbwd_max_chunk_len": 1})
    capability = CapabilityRecord(dedupe="replay", early_numbers=early)
    async with open_stub(capability=capability) as service:
        training = await service.create_lora_training_client(MODEL)

        async def send(first: int) -> None:
            for number in range(first, first + 5):
                await training.forward_backward(batch(number) * 3, "cross_entropy")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, 0)
            nursery.start_soon(send, 100)
    seen: dict[int, list[int]] = {}
    for token, body in zip(stub.trained_tokens(), stub.bodies("forward_backward"), strict=True):
        seen.setdefault(token, []).append(body["seq_id"])
    spans = {token: sorted(numbers) for token, numbers in seen.items()}
    assert all(span == list(range(span[0], span[0] + 3)) for span in spans.values())
    assert sorted(number for span in spans.values() for number in span) == list(range(1, 31))
    for first in (0, 100):
        starts = [spans[token][0] for token in range(first, first + 5)]
        assert starts == sorted(starts)
