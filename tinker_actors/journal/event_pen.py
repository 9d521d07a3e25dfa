"""The pen that writes an event file: whole lines at the end of the present file, and a new file when that is full."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from io import FileIO
from pathlib import Path

from tinker_actors.journal.rotation import part_of, parts, rotate

__all__ = ["EventPen"]

_LOG = logging.getLogger("tinker_actors.journal")
_END = b"\n"


class EventPen:
    """Writes lines; knows nothing of what is in them. For one thread at a time.

    Args:
        path: of the present file.
        max_bytes: bytes that a file may have, as long as no single line is longer.
        files: how many are kept, the present one included.
        head: makes the first line of a file, or of a process in it, of the file's part.
        missing: makes a line that tells of lines that the disk has refused, of their count and the reason.
    """

    def __init__(
        self,
        path: Path,
        max_bytes: int,
        files: int,
        head: Callable[[int], bytes],
        missing: Callable[[int, str], bytes],
    ) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._files = files
        self._head = head
        self._missing = missing
        self._part = 0
        self._file: FileIO | None = None
        self._size = 0
        self._is_torn = False  # the file does not end with a whole line
        self._refused = 0  # lines that the disk has refused since it took one
        self._why = ""

    def open(self) -> None:
        """Open the file, behind what an earlier process has written.

        Raises:
            OSError: it cannot be opened.
        """
        part = part_of(self._path)
        if part is None:
            if self._path.exists():
                rotate(self._path, self._files)  # nobody could tell which part of the whole it is
            part = max((known for known, _ in parts(self._path)), default=-1) + 1
        self._enter(part)

    def _enter(self, part: int) -> None:
        file = FileIO(self._path, "ab+")
        if self._file is not None:
            self._file.close()
        self._file, self._part = file, part
        self._size = file.seek(0, 2)
        self._is_torn = False
        if self._size:
            file.seek(self._size - 1)
            self._is_torn = file.read(1) != _END
        self._put([self._head(part)])

    def write(self, lines: Iterable[bytes]) -> int:
        """Write whole lines, each with its end.

        Returns:
            how many of them the disk has refused.
        """
        lost, batch, length = 0, list[bytes](), 0
        for line in lines:
            if batch and self._size + length + len(line) > self._max_bytes:
                lost += self._put(batch)
                batch, length = [], 0
            if self._size + len(line) > self._max_bytes and not batch:
                self._turn_over()
            batch.append(line)
            length += len(line)
        return lost + self._put(batch)

    def _turn_over(self) -> None:
        """Begin a new file; if that fails, the old one serves for as much again."""
        try:
            rotate(self._path, self._files)
            self._enter(self._part + 1)
        except OSError as error:
            _LOG.warning("no new event file at %s, the old one grows: %r", self._path, error)
            self._size = 0

    def _put(self, lines: list[bytes]) -> int:
        """Write lines in one piece; return how many were refused."""
        if not lines or self._file is None:
            return len(lines)
        told = [self._missing(self._refused, self._why)] if self._refused else []
        data = _END * self._is_torn + b"".join([*told, *lines])
        written = 0
        try:
            while written < len(data):
                written += self._file.write(data[written:]) or 0
        except OSError as error:
            return self._refuse(lines, data[:written], len(told), error)
        finally:
            self._size += written
        self._is_torn, self._refused = False, 0
        return 0

    def _refuse(self, lines: list[bytes], written: bytes, told: int, error: OSError) -> int:
        """Take note of what the disk did not take of some lines."""
        whole = written.count(_END) - self._is_torn - told
        if not self._refused:
            _LOG.warning("the event file %s is not written: %r", self._path, error)
        if whole >= 0:
            self._refused = 0  # those before are told of
        refused = len(lines) - max(0, whole)
        self._refused += refused
        self._why = f"the disk refused them: {error.strerror}"
        if written:
            self._is_torn = not written.endswith(_END)
        return refused

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
        self._file = None
