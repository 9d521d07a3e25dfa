"""A machine that dies takes with it what was written and not synced: what is opened afterwards, and what is lost."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pytest

from tests.journal.doing import MODEL, abandon, batch, decision, opened, output, record, saved
from tests.protocol.operations import optim
from tinker_actors.journal import opening
from tinker_actors.journal.disk import Change, Disk
from tinker_actors.journal.durable import DurableJournal

Loss: TypeAlias = Literal["absent", "torn", "zeroed"]

STEPS = 6


class Dead(BaseException):
    """The machine has no power."""


class Medium(Disk):
    """Knows what of the files is on the medium, and dies before a change.

    SQLite in WAL syncs its log at each transaction with `synchronous = FULL`. With `NORMAL` it does not, and a file
    system may have written any part of the log by then: the copies say what was there after each transaction.
    """

    def __init__(self, copies: Path, dies_at: int | None = None) -> None:
        super().__init__()
        self.changes: list[Change] = []
        self.synced: dict[Path, int] = {}
        self.copies: list[Path] = []
        self.firm = 0  # copies before this one cannot come back
        self._folder = copies
        self._dies_at = dies_at
        self._databases_seen: list[sqlite3.Connection] = []

    def connect(self, path: Path) -> sqlite3.Connection:
        database = super().connect(path)
        self._databases_seen = [database]
        return database

    def before(self, change: Change, path: Path) -> None:
        if len(self.changes) == self._dies_at:
            raise Dead
        self.changes.append(change)

    def after(self, change: Change, path: Path) -> None:
        if change == "sync":
            self.synced[path] = path.stat().st_size
        if change == "commit":
            self._copy(path)

    def _copy(self, path: Path) -> None:
        copy = self._folder / str(len(self.copies))
        copy.mkdir(parents=True)
        for name in (path.name, f"{path.name}-wal"):
            if (path.parent / name).exists():
                shutil.copy(path.parent / name, copy / name)
        (level,) = self._databases_seen[0].execute("PRAGMA synchronous").fetchone()
        if level >= 2:  # FULL
            self.firm = len(self.copies)
        self.copies.append(copy)

    def lose(self, folder: Path, loss: Loss, *, back: int = 0) -> None:
        """Leave in a run's directory what is on the medium.

        Args:
            folder: the run's.
            loss: what became of frames that were not synced.
            back: how many transactions are lost, as far as they were not synced.
        """
        for path in (folder / "bodies").glob("*.seg"):
            firm, whole = self.synced.get(path, 0), path.read_bytes()
            rest = len(whole) - firm
            left = {"absent": b"", "torn": whole[firm : firm + rest // 2], "zeroed": bytes(rest)}[loss]
            path.write_bytes(whole[:firm] + left)
        if not self.copies:
            return
        copy = self.copies[max(self.firm, len(self.copies) - 1 - back)]
        for path in folder.glob("journal.sqlite*"):
            path.unlink()
        for path in copy.iterdir():
            shutil.copy(path, folder / path.name)


@pytest.fixture
def reboot(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Give what has the machine start anew."""
    starts: list[str] = ["start 0"]
    monkeypatch.setattr(opening, "_boot", lambda: starts[-1])
    return lambda: starts.append(f"start {len(starts)}")


def live(folder: Path, disk: Disk, told: list[int], **options: Any) -> None:
    """Decide steps and save states; note each step of which it is known that it may be sent."""
    journal = opened(folder, disk=disk, **options)
    journal.made(MODEL)
    journal.revived()
    for number in range(STEPS):
        token = number if number != 4 else 3  # the same batch once more: it is stored already
        gradient, _ = record(
            journal, batch(token), optim(float(number)), decision=decision(number, b"%d" % number)
        )
        told.append(number)
        journal.done(gradient, output(-1.0))
        if number in (1, 3):
            saved(journal, f"s{number}", verified=True)


def die(folder: Path, at: int | None, **options: Any) -> tuple[Medium, int]:
    """Live until the machine dies; return its disk, and how many steps may have been sent."""
    disk, told = Medium(folder.parent / f"{folder.name}-copies", at), list[int]()
    try:
        live(folder, disk, told, **options)
    except Dead:
        pass
    finally:
        disk.abandon()
    return disk, len(told)


def goes_on(folder: Path, journal: DurableJournal) -> None:
    """Decide the next step, and find it again."""
    steps = journal.steps
    record(journal, batch(50), optim(), decision=decision(steps))
    abandon(journal)
    journal = opened(folder)
    assert journal.steps == steps + 1
    abandon(journal)


@pytest.mark.parametrize(("offset", "loss"), [*enumerate(["absent", "torn", "zeroed"])])
def test_a_machine_that_dies_loses_no_step_that_may_have_been_sent(
    tmp_path: Path, reboot: Callable[[], None], loss: Loss, offset: int
) -> None:
    """With durability `machine` each decided step is there with its batch, at whatever change the machine died."""
    counted, _ = die(tmp_path / "whole", None, durability="machine")
    assert counted.changes.count("sync") >= STEPS - 1
    for at in (at for at, change in enumerate(counted.changes) if change == "sync" or at % 3 == offset):
        folder = tmp_path / str(at)
        disk, told = die(folder, at, durability="machine")
        disk.lose(folder, loss, back=1000)
        reboot()
        journal = opened(folder, durability="machine")
        assert journal.lost_steps == 0, at
        assert journal.steps in (told, told + 1), at
        assert journal.loop_state == (b"%d" % (journal.steps - 1) if journal.steps else None), at
        goes_on(folder, journal)


@pytest.mark.parametrize("loss", ["absent", "torn", "zeroed"])
@pytest.mark.parametrize("back", [0, 1, 3, 1000])
def test_a_run_that_is_to_survive_its_process_opens_after_the_death_of_the_machine(
    tmp_path: Path, reboot: Callable[[], None], loss: Loss, back: int
) -> None:
    """Decided steps may be lost, of the end alone; it says how many, and is never taken for the run it was before."""
    counted, _ = die(tmp_path / "whole", None)
    assert "sync" not in counted.changes
    for at in range(back % 5, len(counted.changes), 5):
        folder = tmp_path / str(at)
        disk, told = die(folder, at)
        disk.lose(folder, loss, back=back)
        reboot()
        journal = opened(folder)
        assert journal.steps <= told + 1, at
        if back == 0:
            assert journal.steps + journal.lost_steps in (told, told + 1), at
        assert journal.loop_state == (b"%d" % (journal.steps - 1) if journal.steps else None), at
        assert journal.incarnation == (2 if disk.copies[1:] else 1), at
        goes_on(folder, journal)
