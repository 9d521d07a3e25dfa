"""The explorer by itself: it finds wrong loops guilty and acquits a right one."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import trio

from tinker_actors.testing.crash import Ended, Life, explore_lives


@pytest.mark.slow
@pytest.mark.parametrize("dedupe", ["replay", "reject", "none"])
@pytest.mark.parametrize("session", ["kept", "lost"])
def test_a_right_loop_passes_at_every_point(loops, dedupe, session, slow_count: Callable[[int], int]) -> None:
    """A loop that saves after each step, when it is done, ends as if nothing had happened, wherever it crashes."""
    most = slow_count(1000)
    report = explore_lives(loops.honest, dedupe=dedupe, session=session, sample=most)
    report.check()
    assert len(report.points) > 60
    assert report.schedules == min(most, len(report.points))
    assert len(report.expected.steps) == loops.steps


def test_the_rule_that_saves_behind_the_next_batch_doubles_steps(loops) -> None:
    """A checkpoint that holds one step more than its label says makes a resumed run train that step again."""
    report = explore_lives(loops.cookbook, sample=20)
    assert not report.passed
    assert any("step 2 doubled" in failure.what for failure in report.failures)
    with pytest.raises(
        AssertionError, match=r"of 20 schedules do not end as the uninterrupted run:\n  crashed at"
    ):
        report.check()


def test_half_a_line_is_found(loops) -> None:
    """A crash in the middle of a line leaves half of it, and a loop that cannot read that is told of."""
    whole = explore_lives(loops.cookbook, only=[])
    (torn, *_) = [point for point in whole.points if point.where == "torn"]
    (failure,) = explore_lives(loops.cookbook, only=[(torn.index,)]).failures
    assert "life 2 raised ValueError" in failure.what
    assert isinstance(failure.error, ValueError)
    assert str(failure).startswith(f"crashed at point {torn.index}, halfway through checkpoints grows: ")


def test_a_loop_that_begins_anew_misses_steps(loops) -> None:
    """What the first life trained is in a model that the second does not have."""
    report = explore_lives(loops.forgetful, sample=20)
    missing = [failure.what for failure in report.failures if "missing" in failure.what]
    assert any(re.search(r"steps? 1(, 2)?.* missing", what) for what in missing)


def test_the_second_life_crashes_too(loops) -> None:
    """Pairs of points: one of the first life, and one of those that the second life has after it."""
    report = explore_lives(loops.honest, double=True, sample=5, seed=3)
    report.check()
    assert 5 < report.schedules <= 10  # each pair, and the single crash that says how long the second life is


def test_the_same_seed_draws_the_same(loops) -> None:
    """A sample can be repeated."""
    first, again = (explore_lives(loops.cookbook, sample=6, seed=5) for _ in range(2))
    assert [failure.schedule for failure in first.failures] == [
        failure.schedule for failure in again.failures
    ]
    assert [str(failure) for failure in first.failures] == [str(failure) for failure in again.failures]


def test_nothing_of_a_dead_life_reaches_anybody(loops) -> None:
    """After a crash no request arrives and nothing is written, not even what a loop does to clean up."""
    seen = []

    async def program(life) -> Ended:
        try:
            return await loops.honest(life)
        finally:
            seen.append((life.number, len(life.service.requests), life.service.models))
            try:
                life.files.append("goodbye", b"!")
            finally:
                seen.append((life.number, life.files.read("goodbye")))

    explore_lives(program, only=[(30,)]).check()
    _, _, (number, sent, models), (_, goodbye), (second, later, _), _ = seen
    assert (number, second, goodbye) == (1, 2, b"")
    assert models != ()  # it was not unloaded
    assert sent < 30 < later


def test_a_rollback_is_one_of_the_worlds(loops) -> None:
    """With each life the service dies as well; it comes back with its checkpoints, and the honest loop goes on."""
    explore_lives(loops.honest, rollback=True, sample=8).check()


def test_a_programme_that_fails_by_itself_is_not_explored(loops) -> None:
    """What it raises without a crash is its own affair."""

    async def program(life) -> Ended:
        async with life.open_service():
            raise LookupError

    with pytest.raises(LookupError):
        explore_lives(program)


def test_a_life_that_hangs_is_found(loops) -> None:
    """A second life that waits for ever, or that sends for ever, is a failure, not a hang of the test."""
    for waits in (True, False):
        (failure,) = explore_lives(_stuck(waits=waits), only=[(9,)]).failures
        assert ("hangs" if waits else "on and on") in failure.what


def _stuck(*, waits: bool):
    async def program(life) -> Ended:
        async with life.open_service() as service:
            training = await service.create_lora_training_client("scripted/model")
            while life.number > 1:
                if waits:
                    await trio.sleep_forever()
                await service.health_check()
            return Ended(training.model_id)

    return program


def test_points_at_which_a_crash_leaves_the_same_are_told_by_their_changes(loops, tmp_path) -> None:
    """Between points with as many changes, the files and what the service holds stay as they are."""
    left: dict[int, set[object]] = {}

    async def program(life: Life) -> Ended:
        reach = life.fuse.reach

        def look(where, what) -> None:
            reach(where, what)
            files = [
                (str(path), path.read_bytes()) for path in sorted(life.directory.rglob("*")) if path.is_file()
            ]
            service = life.service
            state = (service.trained, service.models, service.sessions, service.checkpoints, service.samplers)
            left.setdefault(life.fuse.points[-1].changes, set()).add(repr((files, state)))

        life.fuse.reach = look
        async with life.open_run(rank=8, seed=7) as run:
            async for step in run.steps(2):
                await step.train(loops.batch(step.index), "cross_entropy", loops.adam, after=step.index)
        return Ended(run.training.model_id, run.loop_state)

    report = explore_lives(program, only=[])
    assert [len(states) for states in left.values()] == [1] * len(left)
    assert len(report.points) > 60 > len(left) > 30


def test_only_distinct_crashes_are_tried_if_so_asked(loops) -> None:
    """Of points in a row that leave the same only the first is tried."""
    report = explore_lives(loops.honest, distinct=True)
    report.check()
    assert report.schedules == len({point.changes for point in report.points}) < len(report.points) / 2
