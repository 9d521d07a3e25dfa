"""Jobs of one model, in the order of their sequence numbers.

Theory of operation. A client numbers the requests for a model: 0 creates it, 1 is the first after that.
Requests run strictly in this order, whatever order they arrive in:

    number = next one      queued: it runs after those before it
    number above that      parked until the numbers before it are there; only so many may be parked
    number below, same     a repetition (the client never saw our answer): it gets the first one's id again
    number below, other    refused: two different requests cannot have one number

"Same" means the same operation with the same bytes. Which requests were accepted is remembered for a
bounded number of them; a repetition that comes later than that is refused too, never run twice.
A request that is refused has not taken its number.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs

from tinker_actors.errors import InputError

from .refusal import refusal

__all__ = ["Job", "JobQueue", "SequenceLog"]

BUSY_SECONDS = 1.0  # when a client refused for lack of room may come again


class SequenceLog:
    """Which request was accepted under which number, for the newest `limit` of them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._accepted: dict[int, tuple[bytes, str]] = {}

    def repeated(self, number: int, digest: bytes) -> str | None:
        """Return the id given to a number's first request; None if the number is new or forgotten.

        Raises:
            ConflictError: the number was given to a request with another digest.
        """
        first = self._accepted.get(number)
        if first is None:
            return None
        if first[0] != digest:
            raise refusal(409, f"sequence number was reused: {number} belongs to another request")
        return first[1]

    def note(self, number: int, digest: bytes, request_id: str) -> None:
        """Remember an accepted request."""
        self._accepted[number] = (digest, request_id)
        if len(self._accepted) > self._limit:
            del self._accepted[next(iter(self._accepted))]


@attrs.frozen(eq=False)
class Job:
    """One accepted request.

    Attributes:
        number: its place in the model's sequence.
        request_id: its promise.
        operation: the endpoint's name.
        run: does the work and returns the reply.
        lasts: whether its reply is kept through a restart of the service.
    """

    number: int
    request_id: str
    operation: str
    run: Callable[[], Awaitable[object]]
    lasts: bool = False


class JobQueue:
    """The jobs of one model. Plain state: whoever works on them calls `take`.

    Args:
        max_queued: jobs that may wait for their turn.
        max_parked: jobs that may wait for smaller numbers to arrive.
        remembered: accepted requests whose repetition is recognised.
    """

    def __init__(self, *, max_queued: int = 4096, max_parked: int = 256, remembered: int = 16_384) -> None:
        self._max_queued = max_queued
        self._max_parked = max_parked
        self._log = SequenceLog(remembered)
        self._waiting: dict[int, Job] = {}
        self._next = 0  # the number that runs next
        self._missing = 0  # the smallest number that has not arrived

    @property
    def queued(self) -> int:
        """Jobs whose turn will come without another arrival."""
        return self._missing - self._next

    @property
    def parked(self) -> int:
        """Jobs that wait for smaller numbers."""
        return len(self._waiting) - self.queued

    def repeated(self, number: int, digest: bytes) -> str | None:
        """Return the request id that a repetition gets again; None for a new request.

        Raises:
            InputError: the number is negative.
            ConflictError: the number belongs to another request, or to one too old to be remembered.
        """
        if number < 0:
            raise InputError("seq_id", number, "must not be negative")
        request_id = self._log.repeated(number, digest)
        if request_id is None and number < self._missing:
            raise refusal(409, f"sequence number was reused: {number} is long done, {self._missing} is due")
        return request_id

    def put(self, job: Job, digest: bytes) -> None:
        """Accept a job under a number that `repeated` said is new.

        Raises:
            RateLimitError: too many jobs are queued or parked already.
        """
        if job.number == self._missing:
            if self.queued >= self._max_queued:
                raise refusal(429, f"{self.queued} requests are queued", retry_after=BUSY_SECONDS)
        elif self.parked >= self._max_parked:
            what = f"{self.parked} requests are parked until number {self._missing} arrives"
            raise refusal(429, what, retry_after=BUSY_SECONDS)
        self._log.note(job.number, digest, job.request_id)
        self._waiting[job.number] = job
        while self._missing in self._waiting:
            self._missing += 1

    def take(self) -> Job | None:
        """Take the job whose turn it is; None if it has not arrived."""
        job = self._waiting.pop(self._next, None)
        if job is not None:
            self._next += 1
        return job
