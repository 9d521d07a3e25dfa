from __future__ import annotations

import threading
import time

import httpx
import pytest
import trio
import trio.testing

from tinker_actors.errors import InputError
from tinker_actors.local.handler import HANDLERS
from tinker_actors.local.service import EmbeddedService
from tinker_actors.transport.inprocess import InProcessTransport
from tinker_actors.wire.codec import encode
from tinker_actors.wire.endpoints import ENDPOINTS
from tinker_actors.wire.future import RetrieveFutureRequest
from tinker_actors.wire.session import SessionHeartbeatRequest

PLACES = {"training_run_id": "r", "checkpoint_id": "weights/a", "session_id": "s", "sampler_id": "s"}
SERVED = [endpoint for endpoint in ENDPOINTS if endpoint.name in HANDLERS]


async def test_beats_arrive_while_the_loop_is_blocked(make_service, connect) -> None:
    """A thread with a loop and a transport of its own beats on while user code blocks the service's loop."""
    service = make_service(compute="thread")
    async with connect(service) as caller:
        session_id = await caller.open()
        stop = threading.Event()
        statuses: set[int] = set()

        async def beat() -> None:
            transport = InProcessTransport(service.app, lifespan=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://embedded") as http:
                while not stop.is_set():
                    body = encode(SessionHeartbeatRequest(session_id))
                    statuses.add((await http.post("/api/v1/session_heartbeat", content=body)).status_code)
                    await trio.sleep(0.005)
                refused = await http.get("/api/v1/get_server_capabilities")
                statuses.add(refused.status_code)

        thread = threading.Thread(target=trio.run, args=(beat,))
        thread.start()
        while not service.statistics().beats:  # noqa: ASYNC110 - another thread brings them
            await trio.sleep(0.001)
        before = service.statistics().beats
        time.sleep(0.2)  # noqa: ASYNC251 - this is what the test is about
        during = service.statistics().beats - before
        stop.set()
        await trio.to_thread.run_sync(thread.join)
    assert during >= 5
    assert statuses == {200, 503}


@pytest.mark.parametrize("compute", ["inline", "thread"])
async def test_closing_in_the_middle_of_everything_leaves_nothing(
    make_service, connect, kit, living_tasks, compute: str
) -> None:
    """Cancelled with training, sampling and polls under way, no task and no slice is left."""
    before = living_tasks()
    service = make_service(compute=compute)
    with trio.CancelScope() as scope:
        async with connect(service) as caller, trio.open_nursery() as nursery:
            model_id = await caller.create_model()
            training = await caller.ask(kit.forward_backward(model_id, 1, size=1000))
            sampling = await caller.ask(kit.sample(base_model="tiny", num_samples=2000, max_tokens=29))
            for request_id in (training.request_id, sampling.request_id):
                nursery.start_soon(caller.poll, request_id)
            for _ in range(20):
                await trio.lowlevel.checkpoint()
            scope.cancel()
    assert scope.cancelled_caught
    assert living_tasks() == before
    assert service._engine.compute._limiter.borrowed_tokens == 0


class Stall:
    """An application in which one path never answers, before it acts or after."""

    def __init__(self, app, path: str, moment: str) -> None:
        self.app, self.path, self.moment = app, path, moment

    async def __call__(self, scope, receive, send) -> None:
        if scope.get("path") != self.path:
            await self.app(scope, receive, send)
        elif self.moment == "before":
            await trio.sleep_forever()
        else:

            async def stalled(message) -> None:
                await trio.sleep_forever()

            await self.app(scope, receive, stalled)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(
    "path",
    sorted({endpoint.path.format(**PLACES) for endpoint in SERVED}),
    ids=lambda path: path[8:],
)
async def test_a_caller_cancelled_at_any_request_leaves_nothing(
    make_service, kit, living_tasks, path: str, moment: str
) -> None:
    """With one endpoint stalled, leaving ends every task and every request in flight."""
    before = living_tasks()
    service = make_service()
    transport = InProcessTransport(Stall(service.app, path, moment))
    with trio.CancelScope() as scope:
        async with (
            httpx.AsyncClient(transport=transport, base_url="http://embedded") as http,
            trio.open_nursery() as n,
        ):
            for endpoint in SERVED:
                n.start_soon(http.request, endpoint.method, endpoint.path.format(**PLACES))
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught
    assert living_tasks() == before
    assert service.statistics().promises_pending == 0


async def test_a_poll_whose_client_leaves_ends_at_once(make_service, connect, kit, living_tasks) -> None:
    """The poll's tasks end with the client, and the result goes to the next poll."""
    service = make_service()
    async with connect(service) as caller:
        model_id = await caller.create_model()
        parked = (await caller.ask(kit.optim_step(model_id, 2))).request_id
        await trio.testing.wait_all_tasks_blocked()
        before = living_tasks()
        with trio.move_on_after(0.01) as scope:
            await caller.send(RetrieveFutureRequest(parked))
        assert scope.cancelled_caught
        await trio.testing.wait_all_tasks_blocked()
        assert living_tasks() == before
        await caller.ask(kit.optim_step(model_id, 1))
        assert (await caller.poll(parked)).json()["metrics"]


async def test_polls_are_held_and_then_told_to_come_again(make_service, connect, kit, autojump_clock) -> None:
    """After `poll_hold` virtual seconds a poll is 408 with a TryAgain; a result is given at once."""
    async with connect(make_service(poll_hold=20)) as caller:
        model_id = await caller.create_model()
        parked = (await caller.ask(kit.optim_step(model_id, 2))).request_id
        start = trio.current_time()
        response = await caller.send(RetrieveFutureRequest(parked, allow_metadata_only=True))
        assert (trio.current_time() - start, response.status_code) == (20, 408)
        assert response.json() == {"request_id": parked, "queue_state": "active", "type": "try_again"}
        await caller.ask(kit.optim_step(model_id, 1))
        for _ in range(2):
            assert (await caller.send(RetrieveFutureRequest(parked))).status_code == 200
        assert trio.current_time() - start == 20
        assert (await caller.send(RetrieveFutureRequest("nothing"))).status_code == 404


async def test_a_service_is_opened_once(make_service) -> None:
    """A second opening is an error of the program; a request to a closed one is 503."""
    service = make_service()
    async with service.running():
        with pytest.raises(RuntimeError, match="opened once"):
            async with service.running():
                pytest.fail("it must not open")
    with pytest.raises(httpx.ConnectError, match="opened once"):
        async with InProcessTransport(service.app):
            pytest.fail("it must not open")


async def test_the_bodys_exception_leaves_as_itself(make_service) -> None:
    """No exception group stands around what is raised while a service is open."""
    with pytest.raises(ZeroDivisionError):
        async with make_service().running():
            raise ZeroDivisionError


async def test_a_crash_of_the_service_is_not_silent(
    make_service, connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of ours in a task of the service ends it, and whoever opened it hears of it."""
    with pytest.raises(httpx.CloseError, match="ZeroDivisionError"):
        async with connect(make_service()) as caller:
            monkeypatch.setattr("tinker_actors.local.session.SessionTable.next_expiry", lambda _: 1 / 0)
            await caller.open()
            await trio.testing.wait_all_tasks_blocked()


@pytest.mark.parametrize(
    "wrong",
    [
        {"poll_hold": -1},
        {"session_timeout": 0},
        {"seed": -1},
        {"max_rows": 0},
        {"max_samples": 0},
        {"compute": "gpu"},
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    """The error names the setting and its value."""
    ((field, value),) = wrong.items()
    with pytest.raises(InputError) as caught:
        EmbeddedService(**wrong)
    assert (caught.value.field, caught.value.value) == (field, value)
