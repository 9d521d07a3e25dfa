"""The files that an event file consists of, and how they take turns.

Theory of operation. What is written goes to `events.jsonl`. When that is full, it becomes `events.1.jsonl`, what was
that becomes `events.2.jsonl`, and so on; the oldest goes. Each file begins with a `FileBegun` whose `part` is one more
than that of the file before it, so that a reader knows which of them comes next, whatever they are called by then.

Most of a file is pictures of the tree. A file that becomes the third is thinned: of the pictures only whole ones stay,
one a minute, and everything else that happened. So the events of days fit in, and the last hours are there to the
second.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator
from pathlib import Path

from tinker_actors.protocol.event_line import FileBegun, decode_line, is_picture

__all__ = ["LONGEST_HEAD", "head_part", "part_of", "parts", "paths", "place", "rotate", "thin"]

LONGEST_HEAD = 65_536
"""Bytes that a first line may have."""


def place(path: Path, number: int) -> Path:
    """Return where a file is when it has made room `number` times."""
    return path if number == 0 else path.with_name(f"{path.stem}.{number}{path.suffix}")


def _numbers(path: Path) -> list[int]:
    """Return how often each of the files that there are has made room, the oldest first."""
    numbers = [0] if path.exists() else []
    for found in path.parent.glob(f"{glob.escape(path.stem)}.*{glob.escape(path.suffix)}"):
        middle = found.name.removeprefix(f"{path.stem}.").removesuffix(path.suffix)
        if middle.isdecimal() and int(middle) > 0:
            numbers.append(int(middle))
    return sorted(numbers, reverse=True)


def paths(path: Path) -> list[Path]:
    """Return the files that there are, the oldest first."""
    return [place(path, number) for number in _numbers(path)]


def parts(path: Path) -> Iterator[tuple[int, Path]]:
    """Give the files that there are and begin as they should, the oldest first, with their parts."""
    for found in paths(path):
        part = part_of(found)
        if part is not None:
            yield part, found


def part_of(path: Path) -> int | None:
    """Return the part of the file at a path; None if there is none, or it does not begin as it should."""
    try:
        with path.open("rb") as file:
            return head_part(file.readline(LONGEST_HEAD))
    except FileNotFoundError:
        return None


def head_part(head: bytes) -> int | None:
    """Return the part that a file has whose beginning this is; None if it does not say."""
    line, end, _ = head.partition(b"\n")
    recorded = decode_line(line) if end else None
    return recorded.event.part if recorded is not None and isinstance(recorded.event, FileBegun) else None


def rotate(path: Path, files: int) -> None:
    """Make room for a new file at `path`, so that there will be at most `files`.

    Raises:
        OSError: it could not be done; what was written is still there, but for the oldest.
    """
    for number in _numbers(path):
        old = place(path, number)
        if number + 1 >= files:
            old.unlink()
            continue
        if number == 1:
            thin(old)
        old.replace(place(path, number + 1))


def thin(path: Path) -> None:
    """Leave of the pictures in a file only whole ones.

    Raises:
        OSError: it could not be done; the file is as it was.
    """
    thinner = path.with_name(f"{path.name}.thin")
    try:
        with path.open("rb") as old, thinner.open("wb") as new:
            new.writelines(line for line in old if not is_picture(line) or is_picture(line, whole=True))
        thinner.replace(path)
    except OSError:
        thinner.unlink(missing_ok=True)  # the disk may be full
        raise
