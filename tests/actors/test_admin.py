"""What administrators ask: how it goes out, and what is refused before."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import httpx
import pytest
import trio

from tinker_actors.actors.admin import AdminClient
from tinker_actors.errors import InputError
from tinker_actors.testing import open_scripted_service
from tinker_actors.transport.config import Config
from tinker_actors.transport.http import open_transport

USAGE = "/api/v1/billing/usage/events"
DAY = datetime(2026, 7, 13, tzinfo=UTC)


class Recorder(httpx.AsyncBaseTransport):
    """Answers everything with nothing, and keeps what was asked."""

    def __init__(self) -> None:
        self.targets: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        target = request.url.raw_path.decode()
        if target.endswith("/client/config"):
            return httpx.Response(404)
        self.targets.append(target)
        return httpx.Response(200, json={"entries": [], "data": [], "sessions": {}})


@contextlib.asynccontextmanager
async def admin_on(recorder: Recorder) -> AsyncIterator[AdminClient]:
    """Open a client alone."""
    async with open_transport(
        Config(base_url="http://stub"), rng=random.Random(0), through=recorder
    ) as transport:
        yield AdminClient(transport)


Call = Callable[[AdminClient], Awaitable[object]]

CALLS: list[tuple[Call, str]] = [
    (lambda admin: admin.get_audit_log(), "/api/v1/audit?event_type=all"),
    (
        lambda admin: admin.get_audit_log("checkpoints", date(2026, 7, 13)),
        "/api/v1/audit?event_type=checkpoints&day=2026-07-13",
    ),
    (
        lambda admin: admin.get_billing_usage(DAY, DAY + timedelta(days=14)),
        f"{USAGE}?starting_on=2026-07-13T00:00:00Z&ending_before=2026-07-27T00:00:00Z",
    ),
    (
        lambda admin: admin.get_billing_usage("2026-07-13T02:00:00+02:00", "2026-07-13T01:00:00Z"),
        f"{USAGE}?starting_on=2026-07-13T00:00:00Z&ending_before=2026-07-13T01:00:00Z",
    ),
    (
        lambda admin: admin.get_billing_usage(
            DAY.astimezone(timezone(timedelta(hours=5, minutes=30))), DAY + timedelta(hours=1)
        ),
        f"{USAGE}?starting_on=2026-07-13T00:00:00Z&ending_before=2026-07-13T01:00:00Z",
    ),
    (
        lambda admin: admin.get_current_checkpoint_storage_usage(),
        "/api/v1/billing/usage/checkpoints/current",
    ),
    (
        lambda admin: admin.get_current_checkpoint_storage_usage("p"),
        "/api/v1/billing/usage/checkpoints/current?project_id=p",
    ),
]


@pytest.mark.parametrize(("call", "target"), CALLS, ids=range(len(CALLS)))
async def test_each_question_goes_out_as_documented(call: Call, target: str) -> None:
    """Hours in UTC, whatever zone they were given in; what is not said is left to the service."""
    recorder = Recorder()
    async with admin_on(recorder) as admin:
        await call(admin)
    assert [one.replace("%3A", ":") for one in recorder.targets] == [target]


REFUSED: list[tuple[Call, str]] = [
    (lambda admin: admin.get_audit_log("deletions"), "event_type"),  # type: ignore[arg-type]
    (lambda admin: admin.get_audit_log(day="2026-07-13"), "day"),  # type: ignore[arg-type]
    (lambda admin: admin.get_audit_log(day=DAY), "day"),
    (lambda admin: admin.get_billing_usage(DAY.replace(minute=1), DAY), "starting_on"),
    (lambda admin: admin.get_billing_usage(DAY.replace(tzinfo=None), DAY), "starting_on"),
    (lambda admin: admin.get_billing_usage("yesterday", DAY), "starting_on"),
    (lambda admin: admin.get_billing_usage(DAY, "2026-07-13T00:30:00Z"), "ending_before"),
    (lambda admin: admin.get_billing_usage(DAY, 5), "ending_before"),  # type: ignore[arg-type]
    (lambda admin: admin.get_billing_usage(DAY, DAY), "ending_before"),
    (lambda admin: admin.get_billing_usage(DAY, DAY - timedelta(hours=1)), "ending_before"),
    (lambda admin: admin.get_billing_usage(DAY, DAY + timedelta(days=14, hours=1)), "ending_before"),
]


@pytest.mark.parametrize(("call", "field"), REFUSED, ids=range(len(REFUSED)))
async def test_what_cannot_be_asked_is_refused_here(call: Call, field: str) -> None:
    """No full hour, no zone, an empty window or one of more than 14 days, another kind of event: nothing is sent."""
    recorder = Recorder()
    async with admin_on(recorder) as admin:
        with pytest.raises(InputError) as caught:
            await call(admin)
        assert repr(admin) == "<AdminClient http://stub>"
        with pytest.raises(AttributeError, match="use 'get_audit_log'"):
            _ = admin.get_audit_log_async
    assert caught.value.field == field
    assert recorder.targets == []


async def test_a_service_has_one(autojump_clock: Any) -> None:
    """`service.admin` asks the service that the others ask."""
    async with open_scripted_service() as (service, _):
        audit = await service.admin.get_audit_log()
        assert [entry.event for entry in audit.entries] == ["create_session"]
        usage = await service.admin.get_billing_usage("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z")
        assert usage.data == ()
        stored = await service.admin.get_current_checkpoint_storage_usage()
        assert stored.data[0].checkpoint_count == 0
