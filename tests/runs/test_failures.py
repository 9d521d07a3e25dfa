"""What a run does when something fails in it."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any, NoReturn

import pytest
import trio

from tests.runs.loop import ADAM, Left, Loop, batch, embedded, opened, weights_of
from tinker_actors import Datum, ModelInput, Run, RunStep
from tinker_actors.errors import JournalError, TinkerActorsError
from tinker_actors.events import StepDecided
from tinker_actors.journal.disk import Disk
from tinker_actors.journal.durable import DurableJournal
from tinker_actors.runs.keeping import Keeping

BAD = [Datum(ModelInput.from_ints([10**6]), {"target_tokens": [10**6], "weights": [1.0]})]
"""No token of the model: the service refuses it, here or in its result."""


async def fail(run: Run, step: RunStep) -> None:
    """Decide a step that the service refuses, and see why."""
    with pytest.raises(TinkerActorsError):
        await (await step.train(BAD, "cross_entropy", ADAM, after={"next": step.index + 1}))


async def fail_unseen(run: Run, step: RunStep) -> None:
    """Decide such a step and never look."""
    await step.train(BAD, "cross_entropy", ADAM, after={"next": step.index + 1})


async def skip(run: Run, step: RunStep) -> None:
    """Train nothing in a step."""
    await step.skip(after={"next": step.index + 1})


async def test_a_step_that_fails_has_no_effect(autojump_clock: Any, tmp_path: Path) -> None:
    """It counts, its failure is told, and the weights are those of a run that skipped it."""
    failed, skipped = Loop(tmp_path / "failed"), Loop(tmp_path / "skipped")
    await failed.live(2, fail)
    await skipped.live(2, skip)
    assert failed.seen == list(range(6))
    assert failed.weights() == skipped.weights()


async def test_a_step_that_fails_unseen_ends_the_loop(autojump_clock: Any, tmp_path: Path) -> None:
    """Nobody has asked for its result, so the loop raises what it failed with; the next process goes on."""
    loop = Loop(tmp_path)
    with pytest.raises(TinkerActorsError):
        await loop.live(2, fail_unseen)
    assert loop.seen[-1] < 5
    point = await loop.live()
    assert point.step >= 3
    skipped = Loop(tmp_path / "skipped")
    await skipped.live(2, skip)
    assert loop.weights() == skipped.weights()


async def test_a_full_disk_sends_nothing(
    autojump_clock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step is not decided, the error says why, and the run goes on when there is room again."""
    whole, loop = Loop(tmp_path / "whole"), Loop(tmp_path / "parts")
    await whole.live()

    def refuse(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def fill(run: Run, step: RunStep) -> None:
        monkeypatch.setattr(Disk, "write", refuse)
        await step.train(batch(step.index), "cross_entropy", ADAM, after={"next": step.index + 1})

    with pytest.raises(JournalError, match="No space left on device"):
        await loop.live(3, fill)
    monkeypatch.undo()
    point = await loop.live()
    assert point.step == 3
    assert loop.weights() == whole.weights()


async def test_the_loop_s_own_exception_leaves_as_it_is(autojump_clock: Any, tmp_path: Path) -> None:
    """No group around it, and no checkpoint for it: what was decided is in the journal."""
    with pytest.raises(Left) as caught:
        async with opened(tmp_path) as run:
            async for step in run.steps(2):
                await step.train(batch(step.index), "cross_entropy", ADAM, after=None)
            raise Left
    assert type(caught.value) is Left
    async with opened(tmp_path) as run:
        assert [one.step for one in run.checkpoints] == [0]
        assert (run.decided, run.resumed.replayed) == (2, 2)


async def test_what_breaks_beside_the_loop_is_what_leaves(
    autojump_clock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect in housekeeping cancels the body, and is not hidden behind that cancellation."""

    async def broken(_: Keeping) -> None:
        await trio.sleep(1)
        raise ZeroDivisionError

    left: BaseException | None = None
    try:
        async with opened(tmp_path) as run:
            await trio.sleep(1)
            monkeypatch.setattr(Keeping, "look_over", broken)
            run.rate(run.checkpoints[0].name, 1.0)
            await trio.sleep_forever()
    except BaseException as error:  # noqa: BLE001 - pytest-trio lets a test pass that a stray cancellation leaves
        left = error
    assert isinstance(left, ZeroDivisionError)


async def test_a_cancelled_run_can_be_gone_on_with(autojump_clock: Any, tmp_path: Path) -> None:
    """Whoever cancels it from outside loses nothing that was decided."""
    with trio.move_on_after(25):
        async with opened(tmp_path / "r") as run:
            async for step in run.steps():
                await step.train(batch(step.index), "cross_entropy", ADAM, after={"next": step.index + 1})
                await trio.sleep(10)
    loop, whole = Loop(tmp_path / "r"), Loop(tmp_path / "whole")
    point = await loop.live()
    assert point.step == 3
    await whole.live()
    assert weights_of(tmp_path / "r") == whole.weights()


async def test_a_model_that_is_lost_costs_nothing_but_time(autojump_clock: Any, tmp_path: Path) -> None:
    """It is restored while the loop waits, and the loop's own process goes on."""
    whole = Loop(tmp_path / "whole")
    await whole.live()
    service = embedded(tmp_path / "parts")
    service.drop_model_at("optim_step", 4)
    lost = Loop(tmp_path / "parts", arguments={"embedded": service})
    await lost.live()
    assert lost.seen == list(range(6))
    assert lost.weights() == whole.weights()


async def test_a_step_whose_caller_left_is_waited_for(
    autojump_clock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in line, so it is decided and told of; the next one begins behind it."""
    record = DurableJournal.record

    async def slow(journal: DurableJournal, *arguments: Any) -> list[int]:
        await trio.sleep(5)
        return await record(journal, *arguments)

    async with opened(tmp_path) as run, run.service.ref.subscribe(StepDecided) as events:
        await trio.sleep(1)
        monkeypatch.setattr(DurableJournal, "record", slow)
        seen = []
        async for step in run.steps(3):
            seen.append(step.index)
            with trio.move_on_after(1):
                if step.index == 1:
                    await step.skip(after=step.index)
                await step.train(batch(step.index), "cross_entropy", ADAM, after=step.index)
            assert not step.decided
        assert seen == [0, 1, 2]
        assert run.loop_state == 2
        told = [events.receive_nowait() for _ in seen]
    assert told == [StepDecided(0), StepDecided(1, skipped=True), StepDecided(2)]
