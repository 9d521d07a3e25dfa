from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

import httpx
import pytest
import trio
import trio.testing

from tinker_actors.transport.asgi import BODY_BUFFER, Message
from tinker_actors.transport.inprocess import InProcessTransport

if TYPE_CHECKING:
    from tinker_actors.transport.asgi import ASGIApp, Receive, Send

URL = "http://embedded/some/path"


def app_of(handler: Callable[[Message, Receive, Send], Awaitable[None]]) -> ASGIApp:
    """Give a handler of HTTP requests a lifespan that starts and stops."""

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        else:
            await handler(scope, receive, send)

    return app


def connect(app: ASGIApp, **options: object) -> httpx.AsyncClient:
    transport = InProcessTransport(app, **options)
    return httpx.AsyncClient(transport=transport, base_url="http://embedded", timeout=None)


async def read_body(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        assert message["type"] == "http.request"
        body += message["body"]
        if not message["more_body"]:
            return body


async def respond(send: Send, *chunks: bytes, status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"x-app", b"yes")]})
    for chunk in chunks:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body"})


async def hang(scope: Message, receive: Receive, send: Send) -> None:
    await trio.sleep_forever()


def living_tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


async def test_request_arrives_whole_and_response_comes_back() -> None:
    """Method, path, query, headers and body reach the application; status, headers and body come back."""
    seen: dict[str, object] = {}

    async def handler(scope: Message, receive: Receive, send: Send) -> None:
        seen.update(scope, body=await read_body(receive))
        await respond(send, b"hel", b"lo", status=201)

    async with connect(app_of(handler)) as client:
        response = await client.put("/a%20b/c?x=1&y=2", content=b"data", headers={"X-Mine": "1"})
    assert (response.status_code, response.content, response.headers["x-app"]) == (201, b"hello", "yes")
    assert (seen["method"], seen["path"], seen["raw_path"]) == ("PUT", "/a b/c", b"/a%20b/c")
    assert (seen["query_string"], seen["body"], seen["scheme"]) == (b"x=1&y=2", b"data", "http")
    assert seen["server"] == ("embedded", 80)
    assert (b"x-mine", b"1") in seen["headers"]  # type: ignore[operator]  # a list of pairs


async def test_head_comes_before_the_body_and_chunks_when_they_are_sent(
    autojump_clock: trio.abc.Clock,
) -> None:
    """A response is returned with its head; each chunk arrives at the virtual second it was sent."""

    async def handler(scope: Message, receive: Receive, send: Send) -> None:
        await trio.sleep(1)
        await send({"type": "http.response.start", "status": 200})
        for number in range(3):
            await trio.sleep(10)
            await send({"type": "http.response.body", "body": b"%d" % number, "more_body": True})
        await send({"type": "http.response.body"})

    times: list[tuple[float, bytes]] = []
    async with connect(app_of(handler)) as client:
        start = trio.current_time()
        async with client.stream("GET", URL) as response:
            times.append((trio.current_time() - start, b""))
            times.extend([(trio.current_time() - start, chunk) async for chunk in response.aiter_raw()])
    assert times == [(1, b""), (11, b"0"), (21, b"1"), (31, b"2")]


async def test_bodies_flow_in_both_directions_at_once(autojump_clock: trio.abc.Clock) -> None:
    """The application answers each chunk of a streamed request before the next one is made."""

    async def handler(scope: Message, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        more = True
        while more:
            message = await receive()
            more = message["more_body"]
            await send({"type": "http.response.body", "body": message["body"].upper(), "more_body": more})

    async def upload() -> AsyncIterator[bytes]:
        for chunk in (b"a", b"b", b"c"):
            yield chunk
            await trio.sleep(5)

    times: list[tuple[float, bytes]] = []
    async with connect(app_of(handler)) as client:
        start = trio.current_time()
        async with client.stream("POST", URL, content=upload()) as response:
            times.extend([(trio.current_time() - start, chunk) async for chunk in response.aiter_raw()])
    assert times == [(0, b"A"), (5, b"B"), (10, b"C")]


async def test_a_slow_reader_holds_the_writer_back() -> None:
    """The application cannot run further ahead of its reader than the buffer allows."""
    sent = 0

    async def handler(scope: Message, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200})
        while True:
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            sent += 1

    async with InProcessTransport(app_of(handler)) as transport:
        response = await transport.handle_async_request(httpx.Request("GET", URL))
        await trio.testing.wait_all_tasks_blocked()
        assert sent == BODY_BUFFER
        await anext(aiter(response.stream))
        await trio.testing.wait_all_tasks_blocked()
        assert sent == BODY_BUFFER + 1
        await response.aclose()


@pytest.mark.parametrize("method", ["HEAD", "GET"])
async def test_a_response_without_a_body_has_none(method: str) -> None:
    """What an application sends as the body of a HEAD, 204 or 304 answer is dropped, as a server would."""

    async def handler(scope: Message, receive: Receive, send: Send) -> None:
        await respond(send, b"body", status=200 if scope["method"] == "HEAD" else 204)

    async with connect(app_of(handler)) as client:
        response = await client.request(method, URL)
    assert response.content == b""


async def test_read_timeout_before_the_head(autojump_clock: trio.abc.Clock) -> None:
    """An application that does not answer in time is left with httpx.ReadTimeout, and its task ends."""
    async with connect(app_of(hang)) as client:
        before = living_tasks()
        start = trio.current_time()
        with pytest.raises(httpx.ReadTimeout) as caught:
            await client.get(URL, timeout=httpx.Timeout(None, read=7))
        assert trio.current_time() - start == 7
        assert caught.value.request.url == URL
        await trio.testing.wait_all_tasks_blocked()
        assert living_tasks() == before


async def test_read_timeout_counts_from_the_end_of_the_request(autojump_clock: trio.abc.Clock) -> None:
    """A request that takes longer to send than the read timeout is no reason to give up on its answer."""

    async def handler(scope: Message, receive: Receive, send: Send) -> None:
        await respond(send, await read_body(receive))

    async def upload() -> AsyncIterator[bytes]:
        for chunk in (b"a", b"b"):
            await trio.sleep(20)
            yield chunk

    async with connect(app_of(handler)) as client:
        response = await client.post(URL, content=upload(), timeout=httpx.Timeout(None, read=7))
    assert response.content == b"ab"


async def test_read_timeout_between_chunks(autojump_clock: trio.abc.Clock) -> None:
    """The read timeout holds for every chunk, and starts anew with each."""

    async def handler(scope: Message, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        for pause in (6, 6, 8):
            await trio.sleep(pause)
            await send({"type": "http.response.body", "body": b"x", "more_body": True})

    got = []
    timeout = httpx.Timeout(None, read=7)
    async with connect(app_of(handler)) as client, client.stream("GET", URL, timeout=timeout) as response:
        start = trio.current_time()
        with pytest.raises(httpx.ReadTimeout):
            async for chunk in response.aiter_raw():
                got.append(chunk)  # noqa: PERF401 - what came before the timeout counts
    assert got == [b"x", b"x"]
    assert trio.current_time() - start == 6 + 6 + 7


async def test_write_timeout(autojump_clock: trio.abc.Clock) -> None:
    """An application that does not take the streamed request gives httpx.WriteTimeout."""
    closed: list[float] = []

    class Upload(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            try:
                yield b"a"
            finally:
                closed.append(trio.current_time())

    async with connect(app_of(hang)) as client:
        start = trio.current_time()
        request = client.build_request("POST", URL, timeout=httpx.Timeout(None, write=3))
        request.stream = Upload()
        del request._content
        with pytest.raises(httpx.WriteTimeout):
            await client.send(request)
        assert trio.current_time() - start == 3
        assert closed == [trio.current_time()]


async def test_cancelling_the_caller_disconnects_and_cancels_the_application() -> None:
    """A waiting receive() returns http.disconnect, and the application's next await is cancelled."""
    heard: list[str] = []

    async def handler(scope: Message, receive: Receive, send: Send) -> None:
        await read_body(receive)
        heard.append((await receive())["type"])
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            heard.append("cancelled")
            raise

    async with connect(app_of(handler)) as client:
        before = living_tasks()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.post, URL)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert scope.cancelled_caught
        await trio.testing.wait_all_tasks_blocked()
        assert heard == ["http.disconnect", "cancelled"]
        assert living_tasks() == before


async def test_closing_the_response_early_cancels_the_application() -> None:
    """Leaving a streamed response before its end cancels whatever still writes it."""
    ended: list[BaseException] = []

    async def handler(scope: Message, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
        except BaseException as exc:
            ended.append(exc)
            raise

    async with connect(app_of(handler)) as client:
        async with client.stream("GET", URL) as response:
            assert response.status_code == 200
            await trio.testing.wait_all_tasks_blocked()
        await trio.testing.wait_all_tasks_blocked()
        assert len(ended) == 1


async def test_a_body_read_to_its_end_lets_the_application_finish() -> None:
    """What an application does after its last chunk is not cut off by the caller who has all he wanted."""
    steps: list[str] = []

    async def handler(scope: Message, receive: Receive, send: Send) -> None:
        await respond(send, b"x")
        await trio.testing.wait_all_tasks_blocked()
        steps.append("after")

    async with connect(app_of(handler)) as client:
        assert (await client.get(URL)).content == b"x"
        await trio.testing.wait_all_tasks_blocked()
        await trio.testing.wait_all_tasks_blocked()
        assert steps == ["after"]


async def test_a_failing_upload_reaches_the_caller() -> None:
    """The exception of the caller's own stream is what the caller gets."""

    async def upload() -> AsyncIterator[bytes]:
        yield b"a"
        raise ZeroDivisionError

    async def handler(scope: Message, receive: Receive, send: Send) -> None:
        await read_body(receive)

    async with connect(app_of(handler)) as client:
        with pytest.raises(ZeroDivisionError):
            await client.post(URL, content=upload())


async def test_a_crash_before_the_response_is_a_protocol_error_with_its_cause() -> None:
    """The caller of an application that raises at once gets RemoteProtocolError from that exception."""

    async def handler(scope: Message, receive: Receive, send: Send) -> None:
        raise ValueError("broken")

    async with connect(app_of(handler)) as client:
        with pytest.raises(httpx.RemoteProtocolError, match="broken") as caught:
            await client.get(URL)
    assert isinstance(caught.value.__cause__, ValueError)


async def test_a_crash_within_the_response_is_a_read_error_after_what_was_sent() -> None:
    """Chunks sent before the crash arrive; then comes ReadError from the exception."""

    async def handler(scope: Message, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        raise ValueError("broken")

    chunks = []
    async with connect(app_of(handler)) as client, client.stream("GET", URL) as response:
        stream = response.aiter_raw()
        chunks.append(await anext(stream))
        with pytest.raises(httpx.ReadError, match="broken") as caught:
            await anext(stream)
    assert chunks == [b"x"]
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize("started", [False, True])
async def test_returning_too_early_is_a_protocol_error(started: bool) -> None:
    """An application that returns without a whole response is no success."""

    async def handler(scope: Message, receive: Receive, send: Send) -> None:
        if started:
            await send({"type": "http.response.start", "status": 200})

    async with connect(app_of(handler)) as client:
        with pytest.raises(httpx.RemoteProtocolError, match="end of its response" if started else "without"):
            await client.get(URL)


@pytest.mark.parametrize("wrong", ["body first", "two heads", "after the end"])
async def test_messages_out_of_order_are_refused(wrong: str) -> None:
    """send() raises where the protocol does not allow the message."""
    raised: list[RuntimeError] = []

    async def handler(scope: Message, receive: Receive, send: Send) -> None:
        if wrong == "after the end":
            await respond(send)
        elif wrong == "two heads":
            await send({"type": "http.response.start", "status": 200})
        try:
            kind = "start" if wrong == "two heads" else "body"
            await send({"type": f"http.response.{kind}", "status": 200})
        except RuntimeError as exc:
            raised.append(exc)
        if wrong == "body first":
            await respond(send)
        elif wrong == "two heads":
            await send({"type": "http.response.body"})

    async with connect(app_of(handler)) as client:
        await client.get(URL)
        await trio.testing.wait_all_tasks_blocked()
    assert len(raised) == 1


async def test_a_crash_after_the_response_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody waits for an application that fails after its response; the log tells."""

    async def handler(scope: Message, receive: Receive, send: Send) -> None:
        await respond(send)
        raise ValueError("too late")

    async with connect(app_of(handler)) as client:
        assert (await client.get(URL)).status_code == 200
        await trio.testing.wait_all_tasks_blocked()
    assert "too late" in caplog.text
