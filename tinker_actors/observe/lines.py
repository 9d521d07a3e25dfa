"""The lines of an event file, in order, while others write it and files take turns.

Theory of operation. All files that there are are opened at once, and known by their numbers from then on, whatever they
are called while they are read. When one has been read that is not the present one any more, those that came after it
are looked for by their parts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from io import FileIO
from itertools import pairwise
from pathlib import Path

from tinker_actors.journal.rotation import LONGEST_HEAD, head_part, paths

__all__ = ["lines_of", "newest_first"]

_CHUNK = 1 << 20
_TRIES = 5


def lines_of(path: Path, pause: Callable[[], bool] | None) -> Iterator[bytes]:
    """Give the whole lines of an event file, oldest first, without their ends.

    Args:
        path: of the present file.
        pause: waits a moment before the next look for more; False ends it. None: there is no next look.

    Raises:
        FileNotFoundError: there is no such file, and no next look.
    """
    files = _open_after(path, -1)
    if not files and pause is None:
        raise FileNotFoundError(f"there is no event file at {path}")
    part = -1
    while True:
        try:
            for file in files:
                yield from _tail(path, file, None if file is not files[-1] else pause)
                part = max(part, _part(file))
        finally:
            _close(files)
        files = []
        while not files:
            if pause is None or not pause():
                return
            files = _open_after(path, part)


def newest_first(path: Path) -> Iterator[list[bytes]]:
    """Give the lines of each file that there is, as `lines_of`, but the newest file first.

    Raises:
        FileNotFoundError: there is no such file.
    """
    files = _open_after(path, -1)
    if not files:
        raise FileNotFoundError(f"there is no event file at {path}")
    try:
        for file in reversed(files):
            yield list(_tail(path, file, None))
    finally:
        _close(files)


def _tail(path: Path, file: FileIO, pause: Callable[[], bool] | None) -> Iterator[bytes]:
    """Give the lines of a file; if there is a pause, until it says so or the file is the present one no more."""
    rest, is_present = b"", pause is not None
    while True:
        while chunk := file.read(_CHUNK):
            *whole, rest = (rest + chunk).split(b"\n")
            yield from whole
        if pause is None or not is_present or not pause():
            return
        is_present = _is_at(path, file)  # looked at first: what was written before it made room is still read


def _is_at(path: Path, file: FileIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return True  # it makes room at this moment


def _part(file: FileIO) -> int:
    """Return the part of an open file; -1 if it does not begin as it should, or has not begun."""
    part = head_part(os.pread(file.fileno(), LONGEST_HEAD, 0))
    return -1 if part is None else part


def _open_after(path: Path, part: int) -> list[FileIO]:
    """Open the files whose parts are higher than `part`, the oldest first; all, if that is -1."""
    files: list[FileIO] = []
    for _ in range(_TRIES):
        _close(files)
        files = [file for file in _open_all(path) if part < 0 or _goes_on(file, part)]
        known = [one for one in map(_part, files) if one >= 0]
        if all(b == a + 1 for a, b in pairwise([part, *known] if part >= 0 else known)):
            break  # else they have changed places meanwhile; or one is gone, and it stays like that
    return files


def _goes_on(file: FileIO, part: int) -> bool:
    if _part(file) > part:
        return True
    file.close()
    return False


def _close(files: list[FileIO]) -> None:
    for file in files:
        file.close()


def _open_all(path: Path) -> list[FileIO]:
    """Open the files that there are, the oldest first, each once though they may change places meanwhile."""
    found: dict[tuple[int, int], FileIO] = {}
    for one in paths(path):
        try:
            file = FileIO(one)
        except FileNotFoundError:
            continue
        status = os.fstat(file.fileno())
        if found.setdefault((status.st_dev, status.st_ino), file) is not file:
            file.close()
    return list(found.values())
