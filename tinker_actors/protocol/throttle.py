"""How much may be on its way to a service at once: budgets of bytes, and the throttle of samples. Pure.

Theory of operation. Both are ledgers with a queue. Who finds room takes it at once, unless somebody waits: nobody
overtakes. Who does not gets a `Ticket`, in order of arrival; when room comes back, `admit` marks the tickets at the
front that now have it and returns them, and the driver wakes their owners. Time is passed in, and no task is known
here: a ledger can be tried with any sequence of events.

**Bytes.** A request waits while the free budget is negative and then takes what it weighs, so one that is larger than
the whole budget passes too, and no more than one request ever stands beyond it.

**Samples.** Up to 400 are being submitted at once. A refusal moves the clock of `SampleBackoff`, which holds everybody
back; while that is less than ten seconds ago (or still ahead), the service counts as throttled: 10 at once, and each
weighs 20 times its bytes. Who was refused comes back through the same door, so that a refusal of many does not end in
all of them knocking in the same moment.

**Progress.** One stuck sample is a slow one; when none of a service's samples has ended for two hours, all are stuck.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import attrs

from tinker_actors.protocol.backoff import SampleBackoff
from tinker_actors.protocol.chunking import input_bytes
from tinker_actors.wire.input import ModelInput

__all__ = [
    "DISPATCH_BYTES",
    "INFLIGHT_RESPONSE_BYTES",
    "SAMPLE_DISPATCH_BYTES",
    "BytesSemaphore",
    "Progress",
    "SampleThrottle",
    "Ticket",
    "sample_bytes",
]

# tinker 0.38.0 types/client_config_response.py: what holds where the service sets nothing else.
SAMPLE_DISPATCH_BYTES = 10 * 2**20
INFLIGHT_RESPONSE_BYTES = 50 * 2**20
DISPATCH_BYTES = 50_000_000
# tinker 0.38.0 lib/internal_client_holder.py
_DISPATCHES = 400
_THROTTLED_DISPATCHES = 10
_THROTTLED_WEIGHT = 20
_RECENT = 10.0  # seconds
_TOKEN_BYTES = 10


def sample_bytes(prompt: ModelInput) -> int:
    """Estimate what a sample weighs on its way to the service, in bytes."""
    return input_bytes(prompt, token_bytes=_TOKEN_BYTES)


@attrs.define(eq=False)
class Ticket:
    """A place in a queue.

    Attributes:
        size: bytes of the request.
        weight: bytes it took from the budget; 0 until it is admitted.
        admitted: it is its turn.
    """

    size: int
    weight: int = 0
    admitted: bool = False


@attrs.define(eq=False)
class BytesSemaphore:
    """A budget of bytes; see the module.

    Attributes:
        free: bytes left; negative while a request stands beyond the budget.
    """

    free: int
    _waiting: dict[Ticket, None] = attrs.field(factory=dict[Ticket, None], init=False)

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def take(self, size: int) -> bool:
        """Take bytes if there is room now and nobody waits; return whether."""
        if self.free < 0 or self._waiting:
            return False
        self.free -= size
        return True

    def enqueue(self, size: int) -> Ticket:
        """Wait in line for bytes."""
        ticket = Ticket(size)
        self._waiting[ticket] = None
        return ticket

    def give(self, size: int) -> list[Ticket]:
        """Give bytes back; return whose turn it is now, in order."""
        self.free += size
        return list(self._admit())

    def leave(self, ticket: Ticket) -> list[Ticket]:
        """Give up a place in line, or what came of it; return whose turn it is now."""
        if ticket.admitted:
            return self.give(ticket.weight)
        del self._waiting[ticket]
        return list(self._admit())

    def _admit(self) -> Iterator[Ticket]:
        while self._waiting and self.free >= 0:
            ticket = next(iter(self._waiting))
            del self._waiting[ticket]
            self.free -= ticket.size
            ticket.weight, ticket.admitted = ticket.size, True
            yield ticket


@attrs.define(eq=False)
class SampleThrottle:
    """How many samples may be submitted at once; see the module.

    Attributes:
        backoff: the clock that all who share a service and a key look at.
        free: bytes left of the budget.
        running: samples being submitted.
    """

    backoff: SampleBackoff
    free: int = SAMPLE_DISPATCH_BYTES
    running: int = attrs.field(default=0, init=False)
    _waiting: dict[Ticket, None] = attrs.field(factory=dict[Ticket, None], init=False)

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @property
    def first(self) -> Ticket | None:
        """Who is at the front of the line."""
        return next(iter(self._waiting), None)

    def is_throttled(self, now: float) -> bool:
        """Whether a refusal was recent, or still holds everybody back."""
        return now < self.backoff.until + _RECENT

    def enter(self, size: int, *, now: float) -> int | None:
        """Begin to submit a sample if that may be now and nobody waits.

        Returns:
            what to give back to `leave`; None: wait in line.
        """
        if self._waiting or not self._has_room(now):
            return None
        return self._take(size, now)

    def enqueue(self, size: int) -> Ticket:
        """Wait in line."""
        ticket = Ticket(size)
        self._waiting[ticket] = None
        return ticket

    def leave(self, weight: int) -> None:
        """The sample was submitted, or refused; `admit` says who is next."""
        self.running -= 1
        self.free += weight

    def give_up(self, ticket: Ticket) -> None:
        """Give up a place in line, or what came of it; `admit` says who is next."""
        if ticket.admitted:
            self.leave(ticket.weight)
        else:
            del self._waiting[ticket]

    def admit(self, *, now: float) -> list[Ticket]:
        """Return whose turn it is now, in order."""
        admitted: list[Ticket] = []
        while self._waiting and self._has_room(now):
            ticket = next(iter(self._waiting))
            del self._waiting[ticket]
            ticket.weight, ticket.admitted = self._take(ticket.size, now), True
            admitted.append(ticket)
        return admitted

    def next_change(self, *, now: float) -> float:
        """Return when there may be room though nobody leaves; infinity: never."""
        until = self.backoff.until
        if now < until:
            return until
        return until + _RECENT if now < until + _RECENT else math.inf

    def _has_room(self, now: float) -> bool:
        until = self.backoff.until
        limit = _THROTTLED_DISPATCHES if now < until + _RECENT else _DISPATCHES
        return now >= until and self.running < limit and self.free >= 0

    def _take(self, size: int, now: float) -> int:
        weight = size * _THROTTLED_WEIGHT if now < self.backoff.until + _RECENT else size
        self.running += 1
        self.free -= weight
        return weight


@attrs.define(eq=False)
class Progress:
    """When samples of one service ended, to tell slow ones from stuck ones.

    Attributes:
        timeout: seconds without one after which all count as stuck; infinity: never.
    """

    timeout: float = 7200.0  # tinker 0.38.0 lib/retry_handler.py
    _latest: float = -math.inf
    _open: int = 0

    def begin(self, now: float) -> None:
        """A sample begins; the first after none is where the time starts."""
        if not self._open:
            self._latest = now
        self._open += 1

    def end(self, now: float) -> None:
        """A sample has ended, well or badly."""
        self._open -= 1
        self._latest = now

    def leave(self) -> None:
        """A sample is not waited for any more; that says nothing about the service."""
        self._open -= 1

    def is_stuck(self, now: float) -> bool:
        """Whether none has ended for too long."""
        return self._open > 0 and now - self._latest >= self.timeout
