"""Downloads from services that exist and over sockets that break; how much memory they take; and after a kill."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from pathlib import Path

import pytest
import trio

import tinker_actors as ta
from tests.actors.archives import FILES, LoopbackHost, left, tar_of
from tinker_actors.errors import (
    NotFoundError,
)
from tinker_actors.local.service import EmbeddedService

PATH = "tinker://f00d:train:0/weights/a"
TAR = tar_of(FILES)
MB = 1024 * 1024


async def test_the_embedded_service_gives_its_checkpoints(tmp_path: Path) -> None:
    """Over the whole way: saved, located, downloaded, taken apart."""
    async with ta.open_service(embedded=EmbeddedService(seed=1)) as service:
        training = await service.create_lora_training_client("tinker-actors/char-100k", rank=2)
        path = (await training.save_state("a")).path
        folder = await service.rest.download_checkpoint(path, tmp_path / "a", extract=True, progress="bar")
        assert left(folder) == ["adapter_config.json", "adapter_model.safetensors", "optimizer.safetensors"]
        with pytest.raises(NotFoundError):
            await service.rest.download_checkpoint(f"{path}-not", tmp_path / "b")
    assert left(tmp_path) == ["a"]


def resident() -> int:
    """Return the bytes of memory that this process has at present."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def fetch_over_loopback(host: LoopbackHost, tmp_path: Path, *, extract: bool) -> int:
    """Download from a socket, check every byte, and return how much memory it took at most."""
    peak = before = 0

    def watch(_: int, __: int | None) -> None:
        nonlocal peak
        peak = max(peak, resident())

    expected = hashlib.sha256()
    for piece in host.file() if extract else host.content(0):
        expected.update(piece)
    async with host.serve() as url, ta.open_rest_client(url) as rest:
        await rest.download_checkpoint(PATH, tmp_path / "warm", progress=watch)
        (tmp_path / "warm").unlink()
        host.requests.clear()
        host.cut = host.total // 2
        before = peak = resident()
        place = await rest.download_checkpoint(
            PATH, tmp_path / "a", extract=extract, progress=watch, expected_size=host.total
        )
    got = hashlib.sha256()
    with (place / "model.safetensors" if extract else place).open("rb") as file:
        while piece := file.read(MB):
            got.update(piece)
    assert got.digest() == expected.digest()
    return peak - before


linux = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")


@linux
@pytest.mark.parametrize("ranges", [True, False])
async def test_a_connection_that_is_cut_half_way(tmp_path: Path, ranges: bool) -> None:
    """Over a socket: the second request asks for the rest, or gets the whole again."""
    host = LoopbackHost(3 * MB, ranges=ranges)
    await fetch_over_loopback(host, tmp_path, extract=False)
    assert len(host.requests) == 2
    assert "range:" not in host.requests[0].lower()
    assert 'if-range: "one"' in host.requests[1].lower()
    assert left(tmp_path) == ["a"]


@linux
@pytest.mark.slow
@pytest.mark.lesson("D22")
@pytest.mark.parametrize("extract", [False, True])
async def test_a_large_archive_that_is_cut_half_way(tmp_path: Path, extract: bool) -> None:
    """200 MB, of which half comes, and the rest when it is asked for; in less than 20 MB of memory."""
    host = LoopbackHost(200_000_000)
    grown = await fetch_over_loopback(host, tmp_path, extract=extract)
    assert grown < 20_000_000
    assert len(host.requests) == 2
    start = int(host.requests[1].lower().partition("range: bytes=")[2].partition("-")[0])
    assert start > 50_000_000
    assert left(tmp_path) == ["a"]


KILLED = """
import os, signal, sys, trio
import tinker_actors as ta

def progress(done, total):
    if done > total // 2:
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    async with ta.open_rest_client(sys.argv[1]) as rest:
        await rest.download_checkpoint(sys.argv[2], sys.argv[3], resume=True, progress=progress)

trio.run(main)
"""


@linux
@pytest.mark.slow
async def test_a_process_that_is_killed_half_way(tmp_path: Path) -> None:
    """Another process asks for no more than the rest and what was not certainly on the disk."""
    host = LoopbackHost(200_000_000)
    expected = hashlib.sha256()
    for piece in host.content(0):
        expected.update(piece)
    place = tmp_path / "a"
    async with host.serve() as url:
        command = [sys.executable, "-c", KILLED, url, PATH, str(place)]
        killed = await trio.run_process(command, check=False, capture_stderr=True)
        assert killed.returncode == -signal.SIGKILL
        assert not place.exists()
        async with ta.open_rest_client(url) as rest:
            await rest.download_checkpoint(PATH, place, resume=True)
    start = int(host.requests[1].lower().partition("range: bytes=")[2].partition("-")[0])
    assert host.total // 2 - 40 * MB < start <= host.total // 2 + 2 * MB
    with place.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").digest() == expected.digest()
    assert left(tmp_path) == ["a"]
