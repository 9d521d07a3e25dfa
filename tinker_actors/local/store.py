"""Checkpoints: saved weights under `tinker://` paths, in memory or in a directory.

Theory of operation. A checkpoint is a few named files, written whole or not at all and never changed
afterwards:

    tinker://<model id>/weights/<name>           adapter_model.safetensors, adapter_config.json, and
                                                 optimizer.safetensors
    tinker://<model id>/sampler_weights/<name>   the first two

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
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import attrs

from tinker_actors.errors import InputError

from .refusal import refusal

__all__ = ["CheckpointKind", "CheckpointPath", "CheckpointStore"]

CheckpointKind = Literal["weights", "sampler_weights"]
KINDS: tuple[CheckpointKind, ...] = ("weights", "sampler_weights")
SCHEME = "tinker://"
NAME = re.compile(r"[A-Za-z0-9_.-]+")


@attrs.frozen
class CheckpointPath:
    """Where a checkpoint lies: `tinker://<run>/<kind>/<name>`.

    Attributes:
        run: id of the model that saved it.
        kind: `weights` (training state) or `sampler_weights`.
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
        if not self.run or "/" in self.run:
            raise InputError("path", str(self), "must name the model that saved it")
        if not NAME.fullmatch(self.name) or set(self.name) == {"."}:
            raise InputError("path", self.name, "a name has letters, digits, '_', '-' and '.' only")

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


class CheckpointStore:
    """Keeps checkpoints.

    Args:
        root: a directory, made if it is missing; None keeps them in memory.
    """

    def __init__(self, root: Path | None = None) -> None:
        self._root = root
        self._lock = threading.Lock()  # guards the dictionaries
        self._memory: dict[CheckpointPath, dict[str, bytes]] = {}
        self._expiry: dict[CheckpointPath, float] = {}
        self._versions: Counter[CheckpointPath] = Counter()

    def save(self, path: CheckpointPath, files: Mapping[str, bytes], *, expires: float = math.inf) -> None:
        """Keep a checkpoint. With a directory, this writes and syncs files.

        Args:
            path: where; must be unused.
            files: by name.
            expires: time from which on it is gone.

        Raises:
            ConflictError: the path is in use. Nothing was changed.
        """
        if self._root is not None:
            _write_folder(self._root, self._folder(self._root, path), path, files)
        with self._lock:
            if path in self._memory:
                raise _in_use(path)
            if self._root is None:
                self._memory[path] = dict(files)
            self._versions[path] += 1
            if expires < math.inf:
                self._expiry[path] = expires

    def load(self, path: CheckpointPath, now: float) -> dict[str, bytes]:
        """Return a checkpoint's files by name. With a directory, this reads files.

        Raises:
            NotFoundError: there is no such checkpoint, or it has expired.
        """
        self.check_exists(path, now)
        if self._root is None:
            with self._lock:
                return dict(self._memory[path])
        return {file.name: file.read_bytes() for file in sorted(self._folder(self._root, path).iterdir())}

    def check_exists(self, path: CheckpointPath, now: float) -> None:
        """Make sure that there is a checkpoint.

        Raises:
            NotFoundError: there is none, or it has expired.
        """
        if not self.exists(path, now):
            raise refusal(404, f"Checkpoint '{path}' does not exist")

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

    def _expire(self, now: float) -> None:
        with self._lock:
            over = [path for path, expires in self._expiry.items() if expires <= now]
            for path in over:
                del self._expiry[path]
                self._memory.pop(path, None)
        if self._root is not None:
            for path in over:
                shutil.rmtree(self._folder(self._root, path), ignore_errors=True)

    @staticmethod
    def _folder(root: Path, path: CheckpointPath) -> Path:
        return root / quote(path.run, safe="") / path.kind / path.name


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
