from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tinker_actors.errors import ConfigError
from tinker_actors.local import state as module
from tinker_actors.local.session import SessionState
from tinker_actors.local.state import FILE, KeptSampler, KeptSession, Run, Saved, ServiceState

SESSION = KeptSession(
    session_id="s1",
    tags=("a", "b"),
    user_metadata={"user": 'x"y'},
    display_name=None,
    state=SessionState.ALIVE,
)
SAMPLER = KeptSampler(
    sampler_id="s1:sample:0", session_id="s1", number=0, digest=b"\0\xff", base_model="tiny", model_path=None
)


def run(run_id: str = "s1:train:0", last_request: float = 10.0) -> Run:
    return Run(
        run_id=run_id,
        session_id="s1",
        base_model="tiny",
        rank=4,
        user_metadata={"k": "v"},
        last_request=last_request,
    )


@pytest.fixture
def state(tmp_path: Path) -> Iterator[ServiceState]:
    """Give an open state."""
    state = ServiceState(tmp_path / "new" / "state")
    state.open("life-1", 100.0)
    yield state
    state.close()


def again(state: ServiceState) -> Saved:
    """Close a state and open it in another life."""
    state.close()
    return state.open("life-2", 200.0)


def test_everything_is_found_again(state: ServiceState) -> None:
    """What was noted comes back in its order, with the lives before."""
    other = KeptSession(session_id="s0", tags=(), user_metadata={}, display_name="name")
    for session in (SESSION, other):
        state.note_session(session)
    state.note_run(run())
    state.note_run(run("s1:train:1"))
    state.note_sampler(SAMPLER)
    saved = again(state)
    assert (saved.boot, saved.lives) == (2, {"life-1"})
    assert list(saved.sessions) == [SESSION, other]
    assert [(one.run_id, one.rank, one.user_metadata, one.noted) for one in saved.runs] == [
        ("s1:train:0", 4, {"k": "v"}, 10.0),
        ("s1:train:1", 4, {"k": "v"}, 10.0),
    ]
    assert list(saved.samplers) == [SAMPLER]
    assert again(state).boot == 3


def test_a_run_is_noted_again_when_it_was_used(state: ServiceState) -> None:
    """Its latest request counts; at the end of a life those are noted that are not yet."""
    used, unused = run(), run("s1:train:1")
    for one in (used, unused):
        state.note_run(one)
    used.last_request = 20.0
    state.note_run(used)
    assert used.noted == 20.0
    used.last_request = 30.0
    state.close([used, unused])
    assert [one.last_request for one in state.open("life-2", 0).runs] == [30.0, 10.0]


def test_the_end_of_a_session_is_kept(state: ServiceState) -> None:
    """With it, what belonged to it is forgotten."""
    state.note_session(SESSION)
    state.note_sampler(SAMPLER)
    state.note_end("s1", SessionState.FINISHED)
    saved = again(state)
    assert [one.state for one in saved.sessions] == [SessionState.FINISHED]
    assert list(saved.samplers) == []


def test_an_end_that_cannot_be_kept_whole_comes_once_more(state: ServiceState) -> None:
    """What belonged to a session goes before it: in none that has ended is anything left."""
    state.note_session(SESSION)
    state.note_sampler(SAMPLER)
    state._connection.execute(
        "CREATE TEMP TRIGGER refuse BEFORE DELETE ON samplers BEGIN SELECT RAISE(ABORT, 'full'); END"
    )
    with pytest.raises(OSError, match="full"):
        state.note_end("s1", SessionState.FINISHED)
    saved = again(state)
    assert (list(saved.sessions), list(saved.samplers)) == ([SESSION], [SAMPLER])


def test_old_things_are_forgotten(state: ServiceState, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of sessions that have ended, and of results, so many are kept, the newest; who is alive stays."""
    monkeypatch.setattr(module, "ENDED", 2)
    monkeypatch.setattr(module, "OUTCOMES", 2)
    for name in "abcd":
        state.note_session(KeptSession(session_id=name, tags=(), user_metadata={}, display_name=None))
        if name != "b":
            state.note_end(name, SessionState.EXPIRED)
        state.note_outcome(name, name.encode())
    assert [state.outcome(name) for name in "abcd"] == [None, None, b"c", b"d"]
    assert [one.session_id for one in again(state).sessions] == ["b", "c", "d"]


def test_results_are_found_in_every_life(state: ServiceState) -> None:
    """By the request that they belong to; others have none."""
    state.note_outcome("r", b"{}")
    assert state.outcome("r") == b"{}"
    again(state)
    assert state.outcome("r") == b"{}"
    assert state.outcome("other") is None


def test_the_file_is_its_users(state: ServiceState) -> None:
    """Nobody else may read what users keep with their sessions and runs."""
    assert state.directory is not None
    state.note_session(SESSION)
    assert {file.stat().st_mode & 0o077 for file in state.directory.iterdir()} == {0}


def test_without_a_directory_nothing_is_kept() -> None:
    """Everything can be noted, and nothing is found."""
    state = ServiceState()
    assert not state.lasts
    assert state.open("life", 0.0) == Saved()
    state.note_session(SESSION)
    state.note_run(run())
    state.note_outcome("r", b"{}")
    assert state.outcome("r") is None
    state.close([run()])


def test_one_service_at_a_time(state: ServiceState) -> None:
    """A second one is refused and told what to do, and the first goes on; when it has ended, another may begin."""
    second = ServiceState(state.directory)
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"state is in use: another service .* its own directory"):
            second.open("life-2", 0.0)
    state.note_session(SESSION)
    state.close()
    saved = second.open("life-2", 0.0)
    assert (saved.boot, list(saved.sessions)) == (2, [SESSION])
    second.close()


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """Damaged, of a newer release, or no file at all: an error says which, and nothing is overwritten."""
    file = tmp_path / FILE
    file.write_bytes(b"this is no database " * 500)
    with pytest.raises(ConfigError, match=r"service\.sqlite: .*not a database.* move it away"):
        ServiceState(tmp_path).open("life", 0.0)
    assert file.read_bytes() == b"this is no database " * 500
    file.unlink()
    with sqlite3.connect(file) as newer:
        newer.execute("PRAGMA user_version = 7")
    newer.close()
    with pytest.raises(ConfigError, match="version 7"):
        ServiceState(tmp_path).open("life", 0.0)
    (tmp_path / "plain").write_bytes(b"")
    with pytest.raises(ConfigError, match="plain"):
        ServiceState(tmp_path / "plain").open("life", 0.0)


def test_a_disk_that_refuses_is_an_error_that_names_the_file(state: ServiceState) -> None:
    """Nothing is said to be kept that is not; closing does without."""
    state._connection.execute("PRAGMA query_only = ON")
    with pytest.raises(OSError, match=r"cannot be written to .*service\.sqlite: attempt to write"):
        state.note_session(SESSION)
    state.close([run()])
    assert list(state.open("life-2", 0.0).sessions) == []


FORK = """
import os
import sys
from pathlib import Path
from tests.local.test_state import SESSION, ServiceState, run

state = ServiceState(Path(sys.argv[1]))
state.open("life-1", 100.0)
state.note_session(SESSION)
if os.fork() == 0:
    if sys.argv[2] == "close":
        state.close()
    sys.exit()
assert os.wait()[1] == 0
state.note_run(run())
os._exit(0)  # as by a kill: nothing is written at the end
"""


@pytest.mark.parametrize("how", ["exit", "close"])
def test_a_forked_child_takes_nothing_from_its_parent(tmp_path: Path, how: str) -> None:
    """Not even if it ends in good order, and with it closes all that it has."""
    subprocess.run([sys.executable, "-c", FORK, str(tmp_path), how], check=True, timeout=60)
    state = ServiceState(tmp_path)
    saved = state.open("life-2", 200.0)
    state.close()
    assert (len(saved.sessions), len(saved.runs)) == (1, 1)
