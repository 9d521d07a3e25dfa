"""Session, heartbeat and telemetry: what surrounds the work."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import trio

from tinker_actors.protocol.event import HeartbeatMissed, SessionRenewed

MODEL = "tinker-actors/char-100k"


@pytest.mark.requirement("R139")
async def test_the_first_beat_goes_out_at_once_and_then_every_period(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """Beats carry the session's id and do not drift."""
    times: list[float] = []

    def note(_: dict[str, Any], __: int) -> None:
        times.append(trio.current_time() - start)

    stub.rules["session_heartbeat"] = note
    start = trio.current_time()
    async with open_stub(heartbeat_period=10):
        await trio.sleep(35)
    assert times[:4] == pytest.approx([0, 10, 20, 30], abs=0.01)
    assert {body["session_id"] for body in stub.bodies("session_heartbeat")} == {"s0"}


@pytest.mark.requirement("R140")
@pytest.mark.lesson("D5")
async def test_missed_beats_are_tolerated_and_then_reported(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """Failing beats go on; after `heartbeat_warn_after` without one an event says so."""
    stub.rules["session_heartbeat"] = lambda _, __: httpx.Response(500, text="no")
    async with open_stub() as service:
        events = service.subscribe()
        await trio.sleep(119)
        with pytest.raises(trio.WouldBlock):
            events.receive_nowait()
        await trio.sleep(12)
        event = events.receive_nowait()
    assert isinstance(event, HeartbeatMissed)
    assert event.seconds >= 120
    assert stub.names().count("session_heartbeat") >= 13


@pytest.mark.lesson("D5")
@pytest.mark.parametrize("status", [404, 410])
async def test_a_session_that_has_ended_is_renewed_once(
    autojump_clock: Any, open_stub: Any, stub: Any, status: int
) -> None:
    """The beat's answer says it; one new session is opened and beaten for."""
    stub.rules["session_heartbeat"] = lambda body, count: (
        httpx.Response(status, json={}) if body["session_id"] == "s0" and count >= 1 else None
    )
    async with open_stub() as service:
        events = service.subscribe()
        await trio.sleep(25)
        assert service.session_id == "s1"
        assert events.receive_nowait() == SessionRenewed("s1", 2)
    assert stub.names().count("create_session") == 2
    assert stub.bodies("session_heartbeat")[-1]["session_id"] == "s1"


async def test_an_older_service_without_a_config_call_is_fine(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """404 there means defaults, and that a repeated number is not known."""
    stub.rules["client/config"] = lambda _, __: httpx.Response(404, json={})
    stub.rules["finish"] = lambda _, __: httpx.Response(404, json={})
    async with open_stub() as service:
        assert service._tree.transport.capability.dedupe == "none"
        assert service._tree.session.limits.fwdbwd_max_chunk_len == 1024


@pytest.mark.requirement("R148")
async def test_telemetry_reports_crashes_without_secrets(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """An actor's crash is two events, where and why; neither key nor message contents are in them."""
    stub.rules["optim_step"] = lambda _, count: (
        httpx.Response(404, json={"detail": "not loaded tml-secret"}) if count == 0 else None
    )
    async with open_stub(telemetry=True, api_key="tml-secret") as service:
        training = await service.create_lora_training_client(MODEL)
        from tinker_actors.types import AdamParams

        await (await training.optim_step(AdamParams()))
        await trio.sleep(11)
    sent = stub.bodies("telemetry")[0]
    events = [event for body in stub.bodies("telemetry") for event in body["events"]]
    start, event, why = [event for event in events if event.get("event_name") != "ModelLostEvent"][:3]
    assert sent["session_id"] == "s0"
    assert start["event"] == "SESSION_START"
    assert [event["event_session_index"] for event in events] == list(range(len(events)))
    end = stub.bodies("telemetry")[-1]["events"][-1]
    assert end["event"] == "SESSION_END"
    assert (why["event"], why["severity"], why["error_type"]) == ("UNHANDLED_EXCEPTION", "ERROR", "ModelLost")
    assert end["duration"].startswith("0:00:")
    assert event["event_name"] == "actor_crashed"
    assert event["event_data"] == {"actor": "service/training/model-0", "error_type": "ModelLost"}
    assert "secret" not in str(stub.bodies("telemetry"))


@pytest.mark.requirement("R152")
async def test_telemetry_is_off_for_other_services_unless_asked(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """No telemetry call goes to a service that nobody asked to report to."""
    stub.rules["optim_step"] = lambda _, count: httpx.Response(404, json={}) if count == 0 else None
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        from tinker_actors.types import AdamParams

        await (await training.optim_step(AdamParams()))
        await trio.sleep(30)
    assert "telemetry" not in stub.names()


@pytest.mark.requirement("R152")
async def test_a_telemetry_outage_delays_nothing(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """A telemetry endpoint that never answers costs at most two seconds at the end."""
    stub.gates["telemetry"] = trio.Event()
    stub.rules["optim_step"] = lambda _, count: httpx.Response(404, json={}) if count == 0 else None
    async with open_stub(telemetry=True) as service:
        training = await service.create_lora_training_client(MODEL)
        from tinker_actors.types import AdamParams

        await (await training.optim_step(AdamParams()))
        leaving = trio.current_time()
    assert trio.current_time() - leaving <= 2.01


async def test_the_key_is_in_no_repr(open_stub: Any) -> None:
    """Config and its neighbours never show the secret."""
    from tinker_actors.opening import Backend
    from tinker_actors.transport.config import Config, Environment

    shown = [
        repr(Config(base_url="http://x", api_key="tml-secret")),
        repr(Backend("http://x", "tml-secret", "why")),
        repr(Environment.read({"TINKER_API_KEY": "tml-secret"})),
    ]
    assert "secret" not in "".join(shown)
