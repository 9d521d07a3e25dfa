"""The other side of most comparisons: the same work on bare trio memory channels, between two tasks.

Every function does `count` operations and returns the CPU seconds of their loop. One message object is sent over and
over, as on our side, so that making messages is part of neither.
"""

from __future__ import annotations

from time import process_time

import trio
import trio.testing

__all__ = ["BUFFER", "DEADLINE", "ask", "ask_concurrently", "ask_with_deadline", "tell"]

BUFFER = 64
"""Room in a queue of messages, here and in our mailboxes."""

DEADLINE = 5.0
"""Seconds an operation with a deadline may take; it never does."""

_MESSAGE = object()


async def tell(count: int) -> float:
    """Send through a channel with 64 places, until a loop in another task has received everything."""
    send, receive = trio.open_memory_channel[object](BUFFER)
    seen = 0

    async def take() -> None:
        nonlocal seen
        async for _ in receive:
            seen += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        await trio.testing.wait_all_tasks_blocked()
        with send:
            begin = process_time()
            for _ in range(count):
                await send.send(_MESSAGE)
    return process_time() - begin


class _RoundTrip:
    """Two fixed channels of one place each: requests go one way, replies the other."""

    def __init__(self) -> None:
        self.requests, self._inbox = trio.open_memory_channel[object](1)
        self._outbox, self.replies = trio.open_memory_channel[object](1)

    async def serve(self) -> None:
        async with self._outbox:
            async for request in self._inbox:
                await self._outbox.send(request)


async def ask(count: int) -> float:
    """Make round trips over two fixed channels of one place each."""
    trip = _RoundTrip()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trip.serve)
        await trio.testing.wait_all_tasks_blocked()
        with trip.requests:
            begin = process_time()
            for _ in range(count):
                await trip.requests.send(_MESSAGE)
                await trip.replies.receive()
            seconds = process_time() - begin
    return seconds


async def ask_with_deadline(count: int) -> float:
    """Make the same round trips, each under a `fail_after` of its own."""
    trip = _RoundTrip()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trip.serve)
        await trio.testing.wait_all_tasks_blocked()
        with trip.requests:
            begin = process_time()
            for _ in range(count):
                with trio.fail_after(DEADLINE):
                    await trip.requests.send(_MESSAGE)
                    await trip.replies.receive()
            seconds = process_time() - begin
    return seconds


async def ask_concurrently(count: int, callers: int) -> float:
    """Make `count` round trips, split among callers that all wait at once.

    The callers share a channel of 64 places for requests. Each has one channel of one place for its replies, made once;
    its sending end travels with every request.
    """
    requests, inbox = trio.open_memory_channel[tuple[object, trio.MemorySendChannel[object]]](BUFFER)

    async def serve() -> None:
        async for request, outbox in inbox:
            await outbox.send(request)

    async def call(times: int) -> None:
        outbox, replies = trio.open_memory_channel[object](1)
        with outbox, replies:
            for _ in range(times):
                await requests.send((_MESSAGE, outbox))
                await replies.receive()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await trio.testing.wait_all_tasks_blocked()
        with requests:
            begin = process_time()
            async with trio.open_nursery() as crowd:
                for _ in range(callers):
                    crowd.start_soon(call, count // callers)
            seconds = process_time() - begin
    return seconds
