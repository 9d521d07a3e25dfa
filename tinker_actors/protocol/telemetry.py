"""What telemetry says of this client: events, what of a failure is told, and what never leaves. Pure.

An event says what happened and where. Of a failure it says its type, its place in the code, and those of its facts
that are numbers and ids: never its message, which may hold a prompt, a path or a key. `scrubbed` goes over everything
before it is queued: whatever a user logs, keys are masked, long texts are cut, and what JSON cannot hold is named by
its type.

Names, fields and sizes: tinker 0.38.0 lib/telemetry.py (a queue of 10,000 events, batches of 100, a flush every 10 s).
"""

from __future__ import annotations

import itertools
import math
import re
import traceback
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar, cast

from tinker_actors.errors import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    RequestFailedError,
    TinkerActorsError,
)
from tinker_actors.protocol.event import (
    HeartbeatMissed,
    ModelLostEvent,
    ModelRestored,
    OrphanPossible,
    QueueChange,
    SamplerRebound,
    SamplingSlow,
    ServerBack,
    ServiceEvent,
    SessionRenewed,
    WaitEnded,
    Waiting,
)
from tinker_actors.protocol.policy import is_user_error

__all__ = [
    "BATCH_SIZE",
    "FLUSH_PERIOD",
    "MAX_QUEUED",
    "TelemetryQueue",
    "event_of",
    "failure_event",
    "poll_failure",
    "scrubbed",
]

T = TypeVar("T")

MAX_QUEUED = 10_000
BATCH_SIZE = 100
FLUSH_PERIOD = 10.0

_LONGEST_TEXT = 5000  # characters; a traceback has room in it
_LONGEST_PATTERN = 1024  # characters up to where a secret by its form is known as one
_MOST_TEXT = 100_000  # characters of an event; whatever else is in it counts as
_WEIGHT = 8  # of them
_SMALLEST, _LARGEST = -(2**63), 2**64 - 1  # what the codec takes
_MOST_ITEMS = 100
_DEEPEST = 6
_MOST_FRAMES = 15  # of an error, and
_MOST_LINKS = 4  # causes that are followed
_MASK = "***"
# Keys and tokens of the service by their form, whoever they belong to; users and passwords, and queries, of URLs.
# None looks at a character again and again: a text may be long, and made to be.
_SECRETS = re.compile(
    r"tml-[\w-]+"
    r"|eyJ[\w-]{4,}(?:\.[\w-]*)*"
    r"|(?i:bearer)\s+\S+"
    r"|(?<=://)[^/\s@]*@"
    r"|(?<=\S)\?[^\s=?]*=\S*"
)


class TelemetryQueue:
    """Events on their way out; when there is no room, new ones are dropped and counted.

    Attributes:
        dropped: events for which there was no room.
    """

    def __init__(self, *, max_queued: int = MAX_QUEUED) -> None:
        self._events: deque[dict[str, object]] = deque()
        self._max_queued = max_queued
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._events)

    def add(self, *events: dict[str, object]) -> bool:
        """Take events that belong together; False, and none is taken, if there is no room for all of them."""
        if len(self._events) + len(events) > self._max_queued:
            self.dropped += len(events)
            return False
        self._events.extend(events)
        return True

    def take_batch(self) -> list[dict[str, object]]:
        """Remove and return the oldest events, at most `BATCH_SIZE`."""
        return [self._events.popleft() for _ in range(min(BATCH_SIZE, len(self._events)))]


# --- failures --------------------------------------------------------------------------------------------


def failure_event(error: BaseException, severity: str = "ERROR") -> dict[str, object]:
    """Return what a failure is in telemetry, but for what all events have.

    A user's error (`is_user_error`, the same that retries go by) is a warning among the general events; everything else
    is an exception that nobody expected. A group of one is that one.
    """
    error = _unpacked(error)
    facts = _facts(error)
    kind = type(error).__name__
    if is_user_error(error):
        return {
            "event": "GENERIC_EVENT",
            "severity": "WARNING",
            "event_name": "user_error",
            "event_data": {"error_type": kind} | facts,
        }
    said = ", ".join(f"{name} {value}" for name, value in facts.items())
    event: dict[str, object] = {
        "event": "UNHANDLED_EXCEPTION",
        "severity": severity,
        "error_type": kind,
        "error_message": f"{kind}: {said}" if said else kind,
    }
    where = _places(error)
    return event | {"traceback": where} if where else event


def poll_failure(error: BaseException) -> str:
    """Return the name of the event that says how the wait for a result failed."""
    match error:
        case RequestFailedError():
            what = "application_error"
        case APIStatusError():
            what = "api_status_error"
        case APITimeoutError():
            what = "timeout"
        case APIConnectionError():
            what = "connection_error"
        case APIResponseValidationError():
            what = "validation_error"
        case _:
            what = "exception"
    return f"APIFuture.result_async.{what}"


def _unpacked(error: BaseException) -> BaseException:
    if not isinstance(error, BaseExceptionGroup):
        return error
    inside: Sequence[BaseException] = cast("BaseExceptionGroup[BaseException]", error).exceptions
    return _unpacked(inside[0]) if len(inside) == 1 else cast("BaseException", error)


def _facts(error: BaseException) -> dict[str, object]:
    """Return what an error knows in numbers and ids, if it is one of ours."""
    if not isinstance(error, TinkerActorsError):
        return {}
    facts = {
        name: getattr(error, name, None) for name in ("status_code", "category", "request_id", "attempts")
    }
    if facts["attempts"] == 1:
        del facts["attempts"]
    return {name: value for name, value in facts.items() if isinstance(value, int | str) and value}


def _places(error: BaseException) -> str:
    """Return where an error was raised, and where what led to it: files, lines and functions, and no text of either."""
    lines: list[str] = []
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and len(seen) < _MOST_LINKS and id(link) not in seen:
        seen.add(id(link))
        # Not `extract_tb`: that reads the files, for the text of the lines.
        frames = [(frame.f_code, line) for frame, line in traceback.walk_tb(link.__traceback__)]
        if frames:
            lines.append(f"{'caused by ' if lines else ''}{type(link).__name__}")
        for code, line in frames[-_MOST_FRAMES:]:
            lines.append(f"  {_short(code.co_filename)}:{line} in {code.co_name}")
        link = link.__cause__ or link.__context__
    return "\n".join(lines)


def _short(filename: str) -> str:
    """Return the end of a path; its beginning may tell whose machine it is."""
    return "/".join(filename.replace("\\", "/").split("/")[-3:])


# --- what a service's events become ----------------------------------------------------------------------

# Of each kind of event the fields that are told: ids, numbers, and the service's own words. Others are not told at all.
_TOLD: Mapping[type, tuple[str, ...]] = {
    QueueChange: ("subject", "state", "reason", "previous", "seconds", "request_id"),
    SessionRenewed: ("session_id", "epoch"),
    ModelLostEvent: ("model_id", "in_flight"),
    ModelRestored: ("old_model_id", "model_id", "replayed", "steps"),
    HeartbeatMissed: ("session_id", "seconds"),
    SamplerRebound: ("old_sampling_session_id", "sampling_session_id"),
    SamplingSlow: ("sampling_session_id", "seconds", "waiting"),
    Waiting: ("subject", "what", "request_id", "seconds", "state", "count"),
    WaitEnded: ("subject", "what", "request_id", "seconds"),
    ServerBack: ("seconds",),
    OrphanPossible: ("what", "session_id", "number"),
}


def event_of(event: ServiceEvent) -> tuple[str, dict[str, object]] | None:
    """Return the name and the data that a service's event has in telemetry; None if it is not told there."""
    fields = _TOLD.get(type(event))
    if fields is None:
        return None
    return type(event).__name__, {name: getattr(event, name) for name in fields}


# --- what never leaves -----------------------------------------------------------------------------------


def scrubbed(value: object, secrets: Iterable[str] = ()) -> object:
    """Return a value as it may be sent: secrets masked, long texts cut, nothing that JSON cannot hold.

    It shares nothing with what it came from, and is of a bounded size, and so is the work.

    Args:
        value: what is to be sent; what lies too deep in it, or behind too much, is left out or named by its type.
        secrets: texts that must not appear; what looks like a key of the service is masked anyway.
    """
    return _Scrubber(sorted(secrets, key=len, reverse=True)).of(value)  # one may be a part of another


class _Scrubber:
    def __init__(self, secrets: Sequence[str]) -> None:
        self._secrets = secrets
        self._tail = max(_LONGEST_PATTERN, *map(len, secrets)) if secrets else _LONGEST_PATTERN
        self._left = _MOST_TEXT

    def of(self, value: object, depth: int = 0) -> object:
        self._left -= _WEIGHT
        match value:
            case None | bool():
                return value
            case int() if _SMALLEST <= value <= _LARGEST:
                return int(value)
            case float():
                return float(value) if math.isfinite(value) else str(float(value))
            case str():
                return self._text(value)
            case Mapping() if depth < _DEEPEST:
                entries = cast("Mapping[object, object]", value).items()
                return {self._name(name): self.of(item, depth + 1) for name, item in self._first(entries)}
            case list() | tuple() if depth < _DEEPEST:
                return [self.of(item, depth + 1) for item in self._first(cast("Sequence[object]", value))]
            case _:
                return f"<{type(value).__name__}>"

    def _first(self, items: Iterable[T]) -> Iterator[T]:
        for item in itertools.islice(items, _MOST_ITEMS):
            if self._left <= 0:
                return
            yield item

    def _name(self, name: object) -> str:
        return self._text(name if isinstance(name, str) else str(self.of(name, _DEEPEST)))

    def _text(self, text: str) -> str:
        # What is far behind is not looked at. A secret may be cut in two there, so that what is left near the end goes.
        far = _LONGEST_TEXT + self._tail
        masked = self._masked(text) if len(text) <= far else self._masked(text[:far])[: -self._tail]
        kept = masked[:_LONGEST_TEXT]
        self._left -= len(kept)
        return kept

    def _masked(self, text: str) -> str:
        if not text.isascii():
            text = text.encode(errors="backslashreplace").decode()  # halves of characters cannot be sent
        for secret in self._secrets:
            text = text.replace(secret, _MASK)
        return _SECRETS.sub(_MASK, text)
