"""Clients on a scripted service: what they make of its faults."""

from __future__ import annotations

import pytest
import trio

from tinker_actors.testing import (
    DIALECTS,
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


@pytest.mark.parametrize(
    ("faults", "dialect"),
    [
        (ServiceFaults().lose_model("400", of="forward_backward", nth=3), ServiceDialect()),
        (ServiceFaults().lose_model("404", of="optim_step", nth=2), ServiceDialect()),
        (ServiceFaults(work=Fixed(3)).lose_model("410", of="optim_step", nth=3), ServiceDialect()),
        (ServiceFaults().drop("answer", of="optim_step", nth=2), ServiceDialect(dedupe="replay")),
        (ServiceFaults().refuse(500, "after", of="forward_backward", nth=2), ServiceDialect(dedupe="replay")),
        (ServiceFaults().drop("answer", of="optim_step", nth=2), DIALECTS["skyrl-0.3"]),
        (ServiceFaults().drop("connect", of="optim_step", nth=None, start=0, end=20), DIALECTS["skyrl-0.3"]),
        (ServiceFaults().duplicate(of="optim_step", nth=2), ServiceDialect(dedupe="replay")),
        (ServiceFaults().evict("410", of="optim_step", nth=2), ServiceDialect()),
        (ServiceFaults().evict("404", of="forward_backward", nth=2), ServiceDialect()),
        (ServiceFaults().drop("body", of="retrieve_future", nth=5), ServiceDialect()),
        (ServiceFaults().refuse(500, of="retrieve_future", start=0, end=60), ServiceDialect()),
        (ServiceFaults(work=Fixed(2)).refuse(429, start=5, end=30, retry_after=7), ServiceDialect()),
        (ServiceFaults(pauses=(Pause(start=5, end=500, reason="full"),)), ServiceDialect()),
        (
            ServiceFaults(latency=SlowTail(Lognormal(0.05), rate=0.05), work=Lognormal(2.0, 1.0)),
            ServiceDialect(cycle=10.0),
        ),
    ],
    ids=[
        "model lost",
        "model lost before its step",
        "model lost with work under way",
        "answer lost, replay",
        "500 though done, replay",
        "answer lost, none",
        "connections refused, none",
        "request twice, replay",
        "result of a step lost",
        "result of a batch lost",
        "answer of a poll lost",
        "polls fail",
        "a storm of 429",
        "no capacity",
        "slow, in cycles",
    ],
)
def test_training_is_done_exactly_once(faults, dialect) -> None:
    """Whatever goes wrong, the newest model has every batch and every step once, in order, and so have the losses."""

    async def check() -> None:
        losses, expected = await undisturbed(5)
        async with open_scripted_service(faults, dialect=dialect) as (client, service):
            assert await train(client, 5) == losses
        assert lineage(service) == expected
        assert service.injected or not faults.planned

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
