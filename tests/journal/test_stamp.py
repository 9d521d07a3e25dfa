"""What a journal says of where and when it was written, and by whom."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from pathlib import Path

import attrs
import pytest
import trio

from tests.journal.doing import MODEL, abandon, batch, decision, killed, opened, record
from tinker_actors.errors import JournalError, JournalFull
from tinker_actors.journal.contents import Station
from tinker_actors.journal.disk import Change, Disk
from tinker_actors.journal.durable import DurableJournal
from tinker_actors.journal.ledger import meta
from tinker_actors.journal.schema import DATABASE, Statement


def begun(folder: Path) -> DurableJournal:
    """Have a process make a model at 10 s, and the next one open the journal at 20 s."""
    journal = opened(folder, now=lambda: 10.0)
    journal.made(MODEL)
    return killed(journal, folder, now=lambda: 20.0)


def time(journal: DurableJournal, folder: Path) -> float:
    """Kill the process, and return when the journal was written last, as the next one is told."""
    journal = killed(journal, folder)
    abandon(journal)
    assert journal.before is not None
    return journal.before.time


def test_who_only_opens_it_is_not_who_wrote_it(tmp_path: Path) -> None:
    """Nor is who notes what becomes of the past: the next process follows the one that had the model."""
    journal = begun(tmp_path)
    assert time(journal, tmp_path) == 10.0
    journal = opened(tmp_path, now=lambda: 20.0)
    trio.run(lambda: journal.note(seed=1))
    journal.revived()
    assert journal.steps == 0
    assert time(journal, tmp_path) == 10.0


def test_who_makes_a_model_is(tmp_path: Path) -> None:
    """From that transaction on."""
    journal = begun(tmp_path)
    journal.made(attrs.evolve(MODEL, model_id="m1", model_seq=1))
    assert time(journal, tmp_path) == 20.0


def test_who_records_something_is(tmp_path: Path) -> None:
    """It has gone on with the model that was there."""
    journal = begun(tmp_path)
    record(journal, batch(), decision=decision(0))
    assert time(journal, tmp_path) == 20.0


def test_what_is_not_recorded_is_nothing(tmp_path: Path) -> None:
    """A batch for which there is no room makes nobody the one who wrote it."""
    abandon(begun(tmp_path))
    journal = opened(tmp_path, now=lambda: 20.0, max_bytes=1)
    with pytest.raises(JournalFull):
        record(journal, batch())
    assert time(journal, tmp_path) == 10.0


class Dying(Disk):
    """Commits one transaction more once it is told to, and is gone."""

    def __init__(self) -> None:
        super().__init__()
        self.left = 10**9

    def before(self, change: Change, path: Path) -> None:
        self.left -= change == "commit"
        if self.left < 0:
            raise sqlite3.OperationalError("gone")


async def test_it_changes_in_the_transaction_that_says_so(tmp_path: Path) -> None:
    """What another thread was writing when the model was made says nothing of it: a kill may come in between."""
    abandon(begun(tmp_path))
    disk, begins, may = Dying(), threading.Event(), threading.Event()
    journal = opened(tmp_path, inline=False, disk=disk, now=lambda: 20.0)

    def work() -> list[Statement]:
        begins.set()
        may.wait()
        return [meta("facts", {})]

    disk.left = 1
    journal._store.later(work)
    await trio.to_thread.run_sync(begins.wait)
    journal.made(attrs.evolve(MODEL, model_id="m1", model_seq=1))
    may.set()
    with pytest.raises(JournalError, match="gone"):
        await journal.flush()
    abandon(journal)
    again = opened(tmp_path)
    assert again.model == MODEL
    assert again.before is not None
    assert again.before.time == 10.0
    abandon(again)


def test_a_stamp_of_an_earlier_version_says_less(tmp_path: Path) -> None:
    """Which file it was, and whether it was synced, is not known; the journal is opened all the same."""
    abandon(begun(tmp_path))
    with contextlib.closing(sqlite3.connect(tmp_path / DATABASE)) as database, database:
        early = json.dumps({"host": "h", "boot": "b", "time": 10.0})
        database.execute("UPDATE meta SET value = ? WHERE name = 'written'", (early,))
    journal = opened(tmp_path)
    assert journal.before == Station(host="h", boot="b", time=10.0, file="", synced=False)
    abandon(journal)
