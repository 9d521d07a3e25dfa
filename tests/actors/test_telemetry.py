"""Telemetry: what is told and when, and that it is in nobody's way whatever becomes of it."""

from __future__ import annotations

import json
import logging
import os
import re
import threading
import uuid
from datetime import UTC, datetime
from typing import Any

import httpx
import numpy as np
import pytest
import trio

from tinker_actors.actors.telemetry import LAST_FLUSH, Reporter
from tinker_actors.errors import InputError, NotFoundError, RequestFailedError
from tinker_actors.protocol.telemetry import MAX_QUEUED
from tinker_actors.transport.config import TINKER_SERVICE, Config, Environment
from tinker_actors.types import AdamParams, ModelInput, SamplingParams
from tinker_actors.version import __version__
from tinker_actors.wire.codec import structure
from tinker_actors.wire.telemetry import TelemetrySendRequest

MODEL = "tinker-actors/char-100k"
PROMPT = ModelInput.from_ints([1, 2, 3])
PARAMS = SamplingParams(max_tokens=4)


def told(stub: Any) -> list[dict[str, Any]]:
    """Return all events that were sent, in order."""
    return [event for body in stub.bodies("telemetry") for event in body["events"]]


def names(stub: Any) -> list[str]:
    return [event.get("event_name", event["event"]) for event in told(stub)]


@pytest.mark.requirement("R147")
async def test_batches_are_of_the_official_form(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """Events with ids, numbers, times and severities; the platform, our version, the session and the process."""
    async with open_stub(telemetry=True) as service:
        telemetry = service.get_telemetry()
        assert telemetry.log("warm", {"x": 1}, "DEBUG")
        assert await telemetry.flush()
    first, last = stub.bodies("telemetry")
    assert first["session_id"] == last["session_id"] == "s0"
    assert first["process_uuid"] == last["process_uuid"] == str(uuid.UUID(first["process_uuid"]))
    request = structure(TelemetrySendRequest, first, strict=True)
    start, warm = request.events
    assert (type(start).__name__, type(warm).__name__) == ("SessionStartEvent", "GenericEvent")
    assert first["events"][1] | {"event_id": "", "timestamp": ""} == {
        "event": "GENERIC_EVENT",
        "event_id": "",
        "event_name": "warm",
        "event_data": {"x": 1},
        "event_session_index": 1,
        "severity": "DEBUG",
        "timestamp": "",
    }
    assert all(event["timestamp"].endswith("Z") and uuid.UUID(event["event_id"]) for event in told(stub))
    assert [event["event_session_index"] for event in told(stub)] == [0, 1, 2]


@pytest.mark.lesson("L8", "L24")
async def test_a_session_starts_once_and_ends_once(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """However many of its clients come and go, and whatever fails in between; it lasts as long as it lasts."""
    async with open_stub(telemetry=True) as service:
        telemetry = service.get_telemetry()
        for _ in range(2):
            training = await service.create_lora_training_client(MODEL)
            await training.ref.stop()
        telemetry.log_exception(ValueError("fatal?"))
        await telemetry.flush()
        assert "SESSION_END" not in names(stub)
        telemetry.log("still here")
        await trio.sleep(61 - trio.current_time() % 1)
    assert [names(stub).count(name) for name in ("SESSION_START", "SESSION_END", "still here")] == [1, 1, 1]
    assert names(stub)[-1] == "SESSION_END"
    assert told(stub)[-1]["duration"].startswith("0:01:0")


@pytest.mark.requirement("R147")
async def test_events_go_out_in_ten_seconds_and_failures_at_once(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """Two hundred at a time are two batches, for which nobody waits ten seconds either."""
    async with open_stub(telemetry=True) as service:
        telemetry = service.get_telemetry()
        await trio.sleep(5)
        telemetry.log("slow")
        await trio.sleep(1)
        assert "slow" not in names(stub)
        await trio.sleep(9.5)
        assert "slow" in names(stub)
        telemetry.log_exception(ValueError())
        await trio.sleep(0.1)
        assert names(stub)[-1] == "UNHANDLED_EXCEPTION"
        before = len(stub.bodies("telemetry"))
        for _ in range(110):
            telemetry.log("many")
        await trio.sleep(0.1)
        assert [len(body["events"]) for body in stub.bodies("telemetry")[before:]] == [100, 10]


@pytest.mark.requirement("R147")
def test_a_full_queue_refuses_and_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever logs is told by False; nothing is raised, and what is there stays."""
    reporter = Reporter(lambda: datetime.now(UTC), uuid.uuid4)
    with caplog.at_level(logging.WARNING, "tinker_actors.telemetry"):
        taken = [reporter.log("n") for _ in range(MAX_QUEUED + 3)]
    assert taken == [True] * MAX_QUEUED + [False] * 3
    assert (len(reporter), reporter.refused) == (MAX_QUEUED, 3)
    assert caplog.messages == ["telemetry is full: further events are dropped until it has room"]


@pytest.mark.requirement("R147")
async def test_any_thread_may_tell(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """Tokenizers, checkpoint writers and data loaders run in threads; a failure there is sent at once, too."""
    async with open_stub(telemetry=True) as service:
        telemetry = service.get_telemetry()
        await trio.sleep(1)  # it waits for something to be urgent

        def work(number: int) -> None:
            for step in range(120):
                assert telemetry.log("step", {"thread": number, "step": step})
            assert telemetry.log_exception(ValueError())

        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(trio.to_thread.run_sync, work, number)
        await trio.sleep(0.1)
        assert names(stub).count("step") == 480
        assert names(stub).count("UNHANDLED_EXCEPTION") == 4
    events = told(stub)
    assert [event["event_session_index"] for event in events] == list(range(len(events)))
    later = threading.Thread(target=telemetry.log_exception, args=(ValueError(),))
    later.start()
    await trio.to_thread.run_sync(later.join)


@pytest.mark.requirement("R147", "R149")
async def test_what_is_told_is_what_was_so(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """Numbers of numpy, values that change later, and values that cannot be read harm no other event."""

    class Broken(dict[str, int]):
        def items(self) -> Any:
            raise RuntimeError("hunter2")

        def keys(self) -> Any:
            raise RuntimeError("hunter2")

    class Refusing(Exception):
        @property
        def status_code(self) -> int:
            raise RuntimeError("hunter2")

    async with open_stub(telemetry=True) as service:
        telemetry = service.get_telemetry()
        data = {"losses": [1.0], "loss": np.float64(0.5), "far": 2**70, "half": "\ud800"}
        assert telemetry.log("before", data)
        data["losses"].append(2.0)  # type: ignore[attr-defined]  # it is a list
        assert not telemetry.log("broken", {"inner": Broken(a=1)})
        assert not telemetry.log_exception(Refusing())
        assert telemetry.log("after", {"big": object()})
        with pytest.raises(InputError, match="event_data"):
            telemetry.log("list", [1])
        assert await telemetry.flush()
    sent = {event.get("event_name"): event.get("event_data") for event in told(stub)}
    assert sent["before"] == {"losses": [1.0], "loss": 0.5, "far": "<int>", "half": "\\ud800"}
    assert "broken" not in sent
    assert "after" in sent


@pytest.mark.requirement("R149")
async def test_what_a_verb_fails_with_is_told(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """A user's error as a warning, others as exceptions; the failed wait has Tinker's name for it."""
    async with open_stub(telemetry=True) as service:
        training = await service.create_lora_training_client(MODEL)
        stub.results["forward#0"] = {"error": "hunter2", "category": "user"}
        stub.results["forward#1"] = {"error": "hunter2", "category": "server"}
        for _ in range(2):
            with pytest.raises(RequestFailedError):
                await (await training.forward(batch(), "cross_entropy"))
        sampling = await service.create_sampling_client(base_model=MODEL)
        stub.results["asample#0"] = {"error": "hunter2", "category": "user"}
        with pytest.raises(RequestFailedError):
            await sampling.sample(PROMPT, 1, PARAMS)
    by_name = [
        (event.get("event_name", event["event"]), event["severity"])
        for event in told(stub)
        if not event["event"].startswith("SESSION")
    ]
    wait = ("APIFuture.result_async.application_error", "WARNING")
    user, other = ("user_error", "WARNING"), ("UNHANDLED_EXCEPTION", "ERROR")
    assert by_name == [wait, user, wait, other, wait, user]
    assert "hunter2" not in json.dumps(told(stub))


@pytest.mark.lesson("L23")
async def test_the_traceback_is_that_of_the_task_that_failed(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """It leads to the line that raised, not into telemetry."""

    async def a_function_of_mine() -> None:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError("hunter2")

    with pytest.raises(ZeroDivisionError):
        async with open_stub(telemetry=True):
            await a_function_of_mine()
    (event,) = [event for event in told(stub) if event["event"] == "UNHANDLED_EXCEPTION"]
    last = event["traceback"].splitlines()[-1]
    line = a_function_of_mine.__code__.co_firstlineno + 2
    assert last == f"  tests/actors/test_telemetry.py:{line} in a_function_of_mine"
    assert names(stub)[-2:] == ["UNHANDLED_EXCEPTION", "SESSION_END"]


@pytest.mark.requirement("R147", "R152")
@pytest.mark.lesson("L22")
async def test_an_error_never_waits_for_telemetry(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """Telemetry hangs: the failing call raises at once, logging returns at once, and the end takes two seconds."""
    stub.gates["telemetry"] = trio.Event()
    async with open_stub(telemetry=True) as service:
        telemetry = service.get_telemetry()
        training = await service.create_lora_training_client(MODEL)
        telemetry.log_exception(ValueError())
        await trio.sleep(1)  # the first batch hangs
        stub.results["forward#0"] = {"error": "no", "category": "server"}
        before = trio.current_time()
        with pytest.raises(RequestFailedError):
            await (await training.forward(batch(), "cross_entropy"))
        telemetry.log_exception(ValueError())
        assert trio.current_time() - before < 0.5
        before = trio.current_time()
    assert trio.current_time() - before == pytest.approx(LAST_FLUSH, abs=0.1)
    assert telemetry._reporter.lost == telemetry._reporter._count >= 4  # each is accounted for
    assert len(telemetry._reporter) == 0


@pytest.mark.requirement("R152")
@pytest.mark.lesson("L20", "L21")
@pytest.mark.parametrize("status", [500, 429, 400, None])
async def test_a_batch_that_is_not_taken_is_dropped(
    autojump_clock: Any, open_stub: Any, stub: Any, status: int | None
) -> None:
    """It is counted, a flush says so, it is not sent again, and no timer is left of it; the work goes on."""

    def refuse(*_: Any) -> httpx.Response:
        if status is None:
            raise httpx.ReadError("cut")
        return httpx.Response(status, json={"detail": "no"})

    stub.rules["telemetry"] = refuse
    async with open_stub(telemetry=True) as service:
        telemetry = service.get_telemetry()
        for _ in range(50):
            telemetry.log_exception(ValueError())
        assert not await telemetry.flush()
        assert (telemetry._reporter.sent, telemetry._reporter.lost) == (0, 51)
        sent = len(stub.bodies("telemetry"))
        for _ in range(60):
            telemetry.log("tick")
            await trio.sleep(1)
        assert len(stub.bodies("telemetry")) - sent <= 7
        await service.create_lora_training_client(MODEL)
        del stub.rules["telemetry"]
        telemetry.log("again")
        assert await telemetry.flush()
        assert names(stub)[-1] == "again"
        indexes = [event["event_session_index"] for event in told(stub)]
        assert indexes == list(range(len(indexes)))  # the counters go on


@pytest.mark.lesson("L8")
async def test_a_crash_of_telemetry_is_not_the_end_of_the_session(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """It starts again with what there is, and goes on; the session's start and end are each told once."""

    def broken(_: Any, count: int) -> httpx.Response | None:
        if count == 1:
            raise RuntimeError("a bug")
        return None

    stub.rules["telemetry"] = broken
    async with open_stub(telemetry=True) as service:
        telemetry = service.get_telemetry()
        await telemetry.flush()
        telemetry.log_exception(ValueError())
        await trio.sleep(30)
        assert telemetry.log("after")
        await trio.sleep(30)
        assert names(stub)[-1] == "after"
    assert len(stub.bodies("telemetry")) >= 3
    assert [names(stub).count(name) for name in ("SESSION_START", "SESSION_END")] == [1, 1]


@pytest.mark.requirement("R152")
async def test_a_service_without_telemetry_is_not_asked_again(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """A 404 says that there is no such call; what is logged afterwards is refused."""
    stub.rules["telemetry"] = lambda *_: httpx.Response(404, json={"detail": "Not Found"})
    async with open_stub(telemetry=True) as service:
        telemetry = service.get_telemetry()
        assert not await telemetry.flush()
        assert not telemetry.log("more")
        await trio.sleep(60)
    assert len(stub.bodies("telemetry")) == 1


@pytest.mark.lesson("D13")
async def test_what_is_left_is_sent_at_the_end(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """Leaving the service sends it before the connections close; afterwards a flush finds nobody."""
    async with open_stub(telemetry=True) as service:
        telemetry = service.get_telemetry()
        for number in range(250):
            telemetry.log(f"n{number}")
    assert [name for name in names(stub) if name[0] == "n"] == [f"n{number}" for number in range(250)]
    assert max(len(body["events"]) for body in stub.bodies("telemetry")) == 100
    assert not await telemetry.flush()


@pytest.mark.requirement("R150", "R152")
async def test_there_is_no_telemetry_where_it_is_off(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """Neither a handle nor a request, whatever fails; for services of others that is what happens unless asked."""
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        assert service.get_telemetry() is None
        assert training.get_telemetry() is None
        stub.rules["create_sampling_session"] = lambda *_: httpx.Response(404, json={})
        with pytest.raises(NotFoundError):
            await service.create_sampling_client(base_model=MODEL)
        await trio.sleep(60)
    assert "telemetry" not in stub.names()


@pytest.mark.requirement("R147")
@pytest.mark.parametrize(
    ("said", "url", "on"),
    [
        ({}, TINKER_SERVICE, True),
        ({}, "http://another", False),
        ({"TINKER_TELEMETRY": "0"}, TINKER_SERVICE, False),
        ({"TINKER_TELEMETRY": "maybe"}, TINKER_SERVICE, False),
        ({"TINKER_TELEMETRY": "ON"}, "http://another", True),
        ({"TINKER_TELEMETRY": "yes"}, "http://another", True),
    ],
)
def test_the_environment_switches_it(said: dict[str, str], url: str, on: bool) -> None:
    """1, true, yes and on, in any case; anything else is off, and nothing leaves it to the service."""
    from tinker_actors.actors.tree import wants_telemetry

    assert wants_telemetry(Config(base_url=url, telemetry=Environment.read(said).telemetry)) is on


@pytest.mark.requirement("R150")
async def test_the_clients_share_a_handle(
    autojump_clock: Any, open_stub: Any, stub: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """It says what became of what was logged, and refuses what is no event."""
    async with open_stub(telemetry=True) as service:
        training = await service.create_lora_training_client(MODEL)
        telemetry = training.get_telemetry()
        assert telemetry is service.get_telemetry()
        with pytest.raises(InputError, match="severity"):
            telemetry.log("n", {}, "LOUD")
        with pytest.raises(InputError, match="severity"):
            telemetry.log_exception(ValueError(), "LOUD")
        with pytest.raises(InputError, match="event_name"):
            telemetry.log("")
        await telemetry.flush()
        assert repr(telemetry) == "<TelemetryHandle 1 sent, 0 waiting, 0 lost>"


@pytest.mark.requirement("R151")
async def test_the_services_events_are_told(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """Queues, losses, restores: by their ids and numbers."""
    stub.rules["optim_step"] = lambda _, count: httpx.Response(404, json={}) if count == 0 else None
    async with open_stub(telemetry=True) as service:
        training = await service.create_lora_training_client(MODEL)
        await (await training.optim_step(AdamParams()))
    (restored,) = [event for event in told(stub) if event.get("event_name") == "ModelRestored"]
    assert restored["event_data"]["steps"] == 1
    assert "ModelLostEvent" in names(stub)


@pytest.mark.lesson("D52", "L31")
async def test_events_carry_the_users_metadata(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """Those about requests and promises as well; what an event says itself wins."""
    async with open_stub(telemetry=True, user_metadata={"run": "7", "phase": "all"}) as service:
        training = await service.create_lora_training_client(MODEL)
        stub.results["forward#0"] = {"error": "no", "category": "user"}
        with pytest.raises(RequestFailedError):
            await (await training.forward(batch(), "cross_entropy"))
        service.get_telemetry().log("mine", {"phase": "warm"})
    data = {event["event_name"]: event["event_data"] for event in told(stub) if "event_data" in event}
    assert data["APIFuture.result_async.application_error"] == {
        "run": "7",
        "phase": "all",
        "request_id": "forward#0",
        "request_type": "Forward",
        "error_type": "RequestFailedError",
    }
    assert data["mine"] == {"run": "7", "phase": "warm"}


async def test_no_secret_and_no_prompt_is_told(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """Secrets in errors, in URLs, in headers, in what users log: none of them arrives; nor does a token of a batch."""
    key, header = "tml-hunter2-key", "hunter2-header"
    settings = {"telemetry": True, "api_key": key, "headers": {"cf-access-client-secret": header}}
    async with open_stub(**settings) as service:
        telemetry = service.get_telemetry()
        training = await service.create_lora_training_client(MODEL)
        stub.rules["forward"] = lambda *_: httpx.Response(
            400, json={"detail": f"{key} {header} prompt 987654"}
        )
        with pytest.raises(Exception, match="400"):
            await (await training.forward(batch(987654, 987654), "cross_entropy"))
        telemetry.log_exception(RuntimeError(f"{key} at http://u:hunter2@h/?k=hunter2"))
        telemetry.log("mine", {"a": [key, {"b": f"x{header}y"}], key: 1})
    assert "mine" in names(stub)
    sent = json.dumps(stub.bodies("telemetry"))
    assert "hunter2" not in sent
    assert "987654" not in sent


@pytest.mark.requirement("R148")
@pytest.mark.lesson("D46")
async def test_a_service_is_told_one_version_our_own(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """In every place, and one that a service can compare; nothing says that we are the official client.

    A service that goes by it takes us for an old client, and all that old ones say and hear is spoken here.
    """
    async with open_stub(telemetry=True) as service:
        assert await service.get_telemetry().flush()
    bodies = stub.bodies("client/config", "client/dynamic_config", "create_session", "telemetry")
    assert {body["sdk_version"] for body in bodies} == {__version__}
    assert re.fullmatch(r"\d+(\.\d+)*((a|b|rc|\.dev)\d+)?", __version__)
    for headers in stub.headers:
        assert headers["user-agent"] == f"tinker_actors/{__version__}"
        assert headers["x-stainless-package-version"] == __version__
        assert not any(name.startswith("x-sdk-") for name in headers)


def test_processes_are_told_apart() -> None:
    """One id for all services of a process; a forked one has its own."""
    from tinker_actors.actors.telemetry import _process_uuid

    assert _process_uuid(os.getpid()) == _process_uuid(os.getpid())
    assert _process_uuid(os.getpid()) != _process_uuid(-1)
