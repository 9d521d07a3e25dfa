"""Samples against services that allow only so many: storms of refusals, a limit that moves, lanes."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest
import trio

from tinker_actors.actors.service_client import ServiceClient, open_client
from tinker_actors.protocol.queue_state import QueueChange
from tinker_actors.testing import (
    Capacity,
    Fixed,
    Pause,
    ScriptedService,
    ScriptedTransport,
    ServiceFaults,
    Uniform,
    open_scripted_service,
)
from tinker_actors.transport.config import Config
from tinker_actors.types import ModelInput, SamplingParams

PROMPT = ModelInput.from_ints([1, 2, 3])
PARAMS = SamplingParams(max_tokens=4)


class ByKey(httpx.AsyncBaseTransport):
    """One address, and a service for each key behind it."""

    def __init__(self, services: Mapping[str, ScriptedService]) -> None:
        self._ways = {key: ScriptedTransport(service) for key, service in services.items()}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._ways[request.headers["x-api-key"]].handle_async_request(request)


@contextlib.asynccontextmanager
async def opened(carrier: httpx.AsyncBaseTransport, key: str) -> AsyncIterator[ServiceClient]:
    """Open a client with a key."""

    @contextlib.asynccontextmanager
    async def borrowed() -> AsyncIterator[httpx.AsyncBaseTransport]:
        await trio.lowlevel.checkpoint()
        yield carrier

    config = Config(base_url="http://stub", api_key=key, heartbeat="loop")
    async with open_client(
        config, rng=random.Random(0), backend="x", chosen="x", through=carrier, beat_through=borrowed
    ) as client:
        yield client


def arrivals(service: ScriptedService) -> list[tuple[float, int]]:
    """Return when each sample arrived, and its number."""
    return [(one.at, one.body["seq_id"]) for one in service.requests if one.endpoint == "asample"]


@pytest.mark.requirement("R127", "R128", "R130", "R135")
@pytest.mark.lesson("L11", "L15", "L27")
async def test_a_storm_of_refusals_is_weathered(autojump_clock: Any) -> None:
    """A thousand samples with two keys, one of which may have 20 at once: the other is not touched.

    Nothing is sent before the time has passed that a refusal asked for, all come to an end, and who was refused goes
    before those who were never sent.
    """
    narrow = ServiceFaults(work=Fixed(1.0), capacities=(Capacity(samples=20, retry_after=3.0),))
    services = {
        "tml-narrow": ScriptedService(narrow),
        "tml-wide": ScriptedService(ServiceFaults(work=Fixed(1.0))),
    }
    carrier, finished = ByKey(services), dict[str, float]()

    async def storm(key: str) -> None:
        async with opened(carrier, key) as client:
            sampling = await client.create_sampling_client(base_model="base")
            started = trio.current_time()
            async with trio.open_nursery() as nursery:
                for _ in range(500):
                    nursery.start_soon(sampling.sample, PROMPT, 1, PARAMS)
            finished[key] = trio.current_time() - started

    with trio.fail_after(3600):
        async with trio.open_nursery() as nursery:
            for key in services:
                nursery.start_soon(storm, key)

    assert finished["tml-wide"] == pytest.approx(2.0, abs=0.1)
    assert services["tml-wide"].injected == []
    assert all(request.header("x-api-key") == "tml-wide" for request in services["tml-wide"].requests)

    service = services["tml-narrow"]
    refused = {fault.request for fault in service.injected}
    times = {service.requests[number].at for number in refused}
    assert len(times) > 1
    assert [at for at, _ in arrivals(service) if any(time < at < time + 2.999 for time in times)] == []
    accepted = [
        request.body["seq_id"]
        for request in service.requests
        if request.endpoint == "asample" and request.number not in refused
    ]
    assert sorted(accepted) == list(range(500))  # nobody starved, and nobody was asked for twice
    assert set(accepted[:400]) <= set(range(430))  # who is sent together may be refused or not in any order
    assert finished["tml-narrow"] < 500 / 20 * 1.0 * 4  # a quarter of what is possible, pauses and all


@pytest.mark.slow
async def test_what_is_in_flight_follows_a_limit_that_moves(autojump_clock: Any) -> None:
    """50, 10, 100 samples at once: twenty rounds after each move, it is within a tenth of what the service allows.

    A round is the time a sample takes, 20 seconds. A refusal holds everybody back for a second, in which a twentieth of
    what is in flight ends; so it is the mean of a round that counts.
    """
    second = 20.0
    moves = (50, 10, 100)
    capacities = [Capacity(samples=most, start=25 * second * n) for n, most in enumerate(moves)]
    faults = ServiceFaults(work=Uniform(15.0, 25.0), capacities=tuple(capacities))
    async with open_scripted_service(faults) as (client, service):
        sampling = await client.create_sampling_client(base_model="base")
        began = trio.current_time()

        async def draw() -> None:
            while True:
                await sampling.sample(PROMPT, 1, PARAMS)

        async with trio.open_nursery() as nursery:
            for _ in range(130):
                nursery.start_soon(draw)
            for move, most in enumerate(moves):
                for number in range(20, 25):
                    await trio.sleep_until(began + (25 * move + number) * second)
                    seen = []
                    for _ in range(70):
                        await trio.sleep(0.27)
                        seen.append(service.sampling(trio.current_time() - began))
                    assert 0.9 * most <= sum(seen) / len(seen) <= most
                    assert max(seen) <= most
            nursery.cancel_scope.cancel()


async def test_a_paused_queue_lowers_what_is_in_flight(autojump_clock: Any) -> None:
    """Once for all samples that hear of it; when it runs again, it rises again."""
    faults = ServiceFaults(work=Fixed(1.0), pauses=(Pause(start=5.0, end=200.0, reason="full"),))
    config = Config(base_url="http://scripted", heartbeat="loop", max_samples=60)
    async with open_scripted_service(faults, config=config) as (client, _):
        throttle = client._tree.throttle
        events = client.ref.subscribe(QueueChange)
        sampling = await client.create_sampling_client(base_model="base")

        async def draw(count: int) -> None:
            for _ in range(count):
                await sampling.sample(PROMPT, 1, PARAMS)

        async with trio.open_nursery() as nursery:
            for _ in range(70):
                nursery.start_soon(draw, 20)
            await trio.sleep(60)
            assert throttle.limit.allowed == 54
            assert events.receive_nowait().state == "paused_capacity"
        assert not throttle.limit.is_low


@pytest.mark.requirement("R127")
async def test_evaluation_overtakes_a_thousand_samples_of_training(autojump_clock: Any) -> None:
    """The next place is its own; training goes on beside it, also when evaluations do not end."""
    config = Config(base_url="http://scripted", heartbeat="loop", max_samples=8)
    async with open_scripted_service(ServiceFaults(work=Fixed(1.0)), config=config) as (client, service):
        training = await client.create_sampling_client(base_model="base")
        evaluation = (await client.create_sampling_client(base_model="other")).evaluation()
        done = {"training": 0, "evaluation": 0}

        async def draw(lane: str) -> None:
            await (training if lane == "training" else evaluation).sample(PROMPT, 1, PARAMS)
            done[lane] += 1

        async with trio.open_nursery() as nursery:
            for _ in range(1000):
                nursery.start_soon(draw, "training")
            await trio.sleep(2.5)
            assert done["training"] == 16
            await draw("evaluation")
            assert done["training"] <= 32
            for _ in range(200):
                nursery.start_soon(draw, "evaluation")
            before = done["training"]
            await trio.sleep(10.4)
            assert done["evaluation"] == pytest.approx(1 + 6 * 10, abs=6)  # three of four
            assert 15 <= done["training"] - before <= 35  # one of four, and those that were in flight
    sampled = [one.body["sampling_session_id"] for one in service.requests if one.endpoint == "asample"]
    assert len(sampled) == 1201


@pytest.mark.requirement("R130")
async def test_a_thousand_calls_at_once_do_not_queue_behind_each_other(autojump_clock: Any) -> None:
    """What a service answers at once is there at once: no actor handles one sample after the other."""
    config = Config(base_url="http://scripted", heartbeat="loop", max_samples=1000)
    async with open_scripted_service(ServiceFaults(work=Fixed(1.0)), config=config) as (client, service):
        sampling = await client.create_sampling_client(base_model="base")
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(1000):
                nursery.start_soon(sampling.sample, PROMPT, 1, PARAMS)
        assert trio.current_time() - started == pytest.approx(1.0, abs=0.1)
        assert service.count("asample") == 1000
