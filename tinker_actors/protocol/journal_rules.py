"""What a journal holds and what it lets go, whatever it is written on; see `protocol.journal`. Pure.

Theory of operation. `Rules` holds the operations that come after the newest saved state, and behind them a stack of
*generations*: what was known before each saved state that is still there. To fall back is to take the top of the
stack off. How many generations are held is the journal's own affair: one in memory; on disk as many as it takes until
two newer states have been verified.

What is held has a weight, and a bound; beyond it the operations are forgotten, and `complete` says so.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from tinker_actors.protocol.journal import STEP_ENDS, Checkpoint, Operation, Record
from tinker_actors.protocol.step import CHANGING

__all__ = ["Rules"]


@attrs.frozen
class _Generation:
    """What was known before a saved state: the one before it, and what came between the two."""

    checkpoint: Checkpoint | None
    records: tuple[Record, ...]
    weight: int


class Rules:
    """What is held of the operations of one model; see the module.

    Args:
        max_bytes: what may be held since the last checkpoint; None: there is no bound.
        generations: how many saved states it can fall back on; None: as many as there are.
    """

    def __init__(self, *, max_bytes: int | None = None, generations: int | None = 1) -> None:
        self._max_bytes = max_bytes
        self._generations = generations
        self._records: dict[int, Record] = {}  # in the order of their positions
        self._weights: dict[int, int] = {}  # of those records that are held in full
        self._weight = 0
        self._next = 0
        self._checkpoint: Checkpoint | None = None
        self._forgotten_before = 0
        self._kept: set[int] = set()
        self._older: list[_Generation] = []

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The newest saved state."""
        return self._checkpoint

    @property
    def complete(self) -> bool:
        """Whether nothing that `replay` gives was forgotten for lack of room."""
        return all(record.position >= self._forgotten_before for record in self.replay())

    @property
    def checkpoints(self) -> tuple[Checkpoint | None, ...]:
        """The states it can start from, the newest last; None is the model's creation."""
        return (*[one.checkpoint for one in self._older], self._checkpoint)

    @property
    def records(self) -> dict[int, Record]:
        """What is held behind the newest saved state, and of the step that was open there, in order."""
        return self._records

    def held(self) -> dict[int, Record]:
        """Return everything that is held, of all generations, in order."""
        older = [record for one in self._older for record in one.records]
        return _merged(older, self._records.values()) if older else dict(self._records)

    def add(self, operation: Operation, plan: tuple[int, ...] = ()) -> int:
        """Take an operation in; return its position."""
        position = self._next
        self.insert(Record(position, operation, plan=plan))
        return position

    def insert(self, record: Record) -> None:
        """Take an operation in at a position behind all others."""
        position = record.position
        self._next = position + 1
        self._records[position] = record
        if self._max_bytes is None:
            return
        weight = record.operation.weight
        self._weights[position] = weight
        self._weight += weight
        if self._weight + sum(one.weight for one in self._older) > self._max_bytes:
            self._older.clear()
        if self._weight > self._max_bytes:
            self._forget()

    def _forget(self) -> None:
        """Drop what the operations were; what is under way keeps its place in the order.

        Of what is done, nothing is needed but the last end of a step and the gradients after it: from them a later
        checkpoint learns whether it makes up for the loss.
        """
        first_open = min((at for at, record in self._records.items() if not record.done), default=self._next)
        kept_from = self._open_step_start(first_open) - 1
        self._records = {
            at: Record(at, Operation(kind=record.operation.kind), record.done)
            for at, record in self._records.items()
            if at >= kept_from
        }
        self._weights.clear()
        self._weight = 0
        self._forgotten_before = self._next
        self._older.clear()
        self._kept &= self._records.keys()

    def drop(self, position: int) -> None:
        """Hold an operation no more: it failed and had no effect, or nothing of it is needed."""
        self._records.pop(position, None)
        self._kept.discard(position)
        self._weight -= self._weights.pop(position, 0)

    def settle(self, position: int, *, keep: bool = False) -> None:
        """The operation has its result. If it is not one to be replayed, nothing of it is needed any more."""
        record = self._records.get(position)
        if record is None:
            return
        record.done = True
        if record.operation.kind in CHANGING:
            return
        if keep:
            self._kept.add(position)
        else:
            self.drop(position)

    def keeps(self, position: int) -> bool:
        """Whether what an operation made can be made again, and is to be."""
        return position in self._kept

    def release(self, position: int) -> None:
        """Nobody needs what a kept operation made."""
        if position in self._kept:
            self.drop(position)

    def settled_before(self, position: int) -> bool:
        """Whether every operation before `position` has its result or was struck out."""
        return all(record.done for record in self._records.values() if record.position < position)

    def checkpointed(self, position: int, path: str, weights_access_token: str | None = None) -> None:
        """Forget what the saved state holds.

        Gradients of a step that was still open when it was saved are not in it, so they are kept. Results may come
        in another order than the states were saved in: an older state than the newest one is of no use.
        """
        if self._checkpoint is not None and position <= self._checkpoint.position:
            return
        self._push(position)
        self._checkpoint = Checkpoint(path, position, weights_access_token)
        kept_from = self._open_step_start(position + 1)  # a state that was loaded ends the step, too
        for at in [at for at in self._records if at <= position]:
            record = self._records[at]
            if at < kept_from or not (record.operation.kind == "forward_backward" or at in self._kept):
                self.drop(at)

    def _push(self, position: int) -> None:
        """Keep what a loss would be answered with if the state at `position` were not there."""
        generation = self._generation(position)
        if generation is None:
            self._older.clear()
            return
        self._older.append(generation)
        if self._generations is not None:
            del self._older[: -self._generations]

    def _generation(self, position: int) -> _Generation | None:
        if not self.complete:
            return None
        records = [
            record
            for record in self._records.values()
            if record.position <= position and record.operation.kind in CHANGING
        ]
        weight = sum(record.operation.weight for record in records)
        return _Generation(self._checkpoint, tuple(records), weight)

    def fall_back(self) -> bool:
        """Go back to what was known before the latest checkpoint, if it is held."""
        if not self._older:
            return False
        before = self._older.pop()
        self._checkpoint = before.checkpoint
        self._records = _merged(before.records, self._records.values())
        self._weights = {at: record.operation.weight for at, record in self._records.items()}
        self._weight = sum(self._weights.values())
        return True

    def lose(self, position: int) -> None:
        """Forget an older saved state than the newest one: it cannot be fallen back on, but the one before it can."""
        for index, one in enumerate(self._older):
            if one.checkpoint is not None and one.checkpoint.position == position:
                del self._older[index]
                if index:
                    self._older[index - 1] = _joined(self._older[index - 1], one)
                return

    def trim(self, position: int) -> None:
        """Let go what is older than the saved state at `position`, which stays."""
        self._older = [
            one for one in self._older if one.checkpoint is not None and one.checkpoint.position >= position
        ]

    def _open_step_start(self, position: int) -> int:
        """Return the position after the last end of a step before `position`."""
        ends = [
            at for at, record in self._records.items() if at < position and record.operation.kind in STEP_ENDS
        ]
        return max(ends, default=-1) + 1

    def replay(self) -> list[Record]:
        """What has to be sent again, in order."""
        return [
            record
            for record in self._records.values()
            if record.operation.kind in CHANGING or not record.done or record.position in self._kept
        ]


def _merged(older: Iterable[Record], newer: Iterable[Record]) -> dict[int, Record]:
    """Return records by position, in order; some may be in both."""
    records = {record.position: record for record in older} | {record.position: record for record in newer}
    return dict(sorted(records.items()))


def _joined(older: _Generation, newer: _Generation) -> _Generation:
    """Return what was known before both, without the saved state between them."""
    records = tuple(_merged(older.records, newer.records).values())
    return _Generation(older.checkpoint, records, sum(record.operation.weight for record in records))
