"""Parts of archives: which of them stay, and which are gone on with."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tinker_actors.actors import partial as module
from tinker_actors.actors.partial import Partial
from tinker_actors.protocol.archive import Known

PATH = "tinker://r/weights/a"
SAME = Known(total=100, tag='"one"')


def names(folder: Path) -> list[str]:
    """Return the names of what is in a directory."""
    return sorted(entry.name for entry in folder.iterdir())


def left(folder: Path, known: Known = SAME, content: bytes = b"x" * 40) -> None:
    """Leave a part of an archive."""
    partial = Partial.kept(folder / "a", PATH)
    partial.begin_anew(known)
    partial.write(content)
    partial.close(keep=True)


def test_a_fresh_part_is_gone_when_it_is_closed(tmp_path: Path) -> None:
    """It has a name of its own, hidden, and no note, whatever becomes of it."""
    first, second = Partial.fresh(tmp_path / "a"), Partial.fresh(tmp_path / "a")
    assert first.path != second.path
    assert all(name.startswith(".a.") for name in names(tmp_path))
    first.begin_anew(SAME)
    first.write(b"x")
    first.close(keep=True)
    second.close(keep=False)
    assert names(tmp_path) == []


def test_a_part_that_is_left_is_gone_on_with(tmp_path: Path) -> None:
    """Its bytes and what is known of it are as they were; when all is there, nothing of it stays."""
    left(tmp_path)
    assert len(names(tmp_path)) == 2
    partial = Partial.kept(tmp_path / "a", PATH)
    assert partial.known == Known(done=40, total=100, tag='"one"')
    partial.write(b"y" * 60)
    partial.path.replace(tmp_path / "a")
    partial.close(keep=False)
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"x" * 40 + b"y" * 60


@pytest.mark.parametrize(
    "known", [Known(total=100), Known(total=100, tag='W/"one"'), Known()], ids=["length", "weak", "nothing"]
)
def test_a_part_of_what_cannot_be_told_is_not_kept(tmp_path: Path, known: Known) -> None:
    """Checkpoints of one model have one length: without a tag or a time it may be another by then."""
    left(tmp_path, known)
    assert names(tmp_path) == []


@pytest.mark.parametrize("damage", ["note", "other", "none", "weak"])
def test_a_part_with_a_note_of_something_else_is_dropped(tmp_path: Path, damage: str) -> None:
    """Damaged, of another checkpoint, missing, or of something that cannot be told: all of it comes anew."""
    left(tmp_path)
    (note,) = tmp_path.glob("*.note")
    if damage == "note":
        note.write_bytes(b"{")
    elif damage == "none":
        note.unlink()
    else:
        old, new = (b"weights/a", b"weights/b") if damage == "other" else (b'\\"one\\"', b'W/\\"one\\"')
        assert old in note.read_bytes()
        note.write_bytes(note.read_bytes().replace(old, new))
    partial = Partial.kept(tmp_path / "a", PATH)
    assert (partial.known, os.fstat(partial.file.fileno()).st_size) == (Known(), 0)
    partial.close(keep=False)
    assert names(tmp_path) == []


def test_only_what_is_certainly_on_the_disk_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed leaves a note of what was synced last; bytes behind that are not trusted."""
    monkeypatch.setattr(module, "_SYNC_EVERY", 30)
    partial = Partial.kept(tmp_path / "a", PATH)
    partial.begin_anew(SAME)
    for _ in range(5):
        partial.write(b"x" * 10)
    partial.file.close()  # as the end of a process does
    again = Partial.kept(tmp_path / "a", PATH)
    assert again.known == Known(done=30, total=100, tag='"one"')
    assert os.fstat(again.file.fileno()).st_size == 30
    again.file.truncate(7)
    again.file.close()
    shorter = Partial.kept(tmp_path / "a", PATH)
    assert shorter.known.done == 7
    shorter.begin_anew(SAME)
    shorter.close(keep=False)


def test_one_at_a_time_has_the_part(tmp_path: Path) -> None:
    """Another download to the same place meanwhile has a file of its own, and takes nothing away."""
    left(tmp_path)
    first = Partial.kept(tmp_path / "a", PATH)
    second = Partial.kept(tmp_path / "a", PATH)
    assert (first.known.done, second.known.done) == (40, 0)
    assert first.path != second.path
    second.close(keep=True)
    assert first.path.exists()
    first.close(keep=False)
    assert names(tmp_path) == []


def test_a_part_that_was_moved_to_its_place_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever gets the lock only then, has the lock of the whole, and leaves it alone."""
    left(tmp_path)
    locked = module._locked

    def late(file: object) -> bool:
        next(tmp_path.glob("*.partial")).rename(tmp_path / "a")
        return locked(file)  # type: ignore[arg-type]  # a file

    monkeypatch.setattr(module, "_locked", late)
    partial = Partial.kept(tmp_path / "a", PATH)
    assert partial.known.done == 0
    partial.close(keep=False)
    assert (tmp_path / "a").read_bytes() == b"x" * 40


def test_a_disk_that_fails_at_the_end_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be made certain is not kept."""
    partial = Partial.kept(tmp_path / "a", PATH)
    partial.begin_anew(SAME)
    partial.write(b"x")

    def full(_: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    partial.close(keep=True)
    assert names(tmp_path) == []


def test_a_note_goes_when_the_archive_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed after it began anew must not leave the new bytes under the old note."""
    monkeypatch.setattr(module, "_SYNC_EVERY", 30)
    left(tmp_path)
    partial = Partial.kept(tmp_path / "a", PATH)
    partial.begin_anew(Known(total=100, tag='"two"'))
    partial.write(b"y" * 20)
    partial.file.close()  # as the end of a process does
    again = Partial.kept(tmp_path / "a", PATH)
    assert again.known == Known()
    again.close(keep=False)


@pytest.mark.parametrize("planted", ["symbolic", "hard", "pipe", "directory"])
@pytest.mark.parametrize("role", ["partial", "draft"])
def test_what_lies_in_the_way_is_left_alone(tmp_path: Path, planted: str, role: str) -> None:
    """Others may write to the directory, too: a link there, under a name that can be known, leads to nothing."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    left(tmp_path)
    part = next(tmp_path.glob(".a.*.partial"))
    place = part if role == "partial" else part.with_suffix(".note.draft")
    place.unlink(missing_ok=True)
    {
        "symbolic": lambda: place.symlink_to(victim),
        "hard": lambda: place.hardlink_to(victim),
        "pipe": lambda: os.mkfifo(place),
        "directory": place.mkdir,
    }[planted]()
    partial = Partial.kept(tmp_path / "a", PATH)
    assert (partial.known.done, partial.path == place) == (0 if role == "partial" else 40, False)
    partial.begin_anew(SAME)
    partial.write(b"x")
    partial.close(keep=True)
    assert victim.read_bytes() == b"precious"


def test_a_disk_that_knows_no_locks_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There, nobody can tell whose the part is, so everybody has one of his own."""
    import fcntl

    def unknown(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    left(tmp_path)
    monkeypatch.setattr(fcntl, "flock", unknown)
    partial = Partial.kept(tmp_path / "a", PATH)
    assert partial.known.done == 0
    partial.close(keep=False)


def test_a_long_name_of_a_place_leaves_room(tmp_path: Path) -> None:
    """Names are limited in bytes; a place with the longest that there is can be downloaded to."""
    partial = Partial.kept(tmp_path / ("語" * 85), PATH)
    partial.begin_anew(SAME)
    partial.write(b"x")
    partial.close(keep=True)
    assert len(names(tmp_path)) == 2
