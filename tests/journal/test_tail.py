"""What a machine that died has left: a torn tail is cut off, and everything else is an error."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.journal.doing import (
    abandon,
    batch,
    decision,
    opened,
    opened_live,
    record,
    saved,
    step,
    told,
)
from tests.protocol.operations import optim, save
from tinker_actors.errors import JournalError


def segment(folder: Path, number: int = 1) -> Path:
    return folder / "bodies" / f"{number:06d}.seg"


def three_steps(folder: Path) -> tuple[int, ...]:
    """Decide three steps on a live model; return the size of the segment after each."""
    journal = opened_live(folder)
    sizes = []
    for number in range(3):
        step(journal, number)
        sizes.append(segment(folder).stat().st_size)
    abandon(journal)
    return tuple(sizes)


def check_torn(folder: Path, size: int, start: int) -> None:
    """Cut the last frame, which begins at `start`, and open the journal twice."""
    with segment(folder).open("r+b") as file:
        file.truncate(size)
    journal = opened(folder)
    assert (journal.steps, journal.loop_state, journal.lost_steps) == (2, b'{"at": 1}', 1)
    assert [one.position for one in journal.replay()] == [0, 1, 2, 3]
    assert not journal.live
    before = told(journal)
    abandon(journal)
    journal = opened(folder)
    assert told(journal) | {"held_bytes": before["held_bytes"]} == before
    assert segment(folder).stat().st_size == start
    assert journal.lost_steps == 1  # a process that dies before it could tell has told nobody
    step(journal, 2)
    assert [one.position for one in journal.replay()] == [0, 1, 2, 3, 6, 7]
    abandon(journal)
    journal = opened(folder)
    assert journal.lost_steps == 0
    abandon(journal)


@pytest.mark.parametrize("left", [0, 1, 8, 39, 40, 41, -1])
def test_a_torn_tail_counts_as_never_decided(tmp_path: Path, left: int) -> None:
    """The step before it is the last one, with its loop state, and the model is not gone on with."""
    *_, start, end = three_steps(tmp_path)
    check_torn(tmp_path, start + left if left >= 0 else end + left, start)


@pytest.mark.slow
def test_a_tail_may_be_torn_at_any_byte(tmp_path: Path) -> None:
    """The same for every byte of the last frame."""
    whole = tmp_path / "whole"
    *_, start, end = three_steps(whole)
    assert end - start > 100
    for size in range(start, end):
        folder = tmp_path / str(size)
        shutil.copytree(whole, folder)
        check_torn(folder, size, start)
        shutil.rmtree(folder)


def test_a_last_frame_that_is_not_what_was_written_is_torn_too(tmp_path: Path) -> None:
    """Some systems lengthen a file before they write it: zeros are no batch."""
    *_, start, end = three_steps(tmp_path)
    with segment(tmp_path).open("r+b") as file:
        file.seek(start)
        file.write(bytes(end - start))
    journal = opened(tmp_path)
    assert (journal.steps, journal.lost_steps) == (2, 1)
    abandon(journal)


def test_what_was_never_committed_is_cut_off(tmp_path: Path) -> None:
    """A kill between a batch and its intent leaves the batch: it is not missed, and nothing is lost."""
    *_, end = three_steps(tmp_path)
    with segment(tmp_path).open("ab") as file:
        file.write(b"half a frame")
    segment(tmp_path, 2).write_bytes(b"a segment of which nothing was committed")
    journal = opened(tmp_path)
    assert (journal.steps, journal.lost_steps, journal.live) == (3, 0, True)
    assert segment(tmp_path).stat().st_size == end
    assert not segment(tmp_path, 2).exists()
    abandon(journal)


@pytest.mark.parametrize("harm", ["cut", "changed"])
def test_a_batch_that_is_lost_in_the_middle_is_an_error(tmp_path: Path, harm: str) -> None:
    """It says which steps are lost, and the journal is as it was."""
    journal = opened(tmp_path)
    step(journal, 0)
    journal._store.segments.roll()
    step(journal, 1)
    abandon(journal)
    file = segment(tmp_path)
    content = bytearray(file.read_bytes())
    content[-10:] = b"" if harm == "cut" else b"x" * 10
    file.write_bytes(content)
    harmed = {path: path.read_bytes() for path in tmp_path.rglob("*.seg")}
    if harm == "changed":  # nobody looks as long as the machine lives, but nothing wrong is ever sent
        journal = opened(tmp_path)
        with pytest.raises(JournalError, match="is damaged"):
            told(journal)
        abandon(journal)
        another_boot(tmp_path)
    with pytest.raises(JournalError, match=r"batch of operation 0 .* no torn tail.* steps 0 to 1") as caught:
        opened(tmp_path)
    assert caught.value.path == str(file)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.seg")} == harmed


def another_boot(folder: Path) -> None:
    """Have the journal believe that it was written before the machine was started."""
    journal = opened(folder)
    written = '{"host":"elsewhere","boot":"b","time":1.0}'
    sql = "INSERT OR REPLACE INTO meta VALUES('written', ?)"
    journal._store._database.execute(sql, (written,))
    abandon(journal)


def test_more_than_one_batch_may_be_torn(tmp_path: Path) -> None:
    """If the last one is not what was written, those before it are looked at as well."""
    first, *_, end = three_steps(tmp_path)
    with segment(tmp_path).open("r+b") as file:
        file.seek(first)
        file.write(bytes(end - first))
    journal = opened(tmp_path)
    assert (journal.steps, journal.loop_state, journal.lost_steps) == (1, b'{"at": 0}', 2)
    abandon(journal)


def test_an_evaluation_without_its_batch_is_dropped_alone(tmp_path: Path) -> None:
    """Nobody waits for it, and no step depends on it; but the model is not gone on with."""
    journal = opened_live(tmp_path)
    record(journal, batch(kind="forward"))
    journal._store.segments.roll()
    step(journal, 0)
    abandon(journal)
    segment(tmp_path).write_bytes(b"")
    journal = opened(tmp_path)
    assert (journal.steps, journal.lost_steps, journal.live) == (1, 0, False)
    assert [one.position for one in journal.replay()] == [1, 2]
    abandon(journal)


def test_what_only_an_older_state_needs_ends_the_way_back_to_it(tmp_path: Path) -> None:
    """The newer ones are not touched by that."""
    journal = opened(tmp_path)
    for number in range(4):
        step(journal, number)
        saved(journal, f"s{number}")
    step(journal, 4)
    abandon(journal)
    segment(tmp_path, 3).unlink()
    journal = opened(tmp_path)
    before = told(journal)
    assert (journal.steps, journal.lost_steps) == (5, 0)
    assert not (tmp_path / "bodies" / "000001.seg").exists()
    abandon(journal)
    journal = opened(tmp_path)
    assert told(journal) == before
    assert journal.checkpoint is not None
    assert journal.fall_back()
    assert journal.checkpoint.path == "tinker://s2"
    assert len(journal.replay()) == 4
    assert not journal.fall_back()
    abandon(journal)


def test_a_state_is_not_taken_for_whole_without_its_open_gradient(tmp_path: Path) -> None:
    """A state that was saved in mid-step needs the gradient before it: the tail is behind a saved state then."""
    journal = opened(tmp_path)
    step(journal, 0)
    (gradient,) = record(journal, batch(9))
    journal.done(gradient)
    (position,) = record(journal, save("a"))
    journal.checkpointed(position, "tinker://a")
    record(journal, optim(), decision=decision(1))
    abandon(journal)
    with segment(tmp_path).open("r+b") as file:
        file.truncate(segment(tmp_path).stat().st_size - 1)
    with pytest.raises(JournalError, match="batch of operation 2"):
        opened(tmp_path)
