"""Downloads of checkpoints: cut, gone on with, begun anew, refused; and what is left of each."""

from __future__ import annotations

import errno
import gzip
import os
import tarfile
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.actors.archives import FILES, Host, Pieces, left, member, rest_on, tar_of
from tinker_actors.errors import (
    APIConnectionError,
    ArchiveError,
    InputError,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
)
from tinker_actors.protocol import archive as archive_rules

PATH = "tinker://f00d:train:0/weights/a"
TAR = tar_of(FILES)
MB = 1024 * 1024


def tree(folder: Path) -> dict[str, bytes]:
    """Return the files below a directory."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def ranges(host: Host) -> list[str | None]:
    """Return what was asked of the archive's host."""
    return [part for what, part in host.asked if what == "fetch"]


async def test_an_archive_is_written_to_a_file(tmp_path: Path) -> None:
    """As it is; nothing else stays, and its host learns nothing of us."""
    host = Host(TAR)
    async with rest_on(host) as rest:
        file = await rest.download_checkpoint(PATH, str(tmp_path / "a.tar"))
    assert file == tmp_path / "a.tar"
    assert file.read_bytes() == TAR
    assert left(tmp_path) == ["a.tar"]
    (headers,) = host.headers
    assert "hush" not in str(dict(headers))
    assert "x-api-key" not in headers
    assert headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("compress", [False, True])
async def test_the_files_can_be_had_instead(tmp_path: Path, compress: bool) -> None:
    """In a directory that is there when all of them are."""
    async with rest_on(Host(tar_of(FILES, compress=compress))) as rest:
        folder = await rest.download_checkpoint(PATH, tmp_path / "a", extract=True)
    assert tree(folder) == FILES
    assert left(tmp_path) == ["a"]


@pytest.mark.lesson("D60")
async def test_an_archive_that_is_being_made_is_waited_for(autojump_clock: Any, tmp_path: Path) -> None:
    """Half a minute each time, or as long as is said; nothing else asks again in between."""
    making = [httpx.Response(503, headers=headers) for headers in ({}, {"retry-after": "7"}, {})]
    host = Host(TAR, locating=making)
    async with rest_on(host) as rest:
        began = trio.current_time()
        await rest.download_checkpoint(PATH, tmp_path / "a")
    assert trio.current_time() - began == 67
    assert [what for what, _ in host.asked] == ["locate"] * 4 + ["fetch"]


@pytest.mark.lesson("D60")
async def test_an_archive_that_is_never_made_is_told(autojump_clock: Any, tmp_path: Path) -> None:
    """After six waits the service's own answer is the error."""
    host = Host(TAR, locating=[httpx.Response(503) for _ in range(9)])
    async with rest_on(host) as rest:
        with pytest.raises(InternalServerError) as caught:
            await rest.download_checkpoint(PATH, tmp_path / "a")
    assert caught.value.status_code == 503
    assert len(host.asked) == 7
    assert left(tmp_path) == []


# ---------------------------------------------------------------------------------------------------------- cuts


async def test_a_cut_is_gone_on_with_where_it_was(autojump_clock: Any, tmp_path: Path) -> None:
    """Each part is asked for once, and only of the same archive; what is told only grows."""
    host = Host(TAR, cuts=[3000, 2000])
    told: list[tuple[int, int | None]] = []
    async with rest_on(host) as rest:
        file = await rest.download_checkpoint(
            PATH, tmp_path / "a", progress=lambda done, total: told.append((done, total))
        )
    assert file.read_bytes() == TAR
    assert ranges(host) == [None, "bytes=3000-", "bytes=5000-"]
    assert [headers.get("if-range") for headers in host.headers] == [None, '"one"', '"one"']
    assert [what for what, _ in host.asked].count("locate") == 1
    assert {total for _, total in told} == {len(TAR)}
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert (told[0][0], told[-1][0]) == (0, len(TAR))


@pytest.mark.parametrize("etag", [None, 'W/"one"'])
async def test_without_a_strong_tag_the_length_tells(
    autojump_clock: Any, tmp_path: Path, etag: str | None
) -> None:
    """The rest of something of the same length is the rest of the same."""
    host = Host(TAR, cuts=[3000], etag=etag)
    async with rest_on(host) as rest:
        assert (await rest.download_checkpoint(PATH, tmp_path / "a")).read_bytes() == TAR
    assert ranges(host) == [None, "bytes=3000-"]
    assert "if-range" not in host.headers[1]


async def test_a_host_without_ranges_begins_anew(autojump_clock: Any, tmp_path: Path) -> None:
    """What it had sent before is dropped; progress begins at nothing again."""
    host = Host(TAR, cuts=[3000], ranges=False)
    told: list[int] = []
    async with rest_on(host) as rest:
        await rest.download_checkpoint(PATH, tmp_path / "a", progress=lambda done, _: told.append(done))
    assert (tmp_path / "a").read_bytes() == TAR
    assert told == [0, 3000, 0, len(TAR)]


@pytest.mark.parametrize("tagged", [True, False])
async def test_another_archive_is_not_mixed_in(autojump_clock: Any, tmp_path: Path, tagged: bool) -> None:
    """If the archive is made anew meanwhile, all of it comes from the new one."""
    other = tar_of(FILES | {"more": b"x" * 20_000})
    host = Host(TAR, cuts=[3000], etag='"one"' if tagged else None)

    def change() -> None:
        if len(host.headers) == 2:
            host.content, host.etag = other, '"two"' if tagged else None

    host.before = change
    async with rest_on(host) as rest:
        assert (await rest.download_checkpoint(PATH, tmp_path / "a")).read_bytes() == other


async def test_a_shorter_archive_is_asked_for_whole(autojump_clock: Any, tmp_path: Path) -> None:
    """A part that is not there any more means that it is another one."""
    host = Host(TAR, cuts=[len(TAR) - 1], etag=None)

    def change() -> None:
        if len(host.headers) == 2:
            host.content = tar_of({"a": b"b"})[:2048]

    host.before = change
    async with rest_on(host) as rest:
        assert (await rest.download_checkpoint(PATH, tmp_path / "a")).read_bytes() == host.content
    assert ranges(host) == [None, f"bytes={len(TAR) - 1}-", None]


async def test_an_address_that_has_run_out_is_asked_for_again(autojump_clock: Any, tmp_path: Path) -> None:
    """Signed addresses hold for a while; the download goes on at the next one."""
    host = Host(TAR, cuts=[3000])

    def run_out() -> None:
        if len(host.headers) == 2:
            host.fetching.append(httpx.Response(403, text="Request has expired"))

    host.before = run_out
    async with rest_on(host) as rest:
        assert (await rest.download_checkpoint(PATH, tmp_path / "a")).read_bytes() == TAR
    assert host.asked == [
        ("locate", None),
        ("fetch", None),
        ("fetch", "bytes=3000-"),
        ("locate", None),
        ("fetch", "bytes=3000-"),
    ]


async def test_it_may_be_cut_often_while_it_gets_further(autojump_clock: Any, tmp_path: Path) -> None:
    """Attempts are counted since it last got further; one that gets no further is given up in the end."""
    host = Host(TAR, cuts=[700] * 12)
    async with rest_on(host, max_retries=2) as rest:
        assert (await rest.download_checkpoint(PATH, tmp_path / "a")).read_bytes() == TAR
    host = Host(TAR, cuts=[3000, 0, 0, 0, 0])
    async with rest_on(host, max_retries=2) as rest:
        with pytest.raises(APIConnectionError) as caught:
            await rest.download_checkpoint(PATH, tmp_path / "b")
    assert "hush" not in str(caught.value)
    assert len(ranges(host)) == 3
    assert left(tmp_path) == ["a"]


async def test_a_host_that_refuses_is_believed_in_the_end(autojump_clock: Any, tmp_path: Path) -> None:
    """Its refusal is the error, when new addresses are refused as well."""
    host = Host(TAR, fetching=[httpx.Response(403) for _ in range(9)])
    async with rest_on(host, max_retries=2) as rest:
        with pytest.raises(PermissionDeniedError):
            await rest.download_checkpoint(PATH, tmp_path / "a")
    assert [what for what, _ in host.asked] == ["locate", "fetch"] * 3


async def test_a_body_that_ends_too_soon_is_cut(autojump_clock: Any, tmp_path: Path) -> None:
    """Whoever brings it: fewer bytes than were said are not the whole."""

    class Short(Host):
        def _part(self, request: httpx.Request) -> httpx.Response:
            response = super()._part(request)
            response.stream._error = None  # type: ignore[attr-defined]  # ours
            return response

    host = Short(TAR, cuts=[3000])
    async with rest_on(host) as rest:
        assert (await rest.download_checkpoint(PATH, tmp_path / "a")).read_bytes() == TAR
    assert ranges(host) == [None, "bytes=3000-"]


@pytest.mark.parametrize("encoding", [None, "gzip"])
async def test_an_archive_of_unknown_length_is_taken_as_it_comes(
    tmp_path: Path, encoding: str | None
) -> None:
    """Without a length, and compressed on the way although it was not to be."""
    told: list[int | None] = []
    async with rest_on(Host(TAR, chunked=True, encoding=encoding)) as rest:
        file = await rest.download_checkpoint(
            PATH, tmp_path / "a", progress=lambda _, total: told.append(total)
        )
    assert file.read_bytes() == TAR
    assert set(told) == {None}


@pytest.mark.lesson("L36")
@pytest.mark.parametrize(
    ("encoding", "body", "why"),
    [
        ("gzip", b"garbage", "damaged: .*header"),
        ("gzip", gzip.compress(TAR)[:-4], "its end is missing"),
        ("gzip", gzip.compress(TAR) + b"more", "goes on behind"),
        ("br", b"x", "sent with 'br'"),
    ],
    ids=range(4),
)
async def test_what_cannot_be_decompressed_is_no_archive(
    tmp_path: Path, encoding: str, body: bytes, why: str
) -> None:
    """A body that is not what its encoding says is an error, and is never kept as it came."""
    headers = {"content-encoding": encoding}
    host = Host(TAR, fetching=[httpx.Response(200, headers=headers, stream=Pieces(iter([body]), None))])
    async with rest_on(host) as rest:
        with pytest.raises(ArchiveError, match=why):
            await rest.download_checkpoint(PATH, tmp_path / "a")
    assert left(tmp_path) == []


# ---------------------------------------------------------------------------------------------------------- size


@pytest.mark.lesson("L29")
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("wrong", [-1, 1])
async def test_the_size_must_be_as_expected(tmp_path: Path, chunked: bool, wrong: int) -> None:
    """Whether the service says it or not; if it does, nothing more is read."""
    host = Host(TAR, chunked=chunked)
    async with rest_on(host) as rest:
        with pytest.raises(ArchiveError, match="bytes") as caught:
            await rest.download_checkpoint(PATH, tmp_path / "a", expected_size=len(TAR) + wrong)
        assert caught.value.path == PATH
        assert left(tmp_path) == []
        file = await rest.download_checkpoint(PATH, tmp_path / "a", expected_size=len(TAR))
    assert file.read_bytes() == TAR


@pytest.mark.lesson("L29")
@pytest.mark.parametrize(("chunked", "encoding"), [(False, None), (True, None), (True, "gzip")])
async def test_no_more_is_taken_than_is_allowed(tmp_path: Path, chunked: bool, encoding: str | None) -> None:
    """The archive and the files in it are measured, whether the service says a length or not."""
    files = sum(map(len, FILES.values()))
    async with rest_on(Host(TAR, chunked=chunked, encoding=encoding)) as rest:
        with pytest.raises(ArchiveError, match=f"more than {len(TAR) - 1} bytes"):
            await rest.download_checkpoint(PATH, tmp_path / "a", max_bytes=len(TAR) - 1)
        await rest.download_checkpoint(PATH, tmp_path / "a", max_bytes=len(TAR))
    packed = tar_of(FILES, compress=True)
    async with rest_on(Host(packed, chunked=chunked)) as rest:
        with pytest.raises(ArchiveError, match=f"files have more than {files - 1} bytes"):
            await rest.download_checkpoint(PATH, tmp_path / "b", extract=True, max_bytes=files - 1)
        await rest.download_checkpoint(PATH, tmp_path / "b", extract=True, max_bytes=files)
        with pytest.raises(InputError, match="max_bytes"):
            await rest.download_checkpoint(PATH, tmp_path / "c", max_bytes=0)
    assert left(tmp_path) == ["a", "b"]


@pytest.mark.lesson("L29")
async def test_a_body_that_unpacks_to_very_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that compresses on the way could send a disk full of zeros in a moment."""
    monkeypatch.setattr(archive_rules, "_SMALL", 2 * MB)
    async with rest_on(Host(b"\0" * 8 * MB, chunked=True, encoding="gzip")) as rest:
        with pytest.raises(ArchiveError, match=f"more than {2 * MB} bytes when"):
            await rest.download_checkpoint(PATH, tmp_path / "a")
        assert left(tmp_path) == []
        await rest.download_checkpoint(PATH, tmp_path / "a", max_bytes=8 * MB)


@pytest.mark.parametrize("status", [200, 204])
async def test_nothing_is_no_archive(tmp_path: Path, status: int) -> None:
    """An answer without a body is no file of zero bytes that takes the place of a checkpoint."""
    host = Host(TAR, fetching=[httpx.Response(status, stream=Pieces(iter([]), None))])
    async with rest_on(host) as rest:
        with pytest.raises(ArchiveError, match="is empty"):
            await rest.download_checkpoint(PATH, tmp_path / "a")
    assert left(tmp_path) == []


async def test_a_part_of_other_bytes_is_not_mixed_in(autojump_clock: Any, tmp_path: Path) -> None:
    """A host that compresses parts only has cut its part out of other bytes than we have."""
    headers = {
        "content-range": f"bytes 5000-{len(TAR) - 1}/{len(TAR)}",
        "content-encoding": "gzip",
        "etag": '"one"',
    }
    part = Pieces(iter([gzip.compress(TAR[5000:])]), None)
    host = Host(TAR, cuts=[5000])

    def second() -> None:
        if len(ranges(host)) == 2:
            host.fetching.append(httpx.Response(206, headers=headers, stream=part))

    host.before = second
    async with rest_on(host) as rest:
        assert (await rest.download_checkpoint(PATH, tmp_path / "a")).read_bytes() == TAR
    assert ranges(host) == [None, "bytes=5000-", None]


async def test_more_than_was_said_is_refused(tmp_path: Path) -> None:
    """A body without an end does not fill the disk."""
    headers = {"content-length": "100"}
    host = Host(TAR, fetching=[httpx.Response(200, headers=headers, stream=httpx.ByteStream(b"x" * 200))])
    async with rest_on(host) as rest:
        with pytest.raises(ArchiveError, match="more than 100 bytes"):
            await rest.download_checkpoint(PATH, tmp_path / "a")
    assert left(tmp_path) == []


# --------------------------------------------------------------------------------------------------------- places


async def test_what_is_there_is_not_replaced_unasked(tmp_path: Path) -> None:
    """Refused before anything is sent."""
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "folder").mkdir()
    host = Host(TAR)
    async with rest_on(host) as rest:
        for place, options, why in (
            (tmp_path / "a", {}, "exists already"),
            (tmp_path / "folder", {"extract": True}, "exists already"),
            (tmp_path / "folder", {"force": True}, "is a directory"),
            (tmp_path / "a", {"force": True, "extract": True}, "is a file"),
            (tmp_path / "nowhere" / "a", {}, "directory that exists"),
            (Path("/"), {}, "must name"),
            (tmp_path / "..", {"force": True}, "must name"),
            (None, {}, "must be a path"),
            (tmp_path / "a\0b", {}, "NUL"),
            ("a\0b/c", {}, "NUL"),
        ):
            with pytest.raises(InputError, match=why) as caught:
                await rest.download_checkpoint(PATH, place, **options)
            assert caught.value.field == "destination"
        for options, field in (
            ({"expected_size": 0}, "expected_size"),
            ({"max_bytes": "9"}, "max_bytes"),
            ({"progress": 3}, "progress"),
        ):
            with pytest.raises(InputError) as caught:
                await rest.download_checkpoint(PATH, tmp_path / "b", **options)
            assert caught.value.field == field
        with pytest.raises(InputError):
            await rest.download_checkpoint("tinker://r/a", tmp_path / "b")
    assert host.asked == []


@pytest.mark.lesson("L29")
@pytest.mark.parametrize("extract", [False, True])
async def test_what_was_there_goes_only_at_the_end(
    autojump_clock: Any, tmp_path: Path, extract: bool
) -> None:
    """A download that fails leaves the old one as it was; one that succeeds leaves nothing of it."""
    place = tmp_path / "a"
    if extract:
        place.mkdir()
        (place / "old").write_bytes(b"old")
    else:
        place.write_bytes(b"old")
    before = tree(tmp_path)
    evil = tar_of(FILES, member("../x", tarfile.REGTYPE))
    failing = [Host(TAR, cuts=[9, 0, 0]), Host(TAR, locating=[httpx.Response(404)])]
    for host in [*failing, Host(evil)] if extract else failing:
        async with rest_on(host, max_retries=1) as rest:
            with pytest.raises((APIConnectionError, NotFoundError, ArchiveError)):
                await rest.download_checkpoint(PATH, place, extract=extract, force=True)
        assert tree(tmp_path) == before
        assert left(tmp_path) == ["a"]
    async with rest_on(Host(TAR)) as rest:
        await rest.download_checkpoint(PATH, place, extract=extract, force=True)
    assert left(tmp_path) == ["a"]
    assert tree(place) == FILES if extract else place.read_bytes() == TAR


async def test_an_old_directory_comes_back_if_it_cannot_be_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is put aside for a moment, and back if the new one cannot take its place."""
    place = tmp_path / "a"
    place.mkdir()
    (place / "old").write_bytes(b"old")
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.name.endswith(".files"):
            raise OSError(errno.EBUSY, "busy")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    async with rest_on(Host(TAR)) as rest:
        with pytest.raises(OSError, match="busy"):
            await rest.download_checkpoint(PATH, place, extract=True, force=True)
    assert tree(tmp_path) == {"a/old": b"old"}


async def test_a_link_is_replaced_and_not_what_it_leads_to(tmp_path: Path) -> None:
    """What somebody has linked elsewhere stays there."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").write_bytes(b"kept")
    (tmp_path / "a").symlink_to(elsewhere)
    async with rest_on(Host(TAR)) as rest:
        await rest.download_checkpoint(PATH, tmp_path / "a", extract=True, force=True)
    assert tree(elsewhere) == {"kept": b"kept"}
    assert not (tmp_path / "a").is_symlink()
    assert tree(tmp_path / "a") == FILES


async def test_a_place_that_is_taken_meanwhile_is_left(tmp_path: Path) -> None:
    """Who came first keeps it."""
    host = Host(TAR)
    host.before = lambda: (tmp_path / "a").write_bytes(b"theirs") and None
    async with rest_on(host) as rest:
        with pytest.raises(InputError, match="exists already"):
            await rest.download_checkpoint(PATH, tmp_path / "a")
    assert tree(tmp_path) == {"a": b"theirs"}


@pytest.mark.lesson("L29")
async def test_downloads_to_one_place_do_not_meet(tmp_path: Path) -> None:
    """Each has a file of its own until the end; what is there is whole at any time."""
    async with rest_on(Host(TAR)) as rest, trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(lambda: rest.download_checkpoint(PATH, tmp_path / "a", force=True))
    assert left(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == TAR


@pytest.mark.parametrize("extract", [False, True])
@pytest.mark.parametrize("at", range(0, 12, 2))
async def test_leaving_leaves_nothing(tmp_path: Path, extract: bool, at: int) -> None:
    """Wherever a download is cancelled, no file and no directory stays."""
    host, calls = Host(tar_of(FILES | {"large": b"x" * 5 * MB})), 0
    with trio.CancelScope() as scope:

        def leave(_: int, __: int | None) -> None:
            nonlocal calls
            calls += 1
            if calls > at:
                scope.cancel()

        async with rest_on(host) as rest:
            await rest.download_checkpoint(PATH, tmp_path / "a", extract=extract, progress=leave)
    assert scope.cancelled_caught == (calls > at)
    assert left(tmp_path) == ([] if scope.cancelled_caught else ["a"])


async def test_a_disk_that_fails_is_told_as_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the disk is no damaged archive, and nothing stays."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "fsync", full)
    async with rest_on(Host(TAR)) as rest:
        for extract in (False, True):
            with pytest.raises(OSError, match="no space"):
                await rest.download_checkpoint(PATH, tmp_path / "a", extract=extract)
    assert left(tmp_path) == []


# -------------------------------------------------------------------------------------------- in another process


async def test_a_later_call_goes_on_where_one_was_left(autojump_clock: Any, tmp_path: Path) -> None:
    """If it is wanted: what came stays hidden beside the place, and the next call asks for the rest."""
    host = Host(TAR, cuts=[3000, 0, 0])
    async with rest_on(host, max_retries=1) as rest:
        with pytest.raises(APIConnectionError):
            await rest.download_checkpoint(PATH, tmp_path / "a", resume=True)
        assert all(name.startswith(".a.") for name in left(tmp_path))
        assert len(left(tmp_path)) == 2
        host.cuts.clear()
        told: list[int] = []
        await rest.download_checkpoint(
            PATH, tmp_path / "a", resume=True, progress=lambda done, _: told.append(done)
        )
    assert (tmp_path / "a").read_bytes() == TAR
    assert left(tmp_path) == ["a"]
    assert ranges(host)[-1] == "bytes=3000-"
    assert told == [3000, len(TAR)]


async def test_a_later_call_does_not_mix_archives(autojump_clock: Any, tmp_path: Path) -> None:
    """One that was made anew meanwhile comes whole; one that is refused is not kept."""
    host = Host(TAR, cuts=[3000])
    async with rest_on(host, max_retries=0) as rest:
        with pytest.raises(APIConnectionError):
            await rest.download_checkpoint(PATH, tmp_path / "a", extract=True, resume=True)
        host.content, host.etag = tar_of(FILES, member("../x", tarfile.REGTYPE)), '"two"'
        with pytest.raises(ArchiveError):
            await rest.download_checkpoint(PATH, tmp_path / "a", extract=True, resume=True)
    assert left(tmp_path) == []


async def test_a_part_that_nobody_asked_for_is_refused(tmp_path: Path) -> None:
    """A host that sends parts of its own choice is not asked for ever."""
    odd = httpx.Response(206, headers={"content-range": f"bytes 5-9/{len(TAR)}"}, content=b"12345")
    async with rest_on(Host(TAR, fetching=[odd])) as rest:
        with pytest.raises(ArchiveError, match="nobody asked for"):
            await rest.download_checkpoint(PATH, tmp_path / "a")
    assert left(tmp_path) == []
