"""Folders that are written, replaced and removed whole, whenever the process is killed.

Theory of operation. A folder's files are written into a *draft* beside all others, and synced, and the draft is renamed
into its place. What goes is renamed out of its place first and taken apart then. A folder that is replaced steps aside
into an *old* folder, together with a note that says where it was; when the new one is in its place, the old one goes.
So a kill leaves one of the two, if not in its place, then aside, and `clean` puts it back:

    .draft-*    was never in its place, or has left it for good: removed
    .old-*      stepped aside: put back if its place is empty, else removed

Only who has a directory for himself may clean it: a draft may be at work.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

__all__ = ["clean", "remove_folder", "write_folder"]

_DRAFT = ".draft-"
_OLD = ".old-"
_WHAT, _WHERE = "folder", "place"  # what stepped aside, and the file that says where it was


def write_folder(root: Path, folder: Path, files: Mapping[str, bytes], *, replace: bool = False) -> None:
    """Write a folder whole or not at all, and sync it.

    Args:
        root: the directory that all folders are in, made if it is missing.
        folder: the place, somewhere below it.
        files: by name.
        replace: there may be a folder, and it goes when the new one is there.

    Raises:
        FileExistsError: there is a folder. Nothing was changed.
        OSError: the disk refuses. Nothing was changed.
    """
    if folder.exists() and not replace:
        raise FileExistsError(folder)
    _make_parents(root, folder.parent)
    draft = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=root))
    aside: Path | None = None
    try:
        for name, content in files.items():
            write_file(draft / name, content)
        aside = _step_aside(root, folder) if replace and folder.exists() else None
        _put(draft, folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        if aside is not None:
            _put_back(root, aside)
        raise
    if aside is not None:
        (aside / _WHERE).unlink(missing_ok=True)  # from here on it is never put back
        shutil.rmtree(aside, ignore_errors=True)


def remove_folder(root: Path, folder: Path) -> None:
    """Remove a folder, whole or not at all, also from a disk that is full; it may be gone already."""
    draft = root / f"{_DRAFT}{secrets.token_hex(8)}"
    with contextlib.suppress(FileNotFoundError):
        folder.rename(draft)
    shutil.rmtree(draft, ignore_errors=True)


def clean(root: Path) -> None:
    """Put back what stepped aside for nothing, and remove what was left over.

    Args:
        root: the directory; nobody else may be at work in it.
    """
    for aside in root.glob(f"{_OLD}*"):
        _put_back(root, aside)
    for draft in root.glob(f"{_DRAFT}*"):
        shutil.rmtree(draft, ignore_errors=True)


def write_file(file: Path, content: bytes) -> None:
    """Write a new file and sync it."""
    with file.open("xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _step_aside(root: Path, folder: Path) -> Path:
    aside = Path(tempfile.mkdtemp(prefix=_OLD, dir=root))
    try:
        write_file(aside / _WHERE, str(folder.relative_to(root)).encode())
        folder.rename(aside / _WHAT)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return aside


def _put_back(root: Path, aside: Path) -> None:
    what, where = aside / _WHAT, aside / _WHERE
    if what.exists() and where.exists():  # without the file it is being taken apart
        place = root / where.read_text("utf-8")
        if not place.exists():
            what.rename(place)
    shutil.rmtree(aside, ignore_errors=True)


def _put(draft: Path, folder: Path) -> None:
    try:
        draft.rename(folder)
    except OSError as exc:
        if folder.exists():  # another service on the same directory was faster
            raise FileExistsError(folder) from exc
        raise
    _sync_directory(folder.parent)


def _make_parents(root: Path, parent: Path) -> None:
    """Make the directories on the way to a folder, and sync those that got a new entry."""
    missing = [directory for directory in (parent, *parent.parents) if not directory.exists()]
    parent.mkdir(parents=True, exist_ok=True)
    for directory in missing:
        if directory.is_relative_to(root):
            _sync_directory(directory.parent)


def _sync_directory(directory: Path) -> None:
    """Make a rename last through a power failure, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
