"""Taking the files out of an archive, in a directory that appears when all of them are there.

What comes from a service is not trusted: members that are no plain files or directories, or whose names lead
elsewhere, are refused with the whole archive (`protocol.archive`). Owners, modes and times are not taken over.
A plain tar must have its end, and a compressed one its checksum, so what was cut somewhere is noticed.
"""

from __future__ import annotations

import os
import tarfile
import zlib
from collections.abc import Iterator
from gzip import BadGzipFile
from pathlib import Path
from typing import IO, Final, Literal

from tinker_actors.errors import ArchiveError
from tinker_actors.protocol.archive import refused_member

__all__ = ["extract_steps"]

_CHUNK: Final = 1024 * 1024  # bytes that are copied at a time
_GZIP: Final = b"\x1f\x8b"
_MOST_MEMBERS: Final = 100_000
_LONGEST_REST: Final = 16 * _CHUNK  # bytes behind the end of an archive; padding has ten thousand
_DAMAGED = (tarfile.TarError, EOFError, zlib.error, BadGzipFile)


def extract_steps(archive: Path, directory: Path, path: str) -> Iterator[int]:
    """Take the files out of an archive step by step; closing the iterator leaves what is there.

    Args:
        archive: a tar file, plain or with gzip.
        directory: an empty one.
        path: the checkpoint's, for errors.

    Yields:
        The bytes written since the last step.

    Raises:
        ArchiveError: it is damaged, or a member is refused.
        OSError: something cannot be read or written.
    """
    compressed = _begins_as_gzip(archive)
    try:
        with tarfile.open(archive, "r:gz" if compressed else "r:") as tar:
            count = 0
            for count, member in enumerate(tar, 1):
                if count > _MOST_MEMBERS:
                    raise ArchiveError(
                        f"{path}: the archive has more than {_MOST_MEMBERS} members", path=path
                    )
                yield from _take(tar, member, directory, path)
            if count == 0:
                raise ArchiveError(f"{path}: the archive is empty", path=path)
            _check_end(tar, compressed, path)
    except _DAMAGED as error:
        raise ArchiveError(f"{path}: the archive is damaged: {error}", path=path) from error


def _begins_as_gzip(archive: Path) -> bool:
    with archive.open("rb") as file:
        return file.read(len(_GZIP)) == _GZIP


def _take(tar: tarfile.TarFile, member: tarfile.TarInfo, directory: Path, path: str) -> Iterator[int]:
    kind = _kind(member)
    why = refused_member(member.name, kind)
    if why is not None:
        raise _refused(path, member.name, why)
    parts = [part for part in member.name.split("/") if part not in ("", ".")]
    target = directory.joinpath(*parts)
    try:
        if kind == "directory":
            target.mkdir(parents=True, exist_ok=True)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        file = target.open("xb")
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise _refused(path, member.name, "another member is in its place") from error
    with file:
        source = tar.extractfile(member)
        assert source is not None, "it is a file"
        yield from _copied(source, file)


def _kind(member: tarfile.TarInfo) -> Literal["file", "directory", "link", "other"]:
    if member.isreg():
        return "file"
    if member.isdir():
        return "directory"
    return "link" if member.issym() or member.islnk() else "other"


def _copied(source: IO[bytes], file: IO[bytes]) -> Iterator[int]:
    while piece := source.read(_CHUNK):
        file.write(piece)
        yield len(piece)
    file.flush()
    os.fsync(file.fileno())


def _refused(path: str, member: str, why: str) -> ArchiveError:
    return ArchiveError(
        f"{path}: member {member!r} of the archive is refused: {why}", path=path, member=member
    )


def _check_end(tar: tarfile.TarFile, compressed: bool, path: str) -> None:
    """See that an archive has its end, which `tarfile` does not ask for."""
    stream = tar.fileobj
    assert stream is not None, "it is open"
    if not compressed:
        stream.seek(tar.offset)
        if len(stream.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE:
            raise ArchiveError(f"{path}: the archive is damaged: its end is missing", path=path)
        return
    rest = 0
    while piece := stream.read(_CHUNK):  # the checksum stands at the very end
        rest += len(piece)
        if rest > _LONGEST_REST:
            raise ArchiveError(f"{path}: the archive goes on behind its end", path=path)
