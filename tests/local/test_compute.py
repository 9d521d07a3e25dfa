from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Generator

import pytest
import trio
import trio.testing

from tinker_actors.errors import InputError
from tinker_actors.local.compute import SWITCH_INTERVAL, Compute

MODES = pytest.mark.parametrize("mode", ["thread", "inline"])


def slices(log: list[object], name: str, count: int) -> Generator[None, None, str]:
    try:
        for number in range(count):
            log.append((name, number))
            yield
    finally:
        log.append((name, "closed"))
    return f"{name} is done"


@MODES
async def test_slices_run_to_the_end(mode: str) -> None:
    """The generator's value comes back, its slices have run in order, and it is closed."""
    log: list[object] = []
    assert await Compute(mode).drive(slices(log, "a", 3)) == "a is done"
    assert log == [("a", 0), ("a", 1), ("a", 2), ("a", "closed")]


async def test_threads_compute_elsewhere_and_inline_here() -> None:
    """`thread` runs slices on another thread, `inline` on the caller's."""
    here = threading.get_ident()
    assert await Compute("thread").call(threading.get_ident) != here
    assert await Compute("inline").call(threading.get_ident) == here


@MODES
async def test_an_error_comes_back_and_closes_the_generator(mode: str) -> None:
    """What a slice raises reaches the caller as it is."""
    closed = []

    def failing() -> Generator[None, None, None]:
        try:
            yield
            raise ZeroDivisionError
        finally:
            closed.append(True)

    with pytest.raises(ZeroDivisionError):
        await Compute(mode).drive(failing())
    assert closed == [True]


@MODES
async def test_cancelling_between_slices_abandons_the_rest(mode: str) -> None:
    """Work is cut at the next yield, the generator is closed, and the next work runs."""
    compute = Compute(mode)
    log: list[object] = []

    def endless() -> Generator[None, None, None]:
        with contextlib.ExitStack() as stack:
            stack.callback(log.append, "closed")
            while True:
                log.append("slice")
                if log.count("slice") == 3:
                    if mode == "thread":
                        trio.from_thread.run_sync(scope.cancel)
                    else:
                        scope.cancel()
                yield

    with trio.CancelScope() as scope:
        await compute.drive(endless())
    assert scope.cancelled_caught
    assert log == ["slice"] * 3 + ["closed"]
    assert await compute.call(lambda: "next") == "next"


@MODES
async def test_two_who_want_to_compute_take_turns(mode: str) -> None:
    """Neither of two long computations is ahead of the other by more than two slices."""
    compute = Compute(mode)
    log: list[tuple[str, object]] = []
    async with trio.open_nursery() as nursery:
        for name in "ab":
            nursery.start_soon(compute.drive, slices(log, name, 20))
    ahead = 0
    for name, number in log:
        if number != "closed":
            ahead += 1 if name == "a" else -1
            assert abs(ahead) <= 2
    assert len(log) == 42


async def test_only_one_slice_runs_at_a_time() -> None:
    """Decoders and models share nothing that another thread could see half changed."""
    compute = Compute("thread")
    inside = threading.Lock()
    clashes = []

    def work() -> None:
        if not inside.acquire(blocking=False):
            clashes.append(1)
            return
        for _ in range(1000):
            pass
        inside.release()

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(compute.call, work)
    assert clashes == []


@MODES
async def test_every_slice_is_behind_a_checkpoint(mode: str) -> None:
    """A cancelled caller does not compute at all."""
    ran = []
    with trio.testing.assert_checkpoints():
        await Compute(mode).call(lambda: None)
    with trio.CancelScope() as scope:
        scope.cancel()
        await Compute(mode).call(lambda: ran.append(1))
    assert ran == []


def test_the_switch_interval_is_shortened_while_any_service_is_open() -> None:
    """Nested or overlapping, the first one in shortens it and the last one out restores it."""
    before = sys.getswitchinterval()
    first, second = Compute("thread").active(), Compute("thread").active()
    with contextlib.ExitStack() as outer, contextlib.ExitStack() as inner:
        outer.enter_context(first)
        assert sys.getswitchinterval() == pytest.approx(SWITCH_INTERVAL)
        inner.enter_context(second)
        outer.close()
        assert sys.getswitchinterval() == pytest.approx(SWITCH_INTERVAL)
    assert sys.getswitchinterval() == before


def test_inline_leaves_the_switch_interval_alone() -> None:
    """Without threads there is nothing to switch."""
    before = sys.getswitchinterval()
    with Compute("inline").active():
        assert sys.getswitchinterval() == before


def test_another_mode_is_refused() -> None:
    """The error names the field and the value."""
    with pytest.raises(InputError, match="compute = 'process'"):
        Compute("process")
