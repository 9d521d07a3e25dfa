"""Steps that are decided as one: what is written, what is sent, and what becomes of them when something fails."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tests.actors.journaled import decision, opened
from tests.actors.scripted import ADAM, MODES, batch, steps
from tinker_actors.actors.message import OptimStep
from tinker_actors.actors.run_message import Train, TrainForward, TrainOptim
from tinker_actors.errors import BadRequestError, InputError, JournalError, JournalFull, StepVoid, Withdrawn
from tinker_actors.testing import ServiceFaults


@pytest.mark.parametrize("mode", MODES)
async def test_a_step_is_decided_before_it_is_trained(autojump_clock: Any, mode: str) -> None:
    """Both operations and the decision are one transaction; its results come later, as of any step."""
    async with opened(ServiceFaults().delay(5.0, of="optim_step"), mode) as one:
        for token in (0, 1):
            trained = await one.train(token)
            assert one.journal.written[-1] == ("forward_backward", "optim_step")
            assert one.journal.decisions == [decision(step) for step in range(token + 1)]
            assert not trained.optim.settled
        assert (await trained.forward).metrics["loss:sum"] > 0
        await trained.optim
        assert one.trained == steps(0, 1)


async def test_a_step_that_trains_nothing_is_decided_in_its_place(autojump_clock: Any) -> None:
    """It sends nothing."""
    async with opened() as one:
        await one.train(0)
        await one.training.skip(decision(1))
        await (await one.train(2)).optim
        assert [one.step for one in one.journal.decisions] == [0, 1, 2]
        assert one.journal.written[1] == ()
        assert one.trained == steps(0, 2)


async def test_an_optim_step_may_decide_what_stands_before_it(autojump_clock: Any) -> None:
    """With single operations each has an intent of its own; the last one decides."""
    async with opened() as one:
        await one.training.forward_backward(batch(0), "cross_entropy")
        await (await one.training.submit(OptimStep(ADAM, decision=decision(0))))
        assert one.journal.written == [("forward_backward",), ("optim_step",)]
        assert one.journal.decisions == [decision(0)]


async def test_what_cannot_be_written_is_not_sent(autojump_clock: Any) -> None:
    """Nor is anything after it: the model drains. What was sent before runs to its end."""
    async with opened() as one:
        first = await one.train(0)
        one.journal.fails.append(JournalError("no space left on device"))
        with pytest.raises(JournalError, match="no space") as caught:
            await one.train(1)
        assert caught.value.started is False
        with pytest.raises(JournalError, match="no space"):
            await one.train(2)
        with pytest.raises(JournalError, match="no space"):
            await one.training.save_state("a")
        with pytest.raises(JournalError, match="no space"):
            await one.training.skip(decision(3))
        await first.optim
        assert one.trained == steps(0)
        assert one.service.count("save_weights") == 0


async def test_a_full_journal_may_have_room_again(autojump_clock: Any) -> None:
    """Only the step that found it full is refused; its numbers are those of the next one."""
    async with opened() as one:
        one.journal.fails.append(JournalFull("full", held=1, wanted=1, limit=1))
        with pytest.raises(JournalFull):
            await one.train(0)
        await (await one.train(1)).optim
        assert one.trained == steps(1)
        assert [part.number for part in one.journal.parts(0)] == [1]


async def test_a_gradient_that_cannot_be_written_takes_its_step_along(autojump_clock: Any) -> None:
    """The `optim_step` in line behind it would step without it."""
    async with opened() as one:
        one.journal.fails.append(JournalFull("full", held=1, wanted=1, limit=1))
        async with one.training.step() as step:
            forward = step.forward_backward(batch(0), "cross_entropy")
            optim = step.optim_step(ADAM)
        with pytest.raises(JournalFull):
            await forward
        with pytest.raises(StepVoid):
            await optim
        await (await one.train(1)).optim
        assert one.trained == steps(1)


@pytest.mark.parametrize("mode", MODES)
async def test_a_refused_gradient_takes_its_optim_step_along(autojump_clock: Any, mode: str) -> None:
    """It was decided and is not sent; the step after it is another one, and has the numbers of both."""
    async with opened(ServiceFaults().refuse(400, of="forward_backward"), mode) as one:
        first = await one.train(0)
        second = await one.train(1)
        with pytest.raises(BadRequestError):
            await first.forward
        with pytest.raises(StepVoid):
            await first.optim
        await second.optim
        assert one.trained == steps(1)
        assert [record.position for record in one.journal.replay()] == [2, 3]
        assert [one.journal.parts(at)[0].number for at in (2, 3)] == [1, 2]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("of", ["forward_backward", "optim_step"])
async def test_a_step_of_a_lost_model_is_trained_once(autojump_clock: Any, mode: str, of: str) -> None:
    """Wherever in the step the model is lost, both parts come to the new one, and both results are had."""
    async with opened(ServiceFaults().lose_model(of=of, nth=2), mode) as one:
        trained = [await one.train(token) for token in range(3)]
        for step in trained:
            await step.forward
            await step.optim
        assert one.trained == steps(0, 1, 2)
        assert len(one.journal.written) == 3


async def test_a_step_behind_one_that_was_given_up_says_so_three_times(autojump_clock: Any) -> None:
    """A gradient in line before it failed: it is the rest of that step, and nothing of it is decided or sent."""
    faults = ServiceFaults().refuse(400, of="forward_backward").delay(5.0, of="forward_backward")
    async with opened(faults) as one:
        async with trio.open_nursery() as nursery:
            failed = await one.training.forward_backward(batch(0), "cross_entropy")

            async def behind() -> None:
                with pytest.raises(StepVoid):
                    await one.train(1)

            nursery.start_soon(behind)
        with pytest.raises(BadRequestError):
            await failed
        assert one.journal.decisions == []
        await (await one.train(2)).optim
        assert one.trained == steps(2)


async def test_a_step_that_makes_no_sense_is_refused_before_it_is_in_line(autojump_clock: Any) -> None:
    """As its single messages are."""
    async with opened() as one:
        with pytest.raises(InputError):
            await one.training.train([], "cross_entropy", ADAM)
        with pytest.raises(InputError):
            await one.training.train(batch(1), "cross_entropy", ADAM.__class__(learning_rate=float("nan")))
        assert one.journal.written == []


async def test_a_step_is_taken_back_as_a_whole(autojump_clock: Any) -> None:
    """As long as nothing of it has begun."""
    async with opened(ServiceFaults().delay(5.0, of="forward_backward")) as one:
        await one.training.forward_backward(batch(0), "cross_entropy")
        await one.training.optim_step(ADAM)
        train = Train(batch(1), "cross_entropy", None, ADAM, decision(1))
        block: list[Any] = [train, TrainForward(train), TrainOptim(train)]
        pendings = await one.training.ref.submit_many(block)
        assert await pendings[1].withdraw()
        for pending in pendings:
            with pytest.raises(Withdrawn):
                await pending
        assert one.journal.decisions == []
