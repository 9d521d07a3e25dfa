"""The way from a journal to its files, and from the writer's thread back to whoever waits."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import trio

from tinker_actors.errors import JournalError
from tinker_actors.journal.disk import Disk
from tinker_actors.journal.ledger import Ledger
from tinker_actors.journal.schema import Statement
from tinker_actors.journal.segments import Segments
from tinker_actors.journal.stamp import Stamp
from tinker_actors.journal.writer import Entry, Inline, Threaded, Writer

__all__ = ["Store"]


class Store:
    """The files of one journal, open for writing.

    Args:
        folder: the run's.
        disk: how files are reached.
        database: the journal's.
        ledger: the writer's side.
        segments: the bodies.
        stamp: gives the row that goes with every transaction.
        inline: everything is written in the caller, who does not wait for a thread.
    """

    def __init__(
        self,
        folder: Path,
        disk: Disk,
        database: sqlite3.Connection,
        segments: Segments,
        ledger: Ledger,
        stamp: Stamp,
        *,
        inline: bool,
    ) -> None:
        self.folder = folder
        self.segments = segments
        self.ledger = ledger
        self.stamp = stamp
        self._disk = disk
        self._database = database
        self._inline = inline
        kind = Inline if inline else Threaded
        self._writer: Writer = kind(disk, database, segments, stamp)
        self._closed = False

    def note(self, rows: Sequence[Statement]) -> None:
        """Write rows, sooner or later."""
        if rows and not self._closed:
            self._writer.put(Entry(lambda: rows))

    def later(self, work: Callable[[], Sequence[Statement]], after: Callable[[], None] | None = None) -> None:
        """Do something in the writer, sooner or later; see `Entry`."""
        if not self._closed:
            self._writer.put(Entry(work, after=after))

    async def commit(self, work: Callable[[], Sequence[Statement]], settled: Callable[[], None]) -> None:
        """Have something written, and wait until it is committed, whoever cancels. A checkpoint.

        Args:
            work: see `Entry`.
            settled: is called in this thread when it is committed, in the order of all that is written.

        Raises:
            JournalError: it is not there.
        """
        # Nothing may be noted between what its caller has said, such as the numbers an intent takes, and its place in
        # line: a process that dies in between would leave them taken by nobody.
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._closed:
            raise JournalError("the journal is closed", path=str(self.folder))
        outcome: list[JournalError | None] = []
        told = trio.Event()

        def settle(error: JournalError | None) -> None:
            if error is None:
                settled()
            outcome.append(error)
            told.set()

        self._writer.put(Entry(work, self._deliver(settle)))
        with trio.CancelScope(shield=True):
            await told.wait()  # always a checkpoint
        error = outcome[0]
        if error is not None:
            raise error.renewed()

    def _deliver(
        self, settle: Callable[[JournalError | None], None]
    ) -> Callable[[JournalError | None], None]:
        """Return what the writer calls."""
        if self._inline:
            return settle
        token = trio.lowlevel.current_trio_token()

        def deliver(error: JournalError | None) -> None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(settle, error)

        return deliver

    async def read(self, digest: str) -> bytes:
        """Return a body. A checkpoint.

        Raises:
            JournalError: see `Segments.read`.
        """
        if self._inline:
            await trio.lowlevel.checkpoint()
            return self.segments.read(digest)
        return await trio.to_thread.run_sync(self.segments.read, digest)

    async def aclose(self) -> None:
        """Write what is in line and close the files, whoever cancels. A checkpoint."""
        if self._inline or self._closed:
            self.close()
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self.close)

    def close(self) -> None:
        """Write what is in line and close the files. Waits for the disk."""
        if self._closed:
            return
        self._closed = True
        self._writer.stop()
        self._disk.disconnect(self._database)
        self._disk.close_files()
