"""The two ways to send a finished request, over our own pool, byte by byte."""

from __future__ import annotations

import random
from typing import Any

import pytest
import trio
import trio.testing

from tinker_actors.errors import APITimeoutError
from tinker_actors.transport.config import Config
from tinker_actors.transport.opening import open_transport
from tinker_actors.transport.options import Hooks, RequestOptions
from tinker_actors.transport.pool import ConnectionPool
from tinker_actors.transport.tls import make_ssl_context
from tinker_actors.transport.ways import heartbeat_pool
from tinker_actors.wire.endpoints import ASAMPLE, ENDPOINTS, GET_INFO
from tinker_actors.wire.model import GetInfoRequest
from tinker_actors.wire.service import Empty

CONTEXT = make_ssl_context()
REPLY = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


class Wire(trio.abc.HalfCloseableStream):
    """Keeps what is written, and answers each whole request."""

    def __init__(self, reply: bytes = REPLY) -> None:
        self.written = b""
        self.reply = reply
        self.waiting = b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self.written += bytes(data)
        self.waiting += self.reply

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        if not self.waiting:
            await trio.sleep_forever()
        data, self.waiting = self.waiting, b""
        return data

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        pass

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


def pool(wire: Wire, limit: int = 4) -> ConnectionPool:
    """Make a pool whose only connection is a wire."""

    async def connect(host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return wire

    return ConnectionPool(limit=limit, ssl_context=CONTEXT, connect=connect)


async def _nothing(request: Any) -> None:
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.name)
async def test_both_ways_write_the_same_bytes(endpoint: Any) -> None:
    """By httpx's client, as a hook makes it, and past it: from the first byte of the head to the last of the body."""
    written = []
    for settings in ({}, {"hooks": Hooks(prepare_request=_nothing)}):
        wire = Wire()
        config = Config(
            base_url="http://service:81/base", api_key="tml-key", headers={"X-Own": "1"}, **settings
        )
        async with open_transport(config, rng=random.Random(0), through=pool(wire)) as transport:
            request = Empty() if endpoint.request is Empty else {"a": 1}
            path = {name: "weights/1" if name == "checkpoint_id" else "id" for name in endpoint.places}
            await transport.call(endpoint, request, path=path, options=RequestOptions(cast_to=object))
        written.append(wire.written)
    assert written[0] == written[1]
    head, _, body = written[0].partition(b"\r\n\r\n")
    first, host, *_ = head.split(b"\r\n")
    assert first.split(b" ")[0] == endpoint.method.encode()
    assert host == b"host: service:81"
    assert body == (b"" if endpoint.request is Empty else b'{"a":1}')
    names = [line.partition(b":")[0] for line in head.split(b"\r\n")[1:]]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("hooks", [None, Hooks(prepare_request=_nothing)])
async def test_both_ways_have_one_deadline(autojump_clock: Any, hooks: Hooks | None) -> None:
    """A service that never answers ends both in the same time, and neither keeps a place."""
    carrier = pool(Wire(reply=b""))
    config = Config(base_url="http://service", hooks=hooks)
    async with open_transport(config, rng=random.Random(0), through=carrier) as transport:
        for endpoint in (ASAMPLE, GET_INFO):
            started = trio.current_time()
            with pytest.raises(APITimeoutError) as caught:
                await transport.call(
                    endpoint, GetInfoRequest("m"), options=RequestOptions(timeout=7, max_retries=0)
                )
            assert trio.current_time() - started == pytest.approx(7)
            assert caught.value.doubtful
    assert carrier.statistics().in_use == 0


async def test_who_waits_for_a_connection_has_sent_nothing(autojump_clock: Any) -> None:
    """A call whose time is up in the line of the pool is not doubtful, whichever way it goes."""
    carrier = pool(Wire(reply=b""), limit=1)
    async with (
        open_transport(Config(base_url="http://service"), rng=random.Random(0), through=carrier) as transport,
        trio.open_nursery() as nursery,
    ):
        patient = RequestOptions(timeout=1000, max_retries=0)
        nursery.start_soon(lambda: transport.call(ASAMPLE, GetInfoRequest("m"), options=patient))
        await trio.testing.wait_all_tasks_blocked()
        short = RequestOptions(timeout=5, max_retries=0)
        for call in (
            lambda: transport.call(ASAMPLE, GetInfoRequest("m"), options=short),
            lambda: transport.call(GET_INFO, GetInfoRequest("m"), options=short),
            lambda: transport.call(
                GET_INFO, GetInfoRequest("m"), options=RequestOptions(view="stream").over(short)
            ),
        ):
            started = trio.current_time()
            with pytest.raises(APITimeoutError) as caught:
                await call()
            assert caught.value.doubtful is False
            assert trio.current_time() - started == pytest.approx(5)
        nursery.cancel_scope.cancel()
    assert carrier.statistics().in_use == 0


@pytest.mark.parametrize("status", [200, 404])
async def test_a_streamed_answer_holds_its_slot_until_it_is_left(autojump_clock: Any, status: int) -> None:
    """Over our own pool; left before its end, or an error whose body never ends: nothing stays taken."""
    carrier = pool(Wire(reply=b"HTTP/1.1 %d OK\r\ncontent-length: 9\r\n\r\nabc" % status))
    options = RequestOptions(timeout=5, max_retries=0)
    async with open_transport(
        Config(base_url="http://service"), rng=random.Random(0), through=carrier
    ) as transport:
        opened = transport.open(GET_INFO, GetInfoRequest("m"), options=options)
        if status == 404:
            with pytest.raises(APITimeoutError):
                await opened.__aenter__()
        else:
            async with opened as response:
                assert await anext(response.iter_bytes()) == b"abc"
                assert carrier.statistics().in_use == 1
    assert carrier.statistics().in_use == 0


@pytest.mark.parametrize("kind", ["own", "stock"])
async def test_connections_are_made_for_a_service_and_for_beats(kind: Any) -> None:
    """Both kinds of pools open and close without a connection."""
    config = Config(base_url="http://service", pool=kind)
    async with open_transport(config, rng=random.Random(0)), heartbeat_pool(config):
        pass
