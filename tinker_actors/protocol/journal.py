"""What has to be done again if a model is lost: the journal's rules, and the journal of a plain service.

Theory of operation. Every operation is recorded (its *intent*) before its first byte is sent, and gets the next
position. `checkpointed` names a saved state that holds everything before a position; what stands before it is
forgotten, but for the gradients of a step that was still open then: a saved state holds weights and optimizer, not
the accumulated gradient. After a loss, a new model is loaded from that state and `replay` gives what came after, in
order: gradients, optimizer steps and loads always, other operations only if they have no result yet. A failed
operation is struck out and is never done again.

An `optim_step` ends a step, and so does a `load_state`, which drops the accumulated gradient.

Weights published without a name end with their session, so such an operation may be *kept*: it is replayed although it
has its result, until it is `release`d. A checkpoint behind it keeps it only if no step lies between.

If the latest state turns out to be gone, `fall_back` goes back to the one before it, or to the model's creation, as
long as what came after that is still held.

`MemoryJournal` keeps this in memory and so survives whatever dies but the process. It is bounded: when more than
`max_bytes` have been recorded since the last checkpoint, it forgets what they were, and `complete` says so until a
checkpoint makes up for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

import attrs

from tinker_actors.protocol.chunking import datum_bytes
from tinker_actors.protocol.step import CHANGING, OperationKind
from tinker_actors.wire.input import Datum
from tinker_actors.wire.optimizer import OptimParams
from tinker_actors.wire.sampling import SamplingClientKind
from tinker_actors.wire.training import LossFnType

__all__ = ["Checkpoint", "Journal", "MemoryJournal", "Operation", "Record"]

_STEP_ENDS: frozenset[OperationKind] = frozenset({"optim_step", "load_state"})
_SMALL = 256  # bytes an operation without a batch is taken to weigh


@attrs.frozen(kw_only=True)
class Operation:
    """One training operation, as it was decided; only the fields of its kind are set.

    Attributes:
        kind: which operation.
        data: the batch.
        loss_fn: the loss.
        loss_fn_config: the loss's settings.
        optim_params: the optimizer's settings.
        path: where to load from.
        optimizer: load the optimizer's state too.
        weights_access_token: admits to weights of another account.
        name: what to save under; None for an ephemeral sampler.
        ttl_seconds: how long the service keeps what is saved.
        overwrite: take the place of a state of the same name.
        user_metadata: kept with what is saved.
        sampler_kind: whether samplers of these weights stay with them, or follow later ones.
        recipients: who can read weights saved for use elsewhere.
    """

    kind: OperationKind
    data: tuple[Datum, ...] = ()
    loss_fn: LossFnType = "cross_entropy"
    loss_fn_config: dict[str, float | str] | None = None
    optim_params: OptimParams | None = None
    path: str | None = None
    optimizer: bool = False
    weights_access_token: str | None = attrs.field(default=None, repr=False)
    name: str | None = None
    ttl_seconds: int | None = None
    overwrite: bool = False
    user_metadata: dict[str, str] | None = None
    sampler_kind: SamplingClientKind = "snapshot"
    recipients: tuple[str, ...] | None = None

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Bytes each datum of its batch is taken to weigh on the wire."""
        return tuple(map(datum_bytes, self.data))

    @cached_property
    def data_bytes(self) -> int:
        """Bytes its batch is taken to weigh on the wire."""
        return sum(self.sizes)

    @property
    def weight(self) -> int:
        """Bytes it is taken to weigh."""
        return _SMALL + self.data_bytes


@attrs.define(eq=False)
class Record:
    """An operation at its position.

    Attributes:
        position: its place in the order, from 0.
        operation: what it is.
        done: it has its result.
    """

    position: int
    operation: Operation
    done: bool = False


@attrs.frozen
class Checkpoint:
    """A saved state, weights and optimizer, that holds everything before `position`.

    Attributes:
        path: where it is.
        position: of the operation that saved or loaded it.
        weights_access_token: admits to it, if it is of another account.
    """

    path: str
    position: int
    weights_access_token: str | None = attrs.field(default=None, repr=False)


class Journal(Protocol):
    """Where a TrainingActor writes what it has decided."""

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The newest saved state; None means: start from the model's creation."""
        ...

    @property
    def complete(self) -> bool:
        """Whether everything that `replay` gives is there in full."""
        ...

    def record(self, operation: Operation) -> int:
        """Write an intent; return its position."""
        ...

    def done(self, position: int, *, keep: bool = False) -> None:
        """Note that the operation has its result; `keep` has it replayed all the same."""
        ...

    def keeps(self, position: int) -> bool:
        """Whether an operation is kept; a checkpoint may have made that impossible."""
        ...

    def release(self, position: int) -> None:
        """Replay a kept operation no more."""
        ...

    def strike(self, position: int) -> None:
        """Note that the operation failed and had no effect; it is never done again."""
        ...

    def settled_before(self, position: int) -> bool:
        """Whether every operation before `position` has its result or was struck out."""
        ...

    def checkpointed(self, position: int, path: str, weights_access_token: str | None = None) -> None:
        """Note the state that the operation at `position` saved or loaded; everything before has its result.

        A state older than the newest one known changes nothing.
        """
        ...

    def fall_back(self) -> bool:
        """Forget the newest saved state, which is gone, for the one before.

        Returns:
            False: there is nothing to fall back on.
        """
        ...

    def replay(self) -> Sequence[Record]:
        """What has to be sent to a model that was loaded from the checkpoint, in order."""
        ...


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

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The newest saved state."""
        return self._checkpoint

    @property
    def complete(self) -> bool:
        """Whether nothing that `replay` gives was forgotten for lack of room."""
        return all(record.position >= self._forgotten_before for record in self.replay())

    def record(self, operation: Operation) -> int:
        """Write an intent; return its position."""
        position = self._next
        self._next += 1
        self._records[position] = Record(position, operation)
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

    def done(self, position: int, *, keep: bool = False) -> None:
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

    def strike(self, position: int) -> None:
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
            at
            for at, record in self._records.items()
            if at < position and record.operation.kind in _STEP_ENDS
        ]
        return max(ends, default=-1) + 1

    def replay(self) -> list[Record]:
        """What has to be sent again, in order."""
        return [
            record
            for record in self._records.values()
            if record.operation.kind in CHANGING or not record.done or record.position in self._kept
        ]
