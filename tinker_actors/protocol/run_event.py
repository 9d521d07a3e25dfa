"""What a run tells those who listen, beside what its service tells, as frozen facts."""

from __future__ import annotations

from typing import TypeAlias

import attrs

__all__ = ["CheckpointSaved", "RunDraining", "RunEvent", "RunOpened", "StepDecided", "StepsLost"]


@attrs.frozen(kw_only=True)
class RunOpened:
    """A run begins, or goes on.

    Attributes:
        run: its name, which is that of its directory.
        how: `fresh`, `attached` or `restored`.
        step: the index of its first step that is not decided.
        model_id: its model.
        incarnation: how many processes have opened it.
        checkpoint: what the model was restored from; None for its creation, and if it was not restored.
        replayed: steps that were sent again.
        why: why it was not attached; empty if there is nothing to tell.
        lost: steps that were decided, and that the end of the machine has taken with it.
    """

    run: str
    how: str
    step: int
    model_id: str
    incarnation: int
    checkpoint: str | None = None
    replayed: int = 0
    why: str = ""
    lost: int = 0


@attrs.frozen
class StepsLost:
    """Steps of a run were decided, and the end of the machine has taken them with it: they are to be decided anew.

    Attributes:
        step: the first of them.
        lost: how many.
    """

    step: int
    lost: int


@attrs.frozen
class StepDecided:
    """A step of a run is decided: from now on it is in the weights, whatever dies.

    Attributes:
        step: its index.
        skipped: it trains nothing.
    """

    step: int
    skipped: bool = False


@attrs.frozen
class CheckpointSaved:
    """A checkpoint of a run is saved, and the service was seen to have it.

    Attributes:
        name: its name.
        path: where it is on the service.
        step: how many steps it holds.
    """

    name: str
    path: str
    step: int


@attrs.frozen
class RunDraining:
    """A run is to end after its present step.

    Attributes:
        why: what asked for it.
        step: how many steps are decided.
    """

    why: str
    step: int


RunEvent: TypeAlias = RunOpened | StepsLost | StepDecided | CheckpointSaved | RunDraining
