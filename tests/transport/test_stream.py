"""A stream of server-sent events, as the service sends them."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trio

from tests.transport.script import Pieces, Script, config
from tinker_actors.errors import APIResponseValidationError, StreamAlreadyConsumed
from tinker_actors.protocol.sse import ServerSentEvent
from tinker_actors.transport import stream as streams
from tinker_actors.transport.opening import open_transport
from tinker_actors.transport.options import RequestOptions
from tinker_actors.transport.stream import Stream
from tinker_actors.wire.endpoints import CAPABILITIES
from tinker_actors.wire.service import Empty

EVENTS = [b'data: {"turn": 1}\n\nda', b'ta: {"turn": 2}\n', b'\ndata: {"turn": 3}\n\ndata: cut']


@asynccontextmanager
async def streaming(body: Pieces, kind: Any = Stream[dict]) -> AsyncIterator[tuple[Any, Script]]:
    """Open a stream over a body."""
    script = Script(lambda _: httpx.Response(200, stream=body, headers={"content-type": "text/event-stream"}))
    async with open_transport(config(), rng=random.Random(0), through=script) as transport:
        stream = await transport.call(CAPABILITIES, Empty(), options=RequestOptions(cast_to=kind))
        yield stream, script


@pytest.mark.requirement("R164", "R166")
async def test_events_come_as_soon_as_they_are_complete() -> None:
    """Nothing is waited for but the event itself; what the end cuts off never happened."""
    body = Pieces(EVENTS)
    async with streaming(body) as (stream, script):
        assert isinstance(stream, Stream)
        values = aiter(stream)
        assert await anext(values) == {"turn": 1}
        assert body.taken == 1
        assert await anext(values) == {"turn": 2}
        assert body.taken == 3
        assert [value async for value in values] == [{"turn": 3}]
        assert body.closed
        assert script.requests[0].headers["accept"] == "text/event-stream"


@pytest.mark.requirement("R165")
async def test_a_stream_can_be_gone_through_once() -> None:
    """Values or events, but not twice, be it by one or by the other."""
    async with streaming(Pieces(EVENTS)) as (stream, _), stream:
        assert len([value async for value in stream]) == 3
        with pytest.raises(StreamAlreadyConsumed, match="gone through"):
            aiter(stream)
        with pytest.raises(StreamAlreadyConsumed):
            stream.events()


async def test_events_can_be_had_as_they_are() -> None:
    """With their types and ids; also as the kind of the stream."""
    async with streaming(Pieces([b"event: e\nid: 1\ndata: x\n\n"]), Stream[str]) as (stream, _):
        assert [event async for event in stream.events()] == [ServerSentEvent(event="e", id="1", data="x")]
    async with streaming(Pieces([b"data: x\n\n"]), Stream[ServerSentEvent]) as (stream, _):
        assert [event.data async for event in stream] == ["x"]


async def test_a_stream_may_be_left_before_its_end() -> None:
    """Its connection is given back, and nothing complains."""
    body = Pieces(EVENTS)
    async with streaming(body) as (stream, _):
        async with stream:
            async for _ in stream:
                break
        assert body.closed


async def test_a_cancelled_reader_leaves_nothing_open(autojump_clock: Any) -> None:
    """Closing works after a cancellation, too."""

    class Stalled(Pieces):
        async def __anext__(self) -> bytes:
            if self.taken:
                await trio.sleep_forever()
            return await super().__anext__()

    body = Stalled(EVENTS)
    async with streaming(body) as (stream, _):
        with trio.move_on_after(5) as scope:
            async with stream:
                async for _ in stream:
                    pass
        assert scope.cancelled_caught
    assert body.closed


@pytest.mark.requirement("R62", "R164")
async def test_bad_events_are_typed_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data of another shape, and an event without an end."""
    async with streaming(Pieces([b"data: nonsense\n\n"])) as (stream, _), stream:
        with pytest.raises(APIResponseValidationError, match="get_server_capabilities"):
            await anext(aiter(stream))
    monkeypatch.setattr(streams, "EventParser", lambda: streams_parser(limit=10))
    body = Pieces([b"data: " + b"x" * 100])
    async with streaming(body) as (stream, _):
        with pytest.raises(APIResponseValidationError, match="longer than 10 bytes"):
            await anext(aiter(stream))
        assert body.closed


streams_parser = streams.EventParser
