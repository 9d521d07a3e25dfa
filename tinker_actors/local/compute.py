"""Where the numpy work runs: in slices, on a worker thread or inline.

Theory of operation. Long work comes as a generator that yields between slices of at most some 50 ms. Each
slice runs on a worker thread, one at a time: whoever wants the next slice, of the same work or another,
waits in line, first come first served. So models and samplers take turns slice by slice, and cancelling the
one who waits abandons the work at the next yield; a slice itself is never interrupted.

Python hands its lock to another thread every 5 ms unless told otherwise. Beside a user's loop that
computes, a worker thread with its many short numpy calls would starve, and so would the loop beside the
worker. While any service computes on threads, the interval is shorter (`SWITCH_INTERVAL`).

Inline, the same slices run in the trio thread with a checkpoint before each. That is what a virtual clock
needs: it would jump ahead while a thread works.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from typing import Literal, TypeVar

import attrs
import trio

from tinker_actors.errors import InputError
from tinker_actors.kernel.switch_interval import SWITCH_INTERVAL, short_switch_interval

__all__ = ["COMPUTE_MODES", "SWITCH_INTERVAL", "Compute", "ComputeMode", "short_switch_interval"]

ComputeMode = Literal["thread", "inline"]
COMPUTE_MODES: tuple[ComputeMode, ...] = ("thread", "inline")

T = TypeVar("T")


@attrs.frozen
class _Finished:
    """The value of a generator that has ended."""

    value: object


def _advance(slices: Generator[None, None, object]) -> _Finished | None:
    try:
        next(slices)
    except StopIteration as end:
        return _Finished(end.value)
    return None


class Compute:
    """Runs numpy work.

    Args:
        mode: `thread` or `inline`.

    Raises:
        InputError: another mode.
    """

    def __init__(self, mode: ComputeMode) -> None:
        if mode not in COMPUTE_MODES:
            raise InputError("compute", mode, f"must be one of {', '.join(COMPUTE_MODES)}")
        self.mode = mode
        self._limiter = trio.CapacityLimiter(1)

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Prepare the interpreter for what is computed inside."""
        with short_switch_interval() if self.mode == "thread" else contextlib.nullcontext():
            yield

    async def call(self, work: Callable[[], T]) -> T:
        """Run one slice and return its value. Checkpoints before it; cancelled then, the slice never ran."""
        if self.mode == "inline":
            await trio.lowlevel.checkpoint()
            return work()
        return await trio.to_thread.run_sync(work, limiter=self._limiter)

    async def drive(self, slices: Generator[None, None, T]) -> T:
        """Run all slices and return the generator's value. Checkpoints before each.

        Cancelled between two slices, or when a slice raises, the generator is closed.
        """
        try:
            while (end := await self.call(lambda: _advance(slices))) is None:
                pass
        finally:
            slices.close()
        value: T = end.value  # type: ignore[assignment]  # _advance returns this generator's own value
        return value
