"""Models of runs that are set back while they are restored, or with a gradient whose answer is lost."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import trio

from tests.actors.journaled import decision, opened
from tests.actors.scripted import ADAM, MODES, batch, heard, steps
from tests.actors.test_verifying import trained, trained_and_saved
from tinker_actors.actors.message import OptimStep
from tinker_actors.errors import ResultLost
from tinker_actors.events import RestoreMismatchFound
from tinker_actors.testing import Fixed, ServiceFaults


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("of", ["load_weights", "forward_backward", "optim_step"])
async def test_a_model_that_is_set_back_while_it_is_restored_is_made_again(
    autojump_clock: Any, mode: str, answered: bool, of: str
) -> None:
    """Nothing more is sent again to a model that has lost what was; and the saved state is not to blame."""
    async with opened(mode=mode, in_run=True) as one:
        await trained_and_saved(one, 1, 2)
        before = one.journal.checkpoint
        for _ in range(2):
            one.service.lose_model(one.training.model_id, trio.current_time())
            roll_back = partial(one.service.restart, trio.current_time(), "rolled_back")
            one.interrupt(of, roll_back, answered=answered)
            await (await one.training.forward(batch(9), "cross_entropy"))
            await trio.sleep(60.0)
        assert heard(one.events, RestoreMismatchFound) == []
        assert one.journal.checkpoint == before
        assert one.trained == steps(0, 1, 2)


@pytest.mark.parametrize("mode", MODES)
async def test_what_a_model_computes_that_was_set_back_to_its_creation_is_no_result(
    autojump_clock: Any, mode: str
) -> None:
    """Not even of the first step after the state that it had loaded: the next restore would be held against it."""
    async with opened(mode=mode, in_run=True) as one:
        await trained_and_saved(one)
        for token in (1, 2):
            one.service.lose_model(one.training.model_id, trio.current_time())
            roll_back = partial(one.service.restart, trio.current_time(), "rolled_back")
            one.interrupt("create_model", partial(one.interrupt, "forward_backward", roll_back))
            await trained(one, token)
        await one.lose_model()
        assert heard(one.events, RestoreMismatchFound) == []
        assert one.trained == steps(0, 1, 2)


async def test_an_interrupted_load_of_what_a_model_begins_with_is_no_rollback(autojump_clock: Any) -> None:
    """The creation computes the same as the first state of a run, whose restore would never come to an end."""
    async with opened(in_run=True) as one:
        await one.training.save_state("a")
        await trained(one, 0, 1)
        one.service.lose_model(one.training.model_id, trio.current_time())
        one.interrupt("load_weights", lambda: None)
        await trained(one, 2)
        assert one.service.count("create_model") == 2
        assert one.trained == steps(0, 1, 2)


@pytest.mark.parametrize("mode", MODES)
async def test_a_rollback_is_looked_for_with_what_was_sent_again_so_far(
    autojump_clock: Any, mode: str
) -> None:
    """Results of what comes later in the restore are not waited for: they come when it goes on."""
    async with opened(ServiceFaults(work=Fixed(1.0)), mode, in_run=True) as one:
        await trained_and_saved(one)
        for token in (1, 2):
            await one.training.forward_backward(batch(token), "cross_entropy")
        end = await one.training.submit(OptimStep(ADAM, decision=decision(1)))
        await trio.sleep(0.5)  # all are sent, and have no results
        one.service.lose_model(one.training.model_id, trio.current_time())
        one.interrupt("create_model", lambda: one.interrupt("forward_backward", lambda: None))
        with trio.fail_after(60.0):
            await end
        assert one.service.count("create_model") == 2
        assert len(one.trained) == len(steps(0)) + 3


@pytest.mark.parametrize("later", [(), (1,)])
async def test_a_gradient_whose_answer_is_lost_costs_a_restore_only_where_nothing_could_tell(
    autojump_clock: Any, later: tuple[int, ...]
) -> None:
    """Set back to the state right before it, a model computes the same without it; after a step it does not."""
    async with opened(mode="reject", in_run=True) as one:
        await trained_and_saved(one, *later)
        old = one.training.model_id
        one.interrupt("forward_backward", lambda: None, answered=True)
        gradient = await one.training.forward_backward(batch(2), "cross_entropy")
        await (await one.training.submit(OptimStep(ADAM, decision=decision(2))))
        if later:
            with pytest.raises(ResultLost):
                await gradient
        else:
            await gradient
        assert (one.training.model_id == old) is bool(later)
        assert one.trained == steps(0, *later, 2)
