"""How many may be under way at once: a limiter that is fair, cheap, and cannot lose a place.

Theory of operation. A place is either free or taken; waiters stand in line in the order they came. Who gives a place
back hands it to the first in line, in one synchronous step: it is never free in between, so nobody can push in. Trio
decides once whether a waiter is woken or cancelled. A cancelled one has left the line before anybody can hand it a
place; a woken one has its place even if it is cancelled in the same moment. So no place is ever lost.
"""

from __future__ import annotations

from collections import OrderedDict

import outcome
import trio

__all__ = ["Slots"]


class Slots:
    """Places for requests under way.

    Args:
        limit: how many.

    Attributes:
        limit: how many there are.
        in_use: how many are taken.
    """

    __slots__ = ("_line", "closed", "in_use", "limit")

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"limit = {limit}: must be at least 1")
        self.limit = limit
        self.in_use = 0
        self.closed = False
        self._line: OrderedDict[trio.lowlevel.Task, None] = OrderedDict()

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        return len(self._line)

    def take_free(self) -> bool:
        """Take a place if one is free; tell whether it was."""
        if self.in_use < self.limit and not self.closed:  # then nobody stands in line
            self.in_use += 1
            return True
        return False

    async def take(self) -> bool:
        """Take a place, or wait for one; a checkpoint only if it has to wait.

        Returns:
            False if the slots were closed before there was a place.
        """
        if self.closed or self.take_free():
            return not self.closed
        task = trio.lowlevel.current_task()
        self._line[task] = None

        def leave(_: object) -> trio.lowlevel.Abort:
            del self._line[task]
            return trio.lowlevel.Abort.SUCCEEDED

        return bool(await trio.lowlevel.wait_task_rescheduled(leave))

    def give_back(self) -> None:
        """Give a place to the first in line, or free it."""
        if self._line:
            task, _ = self._line.popitem(last=False)
            trio.lowlevel.reschedule(task, outcome.Value(True))
        else:
            self.in_use -= 1

    def close(self) -> None:
        """Send away those in line; nobody gets a place any more. Those who have one still give it back."""
        self.closed = True
        while self._line:
            task, _ = self._line.popitem(last=False)
            trio.lowlevel.reschedule(task, outcome.Value(False))
