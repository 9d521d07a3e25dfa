"""The journal of a plain service, in memory: it survives whatever dies but the process.

It is bounded: when more than `max_bytes` have been recorded since the last checkpoint, it forgets what they were, and
`complete` says so until a checkpoint makes up for it. `protocol.journal_rules` has the rules.
"""

from __future__ import annotations

from collections.abc import Sequence

from tinker_actors.protocol.journal import (
    Decision,
    Intent,
    ModelFacts,
    Operation,
    PartSent,
    Record,
    Witness,
)
from tinker_actors.protocol.journal_rules import Rules
from tinker_actors.wire.training import ForwardBackwardOutput

__all__ = ["MemoryJournal"]


class MemoryJournal(Rules):
    """A journal in memory; see the module.

    Args:
        max_bytes: what the operations since the last checkpoint may weigh.
    """

    def __init__(self, *, max_bytes: int) -> None:
        super().__init__(max_bytes=max_bytes)
        self._model: ModelFacts | None = None
        self._live = False

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

    async def read_witness(self, witness: Witness) -> Operation | None:  # noqa: ARG002 - there is none
        """Return None; see `witness_at`. No checkpoint."""
        return None

    def done(self, position: int, output: ForwardBackwardOutput | None = None, *, keep: bool = False) -> None:  # noqa: ARG002 - no witness is kept
        """The operation has its result. If it is not one to be replayed, nothing of it is needed any more."""
        self.settle(position, keep=keep)

    def strike(self, position: int, *, freed: Sequence[int] = ()) -> None:  # noqa: ARG002 - as `accepted`
        """The operation failed and had no effect."""
        self.drop(position)

    def fall_back(self, *, gone: bool = True) -> bool:  # noqa: ARG002 - what is left out is of use to another process only
        """Go back to what was known before the latest checkpoint, if it is held."""
        return super().fall_back()
