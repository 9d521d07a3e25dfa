"""The journal's disk, with a point to crash at before each change."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from tinker_actors.journal.disk import Buffer, Change, Disk

from .audit import Audit
from .point import Crashed, Fuse

__all__ = ["CrashDisk"]


class CrashDisk(Disk):
    """Changes what is on disk until its life has ended.

    After a change is no point of its own: what is on disk then is what is there before the next one.

    Args:
        fuse: of the life that writes.
        audit: is shown the database.
    """

    def __init__(self, fuse: Fuse, audit: Audit) -> None:
        super().__init__()
        self._fuse = fuse
        self._audit = audit

    def connect(self, path: Path) -> sqlite3.Connection:
        """Open a database."""
        self._audit.database = super().connect(path)
        return self._audit.database

    def abandon(self) -> None:
        """Let go of everything."""
        self._audit.database = None
        super().abandon()

    def before(self, change: Change, path: Path) -> None:
        """Reach a point."""
        self._fuse.reach("disk", f"{change} of {path.name}")

    def write(self, file: int, pieces: Sequence[Buffer]) -> None:
        """Write at the end of a file; a crash leaves half of it."""
        try:
            self._fuse.reach("torn", "append")
        except Crashed:
            whole = b"".join(pieces)
            super().write(file, [whole[: len(whole) // 2]])
            raise
        super().write(file, pieces)
