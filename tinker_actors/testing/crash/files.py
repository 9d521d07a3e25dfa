"""Files of the loop's own, whose writing is a point to crash at."""

from __future__ import annotations

from pathlib import Path

from .point import Crashed, Fuse

__all__ = ["Files"]


class Files:
    """Writes files in the directory that outlives a crash.

    Args:
        directory: where they lie.
        fuse: of the life that writes.
    """

    def __init__(self, directory: Path, fuse: Fuse) -> None:
        self._directory = directory
        self._fuse = fuse

    def read(self, name: str) -> bytes:
        """Return what is in a file; nothing if there is none."""
        path = self._directory / name
        return path.read_bytes() if path.exists() else b""

    def append(self, name: str, content: bytes) -> None:
        """Write at the end of a file. A crash may leave half of it."""
        self._fuse.reach("disk", f"{name} grows")
        try:
            self._fuse.reach("torn", f"{name} grows")
        except Crashed:
            self._write(name, content[: len(content) // 2])
            raise
        self._write(name, content)

    def _write(self, name: str, content: bytes) -> None:
        with (self._directory / name).open("ab") as file:
            file.write(content)

    def replace(self, name: str, content: bytes) -> None:
        """Write a file anew, as by renaming one that was written beside it: a crash leaves the old or the new."""
        self._fuse.reach("disk", f"{name} is replaced")
        (self._directory / name).write_bytes(content)
