"""What a tree of actors does at one moment, as frozen facts."""

from __future__ import annotations

from typing import TypeAlias

import attrs
import trio

from tinker_actors.kernel.message import MailboxStatistics
from tinker_actors.kernel.reader import Reader

__all__ = ["ActorSnapshot", "PastMessage", "RunningMessage", "Snapshot", "SupervisorSnapshot", "picture"]


@attrs.frozen(kw_only=True)
class RunningMessage:
    """A message whose handler runs.

    Attributes:
        kind: name of its type.
        seq: its place in line; -1 for a message of the runtime.
        seconds: how long it has run; None if nobody has measured it: see `Supervisor.remember`.
        since: trio time of its beginning; None likewise.
        waiting_on: paths of the actors that its handler waits on.
    """

    kind: str
    seq: int
    seconds: float | None
    since: float | None = None
    waiting_on: tuple[str, ...]


@attrs.frozen(kw_only=True)
class PastMessage:
    """A message that has ended.

    Attributes:
        kind: name of its type.
        seq: its place in line.
        ended_at: trio time of its end.
        seconds: how long it ran; None if it never began, or began before anybody measured it.
        state: `settled`, `abandoned` or `expired`.
        error: the name of the error's type; None if it ended in a value.
    """

    kind: str
    seq: int
    ended_at: float
    seconds: float | None
    state: str
    error: str | None


@attrs.frozen(kw_only=True)
class ActorSnapshot:
    """An actor.

    Attributes:
        path: names of its supervisors and its own, joined by `/`.
        life: where it is in its life, as `lifecycle.Life` names it.
        incarnation: which life it lives.
        restarts: restarts within its window.
        next_restart_at: trio time of its next start, if it waits for one by the clock.
        mailbox: counters and depths.
        line: whose mailbox it reads: its own path, or that of its pool.
        running: what its handlers do.
        recent: the messages of its mailbox that ended last, oldest first; none unless they are remembered.
        last_failure: what ended its last incarnation, if that crashed.
    """

    path: str
    life: str
    incarnation: int
    restarts: int
    next_restart_at: float | None
    mailbox: MailboxStatistics
    line: str
    running: tuple[RunningMessage, ...]
    recent: tuple[PastMessage, ...]
    last_failure: str | None


@attrs.frozen(kw_only=True)
class SupervisorSnapshot:
    """A supervisor.

    Attributes:
        path: names of its supervisors and its own, joined by `/`.
        strategy: who is restarted with a child that ended.
        restarts: restarts of its children within its window.
        stopping: it is on its way out.
        children: in the order of their start.
    """

    path: str
    strategy: str
    restarts: int
    stopping: bool
    children: tuple[Snapshot, ...]

    def find(self, path: str) -> Snapshot:
        """Return the node with this path, at whatever depth.

        Raises:
            KeyError: there is none.
        """
        for child in self.children:
            if child.path == path:
                return child
            if isinstance(child, SupervisorSnapshot) and path.startswith(f"{child.path}/"):
                return child.find(path)
        raise KeyError(path)


Snapshot: TypeAlias = ActorSnapshot | SupervisorSnapshot


def picture(reader: Reader, *, is_measured: bool) -> RunningMessage:
    """Return what a reader does that has a message."""
    envelope = reader.envelope
    since = envelope.stamp if is_measured and envelope.stamp >= 0 else None
    return RunningMessage(
        kind=type(envelope.message).__name__,
        seq=envelope.seq,
        seconds=None if since is None else trio.current_time() - since,
        since=since,
        waiting_on=tuple(station.owner for station in reader.waits),
    )
