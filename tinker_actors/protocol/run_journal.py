"""What a run asks of its journal, beside what its model does: see `protocol.journal`. Pure.

Checkpoints are known to it by name. The run notes one as `begun` before its `save_state` is in line; when that is
`checkpointed` the journal itself notes its path and that it is `done`; the run notes that it has been `verified`, or
is `gone`. Bodies that only older checkpoints need may go as soon as two newer ones are verified. `Journal.fall_back`
notes the newest as gone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from tinker_actors.protocol.journal import Journal
from tinker_actors.protocol.retention import RunCheckpoint
from tinker_actors.wire.codec import JsonValue

__all__ = ["RunJournal"]


class RunJournal(Journal, Protocol):
    """The journal of a run."""

    @property
    def identity(self) -> Mapping[str, JsonValue] | None:
        """What the run was begun with, as `Identity.to_json` gave it; None: it has not begun."""
        ...

    async def begin(self, identity: Mapping[str, JsonValue]) -> None:
        """Write what the run is begun with, or goes on with. It is committed when this returns.

        Raises:
            JournalError: it cannot be written.
        """
        ...

    @property
    def incarnation(self) -> int:
        """How often the journal was opened, this time included."""
        ...

    @property
    def decided(self) -> int:
        """How many steps are decided, those that were skipped included."""
        ...

    @property
    def loop_state(self) -> bytes | None:
        """Where the user's loop stands after the last of them; None if there is none."""
        ...

    @property
    def tokens(self) -> int:
        """How many tokens the batches of all decided steps had."""
        ...

    @property
    def last_loss(self) -> str | None:
        """The loss of the latest gradient; None if there is none."""
        ...

    @property
    def checkpoints(self) -> Sequence[RunCheckpoint]:
        """All checkpoints that are known, in the order in which they were begun."""
        ...

    def note(self, checkpoint: RunCheckpoint) -> None:
        """Note a checkpoint, or what has changed about the one of its name. Written in the journal's own time."""
        ...

    def has_room(self, wanted: int) -> bool:
        """Whether so many more bytes may be recorded."""
        ...

    @property
    def filled(self) -> float:
        """The share of its room that is taken by what was recorded since the newest checkpoint."""
        ...
