"""Checkpoints: saved weights under `tinker://` paths, in memory or in a directory.

Theory of operation. A checkpoint is a few named files, written whole or not at all and never changed
afterwards:

    tinker://<model id>/weights/<name>           adapter_model.safetensors, adapter_config.json, and
                                                 optimizer.safetensors
    tinker://<model id>/sampler_weights/<name>   the first two
    tinker://<model id>/external_weights/<name>  the first two, for use elsewhere

Beside them lies a note (`Note`): when it was saved, whether everybody may read it, and what its user keeps with it.
The note alone may change; it is no part of what is loaded or downloaded.

A name is used once. In a directory each checkpoint is a folder that is written beside its place and then
renamed into it: a crash leaves a checkpoint or none. The same weights give the same bytes.

A checkpoint may be given a time to live. It counts while the service that saved it is open: what lies in a
directory when the service ends stays there.

Every method may be called from any thread. Those that touch a disk are called where blocking does not matter.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote

import attrs
import cattrs
import orjson

from tinker_actors.errors import InputError

from .refusal import refusal

__all__ = ["CheckpointKind", "CheckpointPath", "CheckpointStore", "Kept", "Note"]

CheckpointKind = Literal["weights", "sampler_weights", "external_weights"]
KINDS: tuple[CheckpointKind, ...] = ("weights", "sampler_weights", "external_weights")
SCHEME = "tinker://"
NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
LONGEST_FOLDER = 255  # bytes of its name, as on most systems
NOTE_FILE = ".note.json"


@attrs.frozen
class CheckpointPath:
    """Where a checkpoint lies: `tinker://<run>/<kind>/<name>`.

    Attributes:
        run: id of the model that saved it.
        kind: `weights` (training state), `sampler_weights` or `external_weights`.
        name: chosen by the user.

    Raises:
        InputError: a part is not what it should be.
    """

    run: str
    kind: CheckpointKind
    name: str

    def __attrs_post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError("path", str(self), f"the kind must be one of {', '.join(KINDS)}")
        if not self.run or "/" in self.run or set(self.run) == {"."}:
            raise InputError("path", str(self), "must name the model that saved it")
        if len(quote(self.run, safe="")) > LONGEST_FOLDER:
            raise InputError(
                "path", str(self)[:LONGEST_FOLDER], "the model's id is too long for any that saved it"
            )
        if not NAME.fullmatch(self.name) or set(self.name) == {"."}:
            raise InputError(
                "path",
                self.name[:LONGEST_FOLDER],
                "a name has 1 to 128 letters, digits, '_', '-' and '.' only",
            )

    @classmethod
    def parse(cls, text: str) -> CheckpointPath:
        """Read a `tinker://` path.

        Raises:
            InputError: it is none.
        """
        parts = text.removeprefix(SCHEME).split("/")
        if not text.startswith(SCHEME) or len(parts) != 3:
            raise InputError("path", text, "must be tinker://<model id>/<weights|sampler_weights>/<name>")
        run, kind, name = parts
        return cls(run, kind, name)  # type: ignore[arg-type]  # the kind is checked

    def __str__(self) -> str:
        return f"{SCHEME}{self.run}/{self.kind}/{self.name}"


@attrs.frozen(kw_only=True)
class Note:
    """What is known of a checkpoint beside its files.

    Attributes:
        time: when it was saved, in seconds of the calendar (UTC, since 1970).
        public: whether everybody may read it.
        user_metadata: what its user keeps with it.
    """

    time: float = 0.0
    public: bool = False
    user_metadata: Mapping[str, str] | None = None


@attrs.frozen(kw_only=True)
class Kept:
    """A checkpoint as it is listed.

    Attributes:
        path: where it lies.
        note: what is known of it.
        size: bytes of its files.
        expires: the service's time from which on it is gone; infinity is never.
    """

    path: CheckpointPath
    note: Note
    size: int
    expires: float


class CheckpointStore:
    """Keeps checkpoints.

    Args:
        root: a directory, made if it is missing; None keeps them in memory.
    """

    def __init__(self, root: Path | None = None) -> None:
        self._root = root
        self._lock = threading.Lock()  # guards the dictionaries
        self._memory: dict[CheckpointPath, dict[str, bytes]] = {}
        self._notes: dict[CheckpointPath, Note] = {}
        self._expiry: dict[CheckpointPath, float] = {}
        self._versions: Counter[CheckpointPath] = Counter()

    def save(
        self,
        path: CheckpointPath,
        files: Mapping[str, bytes],
        *,
        expires: float = math.inf,
        note: Note | None = None,
    ) -> None:
        """Keep a checkpoint. With a directory, this writes and syncs files.

        Args:
            path: where; must be unused.
            files: by name.
            expires: time from which on it is gone.
            note: what is known of it.

        Raises:
            ConflictError: the path is in use. Nothing was changed.
        """
        if self._root is not None:
            written = dict(files) if note is None else {**files, NOTE_FILE: _note_bytes(note)}
            _write_folder(self._root, self._folder(self._root, path), path, written)
        with self._lock:
            if path in self._memory:
                raise _in_use(path)
            if self._root is None:
                self._memory[path] = dict(files)
                self._notes[path] = note or Note()
            self._versions[path] += 1
            if expires < math.inf:
                self._expiry[path] = expires

    def load(self, path: CheckpointPath, now: float, only: Collection[str] | None = None) -> dict[str, bytes]:
        """Return a checkpoint's files by name. With a directory, this reads files.

        Args:
            path: where it lies.
            now: the service's time.
            only: names of those that are wanted, if there are such; None is all of them.

        Raises:
            NotFoundError: there is no such checkpoint, or it has expired.
        """
        self.check_exists(path, now)
        if self._root is None:
            with self._lock:
                files = self._memory[path]
                return {name: files[name] for name in files if only is None or name in only}
        folder = self._folder(self._root, path)
        return {
            file.name: file.read_bytes()
            for file in sorted(folder.iterdir())
            if file.name != NOTE_FILE and (only is None or file.name in only)
        }

    def check_exists(self, path: CheckpointPath, now: float) -> None:
        """Make sure that there is a checkpoint.

        Raises:
            NotFoundError: there is none, or it has expired.
        """
        if not self.exists(path, now):
            raise _missing(path)

    def exists(self, path: CheckpointPath, now: float) -> bool:
        """Tell whether there is a checkpoint that has not expired."""
        self._expire(now)
        if self._root is None:
            with self._lock:
                return path in self._memory
        return self._folder(self._root, path).is_dir()

    def version(self, path: CheckpointPath) -> int:
        """Return a number that changes when a path is saved again after its first checkpoint expired."""
        with self._lock:
            return self._versions[path]

    # ---------------------------------------------------------------------------------------- what there is

    def kept(self, now: float, run: str | None = None) -> list[Kept]:
        """Return the checkpoints there are, the latest first. With a directory, this reads it.

        Args:
            now: the service's time.
            run: of this run only.
        """
        self._expire(now)
        if self._root is None:
            with self._lock:
                found = [self._describe(path) for path in reversed(self._memory)]
        else:
            found = [kept for path in _paths_under(self._root) if (kept := self._read(self._root, path))]
        wanted = [kept for kept in found if run is None or kept.path.run == run]
        return sorted(wanted, key=lambda kept: -kept.note.time)

    def describe(self, path: CheckpointPath, now: float) -> Kept:
        """Return one checkpoint.

        Raises:
            NotFoundError: there is none, or it has expired.
        """
        self.check_exists(path, now)
        if self._root is not None:
            kept = self._read(self._root, path)
            if kept is None:  # deleted meanwhile
                raise _missing(path)
            return kept
        with self._lock:
            if path not in self._memory:
                raise _missing(path)
            return self._describe(path)

    def delete(self, path: CheckpointPath, now: float) -> None:
        """Remove a checkpoint; its name is free again.

        Raises:
            NotFoundError: there is none, or it has expired.
        """
        self.check_exists(path, now)
        with self._lock:
            self._forget([path])
        self._remove_folders([path])

    def discard(self, path: CheckpointPath, now: float) -> None:
        """Remove a checkpoint, if there is one, whose name is about to be used again."""
        if self.exists(path, now):
            self.delete(path, now)

    def publish(self, path: CheckpointPath, now: float, *, public: bool) -> None:
        """Let everybody read a checkpoint, or nobody else any more.

        Raises:
            NotFoundError: there is none, or it has expired.
            ConflictError: it is so already.
        """
        note = self.describe(path, now).note
        if note.public == public:
            raise refusal(409, f"Checkpoint '{path}' is {'public' if public else 'not public'} already")
        note = attrs.evolve(note, public=public)
        if self._root is not None:
            file = self._folder(self._root, path) / NOTE_FILE
            draft = file.with_name(f"{NOTE_FILE}.draft")
            draft.write_bytes(_note_bytes(note))
            draft.replace(file)
        with self._lock:
            self._notes[path] = note

    def set_expiry(self, path: CheckpointPath, now: float, expires: float) -> None:
        """Say from when on a checkpoint is gone; infinity is never.

        Raises:
            NotFoundError: there is none, or it has expired.
        """
        self.check_exists(path, now)
        with self._lock:
            if expires < math.inf:
                self._expiry[path] = expires
            else:
                self._expiry.pop(path, None)

    def _describe(self, path: CheckpointPath) -> Kept:
        size = sum(len(content) for content in self._memory[path].values())
        return Kept(path=path, note=self._notes[path], size=size, expires=self._expiry.get(path, math.inf))

    def _read(self, root: Path, path: CheckpointPath) -> Kept | None:
        """Describe a checkpoint of a directory; None if it has just gone."""
        folder = self._folder(root, path)
        try:
            size = sum(
                file.stat().st_size for file in folder.iterdir() if not file.name.startswith(NOTE_FILE)
            )
            note = _read_note(folder)
        except FileNotFoundError:
            return None
        return Kept(path=path, note=note, size=size, expires=self._expiry.get(path, math.inf))

    def _forget(self, paths: list[CheckpointPath]) -> None:
        for path in paths:
            self._expiry.pop(path, None)
            self._memory.pop(path, None)
            self._notes.pop(path, None)

    def _remove_folders(self, paths: list[CheckpointPath]) -> None:
        if self._root is not None:
            for path in paths:
                shutil.rmtree(self._folder(self._root, path), ignore_errors=True)

    def _expire(self, now: float) -> None:
        with self._lock:
            over = [path for path, expires in self._expiry.items() if expires <= now]
            self._forget(over)
        self._remove_folders(over)

    @staticmethod
    def _folder(root: Path, path: CheckpointPath) -> Path:
        return root / quote(path.run, safe="") / path.kind / path.name


def _paths_under(root: Path) -> list[CheckpointPath]:
    """Return the paths of the checkpoints in a directory, in order."""
    folders = sorted(folder for kind in KINDS for folder in root.glob(f"*/{kind}/*") if folder.is_dir())
    return [
        CheckpointPath(unquote(folder.parent.parent.name), kind, folder.name)
        for folder in folders
        for kind in KINDS
        if folder.parent.name == kind and NAME.fullmatch(folder.name)
    ]


def _note_bytes(note: Note) -> bytes:
    return orjson.dumps(attrs.asdict(note), option=orjson.OPT_SORT_KEYS)


def _read_note(folder: Path) -> Note:
    """Return a checkpoint's note; one that was saved without has the time of its folder."""
    try:
        return cattrs.structure(orjson.loads((folder / NOTE_FILE).read_bytes()), Note)
    except (FileNotFoundError, ValueError, cattrs.BaseValidationError):
        return Note(time=folder.stat().st_mtime)


def _missing(path: CheckpointPath) -> Exception:
    return refusal(404, f"Checkpoint '{path}' does not exist")


def _in_use(path: CheckpointPath) -> Exception:
    return refusal(409, f"Checkpoint '{path}' already exists")


def _write_folder(root: Path, folder: Path, path: CheckpointPath, files: Mapping[str, bytes]) -> None:
    """Write a folder whole or not at all."""
    if folder.exists():
        raise _in_use(path)
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=root))
    try:
        for name, content in files.items():
            _write_file(draft / name, content)
        _rename(draft, folder, path)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _write_file(file: Path, content: bytes) -> None:
    with file.open("xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _rename(draft: Path, folder: Path, path: CheckpointPath) -> None:
    try:
        draft.rename(folder)
    except OSError as exc:
        if folder.exists():  # another service on the same directory was faster
            raise _in_use(path) from exc
        raise
    _sync_directory(folder.parent)


def _sync_directory(directory: Path) -> None:
    """Make a rename last through a power failure, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
