"""The decoders of a service: one per set of weights, each with a task while it has work.

Theory of operation. A decoder draws one token for each of its samples per step. Its task runs slices of a
few steps, and gives it whatever has arrived in between, so requests share steps as they come. What a sample
becomes does not depend on that (see `sampler`). The task ends when the decoder is idle and a new one starts
with the next request.

Decoders stay resident for the next request to their weights. Beyond `max_resident`, the idle one that was
used longest ago is dropped; its weights can be loaded again. A decoder at work is never dropped.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterable
from typing import TypeAlias

import attrs
import trio

from .compute import Compute
from .lora import LoraWeights
from .model import BaseModel
from .sample import SampleJob, SampleResult
from .sampler import Decoder

__all__ = ["DecoderPool", "Deliver", "Source"]

Deliver: TypeAlias = Callable[[SampleResult | Exception], None]

STEPS_PER_SLICE = (
    8  # one step of a full decoder takes some 2 ms; handing a slice to the thread takes some 0.1 ms
)


@attrs.frozen(eq=False)
class Source:
    """Weights to sample from.

    Attributes:
        key: tells them from others.
        base: the base model.
        load: returns the adapter, None for the base model itself; called in a slice.
    """

    key: Hashable
    base: BaseModel
    load: Callable[[], LoraWeights | None]


@attrs.define(eq=False)
class _Seat:
    """A decoder's place in the pool.

    Attributes:
        source: its weights.
        decoder: made in the first slice.
        inbox: jobs that have not reached it yet.
        leaving: ids of jobs that are no longer wanted.
        open: who waits for the result, by job id.
        driven: a task works on it.
    """

    source: Source
    max_rows: int
    decoder: Decoder | None = None
    inbox: list[SampleJob] = attrs.field(factory=list)
    leaving: list[Hashable] = attrs.field(factory=list)
    open: dict[Hashable, Deliver] = attrs.field(factory=dict)
    driven: bool = False

    def advance(self, arrived: list[SampleJob], leaving: list[Hashable]) -> list[SampleResult]:
        """Run one slice."""
        if self.decoder is None:
            self.decoder = Decoder(self.source.base, self.source.load(), self.max_rows)
        for job in arrived:
            self.decoder.submit(job)
        for job_id in leaving:
            self.decoder.cancel(job_id)
        results: list[SampleResult] = []
        for _ in range(STEPS_PER_SLICE):
            if self.decoder.idle or results:
                break
            results = self.decoder.step()
        return results


class DecoderPool:
    """Runs samples on as many decoders as there are weights in use.

    Args:
        compute: where slices run.
        max_rows: samples under way at once per decoder.
        max_resident: decoders kept, idle ones included.
    """

    def __init__(
        self,
        compute: Compute,
        *,
        max_rows: int = 64,
        max_resident: int = 8,
    ) -> None:
        self._compute = compute
        self._max_rows = max_rows
        self._max_resident = max_resident
        self._seats: dict[Hashable, _Seat] = {}  # least recently used first

    @property
    def resident(self) -> int:
        """Decoders in memory."""
        return len(self._seats)

    @property
    def open(self) -> int:
        """Jobs without a result."""
        return sum(len(seat.open) for seat in self._seats.values())

    def submit(self, source: Source, job: SampleJob, deliver: Deliver, nursery: trio.Nursery) -> None:
        """Take a job.

        Args:
            source: the weights.
            job: which `sample.check_job` found good.
            deliver: called once with the result, or with what went wrong, unless the job is cancelled.
            nursery: where the decoder's task runs.
        """
        seat = self._seats.pop(source.key, None) or _Seat(source, self._max_rows)
        self._seats[source.key] = seat
        seat.inbox.append(job)
        seat.open[job.id] = deliver
        if not seat.driven:
            seat.driven = True
            nursery.start_soon(self._drive, seat, name=f"decoder of {source.key}")

    def cancel(self, job_ids: Iterable[Hashable]) -> None:
        """Forget jobs; their results never come."""
        for job_id in job_ids:
            for seat in self._seats.values():
                if seat.open.pop(job_id, None) is not None:
                    seat.leaving.append(job_id)

    async def _drive(self, seat: _Seat) -> None:
        try:
            while seat.open or seat.leaving:
                arrived, seat.inbox = seat.inbox, []
                leaving, seat.leaving = seat.leaving, []
                for result in await self._compute.call(functools.partial(seat.advance, arrived, leaving)):
                    deliver = seat.open.pop(result.id, None)
                    if deliver is not None:  # else it was cancelled while its last step ran
                        deliver(result)
        except Exception as error:  # noqa: BLE001 - it is the outcome of every job this decoder had
            self._give_up(seat, error)
        finally:
            seat.driven = False
        self._evict()
        await trio.lowlevel.checkpoint()

    def _give_up(self, seat: _Seat, error: Exception) -> None:
        if self._seats.get(seat.source.key) is seat:
            del self._seats[seat.source.key]
        waiting, seat.open = list(seat.open.values()), {}
        for deliver in waiting:
            deliver(error)

    def _evict(self) -> None:
        idle = [key for key, seat in self._seats.items() if not seat.driven]
        for key in idle[: max(0, len(self._seats) - self._max_resident)]:
            del self._seats[key]
