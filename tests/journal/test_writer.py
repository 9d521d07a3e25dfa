"""What becomes of what cannot be written: nothing is sent, the error says why, and the run goes on from the disk."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from tests.journal.doing import (
    MODEL,
    abandon,
    batch,
    decision,
    killed,
    opened,
    record,
    step,
    told,
)
from tests.protocol.operations import optim, save
from tinker_actors.errors import JournalError
from tinker_actors.journal.disk import Buffer, Change, Disk
from tinker_actors.journal.schema import Statement
from tinker_actors.journal.writer import Entry
from tinker_actors.protocol.journal import Intent, Operation
from tinker_actors.wire.input import Datum, ModelInput
from tinker_actors.wire.tensor import TensorData


class FullDisk(Disk):
    """Takes some more bytes of batches, or some more transactions, and then no more."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 10**9
        self.commits = 10**9
        self.truncates = True
        self.syncs = True
        self.deletes = True

    def before(self, change: Change, path: Path) -> None:
        if change == "commit":
            if not self.commits:
                raise sqlite3.OperationalError("database or disk is full")
            self.commits -= 1
        refused = {"truncate": not self.truncates, "sync": not self.syncs, "delete": not self.deletes}
        if refused.get(change):
            raise OSError(errno.EIO, "no")

    def write(self, file: int, pieces: Sequence[Buffer]) -> None:
        whole = b"".join(pieces)
        super().write(file, [whole[: self.bytes]])
        if len(whole) > self.bytes:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.bytes -= len(whole)


def test_a_full_disk_takes_nothing_of_a_step(tmp_path: Path) -> None:
    """Nothing of it is there; when there is room again, the same journal goes on."""
    disk = FullDisk()
    journal = opened(tmp_path, disk=disk)
    journal.made(MODEL)
    step(journal, 0)
    before = told(journal)
    size = (tmp_path / "bodies" / "000001.seg").stat().st_size
    disk.bytes = 50
    with pytest.raises(JournalError, match="No space left") as caught:
        record(journal, batch(1), optim(), decision=decision(1))
    assert isinstance(caught.value.__cause__, OSError)
    model = journal.model
    assert model is not None
    assert model.free == (3, 4)
    assert told(journal) | {"model": before["model"]} == before
    assert (tmp_path / "bodies" / "000001.seg").stat().st_size == size
    disk.bytes = 10**9
    assert trio.run(
        journal.record, [Intent(operation=batch(1), numbers=(3,)), Intent(operation=optim(), numbers=(4,))]
    ) == [2, 3]
    journal = killed(journal, tmp_path)
    assert [one.position for one in journal.replay()] == [0, 1, 2, 3]
    assert trio.run(journal.read, journal.replay()[2]).data == batch(1).data
    abandon(journal)


def test_a_second_batch_that_finds_no_room_takes_the_first_one_along(tmp_path: Path) -> None:
    """All of it or nothing; what was written of it is of no use to others."""
    disk = FullDisk()
    journal = opened(tmp_path, disk=disk)
    disk.bytes = 250
    with pytest.raises(JournalError):
        record(journal, batch(1), batch(2))
    disk.bytes = 10**9
    assert record(journal, batch(1)) == [0]
    journal = killed(journal, tmp_path)
    assert trio.run(journal.read, journal.replay()[0]).data == batch(1).data
    abandon(journal)


def test_a_tail_that_cannot_be_cut_off_is_left_behind(tmp_path: Path) -> None:
    """Later batches go into another segment, so that nothing stands behind half a frame."""
    disk = FullDisk()
    journal = opened(tmp_path, disk=disk)
    step(journal, 0)
    disk.bytes, disk.truncates = 50, False
    with pytest.raises(JournalError):
        record(journal, batch(1))
    disk.bytes = 10**9
    step(journal, 1)
    assert sorted(path.name for path in (tmp_path / "bodies").iterdir()) == ["000001.seg", "000002.seg"]
    journal = killed(journal, tmp_path)
    assert (journal.steps, journal.lost_steps) == (2, 0)
    told(journal)
    abandon(journal)


def test_a_tail_is_left_behind_also_where_the_medium_takes_nothing(tmp_path: Path) -> None:
    """What stands before it waits for the medium; later batches go into another segment all the same."""
    disk = FullDisk()
    journal = opened(tmp_path, disk=disk, durability="machine")
    disk.bytes, disk.truncates, disk.syncs = 250, False, False
    with pytest.raises(JournalError):
        record(journal, batch(1), batch(2))
    disk.bytes, disk.truncates, disk.syncs = 10**9, True, True
    step(journal, 0)
    journal = killed(journal, tmp_path)
    assert (journal.steps, journal.lost_steps) == (1, 0)
    told(journal)
    abandon(journal)


def test_a_medium_that_failed_once_is_not_believed_afterwards(tmp_path: Path) -> None:
    """A system tells of a failure once: when it is asked again, it has forgotten what it has lost."""
    disk = FullDisk()
    journal = opened(tmp_path, disk=disk, durability="machine")
    segments = journal._store.segments
    told_of: list[JournalError | None] = []

    def write() -> list[Statement]:
        segments.put("00" * 32, [b"a batch"])
        return []

    def roll() -> list[Statement]:
        disk.syncs = False
        try:
            segments.roll()
        finally:
            disk.syncs = True
        return []

    journal._store._writer._write([Entry(write, told_of.append), Entry(roll, told_of.append)])
    assert [type(one) for one in told_of] == [JournalError, JournalError]
    with pytest.raises(JournalError):
        record(journal, batch())
    abandon(journal)


def test_a_transaction_that_fails_ends_all_writing(tmp_path: Path) -> None:
    """What the journal believes and what is on disk may differ from then on; a resumed run believes the disk."""
    disk = FullDisk()
    journal = opened(tmp_path, disk=disk)
    step(journal, 0)
    before = told(journal)
    disk.commits = 0
    with pytest.raises(JournalError, match=r"journal\.sqlite|cannot be written: database or disk is full"):
        record(journal, batch(1), optim(), decision=decision(1))
    disk.commits = 10**9
    with pytest.raises(JournalError, match="disk is full") as caught:
        record(journal, save("a"))
    assert caught.value.path.endswith("journal.sqlite")
    with pytest.raises(JournalError):
        trio.run(journal.flush)
    journal.revived()
    journal = killed(journal, tmp_path)
    assert told(journal) == before
    step(journal, 1)
    abandon(journal)


def test_a_note_that_cannot_be_written_is_told_at_the_next_step(tmp_path: Path) -> None:
    """Nobody waits for it, but nothing may be built on it."""
    disk = FullDisk()
    journal = opened(tmp_path, disk=disk)
    first, _ = record(journal, batch(), optim())
    disk.commits = 0
    journal.done(first)
    with pytest.raises(JournalError, match="disk is full"):
        record(journal, batch(1))
    disk.commits = 10**9
    journal = killed(journal, tmp_path)
    assert [one.done for one in journal.replay()] == [False, False]
    abandon(journal)


def test_whatever_goes_wrong_in_the_writer_ends_all_writing(tmp_path: Path) -> None:
    """Also if it is a mistake of its own, and if nobody waits for it."""
    journal = opened(tmp_path)
    journal._store.later(lambda: [("INSERT INTO nowhere VALUES(1)", ())])
    with pytest.raises(JournalError, match="no such table"):
        record(journal, batch())
    journal = killed(journal, tmp_path)
    journal._store.later(lambda: {}["nothing"])
    with pytest.raises(JournalError, match="nothing"):
        record(journal, batch())
    journal = killed(journal, tmp_path)
    assert record(journal, batch()) == [0]
    abandon(journal)


def test_a_segment_that_cannot_be_deleted_is_deleted_later(tmp_path: Path) -> None:
    """It is in nobody's way."""
    disk = FullDisk()
    journal = opened(tmp_path, disk=disk)
    (position,) = record(journal, batch())
    journal._store.segments.roll()
    disk.deletes = False
    journal.strike(position)
    assert (tmp_path / "bodies" / "000001.seg").exists()
    journal = killed(journal, tmp_path)
    assert not (tmp_path / "bodies" / "000001.seg").exists()
    abandon(journal)


@pytest.mark.parametrize(
    "operation",
    [
        Operation(
            kind="forward_backward", data=(Datum(ModelInput.empty(), {"\ud800": TensorData([1], "int64")}),)
        ),
        Operation(kind="forward_backward", loss_fn_config={"x": b"bytes"}),  # type: ignore[dict-item]  # no JSON, on purpose
    ],
)
def test_what_has_no_written_form_is_refused_and_nothing_else_is(
    tmp_path: Path, operation: Operation
) -> None:
    """The service would not take it either."""
    journal = opened(tmp_path)
    with pytest.raises(JournalError, match="cannot be written down"):
        record(journal, operation)
    assert record(journal, batch()) == [0]
    abandon(journal)


async def test_a_thread_tells_of_what_it_could_not_write(tmp_path: Path) -> None:
    """Each of those who wait, with an error of its own."""
    disk = FullDisk()
    journal = opened(tmp_path, disk=disk, inline=False)
    await journal.flush()
    disk.commits = 0
    errors: list[JournalError] = []

    async def decide(number: int) -> None:
        with pytest.raises(JournalError) as caught:
            await journal.record([Intent(operation=batch(number))])
        errors.append(caught.value)

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(decide, number)
    assert len(set(map(id, errors))) == 5
    assert journal.replay() == []
    await journal.aclose()
    again = opened(tmp_path)
    assert again.replay() == []
    abandon(again)


class CancellingDisk(Disk):
    """Has the one who waits cancelled while it is written what they wait for."""

    def __init__(self, scope: trio.CancelScope) -> None:
        super().__init__()
        self.scope = scope
        self.token = trio.lowlevel.current_trio_token()
        self.armed = False

    def before(self, change: Change, path: Path) -> None:
        if self.armed:
            trio.from_thread.run_sync(self.scope.cancel, trio_token=self.token)


async def test_who_is_cancelled_while_it_is_written_learns_that_it_was(tmp_path: Path) -> None:
    """What is committed is decided: it must not be there without anybody knowing."""
    positions: list[int] = []
    with trio.CancelScope() as scope:
        disk = CancellingDisk(scope)
        journal = opened(tmp_path, inline=False, disk=disk)
        disk.armed = True
        positions += await journal.record([Intent(operation=batch())])
        disk.armed = False
    assert scope.cancel_called
    assert positions == [0]
    assert [one.position for one in journal.replay()] == [0]
    await journal.aclose()


async def test_who_is_cancelled_before_writes_nothing(tmp_path: Path) -> None:
    """Cancelled in time, it was never decided, and its numbers are free."""
    journal = opened(tmp_path)
    journal.made(MODEL)
    with trio.CancelScope() as scope:
        scope.cancel()
        await journal.record([Intent(operation=batch(), numbers=(1, 2))])
    assert scope.cancelled_caught
    assert journal.replay() == []
    assert journal.model is not None
    assert journal.model.free == (1, 2)
    await journal.record([Intent(operation=batch(), numbers=(1,))], decision(0))
    assert journal.tokens == 3
    await journal.aclose()
