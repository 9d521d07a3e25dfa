"""Server-sent events out of bytes, however they were cut. Pure; WHATWG HTML, section 9.2.6.

Theory of operation. Bytes become lines at LF, CR or CRLF; a line is handled as soon as its end is seen, and an LF
that follows in the next chunk belongs to the CR before it. What is not yet a line is kept in pieces, so that a
chunk is looked at once. An empty line completes an event; one without data is none. An event that the stream's end
cuts off never happened.

Lines and data are bounded together: a stream without line ends, or without empty lines, is an error instead of all
the memory there is.
"""

from __future__ import annotations

from typing import Final

import attrs
import orjson

from tinker_actors.errors import DecodeError
from tinker_actors.wire.codec import JsonValue

__all__ = ["MAX_EVENT_BYTES", "EventParser", "ServerSentEvent"]

MAX_EVENT_BYTES: Final = 64 * 2**20  # of one event, its open line included
_BOM = b"\xef\xbb\xbf"
_MAX_RETRY_DIGITS = 15  # milliseconds; more is no time anybody waits


@attrs.frozen(kw_only=True)
class ServerSentEvent:
    """One event.

    Attributes:
        event: its type.
        data: its text; several lines are joined by LF.
        id: the last id the stream has given, here or before; empty if none.
        retry: milliseconds to wait before a new connection, if this event says so.
    """

    event: str = "message"
    data: str = ""
    id: str = ""
    retry: int | None = None

    def json(self) -> JsonValue:
        """Return the data's JSON value.

        Raises:
            DecodeError: it is not JSON.
        """
        try:
            value: JsonValue = orjson.loads(self.data)
        except orjson.JSONDecodeError as error:
            raise DecodeError("server-sent event", [f"data is not JSON: {error}"]) from error
        return value


class EventParser:
    """Takes chunks, gives events.

    Args:
        limit: bytes that an event and the line under way may have together.

    Attributes:
        last_id: the last id the stream has given.
        retry: milliseconds to wait before a new connection, as the stream said last.
    """

    def __init__(self, *, limit: int = MAX_EVENT_BYTES) -> None:
        self.last_id = ""
        self.retry: int | None = None
        self._limit = limit
        self._pieces: list[bytes] = []  # of the line under way
        self._held = 0  # bytes in them and in the data of the event under way
        self._after_cr = False
        self._at_start = True
        self._data: list[str] = []
        self._type = ""
        self._event_retry: int | None = None

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """Take the next bytes; return the events they complete.

        Raises:
            DecodeError: an event is longer than the limit. Nothing more can be read then.
        """
        if self._after_cr and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._after_cr = False
        if not chunk:
            return []
        self._after_cr = chunk.endswith(b"\r")
        lines = chunk.splitlines()
        rest = b"" if chunk.endswith((b"\r", b"\n")) else lines.pop()
        found = [event for line in lines if (event := self._line(line)) is not None]
        self._hold(rest)
        return found

    def _hold(self, rest: bytes) -> None:
        if rest:
            self._pieces.append(rest)
        self._grow(len(rest))

    def _grow(self, size: int) -> None:
        self._held += size
        if self._held > self._limit:
            raise DecodeError("server-sent event", [f"longer than {self._limit} bytes"])

    def _line(self, line: bytes) -> ServerSentEvent | None:
        if self._pieces:
            self._held -= sum(map(len, self._pieces))
            line = b"".join((*self._pieces, line))
            self._pieces.clear()
        if self._at_start:
            line = line.removeprefix(_BOM)
            self._at_start = False
        if not line:
            return self._complete()
        name, colon, value = line.partition(b":")
        if name or not colon:  # a colon at the start is a comment
            self._field(name, value.removeprefix(b" "))
        return None

    def _field(self, name: bytes, value: bytes) -> None:
        match name:
            case b"data":
                self._grow(len(value) + 1)
                self._data.append(value.decode(errors="replace"))
            case b"event":
                self._type = value.decode(errors="replace")
            case b"id" if b"\0" not in value:
                self.last_id = value.decode(errors="replace")
            case b"retry" if value.isdigit() and len(value) <= _MAX_RETRY_DIGITS:
                self.retry = self._event_retry = int(value)
            case _:
                pass  # an unknown field is left alone

    def _complete(self) -> ServerSentEvent | None:
        event = None
        if self._data:
            event = ServerSentEvent(
                event=self._type or "message",
                data="\n".join(self._data),
                id=self.last_id,
                retry=self._event_retry,
            )
        self._data.clear()
        self._held = 0
        self._type = ""
        self._event_retry = None
        return event
