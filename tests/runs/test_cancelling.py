"""Callers who are cancelled in the middle of a step: what they see of it is what the journal holds."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import attrs
import pytest
import trio

from tests.runs.loop import ADAM, batch, opened, weights_of
from tinker_actors import Run, RunStep
from tinker_actors.errors import JournalFull, RunMismatch, UnobservedFailure
from tinker_actors.journal.durable import DurableJournal
from tinker_actors.runs.keeping import Keeping

ENOUGH = 60  # checkpoints of one task in one call


@attrs.define(eq=False)
class Cancelling(trio.abc.Instrument):
    """Cancels a scope when a task has come to a standstill for the n-th time.

    Attributes:
        task: that one.
        scope: what is cancelled.
        left: standstills until then.
    """

    task: trio.lowlevel.Task
    scope: trio.CancelScope
    left: int

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count."""
        self.left -= task is self.task
        if self.left == 0:
            self.scope.cancel()


@contextlib.contextmanager
def cancelled_at(nth: int) -> Iterator[trio.CancelScope]:
    """Cancel the body at its n-th standstill; 0 is not at all."""
    with trio.CancelScope() as scope:
        instrument = Cancelling(trio.lowlevel.current_task(), scope, nth)
        trio.lowlevel.add_instrument(instrument)
        try:
            yield scope
        finally:
            trio.lowlevel.remove_instrument(instrument)


class Gate:
    """Holds up the ends of checkpoints while it is shut."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._open = trio.Event()
        self._open.set()
        look_over = Keeping.look_over

        async def slow(keeping: Keeping) -> None:
            await self._open.wait()
            await look_over(keeping)

        monkeypatch.setattr(Keeping, "look_over", slow)

    def shut(self) -> None:
        """Let none come to its end."""
        self._open = trio.Event()

    def open(self) -> None:
        """Let all come to their ends."""
        self._open.set()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """Make a gate, which is open."""
    return Gate(monkeypatch)


LARGE = [*batch(1), *batch(10), *batch(20)]
"""Larger than any batch before it, so that room is made for it only when it is there."""


@contextlib.asynccontextmanager
async def filled(folder: Path, gate: Gate) -> AsyncIterator[tuple[Run, RunStep]]:
    """Open a run in whose second step the large batch does not fit without a checkpoint."""
    async with opened(folder, journal_max_bytes=1500) as run:
        try:
            async for step in run.steps(2):
                if step.index == 1:
                    gate.shut()
                    yield run, step
                    continue
                await step.train([*batch(0), *batch(30)], "cross_entropy", ADAM, after={"next": 1})
        finally:
            gate.open()


async def train(step: RunStep) -> object:
    """Train the step at once."""
    return await step.train(LARGE, "cross_entropy", ADAM, after={"next": 2})


async def accumulate(step: RunStep) -> object:
    """Put a gradient of the step in line."""
    return await step.forward_backward(LARGE, "cross_entropy")


@pytest.mark.parametrize("call", [train, accumulate])
async def test_who_leaves_while_room_is_made_has_decided_nothing(
    autojump_clock: Any, tmp_path: Path, gate: Gate, call: Callable[[RunStep], Awaitable[object]]
) -> None:
    """Nothing is in line: the same step is trained when there is room, and once."""
    async with filled(tmp_path, gate) as (run, step):
        with trio.move_on_after(5) as scope:
            await call(step)
        assert scope.cancelled_caught
        assert not step.decided
        gate.open()
        done = await step.train(LARGE, "cross_entropy", ADAM, after={"next": 2})
        await done
        assert (run.decided, run.loop_state) == (2, {"next": 2})


async def test_a_refusal_that_nobody_heard_leaves_the_step_as_it_was(
    autojump_clock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was in line and is not decided: the next call says why, and the one after it decides the step."""
    record = DurableJournal.record

    async def refuse(*_: object) -> NoReturn:
        await trio.sleep(5)
        raise JournalFull("no room", held=1, wanted=1, limit=1)

    async with opened(tmp_path) as run:
        async for step in run.steps(1):
            monkeypatch.setattr(DurableJournal, "record", refuse)
            with trio.move_on_after(1):
                await step.train(batch(0), "cross_entropy", ADAM, after=None)
            with pytest.raises(RuntimeError, match="step 0 is being decided"):
                await step.train(batch(0), "cross_entropy", ADAM, after=None)
            await trio.sleep(10)
            monkeypatch.setattr(DurableJournal, "record", record)
            with pytest.raises(UnobservedFailure, match="no room"):
                await step.train(batch(0), "cross_entropy", ADAM, after=None)
            await step.train(batch(0), "cross_entropy", ADAM, after=None)
        assert run.decided == 1


async def test_the_loss_of_a_step_is_known_whoever_leaves_it(
    autojump_clock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written with the decision: who left before that has a step with its loss, and no step has none."""
    record = DurableJournal.record

    async def slow(*args: Any) -> list[int]:
        await trio.sleep(5)
        return await record(*args)

    monkeypatch.setattr(DurableJournal, "record", slow)
    async with opened(tmp_path) as run:
        async for step in run.steps(1):
            with trio.move_on_after(1) as scope:
                await step.train(batch(0), "cross_entropy", ADAM, after=None)
            assert scope.cancelled_caught
            assert not step.decided
    async with opened(tmp_path) as run:
        assert run.decided == 1
        async for step in run.steps(2):
            with pytest.raises(RunMismatch, match="loss was 'cross_entropy' before the run was resumed"):
                await step.train(batch(1), "ppo", ADAM, after=None)
            await step.train(batch(1), "cross_entropy", ADAM, after=None)


async def whole(run: Run, step: RunStep, after: object) -> None:
    """Decide a step in one call."""
    await step.train(batch(step.index), "cross_entropy", ADAM, after=after)


async def single(run: Run, step: RunStep, after: object) -> None:
    """Decide a step by single operations."""
    await step.forward_backward(batch(step.index), "cross_entropy")
    await step.optim_step(ADAM, after=after)


async def nothing(run: Run, step: RunStep, after: object) -> None:
    """Decide that a step trains nothing."""
    await step.skip(after=after)


async def saving(run: Run, step: RunStep, after: object) -> None:
    """Save what was decided before the step, and decide it."""
    await run.checkpoint()
    await step.train(batch(step.index), "cross_entropy", ADAM, after=after)


Body = Callable[[Run, RunStep, object], Awaitable[None]]


async def again(step: RunStep, body: Body, after: object) -> bool:
    """Decide a step whose first caller was cancelled, as far as it lets itself be decided again."""
    try:
        if body is single:
            with contextlib.suppress(RuntimeError):  # a gradient of it is in line, or all of it
                await step.train(batch(step.index), "cross_entropy", ADAM, after=after)
                return True
            await step.optim_step(ADAM, after=after)
        elif body is nothing:
            await step.skip(after=after)
        else:
            await step.train(batch(step.index), "cross_entropy", ADAM, after=after)
    except RuntimeError:
        return False
    return True


@pytest.mark.slow  # some 20 lives of a run for each body
@pytest.mark.parametrize("body", [whole, single, nothing, saving])
async def test_whenever_its_caller_leaves_a_step_is_decided_once(
    autojump_clock: Any, tmp_path: Path, body: Body
) -> None:
    """At each standstill of the call: the step is in line or as it was, and says so; the journal holds it once."""

    async def live(folder: Path, nth: int) -> bool:
        cut = False
        async with opened(folder) as run:
            async for step in run.steps(3):
                after = {"next": step.index + 1}
                with cancelled_at(nth if step.index == 1 else 0) as scope:
                    await body(run, step, after)
                if step.index == 1:
                    cut = scope.cancelled_caught
                    if not cut:
                        assert step.decided
                    had = step.decided
                    repeated = await again(step, body, after)
                    assert not (had and repeated)
                    assert step.decided or not repeated
            told = (run.decided, run.loop_state)
        async with opened(folder) as run:
            assert (run.decided, run.loop_state) == told == (3, {"next": 3})
        return cut

    await live(tmp_path / "whole", 0)
    for nth in range(1, ENOUGH):
        folder = tmp_path / f"{nth}"
        cut = await live(folder, nth)
        assert weights_of(folder) == weights_of(tmp_path / "whole")
        if not cut:
            break
    else:
        pytest.fail("the call has no end")
