"""The event file of a run: what happens, line by line, for those who look from outside, live or afterwards.

    async with open_event_file(run_dir / "events.jsonl") as file:
        async with open_service(...) as service:
            service.ref.record(file)        # its events, and once a second what its actors do
            file.write(SomethingHappened(...))

Theory of operation. Whoever writes puts the event, with the time, in a queue and goes on; nobody waits for the disk.
One thread makes lines of them and writes whole lines, so that another process can read all that is there at any time.
While the queue is full, events are lost; so are those that the disk refuses. How many is told in the file, in the place
where they are missing. What the files are called, and how they make room for each other, is `rotation`'s.

A process that is killed leaves a line that is cut, at most; the next one begins a new line behind it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

import trio

from tinker_actors.errors import InputError, JournalError
from tinker_actors.journal.event_pen import EventPen
from tinker_actors.protocol.event_line import EventsLost, FileBegun, FileEnded, encode_line
from tinker_actors.version import __version__

__all__ = ["ATTEMPT", "EventFile", "open_event_file"]

_LOG = logging.getLogger("tinker_actors.journal")

ATTEMPT = "TINKER_ACTORS_ATTEMPT"
"""The environment variable in which `tinker-actors supervise` says how often it has started its command."""

MAX_BYTES = 16 * 2**20
"""Bytes of a file before it makes room for a new one."""
FILES = 8
"""Files that are kept, the present one included."""
MOST_QUEUED = 10_000
"""Events that may wait to be written."""
_REST = 0.02  # seconds between two looks of the thread: many events cost it one
_PATIENCE = 5.0  # seconds that leaving waits for the disk


def _wall_clock() -> float:
    return datetime.now(UTC).timestamp()


class EventFile:
    """Takes events and writes them down. Made by `open_event_file`; none of its methods waits or raises.

    Attributes:
        path: of the file that is written.
        lost: events that are missing in it.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float] = _wall_clock,
        max_bytes: int = MAX_BYTES,
        files: int = FILES,
        most_queued: int = MOST_QUEUED,
    ) -> None:
        for name, value in (("max_bytes", max_bytes), ("files", files), ("most_queued", most_queued)):
            if value < 1:
                raise InputError(name, value, "must be at least 1")
        self.path = path
        self.lost = 0
        self._clock = clock
        self._most_queued = most_queued
        self._queue: deque[tuple[float, object]] = deque()
        self._lock = threading.Lock()  # of the queue and the counters
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._ended = threading.Event()
        self._secrets: frozenset[str] = frozenset()
        self._dropped = 0  # of `lost`, those that the file does not tell of yet
        self._whole = False
        self._pen = EventPen(path, max_bytes, files, self._head, self._missing)
        self._thread: threading.Thread | None = None  # none: whoever writes does it

    def __repr__(self) -> str:
        return f"<EventFile {self.path}, {self.lost} events lost>"

    # --- those who write ---------------------------------------------------------------------------------

    def now(self) -> float:
        """Return the wall time, in seconds since 1970."""
        return self._clock()

    def write(self, event: object) -> None:
        """Take an event: an instance of an attrs class without fields named `t` or `kind`. From any thread.

        It is written soon. It is lost, and counted, if too many wait already; after the end nothing is taken.
        """
        with self._lock:
            if self._closing.is_set():
                return
            if len(self._queue) >= self._most_queued:
                self.lost += 1
                self._dropped += 1
                return
            self._queue.append((self._clock(), event))
        if self._thread is not None:
            self._wake.set()
        else:
            self._work_off()

    def hide(self, secrets: Iterable[str]) -> None:
        """Mask these texts, beside those that are known, in all events that are written from now on."""
        self._secrets = self._secrets.union(secrets)

    def wants_whole(self) -> bool:
        """Whether a file was begun since this was asked last, which wants a whole picture of the tree."""
        whole, self._whole = self._whole, False
        return whole

    # --- whoever opens it --------------------------------------------------------------------------------

    def start(self, *, threaded: bool) -> None:
        """Open the file, and start the thread that writes; without one, `write` does.

        Raises:
            JournalError: the file cannot be opened.
        """
        try:
            self._pen.open()
        except OSError as error:
            raise JournalError(f"{self.path} cannot be used: {error}", path=str(self.path)) from error
        if threaded:
            # A daemon: a disk that hangs must not keep a process from its end.
            self._thread = threading.Thread(target=self._run, name="tinker-actors event file", daemon=True)
            self._thread.start()

    def finish(self) -> None:
        """Take the last event, however many wait, and no more after it."""
        with self._lock:
            self._queue += [*self._told(), (self._clock(), FileEnded())]
            self._closing.set()
        self._wake.set()
        if self._thread is None:
            self._end()

    def wait(self, seconds: float) -> bool:
        """Wait, blocking, until all is written and the file is closed; False if it takes longer."""
        return self._ended.wait(seconds)

    # --- the thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.wait()
            self._wake.clear()
            self._work_off()
            self._closing.wait(_REST)
        self._end()

    def _end(self) -> None:
        self._work_off()
        self._pen.close()
        self._ended.set()

    def _work_off(self) -> None:
        """Write what waits."""
        with self._lock:
            batch = [*self._queue, *self._told()]
            self._queue.clear()
        lines = [line for t, event in batch if (line := self._line(t, event))]
        refused = self._pen.write(lines)
        with self._lock:
            self.lost += refused + len(batch) - len(lines)

    def _told(self) -> list[tuple[float, object]]:
        """Return what tells of events that were dropped, if there are such; from then on the file tells of them."""
        dropped, self._dropped = self._dropped, 0
        if not dropped:
            return []
        return [(self._clock(), EventsLost(dropped, "they came faster than they were written"))]

    def _line(self, t: float, event: object) -> bytes | None:
        try:
            return encode_line(t, event, self._secrets)
        except Exception:  # noqa: BLE001 - a strange event must not end the thread that writes all others
            _LOG.exception("an event cannot be written: %s", type(event).__name__)
            return None

    def _missing(self, count: int, why: str) -> bytes:
        return encode_line(self._clock(), EventsLost(count, why))

    def _head(self, part: int) -> bytes:
        """Return the first line of a file, or of a process in a file, and ask for a whole picture."""
        self._whole = True
        attempt = os.environ.get(ATTEMPT, "")
        begun = FileBegun(
            part=part,
            pid=os.getpid(),
            host=socket.gethostname(),
            version=__version__,
            attempt=int(attempt) if attempt.isdecimal() else 1,
        )
        return encode_line(self._clock(), begun)


@contextlib.asynccontextmanager
async def open_event_file(
    path: Path | str,
    *,
    clock: Callable[[], float] = _wall_clock,
    max_bytes: int = MAX_BYTES,
    files: int = FILES,
    most_queued: int = MOST_QUEUED,
    inline: bool = False,
) -> AsyncIterator[EventFile]:
    """Open the event file of a run; leaving it writes what there is. Leaving is a checkpoint, entering is not.

    Args:
        path: of the file, such as `RUN/events.jsonl`; what is there is kept, and gone on behind.
        clock: tells the wall time, in seconds since 1970.
        max_bytes: bytes after which a file makes room for a new one.
        files: how many files are kept, the present one included.
        most_queued: events that may wait to be written; what comes beyond that is lost, and counted.
        inline: write at once, in the caller, instead of in a thread: for virtual time.

    Raises:
        InputError: a number out of its bounds.
        JournalError: the file cannot be opened.
    """
    file = EventFile(Path(path), clock=clock, max_bytes=max_bytes, files=files, most_queued=most_queued)
    file.start(threaded=not inline)
    try:
        yield file
    finally:
        file.finish()
        with trio.CancelScope(shield=True):
            if inline:
                await trio.lowlevel.checkpoint()
            elif not await trio.to_thread.run_sync(file.wait, _PATIENCE):
                _LOG.warning("%s: the disk does not take the last events in time", file)
