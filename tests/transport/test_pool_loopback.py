"""The pool over real sockets."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, TypeAlias

import httpx
import pytest
import trio

from tinker_actors.transport.connection import Origin
from tinker_actors.transport.pool import ConnectionPool

Handler: TypeAlias = Callable[[trio.SocketStream], Awaitable[None]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[Origin]:
    """Serve on loopback; what the handler raises when its client leaves is no failure."""

    async def tolerant(stream: trio.SocketStream) -> None:
        async with stream:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await handler(stream)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, tolerant, 0, host="127.0.0.1"))
        yield Origin("http", "127.0.0.1", listeners[0].socket.getsockname()[1])
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def opened(limit: int = 4, **settings: Any) -> AsyncIterator[ConnectionPool]:
    """Open a pool and close it."""
    pool = ConnectionPool(limit=limit, ssl_context=ssl.create_default_context(), **settings)
    try:
        yield pool
    finally:
        await pool.aclose()


async def read_request(stream: trio.SocketStream) -> bytes:
    """Read a head and a body of known length; b"" at the end of the connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = await stream.receive_some(65536)
        if not part:
            return b""
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        (
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length")
        ),
        0,
    )
    parts = [body]
    left = length - len(body)
    while left > 0:
        part = await stream.receive_some(min(left, 1 << 20))
        if not part:
            return b""
        parts.append(part)
        left -= len(part)
    return head + b"\r\n\r\n" + b"".join(parts)


def answer(body: bytes, status: str = "200 OK", extra: bytes = b"") -> bytes:
    """Make a response of known length."""
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n%b\r\n%b" % (status.encode(), len(body), extra, body)


async def echo(stream: trio.SocketStream) -> None:
    """Answer each request with its body."""
    while request := await read_request(stream):
        await stream.send_all(answer(request.partition(b"\r\n\r\n")[2]))


async def test_a_connection_is_used_again() -> None:
    """One after the other, requests travel on the same connection; slots are free between them."""
    connections = 0

    async def counting(stream: trio.SocketStream) -> None:
        nonlocal connections
        connections += 1
        await echo(stream)

    async with serving(counting) as origin, opened() as pool:
        for number in range(5):
            reply = await pool.exchange(origin, b"POST", b"/x", [], b"%d" % number, timeout=5)
            assert (reply.status, reply.body) == (200, b"%d" % number)
            assert pool.statistics() == (4, 0, 0, 1)
    assert connections == 1


@pytest.mark.parametrize("size", [0, 1, 70_000, 4_000_000])
async def test_bodies_of_all_sizes_travel_both_ways(size: int) -> None:
    """What is sent comes back the same, by the direct way and through AsyncClient, streamed or not."""
    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]
    async with serving(echo) as origin, opened() as pool:
        reply = await pool.exchange(origin, b"POST", b"/x", [], body, timeout=10)
        assert reply.body == body
        async with httpx.AsyncClient(transport=pool) as client:
            response = await client.post(f"{origin}/x", content=body)
            assert response.content == body
            async with client.stream("POST", f"{origin}/x", content=body) as response:
                assert b"".join([piece async for piece in response.aiter_raw()]) == body
            assert pool.statistics() == (4, 0, 0, 1)
