"""The heartbeat's thread: it beats while the loop is blocked, tells what it sees, and always ends."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import httpx
import pytest
import trio

from tinker_actors.transport.config import Config
from tinker_actors.transport.headers import platform_headers
from tinker_actors.transport.heartbeat import Beat, Blocked, Fact, Gone, Heart, Missed
from tinker_actors.transport.options import Hooks

PERIOD = 0.02


class Listener(httpx.AsyncBaseTransport):
    """Notes when beats arrive, in whichever thread."""

    def __init__(self, answer: Any = None) -> None:
        self.requests: list[httpx.Request] = []
        self.times: list[float] = []
        self.threads: set[int] = set()
        self.answer = answer

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        self.requests.append(request)
        self.times.append(time.monotonic())
        self.threads.add(threading.get_ident())
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer or httpx.Response(200, json={})

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[httpx.AsyncBaseTransport]:
        yield self


def heart(listener: Listener, facts: list[Fact], **settings: Any) -> Heart:
    """Make a heart that beats fast."""
    config = Config(base_url="http://listener", heartbeat_period=PERIOD, **settings)
    return Heart(config, "s0", facts.append, listener.open)


@pytest.mark.requirement("R52")
async def test_beats_pass_the_users_hook_and_authentication(autojump_clock: Any) -> None:
    """A service that wants more than the key hears beats too; a hook that fails costs beats and nothing else."""

    async def sign(request: httpx.Request) -> None:
        if facts:
            raise ValueError("no ink")
        request.headers["x-signature"] = "me"
        await trio.lowlevel.checkpoint()

    listener, facts = Listener(), []
    settings = {"hooks": Hooks(prepare_request=sign), "auth": httpx.BasicAuth("user", "word")}
    with trio.move_on_after(5 * PERIOD):
        await heart(listener, facts, **settings).beat_in_loop()
    assert isinstance(facts[0], Beat)
    assert listener.requests[0].headers["x-signature"] == "me"
    assert listener.requests[0].headers["authorization"].startswith("Basic ")
    assert isinstance(facts[-1], Missed)
    assert "ValueError in a hook or authentication: no ink" in facts[-1].why


@pytest.mark.lesson("D6")
@pytest.mark.requirement("R30", "R43", "R139")
async def test_a_beat_is_a_request_like_all_others(autojump_clock: Any) -> None:
    """It has the path, the key, the headers and the body that the service expects, and a key for each beat."""
    listener, facts = Listener(), []
    settings = Config(
        base_url="http://listener/base", api_key="tml-one", headers={"x-own": "1"}, heartbeat_period=5
    )
    with trio.move_on_after(0.02):
        await Heart(settings, "s0", facts.append, listener.open).beat_in_loop()
    (request,) = listener.requests
    assert (request.method, request.url.path) == ("POST", "/base/api/v1/session_heartbeat")
    assert request.content == b'{"session_id":"s0","type":"session_heartbeat"}'
    assert platform_headers().items() <= dict(request.headers).items()
    assert (request.headers["x-api-key"], request.headers["x-own"]) == ("tml-one", "1")
    assert request.headers["x-idempotency-key"].startswith("tinker-actors-retry-")


async def test_it_beats_from_another_thread() -> None:
    """The first beat goes out at once, further ones every period; facts arrive in the main loop."""
    listener, facts = Listener(), []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(heart(listener, facts).beat_in_thread)
        with trio.fail_after(20):
            while len(listener.times) < 4 or not facts:  # noqa: ASYNC110 - the other thread tells nobody
                await trio.sleep(PERIOD)
        nursery.cancel_scope.cancel()
    assert threading.get_ident() not in listener.threads
    assert set(facts) == {Beat("s0")}


@pytest.mark.lesson("D4", "D7")
async def test_nothing_beats_after_it_was_cancelled() -> None:
    """When the task has ended, so has the thread's loop."""
    listener, facts = Listener(), []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(heart(listener, facts).beat_in_thread)
        await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    count = len(listener.times)
    await trio.sleep(5 * PERIOD)
    assert len(listener.times) == count


@pytest.mark.lesson("D7")
async def test_cancelling_at_once_ends_the_thread_too() -> None:
    """There is no moment in starting at which a cancellation is lost."""
    for delay in (0, 0, 0.001, 0.002, 0.005, 0.01):
        listener, facts = Listener(), []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(heart(listener, facts).beat_in_thread)
            await trio.sleep(delay)
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("answer", "fact"),
    [
        (httpx.Response(410, json={}), Gone("s0", 410)),
        (httpx.Response(404, json={}), Gone("s0", 404)),
        (httpx.Response(500, text="x"), Missed("s0", "status 500", 500)),
        (httpx.ConnectError("no"), Missed("s0", "ConnectError: no", broken=True)),
        (httpx.ConnectTimeout("no"), Missed("s0", "ConnectTimeout: no", broken=True)),
        (httpx.ReadError("cut"), Missed("s0", "ReadError: cut", broken=True)),
        (httpx.ReadTimeout("late"), Missed("s0", "ReadTimeout: late")),
    ],
)
async def test_what_the_service_says_becomes_a_fact(autojump_clock: Any, answer: Any, fact: Fact) -> None:
    """Each kind of answer has its fact, and beating goes on."""
    listener, facts = Listener(answer), []
    with trio.move_on_after(10 * PERIOD):
        await heart(listener, facts).beat_in_loop()
    assert set(facts) == {fact}
    assert len(facts) >= 9


@pytest.mark.slow
async def test_a_blocked_loop_leaves_no_gap_in_the_beats() -> None:
    """User code that blocks the loop for 3 s is seen, with its stack, and beats go on meanwhile."""
    listener, facts = Listener(), []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(heart(listener, facts).beat_in_thread)
        await trio.sleep(0.2)
        blocked_from = time.monotonic()
        _stand_still(3.0)
        blocked_to = time.monotonic()
        await trio.sleep(0.2)
        nursery.cancel_scope.cancel()
    meanwhile = [at for at in listener.times if blocked_from <= at <= blocked_to]
    gaps = [b - a for a, b in pairwise(meanwhile)]
    assert meanwhile[-1] - meanwhile[0] > 2.8
    assert max(gaps) < 0.5
    (report,) = [fact for fact in facts if isinstance(fact, Blocked)]
    assert report.seconds > 1
    assert "_stand_still" in report.stack


@pytest.mark.slow
async def test_a_loop_that_hangs_for_too_long_gets_no_more_beats() -> None:
    """After max_block the beats stop; when the loop turns again they go on."""
    listener, facts = Listener(), []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(heart(listener, facts, max_block=0.5).beat_in_thread)
        await trio.sleep(0.2)
        blocked_from = time.monotonic()
        _stand_still(2.0)
        late = [at for at in listener.times if at > blocked_from + 1.5]
        assert late == []
        await trio.sleep(0.6)
        assert listener.times[-1] > blocked_from + 2.0
        nursery.cancel_scope.cancel()


def _stand_still(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        sum(range(1000))
