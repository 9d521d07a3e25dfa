"""Whether a process may go on with the model of an earlier one, and with what it has to begin. Pure.

*Re-attach* goes on with the very same weights. It is done only if nothing speaks against it; else a new model is made
of the newest saved state, and what came after is sent again (*restore*). What speaks against it, first things first:

    the run is opened on another backend
    the model of the earlier process was itself still being restored
    the journal was written on another machine, or before its last start, and not synced to the disk
    the journal is a copy: whoever opens the other one may go on with the same model, and both would train it
    the run stood still for longer than 0.8 of what the service lets a session live without a beat, or for no one knows
        how long, since the clock was set back
    the session of the earlier process has ended
    the model carries a gradient of a step that was never decided
    a request is in doubt, and the service would carry it out again
    the service does not know the model, or says that it is corrupted
    the model was made of a saved state and has saved none since, so that a restart of the service could have set it
        back to what nobody has seen of it

A model that was rolled back shows it when it computes (`protocol.witness`): it is tested after it was gone on with, and
before any result is taken from it.

That the run's lock is held is no row of the table: who has no lock has no journal.

In doubt is a request without a promise: whether it was sent is not known. If it is sent again with the same number and
the same bytes, a service that remembers numbers says what became of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import attrs

from tinker_actors.protocol.journal import STEP_ENDS, PartSent, Record
from tinker_actors.protocol.retry import DedupeMode
from tinker_actors.protocol.step import CHANGING

__all__ = [
    "GAP_SHARE",
    "Attach",
    "Facts",
    "OpenOperation",
    "Restore",
    "Resumption",
    "decide",
    "decided",
    "in_doubt",
    "is_of_use",
    "undecided",
]

GAP_SHARE: Final = 0.8
"""Of the time that a session lives without a beat: a run that stood still for longer is not sure of it."""


@attrs.frozen(kw_only=True)
class Resumption:
    """What a run knows of the time between two of its processes.

    Attributes:
        same_machine: the journal was written on this machine since it was started, or was synced to the disk.
        gap: seconds since it was last written.
        session_limit: seconds that a service lets a session live without a beat that does not say how many.
        same_backend: it is opened where it was.
        is_copy: the journal is a copy of the one that was written last: whoever has that may go on with the same model.
    """

    same_machine: bool
    gap: float
    session_limit: float
    same_backend: bool = True
    is_copy: bool = False


@attrs.frozen(kw_only=True)
class Facts:
    """What is known of the model of an earlier process; what has not been asked yet counts as good.

    Attributes:
        resumption: what the run knows.
        live: everything that had been replayed into the model had its result.
        dedupe: what the service does with a number it has seen.
        stray: gradients of a step that was not decided may have been sent.
        doubtful: requests that change the model are in doubt.
        session_kept: the session it was made in lives.
        answers: the service knows the model.
        corrupted: the service says that the model is of no use any more.
        session_timeout: seconds that the service lets a session live without a beat, if that is known.
        unguarded: a restart of the service could have set the model back to where no witness tells of it.
    """

    resumption: Resumption
    live: bool
    dedupe: DedupeMode
    stray: bool = False
    doubtful: bool = False
    session_kept: bool = True
    answers: bool = True
    corrupted: bool = False
    session_timeout: float | None = None
    unguarded: bool = False


@attrs.frozen
class Attach:
    """Go on with the same model, as far as it is known."""


@attrs.frozen
class Restore:
    """Make a new one.

    Attributes:
        why: what speaks against going on with the old one.
    """

    why: str


def _stood_still(facts: Facts) -> bool:
    limit = facts.resumption.session_limit if facts.session_timeout is None else facts.session_timeout
    return not 0.0 <= facts.resumption.gap < GAP_SHARE * limit


def _is_repeated(facts: Facts) -> bool:
    return facts.doubtful and facts.dedupe == "none"


_AGAINST: Final[Sequence[tuple[str, Callable[[Facts], bool]]]] = (
    ("it was opened on another backend before", lambda facts: not facts.resumption.same_backend),
    ("its model was being restored when the last process ended", lambda facts: not facts.live),
    (
        "the journal was last written on another machine, or before its last start",
        lambda facts: not facts.resumption.same_machine,
    ),
    (
        "its journal is a copy, and the model may be gone on with from the other",
        lambda facts: facts.resumption.is_copy,
    ),
    ("it stood still for longer than its session is sure to live", _stood_still),
    ("the session of its model has ended", lambda facts: not facts.session_kept),
    ("its model carries a gradient of a step that was not decided", lambda facts: facts.stray),
    ("it is not known whether a request was carried out, and the service would do it again", _is_repeated),
    ("the service does not know its model any more", lambda facts: not facts.answers),
    ("the service says that its model is corrupted", lambda facts: facts.corrupted),
    (
        "its model has saved nothing since it was restored, and may have been set back",
        lambda facts: facts.unguarded,
    ),
)


def decide(facts: Facts) -> Attach | Restore:
    """Say whether the model is gone on with; see the table at the head of the module."""
    for why, speaks in _AGAINST:
        if speaks(facts):
            return Restore(why)
    return Attach()


OpenOperation: TypeAlias = tuple[Record, Sequence[PartSent]]
"""An operation without a result, with its requests."""


def undecided(records: Sequence[Record]) -> list[Record]:
    """Return the gradients of a step that nobody has ended: the user's loop takes that step again, from its begin.

    Args:
        records: what would be replayed, in order.
    """
    tail: list[Record] = []
    for record in records:
        if record.operation.kind in STEP_ENDS:
            tail.clear()
        elif record.operation.kind == "forward_backward":
            tail.append(record)
    return tail


def decided(records: Sequence[Record]) -> dict[int, Sequence[Record]]:
    """Return, by the position of each gradient and each end of a step that was decided, all of that step.

    Args:
        records: what would be replayed, in order.
    """
    steps: dict[int, Sequence[Record]] = {}
    step: list[Record] = []
    for record in records:
        if record.operation.kind in ("forward_backward", "optim_step"):
            step.append(record)
        if record.operation.kind == "optim_step":
            steps |= {one.position: step for one in step}
        if record.operation.kind in STEP_ENDS:
            step = []
    return steps


def in_doubt(operations: Sequence[OpenOperation]) -> bool:
    """Whether one that changes the model has a request of which it is not known whether it was sent."""
    return any(
        record.operation.kind in CHANGING and any(part.request_id is None for part in parts)
        for record, parts in operations
    )


def is_of_use(record: Record) -> bool:
    """Whether an operation of an earlier process is to be sent to a new model, although nobody waits for it."""
    return record.operation.kind != "forward" and not record.operation.is_unnamed
