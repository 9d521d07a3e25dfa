"""A journal that outlives its process, as far as a test sees: in memory, opened again as often as a test likes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np

from tinker_actors.errors import JournalError
from tinker_actors.protocol.journal import Decision, Intent, Operation, PartSent, Record, Witness
from tinker_actors.protocol.memory_journal import MemoryJournal
from tinker_actors.wire.training import ForwardBackwardOutput

ROOMY = 10**9


class DiskJournal(MemoryJournal):
    """What a journal on disk keeps, kept in memory.

    Attributes:
        decisions: what was decided, in order.
        written: kinds of the operations in each transaction.
        fails: what the next writes fail with.
        counted: names of the saved states that have ever counted as such.
    """

    def __init__(self) -> None:
        super().__init__(max_bytes=ROOMY)
        self.decisions: list[Decision] = []
        self.written: list[tuple[str, ...]] = []
        self.fails: list[JournalError] = []
        self.counted: list[str] = []
        self._parts: dict[int, list[PartSent]] = {}
        self._steps: dict[int, int] = {}  # position of a gradient to the step it is in
        self._ends: list[int] = []  # positions of what ended steps
        self._witnesses: dict[int, Witness] = {}

    def reopened(self) -> DiskJournal:
        """Return what another process finds."""
        return copy.deepcopy(self)

    async def record(self, intents: Sequence[Intent], decision: Decision | None = None) -> list[int]:
        """Write intents, or fail as planned."""
        if self.fails:
            raise self.fails.pop(0)
        positions = await super().record(intents, decision)
        self.written.append(tuple(intent.operation.kind for intent in intents))
        if decision is not None:
            self.decisions.append(decision)
        for position, intent in zip(positions, intents, strict=True):
            self._parts[position] = [PartSent(number=number, request_id=None) for number in intent.numbers]
            self._used(intent.numbers)
            if intent.operation.kind == "optim_step":
                self._ends.append(position)
        return positions

    def _used(self, numbers: Sequence[int]) -> None:
        model = self.model
        if model is not None and numbers:
            free = tuple(number for number in model.free if number not in numbers)
            highest = max(model.next_number, max(numbers) + 1)
            self._model = attrs.evolve(model, next_number=highest, free=free)

    def accepted(self, position: int, part: int, request_id: str) -> None:
        """Note a promise."""
        old = self._parts[position][part]
        self._parts[position][part] = attrs.evolve(old, request_id=request_id)

    def parts(self, position: int) -> tuple[PartSent, ...]:
        """Return an operation's requests."""
        return tuple(self._parts.get(position, ()))

    def strike(self, position: int, *, freed: Sequence[int] = ()) -> None:
        """Note that an operation failed."""
        super().strike(position, freed=freed)
        if self.model is not None:
            free = tuple(sorted({*self.model.free, *freed}))
            self._model = attrs.evolve(self.model, free=free)

    def checkpointed(self, position: int, path: str, weights_access_token: str | None = None) -> None:
        """Note a saved state."""
        super().checkpointed(position, path, weights_access_token)
        self.counted.append(path.rpartition("/")[2])

    def done(self, position: int, output: ForwardBackwardOutput | None = None, *, keep: bool = False) -> None:
        """Note a result, and keep a witness of it in the first two steps after a saved state."""
        record = self._records.get(position)
        if record is not None and record.operation.kind == "forward_backward" and output is not None:
            self._witness(record, output)
        super().done(position, output, keep=keep)

    def _witness(self, record: Record, output: ForwardBackwardOutput) -> None:
        saved = -1 if self.checkpoint is None else self.checkpoint.position
        step = sum(saved < end < record.position for end in self._ends)
        if step > 1 or record.position in self._witnesses:
            return
        logprobs: Any = output.loss_fn_outputs[0]["logprobs"].data
        self._witnesses[record.position] = Witness(
            position=record.position,
            checkpoint=self.checkpoint,
            which=1 if step == 0 else 2,
            datum=0,
            loss=output.metrics.get("loss:sum"),
            logprobs=np.asarray(logprobs, np.float32),
        )

    def witness_at(self, position: int) -> Witness | None:
        """Return what a gradient computed."""
        return self._witnesses.get(position)

    def witnesses(self) -> Sequence[Witness]:
        """Return all of them."""
        return tuple(self._witnesses.values())

    async def read_witness(self, witness: Witness) -> Operation | None:
        """Return the operation that a witness is of, if it is still held."""
        record = self.held().get(witness.position)
        return None if record is None else record.operation
