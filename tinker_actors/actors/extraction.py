"""Taking the files out of an archive, in a directory that appears when all of them are there.

What comes from a service is not trusted: members that are no plain files or directories, or whose names lead
elsewhere, are refused with the whole archive (`protocol.archive`). Owners, modes and times are not taken over.
A plain tar must have its end, and a compressed one its checksum, so what was cut somewhere is noticed.

Nor does a small archive fill the disk or the memory. Files are as large as they say, holes are not made, and there is
a limit to what all of them come to (`most_unpacked`). `tarfile` reads the headers, which it takes as long as they say,
and any number of them before one member; so it reads through `_Headers`, which has a limit, too.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final, Literal, cast

import attrs

from tinker_actors.errors import ArchiveError
from tinker_actors.protocol.archive import most_unpacked, refused_member

__all__ = ["extract_steps"]

_CHUNK: Final = 1024 * 1024  # bytes that are copied at a time
_GZIP: Final = b"\x1f\x8b"
_MOST_MEMBERS: Final = 100_000
_MOST_HEADERS: Final = 64 * 1024 * 1024  # bytes of all headers
_LONGEST_HEADER: Final = 1024 * 1024  # bytes that are read at once for a header
_LONGEST_REST: Final = 16 * _CHUNK  # bytes behind the end of an archive; padding has ten thousand
# `tarfile` has errors of its own for most of what is wrong with headers, and stumbles over the rest.
_DAMAGED = (
    tarfile.TarError,
    EOFError,
    zlib.error,
    gzip.BadGzipFile,
    ValueError,
    OverflowError,
    RecursionError,
)


def extract_steps(archive: Path, directory: Path, path: str, max_bytes: int | None = None) -> Iterator[int]:
    """Take the files out of an archive step by step; closing the iterator leaves what is there.

    Args:
        archive: a tar file, plain or with gzip.
        directory: an empty one.
        path: the checkpoint's, for errors.
        max_bytes: what all files may have; None: see `most_unpacked`.

    Yields:
        The bytes written since the last step.

    Raises:
        ArchiveError: it is damaged, a member is refused, or the files are too large.
        OSError: something cannot be read or written.
    """
    try:
        with archive.open("rb") as file:
            compressed = file.read(len(_GZIP)) == _GZIP
            file.seek(0)
            most = most_unpacked(os.fstat(file.fileno()).st_size, max_bytes)
            with _unpacked(file, compressed) as stream:
                yield from _Extraction(stream, directory, path, compressed, most).run()
    except _DAMAGED as error:
        raise ArchiveError(f"{path}: the archive is damaged: {error}", path=path) from error


def _unpacked(file: IO[bytes], compressed: bool) -> contextlib.AbstractContextManager[IO[bytes]]:
    if not compressed:
        return contextlib.nullcontext(file)
    return cast("contextlib.AbstractContextManager[IO[bytes]]", gzip.GzipFile(fileobj=file, mode="rb"))


@attrs.define(eq=False)
class _Headers:
    """What `tarfile` reads headers from: not without an end."""

    stream: IO[bytes]
    path: str
    left: int

    def read(self, size: int = -1) -> bytes:
        self.left -= size
        if not 0 <= size <= _LONGEST_HEADER or self.left < 0:
            raise ArchiveError(f"{self.path}: the archive has headers that are too long", path=self.path)
        return self.stream.read(size)

    def seek(self, offset: int) -> int:
        return self.stream.seek(offset)

    def tell(self) -> int:
        return self.stream.tell()


@attrs.define(eq=False)
class _Extraction:
    """An archive that is being taken apart."""

    stream: IO[bytes]
    directory: Path
    path: str
    compressed: bool
    most: int
    total: int = 0

    def run(self) -> Iterator[int]:
        headers = _Headers(self.stream, self.path, _MOST_HEADERS)
        with tarfile.open(fileobj=cast("IO[bytes]", headers), mode="r:") as tar:
            count = 0
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # it would keep all of them
                count += 1
                if count > _MOST_MEMBERS:
                    raise ArchiveError(
                        f"{self.path}: the archive has more than {_MOST_MEMBERS} members", path=self.path
                    )
                yield from self._take(member)
            if count == 0:
                raise ArchiveError(f"{self.path}: the archive is empty", path=self.path)
            self._check_end(tar.offset)

    def _take(self, member: tarfile.TarInfo) -> Iterator[int]:
        kind = _kind(member)
        why = refused_member(member.name, kind)
        if why is not None:
            raise self._refused(member, why)
        target = self.directory.joinpath(*(part for part in member.name.split("/") if part not in ("", ".")))
        try:
            if kind == "directory":
                target.mkdir(parents=True, exist_ok=True)
                return
            self._make_room(member)
            target.parent.mkdir(parents=True, exist_ok=True)
            file = target.open("xb")
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise self._refused(member, "another member is in its place") from error
        with file:
            yield from self._copied(member, file)

    def _make_room(self, member: tarfile.TarInfo) -> None:
        if member.size < 0:
            raise tarfile.ReadError("a file of a negative size")
        self.total += member.size
        if self.total > self.most:
            raise self._refused(member, f"with it, the files have more than {self.most} bytes")

    def _copied(self, member: tarfile.TarInfo, file: IO[bytes]) -> Iterator[int]:
        self.stream.seek(member.offset_data)
        left = member.size
        while left:
            piece = self.stream.read(min(left, _CHUNK))
            if not piece:
                raise EOFError("a file breaks off")
            left -= len(piece)
            file.write(piece)
            yield len(piece)
        file.flush()
        os.fsync(file.fileno())

    def _refused(self, member: tarfile.TarInfo, why: str) -> ArchiveError:
        message = f"{self.path}: member {member.name!r} of the archive is refused: {why}"
        return ArchiveError(message, path=self.path, member=member.name)

    def _check_end(self, offset: int) -> None:
        """See that an archive has its end, which `tarfile` does not ask for."""
        if not self.compressed:
            self.stream.seek(offset)
            if len(self.stream.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE:
                raise EOFError("its end is missing")
            return
        rest = 0
        while piece := self.stream.read(_CHUNK):  # the checksum stands at the very end
            rest += len(piece)
            if rest > _LONGEST_REST:
                raise ArchiveError(f"{self.path}: the archive goes on behind its end", path=self.path)


def _kind(member: tarfile.TarInfo) -> Literal["file", "directory", "link", "other"]:
    if member.isreg() and not member.issparse():
        return "file"
    if member.isdir():
        return "directory"
    return "link" if member.issym() or member.islnk() else "other"
