"""What a run asks of its journal, beside what its model does: see `protocol.journal`. Pure.

The journal knows a checkpoint by its name as soon as its `save_state` is recorded: it is `begun`, with the step and the
tokens of that moment. When it is `checkpointed` it is `done`, and has its path; a failed save is forgotten. The run
then marks it as `verified`, or as `gone`, and describes it. What only older checkpoints need is let go as soon as two
newer ones are verified.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from tinker_actors.protocol.journal import Checkpoint, Journal
from tinker_actors.protocol.retention import RunCheckpoint
from tinker_actors.wire.codec import JsonValue

__all__ = ["RunJournal"]


class RunJournal(Journal, Protocol):
    """The journal of a run.

    Attributes:
        incarnation: how often it was opened, this time included.
        lost_steps: decided steps that the end of the machine has taken with it, when it was opened.
        steadfast: no checkpoint is given up meanwhile: there is nothing to fall back on, and none is marked as gone.
    """

    incarnation: int
    lost_steps: int
    steadfast: bool

    @property
    def facts(self) -> Mapping[str, JsonValue]:
        """What was noted about the run, by name."""
        ...

    async def note(self, **facts: JsonValue) -> None:
        """Write facts about the run, beside those that are there. They are committed when this returns.

        Raises:
            JournalError: they are not there.
        """
        ...

    @property
    def steps(self) -> int:
        """How many steps are decided, those that were skipped included."""
        ...

    @property
    def loss_fn(self) -> str | None:
        """The loss that was named with a decision last; None if none ever was."""
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
    def checkpoints(self) -> Sequence[RunCheckpoint]:
        """All checkpoints that are known, in the order in which they were begun."""
        ...

    @property
    def starts(self) -> Sequence[Checkpoint | None]:
        """What a model can be restored from, the newest last; None is its creation."""
        ...

    def mark(self, name: str, state: Literal["verified", "gone"]) -> bool:
        """Note what was seen of a checkpoint.

        Returns:
            False: there is no such checkpoint, or nothing is left to restore from without it, so it stays.
        """
        ...

    def describe(
        self,
        name: str,
        *,
        metric: float | None = None,
        pinned: bool | None = None,
        ttl_seconds: int | None = None,
    ) -> None:
        """Note more about a checkpoint; what is None stays as it was."""
        ...

    def room_needed(self, size: int) -> int:
        """Return how many bytes are missing for a batch of `size` bytes; 0 if it fits."""
        ...

    @property
    def bytes_since_checkpoint(self) -> int:
        """What the batches take that no checkpoint holds."""
        ...

    @property
    def max_bytes(self) -> int:
        """What all batches may take."""
        ...
