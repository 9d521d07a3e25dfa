from __future__ import annotations

import contextlib
import gzip
import sys
import tracemalloc
import zlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tinker_actors.errors import ConfigError, DecodeError
from tinker_actors.wire.compression import compress, decompress, encodings

LIMIT = 1 << 20
bodies = st.binary(max_size=300) | st.builds(
    lambda part, times: part * times, st.binary(max_size=9), st.integers(0, 9999)
)


def raw_deflate(data: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(data) + deflater.flush()


def zstd(data: bytes, **options: bool) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(data)


WAYS = {
    "zstd": [
        compress,
        lambda data: zstd(data, write_content_size=False),
        lambda data: zstd(data, write_checksum=True),
        lambda data: zstd(data[:7]) + zstd(data[7:]),
        lambda data: b"\x51\x2a\x4d\x18\x03\0\0\0abc" + zstd(data),
    ],
    "gzip": [gzip.compress],
    "x-gzip": [gzip.compress],
    "deflate": [zlib.compress, raw_deflate],
    "identity": [bytes],
    "": [bytes],
}
COMPRESSED = [
    pytest.param(name, way, id=f"{name}-{number}")
    for name, ways in WAYS.items()
    for number, way in enumerate(ways)
    if name not in {"", "identity"}
]


def problem(data: bytes, encoding: str, limit: int = LIMIT) -> str:
    with pytest.raises(DecodeError) as caught:
        decompress(data, encoding, limit=limit)
    return str(caught.value)


@given(bodies)
def test_every_encoding_is_undone(data: bytes) -> None:
    """Whatever was compressed comes back, with and without a size in front, checksums, frames and wrappers."""
    for encoding, ways in WAYS.items():
        for way in ways:
            assert decompress(way(data), encoding, limit=len(data) + 500) == data


def test_several_encodings_are_undone_from_the_last_to_the_first() -> None:
    """`gzip, zstd` means that gzip came first and zstd around it; names are not told apart by case."""
    data = b"tokens" * 100
    body = compress(gzip.compress(data))
    assert decompress(body, "gzip, ZSTD", limit=LIMIT) == data
    assert "not a gzip body" in problem(body, "zstd, gzip")
    assert encodings(" GZip,identity , , zstd") == ["gzip", "zstd"]


@pytest.mark.parametrize(("encoding", "way"), COMPRESSED)
def test_the_limit_holds_exactly(encoding, way) -> None:
    """As many bytes as are allowed come out; one fewer allowed, and nothing does."""
    data = bytes(range(256)) * 20
    assert decompress(way(data), encoding, limit=len(data)) == data
    assert "larger than 5119 bytes" in problem(way(data), encoding, len(data) - 1)


def test_a_body_as_it_is_has_the_limit_too() -> None:
    """What is not compressed, or is larger before it is undone, is refused by the same limit."""
    assert decompress(b"abc", "identity", limit=3) == b"abc"
    assert problem(b"abcd", "identity", 3) == "not a body: larger than 3 bytes"
    assert "larger than" in problem(compress(b"abcd"), "zstd", 4)


@pytest.mark.parametrize(("encoding", "way"), COMPRESSED)
def test_a_bomb_does_not_take_the_memory_it_claims(encoding, way) -> None:
    """Sixty-four megabytes of nothing, and of nothing compressed, cost no more than the limit."""
    bomb = way(bytes(1 << 26))
    tracemalloc.start()
    try:
        assert "larger than" in problem(bomb, encoding)
        assert "larger than" in problem(way(bomb), f"{encoding}, {encoding}")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * LIMIT


def test_a_size_that_the_blocks_cannot_hold_is_a_lie() -> None:
    """A frame that claims an exabyte in three bytes is refused before anything is allocated."""
    lie = b"\x28\xb5\x2f\xfd\xe0" + (1 << 60).to_bytes(8, "little") + b"\x01\x00\x00"
    assert "holds 131072 at most" in problem(lie, "zstd", 1 << 62)


@pytest.mark.parametrize(("encoding", "way"), COMPRESSED)
def test_what_is_cut_short_or_garbage_is_refused(encoding, way) -> None:
    """Every beginning of a body is a DecodeError, and so are garbage, nothing, and a body with a tail."""
    text = b"a body that is compressed " * 3
    body = way(text)
    whole = {11, len(zstd(text[:7]))} if encoding == "zstd" else set()  # a first frame is a body by itself
    for end in set(range(len(body))) - whole:
        assert problem(body[:end], encoding)
    for data in (b"", b"garbage", bytes(range(200)), body + b"tail"):
        assert problem(data, encoding)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    """Bytes behind a frame's beginning are undone or refused, and nothing else."""
    head = b"\x28\xb5\x2f\xfd"
    for body, encoding in (
        (data, "gzip"),
        (data, "deflate"),
        (head + data, "zstd"),
        (b"\x1f\x8b\x08" + data, "gzip"),
    ):
        with contextlib.suppress(DecodeError):
            assert len(decompress(body, encoding, limit=1000)) <= 1000


def test_unknown_and_too_many_encodings_are_refused() -> None:
    """A name that is not known, and a header that names an encoding over and over."""
    assert problem(b"", "br") == "not a body: content encoding 'br' is not supported"
    assert problem(b"", "gzip," * 4) == "not a body: 4 content encodings, at most 3 are undone"


def test_without_the_extra_the_error_names_it(monkeypatch) -> None:
    """Both directions say what to install."""
    monkeypatch.setitem(sys.modules, "zstandard", None)
    for work in (lambda: compress(b""), lambda: decompress(b"x", "zstd", limit=9)):
        with pytest.raises(ConfigError, match=r"tinker-actors\[zstd\]"):
            work()
