"""The file of stored keys: its rights, and what may be in its place."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tinker_actors.errors import CredentialError
from tinker_actors.protocol.credential import CredentialsFile, StoredKey
from tinker_actors.transport.credential_file import credentials_path, load_credentials, save_credentials

FILE = CredentialsFile({"1": StoredKey(key="tml-hunter2", name="laptop")}, "1")


def rights(path: Path) -> int:
    """Return who may do what."""
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(
    ("environment", "path"),
    [
        ({"HOME": "/h"}, Path("/h/.tinker/credentials.json")),
        ({"USERPROFILE": "/u"}, Path("/u/.tinker/credentials.json")),
        ({"HOME": "", "USERPROFILE": ""}, None),
        ({}, None),
    ],
)
def test_the_file_lies_in_the_users_home(environment: dict[str, str], path: Path | None) -> None:
    """Of the environment that is passed in, and nowhere if it names none."""
    assert credentials_path(environment) == path


def test_what_is_saved_can_be_loaded(tmp_path: Path) -> None:
    """Again and again; without a file there are no keys; nothing else stays."""
    path = tmp_path / ".tinker" / "credentials.json"
    assert load_credentials(path) == CredentialsFile()
    save_credentials(path, FILE)
    assert load_credentials(path) == FILE
    save_credentials(path, CredentialsFile())
    assert load_credentials(path) == CredentialsFile()
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_only_the_owner_may_read_it(tmp_path: Path, umask: int) -> None:
    """Folder 0700, file 0600, whatever the umask and whatever was there before."""
    path = tmp_path / ".tinker" / "credentials.json"
    before = os.umask(umask)
    try:
        save_credentials(path, FILE)
        assert (rights(path.parent), rights(path)) == (0o700, 0o600)
        path.parent.chmod(0o755)
        path.chmod(0o644)
        save_credentials(path, FILE)
        assert (rights(path.parent), rights(path)) == (0o700, 0o600)
    finally:
        os.umask(before)


def test_it_is_readable_for_nobody_else_at_any_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has its rights before there is a byte in it."""
    path = tmp_path / ".tinker" / "credentials.json"
    seen: list[tuple[str, int, int]] = []
    real_open, real_fsync = os.open, os.fsync

    def spying_open(file: Path, flags: int, mode: int = 0o777) -> int:
        descriptor = real_open(file, flags, mode)
        seen.append(
            (Path(file).name, stat.S_IMODE(os.fstat(descriptor).st_mode), os.fstat(descriptor).st_size)
        )
        return descriptor

    def spying_fsync(descriptor: int) -> None:
        seen.append(("", stat.S_IMODE(os.fstat(descriptor).st_mode), 0))
        real_fsync(descriptor)

    monkeypatch.setattr(os, "open", spying_open)
    monkeypatch.setattr(os, "fsync", spying_fsync)
    before = os.umask(0)
    try:
        save_credentials(path, FILE)
    finally:
        os.umask(before)
    assert seen == [(f".credentials.json.{os.getpid()}", 0o600, 0), ("", 0o600, 0)]


def test_a_failure_leaves_the_old_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no second file; what a dead process left behind is no obstacle."""
    path = tmp_path / ".tinker" / "credentials.json"
    save_credentials(path, FILE)
    (path.parent / f".credentials.json.{os.getpid()}").write_text("left behind")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(CredentialError, match="cannot be written: No space left on device"):
            save_credentials(path, CredentialsFile())
    assert load_credentials(path) == FILE
    assert list(path.parent.iterdir()) == [path]
    save_credentials(path, CredentialsFile())


def test_what_cannot_be_read_is_a_typed_error(tmp_path: Path) -> None:
    """A folder in its place, or a file in the folder's, or somebody else's content."""
    path = tmp_path / "credentials.json"
    path.mkdir()
    with pytest.raises(CredentialError, match="the stored credentials cannot be read: "):
        load_credentials(path)
    blocked = tmp_path / "file" / "credentials.json"
    blocked.parent.write_text("hunter2")
    with pytest.raises(CredentialError, match="the stored credentials cannot be written: "):
        save_credentials(blocked, FILE)
    with pytest.raises(CredentialError, match="not JSON") as caught:
        load_credentials(blocked.parent)
    assert "hunter2" not in str(caught.value)
