"""What the writer of a journal knows: the next position, and which operations need which bodies.

Everything here is called when an entry's turn comes, by the writer, and gives the rows to be written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import attrs
import orjson

from tinker_actors.errors import InputError, JournalError, JournalFull
from tinker_actors.journal.disk import Buffer
from tinker_actors.journal.schema import Statement, written
from tinker_actors.journal.segments import Segments, digest_of
from tinker_actors.protocol.body import batch_parts
from tinker_actors.protocol.journal import Intent

__all__ = ["Ledger", "Recorded", "meta"]

_OPERATION = "INSERT INTO operations VALUES(?, ?, ?, ?, ?, 0, 0)"
_BODY = "INSERT INTO bodies VALUES(?, ?, ?, ?)"
_REQUEST = "INSERT INTO requests VALUES(?, ?, ?, NULL)"
_GONE = (
    "DELETE FROM operations WHERE position = ?",
    "DELETE FROM requests WHERE position = ?",
    "DELETE FROM witnesses WHERE position = ?",
)


@attrs.frozen
class Recorded:
    """An intent that was written.

    Attributes:
        position: its place in the order.
        body: the hash of its batch, if it has one.
    """

    position: int
    body: str | None


class Ledger:
    """The writer's side of a journal.

    Args:
        segments: where bodies are.
        next_position: what the next operation gets.
        bodies: the hashes of the batches that operations need, by position.
        max_bytes: what the segments may take.
    """

    def __init__(
        self, segments: Segments, *, next_position: int, bodies: Mapping[int, str], max_bytes: int
    ) -> None:
        self._segments = segments
        self._next = next_position
        self._bodies = dict(bodies)
        self._users = Counter(bodies.values())
        self._max_bytes = max_bytes

    @property
    def next_position(self) -> int:
        """What the next operation gets."""
        return self._next

    def record(self, intents: Sequence[Intent]) -> tuple[list[Recorded], list[Statement]]:
        """Write batches; return where the intents stand, and their rows. After a failure nothing is changed.

        Raises:
            JournalError: a batch or a setting cannot be written.
            JournalFull: there is no room for the batches.
            OSError: the disk does not take them.
        """
        details = [_detail(intent) for intent in intents]
        batches = [_pieces(intent) for intent in intents]
        digests = [None if pieces is None else digest_of(pieces) for pieces in batches]
        new = {
            digest: pieces
            for digest, pieces in zip(digests, batches, strict=True)
            if digest is not None and pieces is not None and self._segments.place(digest) is None
        }
        self._check_room(new.values())
        places = {digest: self._segments.put(digest, pieces) for digest, pieces in new.items()}
        rows: list[Statement] = []
        for new_digest, place in places.items():
            self._segments.admit(new_digest, place)
            rows.append((_BODY, (new_digest, place.segment, place.offset, place.length)))
        recorded: list[Recorded] = []
        for intent, detail, digest in zip(intents, details, digests, strict=True):
            rows += self._intent(intent, detail, digest)
            recorded.append(Recorded(self._next, digest))
            self._next += 1
        return recorded, rows

    def _check_room(self, batches: Iterable[Sequence[Buffer]]) -> None:
        held, wanted = self._segments.size, sum(len(piece) for pieces in batches for piece in pieces)
        if wanted and held + wanted > self._max_bytes:
            raise JournalFull(
                f"the journal holds {held:,} bytes since the last checkpoints and may hold {self._max_bytes:,}: "
                f"there is no room for a batch of {wanted:,}",
                path=str(self._segments.folder),
                held=held,
                wanted=wanted,
                limit=self._max_bytes,
            )

    def _intent(self, intent: Intent, detail: str, digest: str | None) -> list[Statement]:
        position = self._next
        if digest is not None:
            self._bodies[position] = digest
            self._users[digest] += 1
        plan = ",".join(map(str, intent.plan))
        rows: list[Statement] = [(_OPERATION, (position, intent.operation.kind, detail, plan, digest))]
        rows += [(_REQUEST, (position, part, number)) for part, number in enumerate(intent.numbers)]
        return rows

    def remove(self, positions: Iterable[int]) -> list[Statement]:
        """Let operations go, and the bodies that only they need; return the rows."""
        rows: list[Statement] = []
        for position in positions:
            rows += [(sql, (position,)) for sql in _GONE]
            digest = self._bodies.pop(position, None)
            if digest is None:
                continue
            self._users[digest] -= 1
            if not self._users[digest]:
                del self._users[digest]
                self._segments.forget([digest])
                rows.append(("DELETE FROM bodies WHERE digest = ?", (digest,)))
        return rows


def _detail(intent: Intent) -> str:
    try:
        return written(intent.operation)
    except TypeError as error:
        raise JournalError(f"an operation cannot be written down: {error}") from error


def _pieces(intent: Intent) -> list[Buffer] | None:
    operation = intent.operation
    if operation.kind not in ("forward", "forward_backward"):
        return None
    try:
        return batch_parts(operation.data)
    except InputError as error:
        raise JournalError(f"a batch cannot be written down: {error}") from error


def meta(name: str, value: object) -> Statement:
    """Return the row of a fact about the run."""
    return "INSERT OR REPLACE INTO meta VALUES(?, ?)", (name, orjson.dumps(value).decode())
