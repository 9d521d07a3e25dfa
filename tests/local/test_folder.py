from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tinker_actors.local.folder import clean, remove_folder, write_folder


class Killed(BaseException):
    """Stands for the end of the process."""


def kill_at(call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing more reach the disk from the nth change on."""
    asked: list[str] = []

    def stop(name: str, owner: object) -> None:
        real = getattr(owner, name)

        def change(*arguments: object, **options: object) -> object:
            asked.append(name)
            if len(asked) >= call:
                raise Killed
            return real(*arguments, **options)

        monkeypatch.setattr(owner, name, change)

    for name, owner in (("fsync", os), ("rename", Path), ("rmdir", os), ("unlink", os), ("mkdir", os)):
        stop(name, owner)


def files_of(folder: Path) -> dict[str, bytes] | None:
    return {file.name: file.read_bytes() for file in folder.iterdir()} if folder.is_dir() else None


OLD, NEW = {"a": b"old", "b": b"too"}, {"a": b"new"}


def killed_everywhere(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    do: Callable[[Path, Path], None],
    before: Mapping[str, bytes] | None = None,
) -> list[dict[str, bytes] | None]:
    """Return what a cleaned directory has of a folder after each kill, and at the end after none.

    Args:
        tmp_path: where a directory is made for each try.
        monkeypatch: stops the process.
        do: is killed; it is given the directory and the folder.
        before: what is in the folder at first.
    """
    seen = []
    for call in range(1, 100):
        root = tmp_path / str(call)
        root.mkdir()
        place = root / "run" / "kind" / "name"
        if before is not None:
            write_folder(root, place, before)
        with monkeypatch.context() as patch:
            kill_at(call, patch)
            try:
                do(root, place)
            except Killed:
                done = False
            else:
                done = True
        clean(root)
        seen.append(files_of(place))
        assert [path.name for path in root.iterdir() if path.name != "run"] == []
        if done:
            break
    assert done
    return seen


def test_a_folder_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed anywhere, the process leaves the new folder or none, and a cleaned directory has nothing beside it."""
    seen = killed_everywhere(tmp_path, monkeypatch, lambda root, place: write_folder(root, place, NEW))
    assert (seen[0], seen[-1]) == (None, NEW)
    assert all(found in (NEW, None) for found in seen)
    assert len(seen) > 5


def test_a_folder_is_replaced_or_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed anywhere, the process leaves the old folder or the new one, never both, none, or a mixture."""
    seen = killed_everywhere(
        tmp_path, monkeypatch, lambda root, place: write_folder(root, place, NEW, replace=True), OLD
    )
    assert (seen[0], seen[-1]) == (OLD, NEW)
    assert all(found in (OLD, NEW) for found in seen)


def test_a_folder_is_removed_or_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed anywhere, the process leaves the whole folder or nothing of it."""
    seen = killed_everywhere(tmp_path, monkeypatch, remove_folder, OLD)
    assert (seen[0], seen[-1]) == (OLD, None)
    assert all(found in (OLD, None) for found in seen)


def test_what_is_not_there_can_be_removed(tmp_path: Path) -> None:
    """Nothing is changed."""
    remove_folder(tmp_path, tmp_path / "run" / "name")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fails_while_a_folder_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error, unlike a kill, leaves the old folder in its place at once."""
    place = tmp_path / "run" / "name"
    write_folder(tmp_path, place, OLD)
    rename, renamed = Path.rename, []

    def fail(self: Path, target: Path) -> Path:
        renamed.append(target)
        if target == place and len(renamed) == 2:
            raise OSError("no space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="no space"):
        write_folder(tmp_path, place, NEW, replace=True)
    assert files_of(place) == OLD
    monkeypatch.undo()
    monkeypatch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(OSError("read-only")))
    with pytest.raises(OSError, match="read-only"):
        write_folder(tmp_path, place, NEW, replace=True)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    with pytest.raises(FileExistsError):
        write_folder(tmp_path, place, NEW)
