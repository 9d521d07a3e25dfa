"""One connection: what is written, how answers are read, and when another exchange may follow."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import httpx
import pytest
import trio
import trio.testing
from trio.testing import lockstep_stream_pair

from tinker_actors.transport.head import Origin

ORIGIN = Origin("http", "server", 80)


async def ask(
    pool: Any, body: bytes = b"", method: bytes = b"POST", headers: Any = (), timeout: float = 60
) -> Any:
    """Make one exchange."""
    return await pool.exchange(ORIGIN, method, b"/x", headers, body, timeout=timeout)


# ------------------------------------------------------------------------------------------------------- the request


async def test_a_short_request_is_one_write(net: Any) -> None:
    """Head and short body leave in one packet."""
    pool = net.pool()
    for size in (0, 1000, 65536):
        await ask(pool, b"x" * size)
    assert len(net.wires[0].writes) == 3


# ------------------------------------------------------------------------------------------------------ the response

HEAD = b"HTTP/1.1 200 OK\r\n"
BODIES: dict[str, tuple[bytes, bytes]] = {
    "known": (HEAD + b"Content-Length: 5\r\n\r\nhello", b"hello"),
    "empty": (HEAD + b"Content-Length: 0\r\n\r\n", b""),
    "chunked": (
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nA: b\r\n\r\n",
        b"hello",
    ),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    "not modified": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b""),
    "early hints": (
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + HEAD + b"Content-Length: 2\r\n\r\nhi",
        b"hi",
    ),
    "continue": (b"HTTP/1.1 100 Continue\r\n\r\n" * 2 + HEAD + b"Content-Length: 2\r\n\r\nhi", b"hi"),
    "same length twice": (HEAD + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    "no reason": (b"HTTP/1.1 404\r\nContent-Length: 2\r\n\r\nno", b"no"),
}


@pytest.mark.parametrize("name", BODIES)
async def test_answers_are_read_however_they_are_cut(net: Any, name: str) -> None:
    """Each framing gives the same body, split at any byte; the connection is used again, and both ways agree."""
    answer, body = BODIES[name]
    cut = 0

    async def serve(peer: Any) -> None:
        while await peer.request() is not None:
            await peer.send(answer[:cut])
            await trio.testing.wait_all_tasks_blocked()
            await peer.send(answer[cut:])

    net.handler = serve
    pool = net.pool()
    async with httpx.AsyncClient(transport=pool) as client:
        for cut in range(1, len(answer)):  # noqa: B007 - the server looks at it
            reply = await ask(pool)
            response = await client.post("http://server/x")
            assert reply.body == response.content == body
            assert reply.status == response.status_code
            assert reply.headers == [(k.lower(), v) for k, v in response.headers.raw]
        assert len(net.wires) == 1
        assert pool.statistics() == (4, 0, 0, 1)


async def test_an_answer_to_head_has_no_body(net: Any) -> None:
    """Its length is that of another answer."""

    async def serve(peer: Any) -> None:
        while await peer.request() is not None:
            await peer.send(HEAD + b"Content-Length: 1000\r\n\r\n")

    net.handler = serve
    pool = net.pool()
    assert (await ask(pool, method=b"HEAD")).body == b""
    assert (await ask(pool, method=b"HEAD")).body == b""
    assert len(net.wires) == 1


CHUNKS = b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
REUSE: dict[str, tuple[bytes, bool]] = {
    "success": (HEAD + b"Content-Length: 2\r\n\r\nhi", True),
    "refusal": (b"HTTP/1.1 429 Slow\r\nContent-Length: 2\r\n\r\nhi", True),
    "bad request": (b"HTTP/1.1 400 Bad\r\nContent-Length: 2\r\n\r\nhi", True),
    "turned away": (b"HTTP/1.1 400 Bad\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n", False),
    "server error": (b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\nhi", False),
    "unavailable": (b"HTTP/1.1 503 Oops\r\nContent-Length: 2\r\n\r\nhi", False),
    "close": (HEAD + b"Connection: Close\r\nContent-Length: 2\r\n\r\nhi", False),
    "old": (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi", False),
    "something follows": (
        HEAD + b"Content-Length: 2\r\n\r\nhi" + HEAD + b"Content-Length: 2\r\n\r\nho",
        False,
    ),
    "something follows chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\nH", False),
    "length and chunks": (HEAD + b"Content-Length: 2\r\n" + CHUNKS, False),
    "chunks and length": (HEAD + CHUNKS.replace(b"\r\n", b"\r\nContent-Length: 9\r\n", 1), False),
    "chunks": (HEAD + CHUNKS, True),
    "keep-alive over": (HEAD + b"Keep-Alive: timeout=0\r\nContent-Length: 2\r\n\r\nhi", False),
    "keep-alive": (HEAD + b"Keep-Alive: timeout=5, max=100\r\nContent-Length: 2\r\n\r\nhi", True),
}


@pytest.mark.parametrize("name", REUSE)
async def test_when_a_connection_is_used_again(net: Any, name: str) -> None:
    """Only after a complete answer without an objection; never after a 5xx, or a 400 without a body."""
    answer, again = REUSE[name]

    async def serve(peer: Any) -> None:
        while await peer.request() is not None:
            await peer.send(answer)

    net.handler = serve
    pool = net.pool()
    for _ in range(3):
        assert (await ask(pool)).body == (b"" if name == "turned away" else b"hi")
        assert pool.statistics().idle == int(again)
    assert len(net.wires) == (1 if again else 3)
    assert all(wire.closed for wire in net.wires) is not again


async def test_a_request_may_ask_for_the_end(net: Any) -> None:
    """`Connection: close` in the request ends the connection as well."""
    pool = net.pool()
    await ask(pool, headers=[(b"Connection", b"close")])
    assert net.wires[0].closed


async def test_a_body_without_length_ends_with_the_connection(net: Any) -> None:
    """It is read to the end, by both ways, and the connection is gone."""

    async def serve(peer: Any) -> None:
        await peer.request()
        await peer.send(HEAD + b"\r\nhel")
        await peer.send(b"lo")
        await peer.close()

    net.handler = serve
    pool = net.pool()
    assert (await ask(pool)).body == b"hello"
    async with httpx.AsyncClient(transport=pool) as client:
        assert (await client.get("http://server")).content == b"hello"
    assert all(wire.closed for wire in net.wires)


# ---------------------------------------------------------------------------------------------------------- failures


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        HEAD + b"Content-Length: 5\r\n\r\nhel",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
        HEAD + b"Transfer-Encoding: gzip\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        HEAD + b"Content-Length: -5\r\n\r\nhello",
        HEAD + b"Content-Length: " + b"9" * 30 + b"\r\n\r\nhello",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x15\x03\x01\x00\x02\x02\x16",
        HEAD + b"a b: c\r\n\r\n",
        HEAD + b"X: " + b"y" * 200_000 + b"\r\n\r\n",
    ],
)
async def test_garbage_is_a_protocol_error(net: Any, answer: bytes) -> None:
    """What is no complete answer is an error on both ways; the connection goes and the slot comes back."""

    async def serve(peer: Any) -> None:
        await peer.request()
        await peer.send(answer)
        await peer.close()

    net.handler = serve
    pool = net.pool()
    with pytest.raises(httpx.RemoteProtocolError):
        await ask(pool)
    async with httpx.AsyncClient(transport=pool) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("http://server/")
        assert all(wire.closed for wire in net.wires)
        assert pool.statistics() == (4, 0, 0, 0)


async def test_an_endless_head_is_not_kept(autojump_clock: Any, net: Any) -> None:
    """A server that sends headers for ever is stopped at a limit."""

    async def serve(peer: Any) -> None:
        await peer.request()
        await peer.send(HEAD)
        while True:
            await peer.send(b"X: y\r\n" * 1000)
            await trio.sleep(0.01)

    net.handler = serve
    with pytest.raises(httpx.RemoteProtocolError, match="too long"):
        await ask(net.pool())


async def test_a_connection_that_breaks_while_it_is_read(net: Any) -> None:
    """A reset is a read error: the request had been written. In the middle of a body as well."""

    async def serve(peer: Any) -> None:
        await peer.request()
        net.wires[-1].read_error = ConnectionResetError("reset by peer")
        await peer.send(answer)

    net.handler = serve
    pool = net.pool()
    for answer in (b"HTTP/1.1 2", HEAD + b"Content-Length: 5\r\n\r\nhe"):  # noqa: B007 - the server sends it
        with pytest.raises(httpx.ReadError, match="reset by peer"):
            await ask(pool)
    assert pool.statistics() == (4, 0, 0, 0)


async def test_a_write_that_fails_still_hears_the_answer(net: Any) -> None:
    """A server that refuses and closes before the request is written is heard; if it says nothing, that is an error."""
    pool = net.pool()
    answers = [b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nlong", b""]

    async def serve(peer: Any) -> None:
        await peer.send(answers.pop(0))
        await peer.close()

    net.handler = serve
    connect = net.connect

    async def connect_to_broken(host: str, port: int) -> Any:
        wire = await connect(host, port)
        wire.write_error = BrokenPipeError("broken pipe")
        return wire

    pool._connect = connect_to_broken
    reply = await ask(pool, b"x")
    assert (reply.status, reply.body) == (413, b"long")
    with pytest.raises(httpx.WriteError):
        await ask(pool, b"x")
    assert all(wire.closed for wire in net.wires)
    assert pool.statistics() == (4, 0, 0, 0)


@pytest.mark.parametrize("way", ["direct", "client", "streamed"])
async def test_a_refusal_in_the_middle_of_a_request_is_heard(autojump_clock: Any, net: Any, way: str) -> None:
    """The server answers, reads no further and does not even close: the answer comes, and the connection goes."""

    async def serve(peer: Any) -> None:
        await peer.until(b"x" * 100)
        await peer.send(b"HTTP/1.1 429 Slow Down\r\nContent-Length: 4\r\n\r\nsl")
        await trio.sleep(1)
        await peer.send(b"ow")

    net.handler = serve
    net.make_pair = lockstep_stream_pair  # nothing is buffered: who is not read cannot write
    pool = net.pool()
    async with httpx.AsyncClient(transport=pool) as client:
        if way == "direct":
            reply = await ask(pool, b"x" * 4_000_000)
            assert (reply.status, reply.body) == (429, b"slow")
        elif way == "client":
            response = await client.post("http://server/x", content=b"x" * 4_000_000)
            assert (response.status_code, response.content) == (429, b"slow")
        else:
            async with aclosing(endless()) as source:
                response = await client.post("http://server/x", content=source)
            assert (response.status_code, response.content) == (429, b"slow")
        assert trio.current_time() < 5
        assert net.wires[0].closed
        assert pool.statistics() == (4, 0, 0, 0)


async def endless() -> AsyncGenerator[bytes, None]:
    """Give bytes without an end."""
    while True:
        yield b"x" * 1000


@pytest.mark.parametrize("size", [10, 100_000])
async def test_a_request_that_is_cut_off(autojump_clock: Any, net: Any, size: int) -> None:
    """The server hangs up, or the pool is closed, before the request is written: an error, and nothing stays open."""

    async def hang_up(peer: Any) -> None:
        await peer.until(b"POST")
        await peer.close()

    async def stall(peer: Any) -> None:
        await peer.until(b"POST")
        await trio.sleep_forever()

    net.make_pair = lockstep_stream_pair
    net.handler = hang_up
    pool = net.pool()
    with pytest.raises((httpx.WriteError, httpx.RemoteProtocolError)):
        await ask(pool, b"x" * size)
    assert pool.statistics() == (4, 0, 0, 0)
    net.handler = stall
    async with trio.open_nursery() as nursery:

        async def closed_under() -> None:
            with pytest.raises((httpx.WriteError, httpx.ReadError), match="closed"):
                await ask(pool, b"x" * size)

        nursery.start_soon(closed_under)
        await trio.testing.wait_all_tasks_blocked()
        await pool.aclose()
    assert pool.statistics() == (4, 0, 0, 0)
    assert all(wire.closed for wire in net.wires)


async def test_an_early_success_waits_for_the_end_of_the_request(autojump_clock: Any, net: Any) -> None:
    """Who answers 200 before the request is there still gets it whole; the connection is used again."""
    got: list[int] = []

    async def serve(peer: Any) -> None:
        await peer.until(b"x" * 100)
        await peer.answer(b"fine")
        request = await peer.request()
        got.append(len(request[1]))
        await echo_once(peer)

    net.handler = serve
    pool = net.pool()
    assert (await ask(pool, b"x" * 300_000)).body == b"fine"
    await trio.testing.wait_all_tasks_blocked()
    assert got == [300_000]
    assert (await ask(pool, b"again")).body == b"again"
    assert len(net.wires) == 1


async def echo_once(peer: Any) -> None:
    """Answer one request with its body."""
    request = await peer.request()
    assert request is not None
    await peer.answer(request[1])


# --------------------------------------------------------------------------------------------------- streamed bodies


async def pieces(*parts: bytes) -> AsyncGenerator[bytes, None]:
    """Give a body in parts."""
    for part in parts:
        await trio.lowlevel.checkpoint()
        yield part


async def test_streamed_bodies_are_framed(net: Any) -> None:
    """Without a length they go out in chunks, with one as they are; an empty part is no end."""
    seen: list[bytes] = []

    async def serve(peer: Any) -> None:
        seen.append(await peer.until(b"0\r\n\r\n"))
        peer._data.clear()
        await peer.answer(b"ok")
        request = await peer.request()
        seen.append(request[1])
        await peer.answer(b"ok")

    net.handler = serve
    async with httpx.AsyncClient(transport=net.pool()) as client:
        assert (await client.post("http://server/", content=pieces(b"hel", b"", b"lo"))).content == b"ok"
        headers = {"Content-Length": "5"}
        response = await client.post("http://server/", content=pieces(b"hel", b"lo"), headers=headers)
        assert response.content == b"ok"
    assert seen[0].endswith(b"\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in seen[0]
    assert seen[1] == b"hello"
    assert len(net.wires) == 1


@pytest.mark.parametrize("parts", [[b"hel"], [b"hello", b"!"], []])
async def test_a_streamed_body_has_the_length_that_was_said(net: Any, parts: list[bytes]) -> None:
    """A shorter or longer one is an error, and the connection goes."""
    pool = net.pool()
    async with httpx.AsyncClient(transport=pool) as client:
        with pytest.raises(httpx.LocalProtocolError, match="than its Content-Length"):
            await client.post("http://server/", content=pieces(*parts), headers={"Content-Length": "5"})
        assert net.wires[0].closed
        assert pool.statistics() == (4, 0, 0, 0)


async def test_a_streamed_body_must_say_how_it_ends(net: Any) -> None:
    """Without a length and without chunks, nothing is sent."""
    pool = net.pool()
    request = httpx.Request("POST", "http://server/", content=pieces(b"x"))
    del request.headers["transfer-encoding"]
    with pytest.raises(httpx.LocalProtocolError, match="how the body"):
        await pool.handle_async_request(request)
    assert net.wires == [] or net.wires[0].writes == []
    assert pool.statistics().in_use == 0


async def test_a_source_that_fails_is_heard_as_it_is(net: Any) -> None:
    """What the caller's own generator raises comes out, not in a group; connection and slot are free."""

    async def failing() -> AsyncGenerator[bytes, None]:
        yield b"x"
        raise KeyError("mine")

    pool = net.pool()
    async with httpx.AsyncClient(transport=pool) as client:
        with pytest.raises(KeyError, match="mine"):
            await client.post("http://server/", content=failing())
        assert net.wires[0].closed
        assert pool.statistics() == (4, 0, 0, 0)
        assert (await client.post("http://server/", content=b"next")).content == b"next"


async def test_a_download_that_is_left_gives_everything_back(net: Any) -> None:
    """A response that is closed in its middle closes its connection; one read to its end keeps it."""

    async def serve(peer: Any) -> None:
        while await peer.request() is not None:
            await peer.send(HEAD + b"Content-Length: 300000\r\n\r\n")
            for _ in range(3):
                await peer.send(b"y" * 100_000)

    net.handler = serve
    pool = net.pool()
    request = httpx.Request("GET", "http://server/")
    response = await pool.handle_async_request(request)
    assert pool.statistics().in_use == 1
    await anext(aiter(response.stream))
    await response.aclose()
    await response.aclose()
    assert pool.statistics() == (4, 0, 0, 0)
    assert net.wires[0].closed
    response = await pool.handle_async_request(request)
    assert len(b"".join([piece async for piece in response.stream])) == 300_000
    assert pool.statistics() == (4, 0, 0, 1)  # before the response is closed
    with pytest.raises(StopAsyncIteration):
        await anext(aiter(response.stream))


# ------------------------------------------------------------------------------------------------------ broken answers


def damaged(rng: random.Random) -> bytes:
    """Return an answer with some of its bytes changed, repeated, left out or moved."""
    answer = bytearray(rng.choice([answer for answer, _ in BODIES.values()]))
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(answer))
        end = min(len(answer), start + rng.randint(1, 8))
        part = answer[start:end]
        kind = rng.randrange(4)
        if kind == 0:
            answer[start:end] = rng.randbytes(len(part))
        elif kind == 1:
            answer[start:start] = part * rng.randint(1, 3)
        elif kind == 2 and len(answer) > len(part):
            del answer[start:end]
        else:
            place = rng.randrange(len(answer))
            answer[place:place] = rng.choice(
                [b"\r\n", b"\n", b"\x00", b"9" * 30, b"ffffffffffffffffffff", b":"]
            )
    return bytes(answer)


async def test_damaged_answers_raise_only_what_is_promised(net: Any) -> None:
    """Whatever a server sends, an exchange ends with an answer or with one of httpx's transport errors."""
    rng = random.Random(4)
    answers: list[bytes] = []

    async def serve(peer: Any) -> None:
        await peer.request()
        await peer.send(answers[-1])
        await peer.close()

    net.handler = serve
    pool = net.pool()
    outcomes: set[str] = set()
    for _ in range(500):
        answers.append(damaged(rng))
        try:
            await ask(pool, method=rng.choice([b"GET", b"HEAD"]))
        except httpx.TransportError as error:
            outcomes.add(type(error).__name__)
        else:
            outcomes.add("answered")
        assert pool.statistics()[:3] == (4, 0, 0)
    assert outcomes == {"answered", "RemoteProtocolError"}
