"""Processes that go on with the model of one that was killed, or restore it: every step is trained once."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio

from tests.actors.disk import DiskJournal
from tests.actors.processes import GOOD, Process, World, decision, loop, train
from tests.actors.scripted import ADAM, MODES, batch, heard, steps
from tinker_actors.actors.lineage import Resumed
from tinker_actors.actors.message import OptimStep
from tinker_actors.errors import RateLimitError
from tinker_actors.events import ModelRestored, Reattached
from tinker_actors.testing import Fixed, ScriptedService, ServiceFaults


@pytest.mark.parametrize("mode", MODES)
async def test_a_process_goes_on_with_the_very_same_model(autojump_clock: Any, mode: str) -> None:
    """With everything done, nothing is sent again: same session, same model, next number."""
    world = World(mode)
    await world.leave_by_kill(loop(2))
    before = world.model_id

    async def second(process: Process) -> None:
        assert process.training.model_id == before
        assert process.lineage.resumed == Resumed(how="attached")
        assert heard(process.events, Reattached) == [Reattached(before, 0, 0)]
        await loop(4)(process)

    assert await world.process(second)
    assert world.model_id == before
    assert world.trained == steps(0, 1, 2, 3)
    assert world.service.sessions == ()
    assert world.service.count("create_session", "create_model") == 2


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("when", ["before", "after"])
async def test_every_step_is_trained_once_wherever_a_process_dies(
    autojump_clock: Any, mode: str, when: Any
) -> None:
    """Before any request, and after the service took it: the weights are those of a run that never died."""
    faults = ServiceFaults().delay(0.2, of=("forward_backward", "optim_step"), nth=None)
    untouched = World(mode, faults)
    assert await untouched.process(loop(3, save_after=(1,)))
    attached = 0  # often enough to be no accident
    for point in range(1, untouched.requests + 1):
        world = World(mode, faults)
        if await world.process(loop(3, save_after=(1,)), (point, when)):
            continue  # it had fewer polls to make
        results: list[Resumed | None] = []
        had_model = world.journal.model is not None

        async def second(process: Process, results: Any = results) -> None:
            results.append(process.lineage.resumed)
            await loop(3, save_after=(1,) if len(process.journal.decisions) < 2 else ())(process)

        assert await world.process(second), point
        assert world.trained == steps(0, 1, 2), (point, results)
        assert (results[0] is not None) == had_model, (
            "it says how it went on, also if it could not attach after all"
        )
        attached += results[0] is not None and results[0].how == "attached"
    assert attached > 5


async def resumed_after(world: World, steps_in_all: int = 4) -> Resumed:
    """Run the next process to its end and return how it went on."""
    results: list[Resumed] = []

    async def body(process: Process) -> None:
        assert process.lineage.resumed is not None
        results.append(process.lineage.resumed)
        restored = heard(process.events, ModelRestored)
        assert [event.why for event in restored] == ([results[0].why] if results[0].how == "restored" else [])
        await loop(steps_in_all)(process)

    assert await world.process(body)
    return results[0]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"same_machine": False}, "another machine"),
        ({"gap": 80.0}, "stood still"),
        (None, "nothing is known"),
    ],
)
async def test_a_model_is_restored_if_the_run_cannot_vouch_for_it(
    autojump_clock: Any, change: dict[str, Any] | None, why: str
) -> None:
    """The steps since the newest saved state are sent again, to a new model, and the old one gives its slot back."""
    world = World()
    await world.leave_by_kill(loop(3, save_after=(1,)))
    old = world.model_id
    world.resumption = None if change is None else attrs.evolve(GOOD, **change)
    resumed = await resumed_after(world)
    assert (resumed.how, resumed.steps) == ("restored", 1)
    assert resumed.checkpoint is not None
    assert why in resumed.why
    assert world.model_id != old
    assert old not in world.service.models
    assert world.trained == steps(0, 1, 2, 3)


@pytest.mark.parametrize(("says", "gap", "how"), [(50.0, 45.0, "restored"), (1000.0, 700.0, "attached")])
async def test_the_time_that_counts_is_the_services_own_if_it_says_it(
    autojump_clock: Any, says: float, gap: float, how: str
) -> None:
    """It is asked when the next process opens it, before anything is decided."""
    world = World()
    world.service = ScriptedService(dialect=MODES["replay"], flags={"session_timeout": says})
    await world.leave_by_kill(loop(3, save_after=(1,)))
    world.resumption = attrs.evolve(GOOD, gap=gap)
    assert (await resumed_after(world)).how == how
    assert world.trained == steps(0, 1, 2, 3)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("loss", ["model", "session", "restart"])
async def test_a_model_that_is_gone_meanwhile_is_restored(autojump_clock: Any, mode: str, loss: str) -> None:
    """Whether it alone, its session or the whole service has gone while nobody was there."""
    world = World(mode)
    await world.leave_by_kill(loop(3, save_after=(1,)))
    if loss == "model":
        world.service.lose_model(world.model_id, trio.current_time() + 1e6)
    elif loss == "session":
        world.service.lose_session("session-0", trio.current_time() + 1e6)
    else:
        world.service.restart(trio.current_time() + 1e6)
    resumed = await resumed_after(world)
    assert resumed.how == "restored"
    assert world.trained == steps(0, 1, 2, 3)


@pytest.mark.parametrize("mode", MODES)
async def test_a_gradient_of_a_step_that_was_not_decided_is_left_behind(
    autojump_clock: Any, mode: str
) -> None:
    """The loop takes that step from its begin, with another batch perhaps; the old model carries a part of it."""
    world = World(mode)

    async def first(process: Process) -> None:
        await loop(1, save_after=(0,))(process)
        await (await process.training.forward_backward(batch(1), "cross_entropy"))

    await world.leave_by_kill(first)

    async def second(process: Process) -> None:
        assert process.lineage.resumed is not None
        assert "not decided" in process.lineage.resumed.why
        await process.training.forward_backward(batch(7), "cross_entropy")
        await (await process.training.submit(OptimStep(ADAM, decision=decision(1))))

    assert await world.process(second)
    assert world.trained == steps(0, 7)


async def test_what_nobody_waits_for_any_more_is_not_sent_to_a_new_model(autojump_clock: Any) -> None:
    """A forward pass and weights to sample from that had no result: they were for a process that is gone."""
    world = World(faults=ServiceFaults(work=Fixed(20.0)))

    async def first(process: Process) -> None:
        await train(process, 0)
        await process.training.forward(batch(0), "cross_entropy")
        await trio.sleep(2.0)

    await world.leave_by_kill(first)
    world.resumption = None
    forwards = world.service.count("forward")
    resumed = await resumed_after(world, steps_in_all=1)
    assert resumed.how == "restored"
    assert world.service.count("forward") == forwards + 1  # that of the second process
    assert world.trained == steps(0)


async def test_a_process_that_died_while_it_restored_restores_again(autojump_clock: Any) -> None:
    """A model that has not got all that came before is nobody's to go on with, however far it came."""
    world = World()
    await world.leave_by_kill(loop(3))
    world.resumption = None
    for point in (6, 8, 10):
        assert not await world.process(loop(3), (point, "after"))
        assert not is_live(world)
        world.resumption = GOOD
    resumed = await resumed_after(world)
    assert "being restored" in resumed.why
    assert world.trained == steps(0, 1, 2, 3)


def is_live(world: World) -> bool:
    return world.journal.live


@pytest.mark.parametrize("point", range(1, 7))
async def test_a_gradient_is_left_behind_also_if_the_restore_is_cut_short(
    autojump_clock: Any, point: int
) -> None:
    """It is forgotten only when there is a new model: the process after that would go on with the one that has it."""
    world = World(lacks=frozenset({"unload_model"}))

    async def first(process: Process) -> None:
        await loop(1)(process)
        await (await process.training.forward_backward(batch(9), "cross_entropy"))

    await world.leave_by_kill(first)
    await world.process(loop(3), (point, "after"))
    assert (await resumed_after(world)).how == "restored"
    assert world.trained == steps(0, 1, 2, 3)


async def test_no_number_of_a_session_is_used_twice(autojump_clock: Any) -> None:
    """Models and samplers of each process are counted from another thousand, as some services have one session only."""
    world = World()
    await world.leave_by_kill(loop(1))
    first = world.model_id
    world.resumption = None
    await resumed_after(world)
    assert (first, world.model_id) == ("session-0:train:0", "session-0:train:10000")


async def test_a_process_waits_for_a_service_that_is_away_when_it_begins(autojump_clock: Any) -> None:
    """It has work to go on with, so an absent service is a state and no failure."""
    world = World(faults=ServiceFaults().refuse(503, start=5.0, end=60.0))
    await world.leave_by_kill(loop(2))
    await trio.sleep(10.0)
    resumed = await resumed_after(world)
    assert resumed.how == "attached"
    assert world.trained == steps(0, 1, 2, 3)
    assert trio.current_time() > 60.0


def slow_reads(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Have operations of a kind take their time to come from the disk."""
    read = DiskJournal.read

    async def read_slowly(journal: DiskJournal, record: Any) -> Any:
        if record.operation.kind == kind:
            await trio.sleep(30.0)
        return await read(journal, record)

    monkeypatch.setattr(DiskJournal, "read", read_slowly)


@pytest.mark.parametrize("failing", [1, 2])
@pytest.mark.parametrize("doubt", [False, True])
@pytest.mark.parametrize("mode", ["replay", "reject", "none"])
async def test_the_end_of_a_step_is_not_sent_if_its_gradient_fails_while_it_is_read(
    autojump_clock: Any, monkeypatch: pytest.MonkeyPatch, mode: str, doubt: bool, failing: int
) -> None:
    """It would be a step of the momentum alone, or of a part of the gradient; a new model has all of it or nothing."""
    # A number that comes too early fails the other gradient as well, and so says nothing of the first; and where a
    # request in doubt would be carried out again, nothing is taken up.
    whole = (mode == "reject" and failing == 1) or (mode == "none" and doubt)
    faults = ServiceFaults(work=Fixed(5.0)).fail(of="forward_backward", nth=failing, text="out of memory")
    if doubt:
        faults = faults.delay(8.0, of="optim_step", nth=1)
    world = World(mode, faults)

    async def first(process: Process) -> None:
        for token in range(2):
            await process.training.forward_backward(batch(token), "cross_entropy")
        await process.training.submit(OptimStep(ADAM, decision=decision(0)))
        await trio.sleep(2.0)

    await world.leave_by_kill(first)
    old = world.model_id
    slow_reads(monkeypatch, "optim_step")
    await resumed_after(world, 2)
    assert world.model_id != old
    assert world.trained == [*(steps(0)[:1] + steps(1) if whole else []), *steps(1)]


@pytest.mark.parametrize("mode", MODES)
async def test_a_gradient_that_was_done_before_is_left_behind_with_its_step(
    autojump_clock: Any, mode: str
) -> None:
    """The process that waited for it is gone; another part of its step fails, and nothing of it may be stepped with."""
    faults = ServiceFaults(work=Fixed(5.0)).fail(of="forward_backward", nth=2, text="out of memory")
    world = World(mode, faults)

    async def first(process: Process) -> None:
        await (await process.training.forward_backward(batch(0), "cross_entropy"))
        await process.training.forward_backward(batch(1), "cross_entropy")
        await process.training.submit(OptimStep(ADAM, decision=decision(0)))
        await trio.sleep(2.0)

    await world.leave_by_kill(first)
    old = world.model_id
    await resumed_after(world, 2)
    assert world.model_id != old
    assert world.trained == steps(1)


async def check_that_it_is_attached(world: World) -> None:
    """Check that a process goes on with the model of one that was killed ten seconds ago."""
    await world.leave_by_kill(loop(2))
    old = world.model_id
    await trio.sleep_until(trio.current_time() + 10.0)
    resumed = await resumed_after(world)
    assert resumed.how == "attached"
    assert world.model_id == old
    assert world.trained == steps(0, 1, 2, 3)


@pytest.mark.parametrize("of", ["session_heartbeat", "get_session"])
@pytest.mark.parametrize("wait", [None, 7.0])
async def test_a_session_is_not_taken_for_ended_by_a_service_that_is_busy(
    autojump_clock: Any, of: str, wait: float | None
) -> None:
    """A 429 says nothing of the session, so it is asked again when the service wants it."""
    faults = ServiceFaults().refuse(429, of=of, start=5.0, end=40.0, nth=None, retry_after=wait)
    if of == "get_session":  # then a beat alone says nothing
        faults = faults.refuse(500, of="session_heartbeat", start=5.0, nth=None)
    await check_that_it_is_attached(World(faults=faults))


@pytest.mark.parametrize("status", [408, 502, 503, 504, 522])
async def test_a_session_is_not_taken_for_ended_by_a_proxy(autojump_clock: Any, status: int) -> None:
    """It answers for a service that it does not reach, to a beat and to the question for the session."""
    faults = ServiceFaults()
    for of in ("session_heartbeat", "get_session"):
        faults = faults.refuse(status, of=of, start=5.0, end=40.0, nth=None)
    await check_that_it_is_attached(World(faults=faults))


async def test_a_service_that_stays_busy_says_so_to_who_goes_on_with_a_session(autojump_clock: Any) -> None:
    """It is not asked for ever, as with any other call."""
    faults = ServiceFaults().refuse(429, of="session_heartbeat", start=5.0, nth=None)
    world = World(faults=faults)
    await world.leave_by_kill(loop(2))
    await trio.sleep(10.0)
    with pytest.raises(RateLimitError):
        await world.process(loop(3))
    assert world.trained == steps(0, 1)
