"""Steps of a run that are given up: the model is made again without them, and everything else goes on."""

from __future__ import annotations

import contextlib
from typing import Any, cast

import pytest
import trio
import trio.testing

from tests.actors.journaled import Opened, opened
from tests.actors.scripted import ADAM, MODES, batch, heard, steps
from tinker_actors.actors.message import OptimStep
from tinker_actors.errors import BadRequestError, JournalFull, RequestFailedError, StepVoid, TinkerError
from tinker_actors.events import ModelRestored
from tinker_actors.protocol.custom_loss import CustomLoss
from tinker_actors.testing import Fixed, ServiceFaults

SLOW = ServiceFaults(
    work=Fixed(1.0)
)  # so that the steps of a test are all in line before the first has failed


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("of", ["forward_backward", "optim_step"])
async def test_a_step_that_fails_is_left_behind(autojump_clock: Any, mode: str, of: str) -> None:
    """Its results say why; a new model gets all the others, those that were in line behind it too."""
    faults = SLOW.fail(of=of, nth=2, text="out of memory")
    async with opened(faults, mode, in_run=True) as one:
        first = one.training.model_id
        trained = [await one.train(token) for token in range(4)]
        failed = trained.pop(1)
        if of == "forward_backward":
            with pytest.raises(RequestFailedError, match="out of memory"):
                await failed.forward
            with pytest.raises(StepVoid, match="out of memory"):
                await failed.optim
        else:
            await failed.forward
            with pytest.raises(RequestFailedError, match="out of memory"):
                await failed.optim
        for step in trained:
            assert (await step.forward).metrics
            await step.optim
        assert one.training.model_id != first
        assert one.trained == steps(0, 2, 3)
        assert [record.position for record in one.journal.replay()] == [0, 1, 4, 5, 6, 7]


@pytest.mark.parametrize("mode", MODES)
async def test_a_batch_of_which_a_part_is_refused_is_left_behind(autojump_clock: Any, mode: str) -> None:
    """The other part is on the service, and its gradient would be stepped with."""
    faults = SLOW.refuse(400, of="forward_backward", nth=4)
    async with opened(faults, mode, in_run=True, chunk=1) as one:
        trained = [
            await one.training.train(batch(10 * step, 10 * step + 1), "cross_entropy", ADAM)
            for step in range(3)
        ]
        with pytest.raises(BadRequestError):
            await trained[1].forward
        with pytest.raises(StepVoid):
            await trained[1].optim
        await trained[2].optim
        tokens = [cast("tuple[int, ...]", content)[0] for kind, content in one.trained if kind == "gradient"]
        assert tokens == [0, 1, 20, 21]


async def results(one: Opened, count: int) -> list[BaseException | None]:
    """Train so many steps, and return what their ends failed of."""
    found: list[BaseException | None] = [None] * count

    async def wait(token: int, trained: Any) -> None:
        try:
            await trained.optim
        except TinkerError as error:
            found[token] = error

    async with trio.open_nursery() as nursery:
        for token in range(count):
            nursery.start_soon(wait, token, await one.train(token))
            await trio.testing.wait_all_tasks_blocked()
    return found


@pytest.mark.parametrize("mode", MODES)
async def test_an_optim_step_that_is_refused_leaves_its_gradient_behind(
    autojump_clock: Any, mode: str
) -> None:
    """What stood in line behind it is another step, and is trained."""
    faults = SLOW.refuse(400, of="optim_step", nth=2)
    async with opened(faults, mode, in_run=True) as one:
        ends = await results(one, 4)
        assert isinstance(ends.pop(1), BadRequestError)
        assert ends == [None] * 3
        assert one.trained == steps(0, 2, 3)


async def test_the_rest_of_a_step_of_single_operations_is_not_sent(autojump_clock: Any) -> None:
    """It stood in line when its first part failed; what comes later is a step of its own."""
    faults = SLOW.fail(of="forward_backward", nth=2).delay(3.0, of="forward_backward", nth=3)
    async with opened(faults, in_run=True) as one:
        async with one.training.step() as step:
            kept = step.forward_backward(batch(0), "cross_entropy")
            failed = step.forward_backward(batch(1), "cross_entropy")
            also = step.forward_backward(batch(2), "cross_entropy")
            optim = step.optim_step(ADAM)
        await (await one.train(3)).optim
        await kept
        with pytest.raises(RequestFailedError):
            await failed
        for part in (also, optim):
            with pytest.raises(StepVoid):
                await part
        assert one.trained == steps(3)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("part", ["gradient", "end"])
async def test_a_part_is_not_sent_if_another_fails_while_it_is_written(
    autojump_clock: Any, monkeypatch: pytest.MonkeyPatch, part: str, count: int
) -> None:
    """The end would step without a gradient, and a gradient would get into the step after it."""
    async with opened(SLOW.fail(of="forward_backward", text="out of memory"), "none", in_run=True) as one:
        write = one.journal.record

        async def write_slowly(intents: Any, decided: Any = None) -> list[int]:
            if len(one.journal.written) == count:
                await trio.sleep(30.0)
            return await write(intents, decided)

        monkeypatch.setattr(one.journal, "record", write_slowly)
        async with one.training.step() as step:
            parts = [step.forward_backward(batch(token), "cross_entropy") for token in range(count)]
            if part == "gradient":
                parts.append(step.forward_backward(batch(8), "cross_entropy"))
            optim = step.optim_step(ADAM)
        with pytest.raises(RequestFailedError, match="out of memory"):
            await parts[0]
        with pytest.raises(StepVoid, match="out of memory"):
            await optim
        await (await one.train(9)).optim
        assert one.trained == steps(9)
        kinds = [record.operation.kind for record in one.journal.replay()]
        assert kinds == ["forward_backward", "optim_step"]


async def test_a_loss_of_the_users_that_fails_leaves_its_step_behind(autojump_clock: Any) -> None:
    """There was another gradient of that step on the service."""

    def bad(*_: Any) -> CustomLoss:
        raise ValueError("no such reward")

    async with opened(in_run=True) as one:
        async with one.training.step() as step:
            step.forward_backward(batch(0), "cross_entropy")
            custom = step.forward_backward_custom(batch(1), bad)
            optim = step.optim_step(ADAM)
        with pytest.raises(ValueError, match="no such reward"):
            await custom
        with pytest.raises(StepVoid):
            await optim
        await (await one.train(2)).optim
        assert one.trained == steps(2)


async def test_a_gradient_without_room_leaves_its_step_behind(autojump_clock: Any) -> None:
    """What the step had on the service before is not stepped with."""
    async with opened(in_run=True) as one:
        await (await one.training.forward_backward(batch(0), "cross_entropy"))
        one.journal.fails.append(JournalFull("full", held=1, wanted=1, limit=1))
        with pytest.raises(JournalFull):
            await (await one.training.submit(OptimStep(ADAM)))
        await (await one.train(1)).optim
        assert one.trained == steps(1)


async def test_any_number_of_steps_may_be_left_behind(autojump_clock: Any) -> None:
    """Each is a reason of its own, and no restore that came to nothing."""
    faults = SLOW
    for nth in (1, 11, 20, 28, 35, 41, 46):  # the first step of those that are sent again, each time
        faults = faults.fail(of="optim_step", nth=nth)
    async with opened(faults, in_run=True) as one:
        ends = await results(one, 10)
        assert [error is None for error in ends] == [False] * 7 + [True] * 3
        assert one.trained == steps(7, 8, 9)


async def test_a_restore_says_which_step_was_left_behind(autojump_clock: Any) -> None:
    """In the event that a subscriber gets."""
    async with opened(SLOW.fail(of="optim_step", text="nan in the gradient"), in_run=True) as one:
        with pytest.raises(RequestFailedError):
            await (await one.train(0)).optim
        await (await one.train(1)).optim
        [restored] = heard(one.events, ModelRestored)
        assert "nan in the gradient" in restored.why
        assert restored.steps in (0, 1)


@pytest.mark.parametrize("failing", [3, 4])
async def test_a_step_that_is_sent_again_is_left_behind_as_a_whole(
    autojump_clock: Any, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    """A part of it fails while its end is read from the disk: the next model gets nothing of it, its end included."""
    faults = SLOW.fail(of="forward_backward", nth=failing, text="out of memory")
    async with opened(faults, in_run=True) as one:
        read = one.journal.read

        async def read_slowly(record: Any) -> Any:
            if record.operation.kind == "optim_step":
                await trio.sleep(30.0)
            return await read(record)

        monkeypatch.setattr(one.journal, "read", read_slowly)
        async with one.training.step() as step:
            parts = [step.forward_backward(batch(token), "cross_entropy") for token in range(2)]
            optim = step.optim_step(ADAM)
        await trio.sleep(0.5)
        one.service.lose_model(one.training.model_id, trio.current_time())
        with pytest.raises(StepVoid):
            await optim
        with pytest.raises((RequestFailedError, StepVoid)):
            for part in parts:  # the first may have had its result before
                await part
        await (await one.train(9)).optim
        assert one.trained == steps(9)


@pytest.mark.parametrize("count", [0, 2])
@pytest.mark.parametrize("mode", MODES)
async def test_a_step_that_is_refused_when_it_is_sent_again_leaves_nothing_to_the_next(
    autojump_clock: Any, mode: str, count: int
) -> None:
    """Of the step that follows a part fails: the rest of that one stands in line still, and is not sent."""
    of, nth = ("forward_backward", 3) if count else ("optim_step", 2)
    at = 1 + (3 if count else 0)  # the first gradient of the step that follows
    faults = SLOW.refuse(400, of=of, nth=nth).fail(of="forward_backward", nth=at + 1, text="nan")
    faults = faults.delay(3.0, of="forward_backward", nth=at + 2)
    async with opened(faults, mode, in_run=True) as one:
        async with one.training.step() as step:
            parts = [step.forward_backward(batch(token), "cross_entropy") for token in range(count)]
            optim = step.optim_step(ADAM)
        await trio.sleep(0.5)
        one.service.lose_model(one.training.model_id, trio.current_time())
        for lost in (*parts, optim):
            with pytest.raises((BadRequestError, StepVoid)):
                await lost
        async with one.training.step() as step:
            parts = [step.forward_backward(batch(token), "cross_entropy") for token in (3, 4, 5)]
            optim = step.optim_step(ADAM)
        for part in parts:
            with contextlib.suppress(RequestFailedError, StepVoid):
                await part
        with pytest.raises(StepVoid):
            await optim
        await (await one.train(9)).optim
        assert one.trained == steps(9)


@pytest.mark.parametrize("count", [1, 2])
async def test_the_rest_of_a_step_is_not_sent_again_if_its_first_part_fails_while_it_is_read(
    autojump_clock: Any, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Nothing of the step is on the service, so no new model is needed; but the rest of it is no step of its own."""
    faults = SLOW.fail(of="forward_backward", nth=count + 1, text="out of memory")
    async with opened(faults, in_run=True) as one:
        read = one.journal.read

        async def read_slowly(record: Any) -> Any:
            if record.position:
                await trio.sleep(30.0)
            return await read(record)

        monkeypatch.setattr(one.journal, "read", read_slowly)
        async with one.training.step() as step:
            parts = [step.forward_backward(batch(token), "cross_entropy") for token in range(count)]
            optim = step.optim_step(ADAM)
        await trio.sleep(0.5)
        one.service.lose_model(one.training.model_id, trio.current_time())
        for part in (*parts, optim):
            with pytest.raises((RequestFailedError, StepVoid)):
                await part
        await (await one.train(9)).optim
        assert one.trained == steps(9)
