"""Telemetry: events about the client, told to the service."""

from collections.abc import Mapping
from typing import Literal, TypeAlias

import attrs

from tinker_actors.wire.field import Timestamp, timestamp

__all__ = [
    "GenericEvent",
    "SessionEndEvent",
    "SessionStartEvent",
    "Severity",
    "TelemetryEvent",
    "TelemetryResponse",
    "TelemetrySendRequest",
    "UnhandledExceptionEvent",
]

Severity = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


@attrs.frozen(kw_only=True)
class SessionStartEvent:
    """The client opened a session.

    Attributes:
        event_id: a UUID.
        event_session_index: the number of the event, from 0.
        severity: how bad it is.
        timestamp: when it was.
    """

    event: Literal["SESSION_START"] = "SESSION_START"
    event_id: str
    event_session_index: int
    severity: Severity = "INFO"
    timestamp: Timestamp = attrs.field(converter=timestamp)


@attrs.frozen(kw_only=True)
class SessionEndEvent:
    """The client's session ended; see `SessionStartEvent`.

    Attributes:
        duration: how long it lasted, such as `0:00:01.5`.
    """

    duration: str
    event: Literal["SESSION_END"] = "SESSION_END"
    event_id: str
    event_session_index: int
    severity: Severity = "INFO"
    timestamp: Timestamp = attrs.field(converter=timestamp)


@attrs.frozen(kw_only=True)
class UnhandledExceptionEvent:
    """An exception left the client; see `SessionStartEvent`.

    Attributes:
        error_type: its class.
        error_message: what it says.
        traceback: where it was raised.
    """

    error_message: str
    error_type: str
    event: Literal["UNHANDLED_EXCEPTION"] = "UNHANDLED_EXCEPTION"
    event_id: str
    event_session_index: int
    severity: Severity = "ERROR"
    timestamp: Timestamp = attrs.field(converter=timestamp)
    traceback: str | None = None


@attrs.frozen(kw_only=True)
class GenericEvent:
    """Anything else; see `SessionStartEvent`.

    Attributes:
        event_name: what it was.
        event_data: more about it.
    """

    event: Literal["GENERIC_EVENT"] = "GENERIC_EVENT"
    event_id: str
    event_name: str
    event_session_index: int
    severity: Severity = "INFO"
    timestamp: Timestamp = attrs.field(converter=timestamp)
    event_data: Mapping[str, object] = attrs.field(factory=dict)


TelemetryEvent: TypeAlias = (
    SessionStartEvent | SessionEndEvent | UnhandledExceptionEvent | GenericEvent | Mapping[str, object]
)
"""A mapping if it is of a kind that this package does not know."""


@attrs.frozen(kw_only=True)
class TelemetrySendRequest:
    """A batch of events about the client.

    Attributes:
        events: in order.
        platform: the operating system.
        sdk_version: the client's version.
        session_id: the session they belong to.
        process_uuid: the process they come from.
    """

    events: tuple[TelemetryEvent, ...]
    platform: str
    sdk_version: str
    session_id: str
    process_uuid: str | None = None


@attrs.frozen
class TelemetryResponse:
    """The service took the events."""

    status: Literal["accepted"]
