"""An absent service: who needs it waits, one asks for its health, and nothing fails of it."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import trio

from tinker_actors.actors.event import EventHub
from tinker_actors.actors.reachability import Reachability
from tinker_actors.errors import APIConnectionError, AuthenticationError, InternalServerError
from tinker_actors.protocol.event import ServerBack, ServerUnreachable
from tinker_actors.transport.config import Config
from tinker_actors.transport.http import open_transport


class Health(httpx.AsyncBaseTransport):
    """A service that is away at times; it knows one call."""

    def __init__(self) -> None:
        self.probes: list[float] = []
        self.away: bool | int = True  # no connection, or a status
        self.absent_until = 0.0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        self.probes.append(trio.current_time())
        if trio.current_time() >= self.absent_until:
            return httpx.Response(200, json={"status": "ok"})
        if self.away is True:
            raise httpx.ConnectError("refused")
        return httpx.Response(self.away, text="no")


class World:
    """A service, and what is to be known of its reachability."""

    def __init__(self, health: Health, reachability: Reachability, events: EventHub) -> None:
        self.health = health
        self.reachability = reachability
        self.heard = events.subscribe()

    def events(self) -> list[Any]:
        """Return what has been told since the last time."""
        told = []
        with contextlib.suppress(trio.WouldBlock):
            while True:
                told.append(self.heard.receive_nowait())
        return told


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Return a service that is away for an hour."""
    health, events = Health(), EventHub()
    async with open_transport(Config(base_url="http://x"), rng=random.Random(0), through=health) as transport:
        yield World(health, Reachability(transport, events, random.Random(0), None), events)


def refused() -> APIConnectionError:
    """Return what a call fails of."""
    return APIConnectionError("refused")


@pytest.mark.requirement("R141")
async def test_all_wait_and_one_asks(autojump_clock: Any, world: World) -> None:
    """An hour without a service is one outage, told at both ends, and asked about by one prober every half minute."""
    start = trio.current_time()
    world.health.absent_until = start + 3600
    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(world.reachability.wait, refused())
        await trio.sleep(1800)
        assert world.reachability.state == "WAITING_SERVER"
        assert world.reachability.away_since == start
    assert 3600 <= trio.current_time() - start <= 3630
    assert 120 <= len(world.health.probes) <= 170
    gaps = [
        later - earlier for earlier, later in zip(world.health.probes, world.health.probes[1:], strict=False)
    ]
    assert max(gaps) <= 30
    assert min(gaps[6:]) >= 22.5
    assert world.reachability.state == "REACHABLE"
    assert world.reachability.away_since is None
    began, ended = world.events()
    assert began == ServerUnreachable("APIConnectionError: refused")
    assert isinstance(ended, ServerBack)
    assert ended.seconds == trio.current_time() - start


async def test_another_one_asks_when_the_one_who_asked_leaves(autojump_clock: Any, world: World) -> None:
    """The prober has no task of its own, so its end is nobody's concern but that of who left."""
    world.health.absent_until = trio.current_time() + 100
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def leave() -> None:
            with scope:
                await world.reachability.wait(refused())

        nursery.start_soon(leave)
        await trio.sleep(10)
        nursery.start_soon(world.reachability.wait, refused())
        await trio.sleep(10)
        scope.cancel()
    assert world.reachability.state == "REACHABLE"


@pytest.mark.parametrize("status", [408, 500, 502, 503])
async def test_an_error_of_its_health_is_no_sign_of_life(
    autojump_clock: Any, world: World, status: int
) -> None:
    """A proxy that says 503 for the service does not make it reachable; a 404 of the service itself does."""
    world.health.absent_until, world.health.away = trio.current_time() + 50, status
    assert await world.reachability.wait(refused()) is True
    world.health.absent_until, world.health.away = trio.current_time() + 1000, 404
    assert await world.reachability.wait(refused()) is False


async def test_calls_go_on_once_the_service_is_back(autojump_clock: Any, world: World) -> None:
    """What may be done again is, as often as it takes, and gives its result."""
    world.health.absent_until = back = trio.current_time() + 500
    tries = 0

    async def attempt() -> str:
        nonlocal tries
        tries += 1
        await trio.lowlevel.checkpoint()
        if trio.current_time() < back:
            raise refused()
        return "done"

    assert await world.reachability.call(attempt) == "done"
    assert tries == 2


async def test_what_may_not_be_repeated_is_not(autojump_clock: Any, world: World) -> None:
    """A fence stays a fence, and a refused key is told at once."""

    async def doubtful() -> None:
        await trio.lowlevel.checkpoint()
        raise APIConnectionError("broke off", doubtful=True)

    async def no_key() -> None:
        await trio.lowlevel.checkpoint()
        raise AuthenticationError("who are you", status_code=401)

    with pytest.raises(APIConnectionError, match="broke off"):
        await world.reachability.call(doubtful, may_repeat=lambda error: False)
    with pytest.raises(AuthenticationError):
        await world.reachability.call(no_key)
    assert world.events() == []


async def test_a_healthy_service_that_fails_a_call_is_not_asked_for_ever(
    autojump_clock: Any, world: World
) -> None:
    """A 500 beside good health is told at once; silence and 503 are, after two hours."""
    start = trio.current_time()

    async def fail(status: int) -> None:
        await trio.sleep(10)
        raise InternalServerError("no", status_code=status)

    with pytest.raises(InternalServerError):
        await world.reachability.call(lambda: fail(500))
    assert trio.current_time() - start < 20
    start = trio.current_time()
    with pytest.raises(InternalServerError):
        await world.reachability.call(lambda: fail(503))
    assert 7200 < trio.current_time() - start < 7300


async def test_an_outage_may_have_an_end(autojump_clock: Any) -> None:
    """With `outage_timeout` those who wait raise what they came with, so many seconds after it began."""
    health, events = Health(), EventHub()
    health.absent_until = trio.current_time() + 1e9
    async with open_transport(Config(base_url="http://x"), rng=random.Random(0), through=health) as transport:
        reachability = Reachability(transport, events, random.Random(0), 300.0)
        start = trio.current_time()
        with pytest.raises(APIConnectionError, match="refused"):
            await reachability.wait(refused())
        assert trio.current_time() - start == 300


async def test_an_outage_that_nobody_waits_for_is_no_state(autojump_clock: Any, world: World) -> None:
    """When the last one leaves, nothing is known; who fails soon goes on with it, who fails late begins another."""
    start = trio.current_time()
    world.health.absent_until = start + 3600

    async def leave_after(seconds: float) -> None:
        with trio.move_on_after(seconds):
            await world.reachability.wait(refused())

    await leave_after(10)
    assert (world.reachability.state, world.reachability.away_since) == ("REACHABLE", None)
    await trio.sleep(30)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(leave_after, 10)
        await trio.sleep(5)
        assert world.reachability.away_since == start
    assert len(world.events()) == 1
    await trio.sleep(100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(leave_after, 10)
        await trio.sleep(5)
        assert world.reachability.away_since == start + 150
    assert [type(event) for event in world.events()] == [ServerUnreachable]
