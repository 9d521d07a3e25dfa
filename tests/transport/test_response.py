"""A whole answer: its head, and its body as bytes, text, lines or values."""

from __future__ import annotations

import gc
import gzip
import random
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.transport.script import INFO, Pieces, Script, config
from tinker_actors.errors import (
    APIConnectionError,
    APIResponseValidationError,
    APITimeoutError,
    NotFoundError,
    StreamAlreadyConsumed,
)
from tinker_actors.transport.exchange import HttpTransport
from tinker_actors.transport.opening import open_transport
from tinker_actors.transport.options import RequestOptions
from tinker_actors.transport.response import APIResponse, BinaryAPIResponse
from tinker_actors.wire.endpoints import CAPABILITIES, GET_INFO
from tinker_actors.wire.model import GetInfoRequest
from tinker_actors.wire.service import Empty

TEXT = "é, one\ntwo\r\nthree".encode()


def names(folder: Path) -> list[str]:
    """Return what is in a folder."""
    return [file.name for file in folder.iterdir()]


@asynccontextmanager
async def answered(answer: Any, **settings: Any) -> AsyncIterator[tuple[HttpTransport, Script]]:
    """Open a transport whose requests are all answered like this."""
    script = Script(lambda _: answer() if callable(answer) else answer)
    async with open_transport(config(**settings), rng=random.Random(0), through=script) as transport:
        yield transport, script


async def raw(answer: httpx.Response, kind: Any = str) -> APIResponse[Any]:
    """Return a whole answer that has been read."""
    async with answered(answer) as (transport, _):
        return await transport.respond(CAPABILITIES, Empty(), options=RequestOptions(cast_to=kind))


@pytest.mark.requirement("R66")
async def test_a_body_can_be_had_in_every_way() -> None:
    """Bytes, text, JSON, pieces of each, and lines; as often as one likes, for it has been read."""
    response = await raw(httpx.Response(200, content=TEXT, headers={"x-a": "1"}))
    for _ in range(2):
        assert await response.read() == TEXT
        assert await response.text() == TEXT.decode()
        assert [line async for line in response.iter_lines()] == ["é, one", "two", "three"]
        assert b"".join([piece async for piece in response.iter_bytes()]) == TEXT
        assert [len(piece) async for piece in response.iter_bytes(7)] == [7, 7, 4]
        assert "".join([piece async for piece in response.iter_text(3)]) == TEXT.decode()
    assert (response.status_code, response.headers["x-a"], response.is_closed) == (200, "1", True)
    assert (response.method, str(response.url)) == (
        "GET",
        "http://script/base/api/v1/get_server_capabilities",
    )
    assert repr(response) == "<APIResponse [200] get_server_capabilities>"
    await response.close()


@pytest.mark.requirement("R65")
async def test_a_value_is_read_once_for_each_type() -> None:
    """The same type gives the same object; another type is read anew."""
    response = await raw(httpx.Response(200, json={"a": [1]}), dict)
    first = await response.parse()
    assert first == {"a": [1]}
    assert await response.parse() is first
    assert await response.parse(to=dict) is first
    assert await response.parse(to=str) == '{"a":[1]}'
    assert await response.parse(to=httpx.Response) is response.http_response
    assert await response.json() == {"a": [1]}


@pytest.mark.requirement("R62", "R64")
async def test_what_cannot_be_read_is_a_typed_error() -> None:
    """The error has the request and the answer."""
    response = await raw(httpx.Response(200, text="hello"), dict)
    for reading in (response.parse, response.json):
        with pytest.raises(APIResponseValidationError, match="JSON"):
            await reading()
    with pytest.raises(APIResponseValidationError) as caught:
        await response.parse()
    assert caught.value.response is response.http_response


@pytest.mark.requirement("R24", "R166")
async def test_a_streamed_answer_is_there_before_its_body() -> None:
    """The head is given at once; each piece when it has come; leaving gives the connection back."""
    going = trio.Event()

    class Slow(Pieces):
        async def __anext__(self) -> bytes:
            if self.taken:
                await going.wait()
            return await super().__anext__()

    body = Slow([b"one", b"two"])
    async with (
        answered(httpx.Response(200, stream=body)) as (transport, _),
        transport.open(CAPABILITIES, Empty()) as response,
    ):
        assert response.status_code == 200
        pieces = response.iter_bytes()
        assert await anext(pieces) == b"one"
        going.set()
        assert [piece async for piece in pieces] == [b"two"]
    assert body.closed


@pytest.mark.requirement("R66", "R165")
async def test_a_streamed_body_can_be_gone_through_once() -> None:
    """A second time is an error, and so is reading it after it has been gone through or closed."""
    async with answered(lambda: httpx.Response(200, stream=Pieces([b"a", b"b"]))) as (transport, _):
        async with transport.open(CAPABILITIES, Empty()) as response:
            assert [piece async for piece in response.iter_bytes()] == [b"a", b"b"]
            for again in (response.read, response.parse, response.text):
                with pytest.raises(StreamAlreadyConsumed, match="get_server_capabilities"):
                    await again()
            with pytest.raises(StreamAlreadyConsumed):
                await anext(response.iter_lines())
        async with transport.open(CAPABILITIES, Empty()) as response:
            await response.close()
            with pytest.raises(StreamAlreadyConsumed):
                await response.read()


@pytest.mark.requirement("R66")
async def test_a_streamed_body_can_be_read_and_then_used_as_one_likes() -> None:
    """Reading it whole keeps it; compression is undone, also piece by piece."""
    packed = gzip.compress(TEXT)

    def answer() -> httpx.Response:
        pieces = Pieces([packed[:9], packed[9:]])
        return httpx.Response(200, stream=pieces, headers={"content-encoding": "gzip"})

    async with answered(answer) as (transport, _):
        async with transport.open(CAPABILITIES, Empty(), options=RequestOptions(cast_to=str)) as response:
            assert await response.parse() == await response.text() == TEXT.decode()
            assert [line async for line in response.iter_lines()] == ["é, one", "two", "three"]
        async with transport.open(CAPABILITIES, Empty()) as response:
            assert [line async for line in response.iter_lines()] == ["é, one", "two", "three"]
        async with transport.open(CAPABILITIES, Empty()) as response:
            assert "".join([piece async for piece in response.iter_text()]) == TEXT.decode()


async def test_a_walk_may_be_left_before_its_end() -> None:
    """Nothing is left open, and the place in the lane is given back, however often that happens."""
    bodies = [Pieces([b"a\n", b"b\n", b"c\n"]) for _ in range(30)]
    answers = iter(bodies)
    async with answered(lambda: httpx.Response(200, stream=next(answers))) as (transport, _):
        for turn in range(30):
            async with transport.open(CAPABILITIES, Empty()) as response:
                pieces = response.iter_bytes() if turn % 2 else response.iter_lines()
                async for _ in pieces:
                    break
    assert all(body.closed for body in bodies)


@pytest.mark.requirement("R59")
async def test_a_connection_that_breaks_under_the_body_is_our_error(autojump_clock: Any) -> None:
    """The address is told without its query, which may be a signature."""

    class Broken(Pieces):
        async def __anext__(self) -> bytes:
            await trio.lowlevel.checkpoint()
            raise httpx.ReadError("lost")

    async with answered(lambda: httpx.Response(200, stream=Broken([]))) as (transport, _):
        async with transport.open_url("x?signature=hush") as response:
            with pytest.raises(APIConnectionError, match="download: http://script/base/x: ") as caught:
                await anext(response.iter_bytes())
        assert "hush" not in str(caught.value)
        assert caught.value.doubtful


@pytest.mark.lesson("L36")
async def test_a_compressed_body_that_is_none_is_our_error() -> None:
    """Garbage in a body is told as such."""
    answer = httpx.Response(200, stream=Pieces([b"nonsense"]), headers={"content-encoding": "gzip"})
    async with answered(answer) as (transport, _), transport.open(CAPABILITIES, Empty()) as response:
        with pytest.raises(APIResponseValidationError):
            await response.read()


@pytest.mark.lesson("L36")
@pytest.mark.parametrize("way", ["iter_bytes", "iter_text", "iter_lines"])
async def test_garbage_piece_by_piece_leaves_nothing_open(way: str) -> None:
    """The generators below end with the answer, not when they are collected, which trio warns of."""
    body = Pieces([b"nonsense", b"more", b"and more"])
    answer = httpx.Response(200, stream=body, headers={"content-encoding": "gzip"})
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        async with answered(answer) as (transport, _), transport.open(CAPABILITIES, Empty()) as response:
            with pytest.raises(APIResponseValidationError):
                await anext(getattr(response, way)())
        del response
        for _ in range(3):
            gc.collect()
            await trio.lowlevel.checkpoint()
    assert [str(warning.message) for warning in warned] == []
    assert body.closed


async def test_an_error_status_is_raised_before_the_body_is_streamed(autojump_clock: Any) -> None:
    """With the body of the error, and with retries before it."""
    script = Script(
        lambda attempt: httpx.Response(
            503 if attempt == 0 else 404, stream=Pieces([b'{"detail":', b'"why"}'])
        )
    )
    async with open_transport(config(), rng=random.Random(0), through=script) as transport:
        with pytest.raises(NotFoundError, match="why"):
            async with transport.open(CAPABILITIES, Empty()):
                pass
    assert len(script.requests) == 2


async def test_the_wait_for_a_head_has_a_deadline(autojump_clock: Any) -> None:
    """For a streamed answer as for every other; the place in the lane is given back."""
    async with answered(lambda: None) as (transport, script):
        for _ in range(20):
            with pytest.raises(APITimeoutError):
                async with transport.open(
                    CAPABILITIES, Empty(), options=RequestOptions(timeout=5, max_retries=0)
                ):
                    pass
        assert trio.current_time() == pytest.approx(script.times[0] + 100)


async def test_streamed_answers_share_the_lane(autojump_clock: Any) -> None:
    """One task may hold several; when the lane is full, the next one waits, and knows that nothing was sent."""
    async with answered(lambda: httpx.Response(200, stream=Pieces([b"a"]))) as (transport, script):
        async with trio.open_nursery() as nursery:

            async def hold(task_status: trio.TaskStatus[None]) -> None:
                async with transport.open(CAPABILITIES, Empty()):
                    task_status.started()
                    await trio.sleep(1000)

            for _ in range(8):
                await nursery.start(hold)
            short = RequestOptions(timeout=5, max_retries=0)
            with pytest.raises(APITimeoutError) as caught:
                await transport.respond(CAPABILITIES, Empty(), options=short)
            assert caught.value.doubtful is False
            with pytest.raises(APITimeoutError) as caught:
                async with transport.open(CAPABILITIES, Empty(), options=short):
                    pass
            assert caught.value.doubtful is False
            assert len(script.requests) == 8
            await transport.call(GET_INFO, GetInfoRequest("m"), options=RequestOptions(cast_to=bytes))
            nursery.cancel_scope.cancel()
        await transport.respond(CAPABILITIES, Empty())


@pytest.mark.requirement("R66")
async def test_a_body_goes_to_a_file(tmp_path: Path) -> None:
    """Piece by piece; the file is there when it is whole, and nothing of it before."""
    path = tmp_path / "weights.tar"
    other = tmp_path / "weights.tar.partial"
    other.write_bytes(b"somebody else's")
    async with answered(lambda: httpx.Response(200, stream=Pieces([b"a" * 1000, b"b"]))) as (transport, _):
        options = RequestOptions(cast_to=BinaryAPIResponse, view="stream")
        response = await transport.call(CAPABILITIES, Empty(), options=options)
        assert isinstance(response, BinaryAPIResponse)
        async with response:
            await response.write_to_file(path)
        assert path.read_bytes() == b"a" * 1000 + b"b"
        again = await transport.call(CAPABILITIES, Empty(), options=RequestOptions(cast_to=BinaryAPIResponse))
        assert isinstance(again, BinaryAPIResponse)
        await again.write_to_file(path)
    assert sorted(names(tmp_path)) == ["weights.tar", "weights.tar.partial"]
    assert other.read_bytes() == b"somebody else's"


async def test_a_file_that_was_not_whole_is_not_there(tmp_path: Path) -> None:
    """A connection that breaks leaves nothing behind."""

    class Broken(Pieces):
        async def __anext__(self) -> bytes:
            if self.taken:
                raise httpx.ReadError("lost")
            return await super().__anext__()

    async with answered(lambda: httpx.Response(200, stream=Broken([b"a", b"b"]))) as (transport, _):
        options = RequestOptions(cast_to=BinaryAPIResponse, view="stream")
        async with await transport.call(CAPABILITIES, Empty(), options=options) as response:  # type: ignore[attr-defined] # the options say so
            with pytest.raises(APIConnectionError):
                await response.write_to_file(tmp_path / "x")
    assert names(tmp_path) == []


async def test_strictness_and_retries_belong_to_an_answer(autojump_clock: Any) -> None:
    """A strict client's answers are strict."""
    async with answered(httpx.Response(200, json={**INFO, "new": 1}), strict=True) as (transport, _):
        response = await transport.respond(GET_INFO, GetInfoRequest("m"))
        with pytest.raises(APIResponseValidationError, match="new"):
            await response.parse()
