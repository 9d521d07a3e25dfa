"""The journal of a plain service, in memory: it survives whatever dies but the process.

It is bounded: when more than `max_bytes` have been recorded since the last checkpoint, it forgets what they were, and
`complete` says so until a checkpoint makes up for it. See `protocol.journal` for the rules.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from tinker_actors.protocol.journal import (
    STEP_ENDS,
    Checkpoint,
    Decision,
    Intent,
    ModelFacts,
    Operation,
    PartSent,
    Record,
    Witness,
)
from tinker_actors.protocol.step import CHANGING
from tinker_actors.wire.training import ForwardBackwardOutput

__all__ = ["MemoryJournal"]


@attrs.frozen
class _Generation:
    """What was known before the latest checkpoint: the one before it, and what came between the two."""

    checkpoint: Checkpoint | None
    records: tuple[Record, ...]
    weight: int


class MemoryJournal:
    """A journal in memory; see the module.

    Args:
        max_bytes: what the operations since the last checkpoint may weigh.
    """

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._records: dict[int, Record] = {}  # in the order of their positions
        self._weights: dict[int, int] = {}  # of those records that are held in full
        self._weight = 0
        self._next = 0
        self._checkpoint: Checkpoint | None = None
        self._forgotten_before = 0
        self._kept: set[int] = set()
        self._before: _Generation | None = None
        self._model: ModelFacts | None = None
        self._live = False

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The newest saved state."""
        return self._checkpoint

    @property
    def complete(self) -> bool:
        """Whether nothing that `replay` gives was forgotten for lack of room."""
        return all(record.position >= self._forgotten_before for record in self.replay())

    @property
    def model(self) -> ModelFacts | None:
        """The model that takes what is recorded."""
        return self._model

    @property
    def live(self) -> bool:
        """Whether everything that was replayed into that model has its result."""
        return self._live

    def made(self, facts: ModelFacts) -> None:
        """Note a new model."""
        if self._model is None or self._model.model_id != facts.model_id:
            self._live = False
        self._model = facts

    def revived(self) -> None:
        """The model is live."""
        self._live = True

    async def record(
        self,
        intents: Sequence[Intent],
        decision: Decision | None = None,  # noqa: ARG002 - of use to another process only
    ) -> list[int]:
        """Write intents; return their positions. No checkpoint: it is there at once."""
        return [self.add(intent.operation, intent.plan) for intent in intents]

    async def read(self, record: Record) -> Operation:
        """Return a record's operation, which has its batch. No checkpoint."""
        return record.operation

    async def flush(self) -> None:
        """Return at once: there is nothing to wait for."""

    def accepted(self, position: int, part: int, request_id: str) -> None:
        """Keep nothing: promises are of use to another process only."""

    def parts(self, position: int) -> tuple[PartSent, ...]:  # noqa: ARG002 - as `accepted`
        """Return nothing: see `accepted`."""
        return ()

    def witness_at(self, position: int) -> Witness | None:  # noqa: ARG002 - none is kept
        """Return None: a plain service has no witnesses."""
        return None

    def witnesses(self) -> Sequence[Witness]:
        """Return none; see `witness_at`."""
        return ()

    def add(self, operation: Operation, plan: tuple[int, ...] = ()) -> int:
        """Write one intent; return its position."""
        position = self._next
        self._next += 1
        self._records[position] = Record(position, operation, plan=plan)
        self._weights[position] = operation.weight
        self._weight += operation.weight
        if self._before is not None and self._weight + self._before.weight > self._max_bytes:
            self._before = None
        if self._weight > self._max_bytes:
            self._forget()
        return position

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
        self._before = None
        self._kept &= self._records.keys()

    def _drop(self, position: int) -> None:
        self._records.pop(position, None)
        self._kept.discard(position)
        self._weight -= self._weights.pop(position, 0)

    def done(self, position: int, output: ForwardBackwardOutput | None = None, *, keep: bool = False) -> None:  # noqa: ARG002 - no witness is kept
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
            self._drop(position)

    def keeps(self, position: int) -> bool:
        """Whether what an operation made can be made again, and is to be."""
        return position in self._kept

    def release(self, position: int) -> None:
        """Nobody needs what a kept operation made."""
        if position in self._kept:
            self._drop(position)

    def strike(self, position: int, *, freed: Sequence[int] = ()) -> None:  # noqa: ARG002 - as `accepted`
        """The operation failed and had no effect."""
        self._drop(position)

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
        self._before = self._generation(position)
        self._checkpoint = Checkpoint(path, position, weights_access_token)
        kept_from = self._open_step_start(position + 1)  # a state that was loaded ends the step, too
        for at in [at for at in self._records if at <= position]:
            record = self._records[at]
            if at < kept_from or not (record.operation.kind == "forward_backward" or at in self._kept):
                self._drop(at)

    def _generation(self, position: int) -> _Generation | None:
        """Return what a loss would be answered with if the state at `position` were not there."""
        if not self.complete:
            return None
        records = [
            record
            for record in self._records.values()
            if record.position <= position and record.operation.kind in CHANGING
        ]
        weight = sum(record.operation.weight for record in records)
        return _Generation(self._checkpoint, tuple(records), weight) if weight <= self._max_bytes else None

    def fall_back(self) -> bool:
        """Go back to what was known before the latest checkpoint, if it is held."""
        before, self._before = self._before, None
        if before is None:
            return False
        self._checkpoint = before.checkpoint
        later = list(self._records.values())
        self._records = {record.position: record for record in before.records}
        self._records |= {record.position: record for record in later}
        self._records = dict(sorted(self._records.items()))
        self._weights = {at: record.operation.weight for at, record in self._records.items()}
        self._weight = sum(self._weights.values())
        return True

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
