from __future__ import annotations

import os
from pathlib import Path

import pytest

from tinker_actors.local.folder import clean, remove_folder, write_folder


class Killed(BaseException):
    """Stands for the end of the process."""


def kill_at(call: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let nothing more reach the disk from the nth change on; return the changes that were to be made."""
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
    return asked


def files_of(folder: Path) -> dict[str, bytes] | None:
    return {file.name: file.read_bytes() for file in folder.iterdir()} if folder.is_dir() else None


OLD, NEW = {"a": b"old", "b": b"too"}, {"a": b"new"}


def test_a_folder_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed anywhere, the process leaves the new folder or none, and a cleaned directory has nothing beside it."""
    for call in range(1, 100):
        root = tmp_path / str(call)
        root.mkdir()
        with monkeypatch.context() as patch:
            asked = kill_at(call, patch)
            try:
                write_folder(root, root / "run" / "kind" / "name", NEW)
            except Killed:
                done = False
            else:
                done = True
        clean(root)
        found = files_of(root / "run" / "kind" / "name")
        assert found == NEW if done else found in (NEW, None)
        assert [path.name for path in root.iterdir() if path.name != "run"] == []
        if done:
            break
    assert call > 5, asked


def test_a_folder_is_replaced_or_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed anywhere, the process leaves the old folder or the new one, never both, none, or a mixture."""
    seen = []
    for call in range(1, 100):
        root = tmp_path / str(call)
        root.mkdir()
        place = root / "run" / "name"
        write_folder(root, place, OLD)
        with monkeypatch.context() as patch:
            kill_at(call, patch)
            try:
                write_folder(root, place, NEW, replace=True)
            except Killed:
                done = False
            else:
                done = True
        clean(root)
        seen.append(files_of(place))
        assert [path.name for path in root.iterdir()] == ["run"]
        if done:
            break
    assert seen[0] == OLD
    assert seen[-1] == NEW
    assert all(found in (OLD, NEW) for found in seen)


def test_a_folder_is_removed_or_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed anywhere, the process leaves the whole folder or nothing of it; what is not there can be removed."""
    seen = []
    for call in range(1, 100):
        root = tmp_path / str(call)
        root.mkdir()
        place = root / "run" / "name"
        write_folder(root, place, OLD)
        with monkeypatch.context() as patch:
            kill_at(call, patch)
            try:
                remove_folder(root, place)
            except Killed:
                done = False
            else:
                done = True
        clean(root)
        seen.append(files_of(place))
        if done:
            break
    assert (seen[0], seen[-1]) == (OLD, None)
    assert all(found in (OLD, None) for found in seen)
    remove_folder(root, place)
    assert [path.name for path in root.iterdir()] == ["run"]


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
