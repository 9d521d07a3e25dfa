"""Clients on a scripted service: what they make of its faults."""

from __future__ import annotations

import attrs
import pytest
import trio

from tinker_actors.errors import APITimeoutError, NotFoundError, ResultLost
from tinker_actors.testing import (
    Fixed,
    Lognormal,
    Pause,
    RateLimit,
    ServiceDialect,
    ServiceFaults,
    SlowTail,
    open_scripted_service,
    run_virtual,
)
from tinker_actors.transport.config import Config
from tinker_actors.types import AdamParams, Datum, ModelInput, SamplingParams


def datum(*tokens: int) -> Datum:
    """Return a datum that can be told apart by its tokens."""
    ids = list(tokens)
    return Datum(ModelInput.from_ints(ids), {"target_tokens": ids, "weights": [1.0] * len(ids)})


async def train(client, steps: int) -> list[float]:
    """Train a new model some steps, one batch each, and return the losses."""
    training = await client.create_lora_training_client("tinker-actors/char-100k", rank=4)
    losses = []
    for step in range(steps):
        forward = await training.forward_backward([datum(step, step + 1)], "cross_entropy")
        optim = await training.optim_step(AdamParams(learning_rate=0.1))
        losses.append((await forward).metrics["loss:sum"])
        await optim
    return losses


def lineage(service) -> list[tuple[str, str]]:
    """Return what is in the newest model: endpoints and digests."""
    return [(one.endpoint, one.digest) for one in list(service.trained.values())[-1]]


async def undisturbed(steps: int) -> tuple[list[float], list[tuple[str, str]]]:
    """Return the losses and the lineage of a run in which nothing goes wrong."""
    async with open_scripted_service() as (client, service):
        return await train(client, steps), lineage(service)


OF = "forward_backward"
NONE = ServiceDialect(dedupe="none", early_numbers="run")
REJECT = ServiceDialect(dedupe="reject", early_numbers="refuse", failures="status")
CONSUMING = ServiceDialect(consume_results=True, unknown="410")
CONSUMING_IN_WORDS = ServiceDialect(consume_results=True, unknown="error")
TIMES = ServiceFaults(work=Fixed(5))

SCENARIOS = {
    "model lost": (ServiceFaults().lose_model("400", of=OF, nth=3), None),
    "model lost before its step": (ServiceFaults().lose_model("404", of="optim_step", nth=2), None),
    "model lost with work under way": (TIMES.lose_model("410", of="optim_step", nth=3), None),
    "answer lost, replay": (ServiceFaults().drop("answer", of="optim_step", nth=2), None),
    "answer lost, none": (ServiceFaults().drop("answer", of="optim_step", nth=2), NONE),
    "request lost, reject": (ServiceFaults().drop("request", of="optim_step", nth=2), REJECT),
    "request late, reject": (ServiceFaults().delay(3, "request", of=OF, nth=2), REJECT),
    "500 though done, replay": (ServiceFaults().refuse(500, "after", of=OF, nth=2), None),
    "500 though done, none": (ServiceFaults().refuse(500, "after", of=OF, nth=2), NONE),
    "503 for a while, none": (TIMES.refuse(503, of=(OF, "optim_step"), start=10, end=30), NONE),
    "connections refused, none": (ServiceFaults().drop("connect", of="optim_step", start=0, end=20), NONE),
    "request twice, replay": (ServiceFaults().duplicate(of="optim_step", nth=2), None),
    "answer stalled, none": (ServiceFaults().stall("answer", of="optim_step", nth=2), NONE),
    "body stalled, replay": (ServiceFaults().stall("body", of="optim_step", nth=2), None),
    "answer is HTML, none": (ServiceFaults().garbage("html", of="optim_step", nth=2), NONE),
    "result of a step lost": (ServiceFaults().evict("410", of="optim_step", nth=2), None),
    "result of a batch lost": (ServiceFaults().evict("404", of=OF, nth=2), None),
    "result of a step lost, told by an error": (ServiceFaults().evict("error", of="optim_step", nth=2), None),
    "result consumed, answer lost": (ServiceFaults().drop("body", of="retrieve_future", nth=5), CONSUMING),
    "result consumed, answer lost, told by an error": (
        ServiceFaults().drop("body", of="retrieve_future", nth=5),
        CONSUMING_IN_WORDS,
    ),
    "answer of a poll lost": (ServiceFaults().drop("body", of="retrieve_future", nth=5), None),
    "poll stalled": (ServiceFaults().stall("body", of="retrieve_future", nth=4), None),
    "poll is HTML": (ServiceFaults().garbage("html", of="retrieve_future", nth=4), None),
    "poll cut short": (
        ServiceFaults().garbage("truncated", of="retrieve_future", nth=4),
        ServiceDialect(bodies="json"),
    ),
    "poll cut short, in protobuf": (ServiceFaults().garbage("truncated", of="retrieve_future", nth=4), None),
    "poll cut short, and the result consumed": (
        ServiceFaults().garbage("truncated", of="retrieve_future", nth=4),
        CONSUMING_IN_WORDS,
    ),
    "polls fail": (ServiceFaults().refuse(500, of="retrieve_future", start=0, end=60), None),
    "polls are told try_again": (ServiceFaults(work=Fixed(45)), ServiceDialect(hold=20, hold_status=200)),
    "results announced by size": (ServiceFaults(), ServiceDialect(metadata_above=10)),
    "types of answers wrong": (
        ServiceFaults().garbage("wrong_type", rate=0.5),
        ServiceDialect(bodies="json"),
    ),
    "types of answers wrong, in protobuf": (
        ServiceFaults().garbage("wrong_type", rate=0.1, of="retrieve_future"),
        None,
    ),
    "a storm of 429": (TIMES.refuse(429, start=5, end=30, retry_after=7), None),
    "unpaid": (TIMES.refuse(402, of=(OF, "optim_step"), start=10, end=60), None),
    "unpaid polls": (TIMES.refuse(402, of="retrieve_future", start=10, end=60), None),
    "no capacity": (ServiceFaults(pauses=(Pause(start=5, end=500, reason="full"),)), None),
    "session ended": (TIMES.lose_session("410", of="session_heartbeat", nth=3), None),
    "session lost without a word": (TIMES.lose_session("silent", of=OF, nth=3), None),
    "creation lost, none": (
        ServiceFaults().drop("answer", of=("create_session", "create_model"), nth=None, rate=0.5),
        NONE,
    ),
    "slow, in cycles": (
        ServiceFaults(latency=SlowTail(Lognormal(0.05), rate=0.05), work=Lognormal(2.0, 1.0)),
        ServiceDialect(cycle=10.0),
    ),
}


@pytest.mark.parametrize(("faults", "dialect"), SCENARIOS.values(), ids=SCENARIOS)
def test_training_is_done_exactly_once(faults, dialect) -> None:
    """Whatever goes wrong, the newest model has every batch and every step once, in order, and so have the losses."""

    async def check() -> None:
        losses, expected = await undisturbed(5)
        dialects = {} if dialect is None else {"dialect": dialect}
        async with open_scripted_service(faults, **dialects) as (client, service):
            assert await train(client, 5) == losses
        assert lineage(service) == expected
        assert service.injected or not faults.planned

    run_virtual(check)


@pytest.mark.parametrize("seed", range(5))
def test_training_is_done_exactly_once_in_any_weather(seed) -> None:
    """Everything at once, by chance: models and results are lost, answers and requests, in any order."""

    async def check() -> None:
        losses, expected = await undisturbed(8)
        calls = (OF, "optim_step", "retrieve_future")
        replays = seed % 2 == 0
        rate = (
            0.05 if replays else 0.01
        )  # without replay each of these costs a restart, and those are bounded
        faults = (
            ServiceFaults(latency=Lognormal(0.1, 1), work=Lognormal(1, 1))
            .drop("answer", rate=rate, of=calls)
            .drop("request", rate=rate, of=calls)
            .drop("reset", rate=rate, of=calls)
            .refuse(503, "after", rate=rate, of=calls)
            .refuse(429, rate=0.1)
            .lose_model(rate=0.03, of="optim_step")
            .evict("410", rate=0.03, of=(OF, "optim_step"))
        )
        dialect = ServiceDialect() if replays else NONE
        async with open_scripted_service(faults, dialect=dialect, seed=seed) as (client, service):
            assert await train(client, 8) == losses
        assert lineage(service) == expected
        assert service.injected

    run_virtual(check, seed=seed)


def test_a_result_that_a_rejecting_service_lost_is_an_outcome_of_its_own() -> None:
    """The repetition is refused, so the step was done, once; its result is lost, and the next step follows."""

    async def check() -> None:
        _, expected = await undisturbed(2)
        faults = ServiceFaults().drop("answer", of="optim_step")
        async with open_scripted_service(faults, dialect=REJECT) as (client, service):
            training = await client.create_lora_training_client("tinker-actors/char-100k", rank=4)
            for step in range(2):
                await (await training.forward_backward([datum(step, step + 1)], "cross_entropy"))
                optim = await training.optim_step(AdamParams(learning_rate=0.1))
                if step == 0:
                    with pytest.raises(ResultLost):
                        await optim
                else:
                    await optim
            assert len(service.trained) == 1
        assert lineage(service) == expected

    run_virtual(check)


@pytest.mark.parametrize(("dialect", "together"), [(ServiceDialect(), True), (NONE, False), (REJECT, False)])
def test_chunks_go_out_together_where_early_numbers_are_kept(dialect, together) -> None:
    """As the service says of itself; what is trained is the same, in the same order."""

    async def play(dialect) -> tuple[object, list[int]]:
        faults = ServiceFaults(latency=Fixed(1))
        flags = {"fwdbwd_max_chunk_len": 1}
        async with open_scripted_service(faults, dialect=dialect, flags=flags) as (client, service):
            training = await client.create_lora_training_client("tinker-actors/char-100k", rank=4)
            forward = await training.forward_backward([datum(1), datum(2), datum(3)], "cross_entropy")
            await (await training.optim_step(AdamParams()))
            reply = await forward
        numbers = [one.body["seq_id"] for one in service.requests if one.endpoint == OF]
        return (lineage(service), reply.metrics, len(reply.loss_fn_outputs)), numbers

    async def check() -> None:
        trained, numbers = await play(dialect)
        assert (numbers[-1] == 1) is together
        assert sorted(numbers) == [1, 2, 3]
        assert trained == (await play(NONE))[0]

    run_virtual(check)


@pytest.mark.parametrize("bodies", ["protobuf", "json"])
def test_a_loss_is_computed_by_services_without_a_call_for_it(bodies) -> None:
    """If they take it in protobuf; else it is an error that says so, and nothing is restored for it."""

    async def check() -> None:
        dialect = attrs.evolve(ServiceDialect.like("tuft"), bodies=bodies)
        assert "forward" in dialect.lacks
        async with open_scripted_service(dialect=dialect) as (client, service):
            training = await client.create_lora_training_client("tinker-actors/char-100k", rank=4)
            pending = await training.forward([datum(1, 2)], "cross_entropy")
            if bodies == "protobuf":
                assert (await pending).metrics["loss:sum"] > 0
            else:
                with pytest.raises(NotFoundError, match="forward: Error code: 404"):
                    await pending
            await (await training.forward_backward([datum(1, 2)], "cross_entropy"))
            await (await training.optim_step(AdamParams()))
            assert service.count("create_model") == 1
            assert service.count("forward") == 1

    run_virtual(check)


@pytest.mark.parametrize("form", ["410", "404", "error"])
def test_a_lost_sample_is_asked_for_again(form) -> None:
    """Under a number of its own, once its promise is broken; and at once, if only the answer to a poll was lost."""

    async def check() -> None:
        faults = ServiceFaults().evict(form, of="asample", nth=2).drop("body", of="retrieve_future", nth=2)
        async with open_scripted_service(faults) as (client, service):
            sampling = await client.create_sampling_client(base_model="tinker-actors/char-100k")
            for _ in range(3):
                await sampling.sample(ModelInput.from_ints([1]), 1, SamplingParams(max_tokens=1))
            numbers = [one.body["seq_id"] for one in service.requests if one.endpoint == "asample"]
            assert numbers == [0, 1, 2, 3]

    run_virtual(check)


def test_a_promise_that_is_put_off_for_ever_ends_where_the_service_is_known_for_it() -> None:
    """After an hour of nothing else, with an error that says so; nobody has to set a time for that."""

    async def check() -> None:
        faults = ServiceFaults().evict("try_again", of="save_weights")
        config = Config(base_url="http://scripted", heartbeat="loop", telemetry=False, capability="open-rl")
        dialect = ServiceDialect.like("open-rl")
        async with open_scripted_service(faults, config=config, dialect=dialect) as (client, _):
            training = await client.create_lora_training_client("tinker-actors/char-100k", rank=4)
            started = trio.current_time()
            with pytest.raises(APITimeoutError, match=r"for 3600 s .* does not know"):
                await training.save_state("a")
            assert trio.current_time() - started == pytest.approx(3600, abs=120)
            await training.save_state("b")

    run_virtual(check)


def test_a_sample_whose_result_was_consumed_is_asked_for_again() -> None:
    """The service keeps no result that was read once; the answer was lost, and the second poll is told an error."""

    async def check() -> None:
        faults = ServiceFaults().drop("body", of="retrieve_future", nth=2)
        async with open_scripted_service(faults, dialect=ServiceDialect.like("opentinker")) as (
            client,
            service,
        ):
            sampling = await client.create_sampling_client(base_model="tinker-actors/char-100k")
            for _ in range(2):
                await sampling.sample(ModelInput.from_ints([1]), 1, SamplingParams(max_tokens=1))
            numbers = [one.body["seq_id"] for one in service.requests if one.endpoint == "asample"]
            assert numbers == [0, 1, 2]

    run_virtual(check)


def test_a_storm_of_429_holds_samples_back_and_loses_none() -> None:
    """Every sample comes, after the time the service asked for."""

    async def check() -> None:
        faults = ServiceFaults().refuse(429, of="asample", start=0, end=20, retry_after=5)
        async with open_scripted_service(faults) as (client, service):
            sampling = await client.create_sampling_client(base_model="tinker-actors/char-100k")
            prompt = ModelInput.from_ints([1, 2, 3])
            params = SamplingParams(max_tokens=4)
            done = []

            async def one(seed: int) -> None:
                reply = await sampling.sample(prompt, 1, params)
                done.append((seed, len(reply.sequences[0].tokens)))

            async with trio.open_nursery() as nursery:
                for seed in range(20):
                    nursery.start_soon(one, seed)
            assert sorted(done) == [(seed, 4) for seed in range(20)]
            assert 20 <= trio.current_time() < 60
            refused = len(service.injected)
            assert 0 < refused < 150

    run_virtual(check)


def test_a_bucket_is_kept_to() -> None:
    """Samples get through a service that takes one in two seconds, all of them."""

    async def check() -> None:
        limit = RateLimit(per_second=0.5, burst=2)
        async with open_scripted_service(ServiceFaults(limits=(limit,))) as (client, service):
            sampling = await client.create_sampling_client(base_model="tinker-actors/char-100k")
            for _ in range(10):
                await sampling.sample(ModelInput.from_ints([1]), 1, SamplingParams(max_tokens=1))
            assert trio.current_time() >= 15
            assert service.count("asample") - len(service.injected) == 10

    run_virtual(check)


def test_two_runs_of_one_seed_are_the_same() -> None:
    """Requests, their times, and the faults that strike them."""

    async def play() -> list[object]:
        faults = ServiceFaults(latency=Lognormal(0.1)).refuse(503, rate=0.1, of="retrieve_future")
        async with open_scripted_service(faults, seed=3) as (client, service):
            await train(client, 4)
        return [(one.endpoint, one.at, one.content) for one in service.requests] + service.injected

    assert run_virtual(play, seed=1) == run_virtual(play, seed=1)


def test_the_same_service_is_opened_with_the_clients_own_configuration() -> None:
    """A closed session is finished, and its events say nothing of a test's key."""

    async def check() -> None:
        async with open_scripted_service() as (_, service):
            assert service.sessions
        assert service.sessions == ()
        assert service.count("finish_session") == 1
        assert service.count("telemetry") == 0

    run_virtual(check)
