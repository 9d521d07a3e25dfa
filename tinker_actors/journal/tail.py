"""What is done about batches that are not there: a torn tail is cut off, everything else is an error.

Theory of operation. A batch is written before the intent that names it is committed, so a process that is killed loses
none. A machine that dies may: the database can be ahead of the segments. Then the last batches are missing, and what
was decided with them counts as never decided, with all that came after: the model is restored without it, and the
user's loop goes on from the state before it. A batch that is missing while later ones are there was not lost like
that, and nobody can say what else is wrong: that is an error, which says what is lost.

Batches that only an older saved state needs are missed only if a newer one is gone: those states are then none to go
back to.
"""

from __future__ import annotations

import sqlite3

import attrs

from tinker_actors.errors import JournalError
from tinker_actors.journal.ledger import meta
from tinker_actors.journal.schema import Statement
from tinker_actors.journal.segments import Segments
from tinker_actors.journal.tables import Tables, read_progress
from tinker_actors.protocol.journal import STEP_ENDS
from tinker_actors.protocol.step import CHANGING

__all__ = ["Torn", "cut"]


@attrs.frozen(kw_only=True)
class Torn:
    """What was cut off.

    Attributes:
        positions: of the operations.
        rows: what has to be written.
    """

    positions: tuple[int, ...] = ()
    rows: tuple[Statement, ...] = ()


def cut(tables: Tables, database: sqlite3.Connection, segments: Segments, *, check: bool) -> Torn:
    """Take out of the tables what depends on batches that are not there; say what was taken.

    Args:
        tables: what the database says.
        database: where they were read from.
        segments: what the segments have.
        check: the machine may have died: batches that look whole may not be.

    Raises:
        JournalError: a batch is missing that no torn tail has taken.
    """
    missing = _missing(tables, segments, check=check)
    if not missing:
        return Torn()
    rows: list[Statement] = []
    gone = {at for at in missing if tables.records[at].operation.kind not in CHANGING}
    newest = _newest(tables)
    torn = sorted(_needed(tables, newest) & missing)
    if torn:
        _check_tail(tables, database, segments, torn[0], newest)
        gone.update(at for at in tables.records if at >= torn[0])
        decided = read_progress(database, before=torn[0])
        decided = attrs.evolve(decided, loss_fn=tables.progress.loss_fn)
        lost = tables.progress.steps - decided.steps + tables.meta.get("lost_steps", 0)
        tables.meta["lost_steps"], tables.progress = lost, decided
        tables.states = [one for one in tables.states if one.position < torn[0]]
        rows += [
            meta("lost_steps", lost),
            ("DELETE FROM decisions WHERE position >= ?", (torn[0],)),
            ("DELETE FROM checkpoints WHERE position >= ?", (torn[0],)),
        ]
    rows += _shorten(tables, missing - gone, gone)
    for at in gone:
        del tables.records[at]
        tables.parts.pop(at, None)
        tables.witnesses.pop(at, None)
    tables.meta["live"] = False  # the model may have been sent what is not here any more
    return Torn(positions=tuple(sorted(gone)), rows=(*rows, meta("live", False)))


def _missing(tables: Tables, segments: Segments, *, check: bool) -> set[int]:
    """Return the positions of operations without their batch."""
    if not tables.bodies:
        return set()
    last = max(tables.places, key=lambda digest: _order(tables, digest))  # of those that were written
    check = check or not segments.is_whole(last, check=True)
    if not check and segments.are_whole:
        return set()
    needed = _needed(tables, _newest(tables)) if check else set[int]()
    suspects = {digest for at, digest in tables.bodies.items() if at in needed}
    whole = {
        digest: segments.is_whole(digest, check=digest in suspects) for digest in set(tables.bodies.values())
    }
    return {at for at, digest in tables.bodies.items() if not whole[digest]}


def _order(tables: Tables, digest: str) -> tuple[int, int]:
    place = tables.places[digest]
    return place.segment, place.offset


def _newest(tables: Tables) -> int:
    usable = tables.usable()
    return usable[-1].position if usable else -1


def _needed(tables: Tables, state: int) -> set[int]:
    """Return what has to be sent to a model that was loaded from a state, and changes it."""
    ends = [at for at, one in tables.records.items() if at <= state and one.operation.kind in STEP_ENDS]
    opened = max(ends, default=-1)
    return {
        at
        for at, record in tables.records.items()
        if (at > state and record.operation.kind in CHANGING)
        or (opened < at and record.operation.kind == "forward_backward")
    }


def _check_tail(
    tables: Tables, database: sqlite3.Connection, segments: Segments, first: int, newest: int
) -> None:
    """Refuse to call it a torn tail if something that was written later is there."""
    order = _order(tables, tables.bodies[first])
    later = [
        at
        for at, digest in tables.bodies.items()
        if at > first and _order(tables, digest) > order and segments.is_whole(digest, check=True)
    ]
    if first > newest and not later:
        return
    digest = tables.bodies[first]
    file = segments.path(tables.places[digest].segment)
    step = read_progress(database, before=first).steps
    raise JournalError(
        f"the batch of operation {first} is damaged or missing in {file}, and what was written later is there: "
        f"this is no torn tail. Lost are steps {step} to {tables.progress.steps - 1}, as far as no checkpoint holds "
        "them. Put a copy of the file back, or begin a run in another directory, from the newest checkpoint",
        path=str(file),
    )


def _shorten(tables: Tables, missing: set[int], gone: set[int]) -> list[Statement]:
    """Have no way back to states from which what is missing had to be sent again; add what that needs to `gone`."""
    if not missing:
        return []
    kept = [one for one in tables.usable() if not _needed(tables, one.position) & missing]
    oldest = kept[0].position
    rows: list[Statement] = [meta("from_creation", False)]
    tables.meta["from_creation"] = False
    for one in tables.usable():
        if one.position < oldest:
            one.usable = False
            rows.append(one.row())
    needed = _needed(tables, oldest)
    gone.update(at for at in tables.records if at <= oldest and at not in needed)
    return rows
