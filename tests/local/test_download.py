"""Archives of the embedded service: where they are, and parts of them."""

from __future__ import annotations

import io
import tarfile
from datetime import UTC, datetime
from typing import Any

import pytest

from tinker_actors.local.archive import CHUNK, part_of, tar_chunks, tar_size
from tinker_actors.wire.weights import SaveWeightsRequest


@pytest.mark.parametrize("sizes", [[], [0], [1], [512], [9, 513, CHUNK + 1], [10240 - 1024 - 512]])
def test_the_size_of_an_archive_is_known_before_it_is_made(sizes: list[int]) -> None:
    """It is the sum of its pieces, whatever the files."""
    files = {f"f{number}": b"x" * size for number, size in enumerate(sizes)}
    assert tar_size(files) == sum(map(len, tar_chunks(files)))


def test_a_part_of_an_archive_is_cut_from_its_pieces() -> None:
    """Whatever its bounds; pieces behind it are not made."""
    pieces = [b"abc", b"", b"defg", b"h"]
    for start in range(9):
        for stop in range(start, 9):
            assert b"".join(part_of(iter(pieces), range(start, stop))) == b"abcdefgh"[start:stop]
    rest = iter(pieces)
    assert list(part_of(rest, range(1, 3))) == [b"bc"]
    assert next(rest) == b""


async def test_an_archive_can_be_asked_for_in_parts(make_service, connect, kit) -> None:
    """Its address holds for a while; its length and tag are told; a part of something else is the whole."""
    when = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
    async with connect(make_service(utc_now=lambda: when)) as caller:
        model_id = await caller.create_model()
        path = (await caller.run(SaveWeightsRequest(model_id=model_id, path="a", seq_id=1)))["path"]
        other = (await caller.run(SaveWeightsRequest(model_id=model_id, path="b", seq_id=2)))["path"]
        located = await caller.http.get(kit.archive_url(path))
        elsewhere = (await caller.http.get(kit.archive_url(other))).headers["location"]
        signed = elsewhere.partition("?")[2]
        for wrong in ("", "?signature=", "?signature=x", f"?{signed}"):
            refused = await caller.http.get(located.headers["location"].partition("?")[0] + wrong)
            assert refused.status_code == 403
        assert located.headers["expires"].startswith("Wed, 04 Mar 2026 06:06:")
        url = located.headers["location"]
        whole = await caller.http.get(url)
        size, tag = len(whole.content), whole.headers["etag"]
        assert whole.headers["content-length"] == str(size)
        assert whole.headers["accept-ranges"] == "bytes"
        with tarfile.open(fileobj=io.BytesIO(whole.content)) as tar:
            assert "adapter_config.json" in tar.getnames()

        async def part(value: str, **headers: Any) -> tuple[int, bytes, str | None]:
            got = await caller.http.get(url, headers={"range": value, **headers})
            return got.status_code, got.content, got.headers.get("content-range")

        assert await part("bytes=100-199") == (206, whole.content[100:200], f"bytes 100-199/{size}")
        assert await part(f"bytes={size - 5}-", **{"if-range": tag}) == (
            206,
            whole.content[-5:],
            f"bytes {size - 5}-{size - 1}/{size}",
        )
        assert await part("bytes=-7") == (206, whole.content[-7:], f"bytes {size - 7}-{size - 1}/{size}")
        assert await part(f"bytes={size}-") == (416, b"", f"bytes */{size}")
        for passed_over in ("bytes=0-1,5-6", "lines=1-2", "bytes=9-3"):
            assert (await part(passed_over))[0] == 200
        assert (await part("bytes=100-", **{"if-range": '"other"'}))[:2] == (200, whole.content)
