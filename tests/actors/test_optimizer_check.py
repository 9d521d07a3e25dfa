"""Whether the optimizer came along with a restore, where no earlier step tells: found out at the next step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio

from tests.actors.journaled import Opened, decision, opened
from tests.actors.scripted import MODES, batch, heard, steps
from tests.actors.test_verifying import trained
from tinker_actors.errors import ModelPoisoned, RestoreMismatch
from tinker_actors.events import OptimizerUnverified, RestoreMismatchFound, RestoreVerified
from tinker_actors.testing import ServiceFaults
from tinker_actors.types import DimuonParams

KINDS = OptimizerUnverified, RestoreMismatchFound, RestoreVerified


async def restored(one: Opened, lost: str = "") -> str:
    """Save a second state, lose the model, and wait until another one is loaded from that state.

    Args:
        one: where.
        lost: the states whose optimizers the service loses.
    """
    await trained(one, 0, 1)
    await one.training.save_state("a")
    await trained(one, 2, 3, 4)
    path = (await one.training.save_state("b")).path
    for saved, name in zip(one.service.checkpoints, "ab", strict=True):
        if name in lost:
            one.service.forget_optimizer(saved)
    await one.lose_model()
    assert [type(event) for event in heard(one.events, *KINDS)] == [OptimizerUnverified]
    return path


def loaded(one: Opened) -> list[str]:
    """Return the ids of the models that are loaded."""
    return [name for name, model in one.service._state.models.items() if model.lost is None]


@pytest.mark.parametrize("mode", MODES)
async def test_the_next_step_verifies_an_optimizer_that_came_along(autojump_clock: Any, mode: str) -> None:
    """A second model takes the step without it and gets elsewhere; then that one is gone, and no number is used up."""
    async with opened(mode=mode, in_run=True) as one:
        path = await restored(one)
        await trained(one, 5, 6)
        await trio.sleep(60.0)
        [verified] = heard(one.events, *KINDS)
        assert isinstance(verified, RestoreVerified)
        assert (verified.model_id, verified.checkpoint) == (one.training.model_id, path)
        await trained(one, 7)
        assert loaded(one) == [one.training.model_id]
        assert one.service.count("create_model") == 3
        assert one.trained == steps(*range(8))


@pytest.mark.parametrize("mode", MODES)
async def test_an_optimizer_that_was_lost_is_found(autojump_clock: Any, mode: str) -> None:
    """The state before is tried; with the optimizer it holds, the model computes what its steps say."""
    async with opened(mode=mode, in_run=True) as one:
        path = await restored(one, lost="b")
        lost = one.training.model_id
        await trained(one, 5, 6)
        await trio.sleep(60.0)
        await trained(one, 7)
        found, verified = heard(one.events, *KINDS)
        assert (found.model_id, found.checkpoint, found.lost) == (lost, path, "optimizer")
        assert isinstance(verified, RestoreVerified)
        assert verified.model_id == one.training.model_id != lost
        assert one.trained == steps(*range(8))
        assert one.service._state.models[one.training.model_id].strayed == 0
        assert loaded(one) == [one.training.model_id]


async def test_a_service_that_loses_every_optimizer_is_given_up(autojump_clock: Any) -> None:
    """The state before has no optimizer either: its own steps tell."""
    async with opened(in_run=True) as one:
        await restored(one, lost="ab")
        await trained(one, 5, 6)
        await trio.sleep(60.0)
        with pytest.raises(ModelPoisoned) as caught:
            await (await one.train(7)).optim
        assert isinstance(caught.value.__cause__, RestoreMismatch)
        assert caught.value.__cause__.lost == "optimizer"
        assert all(found.lost == "optimizer" for found in heard(one.events, RestoreMismatchFound))


async def test_a_state_saved_by_a_model_without_its_optimizer_is_not_used(autojump_clock: Any) -> None:
    """It was saved before that was known: what is fallen back on is older than both."""
    slow = ServiceFaults().delay(30.0, of="create_model", nth=3)
    async with opened(slow, in_run=True) as one:
        await restored(one, lost="b")
        one.journal._generations = None
        await trained(one, 5, 6)
        await one.training.save_state("c")
        await trained(one, 7)
        await trio.sleep(60.0)
        await trained(one, 8)
        assert one.trained == steps(*range(9))
        assert one.service._state.models[one.training.model_id].strayed == 0


START = 1000.0  # later than the restore

REFUSES: dict[str, Callable[[ServiceFaults], ServiceFaults]] = {
    "makes no other model": lambda faults: faults.refuse(400, of="create_model", nth=3),
    "fails to make it": lambda faults: faults.fail(of="create_model", nth=3),
    "does not load without an optimizer": lambda faults: faults.refuse(400, of="load_weights", nth=2),
    "fails to load": lambda faults: faults.fail(of="load_weights", nth=2),
    "computes nothing": lambda faults: faults.refuse(400, of="forward", nth=4),
    "does not give it back": lambda faults: faults.refuse(400, of="unload_model", nth=None),
    "is not there": lambda faults: faults.refuse(503, of="create_model", nth=None, start=START),
}


@pytest.mark.parametrize("what", REFUSES)
async def test_a_check_that_cannot_be_made_is_no_failure(autojump_clock: Any, what: str) -> None:
    """The optimizer stays unverified, and the steps go on."""
    async with opened(REFUSES[what](ServiceFaults()), in_run=True) as one:
        await restored(one)
        await trio.sleep(START)
        await trained(one, 5, 6)
        await trio.sleep(1000.0)
        await trained(one, 7)
        kinds = [type(event) for event in heard(one.events, *KINDS)]
        assert kinds == ([RestoreVerified] if what == "does not give it back" else [])
        assert one.trained == steps(*range(8))


async def test_an_outage_during_the_check_leaves_it_open(autojump_clock: Any) -> None:
    """It may have been a restart, which sets a second model back as well: what it computes tells nothing."""
    async with opened(in_run=True) as one:
        await restored(one)
        one.interrupt("load_weights", lambda: None)
        await trained(one, 5, 6)
        await trio.sleep(60.0)
        await trained(one, 7)
        assert heard(one.events, *KINDS) == []
        assert loaded(one) == [one.training.model_id]
        assert one.trained == steps(*range(8))


async def test_a_step_like_that_of_a_new_optimizer_says_nothing(autojump_clock: Any) -> None:
    """Where the gradient stays the same, an Adam with its momentum moves as far: it moves also without a gradient."""
    async with opened(in_run=True) as one:
        await restored(one)
        one.service._state.stray = 0
        await trained(one, 5, 6)
        await trio.sleep(60.0)
        assert heard(one.events, *KINDS) == []
        assert one.service.count("create_model") == 4


async def test_a_model_that_is_lost_meanwhile_ends_the_check(autojump_clock: Any) -> None:
    """The next one is checked anew, by the steps that are there already; nothing of the first check is left."""
    slow = ServiceFaults().delay(30.0, of="create_model", nth=3)
    async with opened(slow, in_run=True) as one:
        await restored(one)
        await trained(one, 5, 6)
        await trio.sleep(1.0)
        await one.lose_model()
        await trio.sleep(60.0)
        events = heard(one.events, *KINDS)
        assert [type(event) for event in events] == [OptimizerUnverified, RestoreVerified]
        assert events[-1].model_id == one.training.model_id
        await trained(one, 7)
        assert one.trained == steps(*range(8))


async def test_a_service_can_be_left_during_the_check(autojump_clock: Any) -> None:
    """At once; and the second model is given back, too."""
    slow = ServiceFaults().delay(500.0, of="load_weights", nth=2)
    async with opened(slow, in_run=True) as one:
        await restored(one)
        await trained(one, 5, 6)
        await trio.sleep(1.0)
        assert len(loaded(one)) == 2
        before = trio.current_time()
    assert trio.current_time() - before < 20.0
    assert loaded(one) == []


async def test_a_model_without_steps_has_no_optimizer_to_lose(autojump_clock: Any) -> None:
    """What was saved before the first step is nobody's loss: there is nothing to be checked, or to be told."""
    async with opened(in_run=True) as one:
        await one.training.save_state("zero")
        await trained(one, 0)
        await one.lose_model()
        await trained(one, 1, 2)
        await trio.sleep(60.0)
        [verified] = heard(one.events, *KINDS)
        assert isinstance(verified, RestoreVerified)
        assert one.service.count("create_model") == 2


async def test_the_check_can_be_left_out(autojump_clock: Any) -> None:
    """`check_optimizer=False`: no other model is made, and the optimizer stays unverified."""
    async with opened(in_run=True, check_optimizer=False) as one:
        await restored(one)
        await trained(one, 5, 6)
        await trio.sleep(60.0)
        assert heard(one.events, *KINDS) == []
        assert one.service.count("create_model") == 2


async def test_a_model_can_be_unloaded_during_the_check(autojump_clock: Any) -> None:
    """What is found out after that is of no use to anybody."""
    slow = ServiceFaults().delay(5.0, of="unload_model", nth=None)
    async with opened(slow, in_run=True) as one:
        await restored(one, lost="ab")
        await trained(one, 5, 6)
        await one.training.unload()
        await trio.sleep(60.0)
        assert heard(one.events, *KINDS) == []
        assert loaded(one) == []


async def test_what_has_no_second_step_is_not_checked(autojump_clock: Any) -> None:
    """Another saved state was loaded behind the first."""
    async with opened(in_run=True) as one:
        path = await restored(one)
        await trained(one, 5)
        await one.training.load_state_with_optimizer(path)
        await trained(one, 6, 7)
        await trio.sleep(60.0)
        assert heard(one.events, *KINDS) == []
        assert one.service.count("create_model") == 2


async def test_a_state_that_is_saved_between_does_not_matter(autojump_clock: Any) -> None:
    """The step before it and the gradient after it tell of the state that was loaded."""
    async with opened(in_run=True) as one:
        path = await restored(one)
        await trained(one, 5)
        await one.training.save_state("c")
        await trained(one, 6)
        await trio.sleep(60.0)
        [verified] = heard(one.events, *KINDS)
        assert isinstance(verified, RestoreVerified)
        assert verified.checkpoint == path


async def test_another_optimizer_is_not_taken_for_a_lost_one(autojump_clock: Any) -> None:
    """What it does with a gradient of nothing is not known, so the step may be one that it takes in any case."""
    async with opened(in_run=True) as one:
        await restored(one, lost="b")
        await (
            await one.training.train(
                batch(5), "cross_entropy", DimuonParams(learning_rate=1e-3), decision=decision(5)
            )
        ).optim
        await trained(one, 6)
        await trio.sleep(60.0)
        assert heard(one.events, *KINDS) == []
        assert one.service.count("create_model") == 3
