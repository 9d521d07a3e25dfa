"""What a process knows of the one that had the run before it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import attrs
import pytest

from tinker_actors.journal.durable import DurableJournal
from tinker_actors.journal.opening import open_journal
from tinker_actors.protocol.journal import ModelFacts
from tinker_actors.runs.succession import adoption_of, resumption_of


def reopened(folder: Path, moved: Path | None = None, *, now: float = 10.0) -> DurableJournal:
    """Open a journal at 10 s and close it; open it again, or what lies elsewhere by then, at another time."""
    open_journal(folder, inline=True, now=lambda: 10.0).close()
    if moved is not None:
        shutil.copytree(folder, moved)
    return open_journal(moved or folder, inline=True, now=lambda: now)


def test_a_new_run_has_none_before_it(tmp_path: Path) -> None:
    """So there is nothing to go on with."""
    journal = open_journal(tmp_path, inline=True)
    assert resumption_of(journal, "process") is None
    journal.close()


@pytest.mark.parametrize("gap", [0.0, 20.0, -20.0])
def test_a_run_that_was_left_alone_is_the_same(tmp_path: Path, gap: float) -> None:
    """How long it stood still is told as the clock says it, also if that was set back."""
    journal = reopened(tmp_path / "r", now=10.0 + gap)
    resumption = resumption_of(journal, "process")
    assert resumption is not None
    assert (resumption.same_machine, resumption.is_copy, resumption.gap) == (True, False, gap)
    journal.close()


def test_a_directory_may_be_renamed(tmp_path: Path) -> None:
    """It is the same run under another name."""
    reopened(tmp_path / "r").close()
    (tmp_path / "r").rename(tmp_path / "s")
    journal = open_journal(tmp_path / "s", inline=True)
    resumption = resumption_of(journal, "process")
    assert resumption is not None
    assert not resumption.is_copy
    journal.close()


@pytest.mark.parametrize("durability", ["process", "machine"])
def test_a_copy_is_not_the_run_itself(tmp_path: Path, durability: Any) -> None:
    """Both may be opened, and would train one model, or make two under one number."""
    journal = open_journal(tmp_path / "r", inline=True)
    journal.made(ModelFacts(model_id="m", session_id="s", model_seq=0, next_number=1, sampler_seq=0))
    journal.close()
    copied = reopened(tmp_path / "r", tmp_path / "s")
    resumption = resumption_of(copied, durability)
    assert resumption is not None
    assert resumption.is_copy
    assert adoption_of(copied).session_id == ""
    copied.close()
    original = reopened(tmp_path / "r")
    assert adoption_of(original).session_id == "s"
    original.close()


@pytest.mark.parametrize(("durability", "same"), [("process", False), ("machine", True)])
@pytest.mark.parametrize("change", [{"host": "other"}, {"boot": "other"}, {"boot": ""}])
def test_another_machine_or_start_may_have_lost_the_last_steps(
    tmp_path: Path, change: dict[str, Any], durability: Any, same: bool
) -> None:
    """Unless each was synced; where the system does not tell of its starts, there may have been one."""
    journal = reopened(tmp_path / "r")
    assert journal.before is not None
    journal.here = attrs.evolve(journal.here, **change)
    if not journal.here.boot:
        journal.before = attrs.evolve(journal.before, boot="")
    resumption = resumption_of(journal, durability)
    assert resumption is not None
    assert resumption.same_machine is same
    journal.close()
