"""Undoing the compression of a body that comes piece by piece, in a bounded amount of memory.

Archives are asked for as they are. Some hosts compress them all the same.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final, Protocol

from tinker_actors.errors import ArchiveError

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
    def __init__(self, path: str) -> None:
        self._path = path
        self._inflate = zlib.decompressobj(_GZIP_FRAME)

    def decode(self, piece: bytes) -> Iterator[bytes]:
        """Yield what a piece brings.

        Raises:
            ArchiveError: it is not compressed as it should be.
        """
        while piece and not self._inflate.eof:
            try:
                part = self._inflate.decompress(piece, _LONGEST)
            except zlib.error as error:
                raise self._damaged(str(error)) from error
            piece = self._inflate.unconsumed_tail
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


def decoder_for(path: str, encoding: str) -> Decoder:
    """Return what undoes the compression that an answer names.

    Args:
        path: the checkpoint's, for errors.
        encoding: the header `content-encoding`, or nothing.

    Raises:
        ArchiveError: a compression that was not asked for and is not known here.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return AsItIs()
    if name in ("gzip", "x-gzip"):
        return _Gunzip(path)
    raise ArchiveError(
        f"{path}: the archive was sent with {encoding!r}, though it was asked for as it is", path=path
    )
