"""Starting children again together, as a supervisor's strategy says.

Theory of operation. A revival is one task. It cancels its group in reverse order, each child within its own
time, waits out the backoff, and starts the group in order, each child when the one before it is ready. A child
that fails meanwhile, or an elder one, widens the group, and the round is made again; the supervisor has counted
it by then. A stop of the supervisor ends the revival, wherever it is.
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

    async def resume(self) -> bool:
        """Start it again; False if it does not start."""


class Group(Protocol):
    """The supervisor, as its revival sees it."""

    def group_of(self, child: Any) -> Sequence[Child]:
        """Return who is restarted with a child, in order."""

    def everybody(self) -> Sequence[Child]:
        """Return all children, in order."""


class Revival:
    """One round, or several, of starting children again."""

    def __init__(self, supervisor: Group, reason: str) -> None:
        self._supervisor = supervisor
        self._reason = reason
        self._scope = trio.CancelScope()
        self._members: list[Child] = []
        self._delay = 0.0
        self._again = False

    def include(self, child: Child, delay: float) -> None:
        """Restart the group of a child as well, after `delay` seconds."""
        self._members.append(child)
        self._delay = delay
        self._again = True

    def cancel(self) -> None:
        """End it; children that wait to be started stay as they are."""
        self._scope.cancel(reason="the supervisor stops")

    def _group(self) -> list[Child]:
        """Return all who are in a member's group, in the order of their start."""
        groups = [self._supervisor.group_of(member) for member in self._members]
        return [child for child in self._supervisor.everybody() if any(child in group for group in groups)]

    async def run(self) -> None:
        """Do it. A checkpoint."""
        await trio.lowlevel.checkpoint()
        with self._scope:
            while self._again:
                self._again = False
                for child in reversed(self._group()):
                    await child.halt(self._reason)
                await trio.sleep(self._delay)
                for child in self._group():
                    await child.resume()
                    if self._again:  # it did not start, or another one crashed
                        break
