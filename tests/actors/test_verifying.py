"""Models that are not what they should be: rolled back under their id, corrupted, or restored without all of it."""

from __future__ import annotations

from functools import partial
from typing import Any

import attrs
import numpy as np
import pytest
import trio

from tests.actors.journaled import Opened, decision, opened
from tests.actors.processes import GOOD, Process, World, loop
from tests.actors.scripted import ADAM, MODES, batch, heard, steps
from tinker_actors.actors.message import OptimStep
from tinker_actors.errors import JournalError, ModelPoisoned, RequestFailedError, RestoreMismatch, StepVoid
from tinker_actors.events import (
    ModelRestored,
    OptimizerUnverified,
    RestoreMismatchFound,
    RestoreVerified,
    RollbackFound,
)
from tinker_actors.testing import Fixed, ServiceFaults


async def trained(one: Opened, *tokens: int) -> None:
    """Train steps to their end."""
    for token in tokens:
        await (await one.train(token)).optim


async def trained_and_saved(one: Opened, *later: int) -> None:
    """Train a first step, save its state, and train others."""
    await trained(one, 0)
    await one.training.save_state("a")
    await trained(one, *later)


async def interrupt(one: Opened) -> None:
    """Have a call fail as it would while a service is started again."""
    await one.client.rest.get_server_capabilities()


@pytest.mark.parametrize("mode", MODES)
async def test_a_restart_that_only_a_beat_has_met_is_looked_for(autojump_clock: Any, mode: str) -> None:
    """A loop that plays games of its own for minutes sends nothing else that would notice it."""
    async with opened(mode=mode, in_run=True) as one:
        await trained_and_saved(one, 1, 2)
        old = one.training.model_id
        one.interrupt("session_heartbeat", lambda: one.service.restart(trio.current_time(), "rolled_back"))
        await trio.sleep(60)
        await trained(one, 3)
        assert one.training.model_id != old
        assert one.trained == steps(0, 1, 2, 3)


async def test_a_precaution_does_not_read_like_a_fact(autojump_clock: Any) -> None:
    """Between two numbers nothing can be computed, so a model is made again that may be what it should be."""
    faults = ServiceFaults().refuse(503, of="optim_step", nth=3)
    async with opened(faults, "reject", in_run=True) as one:
        await trained_and_saved(one, 1, 2, 3)
        [restored] = heard(one.events, ModelRestored)
        assert "it cannot be told whether model" in restored.why
        assert "it is made again to be sure" in restored.why
        assert one.trained == steps(0, 1, 2, 3)


async def test_a_beat_that_was_only_slow_is_no_restart(autojump_clock: Any) -> None:
    """A service under load answers late; a model is not looked at for that."""
    slow = ServiceFaults().stall(of="session_heartbeat", nth=2)
    async with opened(slow, in_run=True) as one:
        await trained_and_saved(one, 1)
        await trio.sleep(120)
        assert one.service.count("session_heartbeat") > 2
        await trained(one, 2)
        assert one.service.count("forward") == 0


async def test_beats_that_always_fail_hold_nothing_up(autojump_clock: Any) -> None:
    """One service has no use for them: the model is looked at for the first, not for all that follow."""
    faults = (
        ServiceFaults()
        .refuse(502, of="session_heartbeat", nth=None, start=5.0)
        .delay(25.0, of="forward", nth=None)
    )
    async with opened(faults, in_run=True) as one:
        await trained_and_saved(one, 1)
        await trio.sleep(60)
        with trio.fail_after(120):
            await trained(one, 2, 3)
        assert one.trained == steps(0, 1, 2, 3)
        assert one.service.count("forward") == 2  # for the saved state, and for the model's creation


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("saved", [False, True])
async def test_a_model_that_was_rolled_back_is_made_again(
    autojump_clock: Any, mode: str, saved: bool
) -> None:
    """To its creation or to a saved state, under the same id and without a word: nothing more is sent to it."""
    faults = ServiceFaults().refuse(503, of="get_server_capabilities")
    async with opened(faults, mode, in_run=True) as one:
        await trained(one, 0)
        if saved:
            await one.training.save_state("a")
        await trained(one, 1, 2)
        old = one.training.model_id
        one.service.restart(trio.current_time(), "rolled_back")
        await interrupt(one)
        before = one.service.trained[old]
        await trained(one, 3)
        [found] = heard(one.events, RollbackFound)
        assert (found.model_id, bool(found.checkpoint)) == (old, saved)
        assert one.training.model_id != old
        assert one.trained == steps(0, 1, 2, 3)
        assert one.service.trained[old] == before


@pytest.mark.parametrize("mode", MODES)
async def test_a_restored_model_that_was_set_back_to_its_creation_is_made_again(
    autojump_clock: Any, mode: str
) -> None:
    """It has saved nothing under its own id yet: what it computed before the state was loaded into it tells."""
    faults = ServiceFaults().refuse(503, of="get_server_capabilities")
    async with opened(faults, mode, in_run=True) as one:
        await trained_and_saved(one, 1)
        one.service.lose_model(one.training.model_id, trio.current_time())
        await trained(one, 2)
        second = one.training.model_id
        one.service.restart(trio.current_time(), "rolled_back")
        assert one.service.trained[second] == ()
        await interrupt(one)
        await trained(one, 3)
        assert one.training.model_id != second
        assert one.trained == steps(0, 1, 2, 3)


@pytest.mark.parametrize("saves", [False, True])
async def test_a_restored_model_is_gone_on_with_only_when_it_has_saved_something(
    autojump_clock: Any, saves: bool
) -> None:
    """Else a process would not see that it was set back to its creation meanwhile."""
    world = World()
    await world.leave_by_kill(loop(2, save_after=(0,)))
    world.resumption = None
    await world.leave_by_kill(loop(3, save_after=(2,) if saves else ()))
    world.resumption = GOOD
    old = world.model_id

    async def third(process: Process) -> None:
        resumed = process.lineage.resumed
        assert resumed is not None
        assert resumed.how == ("attached" if saves else "restored")
        assert saves or "saved nothing" in resumed.why
        await loop(4)(process)

    assert await world.process(third)
    assert (world.model_id == old) is saves
    assert world.trained == steps(0, 1, 2, 3)


async def test_a_state_counts_only_when_what_it_holds_was_verified(autojump_clock: Any) -> None:
    """A restored model turns out to have lost its optimizer: what was saved of it is none to restore from."""
    faults = ServiceFaults(work=Fixed(1.0)).delay(5.0, of="forward", nth=None)
    async with opened(faults, in_run=True) as one:
        await trained_and_saved(one, 1, 2)
        second = one.journal.witnesses()[-1]
        assert second.which == 2
        moved = second.logprobs + np.float32(0.5)
        one.journal._witnesses[second.position] = attrs.evolve(second, logprobs=moved)
        one.service.lose_model(one.training.model_id, trio.current_time())
        # Only when the restored model saves: then all results wait for the same test for a rollback.
        one.interrupt("create_model", lambda: one.interrupt("save_weights", lambda: None))
        with pytest.raises(ModelPoisoned):
            await one.training.save_state("b")
        assert heard(one.events, RestoreMismatchFound)[0].lost == "optimizer"
        assert one.journal.counted == ["a"]


@pytest.mark.parametrize("mode", ["replay", "reject"])
async def test_a_rollback_is_found_also_if_a_step_was_sent_into_it(autojump_clock: Any, mode: str) -> None:
    """The request that met the restart went out again, to a model that had lost what came before it."""
    faults = ServiceFaults().refuse(503, of="forward_backward", nth=3)
    async with opened(faults, mode, in_run=True) as one:
        await trained(one, 0, 1)
        old = one.training.model_id
        one.service.restart(trio.current_time(), "rolled_back")
        await trained(one, 2)
        await one.training.save_state("a")
        assert one.training.model_id != old
        assert one.trained == steps(0, 1, 2)
        assert one.service.checkpoints[-1].startswith(f"tinker://{one.training.model_id}/")


@pytest.mark.parametrize("mode", MODES)
async def test_an_optim_step_is_not_sent_into_a_model_that_was_rolled_back(
    autojump_clock: Any, mode: str
) -> None:
    """It would move weights that nobody can tell from the right ones then: its gradient was not there any more."""
    async with opened(mode=mode, in_run=True) as one:
        await trained(one, 0, 1)
        old = one.training.model_id
        await (await one.training.forward_backward(batch(2), "cross_entropy"))
        one.interrupt("optim_step", lambda: one.service.restart(trio.current_time(), "rolled_back"))
        await (await one.training.submit(OptimStep(ADAM, decision=decision(2))))
        assert one.training.model_id != old
        assert one.trained == steps(0, 1, 2)
        assert "optim_step" not in {done.endpoint for done in one.service.trained[old]}


@pytest.mark.parametrize(("mode", "kept"), [("replay", True), ("reject", False), ("none", True)])
async def test_an_optim_step_that_is_interrupted_goes_on_if_nothing_was_lost(
    autojump_clock: Any, mode: str, kept: bool
) -> None:
    """A service that remembers numbers shows it by its promise; one that takes early numbers, by computing."""
    async with opened(mode=mode, in_run=True) as one:
        await trained(one, 0, 1)
        old = one.training.model_id
        one.interrupt("optim_step", lambda: None)
        await trained(one, 2, 3)
        assert (one.training.model_id == old) is kept
        assert one.trained == steps(0, 1, 2, 3)


async def test_an_optim_step_is_not_sent_if_its_gradient_fails_while_a_rollback_is_looked_for(
    autojump_clock: Any,
) -> None:
    """It would be a step of the momentum alone."""
    faults = ServiceFaults().fail(of="forward_backward", nth=3, text="out of memory")
    faults = faults.delay(5.0, of="forward", nth=None)
    async with opened(faults, "none", in_run=True) as one:
        await trained(one, 0, 1)
        one.interrupt("forward_backward", lambda: None)
        failed = await one.train(2)
        with pytest.raises(RequestFailedError, match="out of memory"):
            await failed.forward
        with pytest.raises(StepVoid, match="out of memory"):
            await failed.optim
        await trained(one, 3)
        assert one.trained == steps(0, 1, 3)


async def test_a_state_saved_by_a_model_that_was_rolled_back_is_none_to_restore_from(
    autojump_clock: Any,
) -> None:
    """It is found out before the state counts."""
    faults = ServiceFaults().refuse(503, of="save_weights")
    async with opened(faults, in_run=True) as one:
        await trained(one, 0, 1)
        one.service.restart(trio.current_time(), "rolled_back")
        await one.training.save_state("a")
        checkpoint = one.journal.checkpoint
        assert checkpoint is not None
        assert one.training.model_id in checkpoint.path
        assert len(heard(one.events, RollbackFound)) == 1
        assert one.trained == steps(0, 1)


@pytest.mark.parametrize("mode", MODES)
async def test_an_interruption_without_a_rollback_costs_one_forward_pass(
    autojump_clock: Any, mode: str
) -> None:
    """For each saved state, once; and no number is lost by it."""
    faults = ServiceFaults().refuse(503, of="get_server_capabilities")
    async with opened(faults, mode, in_run=True) as one:
        await trained_and_saved(one, 1, 2)
        old = one.training.model_id
        await interrupt(one)
        await trained(one, 3, 4)
        assert one.training.model_id == old
        assert one.service.count("forward") == 2
        assert one.trained == steps(0, 1, 2, 3, 4)


async def test_a_service_whose_restart_ends_models_is_not_tested(autojump_clock: Any) -> None:
    """It would say so of a model that is gone, and gives no other one its name; its steps go on as they are."""
    async with opened(in_run=True, restart_ends_models=True) as one:
        await trained(one, 0, 1)
        old = one.training.model_id
        one.interrupt("forward_backward", lambda: None)
        await trained(one, 2)
        one.interrupt("optim_step", lambda: None)
        await trained(one, 3)
        assert one.training.model_id == old
        assert one.service.count("forward", "get_training_run") == 0
        assert one.trained == steps(0, 1, 2, 3)


@pytest.mark.parametrize("what", ["written", "read"])
async def test_a_disk_that_fails_is_told_of_by_what_is_sent_next(
    autojump_clock: Any, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test for a rollback needs the journal, and is no failure of its own if that cannot be had."""
    faults = ServiceFaults().refuse(503, of="get_server_capabilities")
    async with opened(faults, in_run=True) as one:
        await trained(one, 0, 1)
        await interrupt(one)
        if what == "written":
            one.journal.fails.append(JournalError("no space left on device"))
            with pytest.raises(JournalError, match="no space"):
                await one.train(2)
            assert one.trained == steps(0, 1)
        else:

            async def fail(_: object) -> None:
                await trio.lowlevel.checkpoint()
                raise JournalError("a body is gone")

            monkeypatch.setattr(one.journal, "read_witness", fail)
            await trained(one, 2)
            assert one.trained == steps(0, 1, 2)
        assert heard(one.events, ModelRestored) == []


async def test_a_plain_model_is_not_tested(autojump_clock: Any) -> None:
    """It has no witnesses, and nobody has promised anything about it."""
    faults = ServiceFaults().refuse(503, of="get_server_capabilities")
    async with opened(faults) as one:
        await trained(one, 0, 1)
        await interrupt(one)
        await trained(one, 2)
        assert one.service.count("forward", "get_training_run") == 0


@pytest.mark.requirement("R145")
async def test_a_model_that_the_service_calls_corrupted_is_made_again(autojump_clock: Any) -> None:
    """It is asked after an interruption; the new one is made of the latest saved state."""
    faults = ServiceFaults().refuse(503, of="get_server_capabilities")
    async with opened(faults, in_run=True) as one:
        await trained(one, 0)
        saved = await one.training.save_state("a")
        await trained(one, 1)
        old = one.training.model_id
        one.service.corrupt_model(old)
        await interrupt(one)
        await trained(one, 2)
        assert one.training.model_id != old
        assert one.trained == steps(0, 1, 2)
        [restored] = heard(one.events, ModelRestored)
        assert "corrupted" in restored.why
        assert restored.checkpoint == saved.path


@pytest.mark.requirement("R145")
@pytest.mark.parametrize("mode", MODES)
async def test_a_process_does_not_go_on_with_a_corrupted_model(autojump_clock: Any, mode: str) -> None:
    """It is asked before anything is sent."""
    world = World(mode)
    await world.leave_by_kill(loop(2))
    world.service.corrupt_model(world.model_id)

    async def second(process: Process) -> None:
        assert process.lineage.resumed is not None
        assert "corrupted" in process.lineage.resumed.why
        await loop(3)(process)

    assert await world.process(second)
    assert world.trained == steps(0, 1, 2)


@pytest.mark.parametrize("mode", MODES)
async def test_a_process_does_not_go_on_with_a_model_that_was_rolled_back(
    autojump_clock: Any, mode: str
) -> None:
    """The service was started again while nobody was there, and says nothing of it."""
    world = World(mode)
    await world.leave_by_kill(loop(3, save_after=(0,)))
    old = world.model_id
    world.service.restart(trio.current_time() + 1e6, "rolled_back")

    async def second(process: Process) -> None:
        assert process.training.model_id != old
        assert [event.model_id for event in heard(process.events, RollbackFound)] == [old]
        await loop(4)(process)

    assert await world.process(second)
    assert world.trained == steps(0, 1, 2, 3)


# --- what a restore brings back --------------------------------------------------------------------------------


async def test_a_restore_is_verified_by_the_two_steps_after_the_state(autojump_clock: Any) -> None:
    """The same restore is verified again by them, however often the model is lost."""
    async with opened(in_run=True) as one:
        await trained_and_saved(one, 1, 2)
        for _ in range(2):
            await one.lose_model()
            [verified] = heard(one.events, OptimizerUnverified, RestoreVerified)
            assert isinstance(verified, RestoreVerified)
            assert verified.apart == 0.0
        assert one.trained == steps(0, 1, 2)


@pytest.mark.parametrize("later", [(), (1,)])
async def test_a_restore_vouches_for_no_other_restore(autojump_clock: Any, later: tuple[int, ...]) -> None:
    """A service that loses the optimizer each time gives the same each time, so nothing is known of it."""
    async with opened(in_run=True, check_optimizer=False) as one:
        await trained_and_saved(one, *later)
        for token in (2, 3, 4):
            await one.lose_model()
            [unverified] = heard(one.events, OptimizerUnverified, RestoreVerified)
            assert isinstance(unverified, OptimizerUnverified)
            assert unverified.checkpoint is not None
            await trained(one, token)
        await one.training.save_state("b")  # of what follows this one, its own steps tell
        await trained(one, 5, 6)
        await one.lose_model()
        [verified] = heard(one.events, OptimizerUnverified, RestoreVerified)
        assert isinstance(verified, RestoreVerified)
        assert one.trained == steps(0, *later, 2, 3, 4, 5, 6)


async def test_what_a_restored_model_computes_is_compared_with_the_next_restore(autojump_clock: Any) -> None:
    """If that differs, one of both had not got the optimizer, and training must not go on from either."""
    async with opened(in_run=True) as one:
        await trained_and_saved(one)
        await one.lose_model()
        await trained(one, 1, 2)
        witnesses = [found for found in one.journal.witnesses() if found.checkpoint == one.journal.checkpoint]
        second = max(witnesses, key=lambda found: found.position)
        assert second.which == 2
        moved = second.logprobs + np.float32(0.5)
        one.journal._witnesses[second.position] = attrs.evolve(second, logprobs=moved)
        one.service.lose_model(one.training.model_id, trio.current_time())
        with pytest.raises(ModelPoisoned):
            await (await one.train(3)).optim
        assert heard(one.events, RestoreMismatchFound)[0].lost == "optimizer"


async def test_nothing_is_sent_again_to_a_model_that_was_set_back_while_it_was_read(
    autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A beat meets the restart while the end of a step comes from the disk: it is not applied without its gradient."""
    async with opened(in_run=True) as one:
        await trained_and_saved(one, 1)
        read = one.journal.read

        async def read_slowly(record: Any) -> Any:
            if record.operation.kind == "optim_step":
                await trio.sleep(30.0)
            return await read(record)

        monkeypatch.setattr(one.journal, "read", read_slowly)
        roll_back = partial(one.service.restart, trio.current_time(), "rolled_back")
        one.service.lose_model(one.training.model_id, trio.current_time())
        one.interrupt("load_weights", lambda: one.interrupt("session_heartbeat", roll_back))
        await (await one.training.forward(batch(9), "cross_entropy"))
        assert one.trained == steps(0, 1)
        assert one.service.count("optim_step") == 3


@pytest.mark.parametrize("mode", MODES)
async def test_a_result_that_lacks_what_is_sent_again_before_it_is_none(
    autojump_clock: Any, mode: str
) -> None:
    """A step fails when it is sent again, and is said to have failed only when the next one has computed without it."""
    faults = ServiceFaults(work=Fixed(1.0)).fail("400", of="optim_step", nth=3)
    async with opened(faults, mode, in_run=True) as one:
        await trained(one, 0)
        last = await one.train(1)
        await trio.sleep(0.5)
        one.service.lose_model(one.training.model_id, trio.current_time())
        output = await last.forward
        await last.optim
        assert heard(one.events, RestoreMismatchFound) == []
        assert one.trained == steps(0, 1)
        assert one.service.count("create_model") == 3
        [second] = [found for found in one.journal.witnesses() if found.which == 2]
        assert output.loss_fn_outputs[0]["logprobs"].data[0] == pytest.approx(second.logprobs[0])
        await one.lose_model()
        assert one.trained == steps(0, 1)


def lose_weights(one: Opened, path: str) -> None:
    """Have a saved state hold nothing of what was saved."""
    states = one.service._state.checkpoints
    states[path] = attrs.evolve(states[path], applied=())


async def test_an_older_state_is_tried_if_the_newest_has_lost_its_weights(autojump_clock: Any) -> None:
    """What came after the older one is sent again, the steps before the newest included."""
    async with opened(in_run=True) as one:
        await trained(one, 0)
        first = (await one.training.save_state("a")).path
        await trained(one, 1)
        second = (await one.training.save_state("b")).path
        await trained(one, 2, 3)
        lose_weights(one, second)
        await one.lose_model()
        [found] = heard(one.events, RestoreMismatchFound)
        assert (found.lost, found.checkpoint) == ("weights", second)
        checkpoint = one.journal.checkpoint
        assert checkpoint is not None
        assert checkpoint.path == first
        assert one.trained == steps(0, 1, 2, 3)


async def test_a_model_is_given_up_if_no_state_brings_it_back(autojump_clock: Any) -> None:
    """Training would go on from something that nobody has trained: the error says what is missing."""
    async with opened(in_run=True) as one:
        await trained(one, 0)
        first = (await one.training.save_state("a")).path
        await trained(one, 1)
        second = (await one.training.save_state("b")).path
        await trained(one, 2, 3)
        lose_weights(one, first)
        lose_weights(one, second)
        one.service.lose_model(one.training.model_id, trio.current_time())
        with pytest.raises(ModelPoisoned) as caught:
            await (await one.train(4)).optim
        assert isinstance(caught.value.__cause__, RestoreMismatch)
        assert caught.value.__cause__.lost == "weights"


@pytest.mark.parametrize("noise", [None, 0.2])
async def test_a_lost_optimizer_shows_in_the_second_step(autojump_clock: Any, noise: float | None) -> None:
    """The first step computes the same, for the weights are there; a service with more noise is allowed it."""
    async with opened(in_run=True, noise=noise) as one:
        await trained_and_saved(one, 1, 2)
        [second] = [
            one_of
            for one_of in one.journal.witnesses()
            if one_of.which == 2 and one_of.checkpoint == one.journal.checkpoint
        ]
        moved = second.logprobs + np.float32(0.5)
        one.journal._witnesses[second.position] = attrs.evolve(second, logprobs=moved)
        one.service.lose_model(one.training.model_id, trio.current_time())
        if noise is not None:
            await trained(one, 3)
            assert one.trained == steps(0, 1, 2, 3)
            return
        with pytest.raises(ModelPoisoned):
            await (await one.train(3)).optim
        assert heard(one.events, RestoreMismatchFound)[0].lost == "optimizer"
