"""What the failure of one operation means for the training step it belongs to. Pure.

A step is everything up to and including the next `optim_step`. No partial gradient is kept. In a run, *poison* and
*hold* mean: a new model is made and gets everything again but this step.

    the failed operation                      the step so far                   then
    forward_backward, refused or failed       its optim_step is on the wire     poison
    forward_backward, refused or failed       other gradients on the service    poison
    forward_backward, refused or failed       nothing else                      void: the rest of it is not sent
    forward_backward, its result is not had   any                               poison
    optim_step, refused                       gradients on the service          hold: nothing that stands in line behind
                                                                                it is sent; it may be sent again
    optim_step, refused                       nothing else                      fail: only it
    optim_step, failed after it was taken     any                               poison
    load_state, its result is not had         any                               poison
    anything else                             any                               fail: only it
"""

from __future__ import annotations

from typing import Literal

import attrs

__all__ = ["CHANGING", "SAVING", "Consequence", "OperationKind", "Step", "judge"]

OperationKind = Literal[
    "forward",
    "forward_backward",
    "optim_step",
    "save_state",
    "save_for_sampler",
    "save_external",
    "load_state",
]
CHANGING: frozenset[OperationKind] = frozenset({"forward_backward", "optim_step", "load_state"})
"""What changes a model: a loss is answered by doing it again."""
SAVING: frozenset[OperationKind] = frozenset({"save_state", "save_for_sampler", "save_external"})
"""What leaves something on the service that is to outlive the model."""
Consequence = Literal["fail", "hold", "void", "poison"]


@attrs.define(eq=False)
class Step:
    """One step under way.

    Attributes:
        gradients: gradient requests of it that are on their way, or that the service took, and that have not failed.
        closed: its `optim_step` is on its way, or was sent, or may have been by another process.
        decided: its `optim_step` is in the journal, sent or not.
        awaited: gradients whose results are not there.
        failure: why the first gradient of it that failed did.
        positions: what was sent of it, by its places in the journal.
        since: how often the service may have been restarted before it took the first gradient; None: it has taken none.
    """

    gradients: int = 0
    closed: bool = False
    decided: bool = False
    awaited: int = 0
    failure: Exception | None = None
    positions: list[int] = attrs.field(factory=list[int])
    since: int | None = None


def judge(kind: OperationKind, step: Step, *, taken: bool, certain: bool) -> Consequence:
    """Say what follows from a failure.

    Args:
        kind: the operation that failed.
        step: its step; `gradients` no longer counts the failed request.
        taken: the service had accepted it.
        certain: it changed nothing. An operation that was taken, and whose result is not had, may have.
    """
    if kind == "forward_backward":
        return "void" if certain and not step.closed and not step.gradients else "poison"
    if (kind == "optim_step" and taken) or (kind == "load_state" and not certain):
        return "poison"
    return "hold" if kind == "optim_step" and step.gradients else "fail"
