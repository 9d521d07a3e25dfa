from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from tinker_actors.errors import ConflictError, InputError, NotFoundError
from tinker_actors.local.store import CheckpointPath, CheckpointStore, Note

PATH = CheckpointPath("session-1:train:0", "weights", "step-10")
FILES = {"adapter_model.safetensors": b"weights", "adapter_config.json": b"{}"}


@pytest.fixture(params=["memory", "directory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(None if request.param == "memory" else tmp_path / "new" / "checkpoints")


def files_under(root: Path) -> list[str]:
    return sorted(str(file.relative_to(root)) for file in root.rglob("*") if file.is_file())


def test_what_was_saved_comes_back(store: CheckpointStore) -> None:
    """A checkpoint's files are given back byte for byte; others do not exist."""
    other = CheckpointPath(PATH.run, "sampler_weights", PATH.name)
    store.save(PATH, FILES)
    assert store.load(PATH, 0) == FILES
    assert store.exists(PATH, 0)
    assert not store.exists(other, 0)
    with pytest.raises(NotFoundError, match="sampler_weights/step-10' does not exist"):
        store.load(other, 0)


def test_a_name_is_used_once(store: CheckpointStore) -> None:
    """Saving under a used name is 409 and leaves the first checkpoint as it was."""
    store.save(PATH, FILES)
    with pytest.raises(ConflictError, match="already exists") as caught:
        store.save(PATH, {"adapter_model.safetensors": b"other"})
    assert caught.value.status_code == 409
    assert store.load(PATH, 0) == FILES


def test_a_checkpoint_may_expire(store: CheckpointStore) -> None:
    """From its time on a checkpoint is gone, and its name is free again."""
    store.save(PATH, FILES, expires=50.0)
    store.save(CheckpointPath("run", "weights", "kept"), FILES, expires=math.inf)
    assert store.exists(PATH, 49.9)
    assert not store.exists(PATH, 50)
    with pytest.raises(NotFoundError):
        store.load(PATH, 50)
    store.save(PATH, FILES)
    assert store.exists(PATH, 1e9)
    assert store.exists(CheckpointPath("run", "weights", "kept"), 1e9)


def test_a_directory_outlives_its_store(tmp_path: Path) -> None:
    """A second store over the same directory has what the first one saved, and refuses its names."""
    CheckpointStore(tmp_path).save(PATH, FILES)
    second = CheckpointStore(tmp_path)
    assert second.load(PATH, 0) == FILES
    with pytest.raises(ConflictError):
        second.save(PATH, FILES)
    folder = "session-1%3Atrain%3A0/weights/step-10"
    assert files_under(tmp_path) == [f"{folder}/adapter_config.json", f"{folder}/adapter_model.safetensors"]


@pytest.mark.parametrize("broken", ["fsync", "rename"])
def test_a_checkpoint_is_there_whole_or_not_at_all(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fails while a checkpoint is written leaves no trace of it, and the name stays free."""

    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    store = CheckpointStore(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail) if broken == "fsync" else patch.setattr(Path, "rename", fail)
        with pytest.raises(OSError, match="no space"):
            store.save(PATH, FILES)
    assert files_under(tmp_path) == []
    assert not store.exists(PATH, 0)
    store.save(PATH, FILES)
    assert store.load(PATH, 0) == FILES


def test_another_service_may_be_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two services that save one name at the same time: one gets 409, and the files are of one of them."""
    slow, fast = CheckpointStore(tmp_path), CheckpointStore(tmp_path)
    rename = Path.rename

    def late(self: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "rename", rename)
        fast.save(PATH, {"adapter_config.json": b"fast"})
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", late)
    with pytest.raises(ConflictError, match="already exists"):
        slow.save(PATH, FILES)
    assert slow.load(PATH, 0) == {"adapter_config.json": b"fast"}


def test_paths_are_written_as_they_are_read() -> None:
    """A path comes back from its text."""
    text = "tinker://session-1:train:0/weights/step-10"
    assert CheckpointPath.parse(text) == PATH
    assert str(PATH) == text


@pytest.mark.parametrize(
    "text",
    [
        "weights/step-10",
        "https://session/weights/step",
        "tinker://session/weights",
        "tinker://session/weights/a/b",
        "tinker://session/other/a",
        "tinker:///weights/a",
        "tinker://../weights/a",
        "tinker://session/weights/..",
        "tinker://session/weights/a b",
        "tinker://session/weights/",
        "tinker://session/weights/é",
        "tinker://session/weights/" + "x" * 129,
        "tinker://" + "x" * 256 + "/weights/a",
        "tinker://" + "é" * 43 + "/weights/a",
    ],
)
def test_wrong_paths_are_refused(text: str) -> None:
    """Whatever is no path to a checkpoint is an InputError; none leads out of a directory."""
    with pytest.raises(InputError) as caught:
        CheckpointPath.parse(text)
    assert caught.value.field == "path"


def test_the_longest_path_can_be_saved(store: CheckpointStore) -> None:
    """Whatever is a path has room for its folder, and nothing else is asked of the disk."""
    path = CheckpointPath(":" * 85, "weights", "x" * 128)
    store.save(path, FILES)
    assert store.load(path, 0) == FILES


def test_some_of_the_files_can_be_had(store: CheckpointStore) -> None:
    """Who wants to know what a checkpoint is need not read its weights."""
    store.save(PATH, FILES)
    assert store.load(PATH, 0, ["adapter_config.json", "other"]) == {"adapter_config.json": b"{}"}


def test_what_there_is_can_be_listed(store: CheckpointStore) -> None:
    """The latest first, with sizes and notes; of one run if that is asked."""
    other = CheckpointPath("session-2:train:0", "sampler_weights", "a")
    store.save(PATH, FILES, note=Note(time=10.0, user_metadata={"step": "10"}), expires=50.0)
    store.save(other, {"a": b"12"}, note=Note(time=20.0))
    first, second = store.kept(0)
    assert (first.path, first.size, first.note, first.expires) == (other, 2, Note(time=20.0), math.inf)
    assert (second.path, second.size, second.expires) == (PATH, 9, 50.0)
    assert second.note == Note(time=10.0, user_metadata={"step": "10"})
    assert [kept.path for kept in store.kept(0, PATH.run)] == [PATH]
    assert store.describe(PATH, 0) == second
    assert store.load(PATH, 0) == FILES
    assert [kept.path for kept in store.kept(50)] == [other]


def test_what_is_deleted_is_gone(store: CheckpointStore) -> None:
    """Its name is free; deleting it again is 404, and so is everything else about it."""
    store.save(PATH, FILES)
    store.delete(PATH, 0)
    assert store.kept(0) == []
    for ask in (store.delete, store.describe, store.load):
        with pytest.raises(NotFoundError):
            ask(PATH, 0)
    store.save(PATH, FILES, note=Note(time=3.0))
    assert store.describe(PATH, 0).note.time == 3.0


def test_a_checkpoint_is_published_and_hidden_once(store: CheckpointStore) -> None:
    """Doing it again is 409; its other notes stay as they are."""
    store.save(PATH, FILES, note=Note(time=3.0, user_metadata={"a": "b"}))
    for public in (True, False):
        store.publish(PATH, 0, public=public)
        assert store.describe(PATH, 0).note == Note(time=3.0, public=public, user_metadata={"a": "b"})
        with pytest.raises(ConflictError, match="already"):
            store.publish(PATH, 0, public=public)
    assert store.load(PATH, 0) == FILES


def test_how_long_a_checkpoint_is_kept_can_change(store: CheckpointStore) -> None:
    """A time, another time, for ever."""
    store.save(PATH, FILES, expires=10.0)
    store.set_expiry(PATH, 0, math.inf)
    assert store.exists(PATH, 20)
    store.set_expiry(PATH, 20, 30.0)
    assert store.describe(PATH, 29).expires == 30.0
    with pytest.raises(NotFoundError):
        store.set_expiry(PATH, 30, math.inf)


def test_an_end_outlives_the_store(tmp_path: Path) -> None:
    """Another store removes at its time what was given one, when it was saved or later, and nothing else."""
    first = CheckpointStore(tmp_path)
    later, never, plain = (CheckpointPath("run", "weights", name) for name in ("later", "never", "plain"))
    first.save(PATH, FILES, expires=50.0, note=Note(time=3.0))
    first.save(later, FILES, expires=10.0)
    first.set_expiry(later, 0, 60.0)
    first.save(never, FILES, expires=10.0)
    first.set_expiry(never, 0, math.inf)
    first.save(plain, FILES)
    second = CheckpointStore(tmp_path)
    assert (second.describe(PATH, 49).expires, second.describe(PATH, 49).note) == (50.0, Note(time=3.0))
    assert {kept.path for kept in second.kept(50)} == {later, never, plain}
    third = CheckpointStore(tmp_path)
    assert not third.exists(later, 60)
    assert {kept.path for kept in third.kept(1e12)} == {never, plain}


def test_a_name_can_be_used_for_something_else(store: CheckpointStore) -> None:
    """What replaces a checkpoint has nothing of it: not its files, not its note, not its end."""
    store.save(PATH, FILES, expires=50.0, note=Note(time=3.0, public=True))
    before = store.version(PATH)
    store.save(PATH, {"a": b"1"}, note=Note(time=4.0), overwrite=True)
    assert store.load(PATH, 1000) == {"a": b"1"}
    assert (store.describe(PATH, 1000).note, store.describe(PATH, 1000).expires) == (Note(time=4.0), math.inf)
    assert store.version(PATH) != before
    assert len(store.kept(1000)) == 1


def test_what_a_killed_store_left_is_removed(tmp_path: Path) -> None:
    """Drafts of checkpoints and of notes are nothing that was saved, and do not stay."""
    store = CheckpointStore(tmp_path)
    store.clean()
    store.save(PATH, FILES, note=Note(time=3.0))
    draft = tmp_path / ".draft-x"
    draft.mkdir()
    (draft / "adapter_model.safetensors").write_bytes(b"half")
    note = tmp_path / "session-1%3Atrain%3A0" / "weights" / "step-10" / ".note.json.draft"
    note.write_bytes(b"{")
    assert store.load(PATH, 0) == FILES
    store.clean()
    store.set_expiry(PATH, 0, 50.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["session-1%3Atrain%3A0"]
    assert not note.exists()
    CheckpointStore(None).clean()


def test_notes_lie_beside_the_files(tmp_path: Path) -> None:
    """A second store reads them; a checkpoint without, or with a damaged one, has the time of its folder."""
    CheckpointStore(tmp_path).save(PATH, FILES, note=Note(time=3.0))
    plain = CheckpointPath("run", "weights", "plain")
    CheckpointStore(tmp_path).save(plain, FILES)
    second = CheckpointStore(tmp_path)
    second.publish(PATH, 0, public=True)
    third = CheckpointStore(tmp_path)
    assert third.describe(PATH, 0).note == Note(time=3.0, public=True)
    assert third.describe(plain, 0).note.time > 1e9
    (tmp_path / "run" / "weights" / "plain" / ".note.json").write_bytes(b"{")
    (tmp_path / "run" / "weights" / "not a name").mkdir()
    assert [kept.path for kept in third.kept(0)] == [plain, PATH]
    assert third.load(plain, 0) == FILES
