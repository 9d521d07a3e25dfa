"""The file an archive is written to until it is whole.

It lies beside its place, under a name that nobody else has, and is gone when the download ends, however that ends. One
that is to outlive its process (`kept`) has a name that the next process finds, and a note beside it: how much of it is
certainly on the disk, and of which archive. Only what can be told for certain to be the same archive is gone on with.
While one process has it, a lock keeps others from it; those use a file of their own. So does everybody where something
else lies under that name: others may be able to write to the directory, and a link there would lead our bytes astray.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
from pathlib import Path
from typing import IO, Final

import attrs
import cattrs
import orjson

from tinker_actors.protocol.archive import Known

__all__ = ["Partial", "beside"]

_SYNC_EVERY: Final = 32 * 1024 * 1024  # bytes after which what is there is made certain
_LONGEST_NAME: Final = 50  # characters of the place's name; with all else, names have 255 bytes at most


def beside(destination: Path, what: str, name: str = "") -> Path:
    """Return a name beside a place, from where something can be renamed to it; if none is given, a new one."""
    return destination.with_name(f".{destination.name[:_LONGEST_NAME]}.{name or secrets.token_hex(8)}.{what}")


@attrs.frozen
class _Note:
    tinker_path: str
    known: Known


@attrs.define(eq=False)
class Partial:
    """A part of an archive. Every method may block.

    Attributes:
        path: where it is.
        file: open for writing.
        known: what is known of what is there.
    """

    path: Path
    file: IO[bytes]
    known: Known = attrs.field(factory=Known)
    _note: Path | None = None
    _tinker_path: str = ""
    _synced: int = 0

    @classmethod
    def fresh(cls, destination: Path) -> Partial:
        """Begin a file that is gone when it is closed.

        Raises:
            OSError: it cannot be made.
        """
        path = beside(destination, "partial")
        return cls(path, path.open("xb", buffering=0))

    @classmethod
    def kept(cls, destination: Path, tinker_path: str) -> Partial:
        """Go on with the file of a download that was left, or begin one.

        Raises:
            OSError: it cannot be made.
        """
        digest = hashlib.sha256(tinker_path.encode()).hexdigest()[:16]
        path = beside(destination, "partial", digest)
        file = _opened(path)
        if file is None:
            return cls.fresh(destination)
        # Whoever had it may have moved it to its place meanwhile.
        if not (_is_ours(file) and _locked(file) and _lies_at(file, path)):
            file.close()
            return cls.fresh(destination)
        note = path.with_suffix(".note")
        partial = cls(path, file, _read(note, tinker_path), note, tinker_path)
        partial._begin_at(min(partial.known.done, os.fstat(file.fileno()).st_size))
        return partial

    def _begin_at(self, done: int) -> None:
        self.known = attrs.evolve(self.known, done=done) if done else Known()
        self._synced = done
        self.file.truncate(done)
        self.file.seek(done)

    def begin_anew(self, known: Known) -> None:
        """Drop what is there, and what was noted of it: the whole comes."""
        if self._note is not None:
            self._note.unlink(missing_ok=True)
        self._synced = 0
        self.file.truncate(0)
        self.file.seek(0)
        self.known = known

    def write(self, content: bytes) -> None:
        """Add a piece."""
        view = memoryview(content)
        while view:
            view = view[self.file.write(view) :]
        self.known = attrs.evolve(self.known, done=self.known.done + len(content))
        if self._note is not None and self.known.done - self._synced >= _SYNC_EVERY:
            self._make_certain(self._note)

    def _make_certain(self, note: Path) -> None:
        os.fsync(self.file.fileno())
        self._synced = self.known.done
        content = orjson.dumps(attrs.asdict(_Note(self._tinker_path, self.known)))
        draft = note.with_name(f"{note.name}.draft")
        draft.unlink(missing_ok=True)  # of a process that was killed
        with draft.open("xb") as file:
            file.write(content)
        draft.replace(note)

    def sync(self) -> None:
        """Make certain that all that is there is on the disk."""
        os.fsync(self.file.fileno())

    def close(self, *, keep: bool) -> None:
        """Close it; what is there stays only if it is wanted, has a name to be found by, and can be gone on with."""
        with self.file:
            if keep and self._note is not None and self.known.done and self.known.certain:
                with contextlib.suppress(OSError):  # a disk that fails has been told of already
                    self._make_certain(self._note)
                    return
            if _lies_at(self.file, self.path):  # else it has taken its place
                self.path.unlink()
            if self._note is not None:
                self._note.unlink(missing_ok=True)


def _opened(path: Path) -> IO[bytes] | None:
    """Open a file, or make it; None if it is something else."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    try:
        return os.fdopen(os.open(path, flags, 0o666), "r+b", buffering=0)
    except OSError:
        if path.is_symlink() or path.exists():
            return None
        raise


def _is_ours(file: IO[bytes]) -> bool:
    """Whether it is a plain file, and has no other name."""
    facts = os.fstat(file.fileno())
    return stat.S_ISREG(facts.st_mode) and facts.st_nlink == 1


def _lies_at(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _read(note: Path, tinker_path: str) -> Known:
    """Return what a note says of a checkpoint; nothing if it is damaged, or of another one."""
    try:
        found = cattrs.structure(orjson.loads(note.read_bytes()), _Note)
    except (OSError, ValueError, cattrs.BaseValidationError):
        return Known()
    return found.known if found.tinker_path == tinker_path and found.known.certain else Known()


def _locked(file: IO[bytes]) -> bool:
    """Lock a file for as long as it is open, where the system can; returns whether nobody else has it."""
    try:
        import fcntl
    except ImportError:  # pragma: no cover - Windows
        return True
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # somebody has it, or the disk knows no locks
        return False
    return True
