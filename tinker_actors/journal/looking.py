"""Looking at a run from outside: nothing of its journal is changed, and whoever has it open is not disturbed.

Theory of operation. The writer holds the database for itself, so a copy is read: the database and what stands in its
write-ahead log. A copy that was made while the writer moved pages from one to the other may not fit together; it is
checked, and made anew; and so it is if the log went away meanwhile, as it does when the writer closes it. What it shows
is the run at that moment.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

import attrs

from tinker_actors.errors import JournalError
from tinker_actors.journal.schema import DATABASE
from tinker_actors.journal.tables import Tables, read_tables
from tinker_actors.protocol.retention import RunCheckpoint
from tinker_actors.wire.codec import JsonValue

__all__ = ["RunSeen", "look_at"]

_COPIES: Final = 5  # that are tried; a writer moves pages seldom


@attrs.frozen(kw_only=True)
class RunSeen:
    """A run as its journal has it.

    Attributes:
        steps: how many are decided.
        incarnation: how often it was opened.
        facts: what was noted about it, by name.
        checkpoints: those that are known, in order.
    """

    steps: int
    incarnation: int
    facts: Mapping[str, JsonValue]
    checkpoints: tuple[RunCheckpoint, ...]


def look_at(folder: str | os.PathLike[str]) -> RunSeen:
    """Read a run's journal, whether a process has it open or not.

    Raises:
        JournalError: there is none, or it cannot be read.
    """
    file = Path(folder) / DATABASE
    if not file.is_file():
        raise JournalError(f"there is no run in {folder}: {file} is missing", path=str(file))
    failure: Exception | None = None
    for _ in range(_COPIES):
        try:
            return _seen(_read_copy(file))
        except (sqlite3.DatabaseError, OSError) as error:
            failure = error
    raise JournalError(f"{file} cannot be read: {failure}", path=str(file)) from failure


def _read_copy(file: Path) -> Tables:
    with tempfile.TemporaryDirectory(prefix="tinker-actors-") as folder:
        copy = Path(folder) / file.name
        shutil.copyfile(file, copy)
        log = file.with_name(file.name + "-wal")
        if log.is_file():
            shutil.copyfile(log, copy.with_name(copy.name + "-wal"))
        with closing(sqlite3.connect(copy)) as database:
            return read_tables(database, file)


def _seen(tables: Tables) -> RunSeen:
    return RunSeen(
        steps=tables.progress.steps,
        incarnation=tables.incarnation,
        facts=tables.meta.get("facts", {}),
        checkpoints=tuple([one.of_run() for one in tables.states if one.name is not None]),
    )
