"""What stands in line and is not sent: the rest of a step that was given up.

Theory of operation. A gradient fails while messages of its step stand in line, or wait for room there: they were
submitted before anybody could know, and would be half a step. So they are told `StepVoid`, up to the `optim_step` that
ends the step; what is submitted later is a new step. If it is the `optim_step` that was refused, its gradient is still
on the service: whatever stood in line behind it would be applied together with that, so none of it is sent, and who
submits later has been told.

It outlives the incarnation, as the line does.
"""

from __future__ import annotations

from typing import Any

import attrs

from tinker_actors.errors import StepVoid
from tinker_actors.kernel import Context
from tinker_actors.kernel.envelope import Envelope

__all__ = ["Void", "step_void"]


@attrs.frozen(eq=False)
class Void:
    """What is not sent any more.

    Attributes:
        cause: why.
        whole_line: everything that was submitted before; else up to the first `optim_step`.
        last_in_line: the `seq` of the last message that stood in line.
        waiting: those that waited for room.
    """

    cause: Exception
    whole_line: bool
    last_in_line: int
    waiting: frozenset[Envelope[Any]]

    @classmethod
    def of_line(cls, cause: Exception, context: Context[Any], *, whole_line: bool) -> Void:
        """Return one of what is in an actor's line now."""
        return cls(cause, whole_line, context.last_admitted, frozenset(context.waiting_for_room))

    def holds(self, call: Envelope[Any]) -> bool:
        """Whether a message was submitted before the failure was known."""
        return call.seq <= self.last_in_line or call in self.waiting

    def error(self) -> StepVoid:
        """Return what such a message is told."""
        return step_void(self.cause)


def step_void(cause: Exception, *, started: bool = False) -> StepVoid:
    """Return what the rest of a step is told of which one part has failed."""
    what = "what it has applied is not the whole gradient" if started else "this part was not sent"
    error = StepVoid(f"another part of this step failed, so {what}: {cause}")
    error.started = started
    error.__cause__ = cause
    return error
