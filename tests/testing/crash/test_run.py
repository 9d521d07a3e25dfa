"""Loops over a run: what the explorer finds, and what it looks at on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from tinker_actors.journal.opening import open_journal
from tinker_actors.protocol.journal import Intent, ModelFacts, Operation
from tinker_actors.testing.crash import explore
from tinker_actors.testing.crash.audit import Audit
from tinker_actors.testing.crash.disk import CrashDisk
from tinker_actors.testing.crash.point import Crashed, Fuse
from tinker_actors.types import AdamParams, Datum, ModelInput

ADAM = AdamParams(learning_rate=1e-3)


def batch(token: int) -> list[Datum]:
    return [Datum(ModelInput.from_ints([token]), {"target_tokens": [token], "weights": [1.0]})]


async def right(run: Any) -> None:
    async for step in run.steps(3):
        at = run.loop_state or 0
        await step.train(batch(at), "cross_entropy", ADAM, after=at + 1)


async def wrong(run: Any) -> None:
    """Begin with the first batch again, whatever was trained."""
    at = 0
    async for step in run.steps(3):
        await step.train(batch(at), "cross_entropy", ADAM, after=at + 1)
        at += 1


def test_a_loop_that_keeps_its_place_in_the_run_passes() -> None:
    """Points of the journal are among those that are tried, torn frames too."""
    report = explore(right, run={"rank": 4}, sample=6)
    report.check()
    places = {point.where for point in report.points}
    assert places == {"request", "answer", "disk", "torn"}
    assert any(point.what.startswith("commit") for point in report.points)
    assert len(report.expected.steps) == 3
    assert report.expected.loop_state == 3


def test_a_loop_that_keeps_its_place_nowhere_is_found() -> None:
    """The run goes on behind the last decided step; the loop takes the first batch again."""
    report = explore(wrong, sample=8)
    assert any("step 1 doubled" in failure.what for failure in report.failures)
    assert any("very same model" in failure.said for failure in report.failures)


def test_a_service_that_dies_alone_is_outlived() -> None:
    """Its deaths are at requests and answers; the loop goes on in the same life."""
    report = explore(right, dies="service", rollback=True, sample=4, double=True)
    report.check()
    assert report.schedules > 4
    failures = explore(wrong, dies="service", sample=4).failures
    assert failures == ()  # it has no second life to begin anew in


@pytest.mark.parametrize("torn", [False, True])
def test_a_frame_is_torn_or_not_begun(tmp_path: Path, torn: bool) -> None:
    """A crash before an append leaves nothing of it, one in its middle half of it."""
    fuse, audit = Fuse(), Audit(tmp_path)
    disk = CrashDisk(fuse, audit)
    file = disk.create(tmp_path / "a.seg", sync=False)
    disk.append(file, tmp_path / "a.seg", [b"abcd"])
    fuse._at = len(fuse.points) + (2 if torn else 1)
    with pytest.raises(Crashed):
        disk.append(file, tmp_path / "a.seg", [b"efgh", memoryview(b"ij")])
    assert (tmp_path / "a.seg").read_bytes() == (b"abcdefg" if torn else b"abcd")
    disk.abandon()


def test_what_is_sent_must_be_intended(tmp_path: Path) -> None:
    """The database is asked for the number, and the disk for the batch; what was sent may be sent again."""
    audit = Audit(tmp_path)
    journal = open_journal(tmp_path, inline=True, disk=CrashDisk(Fuse(), audit))
    journal.made(ModelFacts(model_id="m", session_id="s", model_seq=0, next_number=1, sampler_seq=0))
    journal.revived()
    operation = Operation(kind="forward_backward", data=tuple(batch(1)))
    trio.run(journal.record, [Intent(operation=operation, numbers=(1,), plan=(1,))])

    def send(number: int) -> list[str]:
        audit.found.clear()
        audit.sends("forward_backward", lambda: {"model_id": "m", "seq_id": number})
        return list(audit.found)

    assert send(1) == []
    said = "forward_backward, number 2 of m, was sent before its intent was committed"
    assert send(2) == [said]
    assert send(2) == []
    audit.sends("forward", lambda: pytest.fail("a forward pass changes nothing"))
    (segment,) = (tmp_path / "bodies").glob("*.seg")
    segment.write_bytes(segment.read_bytes()[:-1])
    trio.run(journal.record, [Intent(operation=operation, numbers=(3,), plan=(1,))])
    assert send(3) == [said.replace("2", "3")]
    journal.close()


def test_what_counts_as_saved_must_be_there(tmp_path: Path) -> None:
    """After each life the service must have each checkpoint that the journal calls done."""
    journal = open_journal(tmp_path, inline=True)
    (position,) = trio.run(journal.record, [Intent(operation=Operation(kind="save_state", name="one"))])
    journal.checkpointed(position, "tinker://m/weights/one")
    journal.close()
    audit = Audit(tmp_path)
    audit.rests(["tinker://m/weights/one"])
    assert audit.found == []
    audit.rests([])
    assert audit.found == ["checkpoint one counts as saved, and the service does not have it"]
    Audit(tmp_path / "nothing").rests([])
