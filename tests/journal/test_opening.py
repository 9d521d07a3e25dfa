from __future__ import annotations

import inspect
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.journal.doing import Noted, abandon, batch, killed, opened, record, saved, step, told
from tinker_actors.errors import JournalError, RunLocked
from tinker_actors.journal.disk import Disk
from tinker_actors.journal.opening import open_journal
from tinker_actors.opening.run import open_run

OPEN_AND_WAIT = """
import sys
from tinker_actors.journal.opening import open_journal
journal = open_journal(sys.argv[1])
print("open", flush=True)
sys.stdin.read()
"""


def other_process(folder: Path) -> subprocess.Popen[str]:
    """Start a process that has the journal open until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", OPEN_AND_WAIT, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    return process


# --- one process at a time -------------------------------------------------------------------------------


def test_a_second_process_is_refused_and_the_first_one_unharmed(tmp_path: Path) -> None:
    """It is told who has the run; nothing on disk is touched."""
    with other_process(tmp_path) as first:
        files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        with pytest.raises(RunLocked, match=str(first.pid)) as caught:
            opened(tmp_path)
        assert caught.value.pid == first.pid
        assert caught.value.host == os.uname().nodename
        assert caught.value.path == str(tmp_path)
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files
        assert first.stdin is not None
        first.stdin.close()
        assert first.wait() == 0
    abandon(opened(tmp_path))


def test_the_lock_goes_with_the_process_that_had_it(tmp_path: Path) -> None:
    """However it ended."""
    with other_process(tmp_path) as first:
        first.send_signal(signal.SIGKILL)
        first.wait()
    journal = opened(tmp_path)
    assert journal.incarnation == 2
    abandon(journal)


OUTLIVED = """
import os
import sys
from pathlib import Path
from tests.journal.doing import abandon, opened

journal = opened(Path(sys.argv[1]))
read, write = os.pipe()
begun, begin = os.pipe()
if os.fork() == 0:
    os.close(write)
    os.write(begin, b"!")
    os.read(read, 1)  # until the parent has ended
    os._exit(0)
os.read(begun, 1)  # a child that has not run yet holds what its parent held
abandon(journal)
abandon(opened(Path(sys.argv[1])))
"""


def test_a_forked_child_does_not_keep_the_run_locked(tmp_path: Path) -> None:
    """It may outlive its parent, and it knows nothing of the run."""
    subprocess.run([sys.executable, "-c", OUTLIVED, str(tmp_path)], check=True, timeout=60)


FORK = """
import os
import sys
from pathlib import Path
from tests.journal.doing import opened, step

journal = opened(Path(sys.argv[1]), inline=sys.argv[2] == "inline")
for number in range(3):
    if sys.argv[2] == "inline":
        step(journal, number)
child = os.fork()
if child == 0:
    if sys.argv[3] == "close":
        journal.close()
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
for number in range(3, 6):
    step(journal, number)
os._exit(0)  # as by a kill: nothing is written at the end
"""


@pytest.mark.parametrize("how", ["exit", "close"])
@pytest.mark.parametrize("way", ["inline", "thread"])
def test_a_forked_child_takes_nothing_from_its_parent(tmp_path: Path, way: str, how: str) -> None:
    """Not even if it ends in good order, and with it closes all that it has."""
    subprocess.run([sys.executable, "-c", FORK, str(tmp_path), way, how], check=True, timeout=60)
    journal = opened(tmp_path)
    assert journal.steps == 6
    told(journal)
    abandon(journal)


def test_a_lock_that_says_nothing_is_a_lock(tmp_path: Path) -> None:
    """The other process may be about to write who it is."""
    disk = Disk()
    assert disk.lock(tmp_path / "lock", b"") is None
    with pytest.raises(RunLocked, match="another process") as caught:
        opened(tmp_path)
    assert (caught.value.pid, caught.value.host) == (None, None)
    disk.abandon()


# --- what cannot be opened -------------------------------------------------------------------------------


def garbled(file: Path) -> None:
    """Overwrite all but the first page of a file."""
    size = file.stat().st_size
    with file.open("r+b") as opened_file:
        opened_file.seek(4096)
        opened_file.write(b"\xa5" * (size - 4096))


@pytest.mark.parametrize("harm", ["not a database" * 1000, None])
def test_a_database_that_is_damaged_is_never_taken_for_an_empty_one(tmp_path: Path, harm: str | None) -> None:
    """The error names the file and says what to do."""
    journal = opened(tmp_path)
    step(journal, 0)
    trio.run(journal.aclose)
    file = tmp_path / "journal.sqlite"
    if harm is None:
        garbled(file)
    else:
        file.write_text(harm)
    with pytest.raises(
        JournalError, match=r"journal\.sqlite is damaged or no journal.*put a copy back"
    ) as caught:
        opened(tmp_path)
    assert caught.value.path == str(file)
    assert list((tmp_path / "bodies").iterdir())


@pytest.mark.parametrize("empty", [True, False])
def test_batches_without_a_database_are_no_new_run(tmp_path: Path, empty: bool) -> None:
    """Somebody has taken it away, and a run must not begin anew unnoticed."""
    journal = opened(tmp_path)
    step(journal, 0)
    trio.run(journal.aclose)
    file = tmp_path / "journal.sqlite"
    file.unlink()
    if empty:
        file.touch()
    with pytest.raises(JournalError, match="there are batches"):
        opened(tmp_path)
    assert list((tmp_path / "bodies").iterdir())


def test_a_journal_of_another_format_is_not_read(tmp_path: Path) -> None:
    """A newer version may have written what this one does not know."""
    trio.run(opened(tmp_path).aclose)
    database = sqlite3.connect(tmp_path / "journal.sqlite")
    database.execute("UPDATE meta SET value = '99' WHERE name = 'format'")
    database.commit()
    database.close()
    with pytest.raises(JournalError, match="format 99"):
        opened(tmp_path)


def test_a_directory_that_cannot_be_made_is_an_error_of_the_journal(tmp_path: Path) -> None:
    """With the cause."""
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match="cannot be used") as caught:
        opened(tmp_path / "file" / "run")
    assert isinstance(caught.value.__cause__, OSError)


def test_a_database_that_somebody_else_has_locked_is_not_damaged(tmp_path: Path) -> None:
    """A tool that looks into it is in the way; the error says so."""
    trio.run(opened(tmp_path).aclose)
    database = sqlite3.connect(tmp_path / "journal.sqlite", isolation_level=None)
    database.execute("BEGIN EXCLUSIVE")
    disk = Disk()
    disk.patience = 0.0
    with pytest.raises(JournalError, match=r"cannot be used: database is locked"):
        opened(tmp_path, disk=disk)
    database.close()
    abandon(opened(tmp_path))


# --- durability ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("durability", "expected"),
    [("process", ["create", "append", "commit"]), ("machine", ["create", "append", "sync", "commit"])],
)
def test_batches_are_written_before_what_names_them(
    tmp_path: Path, durability: str, expected: list[str]
) -> None:
    """And, if the machine may die, they are on the medium before that is; then so is the transaction."""
    disk = Noted()
    journal = opened(tmp_path, disk=disk, durability=durability)
    disk.changes.clear()
    record(journal, batch())
    assert disk.changes == expected
    (synchronous,) = journal._store._database.execute("PRAGMA synchronous").fetchone()
    assert synchronous == (2 if durability == "machine" else 1)
    abandon(journal)


def test_a_run_survives_either_way(tmp_path: Path) -> None:
    """What is said with one durability is said with the other."""
    journal = opened(tmp_path, durability="machine")
    step(journal, 0)
    saved(journal, "a")
    step(journal, 1)
    before = told(journal)
    journal = killed(journal, tmp_path)
    assert told(journal) == before
    abandon(journal)


def test_a_journal_holds_as_much_as_that_of_a_run() -> None:
    """What the batches may take, if nobody says otherwise, is one number."""
    whole = inspect.signature(open_run).parameters["journal_max_bytes"].default
    assert inspect.signature(open_journal).parameters["max_bytes"].default == whole == 4 * 1024**3
