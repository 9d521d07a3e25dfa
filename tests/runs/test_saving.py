"""The checkpoints of a run: when they are saved, what is known of them, and which stay."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.runs.loop import ADAM, NEVER, Left, batch, embedded, opened
from tinker_actors import CheckpointPolicy, Retention, Run, open_rest_client
from tinker_actors.errors import InputError, JournalFull, TinkerError
from tinker_actors.protocol.retention import RunCheckpoint

HOUR = 3600.0


async def train(run: Run, total: int, *, pause: float = 0.0) -> None:
    """Train up to a step."""
    async for step in run.steps(total):
        await (await step.train(batch(step.index), "cross_entropy", ADAM, after=step.index))
        await trio.sleep(pause)


def known(run: Run) -> dict[int, str]:
    """Return the state of each checkpoint by its step."""
    return {one.step: one.state for one in run.checkpoints}


async def listed(folder: Path) -> set[str]:
    """Return the names of what the run's service has."""
    async with open_rest_client(embedded=embedded(folder), heartbeat="loop") as rest:
        return {one.checkpoint_id.partition("/")[2] async for one in rest.user_checkpoints()}


async def test_the_first_checkpoint_holds_no_step(autojump_clock: Any, tmp_path: Path) -> None:
    """It is there before anything is trained, and called after the run."""
    async with opened(tmp_path / "addition") as run:
        await trio.sleep(1)
        [one] = run.checkpoints
        assert (one.name, one.step, one.state) == ("addition-000000", 0, "verified")


@pytest.mark.lesson("W8")
@pytest.mark.parametrize(
    ("policy", "steps"),
    [
        (CheckpointPolicy(steps=2, seconds=None), [0, 2, 4, 5]),
        (CheckpointPolicy(steps=None, seconds=25), [0, 3, 5]),
        (CheckpointPolicy(steps=None, seconds=None, tokens=30), [0, 3, 5]),
        (NEVER, [0, 5]),
    ],
)
async def test_they_are_saved_as_the_policy_says(
    autojump_clock: Any, tmp_path: Path, policy: CheckpointPolicy, steps: list[int]
) -> None:
    """By steps, by seconds, by tokens; and the last one when the run is left."""
    async with opened(tmp_path, checkpoints=policy, retention=Retention(last=99)) as run:
        await train(run, 5, pause=10.0)
    async with opened(tmp_path) as run:
        assert list(known(run)) == steps
        assert set(known(run).values()) == {"verified"}


async def test_nothing_is_saved_twice(autojump_clock: Any, tmp_path: Path) -> None:
    """A run that has nothing new saves nothing when it is left, and gives the checkpoint that holds it all."""
    async with opened(tmp_path) as run:
        await train(run, 2)
        one = await run.checkpoint()
        assert await run.checkpoint(metric=0.5) == run.checkpoints[-1]
        assert run.checkpoints[-1].metric == 0.5
        assert run.checkpoints[-1].name == one.name
    async with opened(tmp_path) as run:
        assert list(known(run)) == [0, 2]


async def test_those_who_save_at_once_save_one(autojump_clock: Any, tmp_path: Path) -> None:
    """All of them wait for the same checkpoint, and what each says of it is noted."""
    saved: list[RunCheckpoint] = []
    async with opened(tmp_path / "r") as run:
        await train(run, 1)

        async def save(metric: float | None, pin: bool) -> None:
            saved.append(await run.checkpoint(metric=metric, pin=pin))

        async with trio.open_nursery() as nursery:
            for metric, pin in ((0.5, False), (None, True), (None, False)):
                nursery.start_soon(save, metric, pin)
        assert [one.name for one in saved] == ["r-000001"] * 3
        assert [one.step for one in run.checkpoints] == [0, 1]
        assert (run.checkpoints[-1].metric, run.checkpoints[-1].pinned) == (0.5, True)


async def test_a_checkpoint_is_a_barrier(autojump_clock: Any, tmp_path: Path) -> None:
    """It holds exactly the steps before it, however many are in line behind it meanwhile."""
    saved: list[RunCheckpoint] = []
    async with opened(tmp_path) as run, trio.open_nursery() as nursery:

        async def save() -> None:
            saved.append(await run.checkpoint(metric=1.0, pin=True))

        async for step in run.steps(4):
            await step.train(batch(step.index), "cross_entropy", ADAM, after=step.index)
            if step.index == 1:
                nursery.start_soon(save)
                await trio.testing.wait_all_tasks_blocked()
    assert [(one.step, one.metric, one.pinned, one.state) for one in saved] == [(2, 1.0, True, "verified")]


async def test_a_name_counts_the_steps_that_are_saved(autojump_clock: Any, tmp_path: Path) -> None:
    """Also if one is in line and not decided yet when somebody else saves; and nothing is saved twice then."""
    for ticks in range(12):
        async with opened(tmp_path / f"{ticks}" / "r") as run:
            async for step in run.steps(2):
                async with trio.open_nursery() as nursery:
                    train = partial(step.train, batch(step.index), "cross_entropy", ADAM, after=step.index)
                    nursery.start_soon(train)
                    for _ in range(ticks if step.index else 0):
                        await trio.lowlevel.checkpoint()
                    if step.index:
                        nursery.start_soon(run.checkpoint)
        async with opened(tmp_path / f"{ticks}" / "r") as run:
            seen = [(one.name, one.step) for one in run.checkpoints]
            assert seen[-1] == ("r-000002", 2)
            assert set(seen) <= {("r-000000", 0), ("r-000001", 1), ("r-000002", 2)}


@pytest.mark.lesson("W8")
async def test_the_rest_is_given_a_time_to_live(autojump_clock: Any, tmp_path: Path) -> None:
    """The two newest have none; what is pinned afterwards has none again."""
    retention = Retention(ttl_seconds=7200)
    policy = CheckpointPolicy(steps=1)
    async with opened(tmp_path, checkpoints=policy, retention=retention) as run:
        await train(run, 4, pause=1.0)
        await run.checkpoint()
        ends = {one.step: one.ttl_seconds or None for one in run.checkpoints}
        assert ends == {0: 7200, 1: 7200, 2: 7200, 3: None, 4: None}
        run.pin(run.checkpoints[1].name)
        await trio.sleep(1)
        assert not run.checkpoints[1].ttl_seconds
    async with open_rest_client(embedded=embedded(tmp_path), heartbeat="loop") as rest:
        expire = {one.checkpoint_id[-1]: one.expires_at async for one in rest.user_checkpoints()}
    assert {name: end is not None for name, end in expire.items()} == {
        "0": True,
        "1": False,
        "2": True,
        "3": False,
        "4": False,
    }


async def test_the_rest_is_deleted_if_that_is_wanted(autojump_clock: Any, tmp_path: Path) -> None:
    """As soon as newer ones are there."""
    async with opened(
        tmp_path / "r", checkpoints=CheckpointPolicy(steps=1), retention=Retention(delete=True, every=2)
    ) as run:
        await train(run, 5, pause=1.0)
    assert await listed(tmp_path / "r") == {f"r-00000{step}" for step in (0, 2, 4, 5)}


async def test_garbage_is_shown_before_it_is_collected(autojump_clock: Any, tmp_path: Path) -> None:
    """A dry run says what would go and why the others stay; then it goes, on the service too."""
    retention = Retention(best=1, ttl_seconds=None)
    async with opened(tmp_path / "r", retention=retention) as run:
        for step, metric in enumerate([0.1, 0.9, 0.3, 0.2, 0.1], 1):
            await train(run, step)
            await run.checkpoint(metric=metric)
        dry = await run.gc()
        assert [one.step for one in dry.deleted] == [0, 1, 3]
        assert dry.kept == {"r-000002": "best 1", "r-000004": "newest", "r-000005": "newest"}
        assert len(run.checkpoints) == 6
        collected = await run.gc(dry_run=False)
        assert [one.step for one in collected.deleted] == [0, 1, 3]
        assert not collected.failed
        assert [step for step, state in known(run).items() if state != "gone"] == [2, 4, 5]
        assert not (await run.gc()).deleted
    assert await listed(tmp_path / "r") == {"r-000002", "r-000004", "r-000005"}


async def test_a_checkpoint_is_rated_and_pinned_later(autojump_clock: Any, tmp_path: Path) -> None:
    """By its name; another name is refused."""
    async with opened(tmp_path) as run:
        await train(run, 1)
        name = (await run.checkpoint()).name
        assert run.rate(name, 3).metric == 3.0
        assert run.pin(name).pinned
        assert not run.pin(name, pinned=False).pinned
        for call in (lambda: run.pin("nothing"), lambda: run.rate("nothing", 1)):
            with pytest.raises(InputError, match=r"^name = 'nothing'"):
                call()
        with pytest.raises(InputError, match=r"^metric = nan"):
            run.rate(name, float("nan"))


async def test_a_full_journal_is_emptied_by_checkpoints(autojump_clock: Any, tmp_path: Path) -> None:
    """They are saved in time, so that a journal that holds three batches is enough for any number."""
    async with opened(tmp_path, journal_max_bytes=1500) as run:
        await train(run, 12)
        assert run.decided == 12


async def test_single_gradients_find_room_too(autojump_clock: Any, tmp_path: Path) -> None:
    """It is made between steps: in the middle of one its own gradients could not be told from older ones."""
    async with opened(tmp_path, journal_max_bytes=1100) as run:
        async for step in run.steps(12):
            for part in (0, 50):
                await step.forward_backward(batch(step.index + part), "cross_entropy")
            await (await step.optim_step(ADAM, after=step.index))
        assert run.decided == 12


async def test_a_batch_that_never_fits_is_refused(autojump_clock: Any, tmp_path: Path) -> None:
    """Nothing of the step is decided or sent, and the run can be gone on with."""
    with pytest.raises(JournalFull):
        async with opened(tmp_path, journal_max_bytes=100) as run:
            await train(run, 1)
    async with opened(tmp_path) as run:
        assert run.decided == 0
        await train(run, 1)


@pytest.mark.lesson("W8")
async def test_an_older_one_takes_the_place_of_one_that_is_gone(
    autojump_clock: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The resume starts from it, and sends again what came since."""
    with pytest.raises(Left):
        async with opened(tmp_path / "r", checkpoints=CheckpointPolicy(steps=2)) as run:
            await train(run, 5, pause=1.0)
            raise Left
    async with open_rest_client(embedded=embedded(tmp_path / "r"), heartbeat="loop") as rest:
        newest = [one.tinker_path async for one in rest.user_checkpoints() if one.tinker_path.endswith("4")]
        await rest.delete_checkpoints(newest)
    with caplog.at_level(logging.WARNING, "tinker_actors.runs"):
        async with opened(tmp_path / "r") as run:
            assert (run.resumed.checkpoint or "").endswith("r-000002")
            assert run.resumed.replayed == 3
            await train(run, 6)
    assert "is gone: the one before it takes its place" in caplog.text


async def test_what_the_service_never_had_is_saved_again(
    autojump_clock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for it is told; it holds nothing, so leaving the run saves what it was to hold."""

    async def look(_: object, path: str) -> bool:
        await trio.lowlevel.checkpoint()
        return not path.endswith("-000002")

    monkeypatch.setattr("tinker_actors.runs.keeping.is_there", look)
    async with opened(tmp_path) as run:
        await train(run, 2)
        with pytest.raises(TinkerError, match="does not have it"):
            await run.checkpoint()
    async with opened(tmp_path) as run:
        assert [one.name for one in run.checkpoints if one.step == 2 and one.state == "verified"] == [
            f"{tmp_path.name}-000002.2"
        ]
        assert run.resumed.replayed == 0


async def test_what_turns_out_to_be_gone_is_saved_again_for_who_asks(
    autojump_clock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint that nobody could look for is the latest until it is known that it is not there; then once more."""
    answers: list[bool | None] = [True]

    async def look(_: object, path: str) -> bool:
        await trio.lowlevel.checkpoint()
        if path.endswith("-000002"):
            if answers[0] is None:
                raise TinkerError("broken")
            return answers[0]
        return True

    monkeypatch.setattr("tinker_actors.runs.keeping.is_there", look)
    async with opened(tmp_path) as run:
        await train(run, 2)
        answers[0] = None
        assert (await run.checkpoint()).state == "done"
        answers[0] = False
        again: list[RunCheckpoint] = []

        async def ask() -> None:
            again.append(await run.checkpoint())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(ask)
        told = [(one.name, one.state) for one in again]
        assert told == [(f"{tmp_path.name}-000002.2", "verified")] * 2
