"""Taking the files out of an archive, and refusing what could do harm."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from tests.actors.archives import FILES, member, tar_of
from tinker_actors.actors import extraction
from tinker_actors.actors.extraction import extract_steps
from tinker_actors.errors import ArchiveError
from tinker_actors.protocol import archive as archive_rules

PATH = "tinker://r/weights/a"


def extract(content: bytes, folder: Path, max_bytes: int | None = None) -> int:
    """Take an archive apart in a new directory below a folder; returns the bytes written."""
    archive = folder / "archive"
    archive.write_bytes(content)
    (folder / "out").mkdir()
    return sum(extract_steps(archive, folder / "out", PATH, max_bytes))


def tree(folder: Path) -> dict[str, bytes]:
    """Return the files below a directory."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.lesson("L29")
@pytest.mark.parametrize("compress", [False, True])
def test_files_come_out_as_they_went_in(tmp_path: Path, compress: bool) -> None:
    """Plain or with gzip, in directories of their own, also empty ones, under names written in any usual way."""
    odd = FILES | {"./dotted//file": b"x" * 1000}
    content = tar_of(odd, member("empty/", tarfile.DIRTYPE), member(".", tarfile.DIRTYPE), compress=compress)
    assert extract(content, tmp_path) == sum(map(len, odd.values()))
    assert tree(tmp_path / "out") == FILES | {"dotted/file": b"x" * 1000}
    assert (tmp_path / "out" / "empty").is_dir()


@pytest.mark.parametrize(
    ("evil", "why"),
    [
        (member("../out.txt", tarfile.REGTYPE), "leads out"),
        (member("a/../../out.txt", tarfile.REGTYPE), "leads out"),
        (member("/etc/out.txt", tarfile.REGTYPE), "absolute"),
        (member("link", tarfile.SYMTYPE, "../.."), "a link"),
        (member("inside", tarfile.SYMTYPE, "adapter_config.json"), "a link"),
        (member("hard", tarfile.LNKTYPE, "adapter_config.json"), "a link"),
        (member("pipe", tarfile.FIFOTYPE), "neither"),
        (member("device", tarfile.CHRTYPE), "neither"),
        (member("disk", tarfile.BLKTYPE), "neither"),
        (member("adapter_config.json", tarfile.REGTYPE), "in its place"),
        (member("adapter_config.json/x", tarfile.REGTYPE), "in its place"),
        (member("deep", tarfile.REGTYPE), "in its place"),
        (member("adapter_config.json", tarfile.DIRTYPE), "in its place"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.name}-{value.type.decode()}",
)
def test_a_member_that_could_do_harm_is_refused(tmp_path: Path, evil: tarfile.TarInfo, why: str) -> None:
    """The error names it, and nothing is written outside of the directory."""
    with pytest.raises(ArchiveError, match=why) as caught:
        extract(tar_of(FILES, evil), tmp_path)
    assert (caught.value.member, caught.value.path) == (evil.name, PATH)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["archive", "out"]
    assert not any(entry.is_symlink() for entry in (tmp_path / "out").rglob("*"))


WHOLE = tar_of(FILES)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"\x1f\x8b",
        b"\x00" * 10240,
        WHOLE[:600],
        WHOLE[:5000],
        WHOLE[: WHOLE.index(b"\xff" * 1) + 20],
        gzip.compress(WHOLE)[:-20],
        gzip.compress(WHOLE)[:-4] + b"\0\0\0\0",
        gzip.compress(WHOLE)[:40] + b"garbage" * 20,
        gzip.compress(b"no archive at all" * 100),
        WHOLE[:150] + b"9" + WHOLE[151:],
    ],
    ids=range(12),
)
def test_a_damaged_archive_is_told_as_such(tmp_path: Path, content: bytes) -> None:
    """No archive, one without members, one that breaks off anywhere, one with a wrong checksum."""
    with pytest.raises(ArchiveError, match="tinker://r/weights/a: the archive") as caught:
        extract(content, tmp_path)
    assert caught.value.member is None


def test_an_archive_without_its_end_is_damaged(tmp_path: Path) -> None:
    """What breaks off between two members looks whole to tar programs."""
    files = {"a": b"x" * 512, "b": b"y" * 512}
    with pytest.raises(ArchiveError, match="its end is missing"):
        extract(tar_of(files)[:1024], tmp_path)


def test_an_archive_of_endless_members_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is a limit to how many files a checkpoint has, and to what may stand behind the end."""
    monkeypatch.setattr(extraction, "_MOST_MEMBERS", 1)
    with pytest.raises(ArchiveError, match="more than 1 members"):
        extract(WHOLE, tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(extraction, "_LONGEST_REST", 4 * extraction._CHUNK)
    bomb = gzip.compress(WHOLE + b"\0" * (6 * extraction._CHUNK))
    (tmp_path / "second").mkdir()
    with pytest.raises(ArchiveError, match="goes on behind its end"):
        extract(bomb, tmp_path / "second")


def headed(*headers: tarfile.TarInfo, extended: bytes = b"") -> bytes:
    """Return an archive of bare headers, each with one block behind it, and an end."""
    block = extended.ljust(512, b"\0")
    return b"".join(header.tobuf(tarfile.GNU_FORMAT) + block for header in headers) + b"\0" * 1024


def header(name: str, kind: bytes, size: int) -> tarfile.TarInfo:
    """Return a header that says a size."""
    info = member(name, kind)
    info.size = size
    return info


def sparse(realsize: int) -> bytes:
    """Return an archive with a file that is a block of bytes and a large hole, as GNU tar writes it."""
    block = bytearray(header("holes", tarfile.GNUTYPE_SPARSE, 512).tobuf(tarfile.GNU_FORMAT))
    block[386:410] = b"%011o\0%011o\0" % (0, 512)
    block[483:495] = b"%011o\0" % realsize
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + b"x" * 512 + b"\0" * 1024


@pytest.mark.lesson("L29")
def test_a_small_archive_does_not_become_large_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compressed files are a hundred times as large at most, small ones aside; or as large as was allowed."""
    zeros = {"a": b"\0" * 200_000, "b": b"\0" * 200_000}
    content = tar_of(zeros, compress=True)
    for allowed, usual in ((399_999, 1 << 30), (None, 399_999)):
        monkeypatch.setattr(archive_rules, "_SMALL", usual)
        folder = tmp_path / str(allowed)
        folder.mkdir()
        with pytest.raises(ArchiveError, match="more than 399999 bytes") as caught:
            extract(content, folder, allowed)
        assert caught.value.member == "b"
        assert sum(map(len, tree(folder / "out").values())) == 200_000
    (tmp_path / "all").mkdir()
    assert extract(content, tmp_path / "all", 400_000) == 400_000


@pytest.mark.lesson("L29")
def test_a_file_with_holes_is_refused(tmp_path: Path) -> None:
    """A hole costs an archive nothing, and the disk as much as it likes to say."""
    with pytest.raises(ArchiveError, match="holes") as caught:
        extract(sparse(8**11 - 1), tmp_path)
    assert caught.value.member == "holes"
    assert tree(tmp_path / "out") == {}


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_headers_are_of_a_bounded_size(tmp_path: Path, kind: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands before a member is read into memory, so one that is long, or many, are not read."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb") as stream:
        stream.write(header("x", kind, 64 << 20).tobuf(tarfile.GNU_FORMAT))
        for _ in range(64):
            stream.write(b"\0" * (1 << 20))
        stream.write(WHOLE)
    with pytest.raises(ArchiveError, match="headers"):
        extract(out.getvalue(), tmp_path)
    monkeypatch.setattr(extraction, "_MOST_HEADERS", 4096)
    (tmp_path / "many").mkdir()
    with pytest.raises(ArchiveError, match="headers"):
        extract(tar_of({str(number): b"" for number in range(10)}), tmp_path / "many")


@pytest.mark.parametrize(
    "content",
    [
        headed(*[header("x", tarfile.GNUTYPE_LONGNAME, 2)] * 2000, extended=b"ab"),
        headed(header("x", tarfile.XHDTYPE, 512), extended=b"24 GNU.sparse.map=0,xyz\n"),
        headed(header("x", tarfile.REGTYPE, -512)),
        headed(header("x", tarfile.XHDTYPE, -512)),
    ],
    ids=["nested", "map", "backwards", "backwards header"],
)
def test_headers_that_make_no_sense_are_damage(tmp_path: Path, content: bytes) -> None:
    """Whatever `tarfile` stumbles over, the error is ours, and it comes soon."""
    with pytest.raises(ArchiveError, match="tinker://r/weights/a: the archive"):
        extract(content, tmp_path)


def test_taking_apart_can_be_left_at_any_step(tmp_path: Path) -> None:
    """Large files are written a megabyte at a time; closing leaves no file open."""
    archive = tmp_path / "archive"
    archive.write_bytes(tar_of({"a": b"x" * (3 * 1024 * 1024 + 5)}))
    (tmp_path / "out").mkdir()
    steps = extract_steps(archive, tmp_path / "out", PATH)
    assert next(steps) == 1024 * 1024
    steps.close()  # type: ignore[attr-defined]  # it is a generator
