"""What becomes of a run's checkpoints once they are saved, on services that do not have every call, or fail."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.actors.recorder import Recorder, rest_on
from tinker_actors import Retention
from tinker_actors.errors import TinkerActorsError
from tinker_actors.journal.durable import DurableJournal
from tinker_actors.journal.opening import open_journal
from tinker_actors.protocol.journal import Intent, Operation
from tinker_actors.protocol.run_event import CheckpointSaved
from tinker_actors.runs.keeping import Keeping

ASK = "POST /api/v1/weights_info"
HERE = {"base_model": "b", "is_lora": True, "lora_rank": 2}
NO_ROUTE = {"detail": "Not Found"}


def at(step: int, what: str = "") -> str:
    """Return the path of a call about a checkpoint."""
    return f"/api/v1/training_runs/m:train:0/checkpoints/weights/r-{step}{what}"


async def saved(folder: Path, steps: int) -> DurableJournal:
    """Make a journal in which the service has said that it saved so many checkpoints."""
    journal = open_journal(folder, inline=True)
    for step in range(steps):
        name = f"r-{step}"
        [position] = await journal.record([Intent(operation=Operation(kind="save_state", name=name))])
        journal.checkpointed(position, f"tinker://m:train:0/weights/{name}")
        journal.done(position)
    return journal


def states(journal: DurableJournal) -> list[str]:
    """Return what is known of each."""
    return [one.state for one in journal.checkpoints]


def answer(status: int, detail: str = "broken") -> httpx.Response:
    """Refuse a call."""
    return httpx.Response(status, json={"detail": detail})


async def test_what_was_seen_is_told(autojump_clock: Any, tmp_path: Path) -> None:
    """Once for each, when the service was seen to have it."""
    journal, told = await saved(tmp_path, 2), list[CheckpointSaved]()
    async with rest_on(Recorder({ASK: HERE})) as rest:
        keeping = Keeping(journal, rest, Retention(), told.append)
        await keeping.look_over()
        await keeping.look_over()
    assert states(journal) == ["verified", "verified"]
    assert [one.name for one in told] == ["r-0", "r-1"]
    journal.close()


@pytest.mark.parametrize(
    ("reply", "said", "state"),
    [
        (answer(404, "no such checkpoint"), "the service said that it saved checkpoint", "gone"),
        (answer(500), "could not be asked", "done"),
    ],
)
async def test_what_was_not_seen_is_not_verified(
    autojump_clock: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    reply: httpx.Response,
    said: str,
    state: str,
) -> None:
    """It counts for nothing, and the log says so; it is gone, if the service says it for certain."""
    journal = await saved(tmp_path, 1)
    async with rest_on(Recorder({ASK: reply}), max_retries=0) as rest:
        with caplog.at_level(logging.WARNING, "tinker_actors.runs"):
            await Keeping(journal, rest, Retention(), lambda _: None).look_over()
    assert states(journal) == [state]
    assert said in caplog.text
    journal.close()


async def test_a_service_without_times_to_live_is_asked_once(autojump_clock: Any, tmp_path: Path) -> None:
    """Then the checkpoints stay until they are collected."""
    journal = await saved(tmp_path, 4)
    recorder = Recorder({ASK: HERE, f"PUT {at(0, '/ttl')}": httpx.Response(404, json=NO_ROUTE)})
    async with rest_on(recorder, max_retries=0) as rest:
        keeping = Keeping(journal, rest, Retention(), lambda _: None)
        await keeping.look_over()
        await keeping.look_over()
    assert sum(path.endswith("/ttl") for _, path, _ in recorder.sent) == 1
    assert [one.ttl_seconds or None for one in journal.checkpoints] == [None] * 4
    journal.close()


async def test_a_time_to_live_that_cannot_be_given_is_told_of(
    autojump_clock: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried again later; one that is not there any more is known to be gone."""
    journal = await saved(tmp_path, 4)
    answers = {
        ASK: HERE,
        f"PUT {at(0, '/ttl')}": answer(500),
        f"PUT {at(1, '/ttl')}": answer(404, "no such checkpoint"),
    }
    async with rest_on(Recorder(answers), max_retries=0) as rest:
        with caplog.at_level(logging.WARNING, "tinker_actors.runs"):
            await Keeping(journal, rest, Retention(), lambda _: None).look_over()
    assert "got no time to live" in caplog.text
    assert [one.name for one in journal.checkpoints if one.state == "gone"] == ["r-1"]
    journal.close()


@pytest.mark.parametrize("by_itself", [True, False])
async def test_what_cannot_be_deleted_is_still_there(
    autojump_clock: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, by_itself: bool
) -> None:
    """The others are deleted all the same, and it is said why it was not."""
    journal = await saved(tmp_path, 4)
    answers = {ASK: HERE, f"DELETE {at(0)}": answer(500)}
    retention = Retention(delete=by_itself, ttl_seconds=None)
    async with rest_on(Recorder(answers), max_retries=0) as rest:
        keeping = Keeping(journal, rest, retention, lambda _: None)
        with caplog.at_level(logging.WARNING, "tinker_actors.runs"):
            await keeping.look_over()
            collected = await keeping.collect(dry_run=False)
    assert list(collected.failed) == ["r-0"]
    assert "InternalServerError" in collected.failed["r-0"]
    assert ("was not deleted" in caplog.text) is by_itself
    assert [one.name for one in journal.checkpoints if one.state == "verified"] == ["r-0", "r-2", "r-3"]
    journal.close()


async def test_housekeeping_that_fails_harms_nothing(
    autojump_clock: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What it failed with is told of in the log, and nothing is raised."""
    journal = await saved(tmp_path, 1)

    def refuse(_: CheckpointSaved) -> None:
        raise TinkerActorsError("closed")

    async with rest_on(Recorder({ASK: HERE})) as rest:
        with caplog.at_level(logging.WARNING, "tinker_actors.runs"):
            await Keeping(journal, rest, Retention(), refuse).keep_house()
    assert "could not be looked over: closed" in caplog.text
    journal.close()


async def test_what_a_service_lists_late_is_not_gone(autojump_clock: Any, tmp_path: Path) -> None:
    """It is looked for once more."""
    journal, asked = await saved(tmp_path, 1), list[str]()

    def late(_: httpx.Request) -> httpx.Response:
        asked.append("")
        return answer(404, "no such checkpoint") if len(asked) == 1 else httpx.Response(200, json=HERE)

    transport = httpx.MockTransport(late)
    async with rest_on(transport) as rest:  # type: ignore[arg-type]  # it is asked one thing only
        await Keeping(journal, rest, Retention(), lambda _: None).look_over()
    assert states(journal) == ["verified"]
    journal.close()


async def test_a_checkpoint_that_never_was_holds_nothing(autojump_clock: Any, tmp_path: Path) -> None:
    """It is no reason to keep others or batches, and a restore starts from the one before."""
    journal = await saved(tmp_path, 3)
    journal.mark("r-0", "verified")
    journal.mark("r-1", "verified")
    async with rest_on(Recorder({ASK: answer(404, "no such checkpoint")})) as rest:
        collected = await Keeping(journal, rest, Retention(), lambda _: None).collect(dry_run=True)
    assert states(journal) == ["verified", "verified", "gone"]
    assert "r-2" not in collected.kept
    assert journal.checkpoint is not None
    assert journal.checkpoint.path.endswith("r-1")
    journal.close()
