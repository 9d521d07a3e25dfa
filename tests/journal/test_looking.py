"""A run's journal is read from outside, whoever has it open."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tinker_actors.errors import JournalError
from tinker_actors.journal.looking import look_at
from tinker_actors.journal.opening import open_journal
from tinker_actors.protocol.journal import Decision


def contents(folder: Path) -> dict[str, bytes]:
    """Return what stands in the files of a directory."""
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


async def test_it_is_read_while_it_is_written(autojump_clock: object, tmp_path: Path) -> None:
    """What was committed is seen at once, and nothing is changed by looking."""
    journal = open_journal(tmp_path, inline=True)
    before = contents(tmp_path)
    assert look_at(tmp_path).steps == 0
    assert contents(tmp_path) == before
    await journal.note(backend="local")
    for step in range(3):
        await journal.record((), Decision(step=step, after=b"null", skipped=True))
    seen = look_at(str(tmp_path))
    assert (seen.steps, seen.incarnation, seen.facts) == (3, 1, {"backend": "local"})
    await journal.aclose()
    assert look_at(tmp_path) == seen


def test_what_is_no_journal_is_refused(tmp_path: Path) -> None:
    """The file is named."""
    with pytest.raises(JournalError, match=r"there is no run in .*: .*journal\.sqlite is missing"):
        look_at(tmp_path)
    (tmp_path / "journal.sqlite").write_bytes(b"x" * 4096)
    with pytest.raises(JournalError, match=r"journal\.sqlite cannot be read: file is not a database"):
        look_at(tmp_path)


async def test_where_no_copy_can_be_made_it_cannot_be_read(
    autojump_clock: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a file of the journal is gone before it is copied: the error names the journal."""
    await open_journal(tmp_path, inline=True).aclose()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(JournalError, match=r"journal\.sqlite cannot be read: .*No such file") as caught:
        look_at(tmp_path)
    assert isinstance(caught.value.__cause__, FileNotFoundError)
