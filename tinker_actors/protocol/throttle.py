"""How much may be on its way to a service at once: budgets of bytes, and the throttle of samples. Pure.

Theory of operation. Both are ledgers with a queue. Who finds room takes it at once, unless somebody waits: nobody
overtakes. Who does not gets a `Ticket`, in order of arrival; when room comes back, `admit` marks the tickets at the
front that now have it and returns them, and the driver wakes their owners. Time is passed in, and no task is known
here: a ledger can be tried with any sequence of events.

**Bytes.** A request waits while the free budget is negative and then takes what it weighs, so one that is larger than
the whole budget passes too, and no more than one request ever stands beyond it.

**Samples.** A sample that has a place is *in flight* until it has ended; until the service has promised it, it is also
*being submitted*. In flight are as many as the service allows (`protocol.aimd`). Up to 400 are being submitted at once.
A refusal moves the clock of `SampleBackoff`, which holds everybody back; while that is less than ten seconds ago (or
still ahead), the service counts as throttled: 10 at once, and each weighs 20 times its bytes. Who is refused, or waits
to try again, gives his places back and comes in through the same door, so that a refusal of many does not end in all of
them knocking in the same moment; he stands before those who have not been sent yet.

**Lanes.** Samples of the lane `evaluation` go before those of the lane `training`. So that no flood of evaluations
stops the training, one sample of training goes after three evaluations that were preferred. Within a lane nobody is
overtaken.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, TypeAlias

import attrs

from tinker_actors.protocol.aimd import AdaptiveLimit
from tinker_actors.protocol.backoff import SampleBackoff
from tinker_actors.protocol.chunking import input_bytes
from tinker_actors.wire.input import ModelInput

__all__ = [
    "DISPATCH_BYTES",
    "INFLIGHT_RESPONSE_BYTES",
    "SAMPLE_DISPATCH_BYTES",
    "BytesSemaphore",
    "Priority",
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
_FAVOURS = 3  # evaluations that may go before a waiting sample of training, one after the other

Priority: TypeAlias = Literal["training", "evaluation"]
"""The lanes of samples."""


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
        lane: of samples.
    """

    size: int
    weight: int = 0
    admitted: bool = False
    lane: Priority = "training"


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
class _Lane:
    """Who waits in a lane: those who come back, then those who were never sent, each in order of arrival."""

    back: dict[Ticket, None] = attrs.field(factory=dict[Ticket, None])
    fresh: dict[Ticket, None] = attrs.field(factory=dict[Ticket, None])

    @property
    def first(self) -> Ticket | None:
        return next(iter(self.back or self.fresh), None)

    def remove(self, ticket: Ticket) -> None:
        del (self.back if ticket in self.back else self.fresh)[ticket]


@attrs.define(eq=False)
class SampleThrottle:
    """Which samples may be at a service, and on their way to it; see the module.

    Attributes:
        backoff: the clock that all who share a service and a key look at.
        limit: how many may be in flight.
        free: bytes left of the budget.
        running: samples being submitted.
        in_flight: samples that have a place, those being submitted included.
        waiting: samples in line.
    """

    backoff: SampleBackoff
    limit: AdaptiveLimit
    free: int = SAMPLE_DISPATCH_BYTES
    running: int = attrs.field(default=0, init=False)
    in_flight: int = attrs.field(default=0, init=False)
    waiting: int = attrs.field(default=0, init=False)
    _evaluation: _Lane = attrs.field(factory=_Lane, init=False)
    _training: _Lane = attrs.field(factory=_Lane, init=False)
    _favours: int = attrs.field(default=0, init=False)  # evaluations in a row that went before training

    # --- the line ----------------------------------------------------------------------------------------

    @property
    def first(self) -> Ticket | None:
        """Whose turn it is when there is room."""
        evaluation, training = self._evaluation.first, self._training.first
        if evaluation is None or (training is not None and self._favours >= _FAVOURS):
            return training
        return evaluation

    def is_throttled(self, now: float) -> bool:
        """Whether a refusal was recent, or still holds everybody back."""
        return now < self.backoff.until + _RECENT

    def enter(self, size: int, *, now: float) -> int | None:
        """Begin to submit a sample if that may be now and nobody waits.

        Returns:
            what to give back to `submitted` or `leave`; None: wait in line.
        """
        if self.waiting or not self._has_room(now):
            return None
        return self._take(size, now)

    def enqueue(self, size: int, lane: Priority = "training", *, again: bool = False) -> Ticket:
        """Wait in line; `again` before those who have not been sent yet."""
        ticket = Ticket(size)
        line = self._evaluation if lane == "evaluation" else self._training
        (line.back if again else line.fresh)[ticket] = None
        ticket.lane = lane
        self.waiting += 1
        return ticket

    def give_up(self, ticket: Ticket) -> None:
        """Give up a place in line, or what came of it; `admit` says who is next."""
        if ticket.admitted:
            self.leave(ticket.weight)
        else:
            self._remove(ticket)

    def admit(self, *, now: float) -> list[Ticket]:
        """Return whose turn it is now, in order."""
        admitted: list[Ticket] = []
        while self.waiting and self._has_room(now):
            ticket = self.first
            assert ticket is not None, "somebody waits"
            self._favours = self._favours + 1 if ticket.lane == "evaluation" and self._training.first else 0
            self._remove(ticket)
            ticket.weight, ticket.admitted = self._take(ticket.size, now), True
            admitted.append(ticket)
        return admitted

    def _remove(self, ticket: Ticket) -> None:
        (self._evaluation if ticket.lane == "evaluation" else self._training).remove(ticket)
        self.waiting -= 1

    def next_change(self, *, now: float) -> float:
        """Return when there may be room though nobody leaves; infinity: never."""
        until = self.backoff.until
        if now < until:
            return until
        return until + _RECENT if now < until + _RECENT else math.inf

    # --- places ------------------------------------------------------------------------------------------

    def submitted(self, weight: int) -> None:
        """The service has promised the sample, which stays in flight; `admit` says who is next."""
        self.running -= 1
        self.free += weight
        if self.limit.is_low:
            self.limit.accepted(self.in_flight - self.running)

    def ended(self) -> None:
        """A sample that was submitted is not in flight any more; `admit` says who is next."""
        self.in_flight -= 1
        if self.limit.is_low:
            self.limit.ended()

    def leave(self, weight: int) -> None:
        """The sample was not submitted; `admit` says who is next."""
        self.running -= 1
        self.in_flight -= 1
        self.free += weight

    def refused(self, size: int, *, now: float, retry_after: float | None, generation: int) -> None:
        """Take in a 429, before the refused sample leaves.

        Args:
            size: bytes of the sample.
            now: the present time.
            retry_after: seconds the service asked to wait.
            generation: the limit's, when the sample was sent.
        """
        self.backoff.refused(now=now, retry_after=retry_after, size=size)
        self.limit.refused(generation, self.in_flight - self.running)

    def paused(self) -> None:
        """Take in that samples wait in a paused queue, or that polls for them are refused."""
        self.limit.paused(self.in_flight - self.running)

    def _has_room(self, now: float) -> bool:
        until = self.backoff.until
        most = _THROTTLED_DISPATCHES if now < until + _RECENT else _DISPATCHES
        if now < until or self.running >= most or self.free < 0:
            return False
        return self.limit.has_room(self.in_flight)

    def _take(self, size: int, now: float) -> int:
        weight = size * _THROTTLED_WEIGHT if now < self.backoff.until + _RECENT else size
        self.running += 1
        self.in_flight += 1
        self.free -= weight
        return weight
