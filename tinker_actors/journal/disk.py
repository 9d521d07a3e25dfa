"""Everything a journal does to files, in one place, so that a test can have any of it go wrong.

Theory of operation. A journal changes what is on disk in seven ways, the `Change`s, and each goes through one method of
`Disk`. Each method calls `before(change, path)`, does it, and calls `after(change, path)`; both do nothing here.

To kill a journal at a chosen point, pass a subclass to `open_journal(..., disk=..., inline=True)` and raise from
`before` (the change is not made) or from `after` (it is made, and nobody has been told). Derive what is raised from
BaseException, so that nothing on the way takes it for an error of the disk; and keep raising from then on, for a dead
process changes nothing any more. Then call `abandon`, which does what a kernel does for a dead process: it closes what
is open, without writing, and lets go of the lock. A torn tail comes from `write`, the one method that writes to a
segment: write a part of the bytes, then raise. A disk without room is an `OSError` with `errno.ENOSPC` from `write`, or
a `sqlite3.OperationalError("database or disk is full")` from `before("commit", ...)`.

    change      what it is                                              path
    lock        the run's lock is taken                                 RUN/lock
    create      an empty segment                                        RUN/bodies/000001.seg
    append      a body at the end of a segment                          the segment
    sync        what was appended reaches the medium (`machine`)        the segment
    commit      a transaction of the database                           RUN/journal.sqlite
    truncate    a torn tail is cut off                                  the segment
    delete      a segment that nobody needs                             the segment
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import sqlite3
import weakref
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal, TypeAlias

__all__ = ["Buffer", "Change", "Disk"]

Change = Literal["lock", "create", "append", "sync", "commit", "truncate", "delete"]
Buffer: TypeAlias = bytes | memoryview

_PIECES: Final = 512  # that one call writes; systems take 1,024 (IOV_MAX)


class Disk:
    """The files of one journal; see the module.

    Attributes:
        patience: seconds to wait for a database that another process has locked.
    """

    patience: float = 1.0

    def __init__(self) -> None:
        self._files: set[int] = set()
        self._databases: dict[sqlite3.Connection, Path] = {}
        _open.add(self)

    # --- what tests override -----------------------------------------------------------------------------

    def before(self, change: Change, path: Path) -> None:
        """Be told that something is about to be changed."""

    def after(self, change: Change, path: Path) -> None:
        """Be told that something has been changed."""

    def write(self, file: int, pieces: Sequence[Buffer]) -> None:
        """Write bytes at the end of a file, all of them.

        Raises:
            OSError: it cannot be written; a part may be there.
        """
        for start in range(0, len(pieces), _PIECES):
            some = pieces[start : start + _PIECES]
            written = os.writev(file, some)
            if written < sum(map(len, some)):
                _write_rest(file, b"".join(some)[written:])

    # --- the lock ----------------------------------------------------------------------------------------

    def lock(self, path: Path, holder: bytes) -> bytes | None:
        """Take a lock that goes with the process, and write down who has it.

        A child that was made by a fork would have it, too: it gives it up at once.

        Returns:
            None, or what the process that has it wrote down.

        Raises:
            OSError: the file cannot be opened.
        """
        self.before("lock", path)
        file = self._opened(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = os.pread(file, 4096, 0)
            self.close(file)
            return other
        os.ftruncate(file, 0)
        os.pwrite(file, holder, 0)
        self.after("lock", path)
        return None

    # --- the database ------------------------------------------------------------------------------------

    def connect(self, path: Path) -> sqlite3.Connection:
        """Open a database, which another thread may use from then on, one thread at a time."""
        database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=self.patience)
        self._databases[database] = path
        return database

    def path_of(self, database: sqlite3.Connection) -> Path:
        """Return the file of a database that is open."""
        return self._databases[database]

    def commit(self, database: sqlite3.Connection) -> None:
        """Make a transaction last.

        Raises:
            sqlite3.Error: it is not there.
        """
        path = self._databases[database]
        self.before("commit", path)
        database.execute("COMMIT")
        self.after("commit", path)

    def disconnect(self, database: sqlite3.Connection) -> None:
        """Close a database; one that is the parent's is left alone."""
        if self._databases.pop(database, None) is not None:
            database.close()

    # --- segments ----------------------------------------------------------------------------------------

    def create(self, path: Path, *, sync: bool) -> int:
        """Make an empty file to append to; return it.

        Raises:
            OSError: it cannot be made.
        """
        self.before("create", path)
        file = self._opened(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        if sync:
            _sync_folder(path.parent)
        self.after("create", path)
        return file

    def make_folder(self, path: Path, *, sync: bool) -> None:
        """Make a folder, and those above it, if they are not there.

        Raises:
            OSError: it cannot be made.
        """
        if path.is_dir():
            return
        self.make_folder(path.parent, sync=sync)
        path.mkdir(exist_ok=True)
        if sync:
            _sync_folder(path.parent)

    def reopen(self, path: Path) -> int:
        """Open a file to append to.

        Raises:
            OSError: it cannot be opened.
        """
        return self._opened(path, os.O_RDWR | os.O_APPEND)

    def _opened(self, path: Path, flags: int) -> int:
        file = os.open(path, flags | os.O_CLOEXEC, 0o666)
        self._files.add(file)
        return file

    def close(self, file: int) -> None:
        """Close a file."""
        if file in self._files:
            self._files.discard(file)
            os.close(file)

    def append(self, file: int, path: Path, pieces: Sequence[Buffer]) -> None:
        """Write a frame at the end of a segment.

        Raises:
            OSError: it cannot be written; a part may be there.
        """
        self.before("append", path)
        self.write(file, pieces)
        self.after("append", path)

    def sync(self, file: int, path: Path) -> None:
        """Wait until what was appended is on the medium.

        Raises:
            OSError: it is not known whether it is.
        """
        self.before("sync", path)
        getattr(os, "fdatasync", os.fsync)(file)  # macOS has no fdatasync
        self.after("sync", path)

    def truncate(self, path: Path, size: int) -> None:
        """Cut a segment's end off.

        Raises:
            OSError: it is still there.
        """
        self.before("truncate", path)
        os.truncate(path, size)
        self.after("truncate", path)

    def delete(self, path: Path) -> None:
        """Delete a segment; one that is not there is no matter.

        Raises:
            OSError: it is still there.
        """
        self.before("delete", path)
        path.unlink(missing_ok=True)
        self.after("delete", path)

    # --- the end -----------------------------------------------------------------------------------------

    def abandon(self) -> None:
        """Close everything without writing, as it happens to a process that is killed. Files may be gone already."""
        for database in list(self._databases):
            self.disconnect(database)
        self.close_files()

    def close_files(self) -> None:
        """Close the files, and with its own the lock."""
        while self._files:
            with suppress(OSError):
                os.close(self._files.pop())

    def leave_to_parent(self) -> None:
        """Let go, in a forked child, of what is its parent's, without closing a database.

        The child would take itself for the last one who has it open, and delete what the parent is writing to; and it
        would do so in the end, whatever is done here, if the object did not outlive everything else.
        """
        for database in self._databases:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(database))
        self._databases.clear()
        self.close_files()


def _sync_folder(path: Path) -> None:
    """Have the names in a folder reach the medium, else what is in it may be lost with the machine."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _write_rest(file: int, rest: bytes) -> None:
    while rest:
        rest = rest[os.write(file, rest) :]


_open: weakref.WeakSet[Disk] = weakref.WeakSet()


def _leave_to_parent() -> None:
    """Give up in a forked child what is its parent's: else it stays locked, or worse, is closed, in its absence."""
    for disk in list(_open):
        disk.leave_to_parent()


os.register_at_fork(after_in_child=_leave_to_parent)
