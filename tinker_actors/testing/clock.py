"""Virtual time, and runs that can be repeated.

Theory of operation. Under trio's `MockClock` with `autojump_threshold=0`, time stands still while anything can run,
and jumps to the next deadline when everything waits: an hour of backoff takes no time. Threads and sockets count as
waiting, so deadlines pass while they work; keep them out of tests on virtual time.

Which of several tasks that are runnable in the same tick goes first, trio leaves to chance. It offers no seed for
that, except to Hypothesis: once Hypothesis has been imported, trio sorts runnable tasks and shuffles them with a
generator that Hypothesis seeds around each of its examples. So `run_virtual` makes its run the one explicit example
of a test. Every run would begin at the same point of that generator; the seed chooses how many numbers are drawn
before.
"""

from __future__ import annotations

import contextvars
from collections.abc import Awaitable, Callable
from typing import TypeVar, TypeVarTuple

import trio
import trio.testing

__all__ = ["current_seed", "run_virtual", "virtual_clock"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_SCHEDULES = 1000
"""So many seeds have schedules of their own: to skip to one of them takes time in proportion to its number."""

_SEED: contextvars.ContextVar[int] = contextvars.ContextVar("tinker_actors.testing.SEED", default=0)


def virtual_clock() -> trio.testing.MockClock:
    """Make a clock for `trio.run` that jumps to the next deadline whenever everything waits.

    In pytest, `pytest-trio` brings it as the fixture `autojump_clock`, which takes effect only in tests that name
    it as an argument of their own: a fixture that asks for it is not enough.
    """
    return trio.testing.MockClock(autojump_threshold=0)


def current_seed() -> int:
    """Return the seed of the `run_virtual` around this task; 0 if there is none."""
    return _SEED.get()


def run_virtual(async_fn: Callable[[*Ts], Awaitable[T]], *args: *Ts, seed: int = 0) -> T:
    """Run an async function on virtual time, and return what it returns.

    The same seed gives the same run: the clock starts at 0, `open_test_system` draws its chance from the seed, and
    if Hypothesis is installed the order in which trio runs tasks of the same tick is chosen by the seed as well
    (there are 1000 such orders; seeds further apart than that share them), and Python's and numpy's global
    generators start from the same state. Without Hypothesis that order is left to trio's own chance. Within a
    Hypothesis test, the order is the test's; add `st.random_module()` to its arguments to try many.

    Not repeatable are: threads, sockets and signals; the order of sets of objects that hash by address; and which of
    several waits that end by deadlines or cancellation in the very same tick is told first.

    Args:
        async_fn: what to run.
        args: its positional arguments.
        seed: for chance and schedule; must not be negative.
    """

    def run() -> T:
        return trio.run(_seeded, async_fn, args, seed, clock=virtual_clock())

    try:
        import hypothesis
    except ImportError:
        return run()
    if hypothesis.currently_in_test_context():
        return run()
    return _as_example(run)


def _as_example(function: Callable[[], T]) -> T:
    """Call a function as the one explicit example of a Hypothesis test."""
    import hypothesis
    from hypothesis import strategies

    results: list[T] = []

    @hypothesis.settings(
        phases=[hypothesis.Phase.explicit],
        database=None,
        deadline=None,
        verbosity=hypothesis.Verbosity.quiet,
    )
    @hypothesis.example(None)
    @hypothesis.given(strategies.none())
    def once(_: None) -> None:
        results.append(function())

    once()
    return results[0]


async def _seeded(async_fn: Callable[[*Ts], Awaitable[T]], args: tuple[*Ts], seed: int) -> T:
    _SEED.set(seed)
    async with trio.open_nursery() as nursery:
        for _ in range(3):  # three runnable tasks per tick, so that each tick draws
            nursery.start_soon(_tick, 2 * (seed % _SCHEDULES))
    return await async_fn(*args)


async def _tick(times: int) -> None:
    for _ in range(times):
        await trio.lowlevel.checkpoint()
