"""What the tables say."""

from __future__ import annotations

import json
import math
import sqlite3
from collections import defaultdict
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import attrs

from tinker_actors.errors import JournalError
from tinker_actors.journal.catalogue import SavedState
from tinker_actors.journal.contents import Station
from tinker_actors.journal.progress import Progress
from tinker_actors.journal.schema import FORMAT, operation_of
from tinker_actors.journal.segments import Place
from tinker_actors.journal.witness import Kept
from tinker_actors.protocol.journal import PartSent, Record

__all__ = ["Tables", "read_progress", "read_tables"]


@attrs.define(eq=False, kw_only=True)
class Tables:
    """What the tables say.

    Attributes:
        meta: facts by name.
        records: what is held, in order.
        kept: positions of those that are replayed although they are done, and change nothing.
        bodies: hashes of the batches, by position.
        places: where the batches lie, by hash.
        parts: the open requests.
        states: the saved states, in order.
        progress: the last decided step.
        witnesses: results that are kept.
    """

    meta: dict[str, Any]
    records: dict[int, Record]
    kept: set[int]
    bodies: dict[int, str]
    places: dict[str, Place]
    parts: dict[int, tuple[PartSent, ...]]
    states: list[SavedState]
    progress: Progress
    witnesses: dict[int, Kept]

    @property
    def incarnation(self) -> int:
        """How often the journal has been opened."""
        return cast("int", self.meta.get("incarnation", 0))

    @property
    def next_position(self) -> int:
        """What the next operation gets."""
        return cast("int", self.meta.get("position", 0))

    @property
    def station(self) -> Station | None:
        """Where it was written last."""
        written = self.meta.get("written")
        return None if written is None else Station(**written)

    def usable(self) -> list[SavedState]:
        """The states that a restore can start from, in order."""
        return [one for one in self.states if one.usable]


def read_tables(database: sqlite3.Connection, file: Path) -> Tables:
    """Read all tables.

    Raises:
        sqlite3.Error: the file is no such database, or damaged.
        JournalError: it is a journal of another format.
    """
    (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict)
    meta = {name: json.loads(value) for name, value in database.execute("SELECT * FROM meta")}
    if meta.get("format") != FORMAT:
        raise JournalError(
            f"{file} is a journal of format {meta.get('format')}, and this version reads {FORMAT}",
            path=str(file),
        )
    records: dict[int, Record] = {}
    bodies: dict[int, str] = {}
    kept: set[int] = set()
    for position, kind, detail, plan, body, done, keep in database.execute(
        "SELECT * FROM operations ORDER BY position"
    ):
        records[position] = Record(position, operation_of(kind, detail, body), done == 1, _plan(plan))
        if body is not None:
            bodies[position] = body
        if keep:
            kept.add(position)
    rows = database.execute("SELECT digest, segment, offset, length FROM bodies")
    return Tables(
        meta=meta,
        records=records,
        kept=kept,
        bodies=bodies,
        places={digest: Place(*place) for digest, *place in rows},
        parts=_parts(database),
        states=_states(database),
        progress=attrs.evolve(read_progress(database), loss_fn=_loss_fn(meta)),
        witnesses={
            position: Kept.read(*kept)
            for position, *kept in database.execute("SELECT * FROM witnesses ORDER BY position")
        },
    )


def _loss_fn(meta: dict[str, Any]) -> str | None:
    """Return the loss that was named last; journals of earlier versions have it among the facts."""
    return cast("str | None", meta.get("loss_fn", meta.get("facts", {}).get("loss")))


@lru_cache
def _plan(written: str) -> tuple[int, ...]:
    return tuple(map(int, written.split(","))) if written else ()


def read_progress(database: sqlite3.Connection, *, before: float = math.inf) -> Progress:
    """Return what was decided last, of what was decided before a position.

    Raises:
        sqlite3.Error: the database is damaged.
    """
    sql = "SELECT step, after, tokens FROM decisions WHERE position < ? ORDER BY step DESC LIMIT 1"
    row = database.execute(sql, (before,)).fetchone()
    if row is None:
        return Progress()
    step, after, tokens = row
    return Progress(steps=step + 1, loop_state=after, tokens=tokens)


def _parts(database: sqlite3.Connection) -> dict[int, tuple[PartSent, ...]]:
    parts: defaultdict[int, list[PartSent]] = defaultdict(list)
    for position, number, request_id in database.execute(
        "SELECT position, number, request_id FROM requests ORDER BY position, part"
    ):
        parts[position].append(PartSent(number=number, request_id=request_id))
    return {position: tuple(sent) for position, sent in parts.items()}


def _states(database: sqlite3.Connection) -> list[SavedState]:
    states = []
    for row in database.execute("SELECT * FROM checkpoints ORDER BY position"):
        state = SavedState(*row)
        state.usable, state.pinned = bool(state.usable), bool(state.pinned)
        states.append(state)
    return states
