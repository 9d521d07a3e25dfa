"""Exactly once, wherever a process dies: runs are crashed at every I/O point, on every kind of service."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from tinker_actors.errors import ResultLost
from tinker_actors.protocol.checkpoint_policy import CheckpointPolicy
from tinker_actors.testing import Exponential, Fixed, ServiceFaults
from tinker_actors.testing.crash import RunOptions, explore
from tinker_actors.testing.crash.fixture import CrashPoints
from tinker_actors.types import AdamParams, Datum, ModelInput, SamplingParams

STEPS = 5
MOST = 10_000  # more points than any of these loops has: all of them
RUN: RunOptions = {"rank": 8, "checkpoints": CheckpointPolicy(steps=2), "seed": 7}
CHUNKS = {"fwdbwd_max_chunk_len": 1}
WORLDS: dict[str, dict[str, Any]] = {
    f"{dedupe}, session {session}": {"dedupe": dedupe, "session": session}
    for dedupe in ("replay", "reject", "none")
    for session in ("kept", "lost")
} | {
    f"{dedupe}, rolled back": {"dedupe": dedupe, "rollback": True} for dedupe in ("replay", "reject", "none")
}


def adam(step: int) -> AdamParams:
    """Return parameters that no other step has."""
    return AdamParams(learning_rate=1e-3 * (step + 1))


def batch(*tokens: int) -> list[Datum]:
    """Make a batch with one datum for each token."""
    return [
        Datum(ModelInput.from_ints([token, 1]), {"target_tokens": [token, 1], "weights": [1.0, 1.0]})
        for token in tokens
    ]


async def trained(run: Any) -> None:
    """Train whole steps; batches go out in two requests."""
    async for step in run.steps(STEPS):
        at = run.loop_state or 0
        assert at == step.index
        await step.train(batch(at, 20 + at), "cross_entropy", adam(at), after=at + 1)


async def least(run: Any) -> None:
    """Train one step: whatever a run does happens once, so that all pairs can be tried."""
    async for step in run.steps(1):
        at = run.loop_state or 0
        await step.train(batch(at), "cross_entropy", adam(at), after=at + 1)


async def composed(run: Any, *lost: type[Exception]) -> None:
    """Put steps together of single operations, skip one, wait for results, and save in between.

    Args:
        run: the run.
        lost: what of a result does not end the loop.
    """
    async for step in run.steps(STEPS):
        at = run.loop_state or 0
        if at == 1:
            await step.skip(after=at + 1)
            continue
        first = await step.forward_backward(batch(at), "cross_entropy")
        second = await step.forward_backward(batch(20 + at), "cross_entropy")
        done = await step.optim_step(adam(at), after=at + 1)
        for pending in (first, second, done):
            with contextlib.suppress(*lost):
                await pending
        if at == 3:
            await run.checkpoint(pin=True)


async def sampled(run: Any) -> None:
    """Sample from each policy, and train on what came out: the batch follows from the weights."""
    async for step in run.steps(STEPS):
        at = run.loop_state or 0
        sampling = await run.training.save_weights_and_get_sampling_client()
        reply = await sampling.sample(ModelInput.from_ints([1, at]), 1, SamplingParams(max_tokens=2, seed=at))
        tokens = reply.sequences[0].tokens
        await step.train(batch(*tokens), "cross_entropy", adam(at), after=at + 1)


async def patient(run: Any) -> None:
    """Do without results that are lost."""
    await composed(run, ResultLost)


LOOPS = {"whole steps": trained, "single operations": composed, "samples": sampled}
# Where numbers are refused, what was carried out and not answered has no result: a loop that waits for it has to do
# without it, or ends there.
DYING: dict[str, tuple[Any, dict[str, Any]]] = {
    f"{dedupe}, {'rolled back' if rollback else 'unloaded'}, {name}": (
        patient if dedupe == "reject" and loop is composed else loop,
        {"dies": "service", "dedupe": dedupe, "rollback": rollback},
    )
    for dedupe in ("replay", "reject", "none")
    for rollback in (True, False)
    for name, loop in LOOPS.items()
}


@pytest.mark.parametrize("world", WORLDS)
def test_a_run_survives_a_crash(world: str) -> None:
    """A few points of each kind of service: the model holds each decided step once, and the loop goes on behind it."""
    for seed, loop in enumerate((trained, composed)):
        explore(loop, run=RUN, flags=CHUNKS, sample=4, seed=seed, **WORLDS[world]).check()


def test_gradients_are_missed_that_no_result_tells_of() -> None:
    """A model that is set back to the very same weights between two gradients of a step has lost the first."""
    report = explore(composed, run=RUN, only=[], dies="service")
    sent = [point for point in report.points if point.where == "request"]
    saves = [at for at, point in enumerate(sent) if point.what == "save_weights"]
    _, second, *_ = [point for point in sent[saves[1] :] if point.what == "forward_backward"]
    index = sum(point.where in ("request", "answer") for point in report.points[: second.index])
    for dedupe in ("replay", "none"):
        explore(composed, run=RUN, only=[(index,)], dies="service", rollback=True, dedupe=dedupe).check()


def test_results_do_not_wait_for_the_test_that_waits_for_them() -> None:
    """A gradient that becomes the first behind a saved state, while a rollback is looked for, lets that go on."""
    faults = ServiceFaults(work=Exponential(2.0)).drop("connect", of="save_weights", nth=5)
    run: RunOptions = {**RUN, "checkpoints": CheckpointPolicy(steps=3)}
    options: dict[str, Any] = {"dedupe": "none", "faults": faults, "dies": "service", "seed": 125}
    explore(trained, run=run, only=[(24, 63)], **options).check()


def test_a_model_that_is_lost_while_a_rollback_is_looked_for_is_made_again() -> None:
    """What computes witnesses takes a model that is gone for what it is, and not for one that cannot say."""
    faults = ServiceFaults(latency=Fixed(0.05)).delay(0.5, of="save_weights")
    run: RunOptions = {**RUN, "checkpoints": CheckpointPolicy(steps=2)}
    options: dict[str, Any] = {"faults": faults, "dies": "service", "session": "lost", "seed": 228}
    explore(sampled, run=run, flags=CHUNKS, only=[(68,)], **options).check()


def test_a_result_that_is_lost_ends_no_run() -> None:
    """Where a service refuses what it has carried out, it is in the weights; who asks is told, and may go on."""
    faults = ServiceFaults(work=Fixed(1.0)).drop("answer", of="forward_backward", nth=1)
    report = explore(trained, run=RUN, dedupe="reject", faults=faults, only=[])
    assert len(report.expected.steps) == STEPS
    faults = ServiceFaults(work=Fixed(1.0)).drop("answer", of="forward_backward", nth=5)
    with pytest.raises(ResultLost):
        explore(composed, run=RUN, dedupe="reject", faults=faults, only=[])
    again = explore(patient, run=RUN, dedupe="reject", faults=faults, only=[])
    assert again.expected == explore(composed, run=RUN, dedupe="reject", only=[]).expected


def test_a_gradient_whose_result_is_lost_may_be_lost_itself() -> None:
    """It was carried out, then the model was set back: a refused repetition does not say that it is still there."""
    options: dict[str, Any] = {"dies": "service", "dedupe": "reject", "rollback": True}
    report = explore(patient, run=RUN, flags=CHUNKS, only=[], **options)
    wire = [point for point in report.points if point.where in ("request", "answer")]
    lost = [
        at for at, point in enumerate(wire, 1) if (point.what, point.where) == ("forward_backward", "answer")
    ]
    assert len(lost) >= STEPS
    explore(patient, run=RUN, flags=CHUNKS, only=[(at,) for at in lost], **options).check()


def test_a_model_that_is_set_back_while_it_is_restored_is_made_again() -> None:
    """When its state was loaded, and when its first gradient was sent again: no answer says that both are gone."""
    loop, options = DYING["reject, rolled back, single operations"]
    explore(loop, run=RUN, flags=CHUNKS, only=[(65, 16), (65, 18), (65, 21)], **options).check()


def test_gradients_are_missed_behind_a_state_that_does_not_count_yet() -> None:
    """Its result is there, and waits until a rollback was looked for; the model is set back to it meanwhile."""
    for dedupe in ("replay", "none"):
        loop, options = DYING[f"{dedupe}, rolled back, single operations"]
        explore(loop, run=RUN, flags=CHUNKS, only=[(36, 12)], **options).check()


@pytest.mark.parametrize("world", DYING)
def test_a_run_outlives_its_service(world: str) -> None:
    """The service dies and comes back, and whoever was sending loses the connection: a few points of each kind."""
    loop, options = DYING[world]
    explore(loop, run=RUN, flags=CHUNKS, sample=3, seed=len(world), **options).check()


@pytest.mark.slow
@pytest.mark.parametrize("world", DYING)
def test_a_run_outlives_its_service_anywhere(world: str, slow_count: Callable[[int], int]) -> None:
    """The same at every point, and at pairs of points."""
    loop, options = DYING[world]
    explore(loop, run=RUN, flags=CHUNKS, sample=slow_count(MOST), **options).check()
    explore(loop, run=RUN, flags=CHUNKS, sample=slow_count(25), double=True, **options).check()


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("world", WORLDS)
def test_a_run_survives_a_crash_anywhere(world: str, loop: str, slow_count: Callable[[int], int]) -> None:
    """The same at every point there is, and at a part of those of the loop that samples: 3,900 schedules in all."""
    count = slow_count(60 if loop == "samples" else MOST)
    explore(LOOPS[loop], run=RUN, flags=CHUNKS, sample=count, **WORLDS[world]).check()


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("world", WORLDS)
def test_a_run_survives_two_crashes(world: str, loop: str, slow_count: Callable[[int], int]) -> None:
    """The life that comes after a crash may crash as well, at every point of its own: 675 pairs are drawn."""
    count = slow_count(25)
    explore(LOOPS[loop], run=RUN, flags=CHUNKS, double=True, sample=count, **WORLDS[world]).check()


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS)
def test_a_run_of_one_step_survives_any_two_crashes(
    world: str, crash_points: CrashPoints, slow_count: Callable[[int], int]
) -> None:
    """With `--crash-points` every pair of the smallest run, but of crashes that leave the same one; else 200 pairs."""
    options: dict[str, Any] = {"double": True, "distinct": True, "sample": slow_count(200), **WORLDS[world]}
    crash_points.explore(least, run=RUN, **options)
