"""Waiting for room: what drives the ledgers of `protocol.throttle` with tasks and a clock.

Theory of operation. Who finds room goes on in the same step: no checkpoint, no object. Who does not sleeps on an event
of his own that is set when the ledger admits his ticket. Room for samples also comes with time alone, so the first in
line sleeps no longer than until the throttle's next change; who becomes the first is woken to mind the clock, and so is
who minds it if a change turns out to come sooner.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator, Iterable

import trio

from tinker_actors.protocol.throttle import BytesSemaphore, Priority, SampleThrottle, Ticket

__all__ = ["BytesGate", "SampleGate"]


class BytesGate:
    """A budget of bytes that tasks wait for, first in, first out.

    Args:
        budget: bytes.
    """

    def __init__(self, budget: int) -> None:
        self.ledger = BytesSemaphore(budget)
        self._events: dict[Ticket, trio.Event] = {}

    async def take(self, size: int) -> None:
        """Take bytes; a checkpoint only if they have to be waited for. Cancelled, none are taken."""
        if self.ledger.take(size):
            return
        ticket = self.ledger.enqueue(size)
        event = self._events[ticket] = trio.Event()
        try:
            await event.wait()
        except BaseException:
            self._wake(self.ledger.leave(ticket))
            raise
        finally:
            del self._events[ticket]

    def give(self, size: int) -> None:
        """Give bytes back."""
        self._wake(self.ledger.give(size))

    @contextlib.asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        """Hold bytes for the time of a block; see `take`."""
        await self.take(size)
        try:
            yield
        finally:
            self.give(size)

    def _wake(self, tickets: Iterable[Ticket]) -> None:
        for ticket in tickets:
            self._events[ticket].set()


class SampleGate:
    """What samples pass on their way to one service.

    Args:
        throttle: the ledger.
    """

    def __init__(self, throttle: SampleThrottle) -> None:
        self.throttle = throttle
        self._events: dict[Ticket, trio.Event] = {}
        self._minder: Ticket | None = None  # who sleeps no longer than until the next change
        self._minded = math.inf  # when that is, as it was when the minder fell asleep

    def enter_nowait(self, size: int) -> int | None:
        """Begin to submit a sample of `size` bytes; None: it is not its turn, `enter` waits for it.

        Returns:
            what to give to `submitted` or `leave`.
        """
        return self.throttle.enter(size, now=trio.current_time())

    async def enter(self, size: int, lane: Priority = "training", *, again: bool = False) -> int:
        """Wait in line to submit a sample, and begin; a checkpoint unless there is room at once.

        Args:
            size: bytes.
            lane: where it waits.
            again: it was sent before, and waits before those that were not.

        Returns:
            what to give to `submitted` or `leave`.
        """
        ticket = self.throttle.enqueue(size, lane, again=again)
        try:
            while True:
                self._admit()
                if ticket.admitted:
                    return ticket.weight
                await self._turn(ticket)
        except BaseException:
            self.throttle.give_up(ticket)
            self._admit()
            raise
        finally:
            self._events.pop(ticket, None)

    async def _turn(self, ticket: Ticket) -> None:
        """Sleep until something may have changed for a ticket."""
        event = self._events[ticket] = trio.Event()
        deadline = math.inf
        if self.throttle.first is ticket:
            self._minder = ticket
            deadline = self._minded = self.throttle.next_change(now=trio.current_time())
        with trio.move_on_at(deadline):
            await event.wait()

    def submitted(self, weight: int) -> None:
        """The sample was submitted, and stays in flight until it has `ended`."""
        self.throttle.submitted(weight)
        if self.throttle.waiting:
            self._admit()

    def ended(self) -> None:
        """A sample that was submitted has ended, or is not waited for any more."""
        self.throttle.ended()
        if self.throttle.waiting:
            self._admit()

    def leave(self, weight: int) -> None:
        """The sample was not submitted; the next ones may go."""
        self.throttle.leave(weight)
        if self.throttle.waiting:
            self._admit()

    def hold_back(self, size: int) -> None:
        """Hold everybody back for a moment who samples from this service with this key."""
        self.throttle.backoff.refused(now=trio.current_time(), retry_after=None, size=size)

    def refused(self, size: int, retry_after: float | None, generation: int) -> None:
        """Take in a 429: hold everybody back, and have fewer in flight; see `SampleThrottle.refused`."""
        now = trio.current_time()
        self.throttle.refused(size, now=now, retry_after=retry_after, generation=generation)

    def _admit(self) -> None:
        now = trio.current_time()
        for ticket in self.throttle.admit(now=now):
            if ticket in self._events:  # who looks for himself has none yet
                self._events[ticket].set()
        first = self.throttle.first
        if first is None or first not in self._events:
            return
        # A pause may have begun elsewhere while the minder slept: a poll was refused, or another service of this key.
        if first is not self._minder or self.throttle.next_change(now=now) < self._minded:
            self._events[first].set()
