"""Lost replies, absent services and services that misbehave, in each mode: every one ends as the tables say."""

from __future__ import annotations

from typing import Any, Literal

import attrs
import pytest
import trio

from tests.actors.scripted import ADAM, GREEDY, MODEL, MODES, PROMPT, batch, heard, lineage, open_mode, steps
from tinker_actors.actors.message import SaveState
from tinker_actors.errors import (
    APIConnectionError,
    AuthenticationError,
    ConflictError,
    ModelPoisoned,
    RequestFailedError,
    ResultLost,
    StepVoid,
    TinkerError,
)
from tinker_actors.protocol.event import ActorFailed, ModelRestored, ServerBack, ServerUnreachable
from tinker_actors.testing import Fixed, ServiceFaults, open_scripted_service
from tinker_actors.transport.config import Config

EVERY_MODE = pytest.mark.parametrize("mode", list(MODES))


async def train(training: Any, *tokens: int) -> list[Any]:
    """Take one step for each token, and return the Pendings."""
    pendings = []
    for token in tokens:
        pendings.append(await training.forward_backward(batch(token), "cross_entropy"))
        pendings.append(await training.optim_step(ADAM))
    return pendings


# --- replies that are lost ----------------------------------------------------------------------------------


@EVERY_MODE
@pytest.mark.requirement("R118")
@pytest.mark.parametrize("form", ["answer", "body", "reset"])
@pytest.mark.parametrize("endpoint", ["forward_backward", "optim_step"])
async def test_a_lost_reply_costs_no_step(
    autojump_clock: Any, mode: str, endpoint: str, form: Literal["answer", "body", "reset"]
) -> None:
    """Each step is in the weights once: sent again, told to be applied, or restored in a new model."""
    faults = ServiceFaults().drop(form, of=endpoint, nth=2)
    async with open_mode(mode, faults) as (service, scripted):
        events = service.subscribe()
        training = await service.create_lora_training_client(MODEL)
        for number, pending in enumerate(await train(training, 1, 2, 3)):
            if mode == "reject" and number == (2 if endpoint == "forward_backward" else 3):
                with pytest.raises(ResultLost):
                    await pending
            else:
                await pending
        assert lineage(scripted, training.model_id) == steps(1, 2, 3)
        assert len(heard(events, ModelRestored)) == (mode == "none")
        assert training.model_id.endswith("1" if mode == "none" else "0")


@EVERY_MODE
async def test_a_request_that_got_lost_on_its_way_costs_no_step(autojump_clock: Any, mode: str) -> None:
    """Nobody knows that it was not carried out, so where numbers are not remembered the model is made anew."""
    async with open_mode(mode, ServiceFaults().drop("request", of="optim_step")) as (service, scripted):
        training = await service.create_lora_training_client(MODEL)
        for pending in await train(training, 1, 2):
            await pending
        assert lineage(scripted, training.model_id) == steps(1, 2)
        assert training.model_id.endswith("1" if mode == "none" else "0")


@EVERY_MODE
@pytest.mark.requirement("R117", "R118")
@pytest.mark.lesson("L2")
async def test_a_chunk_that_fails_after_its_optim_step_was_sent_voids_the_step(
    autojump_clock: Any, mode: str
) -> None:
    """Its Pendings get the cause, whether they were answered or not, and nothing is sent to the model any more."""
    faults = ServiceFaults(work=Fixed(1.0)).fail(of="forward_backward", nth=3)
    async with open_mode(mode, faults, chunk=1) as (service, scripted):
        training = await service.create_lora_training_client(MODEL)
        for pending in await train(training, 1):
            await pending
        forward = await training.forward_backward(batch(2, 3, 4), "cross_entropy")
        optim = await training.optim_step(ADAM)
        saved = await training.submit(SaveState("spoilt"))
        behind = await training.forward_backward(batch(5), "cross_entropy")
        with pytest.raises(RequestFailedError, match="as planned") as cause:
            await forward
        with pytest.raises(StepVoid) as void:
            await optim
        assert str(void.value.__cause__) == str(cause.value)
        # Where a number that failed is not used up, what stands behind it is refused before that is known.
        for one in (saved, behind):
            with pytest.raises(ConflictError if mode == "reject" else ModelPoisoned):
                await one
        sent = scripted.count("forward_backward", "optim_step")
        with pytest.raises(ModelPoisoned, match="as planned") as poisoned:
            await (await training.optim_step(ADAM))
        assert str(poisoned.value.__cause__) == str(cause.value)
        assert scripted.count("forward_backward", "optim_step") == sent == 7


# --- an hour without a service ------------------------------------------------------------------------------


def absent(how: str, start: float, end: float) -> ServiceFaults:
    """Return a plan in which the service is away for a while."""
    if how == "connect":
        return ServiceFaults().drop("connect", start=start, end=end)
    return ServiceFaults().refuse(int(how), start=start, end=end)


@EVERY_MODE
@pytest.mark.requirement("R141")
@pytest.mark.lesson("L16")
@pytest.mark.parametrize("how", ["connect", "503"])
async def test_an_hour_without_a_service_costs_time_and_nothing_else(
    autojump_clock: Any, mode: str, how: str
) -> None:
    """Training, creation, saving and sampling wait for it, no budget is spent, and no poll runs hot."""
    async with open_mode(mode, absent(how, 100, 3700)) as (service, scripted):
        events = service.subscribe()
        training = await service.create_lora_training_client(MODEL)
        sampling = await service.create_sampling_client(base_model=MODEL)
        for pending in await train(training, 1):
            await pending
        start = trio.current_time()
        await trio.sleep(110)
        results: list[Any] = []

        async def sample() -> None:
            results.append(await sampling.sample(PROMPT, 1, GREEDY))

        async def create() -> None:
            results.append(await service.create_lora_training_client(MODEL))
            results.append(await service.create_sampling_client(base_model=MODEL))

        async def step() -> None:
            for pending in await train(training, 2):
                await pending
            results.append(await training.save_state("after"))

        async with trio.open_nursery() as nursery:
            for task in (sample, create, step):
                nursery.start_soon(task)
        assert 3590 <= trio.current_time() - start <= 4000
        assert len(results) == 4
        # A service that says 503 may have carried the request out, so there the model is made anew.
        assert lineage(scripted, training.model_id) == steps(1, 2)
        assert training.model_id.endswith("0") or (mode, how) == ("none", "503")
        told = heard(events, ServerUnreachable, ServerBack, ActorFailed, ModelRestored)
    assert [type(event) for event in told if not isinstance(event, ModelRestored | ActorFailed)] == [
        ServerUnreachable,
        ServerBack,
    ]
    assert len([event for event in told if isinstance(event, ActorFailed)]) <= (
        mode == "none" and how == "503"
    )
    assert scripted.count("healthz") < 180
    assert len(scripted.requests) < 900


@pytest.mark.lesson("D49", "D54", "L18")
@pytest.mark.parametrize("how", ["connect", "503", "408", "429"])
async def test_polls_through_an_hour_without_a_service_do_not_run_hot(autojump_clock: Any, how: str) -> None:
    """A result that was promised before is had after it; meanwhile a poll goes out every half minute at most."""
    faults = attrs.evolve(absent(how, 10, 3610), work=Fixed(60.0))
    async with open_scripted_service(faults, config=quiet()) as (service, scripted):
        training = await service.create_lora_training_client(MODEL)
        pending = await training.forward_backward(batch(1), "cross_entropy")
        await pending
        polls = scripted.count("retrieve_future")
        assert 100 < polls < 700
        assert trio.current_time() > 3600


def quiet() -> Config:
    """Return a configuration whose beats come from the loop, and seldom."""
    return Config(base_url="http://scripted", heartbeat="loop", telemetry=False, heartbeat_period=1e6)


async def test_an_outage_may_have_an_end(autojump_clock: Any) -> None:
    """With `outage_timeout` an operation fails with what it met, and a later one may succeed."""
    config = Config(base_url="http://scripted", heartbeat="loop", telemetry=False, outage_timeout=600.0)
    async with open_scripted_service(absent("connect", 100, 3700), config=config) as (service, _):
        sampling = await service.create_sampling_client(base_model=MODEL)
        await trio.sleep(110)
        with pytest.raises(APIConnectionError):
            await sampling.sample(PROMPT, 1, GREEDY)
        assert 600 < trio.current_time() < 900
        await trio.sleep(4000)
        await sampling.sample(PROMPT, 1, GREEDY)


@pytest.mark.parametrize("how", ["connect", "503"])
async def test_an_outage_is_no_silence_of_a_promised_sample(autojump_clock: Any, how: str) -> None:
    """Three hours without a service are not counted against a sample that was promised before: it is had after them."""
    faults = attrs.evolve(absent(how, 10, 3 * 3600), work=Fixed(60.0))
    async with open_scripted_service(faults, config=quiet()) as (service, scripted):
        sampling = await service.create_sampling_client(base_model=MODEL)
        reply = await sampling.sample(PROMPT, 1, GREEDY)
        assert len(reply.sequences) == 1
        assert 3 * 3600 <= trio.current_time() < 3 * 3600 + 120
        assert scripted.count("retrieve_future") < 100


async def test_an_outage_that_has_an_end_ends_a_promised_sample(autojump_clock: Any) -> None:
    """With `outage_timeout`, not with the time that samples may be silent."""
    config = attrs.evolve(quiet(), outage_timeout=600.0)
    faults = attrs.evolve(absent("connect", 10, 3 * 3600), work=Fixed(60.0))
    async with open_scripted_service(faults, config=config) as (service, _):
        sampling = await service.create_sampling_client(base_model=MODEL)
        with pytest.raises(APIConnectionError, match="the service is away"):
            await sampling.sample(PROMPT, 1, GREEDY)
        assert 600 < trio.current_time() < 800


async def test_a_key_that_is_refused_is_told_at_once(autojump_clock: Any) -> None:
    """401 is no outage: nobody waits, and the model is not restored."""
    faults = ServiceFaults().refuse(401, of="forward_backward")
    async with open_scripted_service(faults) as (service, _):
        events = service.subscribe()
        training = await service.create_lora_training_client(MODEL)
        start = trio.current_time()
        with pytest.raises(AuthenticationError):
            await (await training.forward_backward(batch(1), "cross_entropy"))
        assert trio.current_time() - start < 1
        assert heard(events, ServerUnreachable, ModelRestored) == []


async def test_the_very_first_opening_does_not_wait(autojump_clock: Any) -> None:
    """Whoever mistyped the URL is told so within seconds."""
    with pytest.raises(APIConnectionError, match="base_url"):
        async with open_scripted_service(ServiceFaults().drop("connect", nth=None)):
            pass
    assert trio.current_time() < 60


# --- services that misbehave --------------------------------------------------------------------------------


@EVERY_MODE
@pytest.mark.parametrize(
    "faults",
    [
        ServiceFaults().drop("connect", start=20, end=4000),
        ServiceFaults().stall("body", start=20, end=4000),
        ServiceFaults().stall("answer", start=20, end=4000),
        ServiceFaults().stall("request", start=20, end=4000),
        ServiceFaults().garbage("html", of=("optim_step", "forward_backward"), start=20, end=25),
        ServiceFaults().garbage("truncated", of="retrieve_future", start=20, end=40),
        ServiceFaults().duplicate(
            "request", of=("save_weights", "asample", "create_model"), start=20, end=4000
        ),
        ServiceFaults().refuse(500, start=20, end=4000),
        ServiceFaults().refuse(502, start=20, end=4000),
    ],
    ids=["dies", "hangs", "answers-not", "hears-not", "garbage", "garbled", "duplicates", "500", "502"],
)
@pytest.mark.lesson("L7", "L19", "L30")
async def test_no_misbehaviour_ends_in_a_hang(autojump_clock: Any, mode: str, faults: ServiceFaults) -> None:
    """It ends in the right weights, or in a typed error that says why the model is not used any more."""
    with trio.fail_after(20_000):
        async with open_mode(mode, faults) as (service, scripted):
            training = await service.create_lora_training_client(MODEL)
            for pending in await train(training, 1):
                await pending
            await trio.sleep(22)
            outcomes = []
            for pending in await train(training, 2):
                try:
                    await pending
                except TinkerError as error:
                    outcomes.append(error)
            if not any(isinstance(error, ModelPoisoned) for error in outcomes):
                assert lineage(scripted, training.model_id) == steps(1, 2)
            assert all(isinstance(error, ResultLost | ModelPoisoned | TinkerError) for error in outcomes)
