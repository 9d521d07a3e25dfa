"""The connections of a lane: who gets one, which one, how long it is kept, and that nobody loses a slot."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import httpx
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tinker_actors.transport.head import Origin
from tinker_actors.transport.lanes import LANE_LIMITS, StockPool, make_lane_pools
from tinker_actors.transport.pool import ConnectionPool, PoolStatistics
from tinker_actors.wire.endpoint import Lane

ORIGIN = Origin("http", "server", 80)
OTHER = Origin("http", "other", 8080)
FREE = (4, 0, 0)


async def ask(
    pool: Any, body: bytes = b"hello", timeout: float = 60, origin: Origin = ORIGIN, sni: str | None = None
) -> Any:
    """Make one exchange."""
    return await pool.exchange(origin, b"POST", b"/x", [], body, timeout=timeout, sni=sni)


async def silent(peer: Any) -> None:
    """Take a request and never answer."""
    while await peer.request() is not None:
        pass


# ------------------------------------------------------------------------------------------ which connection, and when


async def test_the_connection_used_last_is_used_first(net: Any) -> None:
    """Kept connections form a stack, so that those not needed any more run out of time."""
    pool = net.pool()
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask, pool)
    assert pool.statistics() == (4, 0, 0, 3)
    for _ in range(5):
        await ask(pool)
    assert sorted(len(peer.requests) for peer in net.peers) == [1, 1, 6]


async def test_kept_connections_run_out_of_time(autojump_clock: Any, net: Any) -> None:
    """They are closed when their lane is next used after it, also those below the one that is used."""
    pool = net.pool(keepalive_expiry=4.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, pool)
        nursery.start_soon(ask, pool)
    await trio.sleep(3)
    await ask(pool)
    assert len(net.wires) == 2
    await trio.sleep(3)
    await ask(pool)
    assert len(net.wires) == 2
    assert sorted(wire.closed for wire in net.wires) == [False, True]
    await trio.sleep(4)
    await ask(pool)
    assert len(net.wires) == 3
    assert [wire.closed for wire in net.wires].count(False) == 1


async def test_the_server_may_ask_for_less_time(autojump_clock: Any, net: Any) -> None:
    """`Keep-Alive: timeout=` shortens the time, with a margin for the way."""

    async def serve(peer: Any) -> None:
        while await peer.request() is not None:
            await peer.answer(extra=b"Keep-Alive: timeout=2\r\n")

    net.handler = serve
    pool = net.pool()
    await ask(pool)
    await trio.sleep(1.5)
    await ask(pool)
    assert len(net.wires) == 1
    await trio.sleep(1.7)
    await ask(pool)
    assert len(net.wires) == 2


@pytest.mark.parametrize("end", ["closes", "talks"])
async def test_a_kept_connection_is_looked_at_first(net: Any, end: str) -> None:
    """One that the server has closed, or said something on that nobody asked for, is not used; the next one is."""
    pool = net.pool()
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask, pool)
    for index in (1, 2):
        if end == "closes":
            await net.peers[index].close()
        else:
            await net.peers[index].send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong")
    assert (await ask(pool, b"right")).body == b"right"
    assert len(net.wires) == 3
    assert len(net.peers[0].requests) == 2
    assert not net.wires[0].closed


async def test_connections_are_kept_by_where_they_lead(net: Any) -> None:
    """Origins and TLS names do not share connections."""
    pool = net.pool()
    await ask(pool)
    await ask(pool, origin=OTHER)
    await ask(pool, sni="name")
    await ask(pool)
    await ask(pool, origin=OTHER)
    assert net.dialled == [("server", 80), ("other", 8080), ("server", 80)]
    assert pool.statistics() == (*FREE, 3)


async def test_there_are_no_more_connections_than_slots(net: Any) -> None:
    """A connection to one more origin takes the place of the one that was kept longest."""
    pool = net.pool(limit=2)
    await ask(pool)
    await ask(pool, origin=OTHER)
    await ask(pool, origin=Origin("http", "third", 80))
    assert pool.statistics() == (2, 0, 0, 2)
    assert [wire.closed for wire in net.wires] == [True, False, False]


@pytest.mark.requirement("R31")
async def test_any_origin_can_be_reached(net: Any) -> None:
    """A pool knows no list of places: whatever URL comes, connections to it are made on demand and kept apart."""
    pool = net.pool()
    async with httpx.AsyncClient(transport=pool) as client:
        for url in ("http://staging/base", "http://prod/base", "http://prod:8000/", "http://[::1]:90/"):
            assert (await client.post(url, content=b"x")).content == b"x"
        assert net.dialled == [("staging", 80), ("prod", 80), ("prod", 8000), ("::1", 90)]
        assert pool.statistics().idle == 4
        with pytest.raises(httpx.UnsupportedProtocol):
            await client.get("ftp://server/")


# ------------------------------------------------------------------------------------------------------------- waiting


async def test_slots_are_given_in_the_order_of_asking(autojump_clock: Any, net: Any) -> None:
    """With one connection, answers come in the order of the questions."""

    async def slow(peer: Any) -> None:
        while (request := await peer.request()) is not None:
            await trio.sleep(1)
            await peer.answer(request[1])

    net.handler = slow
    pool = net.pool(limit=1)
    order: list[bytes] = []

    async def one(number: int) -> None:
        order.append((await ask(pool, b"%d" % number)).body)

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(one, number)
            await wait_all_tasks_blocked()
        assert pool.statistics() == (1, 1, 4, 0)
    assert order == [b"0", b"1", b"2", b"3", b"4"]
    assert trio.current_time() == pytest.approx(5)
    assert len(net.wires) == 1


async def test_one_deadline_for_everything(autojump_clock: Any, net: Any) -> None:
    """The error tells how far it came: no slot, no connection, or no whole answer; the time is the same."""

    async def half(peer: Any) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        while True:
            await trio.sleep(1)
            await peer.send(b"x")

    pool = net.pool(limit=1, connect_timeout=60)

    async def fails(kind: type, timeout: float = 3, body: bytes = b"") -> None:
        started = trio.current_time()
        with pytest.raises(kind) as caught:
            await ask(pool, timeout=timeout, body=body)
        assert type(caught.value) is kind
        assert trio.current_time() - started == pytest.approx(timeout)
        assert pool.statistics().waiting == 0

    for handler in (silent, half):
        net.handler = handler
        await fails(httpx.ReadTimeout)
        await fails(httpx.ReadTimeout, body=b"x" * 100_000)
        assert pool.statistics() == (1, 0, 0, 0)
        assert net.wires[-1].closed
    net.delay = 10
    await fails(httpx.ConnectTimeout)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, pool)
        await wait_all_tasks_blocked()
        await fails(httpx.PoolTimeout)
        nursery.cancel_scope.cancel()
    assert pool.statistics() == (1, 0, 0, 0)


async def test_connecting_has_a_limit_of_its_own(autojump_clock: Any, net: Any) -> None:
    """A connection that does not come is given up after `connect_timeout`, TLS included."""
    pool = net.pool(connect_timeout=5)
    net.delay = 10
    with pytest.raises(httpx.ConnectTimeout, match="http://server within 5 s"):
        await ask(pool)
    assert trio.current_time() == pytest.approx(5)
    net.delay = 1
    net.handler = silent
    with pytest.raises(httpx.ConnectTimeout):
        await ask(pool, origin=Origin("https", "server", 443))
    assert trio.current_time() == pytest.approx(10)
    assert net.wires[0].closed
    assert pool.statistics() == (*FREE, 0)


@pytest.mark.parametrize(
    "error", [OSError("no route"), UnicodeError("label too long"), ValueError("null byte")]
)
async def test_no_connection_is_a_connect_error(net: Any, error: Exception) -> None:
    """Whatever keeps a connection from being made, nothing was written; the error names the place and the cause."""

    async def refuse(host: str, port: int) -> Any:
        raise error

    pool = ConnectionPool(limit=1, ssl_context=ssl.create_default_context(), connect=refuse)
    with pytest.raises(httpx.ConnectError, match=f"http://server: {error}") as caught:
        await ask(pool)
    assert caught.value.__cause__ is error
    assert pool.statistics() == (1, 0, 0, 0)


async def test_a_caller_that_was_cancelled_before_writes_nothing(net: Any) -> None:
    """It leaves the kept connection as it was."""
    pool = net.pool()
    await ask(pool)
    with trio.CancelScope() as scope:
        scope.cancel()
        await ask(pool)
    assert scope.cancelled_caught
    assert len(net.wires[0].writes) == 1
    assert pool.statistics() == (*FREE, 1)
    with pytest.raises(httpx.ConnectTimeout):  # nothing was written, and the error says so
        await ask(pool, timeout=-1)
    assert len(net.wires[0].writes) == 1
    await ask(pool)
    assert len(net.wires) == 1


# -------------------------------------------------------------------------------------------------- httpx's way


async def test_httpx_timeouts_hold(autojump_clock: Any, net: Any) -> None:
    """Pool, connect, write and read each limit their own part, from its start."""

    async def never(peer: Any) -> None:
        await trio.sleep_forever()

    pool = net.pool(limit=1, connect_timeout=60)
    limits = httpx.Timeout(pool=1, connect=2, write=3, read=4)

    async def fails(kind: type, seconds: float, **request: Any) -> None:
        started = trio.current_time()
        with pytest.raises(kind) as caught:
            await client.post("http://server/", **request)
        assert type(caught.value) is kind
        assert trio.current_time() - started == pytest.approx(seconds)

    client = httpx.AsyncClient(transport=pool, timeout=limits)
    net.handler = silent
    await fails(httpx.ReadTimeout, 4)
    net.delay = 10
    await fails(httpx.ConnectTimeout, 2)
    net.delay = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, pool)
        await wait_all_tasks_blocked()
        await fails(httpx.PoolTimeout, 1)
        nursery.cancel_scope.cancel()
    net.handler = never
    net.make_pair = trio.testing.lockstep_stream_pair
    await fails(httpx.WriteTimeout, 3, content=b"x" * 100_000)
    assert pool.statistics() == (1, 0, 0, 0)


async def test_a_long_upload_and_download_may_take_their_time(autojump_clock: Any, net: Any) -> None:
    """Timeouts count from piece to piece, not for the whole; a `deadline` bounds the whole."""

    async def serve(peer: Any) -> None:
        while True:
            await peer.until(b"0\r\n\r\n")
            peer._data.clear()
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
            for _ in range(5):
                await trio.sleep(3)
                await peer.send(b"y")

    async def source() -> AsyncGenerator[bytes, None]:
        for _ in range(5):
            await trio.sleep(10)
            yield b"x"

    net.handler = serve
    pool = net.pool()
    async with httpx.AsyncClient(transport=pool, timeout=4) as client:
        assert (await client.post("http://server/", content=source())).content == b"yyyyy"
        assert trio.current_time() == pytest.approx(65)
        for seconds, kind in ((20, httpx.WriteTimeout), (55, httpx.ReadTimeout)):
            started = trio.current_time()
            extensions = {"deadline": started + seconds}
            async with aclosing(source()) as body:
                with pytest.raises(kind):
                    await client.post("http://server/", content=body, extensions=extensions)
            assert trio.current_time() - started == pytest.approx(seconds)
            assert pool.statistics() == (*FREE, 0)


# ------------------------------------------------------------------------------------------------------------- the end


async def test_closing_ends_everything(autojump_clock: Any, net: Any) -> None:
    """Exchanges under way, connections being made, waiters and later calls all fail at once; nothing stays open."""
    ends: list[str] = []

    async def one(origin: Origin) -> None:
        with pytest.raises(httpx.TransportError) as caught:
            await ask(pool, origin=origin)
        ends.append(type(caught.value).__name__)

    pool = net.pool(limit=2)
    await ask(pool, origin=OTHER)
    net.handler = silent
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one, ORIGIN)
        await wait_all_tasks_blocked()
        net.delay = 4
        nursery.start_soon(one, Origin("http", "slow", 80))
        await wait_all_tasks_blocked()
        nursery.start_soon(one, ORIGIN)
        await wait_all_tasks_blocked()
        assert pool.statistics() == (2, 2, 1, 0)
        await pool.aclose()
    assert sorted(ends) == ["ConnectError", "ConnectError", "ReadError"]
    assert trio.current_time() == 0
    assert all(wire.closed for wire in net.wires)
    with pytest.raises(httpx.ConnectError, match="closed"):
        await ask(pool)
    with pytest.raises(httpx.ConnectError, match="closed"):
        await pool.handle_async_request(httpx.Request("GET", "http://server/"))
    assert pool.statistics() == (2, 0, 0, 0)
    await pool.aclose()


async def test_closing_ends_a_download(net: Any) -> None:
    """A body that is being read breaks off, and its slot is free."""

    async def serve(peer: Any) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
        await peer.request()

    net.handler = serve
    pool = net.pool()
    async with httpx.AsyncClient(transport=pool) as client:
        async with client.stream("GET", "http://server/") as response:
            await pool.aclose()
            with pytest.raises(httpx.ReadError):
                await response.aread()
        assert pool.statistics() == (*FREE, 0)


# --------------------------------------------------------------------------------------------- cancellation, everywhere


async def _direct(pool: Any) -> None:
    await ask(pool)


async def _long(pool: Any) -> None:
    await ask(pool, b"x" * 600_000)


async def _client(pool: Any) -> None:
    response = await pool.handle_async_request(
        httpx.Request("POST", "http://server/", content=b"x" * 100_000)
    )
    try:
        assert b"".join([piece async for piece in response.stream]) == b"x" * 100_000
    finally:
        await response.aclose()


async def _left(pool: Any) -> None:
    response = await pool.handle_async_request(
        httpx.Request("POST", "http://server/", content=b"x" * 100_000)
    )
    await response.aclose()


async def _contended(pool: Any) -> None:
    """Have more callers than slots."""
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(ask, pool)


async def slow_echo(peer: Any) -> None:
    """Answer each request with its body, the head first and the body in parts."""
    while (request := await peer.request()) is not None:
        body = request[1]
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
        for start in range(0, len(body), max(1, len(body) // 3)):
            await wait_all_tasks_blocked()
            await peer.send(body[start : start + max(1, len(body) // 3)])


@pytest.mark.lesson("L13")
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("body", [_direct, _long, _client, _left, _contended])
async def test_cancelled_at_any_wait_everything_comes_back(
    autojump_clock: Any, net: Any, cancelled_at: Any, body: Callable[..., Any], warm: bool, late: bool
) -> None:
    """Wherever a caller is cancelled, no slot is lost, no connection is left in its middle, and the next one works."""
    net.handler = slow_echo
    step = 0
    fired = True
    while fired:
        pool = net.pool(limit=2)
        if warm:
            await ask(pool)
        net.wires.clear()
        fired = await cancelled_at(step, lambda pool=pool: body(pool), late=late)
        statistics = pool.statistics()
        assert (statistics.in_use, statistics.waiting) == (0, 0)
        assert sum(not wire.closed for wire in net.wires) <= statistics.idle
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(ask, pool)
        assert pool.statistics().in_use == 0
        await pool.aclose()
        step += 1
    assert step > 2


async def test_many_cancelled_waiters_eat_no_slot(autojump_clock: Any, net: Any) -> None:
    """However many callers are cancelled while they wait, the pool goes on serving all."""
    net.handler = silent
    pool = net.pool(limit=4)
    for round_number in range(20):
        with trio.move_on_after(0.1 * round_number):
            async with trio.open_nursery() as nursery:
                for _ in range(50):
                    nursery.start_soon(ask, pool)
    assert pool.statistics() == (*FREE, 0)
    net.handler = slow_echo
    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(ask, pool)
    assert pool.statistics().in_use == 0


# ------------------------------------------------------------------------------------------------------------- lanes


def lanes(kind: Any, **limits: int) -> Any:
    """Make the lanes of a service."""
    return make_lane_pools(
        kind=kind,
        origin=ORIGIN,
        ssl_context=ssl.create_default_context(),
        connect_timeout=5,
        limits={Lane[name]: limit for name, limit in limits.items()} or LANE_LIMITS,
    )


@pytest.mark.requirement("R40")
def test_each_lane_has_its_own_width() -> None:
    """Training is narrow, sampling is wide, and each has connections of its own, of whichever kind."""
    for kind in ("own", "stock"):
        pools = lanes(kind)
        widths = {lane.name: pool.statistics().limit for lane, pool in pools.items()}
        assert widths == {"TRAIN": 16, "SAMPLE": 64, "SESSION": 8, "FUTURES": 512, "TELEMETRY": 1}
        assert len(set(map(id, pools.values()))) == len(Lane)


@pytest.mark.lesson("D34")
@pytest.mark.requirement("R39")
@pytest.mark.parametrize("kind", ["own", "stock"])
async def test_heartbeats_go_on_while_sampling_is_full(loopback: Any, kind: str) -> None:
    """The lane of sessions has free connections, however many samples wait."""

    async def serve(peer: Any) -> None:
        while (request := await peer.request()) is not None:
            if request[1] == b"sample":
                await trio.sleep_forever()
            await peer.answer(b"alive")

    async with loopback(serve) as origin, trio.open_nursery() as nursery:
        pools = lanes(kind, SAMPLE=4, SESSION=2)

        async def call(lane: Lane, body: bytes) -> bytes:
            async with httpx.AsyncClient(transport=pools[lane]) as client:
                return (await client.post(f"{origin}/x", content=body, timeout=None)).content

        for _ in range(8):
            nursery.start_soon(call, Lane.SAMPLE, b"sample")
        await wait_all_tasks_blocked(0.01)
        assert pools[Lane.SAMPLE].statistics()[:3] == (4, 4, 4)
        with trio.fail_after(5):
            assert await call(Lane.SESSION, b"heartbeat") == b"alive"
        nursery.cancel_scope.cancel()


async def test_the_stock_pool_keeps_its_slots(loopback: Any) -> None:
    """Cancelled callers, in line or under way, give their slots back; a response holds one until it is closed."""

    async def serve(peer: Any) -> None:
        while (request := await peer.request()) is not None:
            if request[1] == b"stall":
                await trio.sleep_forever()
            await peer.answer(b"x" * 100_000)

    pool = StockPool(2, ssl.create_default_context())
    async with loopback(serve) as origin, httpx.AsyncClient(transport=pool, timeout=None) as client:
        with trio.move_on_after(0.05):
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(lambda: client.post(f"{origin}/x", content=b"stall"))
        assert pool.statistics() == (2, 0, 0, 0)
        async with client.stream("GET", f"{origin}/") as response:
            assert pool.statistics().in_use == 1
            await response.aread()
        assert pool.statistics().in_use == 0
        with pytest.raises(httpx.PoolTimeout):
            async with client.stream("GET", f"{origin}/"), client.stream("GET", f"{origin}/"):
                await client.get(f"{origin}/", timeout=httpx.Timeout(None, pool=0.01))
        assert pool.statistics() == PoolStatistics(2, 0, 0, 0)
        await pool.aclose()
        with pytest.raises(httpx.ConnectError, match="closed"):
            await client.get(f"{origin}/")
