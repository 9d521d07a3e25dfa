"""A journal that is killed at each single change of what is on disk: afterwards something was said, or it was not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import attrs
import pytest

from tests.journal.doing import (
    MODEL,
    Noted,
    abandon,
    batch,
    decision,
    opened,
    output,
    record,
    told,
)
from tests.protocol.operations import load, optim, save
from tinker_actors.journal.disk import Buffer, Change, Disk
from tinker_actors.journal.durable import DurableJournal
from tinker_actors.protocol.journal import Operation

Saying: TypeAlias = Callable[[DurableJournal], object]


class Killed(BaseException):
    """The process is gone."""


class Mortal(Disk):
    """Dies at a change: before it, after it, or in the midst of a batch."""

    def __init__(self, at: int, how: str) -> None:
        super().__init__()
        self.left = at
        self.how = how

    def before(self, change: Change, path: Path) -> None:
        if self.left < 0 or (self.left == 0 and self.how == "before"):
            self.die()

    def after(self, change: Change, path: Path) -> None:
        self.left -= 1
        if self.left < 0 and self.how == "after":
            self.die()

    def write(self, file: int, pieces: Sequence[Buffer]) -> None:
        if self.left == 0 and self.how == "torn":
            super().write(file, [b"".join(pieces)[:-5]])
            self.die()
        super().write(file, pieces)

    def die(self) -> None:
        self.left = -1
        raise Killed


def model(number: int) -> Saying:
    return lambda journal: journal.made(attrs.evolve(MODEL, model_id=f"m{number}", model_seq=number))


def decided(step: int) -> Saying:
    return lambda journal: record(
        journal, batch(step), optim(float(step)), decision=decision(step, b"%d" % step, groups=(f"g{step}",))
    )


def checkpoint(position: int) -> Saying:
    return lambda journal: journal.checkpointed(position, f"tinker://{position}")


# Positions: a step has two, everything else has one.
LIFE: tuple[Saying, ...] = (
    model(0),
    lambda journal: journal.revived(),
    decided(0),
    lambda journal: journal.accepted(0, 0, "r0"),
    lambda journal: journal.done(0, output(-1.0)),
    lambda journal: journal.done(1),
    lambda journal: record(journal, save("a")),
    lambda journal: journal.describe("a", metric=0.5, pinned=True),
    checkpoint(2),
    lambda journal: journal.done(2),
    lambda journal: journal.mark("a", "verified"),
    lambda journal: record(journal, batch(9, kind="forward"), Operation(kind="save_for_sampler")),
    lambda journal: journal.done(3),
    lambda journal: journal.done(4, keep=True),
    decided(1),
    lambda journal: journal.done(5, output(-2.0)),
    lambda journal: journal.done(6),
    lambda journal: record(journal, batch(3)),
    lambda journal: journal.strike(7, freed=[8]),
    lambda journal: journal.release(4),
    lambda journal: record(journal, decision=decision(2, b"2", skipped=True)),
    lambda journal: record(journal, save("b")),
    checkpoint(8),
    lambda journal: journal.done(8),
    model(1),
    lambda journal: record(journal, load("tinker://elsewhere")),
    checkpoint(9),
    lambda journal: journal.done(9),
    decided(3),
    lambda journal: record(journal, save("c")),
    lambda journal: journal.done(10, output(-3.0)),
    lambda journal: journal.done(11),
    checkpoint(12),
    lambda journal: journal.mark("b", "gone"),
    lambda journal: journal.fall_back(),
    lambda journal: record(journal, save("d")),
    checkpoint(13),
    lambda journal: journal.mark("d", "verified"),
    lambda journal: record(journal, save("e")),
    checkpoint(14),
    lambda journal: journal.mark("e", "verified"),
    decided(4),
)


def said(journal: DurableJournal) -> dict[str, Any]:
    """Return what a journal says, but for the size of what it has not yet deleted."""
    return {name: value for name, value in told(journal).items() if name != "held_bytes"}


@attrs.frozen
class Lived:
    """A life to which nothing happens.

    Attributes:
        said: what the journal says at first, and after each thing that it is told.
        changes: what is changed on disk.
    """

    said: list[dict[str, Any]]
    changes: list[Change]


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Lived:
    """Live to the end."""
    disk = Noted()
    journal = opened(tmp_path_factory.mktemp("lived"), disk=disk, now=float)
    states = [said(journal)]
    for say in LIFE:
        say(journal)
        states.append(said(journal))
    abandon(journal)
    return Lived(states, disk.changes)


def live_and_die(folder: Path, disk: Disk) -> int | None:
    """Live until the end comes; return what was being said then, None if it did not come."""
    at = -1
    try:
        journal = opened(folder, disk=disk, now=float)
        for at, say in enumerate(LIFE):  # noqa: B007 - the last one is returned
            say(journal)
    except Killed:
        return at
    finally:
        disk.abandon()
    return None


def die(folder: Path, lived: Lived, at: int, how: str) -> None:
    """Die at a change; what was being said is said, or is not; all that was said before is; and the journal goes on."""
    saying = live_and_die(folder, Mortal(at, how))
    assert saying is not None
    journal = opened(folder)
    now = said(journal)
    assert now in lived.said[max(saying, 0) : saying + 2], (at, saying)
    assert journal.lost_steps == 0
    abandon(journal)
    journal = opened(folder)
    assert said(journal) == now
    record(journal, batch(50), optim(), decision=decision(9))
    assert journal.steps == 10
    abandon(journal)


def test_every_kind_of_change_is_tried(lived: Lived) -> None:
    """There are some sixty."""
    assert set(lived.changes) == {"lock", "create", "append", "commit", "delete"}
    assert len(lived.changes) > 50


@pytest.mark.parametrize("change", ["lock", "create", "append", "delete"])
@pytest.mark.parametrize("how", ["before", "after"])
def test_a_kill_at_a_change_of_a_file_leaves_a_whole_journal(
    tmp_path: Path, lived: Lived, how: str, change: str
) -> None:
    """A batch, or a segment, is there or it is not."""
    for at in [at for at, one in enumerate(lived.changes) if one == change]:
        die(tmp_path / str(at), lived, at, how)


def test_a_kill_in_the_midst_of_a_batch_leaves_a_whole_journal(tmp_path: Path, lived: Lived) -> None:
    """What there is of the batch is nobody's."""
    for at in [at for at, one in enumerate(lived.changes) if one == "append"]:
        die(tmp_path / str(at), lived, at, "torn")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["before", "after"])
def test_a_kill_at_any_transaction_leaves_a_whole_journal(tmp_path: Path, lived: Lived, how: str) -> None:
    """What is said at once is there at once, or not at all."""
    for at in [at for at, one in enumerate(lived.changes) if one == "commit"]:
        die(tmp_path / str(at), lived, at, how)
