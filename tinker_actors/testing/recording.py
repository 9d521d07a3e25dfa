"""What came to a service, as it was seen on the wire, and what follows of it: which updates are in which model.

Theory of operation. A `Recording` is a list of `Exchange`s in the order in which the requests came. An update (a
gradient or a step of the optimizer) is *in* a model if the service took its request and did not say later, when its
promise was asked for, that it had failed. A request that repeats another and is answered with the same promise is the
same update; one that gets a promise of its own is another. A checkpoint holds what was in its model when it was asked
for, and a model that loads it has just that: so a *lineage* is followed over all models that carried it on.

Requests are compared by their `content`: a digest of all that is in them but the names of model and session and the
request's number. So what two runs sent for one step is the same, as long as both sent JSON, or both protobuf.

A poll that is answered by 404 or 410 says nothing about the work: the service does not know the promise (any more). And
once a result was told, no later answer makes the update undone: some services give a result once.

Two things leave it open what is in a model: an update that got no answer, or one of a server in trouble (5xx), which
`unanswered` tells of; and a checkpoint that nobody saved here, which stands in the lineage as such.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, cast

import attrs
import orjson

from tinker_actors.errors import DecodeError
from tinker_actors.wire import codec, protobuf
from tinker_actors.wire.compression import decompress
from tinker_actors.wire.payload import PROTOBUF
from tinker_actors.wire.training import ForwardRequest

__all__ = ["Exchange", "Recording", "Update", "describe_reply", "describe_request", "differences"]

_LARGEST = 256 << 20  # bytes of a body, decompressed; as the embedded service takes
_PREFIX = "/api/v1/"
_NAMES = frozenset({"model_id", "session_id", "sampling_session_id", "seq_id", "model_seq_id", "model_path"})
"""Fields that say whom a request is for, or where it stands, but not what it asks for."""
_UPDATES = ("forward_backward", "optim_step")
_CHECKPOINTS = ("save_weights", "load_weights")
_UNTOLD = frozenset({404, 408, 410, 429, 500, 502, 503, 504})
"""Statuses of answers to polls that leave open what became of the request."""
Fields = Mapping[str, Any]
_Entry = tuple["Update", bool]
"""An update, and whether its request was answered."""


@attrs.define(kw_only=True)
class Exchange:
    """A request and, once it is there, the service's answer.

    Attributes:
        number: its place in the order in which requests came, from 0.
        at: when it came, in seconds of the clock of the loop.
        method: of HTTP.
        path: without what stands behind `?`.
        fields: the plain values of its body's top level: texts, numbers, flags.
        content: a digest of what it asks for; the same for the same.
        status: of the answer; None while there is none, or if the service could not be reached.
        reply: the answer's plain values, likewise.
        delivered: the answer was sent on to the client, whole.
    """

    number: int
    at: float
    method: str
    path: str
    fields: Fields = attrs.field(factory=dict[str, Any])
    content: str = ""
    status: int | None = None
    reply: Fields = attrs.field(factory=dict[str, Any])
    delivered: bool = False

    @property
    def endpoint(self) -> str:
        """The path's end: `forward_backward`, `client/config`, `sessions/<id>/finish`."""
        return self.path.removeprefix(_PREFIX)

    @property
    def model_id(self) -> str | None:
        """The model it is for."""
        return cast("str | None", self.fields.get("model_id"))

    @property
    def seq_id(self) -> int | None:
        """Its number on the model."""
        return cast("int | None", self.fields.get("seq_id"))

    @property
    def accepted(self) -> bool:
        """Whether the service took it."""
        return self.status is not None and 200 <= self.status < 300


@attrs.frozen
class Update:
    """A change of a model.

    Attributes:
        kind: a gradient, a step of the optimizer, or the loading of a checkpoint of which nothing is known.
        content: the digest of its request; of a checkpoint, its path.
    """

    kind: Literal["forward_backward", "optim_step", "load_weights"]
    content: str


@attrs.define(eq=False)
class Recording:
    """All exchanges, in order; grows while it is recorded.

    Attributes:
        exchanges: the exchanges.
    """

    exchanges: list[Exchange] = attrs.field(factory=list[Exchange])

    def of(self, *endpoints: str) -> Iterator[Exchange]:
        """Yield what was asked of some endpoints and taken by the service."""
        return (one for one in self.exchanges if one.accepted and one.endpoint in endpoints)

    def failed(self) -> frozenset[str]:
        """Return the ids of the promises that the service said to have failed."""
        polls = (
            one for one in self.exchanges if one.endpoint == "retrieve_future" and one.status is not None
        )
        return frozenset(_asked(one) for one in polls if _says_failed(one)) - self._told()

    def _told(self) -> frozenset[str]:
        """Return the ids of the promises whose results were told."""
        polls = self.of("retrieve_future")
        return frozenset(_asked(one) for one in polls if not _says_later(one) and not _says_failed(one))

    def open_promises(self, *endpoints: str) -> list[str]:
        """Return the ids of promises of some endpoints whose outcome was never asked for, or not to the end."""
        told = self._told() | self.failed()
        given = dict.fromkeys(_promise(one) for one in self.of(*endpoints))
        return [promise for promise in given if promise and promise not in told]

    def lineage(self, model_id: str, *, failed: Iterable[str] = ()) -> list[Update]:
        """Return the updates that are in a model, those of the checkpoint it was loaded from first.

        Args:
            model_id: the model.
            failed: promises that are known to have failed, beside those the recording tells of.
        """
        lines = self._lineages(self.failed() | frozenset(failed))
        return [update for update, answered in lines.get(model_id, ()) if answered]

    def unanswered(self, model_id: str) -> list[Update]:
        """Return the updates that may be in a model or not, for the service was asked for them and did not answer.

        Args:
            model_id: the model; what the checkpoints that it was loaded from may hold counts as well.
        """
        lines = self._lineages(self.failed())
        return [update for update, answered in lines.get(model_id, ()) if not answered]

    def _lineages(self, failed: frozenset[str]) -> dict[str, list[_Entry]]:
        models: dict[str, list[_Entry]] = {}
        saved: dict[str, list[_Entry]] = {}
        paths = self._saved_paths()
        promises: set[str] = set()
        for one in self._changes(failed):
            promise, model_id = _promise(one), str(one.model_id)
            if promise in promises:
                continue
            promises |= {promise} if promise else set()
            content = models.setdefault(model_id, [])
            if one.endpoint == "load_weights":
                path = str(one.fields.get("path"))
                models[model_id] = list(saved.get(path, [(Update("load_weights", path), True)]))
            elif one.endpoint == "save_weights":
                path = paths.get(promise, f"tinker://{model_id}/weights/{one.fields.get('path')}")
                saved[path] = list(content)
            else:
                content.append((Update(cast("Any", one.endpoint), one.content), one.accepted))
        return models

    def _changes(self, failed: frozenset[str]) -> Iterator[Exchange]:
        """Yield what makes up lineages: what was taken and did not fail, and updates without an answer."""
        for one in self.exchanges:
            if one.model_id is None or one.fields.get("forward_only") or _promise(one) in failed:
                continue
            update = one.endpoint in _UPDATES
            if (update and _leaves_open(one)) or (one.accepted and (update or one.endpoint in _CHECKPOINTS)):
                yield one

    def _saved_paths(self) -> dict[str, str]:
        """Return where each promised checkpoint lies, as the service said."""
        return {
            _asked(one): str(one.reply["path"])
            for one in self.of("retrieve_future")
            if isinstance(one.reply.get("path"), str)
        }

    def times_accepted(self, *endpoints: str) -> Counter[str]:
        """Count how often each content was carried out; a repetition that got the first promise counts once."""
        failed = self.failed()
        taken = (one for one in self.of(*endpoints) if _promise(one) not in failed)
        seen = {(one.content, _promise(one) or str(one.number)) for one in taken}
        return Counter(content for content, _ in seen)


def _leaves_open(one: Exchange) -> bool:
    """Whether there is no answer that says if the request was taken."""
    return one.status is None or one.status >= 500


def _promise(one: Exchange) -> str:
    return str(one.reply.get("request_id", ""))


def _asked(one: Exchange) -> str:
    """Return the promise that a poll asks for."""
    return str(one.fields.get("request_id", ""))


def _says_later(one: Exchange) -> bool:
    return one.reply.get("type") == "try_again" or one.reply.get("status") == "complete_metadata"


def _says_failed(one: Exchange) -> bool:
    """Whether an answer to a poll says that the request failed: by its status, or by its body."""
    if not one.accepted:
        return one.status not in _UNTOLD
    return "error" in one.reply or "error_message" in one.reply


# ---------------------------------------------------------------------------------------------------- bodies


def describe_request(content_type: str, encoding: str, body: bytes) -> tuple[Fields, str]:
    """Return a body's plain values, and the digest of what it asks for.

    Args:
        content_type: the header.
        encoding: the header `content-encoding`.
        body: as it came.
    """
    value = _read_body(content_type, encoding, body)
    if not isinstance(value, dict):
        return {}, hashlib.sha256(body).hexdigest()
    asked = {name: part for name, part in value.items() if name not in _NAMES}
    return _plain(value), hashlib.sha256(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)).hexdigest()


def describe_reply(content_type: str, body: bytes) -> Fields:
    """Return the plain values of an answer; of protobuf, none."""
    if content_type.partition(";")[0] == PROTOBUF:
        return {}
    try:
        value = orjson.loads(body) if body else None
    except orjson.JSONDecodeError:
        return {}
    return _plain(value) if isinstance(value, dict) else {}


def _read_body(content_type: str, encoding: str, body: bytes) -> Any:  # JSON
    try:
        content = decompress(body, encoding, limit=_LARGEST)
        if content_type.partition(";")[0] != PROTOBUF:
            return orjson.loads(content) if content else None
        decoded = protobuf.decode_training(content)
        value = orjson.loads(codec.encode(decoded, newer=True))
        return value | {"forward_only": isinstance(decoded, ForwardRequest)}
    except (DecodeError, orjson.JSONDecodeError):
        return None


def _plain(value: Mapping[str, object]) -> Fields:
    return {name: one for name, one in value.items() if isinstance(one, str | int | float | bool)}


def differences(expected: Sequence[Update], found: Sequence[Update]) -> tuple[int, int]:
    """Return how many updates are in a lineage too often (or should not be there), and how many are not there."""
    wanted, there = Counter(expected), Counter(found)
    return sum((there - wanted).values()), sum((wanted - there).values())
