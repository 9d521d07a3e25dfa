"""Starting children again together, as a supervisor's strategy says.

Theory of operation. A revival is one task. It cancels its group in reverse order, each child within its own
time, waits out the backoff, and starts the group in order, each child when the one before it is ready. If a child
fails meanwhile, its group is added to those that are down, and the round is made again for them; who is up and not
concerned stays up. The supervisor has counted it by then. A stop of the supervisor ends the revival, wherever it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import trio

__all__ = ["Revival"]


class Child(Protocol):
    """An actor's slot, or a supervisor."""

    async def halt(self, reason: str) -> None:
        """Cancel it, to be started again."""
        ...

    async def resume(self) -> bool:
        """Start it again; False if it does not start."""
        ...


class Group(Protocol):
    """The supervisor, as its revival sees it."""

    def group_of(self, child: Any) -> Sequence[Child]:
        """Return who is restarted with a child, in order."""
        ...

    def everybody(self) -> Sequence[Child]:
        """Return all children, in order."""
        ...


class Revival:
    """One round, or several, of starting children again."""

    def __init__(self, supervisor: Group, reason: str) -> None:
        self._supervisor = supervisor
        self._reason = reason
        self._scope = trio.CancelScope()
        self._failed: list[Child] = []  # whose groups are to be added
        self._down: list[Child] = []  # halted, and not up again yet
        self._delay = 0.0

    def include(self, child: Child, delay: float) -> None:
        """Restart the group of a child as well, after `delay` seconds."""
        self._failed.append(child)
        self._delay = delay

    def cancel(self) -> None:
        """End it; children that wait to be started stay as they are."""
        self._scope.cancel(reason="the supervisor stops")

    def _take_down(self) -> list[Child]:
        """Add the groups of those that failed, and return all that are down, in the order of their start."""
        failed, self._failed = self._failed, []
        down = [*self._down, *(child for member in failed for child in self._supervisor.group_of(member))]
        self._down = [child for child in self._supervisor.everybody() if child in down]
        return self._down

    async def run(self) -> None:
        """Do it. A checkpoint."""
        await trio.lowlevel.checkpoint()
        with self._scope:
            while self._failed:
                for child in reversed(self._take_down()):
                    await child.halt(self._reason)
                await trio.sleep(self._delay)
                for child in list(self._down):
                    if self._failed:  # one did not start, or another one crashed
                        break
                    if await child.resume():
                        self._down.remove(child)
