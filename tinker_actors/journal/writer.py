"""The one writer of a journal: entries in, committed in the order they came, together where they come together.

Theory of operation. An entry says what it writes when its turn comes: bodies first, which are appended to the segments,
then rows, which go into one transaction with those of all other entries that were waiting. So a hundred notes cost one
commit. An entry is told what became of it, in the order of the entries.

If an entry's body cannot be written, only this entry fails, and nothing of it is there. If a transaction cannot be
committed, the journal is *broken*: what its owner believes and what is on disk differ from then on, so that nothing is
written any more, and every later entry fails. The run is resumed from what is on disk.

`Inline` does all this in the caller, for virtual time and for tests that crash at a chosen point; `Threaded` in a
thread of its own, so that the loop goes on.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import attrs

from tinker_actors.errors import JournalError
from tinker_actors.journal.disk import Disk
from tinker_actors.journal.schema import Statement
from tinker_actors.journal.segments import Segments

__all__ = ["Entry", "Inline", "Threaded", "Writer"]

Told: TypeAlias = Callable[[JournalError | None], None]


@attrs.frozen(eq=False)
class Entry:
    """Something to be written.

    Attributes:
        work: is called when its turn comes, in the writer's thread: writes bodies and returns rows.
        told: is called with what became of it, in the writer's thread; None if nobody waits.
        after: is called in the writer's thread when it is committed.
    """

    work: Callable[[], Sequence[Statement]]
    told: Told | None = None
    after: Callable[[], None] | None = None


class Writer(ABC):
    """Writes entries; see the module.

    Args:
        disk: how files are reached.
        database: the journal's.
        segments: the bodies'.
        stamp: gives the rows that go with every transaction.
    """

    def __init__(
        self, disk: Disk, database: sqlite3.Connection, segments: Segments, stamp: Callable[[], Statement]
    ) -> None:
        self._disk = disk
        self._database = database
        self._segments = segments
        self._stamp = stamp
        self._path: Path = disk.path_of(database)
        self.broken: JournalError | None = None

    @abstractmethod
    def put(self, entry: Entry) -> None:
        """Put an entry in line."""

    @abstractmethod
    def stop(self) -> None:
        """Write what is in line, and nothing after that."""

    def _write(self, entries: Sequence[Entry]) -> None:
        """Write some entries together."""
        rows: list[Statement] = []
        ready: list[Entry] = []
        for entry in entries:
            if self.broken is not None:
                _tell(entry, self.broken)
                continue
            try:
                rows += entry.work()
            except Exception as error:  # noqa: BLE001 - whatever it is, who waits is told, and the writer lives on
                self._failed(entry, error)
            else:
                ready.append(entry)
        if not ready:
            return
        try:
            self._commit(rows)
        except Exception as error:  # noqa: BLE001 - as above
            self._break(error)
            for entry in ready:
                _tell(entry, self.broken)
            return
        for entry in ready:
            if entry.after is not None:
                entry.after()
            _tell(entry, None)

    def _commit(self, rows: Sequence[Statement]) -> None:
        self._segments.sync()
        if not rows:
            return
        execute = self._database.execute
        execute("BEGIN IMMEDIATE")
        try:
            for sql, values in rows:
                execute(sql, values)
            execute(*self._stamp())
            self._disk.commit(self._database)
        except Exception:
            if self._database.in_transaction:
                self._database.rollback()
            raise

    def _failed(self, entry: Entry, error: Exception) -> None:
        if entry.told is None:
            self._break(error)
        _tell(entry, self._error(error))

    def _break(self, error: Exception) -> None:
        self.broken = self._error(error)

    def _error(self, error: Exception) -> JournalError:
        if isinstance(error, JournalError):
            return error
        broken = JournalError(f"the journal cannot be written: {error}", path=str(self._path))
        broken.__cause__ = error
        return broken


def _tell(entry: Entry, error: JournalError | None) -> None:
    if entry.told is not None:
        entry.told(error)


class Inline(Writer):
    """Writes each entry at once, in the caller."""

    def put(self, entry: Entry) -> None:
        """Write an entry."""
        self._write([entry])

    def stop(self) -> None:
        """Everything is written."""


class Threaded(Writer):
    """Writes in a thread of its own: all that has come in while the last entries were written goes together."""

    def __init__(
        self, disk: Disk, database: sqlite3.Connection, segments: Segments, stamp: Callable[[], Statement]
    ) -> None:
        super().__init__(disk, database, segments, stamp)
        self._line: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        # A daemon: a disk that hangs must not keep the process. Whoever wants everything on disk closes the journal.
        self._thread = threading.Thread(target=self._run, name="tinker_actors journal", daemon=True)
        self._thread.start()

    def put(self, entry: Entry) -> None:
        """Put an entry in line."""
        self._line.put(entry)

    def stop(self) -> None:
        """Write what is in line, and end the thread. In a forked child there is none."""
        self._line.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            entries = [self._line.get()]
            while not self._line.empty():
                entries.append(self._line.get())
            self._write([entry for entry in entries if entry is not None])
            if None in entries:
                return
