"""Checkpoints: saved weights under `tinker://` paths, in memory or in a directory.

Theory of operation. A checkpoint is a few named files, written whole or not at all and never changed
afterwards:

    tinker://<model id>/weights/<name>           adapter_model.safetensors, adapter_config.json, and
                                                 optimizer.safetensors
    tinker://<model id>/sampler_weights/<name>   the first two
    tinker://<model id>/external_weights/<name>  the first two, for use elsewhere

Beside them lies a note (`Note`): when it was saved, whether everybody may read it, and what its user keeps with it.
The note alone may change; it is no part of what is loaded or downloaded.

A name is used once, unless it is said that what it names shall be replaced. In a directory each checkpoint is a folder
that is written beside its place and then renamed into it: a crash leaves a checkpoint or none (see `folder`). The same
weights give the same bytes.

A checkpoint may be given a time to live. When it ends is noted beside the checkpoint, by the calendar, so that it
counts whether a service is open or not; what has expired is removed when somebody looks.

Every method may be called from any thread. Those that touch a disk are called where blocking does not matter.
"""

from __future__ import annotations

import contextlib
import math
import re
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

from .folder import clean, remove_folder, write_file, write_folder
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
        expires: from when on it is gone, by the calendar; infinity is never.
    """

    path: CheckpointPath
    note: Note
    size: int
    expires: float


class CheckpointStore:
    """Keeps checkpoints. Times are those of the calendar, in seconds.

    Args:
        root: a directory, made if it is missing; None keeps them in memory.

    Attributes:
        root: as given.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = root
        self._lock = threading.Lock()  # guards the dictionaries
        self._knows_ends = root is None  # of what lay there before
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
        overwrite: bool = False,
    ) -> None:
        """Keep a checkpoint. With a directory, this writes and syncs files.

        Args:
            path: where; must be unused.
            files: by name.
            expires: time from which on it is gone.
            note: what is known of it.
            overwrite: the path may be in use, and what is there is replaced.

        Raises:
            ConflictError: the path is in use. Nothing was changed.
        """
        if self.root is not None:
            self._write(self.root, path, {**files, **_note_files(note, expires)}, overwrite=overwrite)
        with self._lock:
            if path in self._memory and not overwrite:
                raise _in_use(path)
            self._forget([path])
            if self.root is None:
                self._memory[path] = dict(files)
                self._notes[path] = note or Note()
            self._versions[path] += 1
            if expires < math.inf:
                self._expiry[path] = expires

    def _write(
        self, root: Path, path: CheckpointPath, files: Mapping[str, bytes], *, overwrite: bool
    ) -> None:
        try:
            write_folder(root, _folder(root, path), files, replace=overwrite)
        except FileExistsError as error:
            raise _in_use(path) from error

    def clean(self) -> None:
        """Remove what a killed service has left in the directory, where no other service may be at work."""
        if self.root is not None:
            clean(self.root)

    def load(self, path: CheckpointPath, now: float, only: Collection[str] | None = None) -> dict[str, bytes]:
        """Return a checkpoint's files by name. With a directory, this reads files.

        Args:
            path: where it lies.
            now: the time.
            only: names of those that are wanted, if there are such; None is all of them.

        Raises:
            NotFoundError: there is no such checkpoint, or it has expired.
        """
        self.check_exists(path, now)
        if self.root is None:
            with self._lock:
                files = self._memory[path]
                return {name: files[name] for name in files if only is None or name in only}
        folder = _folder(self.root, path)
        return {
            file.name: file.read_bytes()
            for file in sorted(folder.iterdir())
            if not file.name.startswith(NOTE_FILE) and (only is None or file.name in only)
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
        self.expire(now)
        if self.root is None:
            with self._lock:
                return path in self._memory
        return _folder(self.root, path).is_dir()

    def version(self, path: CheckpointPath) -> int:
        """Return a number that changes when a path is saved again after its first checkpoint expired."""
        with self._lock:
            return self._versions[path]

    # ---------------------------------------------------------------------------------------- what there is

    def kept(self, now: float, run: str | None = None) -> list[Kept]:
        """Return the checkpoints there are, the latest first. With a directory, this reads it.

        Args:
            now: the time.
            run: of this run only.
        """
        self.expire(now)
        if self.root is None:
            with self._lock:
                found = [self._describe(path) for path in reversed(self._memory)]
        else:
            found = [kept for path in _paths_under(self.root) if (kept := self._read(self.root, path))]
        wanted = [kept for kept in found if run is None or kept.path.run == run]
        return sorted(wanted, key=lambda kept: -kept.note.time)

    def describe(self, path: CheckpointPath, now: float) -> Kept:
        """Return one checkpoint.

        Raises:
            NotFoundError: there is none, or it has expired.
        """
        self.check_exists(path, now)
        if self.root is not None:
            kept = self._read(self.root, path)
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

    def publish(self, path: CheckpointPath, now: float, *, public: bool) -> None:
        """Let everybody read a checkpoint, or nobody else any more.

        Raises:
            NotFoundError: there is none, or it has expired.
            ConflictError: it is so already.
        """
        kept = self.describe(path, now)
        if kept.note.public == public:
            raise refusal(409, f"Checkpoint '{path}' is {'public' if public else 'not public'} already")
        note = attrs.evolve(kept.note, public=public)
        self._write_note(path, note, kept.expires)
        with self._lock:
            self._notes[path] = note

    def set_expiry(self, path: CheckpointPath, now: float, expires: float) -> None:
        """Say from when on a checkpoint is gone; infinity is never.

        Raises:
            NotFoundError: there is none, or it has expired.
        """
        self._write_note(path, self.describe(path, now).note, expires)
        with self._lock:
            if expires < math.inf:
                self._expiry[path] = expires
            else:
                self._expiry.pop(path, None)

    def _write_note(self, path: CheckpointPath, note: Note, expires: float) -> None:
        if self.root is not None:
            file = _folder(self.root, path) / NOTE_FILE
            draft = file.with_name(f"{NOTE_FILE}.draft")
            draft.unlink(missing_ok=True)  # of a service that was killed
            write_file(draft, _note_files(note, expires)[NOTE_FILE])
            draft.replace(file)

    def _describe(self, path: CheckpointPath) -> Kept:
        size = sum(len(content) for content in self._memory[path].values())
        return Kept(path=path, note=self._notes[path], size=size, expires=self._expiry.get(path, math.inf))

    def _read(self, root: Path, path: CheckpointPath) -> Kept | None:
        """Describe a checkpoint of a directory; None if it has just gone."""
        folder = _folder(root, path)
        try:
            size = sum(
                file.stat().st_size for file in folder.iterdir() if not file.name.startswith(NOTE_FILE)
            )
            note, expires = _read_note(folder)
        except FileNotFoundError:
            return None
        return Kept(path=path, note=note, size=size, expires=expires)

    def _forget(self, paths: list[CheckpointPath]) -> None:
        for path in paths:
            self._expiry.pop(path, None)
            self._memory.pop(path, None)
            self._notes.pop(path, None)

    def _remove_folders(self, paths: list[CheckpointPath]) -> None:
        if self.root is not None:
            for path in paths:
                remove_folder(self.root, _folder(self.root, path))

    def expire(self, now: float) -> None:
        """Remove what has expired. The first time, this reads a directory."""
        with self._lock:
            if not self._knows_ends and self.root is not None:
                self._expiry = _ends_under(self.root) | self._expiry
                self._knows_ends = True
            over = [path for path, expires in self._expiry.items() if expires <= now]
            self._forget(over)
        self._remove_folders(over)


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


def _ends_under(root: Path) -> dict[CheckpointPath, float]:
    """Return when the checkpoints of a directory expire that do so at all."""
    found = {}
    for path in _paths_under(root):
        with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
            found[path] = _read_note(_folder(root, path))[1]
    return {path: expires for path, expires in found.items() if expires < math.inf}


def _note_files(note: Note | None, expires: float) -> dict[str, bytes]:
    """Return the file that a note and an end are written to; none if there is nothing to write."""
    kept: dict[str, object] = {} if note is None else attrs.asdict(note)
    if expires < math.inf:
        kept["expires"] = expires
    return {NOTE_FILE: orjson.dumps(kept, option=orjson.OPT_SORT_KEYS)} if kept else {}


def _read_note(folder: Path) -> tuple[Note, float]:
    """Return a checkpoint's note and its end; one that was saved without has the time of its folder."""
    saved = folder.stat().st_mtime
    try:
        kept = {"time": saved} | orjson.loads((folder / NOTE_FILE).read_bytes())
        return cattrs.structure(kept, Note), float(kept.get("expires", math.inf))
    except (FileNotFoundError, TypeError, ValueError, cattrs.BaseValidationError):
        return Note(time=saved), math.inf


def _missing(path: CheckpointPath) -> Exception:
    return refusal(404, f"Checkpoint '{path}' does not exist")


def _in_use(path: CheckpointPath) -> Exception:
    return refusal(409, f"Checkpoint '{path}' already exists")
