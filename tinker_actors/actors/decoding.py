"""Undoing the compression of a body that comes piece by piece, in a bounded amount of memory.

Archives are asked for as they are. Some hosts compress them all the same.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final, Protocol

from tinker_actors.errors import ArchiveError
from tinker_actors.protocol.archive import most_unpacked

__all__ = ["AsItIs", "Decoder", "decoder_for"]

_LONGEST: Final = 1024 * 1024  # bytes that are given at a time
_GZIP_FRAME: Final = 31  # zlib: a window of 32 KiB, in the frame of gzip


class Decoder(Protocol):
    """Undoes a compression."""

    def decode(self, piece: bytes) -> Iterator[bytes]:
        """Yield what a piece brings, at most a megabyte at a time."""
        ...

    def finish(self) -> None:
        """Take note that nothing comes any more."""
        ...


class AsItIs:
    """There is nothing to undo."""

    def decode(self, piece: bytes) -> Iterator[bytes]:
        """Yield the piece."""
        yield piece

    def finish(self) -> None:
        """Be content."""


class _Gunzip:
    def __init__(self, path: str, max_bytes: int | None) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._received = 0
        self._given = 0
        self._inflate = zlib.decompressobj(_GZIP_FRAME)

    def decode(self, piece: bytes) -> Iterator[bytes]:
        """Yield what a piece brings.

        Raises:
            ArchiveError: it is not compressed as it should be, or more comes of it than may.
        """
        self._received += len(piece)
        while piece and not self._inflate.eof:
            try:
                part = self._inflate.decompress(piece, _LONGEST)
            except zlib.error as error:
                raise self._damaged(str(error)) from error
            piece = self._inflate.unconsumed_tail
            self._given += len(part)
            most = most_unpacked(self._received, self._max_bytes)
            if self._given > most:
                raise ArchiveError(
                    f"{self._path}: the archive has more than {most} bytes when it is unpacked",
                    path=self._path,
                )
            yield part
        if piece or self._inflate.unused_data:
            raise self._damaged("it goes on behind its end")

    def finish(self) -> None:
        """See that the end has come.

        Raises:
            ArchiveError: it has not.
        """
        if not self._inflate.eof:
            raise self._damaged("its end is missing")

    def _damaged(self, why: str) -> ArchiveError:
        return ArchiveError(
            f"{self._path}: the archive was sent with gzip, and that is damaged: {why}", path=self._path
        )


def decoder_for(path: str, encoding: str, max_bytes: int | None) -> Decoder:
    """Return what undoes the compression that an answer names.

    Args:
        path: the checkpoint's, for errors.
        encoding: the header `content-encoding`, or nothing.
        max_bytes: what may come of it; None: see `most_unpacked`.

    Raises:
        ArchiveError: a compression that was not asked for and is not known here.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return AsItIs()
    if name in ("gzip", "x-gzip"):
        return _Gunzip(path, max_bytes)
    raise ArchiveError(
        f"{path}: the archive was sent with {encoding!r}, though it was asked for as it is", path=path
    )
