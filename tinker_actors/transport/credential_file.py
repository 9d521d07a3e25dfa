"""The file in the user's home that keys are stored in. What is in it: `protocol.credential`.

It is never readable for others, not even for a moment: a new file is made with its rights, written, and put in the
place of the old one at once. So a reader sees the old keys or the new ones.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from tinker_actors.errors import CredentialError
from tinker_actors.protocol.credential import CredentialsFile, read_credentials, write_credentials

__all__ = ["credentials_path", "load_credentials", "save_credentials"]

_OWNER_ONLY_FOLDER = 0o700
_OWNER_ONLY_FILE = 0o600


def credentials_path(environment: Mapping[str, str]) -> Path | None:
    """Return where the keys are stored; None if the environment names no home."""
    home = environment.get("HOME") or environment.get("USERPROFILE")
    return Path(home) / ".tinker" / "credentials.json" if home else None


def load_credentials(path: Path) -> CredentialsFile:
    """Read the stored keys; none if there is no file.

    Raises:
        CredentialError: the file cannot be read, or is of another form.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return CredentialsFile()
    except OSError as error:
        raise CredentialError(f"the stored credentials cannot be read: {error.strerror}") from error
    return read_credentials(data)


def save_credentials(path: Path, content: CredentialsFile) -> None:
    """Write the stored keys; the folder and the file are their owner's alone.

    Raises:
        CredentialError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, mode=_OWNER_ONLY_FOLDER, exist_ok=True)
        path.parent.chmod(_OWNER_ONLY_FOLDER)
        _replace(path, write_credentials(content))
    except OSError as error:
        raise CredentialError(f"the stored credentials cannot be written: {error.strerror}") from error


def _replace(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    with contextlib.suppress(FileNotFoundError):
        partial.unlink()  # of a process that died with our number
    descriptor = os.open(partial, flags, _OWNER_ONLY_FILE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
