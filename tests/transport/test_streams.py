from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest
import trio
import trio.testing

from tinker_actors.transport import streams
from tinker_actors.transport.streams import NetworkStream, close_now, is_readable, receive_answer

LONG = bytes(range(256)) * 2**16  # 16 MiB: more than any socket buffers


class Ends(NamedTuple):
    """A stream and the socket at its other end."""

    stream: NetworkStream
    other: trio.SocketStream


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    """Connect a stream with a stream of trio's."""
    one, two = socket.socketpair()
    stream = NetworkStream(one)
    other = trio.SocketStream(trio.socket.from_stdlib_socket(two))
    yield Ends(stream, other)
    close_now(stream)
    await other.aclose()


async def read_exactly(stream: trio.SocketStream, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        data += await stream.receive_some(size - len(data))
    return bytes(data)


async def test_what_the_kernel_takes_at_once_is_no_wait(ends: Ends) -> None:
    """A short write neither waits nor yields, also in a scope that has been cancelled."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await ends.stream.send_all(b"hello")
    assert not scope.cancelled_caught
    assert await read_exactly(ends.other, 5) == b"hello"


async def test_a_long_write_arrives_whole(ends: Ends) -> None:
    """What the kernel does not take at once goes out as the other side reads, in order."""
    received = b""

    async def read() -> None:
        nonlocal received
        received = await read_exactly(ends.other, len(LONG))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await ends.stream.send_all(memoryview(LONG))
    assert received == LONG


async def test_parts_go_out_as_far_as_the_kernel_takes_them(ends: Ends) -> None:
    """In their order, without a wait; what did not fit is not taken, and the next call finds no room."""
    assert ends.stream.send_now(b"head ", b"body") == 9
    assert await read_exactly(ends.other, 9) == b"head body"
    taken = ends.stream.send_now(b"head ", LONG)
    assert 5 < taken < len(LONG)
    assert ends.stream.send_now(LONG) == 0
    assert await read_exactly(ends.other, taken) == (b"head " + LONG)[:taken]


async def test_without_sendmsg_parts_are_joined(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a socket cannot take several parts at once, they go out as one."""

    class Plain:
        def __init__(self, wrapped: socket.socket) -> None:
            self.fileno, self.send = wrapped.fileno, wrapped.send

    with monkeypatch.context() as patch:
        patch.setattr(ends.stream, "_socket", Plain(ends.stream._socket))
        assert ends.stream.send_now(b"head ", b"body") == 9
    assert await read_exactly(ends.other, 9) == b"head body"


async def test_a_long_write_can_be_cancelled(ends: Ends) -> None:
    """A writer who waits for the other side leaves when it is cancelled."""
    left: list[bool] = []

    async def write() -> None:
        with trio.CancelScope() as scope:
            nursery.start_soon(cancel, scope)
            await ends.stream.send_all(LONG)
        left.append(scope.cancelled_caught)

    async def cancel(scope: trio.CancelScope) -> None:
        await trio.testing.wait_all_tasks_blocked(0.01)
        scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
    assert left == [True]


async def test_reading_takes_what_is_there_and_yields(ends: Ends) -> None:
    """Data that is there is returned after a checkpoint; whoever is cancelled leaves it there."""
    await ends.other.send_all(b"data")
    with trio.testing.assert_checkpoints():
        assert await ends.stream.receive_some() == b"data"
    await ends.other.send_all(b"more")
    with trio.CancelScope() as scope:
        scope.cancel()
        await ends.stream.receive_some(4)
    assert scope.cancelled_caught
    assert await ends.stream.receive_some(4) == b"more"


@pytest.mark.parametrize("read", [NetworkStream.receive_some, receive_answer], ids=["some", "answer"])
async def test_reading_waits_for_data_and_for_the_end(ends: Ends, read: Any) -> None:
    """Whoever reads before there is something gets it when it comes; the end is an empty text."""
    received: list[bytes] = []

    async def keep() -> None:
        received.append(await read(ends.stream, 100))

    for sent in (b"first", b"second"):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep)
            await trio.testing.wait_all_tasks_blocked(0.01)
            await ends.other.send_all(sent)
    await ends.other.aclose()
    await keep()
    assert received == [b"first", b"second", b""]


async def test_it_tells_whether_something_waits(ends: Ends) -> None:
    """Neither silence, nor what has been read, but data and the end."""
    assert not is_readable(ends.stream)
    await ends.other.send_all(b"x")
    assert is_readable(ends.stream)
    assert await ends.stream.receive_some(1) == b"x"
    assert not is_readable(ends.stream)
    await ends.other.aclose()
    assert is_readable(ends.stream)


async def test_without_poll_it_tells_by_select(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no poll, select says the same."""
    monkeypatch.delattr(streams.select, "poll")
    assert not is_readable(ends.stream)
    await ends.other.send_all(b"x")
    assert is_readable(ends.stream)


async def test_a_stream_that_was_closed_says_so(ends: Ends) -> None:
    """Reading and writing raise ClosedResourceError; closing again does nothing; readers that wait are told."""
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await ends.stream.receive_some(1)

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked(0.01)
        close_now(ends.stream)
    close_now(ends.stream)
    await ends.stream.aclose()
    for use in (lambda: ends.stream.send_all(b"x"), lambda: ends.stream.receive_some(1)):
        with pytest.raises(trio.ClosedResourceError):
            await use()


async def test_a_connection_that_broke_says_why(ends: Ends) -> None:
    """What the kernel reports is the cause of a BrokenResourceError."""
    await ends.other.aclose()
    with pytest.raises(trio.BrokenResourceError, match="connection broken") as caught:
        for _ in range(2):
            await ends.stream.send_all(b"x")
    assert isinstance(caught.value.__cause__, OSError)


async def test_it_carries_tls(ends: Ends) -> None:
    """Encryption by trio runs over it, and waits for room where it has to."""
    import trustme

    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("example.org").configure_cert(server)
    authority.configure_trust(client)
    ours = trio.SSLStream(ends.stream, client, server_hostname="example.org")
    theirs = trio.SSLStream(ends.other, server, server_side=True)
    received = bytearray()

    async def read() -> None:
        while len(received) < len(LONG):
            received.extend(await theirs.receive_some())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await ours.send_all(LONG)
    assert bytes(received) == LONG
    assert not is_readable(ours)
    await theirs.send_all(b"x")
    await ends.stream.wait_send_all_might_not_block()
    assert is_readable(ours)
