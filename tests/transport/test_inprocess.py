from __future__ import annotations

import functools
import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import httpx
import pytest
import trio
import trio.testing

from tinker_actors.transport.asgi import Message
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


async def respond(send: Send, *chunks: bytes, status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"x-app", b"yes")]})
    for chunk in chunks:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body"})


async def hang(scope: Message, receive: Receive, send: Send) -> None:
    await trio.sleep_forever()


def living_tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


async def test_lifespan_surrounds_the_requests() -> None:
    """Startup comes first, shutdown last, and requests see a copy of the lifespan's state."""
    events: list[object] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            events.append(("request", dict(scope["state"])))
            scope["state"]["mine"] = 1
            await respond(send)
            return
        events.append((await receive())["type"])
        scope["state"]["name"] = "value"
        await send({"type": "lifespan.startup.complete"})
        events.append((await receive())["type"])
        await send({"type": "lifespan.shutdown.complete"})

    async with connect(app) as client:
        await client.get(URL)
        await client.get(URL)
    request = ("request", {"name": "value"})
    assert events == ["lifespan.startup", request, request, "lifespan.shutdown"]


async def test_without_lifespan_only_requests_are_made() -> None:
    """`lifespan=False` serves an application that another transport has started."""
    kinds: list[str] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        kinds.append(scope["type"])
        await respond(send)

    async with connect(app, lifespan=False) as client:
        await client.get(URL)
    assert kinds == ["http"]


@pytest.mark.parametrize("says_so", [False, True])
async def test_a_failed_start_is_a_connect_error(says_so: bool) -> None:
    """Entering raises ConnectError from what the application raised, and leaves no task."""

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        if says_so:
            await send({"type": "lifespan.startup.failed", "message": "no disk"})
        raise ValueError("no disk")

    before = living_tasks()
    with pytest.raises(httpx.ConnectError, match="no disk") as caught:
        async with connect(app):
            pytest.fail("it must not start")
    assert isinstance(caught.value.__cause__, ValueError)
    assert living_tasks() == before


async def test_a_lifespan_that_fails_later_breaks_what_waits() -> None:
    """Requests in flight and later ones get the cause, and leaving the context tells it."""
    crash = trio.Event()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await trio.sleep_forever()
        await send({"type": "lifespan.startup.complete"})
        await crash.wait()
        raise ValueError("engine room")

    seen: list[BaseException | None] = []

    async def one_request(client: httpx.AsyncClient) -> None:
        with pytest.raises(httpx.TransportError, match="engine room") as caught:
            await client.get(URL)
        seen.append(caught.value.__cause__)

    with pytest.raises(httpx.CloseError, match="engine room"):
        async with connect(app) as client:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one_request, client)
                await trio.testing.wait_all_tasks_blocked()
                crash.set()
            await one_request(client)
    assert [type(cause) for cause in seen] == [ValueError, ValueError]


async def test_an_application_that_does_not_stop_is_cancelled(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A lifespan that ignores the shutdown is cancelled after `grace` seconds, with a warning."""

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send({"type": "lifespan.startup.complete"})
        await trio.sleep_forever()

    before, start = living_tasks(), trio.current_time()
    async with connect(app, grace=5):
        pass
    assert trio.current_time() - start == 5
    assert living_tasks() == before
    assert "did not stop" in caplog.text


async def test_leaving_ends_the_requests_in_flight() -> None:
    """Nothing of the application runs when the context is left, whatever was going on."""
    before = living_tasks()
    async with trio.open_nursery() as nursery, connect(app_of(hang)) as client:

        async def one_request() -> None:
            with pytest.raises(httpx.TransportError):
                await client.get(URL)

        nursery.start_soon(one_request)
        await trio.testing.wait_all_tasks_blocked()
    assert living_tasks() == before


async def test_cancelling_around_the_context_leaves_nothing() -> None:
    """A cancelled context ends requests and lifespan, and lets the cancellation through."""
    before = living_tasks()
    with trio.CancelScope() as scope:
        async with connect(app_of(hang)) as client, trio.open_nursery() as nursery:
            nursery.start_soon(client.get, URL)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught
    assert living_tasks() == before


async def test_the_application_outlives_a_cancelled_scope_until_it_is_left() -> None:
    """Under a shield of his own, a caller in a cancelled scope still gets answers."""

    async def handler(scope: Message, receive: Receive, send: Send) -> None:
        await trio.lowlevel.checkpoint()
        await respond(send, b"still here")

    answers = []
    with trio.CancelScope() as scope:
        async with connect(app_of(handler)) as client:
            scope.cancel()
            with trio.move_on_after(5, shield=True):
                answers.append((await client.get(URL)).content)
    assert answers == [b"still here"]


async def test_the_bodys_exception_leaves_as_itself() -> None:
    """No exception group stands around what the body of the context raises."""
    with pytest.raises(ZeroDivisionError):
        async with InProcessTransport(app_of(hang)):
            raise ZeroDivisionError


async def test_cancelled_while_the_application_starts() -> None:
    """Cancelling the entry leaves no task behind."""
    before = living_tasks()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(functools.partial(InProcessTransport(hang, grace=0).__aenter__))
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert living_tasks() == before


async def test_entered_twice_the_outer_one_counts() -> None:
    """A client may enter a transport that is entered already; it lives until the outer context is left."""

    async def handler(scope: Message, receive: Receive, send: Send) -> None:
        await respond(send)

    async with InProcessTransport(app_of(handler)) as transport:
        async with httpx.AsyncClient(transport=transport) as client:
            await client.get(URL)
        response = await transport.handle_async_request(httpx.Request("GET", URL))
        assert await response.aread() == b""
    with pytest.raises(RuntimeError, match="once"):
        await transport.__aenter__()
    with pytest.raises(httpx.ConnectError):
        await transport.handle_async_request(httpx.Request("GET", URL))


async def test_not_entered_is_an_error_of_the_program() -> None:
    """A transport that nobody entered refuses to send."""
    with pytest.raises(RuntimeError, match="async with"):
        await InProcessTransport(app_of(hang)).handle_async_request(httpx.Request("GET", URL))


async def test_another_loop_needs_its_own_transport() -> None:
    """A transport refuses the loop of another thread; a second one without lifespan serves it."""
    threads: list[int] = []
    outcome: list[object] = []

    async def handler(scope: Message, receive: Receive, send: Send) -> None:
        threads.append(threading.get_ident())
        await respond(send)

    app = app_of(handler)
    async with InProcessTransport(app) as transport:

        async def elsewhere() -> None:
            with pytest.raises(RuntimeError, match="loop"):
                await transport.handle_async_request(httpx.Request("GET", URL))
            async with connect(app, lifespan=False) as client:
                outcome.append((await client.get(URL)).status_code)

        await trio.to_thread.run_sync(trio.run, elsewhere)
    assert outcome == [200]
    assert threads != [threading.get_ident()]


async def test_every_call_checkpoints() -> None:
    """Sending, reading and closing are checkpoints, even where nothing has to be waited for."""

    async def handler(scope: Message, receive: Receive, send: Send) -> None:
        await respond(send, b"x")

    async with InProcessTransport(app_of(handler)) as transport:
        with trio.testing.assert_checkpoints():
            response = await transport.handle_async_request(httpx.Request("GET", URL))
        with trio.testing.assert_checkpoints():
            assert [chunk async for chunk in response.stream] == [b"x"]
        with trio.testing.assert_checkpoints():
            await response.aclose()


async def test_pool_timeout_and_places(autojump_clock: trio.abc.Clock) -> None:
    """Of more requests than `max_in_flight`, the rest wait, up to the pool timeout; an end frees a place."""

    async def handler(scope: Message, receive: Receive, send: Send) -> None:
        await trio.sleep(10)
        await respond(send)

    async with connect(app_of(handler), max_in_flight=2) as client, trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(client.get, URL)
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
        with pytest.raises(httpx.PoolTimeout):
            await client.get(URL, timeout=httpx.Timeout(None, pool=4))
        assert trio.current_time() - start == 4
        assert (await client.get(URL, timeout=httpx.Timeout(None, pool=7))).status_code == 200
        assert trio.current_time() - start == 20
