"""What a process knows of the one that had the run before it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from tinker_actors.journal import opening
from tinker_actors.journal.durable import DurableJournal
from tinker_actors.journal.opening import open_journal
from tinker_actors.protocol.journal import Decision, ModelFacts
from tinker_actors.protocol.reattach import Resumption
from tinker_actors.runs.succession import adoption_of, resumption_of

MODEL = ModelFacts(model_id="m", session_id="s", model_seq=0, next_number=1, sampler_seq=0)


def reopened(folder: Path, moved: Path | None = None, *, now: float = 10.0) -> DurableJournal:
    """Open a journal at 10 s and close it; open it again, or what lies elsewhere by then, at another time."""
    open_journal(folder, inline=True, now=lambda: 10.0).close()
    if moved is not None:
        shutil.copytree(folder, moved)
    return open_journal(moved or folder, inline=True, now=lambda: now)


def what_speaks_against(folder: Path, durability: Any = "process", *, now: float = 10.0) -> Resumption:
    """Open a journal, in vain: nothing comes of it; return what is known of the time before."""
    journal = open_journal(folder, durability=durability, inline=True, now=lambda: now)
    resumption = resumption_of(journal)
    journal.close()
    assert resumption is not None
    return resumption


def test_a_new_run_has_none_before_it(tmp_path: Path) -> None:
    """So there is nothing to go on with."""
    journal = open_journal(tmp_path, inline=True)
    assert resumption_of(journal) is None
    journal.close()


@pytest.mark.parametrize("gap", [0.0, 20.0, -20.0])
def test_a_run_that_was_left_alone_is_the_same(tmp_path: Path, gap: float) -> None:
    """How long it stood still is told as the clock says it, also if that was set back."""
    journal = reopened(tmp_path / "r", now=10.0 + gap)
    resumption = resumption_of(journal)
    assert resumption is not None
    assert (resumption.same_machine, resumption.is_copy, resumption.gap) == (True, False, gap)
    journal.close()


def test_a_directory_may_be_renamed(tmp_path: Path) -> None:
    """It is the same run under another name."""
    reopened(tmp_path / "r").close()
    (tmp_path / "r").rename(tmp_path / "s")
    journal = open_journal(tmp_path / "s", inline=True)
    resumption = resumption_of(journal)
    assert resumption is not None
    assert not resumption.is_copy
    journal.close()


@pytest.mark.parametrize("durability", ["process", "machine"])
def test_a_copy_is_not_the_run_itself(tmp_path: Path, durability: Any) -> None:
    """Both may be opened, and would train one model, or make two under one number."""
    journal = open_journal(tmp_path / "r", durability=durability, inline=True)
    journal.made(MODEL)
    journal.close()
    copied = reopened(tmp_path / "r", tmp_path / "s")
    resumption = resumption_of(copied)
    assert resumption is not None
    assert resumption.is_copy
    assert adoption_of(copied).session_id == ""
    copied.close()
    original = reopened(tmp_path / "r")
    assert adoption_of(original).session_id == "s"
    original.close()


async def note(journal: DurableJournal) -> None:
    """Write something that is no model and no step."""
    await journal.note(backend="local")


def test_a_copy_is_one_until_it_has_a_model_of_its_own(tmp_path: Path) -> None:
    """Whoever opens it and gets no further, or collects its garbage, leaves the original's model to the original."""
    journal = open_journal(tmp_path / "r", inline=True)
    journal.made(MODEL)
    journal.close()
    shutil.copytree(tmp_path / "r", tmp_path / "s")
    for _ in range(2):
        copied = open_journal(tmp_path / "s", inline=True)
        trio.run(note, copied)
        assert adoption_of(copied).session_id == ""
        copied.close()
        assert what_speaks_against(tmp_path / "s").is_copy
    copied = open_journal(tmp_path / "s", inline=True)
    copied.made(attrs.evolve(MODEL, model_id="n", session_id="t"))
    copied.close()
    assert not what_speaks_against(tmp_path / "s").is_copy
    copied = open_journal(tmp_path / "s", inline=True)
    assert adoption_of(copied).session_id == "t"
    copied.close()


def test_how_long_it_stood_still_is_counted_from_who_trained(tmp_path: Path) -> None:
    """A process that was started, and got no further, has kept no session alive."""
    open_journal(tmp_path, inline=True, now=lambda: 10.0).close()
    assert what_speaks_against(tmp_path, now=400.0).gap == 390.0
    assert what_speaks_against(tmp_path, now=401.0).gap == 391.0


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the system says of the machine's start; the last one counts."""
    starts = ["start 0"]
    monkeypatch.setattr(opening, "_boot", lambda: starts[-1])
    return starts


def test_steps_that_a_start_may_have_lost_are_in_the_model_for_good(tmp_path: Path, start: list[str]) -> None:
    """A process that was started since then, and got no further, changes nothing about that; a new model does."""
    open_journal(tmp_path, inline=True).close()
    start.append("start 1")
    for _ in range(3):
        assert not what_speaks_against(tmp_path).same_machine
    journal = open_journal(tmp_path, inline=True)
    journal.made(MODEL)
    journal.close()
    assert what_speaks_against(tmp_path).same_machine


@pytest.mark.parametrize("before", ["process", "machine"])
@pytest.mark.parametrize("now", ["process", "machine"])
def test_what_was_synced_is_said_by_who_wrote_it(
    tmp_path: Path, start: list[str], before: Any, now: Any
) -> None:
    """A durability that is chosen after the machine died brings nothing back."""
    open_journal(tmp_path, durability=before, inline=True).close()
    start.append("start 1")
    assert what_speaks_against(tmp_path, now).same_machine is (before == "machine")


def test_who_records_something_goes_on_with_the_run(tmp_path: Path) -> None:
    """A process that went on with the very same model is the one that the next one follows."""
    journal = open_journal(tmp_path, inline=True, now=lambda: 10.0)
    journal.made(MODEL)
    journal.close()
    journal = open_journal(tmp_path, durability="machine", inline=True, now=lambda: 20.0)
    trio.run(lambda: journal.record([], Decision(step=0, after=b"0", skipped=True)))
    journal.close()
    journal = open_journal(tmp_path, inline=True, now=lambda: 30.0)
    assert journal.before is not None
    assert (journal.before.time, journal.before.synced) == (20.0, True)
    journal.close()


@pytest.mark.parametrize(("durability", "same"), [("process", False), ("machine", True)])
@pytest.mark.parametrize("change", [{"host": "other"}, {"boot": "other"}, {"boot": ""}])
def test_another_machine_or_start_may_have_lost_the_last_steps(
    tmp_path: Path, change: dict[str, Any], durability: Any, same: bool
) -> None:
    """Unless each was synced; where the system does not tell of its starts, there may have been one."""
    open_journal(tmp_path / "r", durability=durability, inline=True).close()
    journal = open_journal(tmp_path / "r", durability=durability, inline=True)
    assert journal.before is not None
    journal.here = attrs.evolve(journal.here, **change)
    if not journal.here.boot:
        journal.before = attrs.evolve(journal.before, boot="")
    resumption = resumption_of(journal)
    assert resumption is not None
    assert resumption.same_machine is same
    journal.close()
