"""The lines of an event file: typed events to JSON and back. Pure.

Theory of operation. A line is one JSON object: `t`, the wall time in seconds; `kind`, the name of the event's class;
and the event's fields by their names, those that have their default left out. Whoever reads takes what it knows: a
kind that it does not know, or whose fields it does not understand, comes as an `UnknownEvent` with the fields as they
stand; fields that it does not know are passed over; and a line that is cut, or is none, is no line. So a newer file can
be read by an older program, and an older file by a newer one.

What is written holds no secrets: texts are cut and masked as in telemetry. Of messages their kinds are written, and
never what they hold.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TypeAlias, cast, get_args

import attrs
import cattrs
import orjson

from tinker_actors.protocol.event import ServiceEvent
from tinker_actors.protocol.telemetry import scrubbed
from tinker_actors.protocol.tree_seen import PastSeen, TreeSeen

__all__ = [
    "FORMAT",
    "KINDS",
    "ActorEnded",
    "ActorHangs",
    "ActorReady",
    "EventSink",
    "EventsLost",
    "FileBegun",
    "FileEnded",
    "FileEvent",
    "MessageLost",
    "MessagesLost",
    "Recorded",
    "UnknownEvent",
    "decode_line",
    "encode_line",
    "is_picture",
]

FORMAT = 1
"""Of the file; one more whenever an older program could misread a line."""
_PICTURE = b'"kind":"TreeSeen"'
_WHOLE = b'"whole":true'
_BEGINNING = 96  # bytes of a line in which both stand


@attrs.frozen(kw_only=True)
class FileBegun:
    """A process begins to write, or goes on in a new file because the old one was full.

    Attributes:
        part: how many files were begun before this one, in this run of the process or in earlier ones.
        pid: of the process.
        host: the machine's name.
        version: of tinker_actors.
        attempt: of a command that is supervised, how often it was started; 1 for one that is not.
        format: of the file.
    """

    part: int
    pid: int
    host: str
    version: str
    attempt: int = 1
    format: int = FORMAT


@attrs.frozen
class FileEnded:
    """The process has written all that there was; without it, it was killed."""


@attrs.frozen
class EventsLost:
    """Here `count` events are missing.

    Attributes:
        count: how many.
        why: one line.
    """

    count: int
    why: str


@attrs.frozen
class ActorReady:
    """An actor has started and takes messages; a higher `incarnation` than 1 has been started again."""

    actor: str
    incarnation: int


@attrs.frozen
class ActorEnded:
    """An actor has ended for good; `failed` if its supervisor gave it up."""

    actor: str
    incarnation: int
    failed: bool = False


@attrs.frozen
class ActorHangs:
    """An actor was cancelled and does not end; `stack` shows where its tasks stand."""

    actor: str
    incarnation: int
    stack: str


@attrs.frozen
class MessageLost:
    """A message has become a dead letter.

    Attributes:
        actor: whom it was for.
        reason: why, as `tinker_actors.kernel.Reason` has it.
        message: the name of its type.
        seq: its place in line; -1 if it never had one.
    """

    actor: str
    reason: str
    message: str
    seq: int


@attrs.frozen
class MessagesLost:
    """So many more have become dead letters since the last picture than were told of one by one.

    Attributes:
        counts: how many, by reason.
    """

    counts: dict[str, int]


@attrs.frozen
class UnknownEvent:
    """An event of another version: its kind and its fields, as they stand in the file."""

    kind: str
    fields: Mapping[str, object]


FileEvent: TypeAlias = (
    FileBegun
    | FileEnded
    | EventsLost
    | ActorReady
    | ActorEnded
    | ActorHangs
    | MessageLost
    | MessagesLost
    | TreeSeen
)


class EventSink(Protocol):
    """What takes events to be written down. Nothing here waits, and nothing raises."""

    def now(self) -> float:
        """Return the wall time, in seconds since 1970."""
        ...

    def write(self, event: object) -> None:
        """Take an event; may be called from any thread."""
        ...

    def hide(self, secrets: Iterable[str]) -> None:
        """Mask these texts in all that is written from now on."""
        ...

    def wants_whole(self) -> bool:
        """Whether a whole picture of the tree is wanted; asked, it says so once."""
        ...


@attrs.frozen
class Recorded:
    """A line of an event file.

    Attributes:
        t: wall time, in seconds since 1970.
        event: what happened then.
    """

    t: float
    event: object

    @property
    def kind(self) -> str:
        """The name of the event's class, or of the class it would have in its own version."""
        return self.event.kind if isinstance(self.event, UnknownEvent) else type(self.event).__name__


KINDS: Mapping[str, type] = {kind.__name__: kind for kind in (*get_args(ServiceEvent), *get_args(FileEvent))}
"""The classes of all events that are known, by their names."""


def encode_line(t: float, event: object, secrets: Iterable[str] = ()) -> bytes:
    """Write an event as a line, with its end.

    Args:
        t: wall time, in seconds since 1970.
        event: an instance of an attrs class, without fields named `t` or `kind`; what JSON cannot hold in it is named
            by its type.
        secrets: texts that must not appear. In a `TreeSeen` nothing is masked: who makes it has seen to that.
    """
    fields = _converter().unstructure(event)
    if not isinstance(event, TreeSeen):
        fields = cast("dict[str, Any]", scrubbed(fields, secrets))
    line: dict[str, Any] = {"t": round(t, 3), "kind": type(event).__name__, **fields}
    try:
        return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # halves of characters in a name
        return json.dumps(line, ensure_ascii=False).encode(errors="replace") + b"\n"


def decode_line(line: bytes, kinds: Mapping[str, type] = KINDS) -> Recorded | None:
    """Read a line; None if it is none, such as the last one of a process that was killed.

    Args:
        line: the bytes, with or without their end.
        kinds: the classes of events by their names.
    """
    try:
        fields: object = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(fields, dict):
        return None
    values = cast("dict[str, object]", fields)
    t, name = values.pop("t", None), values.pop("kind", None)
    if not isinstance(t, int | float) or not isinstance(name, str):
        return None
    kind = kinds.get(name)
    if kind is None:
        return Recorded(float(t), UnknownEvent(name, values))
    try:
        return Recorded(float(t), cast("object", _converter().structure(values, kind)))
    except Exception:  # noqa: BLE001 - whatever the hooks of single values raise: it is not understood
        return Recorded(float(t), UnknownEvent(name, values))


def is_picture(line: bytes, *, whole: bool = False) -> bool:
    """Whether a line is a picture of the tree, by its looks; if `whole`, one in which nothing is left out."""
    beginning = line[:_BEGINNING]
    return _PICTURE in beginning and (not whole or _WHOLE in beginning)


@functools.cache
def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(omit_if_default=True, detailed_validation=False)
    converter.register_unstructure_hook(float, _written)
    # The many: as lists, which take half the room.
    converter.register_unstructure_hook(PastSeen, _past_written)
    converter.register_structure_hook(PastSeen, _past_read)
    return converter


def _written(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _past_written(past: PastSeen) -> list[object]:
    seconds = None if past.seconds is None else round(past.seconds, 6)
    return [past.message, past.seq, past.at, seconds, past.outcome]


def _past_read(value: Any, _: type) -> PastSeen:
    message, seq, at, seconds, outcome = value[:5]
    return PastSeen(
        message=str(message),
        seq=int(seq),
        at=float(at),
        seconds=None if seconds is None else float(seconds),
        outcome=str(outcome),
    )
