"""What has to be done again if a model is lost: the journal's rules, and the journal of a plain service.

Theory of operation. Every operation is recorded (its *intent*) before its first byte is sent, and gets the next
position. `checkpointed` names a saved state that holds everything before a position; what stands before it is
forgotten. After a loss, a new model is loaded from that state and `replay` gives what came after, in order:
gradients, optimizer steps and loads always, other operations only if they have no result yet. A failed operation is
struck out and is never done again.

`MemoryJournal` keeps this in memory and so survives whatever dies but the process. It is bounded: when more
than `max_bytes` have been recorded since the last checkpoint, it forgets and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import attrs

from tinker_actors.protocol.chunking import datum_bytes
from tinker_actors.protocol.step import OperationKind
from tinker_actors.wire.input import Datum
from tinker_actors.wire.training import AdamParams, LossFnType

__all__ = ["Checkpoint", "Journal", "MemoryJournal", "Operation", "Record"]

_REPLAYED_ALWAYS: frozenset[OperationKind] = frozenset({"forward_backward", "optim_step", "load_state"})
_SMALL = 256  # bytes an operation without a batch is taken to weigh


@attrs.frozen(kw_only=True)
class Operation:
    """One training operation, as it was decided; only the fields of its kind are set.

    Attributes:
        kind: which operation.
        data: the batch.
        loss_fn: the loss.
        loss_fn_config: the loss's settings.
        adam_params: the optimizer's settings.
        path: where to load from.
        optimizer: load the optimizer's state too.
        name: what to save under; None for an ephemeral sampler.
        ttl_seconds: how long the service keeps what is saved.
    """

    kind: OperationKind
    data: tuple[Datum, ...] = ()
    loss_fn: LossFnType = "cross_entropy"
    loss_fn_config: dict[str, float | str] | None = None
    adam_params: AdamParams | None = None
    path: str | None = None
    optimizer: bool = False
    name: str | None = None
    ttl_seconds: int | None = None

    @property
    def weight(self) -> int:
        """Bytes it is taken to weigh."""
        return _SMALL + sum(map(datum_bytes, self.data))


@attrs.define(eq=False)
class Record:
    """An operation at its position."""

    position: int
    operation: Operation
    done: bool = False


@attrs.frozen
class Checkpoint:
    """A saved state, weights and optimizer, that holds everything before `position`."""

    path: str
    position: int


class Journal(Protocol):
    """Where a TrainingActor writes what it has decided."""

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The newest saved state; None means: start from the model's creation."""

    @property
    def complete(self) -> bool:
        """Whether everything since the checkpoint is still there."""

    def record(self, operation: Operation) -> int:
        """Write an intent; return its position."""

    def done(self, position: int) -> None:
        """The operation has its result."""

    def strike(self, position: int) -> None:
        """The operation failed and had no effect; it is never done again."""

    def settled_before(self, position: int) -> bool:
        """Whether every operation before `position` has its result."""

    def checkpointed(self, position: int, path: str) -> None:
        """A state was saved at `position`."""

    def replay(self) -> Sequence[Record]:
        """What has to be sent to a model that was loaded from the checkpoint, in order."""


class MemoryJournal:
    """A journal in memory; see the module."""

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._records: dict[int, Record] = {}
        self._next = 0
        self._weight = 0
        self._checkpoint: Checkpoint | None = None
        self._forgotten_from: int | None = None

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The newest saved state."""
        return self._checkpoint

    @property
    def complete(self) -> bool:
        """Whether nothing since the checkpoint was forgotten for lack of room."""
        return self._forgotten_from is None

    def record(self, operation: Operation) -> int:
        """Write an intent; return its position."""
        position = self._next
        self._next += 1
        self._records[position] = Record(position, operation)
        self._weight += operation.weight
        if self._weight > self._max_bytes:
            self._forget()
        return position

    def _forget(self) -> None:
        """Drop the bodies; what is under way keeps its place, so that a checkpoint still knows its order."""
        self._forgotten_from = self._next
        self._weight = 0
        for position, record in self._records.items():
            slim = Operation(kind=record.operation.kind)
            self._records[position] = Record(position, slim, record.done)

    def done(self, position: int) -> None:
        """The operation has its result."""
        if position in self._records:
            self._records[position].done = True

    def strike(self, position: int) -> None:
        """The operation failed and had no effect."""
        record = self._records.pop(position, None)
        if record is not None:
            self._weight -= record.operation.weight

    def settled_before(self, position: int) -> bool:
        """Whether every operation before `position` has its result."""
        return all(record.done for record in self._records.values() if record.position < position)

    def checkpointed(self, position: int, path: str) -> None:
        """Forget what the saved state holds.

        Gradients of a step that was still open when it was saved are not in it, so they are kept.
        """
        self._checkpoint = Checkpoint(path, position)
        kept_from = self._open_step_start(position)
        self._records = {
            at: record
            for at, record in self._records.items()
            if at >= position or (at >= kept_from and record.operation.kind == "forward_backward")
        }
        self._weight = sum(record.operation.weight for record in self._records.values())
        if self._forgotten_from is not None and self._forgotten_from <= position:
            self._forgotten_from = None

    def _open_step_start(self, position: int) -> int:
        """Return the position after the last `optim_step` before `position`."""
        closed = [
            at
            for at, record in self._records.items()
            if at < position and record.operation.kind in ("optim_step", "load_state")
        ]
        return max(closed, default=-1) + 1

    def replay(self) -> list[Record]:
        """What has to be sent again, in order."""
        return [
            record
            for _, record in sorted(self._records.items())
            if record.operation.kind in _REPLAYED_ALWAYS or not record.done
        ]
