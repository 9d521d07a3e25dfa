from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.wire.refusals import problems_of
from tinker_actors.wire.codec import structure
from tinker_actors.wire.telemetry import (
    GenericEvent,
    SessionEndEvent,
    SessionStartEvent,
    TelemetrySendRequest,
    UnhandledExceptionEvent,
)

COMMON: dict[str, Any] = {"event_id": "u", "event_session_index": 0, "timestamp": "2026-01-02T03:04:05Z"}


def batch(*events: Any) -> Any:
    return {"events": list(events), "platform": "Linux", "sdk_version": "1", "session_id": "s"}


@pytest.mark.parametrize(
    ("kind", "fields", "made"),
    [
        ("SESSION_START", {}, SessionStartEvent),
        ("SESSION_END", {"duration": "0:00:01"}, SessionEndEvent),
        ("UNHANDLED_EXCEPTION", {"error_type": "E", "error_message": "m"}, UnhandledExceptionEvent),
        ("GENERIC_EVENT", {"event_name": "n"}, GenericEvent),
    ],
)
def test_events_are_known_by_their_kind(kind: str, fields: Any, made: type) -> None:
    """Their time is an aware one."""
    body = batch({"event": kind, "severity": "INFO", **COMMON, **fields})
    (event,) = structure(TelemetrySendRequest, body, strict=True).events
    assert event == made(**{**COMMON, **fields, "severity": "INFO"})
    assert isinstance(event, made)
    assert event.timestamp == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)  # type: ignore[attr-defined]  # all have it


def test_how_bad_an_event_is_depends_on_its_kind() -> None:
    """An exception is an error, everything else is not, unless it is said."""
    assert GenericEvent(event_name="n", **COMMON).severity == "INFO"
    assert UnhandledExceptionEvent(error_type="E", error_message="m", **COMMON).severity == "ERROR"


def test_an_event_of_another_kind_is_kept_and_one_of_none_refused() -> None:
    """A newer client may send it."""
    body = batch({"event": "MOOD", "level": None})
    assert structure(TelemetrySendRequest, body, strict=True).events == ({"event": "MOOD", "level": None},)
    assert problems_of(TelemetrySendRequest, batch({"a": 1}), strict=False) == [
        "required field missing: event @ $.events[0]"
    ]
