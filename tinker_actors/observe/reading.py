"""Reads the event file of a run: while it is written, after a crash, and across the files that it consists of."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from tinker_actors.observe.lines import lines_of, newest_first
from tinker_actors.protocol.event_line import Recorded, decode_line, is_picture
from tinker_actors.protocol.tree_seen import TreePicture, TreeSeen

__all__ = ["latest_snapshot", "read_events"]

_POLL = 0.2  # seconds
_NAME = "events.jsonl"


def read_events(path: Path | str, follow: bool = False) -> Iterator[Recorded]:
    """Give what stands in an event file, oldest first.

    A line that is cut, as a process leaves it that is killed, is passed over; so is what is no event. An event of
    a version that is not known comes as an `UnknownEvent`.

    Args:
        path: of the file, or of the run's directory; those that it has made room for are read before it.
        follow: go on when all is read, and wait for more, blocking, until the caller has had enough. The file need not
            be there yet.

    Raises:
        FileNotFoundError: there is no such file, and nobody waits for it.
    """
    return _decoded(lines_of(_file(path), _pause if follow else None))


def latest_snapshot(path: Path | str) -> Recorded | None:
    """Return the last picture of the tree of actors, put together, with its time; None if there is none.

    Its event is a whole `TreeSeen`. That it is old, and no `FileEnded` stands behind it, means that the process was
    killed, or that its event loop does not turn.

    Args:
        path: of the event file, or of the run's directory.

    Raises:
        FileNotFoundError: there is no such file.
    """
    lines = list[bytes]()
    for found in newest_first(_file(path)):
        lines[:0] = filter(is_picture, found)
        whole = [number for number, line in enumerate(lines) if is_picture(line, whole=True)]
        if whole:
            del lines[: whole[-1]]
            break
    picture, t = TreePicture(), 0.0
    for recorded in _decoded(lines):
        if isinstance(recorded.event, TreeSeen) and picture.add(recorded.event):
            t = recorded.t
    return None if picture.number is None else Recorded(t, picture.whole())


def _file(path: Path | str) -> Path:
    """Return the event file, of which the directory may have been named."""
    directory = Path(path)
    return directory / _NAME if directory.is_dir() else directory


def _pause() -> bool:
    return not threading.Event().wait(_POLL)


def _decoded(lines: Iterable[bytes]) -> Iterator[Recorded]:
    return (recorded for line in lines if (recorded := decode_line(line)) is not None)
