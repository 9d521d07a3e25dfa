"""Where a run goes on, and how it came there. Pure."""

from __future__ import annotations

from typing import Literal

import attrs

from tinker_actors.protocol.run_event import RunOpened

__all__ = ["ResumePoint"]


@attrs.frozen(kw_only=True)
class ResumePoint:
    """Where a run goes on, and how it came there.

    Attributes:
        step: the first step that is not decided.
        how: `fresh`: the run has just begun; `attached`: it goes on with the very model that it was left with;
            `restored`: with a new one, made from a checkpoint, to which the steps since then were sent again.
        model_id: the model.
        checkpoint: where it was restored from; None if it was made anew from its seed, or not restored.
        replayed: steps sent again.
        why: why it was restored rather than attached; empty if it was not.
        incarnation: how often the run has been opened, this time included.
        lost: steps that were decided, and that the end of the machine has taken with it; `durability="machine"` loses
            none.
    """

    step: int
    how: Literal["fresh", "attached", "restored"]
    model_id: str
    checkpoint: str | None = None
    replayed: int = 0
    why: str = ""
    incarnation: int = 1
    lost: int = 0

    def event(self, run: str) -> RunOpened:
        """Return the event that says it, of a run of that name."""
        return RunOpened(run=run, **attrs.asdict(self))

    def line(self, run: str) -> str:
        """Return one line that says it, for the log of a run of that name."""
        if self.how == "fresh":
            return f"run {run} begins with model {self.model_id}"
        where = f"run {run}, opened for the {_ordinal(self.incarnation)} time, goes on at step {self.step}"
        if self.lost:
            where += f" ({self.lost} more were decided, and lost with the machine)"
        if self.how == "attached":
            return f"{where} with the very same model {self.model_id}"
        source = "its seed" if self.checkpoint is None else self.checkpoint
        steps = "1 step" if self.replayed == 1 else f"{self.replayed} steps"
        because = f", because {self.why}" if self.why else ""
        return f"{where} with model {self.model_id}, restored from {source}, {steps} sent again{because}"


def _ordinal(number: int) -> str:
    if number % 100 in (11, 12, 13):
        return f"{number}th"
    return f"{number}{({1: 'st', 2: 'nd', 3: 'rd'}).get(number % 10, 'th')}"
