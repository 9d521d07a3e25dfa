"""Compressed bodies: written as zstd, read as zstd, gzip and deflate, and never larger than the reader allows.

A few bytes can claim to be gigabytes. So a limit is asked for, and it holds before the memory is taken: zlib stops
at it, and of a zstd frame the blocks are counted first, each of which holds 128 KiB at most (RFC 8878, 3.1.1.2).
"""

from __future__ import annotations

import zlib
from types import ModuleType
from typing import Final, Literal

from tinker_actors.errors import ConfigError, DecodeError

__all__ = ["ENCODINGS", "compress", "decompress", "encodings"]

ENCODINGS: Final = frozenset({"zstd", "gzip", "x-gzip", "deflate", "identity"})
"""The content encodings that can be read; zstd needs the extra of that name."""

_ZSTD = "zstd body"
_MOST_STEPS = 3  # encodings of one body; more are no use to anybody honest
_BLOCK_MAX = 128 * 1024
_REPEATED = 1  # a block that is one byte, many times
_SKIPPABLE = range(0x184D2A50, 0x184D2A60)


def compress(data: bytes, encoding: Literal["zstd"] = "zstd", level: int = 1) -> bytes:
    """Compress a body.

    Args:
        data: the bytes.
        encoding: how.
        level: effort; of training batches level 3 takes a third longer than 1 and saves little.

    Raises:
        ConfigError: the package `zstandard` is not installed.
    """
    compressed: bytes = _zstandard(encoding).ZstdCompressor(level=level).compress(data)
    return compressed


def encodings(header: str) -> list[str]:
    """Return the encodings that a `Content-Encoding` header names, in the order they were applied."""
    named = [name.strip().lower() for name in header.split(",")]
    return [name for name in named if name not in {"", "identity"}]


def decompress(data: bytes, encoding: str, *, limit: int) -> bytes:
    """Return a body as it was before it was encoded.

    Args:
        data: the bytes as they came.
        encoding: the `Content-Encoding` header; of several, the last was applied last, and is undone first.
        limit: bytes that may come out, after each step.

    Raises:
        DecodeError: not that encoding, truncated, more than `limit`, an unknown encoding, or too many of them.
        ConfigError: it is zstd, and the package `zstandard` is not installed.
    """
    steps = encodings(encoding)
    if len(steps) > _MOST_STEPS:
        raise DecodeError("body", [f"{len(steps)} content encodings, at most {_MOST_STEPS} are undone"])
    if len(data) > limit:
        raise _too_large("body", limit)
    for step in reversed(steps):
        data = _undo(step, data, limit)
    return data


def _undo(encoding: str, data: bytes, limit: int) -> bytes:
    match encoding:
        case "zstd":
            return _unzstd(data, limit)
        case "gzip" | "x-gzip":
            return _inflate("gzip body", data, 16 + zlib.MAX_WBITS, limit)
        case "deflate":
            wrapped = len(data) >= 2 and data[0] & 15 == 8 and (data[0] << 8 | data[1]) % 31 == 0
            return _inflate("deflate body", data, zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS, limit)
        case _:
            raise DecodeError("body", [f"content encoding {encoding!r} is not supported"])


def _inflate(what: str, data: bytes, wbits: int, limit: int) -> bytes:
    inflater = zlib.decompressobj(wbits)
    try:
        whole = inflater.decompress(data, limit + 1)
    except zlib.error as error:
        raise DecodeError(what, [str(error)]) from error
    if len(whole) > limit:
        raise _too_large(what, limit)
    if not inflater.eof:
        raise DecodeError(what, ["truncated"])
    if inflater.unused_data:
        raise DecodeError(what, [f"{len(inflater.unused_data)} bytes too many"])
    return whole


def _too_large(what: str, limit: int) -> DecodeError:
    return DecodeError(what, [f"larger than {limit} bytes"])


def _zstandard(encoding: str) -> ModuleType:
    try:
        import zstandard
    except ImportError as error:
        raise ConfigError(f"{encoding} needs an extra: pip install 'tinker-actors[zstd]'") from error
    return zstandard


def _unzstd(data: bytes, limit: int) -> bytes:
    """Undo zstd, frame by frame."""
    zstandard = _zstandard("zstd")
    decompressor = zstandard.ZstdDecompressor()
    rest = memoryview(data)
    room = limit
    contents: list[bytes] = []
    try:
        while rest or not contents:
            size, known, most = _frame(zstandard, rest)
            if known and most > room:
                raise _too_large(_ZSTD, limit)
            content: bytes = b""
            if most:
                content = decompressor.decompress(rest[:size], max_output_size=min(most, room + 1))
            if len(content) > room:
                raise _too_large(_ZSTD, limit)
            contents.append(content)
            room -= len(content)
            rest = rest[size:]
    except zstandard.ZstdError as error:
        raise DecodeError(_ZSTD, [f"{error}, or larger than {limit} bytes"]) from error
    return b"".join(contents)


def _frame(zstandard: ModuleType, rest: memoryview) -> tuple[int, bool, int]:
    """Return a frame's size, whether it says how much it holds, and how much that is at most."""
    if int.from_bytes(rest[:4], "little") in _SKIPPABLE:
        size, known, most = 8 + int.from_bytes(rest[4:8], "little"), True, 0
    else:
        parameters = zstandard.get_frame_parameters(rest)
        size, most = _blocks(rest, zstandard.frame_header_size(rest))
        size += 4 if parameters.has_checksum else 0
        known = parameters.content_size != zstandard.CONTENTSIZE_UNKNOWN
        if known and parameters.content_size > most:
            raise DecodeError(_ZSTD, [f"claims {parameters.content_size} bytes, holds {most} at most"])
        most = parameters.content_size if known else most
    if size > len(rest):
        raise DecodeError(_ZSTD, ["truncated"])
    return size, known, most


def _blocks(rest: memoryview, at: int) -> tuple[int, int]:
    """Return the position behind a frame's last block, and what its blocks hold at most."""
    most = 0
    last = 0
    while not last and at < len(rest):
        header = int.from_bytes(rest[at : at + 3], "little")
        last, kind, size = header & 1, header >> 1 & 3, header >> 3
        at += 3 + (1 if kind == _REPEATED else size)
        most += _BLOCK_MAX
    return (at if last else len(rest) + 1), most
