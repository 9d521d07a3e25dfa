"""When a run saves a checkpoint by itself, and what its checkpoints are called. Pure.

A checkpoint costs the service a save, and spares a restore the replay of what came before it. So it is due by what a
restore would cost: steps, seconds or tokens since the last one, whichever comes first; and when half of the room that
the journal may take is filled with what no checkpoint holds, so that there is room for the other half until two
checkpoints have made it needless.
"""

from __future__ import annotations

import math
import re
from typing import Final, cast

import attrs

from tinker_actors.errors import InputError

__all__ = ["JOURNAL_BYTES", "CheckpointPolicy", "Unsaved", "checkpoint_name", "due", "run_name"]

JOURNAL_BYTES: Final = 4 * 1024**3
"""What the batches of a run may take on disk, if nobody says otherwise.

Half of it is what a restore may have to send again, 400 batches of 5 MB, before a checkpoint is due for that reason
alone; and all of it fits on the disk of a small machine.
"""
_FILLED: Final = 0.5  # of the journal's room
_NAME_WIDTH: Final = 80  # characters; a name may have more (`protocol.batch`), but people read it
_NO_SIGN: Final = re.compile("[^A-Za-z0-9_.-]+")


@attrs.frozen(kw_only=True)
class CheckpointPolicy:
    """When a run saves a checkpoint by itself: whichever comes first. None never makes it due.

    Between checkpoints nothing is lost: what was decided since the last one is in the journal. It is what a restore
    has to send again.

    Attributes:
        steps: after so many decided steps.
        seconds: when so many have passed since the last one, at the end of a step.
        tokens: after so many trained tokens.

    Raises:
        InputError: a value that is not positive.
    """

    steps: int | None = 100
    seconds: float | None = 1800.0
    tokens: int | None = None

    def __attrs_post_init__(self) -> None:
        for name, count in (("steps", self.steps), ("tokens", self.tokens)):
            if count is not None and not _is_count(count):
                raise InputError(f"checkpoints.{name}", count, "must be a whole number from 1, or None")
        if self.seconds is not None and not _is_time(self.seconds):
            raise InputError("checkpoints.seconds", self.seconds, "must be a positive number, or None")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_time(value: object) -> bool:
    good = isinstance(value, int | float) and not isinstance(value, bool)
    return good and 0 < cast("float", value) < math.inf


@attrs.frozen(kw_only=True)
class Unsaved:
    """What was decided since the last checkpoint was put in line.

    Attributes:
        steps: how many steps.
        seconds: how long ago that was.
        tokens: how many were trained.
        filled: the share of the journal's room that it takes.
    """

    steps: int
    seconds: float
    tokens: int
    filled: float = 0.0


def due(policy: CheckpointPolicy, unsaved: Unsaved) -> str | None:
    """Return why a checkpoint is due, in a few words; None if it is not."""
    if unsaved.steps == 0:
        return None
    if policy.steps is not None and unsaved.steps >= policy.steps:
        return f"{unsaved.steps} steps"
    if policy.tokens is not None and unsaved.tokens >= policy.tokens:
        return f"{unsaved.tokens} tokens"
    if policy.seconds is not None and unsaved.seconds >= policy.seconds:
        return f"{unsaved.seconds:.0f} seconds"
    if unsaved.filled >= _FILLED:
        return f"{unsaved.filled:.0%} of the journal's room"
    return None


def run_name(directory_name: str) -> str:
    """Return what stands for a run in the names of its checkpoints: its directory, in signs that names may have."""
    name = _NO_SIGN.sub("-", directory_name).strip("-.")[:_NAME_WIDTH]
    return name or "run"


def checkpoint_name(run: str, step: int) -> str:
    """Return the name of the checkpoint that holds a run's first `step` steps, such as `addition-000120`."""
    return f"{run}-{step:06d}"
