"""The operations that a journal holds, in memory and as rows, and what their gradients gave."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tinker_actors.journal.schema import Statement
from tinker_actors.journal.store import Store
from tinker_actors.journal.witness import Kept, after_states, kept_of
from tinker_actors.protocol.journal import Checkpoint, Record, Witness
from tinker_actors.protocol.journal_rules import Rules
from tinker_actors.wire.training import ForwardBackwardOutput

__all__ = ["Holding"]

_CREATION = -1  # the position of the model's creation


class Holding:
    """What is held, by the rules; a row goes in the same transaction as what has made it needless.

    Args:
        store: where rows are written.
        rules: what is held.
        witnesses: results that are kept, by position.
    """

    def __init__(self, store: Store, rules: Rules, witnesses: dict[int, Kept]) -> None:
        self.rules = rules
        self._store = store
        self._witnesses = witnesses
        self._rows = set(rules.held())  # positions of the operations that have a row
        self._bytes: int | None = None  # of the batches behind the newest usable state; None: to be counted

    def add(self, record: Record) -> None:
        """Take an operation in whose row is written."""
        self.rules.insert(record)
        self._rows.add(record.position)
        if self._bytes is not None:
            self._bytes += self._weight(record)

    def write(self, rows: Sequence[Statement], *, about: Iterable[int] | None = None) -> None:
        """Write rows, and delete those of operations that are not held any more.

        Args:
            rows: what is written.
            about: which operations may have gone; None: any of them.
        """
        gone = self._gone(self._rows if about is None else about)
        if gone or about is None:
            self._bytes = None
        if not gone:
            self._store.note(rows)
            return
        self._rows.difference_update(gone)
        for at in gone:
            self._witnesses.pop(at, None)
        self._store.later(lambda: [*rows, *self._store.ledger.remove(gone)], self._store.segments.sweep)

    def _gone(self, positions: Iterable[int]) -> list[int]:
        records = self.rules.records
        gone = [at for at in positions if at in self._rows and at not in records]
        if not gone:
            return []
        held = self.rules.held()
        return [at for at in gone if at not in held]

    @property
    def bytes_since_checkpoint(self) -> int:
        """What the batches take that no usable saved state holds."""
        if self._bytes is None:
            self._bytes = sum(map(self._weight, self.rules.records.values()))
        return self._bytes

    def _weight(self, record: Record) -> int:
        body = record.operation.body
        place = None if body is None else self._store.segments.place(body)
        return 0 if place is None else place.length

    # --- witnesses ---------------------------------------------------------------------------------------

    def see(self, position: int, output: ForwardBackwardOutput, states: Iterable[int]) -> list[Statement]:
        """Keep what a gradient gave, if it is one of those that tell what the model was; return the rows.

        Args:
            position: the gradient's.
            output: what it gave.
            states: positions of the newest usable saved state, and of those that were put in line after it.
        """
        known = [*states, _CREATION] if self.rules.checkpoint is None else states
        kept = kept_of(output) if after_states(self.rules.records, position, known) else None
        if kept is None:
            return []
        self._witnesses[position] = kept
        return [kept.row(position)]

    def witness_at(self, position: int) -> Witness | None:
        """Return what a gradient gave, seen from the newest usable state."""
        return self._witness(position, self.rules.checkpoint, self.rules.records)

    def witnesses(self) -> list[Witness]:
        """Return what is kept, seen from each usable state, oldest first."""
        held = self.rules.held()
        found = [
            self._witness(position, checkpoint, held)
            for checkpoint in self.rules.checkpoints
            for position in sorted(self._witnesses)
        ]
        return [one for one in found if one is not None]

    def _witness(
        self, position: int, checkpoint: Checkpoint | None, records: dict[int, Record]
    ) -> Witness | None:
        kept = self._witnesses.get(position)
        start = _CREATION if checkpoint is None else checkpoint.position
        which = None if kept is None else after_states(records, position, [start]).get(start)
        if kept is None or which is None:
            return None
        return Witness(
            position=position,
            checkpoint=checkpoint,
            which=which,
            datum=kept.datum,
            loss=kept.loss,
            logprobs=kept.logprobs,
        )
