"""What a tree of actors does at one moment, as frozen facts."""

from __future__ import annotations

from typing import TypeAlias

import attrs
import trio

from tinker_actors.kernel.message import MailboxStatistics
from tinker_actors.kernel.reader import Reader

__all__ = ["ActorSnapshot", "RunningMessage", "Snapshot", "SupervisorSnapshot", "picture"]


@attrs.frozen(kw_only=True)
class RunningMessage:
    """A message whose handler runs.

    Attributes:
        kind: name of its type.
        seq: its place in line; -1 for a message of the runtime.
        seconds: how long it has run; None unless the tree is timed.
        waiting_on: paths of the actors that its handler waits on.
    """

    kind: str
    seq: int
    seconds: float | None
    waiting_on: tuple[str, ...]


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
        running: what its handlers do.
        last_failure: what ended its last incarnation, if that crashed.
    """

    path: str
    life: str
    incarnation: int
    restarts: int
    next_restart_at: float | None
    mailbox: MailboxStatistics
    running: tuple[RunningMessage, ...]
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


def picture(reader: Reader, *, is_timed: bool) -> RunningMessage:
    """Return what a reader does that has a message."""
    envelope = reader.envelope
    return RunningMessage(
        kind=type(envelope.message).__name__,
        seq=envelope.seq,
        seconds=trio.current_time() - envelope.stamp if is_timed else None,
        waiting_on=tuple(station.owner for station in reader.waits),
    )
