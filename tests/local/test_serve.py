from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from urllib.parse import urlsplit

import httpx
import pytest
import trio

from tinker_actors.errors import ConfigError
from tinker_actors.local.serve import serve
from tinker_actors.local.service import EmbeddedService
from tinker_actors.wire.codec import encode
from tinker_actors.wire.future import RetrieveFutureRequest

Serving = Callable[[EmbeddedService], AbstractAsyncContextManager[str]]


@pytest.fixture
def serving() -> Serving:
    """Give a context that serves on a free port of loopback and yields the URL."""

    @asynccontextmanager
    async def context(service: EmbeddedService) -> AsyncIterator[str]:
        async with trio.open_nursery() as nursery:
            yield await nursery.start(serve_on_loopback, service)
            nursery.cancel_scope.cancel()

    async def serve_on_loopback(service: EmbeddedService, task_status: trio.TaskStatus[str]) -> None:
        await serve(service, task_status=task_status)

    return context


def can_connect(url: str) -> bool:
    parts = urlsplit(url)
    with socket.socket() as probe:
        return probe.connect_ex((parts.hostname, parts.port)) == 0


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(5):
        while not condition():  # noqa: ASYNC110 - nobody announces it
            await trio.sleep(0.001)


async def test_a_whole_training_over_a_socket(make_service, serving: Serving, caller_of, kit) -> None:
    """Session, model, step, checkpoint, sample and archive work on loopback as they do in process."""
    service = make_service(compute="thread")
    async with serving(service) as url:
        assert url.startswith("http://127.0.0.1:")
        async with caller_of(url) as caller:
            model_id = await caller.create_model()
            ids = [
                (await caller.ask(request)).request_id
                for request in (kit.forward_backward(model_id, 1), kit.optim_step(model_id, 2))
            ]
            results = [(await caller.poll(request_id)).json() for request_id in ids]
            assert results[0]["metrics"]["tokens:sum"] == 8
            assert results[1]["metrics"]["grad_norm"] > 0
            assert (await caller.run(kit.sample(base_model="tiny", num_samples=3)))["sequences"]
        assert can_connect(url)
    assert not can_connect(url)
    assert service.statistics().jobs_begun == {"create_model": 1, "forward_backward": 1, "optim_step": 1}


async def test_a_client_who_hangs_up_ends_its_poll(make_service, serving: Serving, caller_of, kit) -> None:
    """When a client closes its connection during a poll, the server's poll ends too, and loses no result."""
    service = make_service()
    async with serving(service) as url, caller_of(url) as caller:
        model_id = await caller.create_model()
        parked = (await caller.ask(kit.optim_step(model_id, 2))).request_id
        promise = service._engine.promises.find(parked)
        body = encode(RetrieveFutureRequest(parked))
        lines = ("POST /api/v1/retrieve_future HTTP/1.1", "host: x", f"content-length: {len(body)}", "", "")
        head = "\r\n".join(lines).encode()
        stream = await trio.open_tcp_stream("127.0.0.1", urlsplit(url).port)
        await stream.send_all(head + body)
        await until(lambda: promise.settled.statistics().tasks_waiting == 1)
        await stream.aclose()
        await until(lambda: promise.settled.statistics().tasks_waiting == 0)
        await caller.ask(kit.optim_step(model_id, 1))
        assert (await caller.poll(parked)).status_code == 200


async def test_stopping_answers_polls_and_is_quick(
    make_service, serving: Serving, caller_of, kit, living_tasks
) -> None:
    """A cancelled server answers the polls it holds (408) and closes its sockets within its grace period."""
    before = living_tasks()
    answers: list[httpx.Response] = []
    service = make_service()
    async with trio.open_nursery() as clients:
        async with serving(service) as url:
            async with caller_of(url) as caller:
                model_id = await caller.create_model()
                parked = (await caller.ask(kit.optim_step(model_id, 2))).request_id

            async def poll() -> None:
                async with caller_of(url) as other:
                    answers.append(await other.send(RetrieveFutureRequest(parked)))

            clients.start_soon(poll)
            promise = service._engine.promises.find(parked)
            await until(lambda: promise.settled.statistics().tasks_waiting == 1)
            start = trio.current_time()
        assert trio.current_time() - start < 1.9  # the grace period is 2 s, and nothing needed it
    assert [answer.status_code for answer in answers] == [408]
    assert not can_connect(url)
    assert living_tasks() == before


async def test_a_port_in_use_is_a_config_error(make_service, living_tasks) -> None:
    """The error names the address, and nothing is left of the attempt."""
    before = living_tasks()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}"):
            await serve(make_service(), port=port)
    assert living_tasks() == before


async def test_cancelled_before_it_listens(make_service, living_tasks) -> None:
    """A server cancelled at its very start leaves nothing."""
    before = living_tasks()
    with trio.CancelScope() as scope:
        scope.cancel()
        await serve(make_service())
    assert scope.cancelled_caught
    assert living_tasks() == before
