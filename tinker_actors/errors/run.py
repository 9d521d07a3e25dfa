"""What goes wrong with a run on disk: its journal, its lock, and what it was begun with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tinker_actors.errors.root import TinkerActorsError

__all__ = ["JournalError", "JournalFull", "RestoreMismatch", "RunLocked", "RunMismatch"]


class JournalError(TinkerActorsError):
    """A run's journal cannot be read or written, so nothing more is sent; the run can be resumed once it can be.

    Attributes:
        path: the file or the directory it is about; empty if it is none.
    """

    started = False

    def __init__(self, message: str, *, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class JournalFull(JournalError):
    """What was trained since the last checkpoints fills the room the journal may take; the step was not admitted.

    Attributes:
        held: bytes that the journal holds and cannot let go.
        wanted: bytes that were to come to them.
        limit: bytes it may hold.
    """

    def __init__(self, message: str, *, path: str = "", held: int, wanted: int, limit: int) -> None:
        super().__init__(message, path=path)
        self.held = held
        self.wanted = wanted
        self.limit = limit


class RunLocked(TinkerActorsError):
    """Another process has the run's directory open; it is not disturbed.

    Attributes:
        path: the directory.
        pid: the other process; None if it has not said so yet.
        host: the machine it runs on, likewise.
    """

    started = False

    def __init__(self, message: str, *, path: str, pid: int | None = None, host: str | None = None) -> None:
        super().__init__(message)
        self.path = path
        self.pid = pid
        self.host = host


class RunMismatch(TinkerActorsError):
    """The run was begun with something else than it is now opened with, and that was not accepted.

    Attributes:
        fields: by the name of what differs, what the run was begun with and what was given now.
    """

    started = False

    def __init__(self, message: str, *, fields: Mapping[str, Sequence[object]]) -> None:
        super().__init__(message)
        self.fields = {name: tuple(pair) for name, pair in fields.items()}


class RestoreMismatch(TinkerActorsError):
    """A restored model computes something else than it did before: the service lost a part of what it had saved.

    Attributes:
        model_id: the model that was restored.
        checkpoint: what it was restored from; None for the model's creation.
        lost: what must be missing, `weights` or `optimizer`.
    """

    def __init__(self, message: str, *, model_id: str, checkpoint: str | None, lost: str) -> None:
        super().__init__(message)
        self.model_id = model_id
        self.checkpoint = checkpoint
        self.lost = lost
