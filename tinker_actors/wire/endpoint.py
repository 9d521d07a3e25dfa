"""What one call of the API is: its row in the table of `endpoints`.

What a doubtful send means (a byte was written and no complete answer was read, or the answer was 408 or 5xx)
depends on what the call does:

    resend     it changes nothing, or doing it twice does no harm: send it again
    numbered   it changes a model, and carries a number in the model's order: what may be done depends on what
               the service does with a number it has seen
    named      it saves something under a name and a number: the name can be looked up
    create     it makes something that nobody else knows of: send it again; an orphan costs room until it is
               unloaded
    give_up    the caller decides

When a call came and went is told by versions of the official client, in which it first was there (`since`) and
first was no longer there (`until`). `<=` before a version says that it was so in that version, and that the
versions before it have not been looked at one by one.
"""

import enum
import re
import string
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Generic, Literal, TypeVar, cast
from urllib.parse import quote

import attrs

from tinker_actors.errors import InputError

__all__ = ["Endpoint", "Format", "Lane", "Method", "OnDoubt", "Redirects"]

RequestT = TypeVar("RequestT", contravariant=True)
ReplyT = TypeVar("ReplyT", covariant=True)
Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
OnDoubt = Literal["resend", "numbered", "named", "create", "give_up"]
Format = Literal["json", "either"]
"""JSON, or what suits both sides: JSON or protobuf."""
Redirects = Literal["inside", "anywhere", "answer"]
"""An answer with another address is followed within the service's own origin, or anywhere, though never with our
key; or it is the answer: its address and when that expires are the reply's `url` and `expires`."""

_VERSION = re.compile(r"(<=)?\d+\.\d+\.\d+")
# What may stand in a segment of a path as it is (RFC 3986, pchar); the service wants `:` in ids unescaped.
_SAFE = "!$&'()*+,;=:@"
# What would end the part early, control characters, and half characters, which have no bytes.
_FORBIDDEN = re.compile("[/?#\x00-\x1f\x7f\ud800-\udfff]")
# The one kind of id that is two segments: `weights/0001`.
_TWO_SEGMENTS = "checkpoint_id"


class Lane(enum.Enum):
    """Which connections a call travels on, so that one kind of traffic cannot starve another."""

    TRAIN = "train"
    SAMPLE = "sample"
    SESSION = "session"
    FUTURES = "futures"
    TELEMETRY = "telemetry"


def _is_version(_: object, attribute: "attrs.Attribute[Any]", value: str | None) -> None:
    if value is not None and _VERSION.fullmatch(value) is None:
        raise ValueError(f"{attribute.name} = {value!r} is neither '1.2.3' nor '<=1.2.3'")


@attrs.frozen
class Endpoint(Generic[RequestT, ReplyT]):
    """One call of the API.

    Attributes:
        name: its name in errors and events.
        method: HTTP method.
        path: below the base URL; `{name}` parts are filled in by the caller.
        request: class of the body; `Empty` sends none.
        reply: class of the answer; `Empty` looks at none.
        lane: the connections it uses.
        timeout: seconds for the whole exchange.
        on_doubt: what to do when it may or may not have been carried out.
        retries: how many further attempts there may be, after a refusal that says "later" (429, connection
            refused) and, if `on_doubt` allows it, after a doubtful send.
        since: the version of the official client that first had it.
        until: the version that first had it no longer; None if the latest we know (0.38.0) still has it.
        query: the names of what may stand in the query, in the order in which they stand there.
        sends: how the body may be written. All bodies are JSON but those that say `either`.
        accepts: how the answer may be written, likewise.
        redirects: where an answer with another address may lead.
    """

    name: str
    method: Method
    path: str
    request: type[RequestT]
    reply: type[ReplyT]
    lane: Lane
    timeout: float = 60.0
    on_doubt: OnDoubt = "resend"
    retries: int = 10
    since: str = attrs.field(default="0.4.1", validator=_is_version)
    until: str | None = attrs.field(default=None, validator=_is_version)
    query: tuple[str, ...] = ()
    sends: Format = "json"
    accepts: Format = "json"
    redirects: Redirects = "inside"

    @cached_property
    def places(self) -> tuple[str, ...]:
        """The names of the parts of the path that the caller fills in."""
        return tuple(name for _, name, _, _ in string.Formatter().parse(self.path) if name is not None)

    def target(self, path: Mapping[str, str] | None = None) -> str:
        """Return the path with its parts filled in.

        Characters that a path cannot hold are percent-encoded; `:` is not, and neither is the slash of a
        checkpoint's id.

        Args:
            path: a text for each of `places`, and for nothing else.

        Raises:
            InputError: a part is missing, left over, no text, empty, or holds what would end it.
        """
        given = path or {}
        if not self.places and not given:
            return self.path
        for name, value in given.items():
            if name not in self.places:
                raise InputError(name, value, f"the path of {self.name} has no such part")
        for name in self.places:
            if name not in given:
                raise InputError(name, None, f"the path of {self.name} needs it")
        return self.path.format(**{name: _part(name, given[name]) for name in self.places})


def _part(name: str, value: str) -> str:
    """Return a part of a path as it goes out."""
    if not isinstance(cast("object", value), str):
        raise InputError(name, value, "must be a text")
    kind, slash, rest = value.partition("/")
    if name != _TWO_SEGMENTS:
        return _segment(name, value, value)
    if not slash:
        raise InputError(name, value, "must have two parts, such as 'weights/0001'")
    return f"{_segment(name, value, kind)}/{_segment(name, value, rest)}"


def _segment(name: str, value: str, segment: str) -> str:
    if segment in {"", ".", ".."}:
        raise InputError(name, value, f"a part of a path cannot be {segment!r}")
    if found := _FORBIDDEN.search(segment):
        raise InputError(name, value, f"a part of a path cannot hold {found.group()!r}")
    return quote(segment, safe=_SAFE)
