"""Bodies on disk: files that are only appended to, each body under its hash, each stored once.

Theory of operation. A segment is a row of frames: eight bytes of length, little-endian, the body's SHA-256, the body.
The database says where each body lies, and is written after it; so what stands behind the last body that the database
knows was never committed and is cut off, and a segment of which it knows nothing is deleted. Each time a journal is
opened, and after each saved state, a new segment is begun: a segment goes as a whole, when nobody needs any of its
bodies any more.

A body is checked against its hash whenever it is read.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tinker_actors.errors import JournalError
from tinker_actors.journal.disk import Buffer, Disk

__all__ = ["Place", "Segments", "digest_of"]

_LENGTH: Final = 8
_HEAD: Final = _LENGTH + 32
_SEGMENT_BYTES: Final = 64 * 1024 * 1024


def digest_of(pieces: Iterable[Buffer]) -> str:
    """Return the hash that names a body."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


class Place(NamedTuple):
    """Where a body lies.

    Attributes:
        segment: the number of the file.
        offset: of its frame.
        length: of the body, in bytes.
    """

    segment: int
    offset: int
    length: int

    @property
    def end(self) -> int:
        """Where the frame ends."""
        return self.offset + _HEAD + self.length


class Segments:
    """The bodies of one journal.

    Args:
        disk: how files are reached.
        folder: where the segments are; it is there.
        sync: `sync` reaches the medium.
        segment_bytes: a segment of more is followed by another.

    Attributes:
        folder: where they are.
        size: what all segments take on disk, in bytes.
    """

    def __init__(self, disk: Disk, folder: Path, *, sync: bool, segment_bytes: int = _SEGMENT_BYTES) -> None:
        self._disk = disk
        self.folder = folder
        self._sync = sync
        self._segment_bytes = segment_bytes
        self._places: dict[str, Place] = {}
        self._bodies: Counter[int] = Counter()  # by segment
        self._sizes: dict[int, int] = {}
        self._number = 0  # of the segment that is written to, or was last
        self._file: int | None = None
        self._is_torn = False  # it does not end with a whole frame
        self._sync_failure: OSError | None = None
        self._unsynced = False
        self._are_whole = True
        self.size = 0

    def path(self, segment: int) -> Path:
        """Return a segment's file."""
        return self.folder / f"{segment:06d}.seg"

    def place(self, digest: str) -> Place | None:
        """Return where a body lies, if it is stored."""
        return self._places.get(digest)

    # --- opening -----------------------------------------------------------------------------------------

    def load(self, places: Mapping[str, Place]) -> None:
        """Take over what the database knows, and cut off or delete what it does not.

        Raises:
            OSError: the folder cannot be read, or a file cannot be cut or deleted.
        """
        for digest, place in places.items():
            self.admit(digest, place)
        ends: dict[int, int] = {}
        for place in places.values():
            ends[place.segment] = max(ends.get(place.segment, 0), place.end)
        for path in sorted(self.folder.glob("*.seg")):
            if not path.stem.isdigit():
                continue
            number = int(path.stem)
            self._number = max(self._number, number)
            if number not in ends:
                self._disk.delete(path)
                continue
            size = path.stat().st_size
            if size > ends[number]:
                self._disk.truncate(path, ends[number])
            self._sizes[number] = min(size, ends[number])
        self.size = sum(self._sizes.values())
        self._are_whole = all(self._sizes.get(number, 0) == end for number, end in ends.items())

    @property
    def are_whole(self) -> bool:
        """Whether all segments were as long as they should be when they were loaded."""
        return self._are_whole

    def is_whole(self, digest: str, *, check: bool) -> bool:
        """Whether a body is there in full; `check` reads it and compares its hash."""
        place = self._places[digest]
        if self._sizes.get(place.segment, 0) < place.end:
            return False
        if not check:
            return True
        try:
            self.read(digest)
        except JournalError:
            return False
        return True

    # --- writing -----------------------------------------------------------------------------------------

    def put(self, digest: str, pieces: Sequence[Buffer]) -> Place:
        """Append a body; it counts as stored when it is admitted.

        Raises:
            OSError: it cannot be written; nothing of it is there.
        """
        if self._file is None or self._is_torn or self._sizes[self._number] >= self._segment_bytes:
            self._begin()
        assert self._file is not None, "a segment was begun"
        length = sum(map(len, pieces))
        place = Place(self._number, self._sizes[self._number], length)
        head = length.to_bytes(_LENGTH, "little") + bytes.fromhex(digest)
        path = self.path(place.segment)
        try:
            self._disk.append(self._file, path, [head, *pieces])
        except OSError:
            self._take_back(path, place)
            raise
        self.size += place.end - place.offset
        self._sizes[place.segment] = place.end
        self._unsynced = self._sync
        return place

    def _begin(self) -> None:
        self.roll()
        self._file = self._disk.create(self.path(self._number + 1), sync=self._sync)
        self._is_torn = False
        self._number += 1
        self._sizes[self._number] = 0

    def _take_back(self, path: Path, place: Place) -> None:
        """Cut off what was written of a body; if that fails, nothing is appended to that segment any more."""
        try:
            self._disk.truncate(path, place.offset)
        except OSError:
            self._is_torn = True

    def admit(self, digest: str, place: Place) -> None:
        """Count a body as stored."""
        self._places[digest] = place
        self._bodies[place.segment] += 1

    def sync(self) -> None:
        """Wait until everything appended is on the medium, if that was asked for.

        Raises:
            OSError: it is not known whether it is, now or at an earlier time: a system tells of that only once.
        """
        if self._sync_failure is not None:
            raise self._sync_failure
        if self._unsynced and self._file is not None:
            try:
                self._disk.sync(self._file, self.path(self._number))
            except OSError as error:
                self._sync_failure = error
                raise
        self._unsynced = False

    def roll(self) -> None:
        """Have the next body begin a new segment.

        Raises:
            OSError: see `sync`.
        """
        self.sync()
        if self._file is not None:
            self._disk.close(self._file)
            self._file = None

    # --- letting go --------------------------------------------------------------------------------------

    def forget(self, digests: Iterable[str]) -> None:
        """Count bodies as not stored any more."""
        for digest in digests:
            place = self._places.pop(digest)
            self._bodies[place.segment] -= 1

    def sweep(self) -> None:
        """Delete the segments of which no body is stored any more, but for the one that is written to."""
        for number in [number for number in self._sizes if not self._bodies[number]]:
            if number == self._number and self._file is not None:
                continue
            try:
                self._disk.delete(self.path(number))
            except OSError:  # it is deleted when the journal is opened the next time
                continue
            self.size -= self._sizes.pop(number)

    # --- reading -----------------------------------------------------------------------------------------

    def read(self, digest: str) -> bytes:
        """Return a body. Any thread may.

        Raises:
            JournalError: it is not there, or not what it was.
        """
        place = self._places.get(digest)
        if place is None:
            raise JournalError(f"there is no body {digest[:12]} in the journal", path=str(self.folder))
        path = self.path(place.segment)
        try:
            with path.open("rb", buffering=0) as file:
                frame = os.pread(file.fileno(), _HEAD + place.length, place.offset)
        except OSError as error:
            raise JournalError(f"{path} cannot be read: {error}", path=str(path)) from error
        body = frame[_HEAD:]
        head = place.length.to_bytes(_LENGTH, "little") + bytes.fromhex(digest)
        if frame[:_HEAD] != head or digest_of([body]) != digest:
            what = f"{path} is damaged: the body at {place.offset} is not what was written"
            raise JournalError(what, path=str(path))
        return body
