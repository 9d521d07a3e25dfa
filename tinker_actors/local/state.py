"""What a service keeps beside its checkpoints, so that it has after a restart what it acknowledged before.

Theory of operation. One SQLite file in a directory, with a table for each kind of thing:

    lives      every life of the service (a *boot*, counted from 1) and the name in its request ids
    sessions   what clients gave with them, and whether they are alive, have finished or have expired
    runs       the models that were made, loaded or not
    samplers   places to sample from whose weights can be had again: a base model's, or those of a path
    outcomes   the results of what was saved or loaded, by request id, the newest `OUTCOMES`

Each change is written, and handed to the system, before the answer that depends on it: a process that is killed loses
none. (After a failure of power the last changes may be missing. Checkpoints are not kept here but in folders of their
own, which are synced, each with its note.) Nothing is written for a gradient or an optimizer step, nor for a beat:
promises that are open when a service ends are not noted one by one, for the boot in a request id tells that it was
given in an earlier life, and that there will be no result.

The file is held exclusively for as long as it is open, so two services cannot share a directory. The system lets go of
it when the process ends, however it ends.

Every method may be called from any thread. Without a directory nothing is kept, and nothing is found.
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import orjson

from tinker_actors.errors import ConfigError

from .session import SessionState

if TYPE_CHECKING:
    import sqlite3

__all__ = ["FILE", "KeptSampler", "KeptSession", "Run", "Saved", "ServiceState"]

FILE: Final = "service.sqlite"
OUTCOMES: Final = 10_000
ENDED: Final = 1024
"""Ended sessions that are remembered."""

_VERSION: Final = 1
_SCHEMA: Final = """
    CREATE TABLE lives (boot INTEGER PRIMARY KEY, life TEXT NOT NULL, opened REAL NOT NULL);
    CREATE TABLE sessions (
        session_id TEXT PRIMARY KEY, tags TEXT NOT NULL, user_metadata TEXT NOT NULL, display_name TEXT,
        state TEXT NOT NULL
    );
    CREATE TABLE runs (
        run_id TEXT PRIMARY KEY, session_id TEXT NOT NULL, base_model TEXT NOT NULL, rank INTEGER NOT NULL,
        user_metadata TEXT NOT NULL, last_request REAL NOT NULL
    );
    CREATE TABLE samplers (
        sampler_id TEXT PRIMARY KEY, session_id TEXT NOT NULL, number INTEGER NOT NULL, digest BLOB NOT NULL,
        base_model TEXT, model_path TEXT
    );
    CREATE TABLE outcomes (number INTEGER PRIMARY KEY, request_id TEXT NOT NULL UNIQUE, result BLOB NOT NULL);
"""
_log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class KeptSession:
    """A session.

    Attributes:
        session_id: its id.
        tags, user_metadata, display_name: what its client gave with it.
        state: where it is in its life.
    """

    session_id: str
    tags: tuple[str, ...]
    user_metadata: Mapping[str, str]
    display_name: str | None
    state: SessionState = SessionState.ALIVE


@attrs.define(eq=False, kw_only=True)
class Run:
    """A model that was made, loaded or not.

    Attributes:
        run_id: its id.
        session_id: the session that it was made in.
        base_model: what it is made of.
        rank: of its adapter.
        user_metadata: what its user keeps with it.
        last_request: when the last request for it came, by the calendar.
        noted: what of that is on disk.
    """

    run_id: str
    session_id: str
    base_model: str
    rank: int
    user_metadata: Mapping[str, str]
    last_request: float
    noted: float = 0.0


@attrs.frozen(kw_only=True)
class KeptSampler:
    """A place to sample from.

    Attributes:
        sampler_id: its id.
        session_id: the session that it was made in.
        number: its number there.
        digest: tells a repetition of the request that made it from another one.
        base_model: what to sample from; None if there is a path.
        model_path: where its weights lie.
    """

    sampler_id: str
    session_id: str
    number: int
    digest: bytes
    base_model: str | None
    model_path: str | None


@attrs.frozen(kw_only=True)
class Saved:
    """What a service finds when it opens.

    Attributes:
        boot: which life of the service this is, counted from 1.
        lives: the names of earlier ones.
        sessions, runs, samplers: the oldest first.
    """

    boot: int = 1
    lives: frozenset[str] = frozenset()
    sessions: Sequence[KeptSession] = ()
    runs: Sequence[Run] = ()
    samplers: Sequence[KeptSampler] = ()


class ServiceState:
    """Keeps what a service has to know again after a restart.

    Args:
        directory: where, made if it is missing; None keeps nothing.

    Attributes:
        directory: as given.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        _states.add(self)

    @property
    def lasts(self) -> bool:
        """Whether anything is kept."""
        return self.directory is not None

    # --------------------------------------------------------------------------------------------------- life

    def open(self, life: str, date: float) -> Saved:
        """Begin a life of the service and return what is known of earlier ones.

        Args:
            life: a name that no other life has.
            date: what the calendar says.

        Raises:
            ConfigError: another service has the directory open, or the file cannot be used.
        """
        if self.directory is None:
            return Saved()
        import sqlite3

        file = self.directory / FILE
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            file.touch(0o600)  # what users keep with their runs is theirs
            self._connection = connection = _connect(file)
            return _begin(connection, life, date)
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise _unusable(file, error) from error
        except ConfigError:
            self.close()
            raise

    def close(self, runs: Sequence[Run] = ()) -> None:
        """End this life, and note when the last requests came. What cannot be noted any more is left."""
        try:
            for run in runs:
                if run.noted != run.last_request:
                    self.note_run(run)
        except OSError as error:
            _log.warning("the times of last requests were not kept", exc_info=error)
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def leave_to_parent(self) -> None:
        """Keep nothing in a forked child, and leave the file to its parent without closing it.

        The child would take itself for the last one who has the file open, and delete what the parent is writing to;
        and it would do so in the end, whatever is done here, if the object did not outlive everything else.
        """
        if self._connection is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._connection))
        self._connection = None
        self._lock = threading.Lock()  # who had it is not here

    # ---------------------------------------------------------------------------------------------- changes

    def note_session(self, session: KeptSession) -> None:
        """Keep a new session.

        Raises:
            OSError: it cannot be written, as is so for all that is kept below.
        """
        self._write(
            "INSERT INTO sessions VALUES (?, ?, ?, ?, ?)",
            session.session_id,
            orjson.dumps(session.tags).decode(),
            orjson.dumps(dict(session.user_metadata)).decode(),
            session.display_name,
            session.state.value,
        )

    def note_end(self, session_id: str, state: SessionState) -> None:
        """Keep that a session has ended; its places to sample from have ended with it.

        They go first: if only that is kept, the session ends once more after a restart.
        """
        self._write("DELETE FROM samplers WHERE session_id = ?", session_id)
        self._write("UPDATE sessions SET state = ? WHERE session_id = ?", state.value, session_id)

    def note_run(self, run: Run) -> None:
        """Keep a model, or when it was last used."""
        self._write(
            "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (run_id) DO UPDATE SET last_request = excluded.last_request",
            run.run_id,
            run.session_id,
            run.base_model,
            run.rank,
            orjson.dumps(dict(run.user_metadata)).decode(),
            run.last_request,
        )
        run.noted = run.last_request

    def note_sampler(self, sampler: KeptSampler) -> None:
        """Keep a place to sample from."""
        self._write("INSERT INTO samplers VALUES (?, ?, ?, ?, ?, ?)", *attrs.astuple(sampler))

    def note_outcome(self, request_id: str, result: bytes) -> None:
        """Keep the result of a request, and forget one that is old."""
        self._write("INSERT INTO outcomes (request_id, result) VALUES (?, ?)", request_id, result)
        self._write("DELETE FROM outcomes WHERE number <= (SELECT max(number) FROM outcomes) - ?", OUTCOMES)

    def outcome(self, request_id: str) -> bytes | None:
        """Return the result of a request that was kept, in any life; None if there is none."""
        with self._lock:
            if self._connection is None:
                return None
            query = "SELECT result FROM outcomes WHERE request_id = ?"
            row = self._connection.execute(query, (request_id,)).fetchone()
            return None if row is None else bytes(row[0])

    def _write(self, statement: str, *values: Any) -> None:
        import sqlite3

        with self._lock:
            if self._connection is None:
                return
            try:
                self._connection.execute(statement, values)
            except sqlite3.Error as error:
                assert self.directory is not None
                raise OSError(
                    f"the service's state cannot be written to {self.directory / FILE}: {error}"
                ) from error


_states: weakref.WeakSet[ServiceState] = weakref.WeakSet()


def _leave_to_parent() -> None:
    for state in list(_states):
        state.leave_to_parent()


os.register_at_fork(after_in_child=_leave_to_parent)


def _connect(file: Path) -> sqlite3.Connection:
    """Open the file for this connection alone; an error leaves nothing open."""
    import sqlite3

    connection = sqlite3.connect(file, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")  # enough for a kill
    except BaseException:
        connection.close()
        raise
    return connection


def _begin(connection: sqlite3.Connection, life: str, date: float) -> Saved:
    """Count one more life, in one transaction with all that it finds."""
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > _VERSION:
            raise ConfigError(
                f"{FILE} is of version {version}, which a newer release of this package has written"
            )
        if version == 0:
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {_VERSION}")
        connection.execute(
            "DELETE FROM sessions WHERE state <> 'alive' AND session_id NOT IN "
            "(SELECT session_id FROM sessions WHERE state <> 'alive' ORDER BY rowid DESC LIMIT ?)",
            (ENDED,),
        )
        saved = _read(connection)
        connection.execute("INSERT INTO lives VALUES (?, ?, ?)", (saved.boot, life, date))
    return saved


def _read(connection: sqlite3.Connection) -> Saved:
    (boot,) = connection.execute("SELECT coalesce(max(boot), 0) + 1 FROM lives").fetchone()
    return Saved(
        boot=boot,
        lives=frozenset(life for (life,) in connection.execute("SELECT life FROM lives")),
        sessions=[
            KeptSession(
                session_id=session_id,
                tags=tuple(orjson.loads(tags)),
                user_metadata=orjson.loads(metadata),
                display_name=name,
                state=SessionState(state),
            )
            for session_id, tags, metadata, name, state in connection.execute(
                "SELECT session_id, tags, user_metadata, display_name, state FROM sessions ORDER BY rowid"
            )
        ],
        runs=[
            Run(
                run_id=run_id,
                session_id=session_id,
                base_model=base_model,
                rank=rank,
                user_metadata=orjson.loads(metadata),
                last_request=last_request,
                noted=last_request,
            )
            for run_id, session_id, base_model, rank, metadata, last_request in connection.execute(
                "SELECT run_id, session_id, base_model, rank, user_metadata, last_request FROM runs ORDER BY rowid"
            )
        ],
        samplers=[
            KeptSampler(
                sampler_id=sampler_id,
                session_id=session_id,
                number=number,
                digest=digest,
                base_model=base_model,
                model_path=model_path,
            )
            for sampler_id, session_id, number, digest, base_model, model_path in connection.execute(
                "SELECT sampler_id, session_id, number, digest, base_model, model_path FROM samplers ORDER BY rowid"
            )
        ],
    )


def _unusable(file: Path, error: Exception) -> ConfigError:
    if "locked" in str(error):
        return ConfigError(
            f"{file.parent} is in use: another service keeps its state there. Give each its own directory"
        )
    return ConfigError(
        f"the service's state cannot be read from {file}: {error}. If the file is damaged, move it away: "
        "checkpoints beside it stay, sessions and runs without a checkpoint are forgotten"
    )
