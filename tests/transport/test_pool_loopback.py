"""The pool over real sockets."""

from __future__ import annotations

import ssl
from typing import Any

import httpx
import pytest
import trio

from tinker_actors.transport.head import Origin
from tinker_actors.transport.pool import ConnectionPool


def opened(limit: int = 4) -> ConnectionPool:
    """Make a pool; entering it closes it in the end."""
    return ConnectionPool(limit=limit, ssl_context=ssl.create_default_context())


async def test_a_connection_is_used_again(loopback: Any) -> None:
    """One after the other, requests travel on the same connection; slots are free between them."""
    connections: list[Any] = []

    async def serve(peer: Any) -> None:
        connections.append(peer)
        while (request := await peer.request()) is not None:
            await peer.answer(request[1])

    async with loopback(serve) as origin, opened() as pool:
        for number in range(5):
            reply = await pool.exchange(origin, b"POST", b"/x", [], b"%d" % number, timeout=5)
            assert (reply.status, reply.body) == (200, b"%d" % number)
            assert pool.statistics() == (4, 0, 0, 1)
    assert len(connections) == 1


@pytest.mark.parametrize("size", [0, 1, 70_000, 4_000_000])
async def test_bodies_of_all_sizes_travel_both_ways(loopback: Any, size: int) -> None:
    """What is sent comes back the same, by the direct way and through AsyncClient, streamed or not."""
    body = (bytes(range(256)) * (size // 256 + 1))[:size]
    async with loopback() as origin, opened() as pool, httpx.AsyncClient(transport=pool) as client:
        reply = await pool.exchange(origin, b"POST", b"/x", [], body, timeout=10)
        assert reply.body == body
        response = await client.post(f"{origin}/x", content=body)
        assert response.content == body
        async with client.stream("POST", f"{origin}/x", content=body) as response:
            assert b"".join([piece async for piece in response.aiter_raw()]) == body
        assert pool.statistics() == (4, 0, 0, 1)


async def test_a_connection_dropped_after_500_costs_nothing(loopback: Any) -> None:
    """When a server answers 500 and then drops the connection without a word, the next request has a new one."""

    async def serve(peer: Any) -> None:
        await peer.request()
        await peer.answer(b"Internal Server Error", status="500 Internal Server Error")
        await trio.sleep(0.01)  # the drop comes after the answer, and after the next request has begun
        await peer.close()

    async with loopback(serve) as origin, opened() as pool:
        for _ in range(10):
            reply = await pool.exchange(origin, b"POST", b"/x", [], b"", timeout=5)
            assert reply.status == 500


async def test_a_server_that_is_gone_is_a_connect_error(loopback: Any) -> None:
    """The error names the place and why."""
    async with loopback() as origin:
        pass
    async with opened() as pool:
        with pytest.raises(httpx.ConnectError, match=rf"127\.0\.0\.1:{origin.port}: .*refused"):
            await pool.exchange(origin, b"GET", b"/", [], b"", timeout=5)


async def test_a_refusal_that_comes_with_a_reset_is_heard(loopback: Any) -> None:
    """A server that answers in the middle of a long request and closes with unread data resets the connection."""

    async def serve(peer: Any) -> None:
        await peer.until(b"x" * 100)
        await peer.answer(b"slow down", status="429 Too Many Requests")
        await peer.close()

    heard = 0
    async with loopback(serve) as origin, opened() as pool:
        for _ in range(10):
            try:
                reply = await pool.exchange(origin, b"POST", b"/x", [], b"x" * 30_000_000, timeout=5)
            except (httpx.ReadError, httpx.WriteError):
                continue  # the reset overtook the answer, as TCP allows
            heard += 1
            assert (reply.status, reply.body) == (429, b"slow down")
        assert pool.statistics() == (4, 0, 0, 0)
    assert heard


async def test_the_first_of_a_burst_open_connections_at_once(loopback: Any) -> None:
    """All of a burst are served, and as many connections stay as there are slots."""
    async with loopback() as origin, opened(limit=20) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(100):

                async def one() -> None:
                    reply = await pool.exchange(origin, b"POST", b"/x", [], b"hi", timeout=5)
                    assert reply.body == b"hi"

                nursery.start_soon(one)
        assert pool.statistics().idle <= 20
        assert pool.statistics()[1:3] == (0, 0)


async def test_names_are_looked_up(loopback: Any) -> None:
    """A host that does not exist is a connect error; one with two addresses is reached at the one that answers."""
    async with loopback() as origin, opened() as pool:
        reply = await pool.exchange(origin._replace(host="localhost"), b"POST", b"/", [], b"hi", timeout=5)
        assert reply.body == b"hi"
        for host in ("a" * 70 + ".example", "bad\x00name"):
            with pytest.raises(httpx.ConnectError):
                await pool.exchange(Origin("http", host, 80), b"GET", b"/", [(b"Host", b"x")], b"", timeout=5)
