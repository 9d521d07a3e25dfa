"""What comes in and what goes out: requests as a scripted service sees them, and plans of its answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import attrs
import orjson

__all__ = ["JSON", "Answer", "Ending", "Held", "Refusal", "ReplyPlan", "ServedRequest", "Step", "missing"]

JSON = "application/json"


@attrs.frozen(kw_only=True)
class ServedRequest:
    """A request that arrived.

    Attributes:
        method: of HTTP.
        path: without the query.
        query: without its question mark.
        headers: names in lower case, and values; not shown, as they hold keys.
        content: the body as it came.
        number: how many came before it.
        endpoint: its name; "" if the service has none of this path.
        params: the variable parts of the path.
        at: when it came, in seconds since the service began.
        body: the body as JSON values, also if it came as protobuf; None if it has none that can be read.
    """

    method: str
    path: str
    query: str = ""
    headers: tuple[tuple[str, str], ...] = attrs.field(default=(), repr=False)
    content: bytes = attrs.field(default=b"", repr=False)
    number: int = 0
    endpoint: str = ""
    params: Mapping[str, str] = MappingProxyType({})
    at: float = 0.0
    # Values of JSON, which tests look into as they like.
    body: Any = None

    def header(self, name: str) -> str | None:
        """Return the value of a header, or None."""
        return next((value for key, value in self.headers if key == name), None)


Ending: TypeAlias = Literal[
    "whole", "twice", "refuse_connection", "drop_head", "drop_body", "reset", "stall_head", "stall_body"
]
"""How an answer ends: as it should; a second copy follows; the connection is refused before anything is read; it is
closed before the head; it is closed, or reset, in the middle of the body; nothing ever comes; the body stops halfway.
"""


@attrs.frozen(kw_only=True)
class ReplyPlan:
    """An answer, and how it goes over the line.

    Attributes:
        status: of HTTP.
        headers: without content-length, which is that of the whole body.
        body: its bytes.
        delay: seconds before anything is sent.
        ending: what goes wrong on the way.
    """

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    delay: float = 0.0
    ending: Ending = "whole"

    @property
    def sent(self) -> bytes:
        """The part of the body that is sent."""
        return self.body[: len(self.body) // 2] if self.ending in _HALF else self.body

    @property
    def content_type(self) -> str:
        """The type of the body; "" if it says none."""
        return next((value for name, value in self.headers if name == "content-type"), "")


_HALF = frozenset({"drop_body", "reset", "stall_body"})


@attrs.frozen
class Held:
    """The answer is not known yet.

    Attributes:
        until: when to ask again at the latest.
        resume: asks again, with the time; earlier calls do no harm, and are due whenever the service has changed.
    """

    until: float
    resume: Callable[[float], Step]


Step: TypeAlias = ReplyPlan | Held


@attrs.frozen
class Answer:
    """What an endpoint says, before anything goes wrong.

    Attributes:
        body: a JSON value.
        status: of HTTP.
        kind: "training" or "sample" if the body is a result that has a protobuf form.
        headers: beside the content type.
    """

    body: object
    status: int = 200
    kind: str | None = None
    headers: tuple[tuple[str, str], ...] = ()

    def encoded(self, headers: tuple[tuple[str, str], ...] = ()) -> ReplyPlan:
        """Return it as JSON bytes."""
        return ReplyPlan(
            status=self.status,
            headers=(("content-type", JSON), *self.headers, *headers),
            body=orjson.dumps(self.body),
        )


class Refusal(Exception):
    """A request that is refused; it is answered and never leaves the service."""

    def __init__(self, status: int, detail: object, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(status, detail)
        self.answer = Answer({"detail": detail}, status, headers=headers)


def missing(field: str) -> Refusal:
    """Return the refusal of a body without a field, in the form of pydantic."""
    return Refusal(422, [{"type": "missing", "loc": ["body", field], "msg": "Field required"}])
