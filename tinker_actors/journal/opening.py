"""Opening a run's journal: the lock, the database, and what a kill or a dead machine has left of it."""

from __future__ import annotations

import gc
import json
import os
import platform
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, cast

import attrs

from tinker_actors.errors import JournalError, RunLocked
from tinker_actors.journal.contents import Station
from tinker_actors.journal.disk import Disk
from tinker_actors.journal.durable import DurableJournal
from tinker_actors.journal.ledger import Ledger, meta
from tinker_actors.journal.reading import contents_of
from tinker_actors.journal.schema import DATABASE, FORMAT, SCHEMA, Statement
from tinker_actors.journal.segments import Segments
from tinker_actors.journal.stamp import Stamp
from tinker_actors.journal.store import Store
from tinker_actors.journal.tables import Tables, read_tables
from tinker_actors.journal.tail import cut
from tinker_actors.protocol.checkpoint_policy import JOURNAL_BYTES

__all__ = ["Durability", "open_journal"]

Durability = Literal["process", "machine"]

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")  # Linux
_WHAT_TO_DO: Final = (
    "put a copy back, or begin the run in another directory; the checkpoints on the service are not affected"
)


def _utc() -> float:
    return datetime.now(UTC).timestamp()


def open_journal(
    folder: str | os.PathLike[str],
    *,
    durability: Durability = "process",
    max_bytes: int = JOURNAL_BYTES,
    inline: bool = False,
    disk: Disk | None = None,
    now: Callable[[], float] = _utc,
) -> DurableJournal:
    """Open the journal in a run's directory, or begin one. Reads files; it takes well below a second.

    Args:
        folder: the run's directory; it is made if it is not there.
        durability: `process` survives the end of the process, however it ends; `machine` that of the machine as well:
            what is recorded is then on the medium before it is sent.
        max_bytes: what the batches may take on disk.
        inline: write in the caller and not in a thread: for virtual time, and for crashes at chosen points.
        disk: how files are reached; tests give their own.
        now: the time, in seconds since 1970.

    Raises:
        RunLocked: another process has it open; nothing of it is touched.
        JournalError: it cannot be read or written, or it is damaged in another way than by a torn tail.
    """
    path = Path(folder)
    disk = Disk() if disk is None else disk
    here = Station(host=platform.node(), boot=_boot(), time=now())
    try:
        with _undisturbed():
            return _open(path, disk, here, durability, max_bytes, now, inline=inline)
    except OSError as error:
        disk.abandon()
        raise JournalError(f"{path} cannot be used: {error}", path=str(path)) from error
    except sqlite3.Error as error:
        disk.abandon()
        raise _refusal(path, error) from error
    except BaseException:
        disk.abandon()
        raise


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Collect no garbage meanwhile: there is none among what is read, and looking for it takes a third of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _boot() -> str:
    with suppress(OSError):
        return _BOOT_ID.read_text().strip()
    return ""


def _which(file: Path) -> str:
    status = file.stat()
    return f"{status.st_dev}:{status.st_ino}"


def _refusal(path: Path, error: sqlite3.Error) -> JournalError:
    file = path / DATABASE
    if isinstance(error, sqlite3.OperationalError):
        return JournalError(f"{file} cannot be used: {error}", path=str(file))
    why = " ".join(str(error).split())
    return JournalError(f"{file} is damaged or no journal ({why}): {_WHAT_TO_DO}", path=str(file))


def _open(
    path: Path,
    disk: Disk,
    here: Station,
    durability: Durability,
    max_bytes: int,
    now: Callable[[], float],
    *,
    inline: bool,
) -> DurableJournal:
    bodies = path / "bodies"
    disk.make_folder(bodies, sync=durability == "machine")
    _lock(path, disk, here)
    database = _connect(path, disk, bodies, durability)
    here = attrs.evolve(here, file=_which(path / DATABASE), synced=durability == "machine")
    tables = read_tables(database, path / DATABASE)
    segments = Segments(disk, bodies, sync=durability == "machine")
    segments.load(tables.places)
    ledger = Ledger(segments, next_position=tables.next_position, bodies=tables.bodies, max_bytes=max_bytes)
    before = tables.station
    restarted = before is not None and (before.host, before.boot) != (here.host, here.boot)
    torn = cut(tables, database, segments, check=restarted or not here.boot)
    stamp = Stamp(before, here, now)
    _begin(disk, database, tables, [*torn.rows, *ledger.remove(torn.positions), stamp()])
    segments.sweep()
    store = Store(path, disk, database, segments, ledger, stamp, inline=inline)
    return DurableJournal(store, contents_of(tables), here, max_bytes=max_bytes, now=now)


def _lock(path: Path, disk: Disk, here: Station) -> None:
    holder = json.dumps({"pid": os.getpid(), "host": here.host}).encode()
    other = disk.lock(path / "lock", holder)
    if other is None:
        return
    told: dict[str, object] = {}
    with suppress(ValueError):
        told = json.loads(other)
    pid, host = cast("int | None", told.get("pid")), cast("str | None", told.get("host"))
    who = "another process" if pid is None else f"process {pid} on {host}"
    raise RunLocked(f"{path} is open in {who}", path=str(path), pid=pid, host=host)


def _connect(path: Path, disk: Disk, bodies: Path, durability: Durability) -> sqlite3.Connection:
    file = path / DATABASE
    is_new = not file.exists()
    if is_new and any(bodies.glob("*.seg")):
        why = f"{file} is missing, but there are batches in {bodies}: {_WHAT_TO_DO}"
        raise JournalError(why, path=str(file))
    database = disk.connect(file)
    database.execute("PRAGMA locking_mode = EXCLUSIVE")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute(f"PRAGMA synchronous = {'FULL' if durability == 'machine' else 'NORMAL'}")
    if database.execute("SELECT COUNT(*) FROM sqlite_schema").fetchone() == (0,):
        if any(bodies.glob("*.seg")):
            raise JournalError(f"{file} is empty, but there are batches: {_WHAT_TO_DO}", path=str(file))
        database.execute("BEGIN IMMEDIATE")
        for statement in SCHEMA.split(";"):
            database.execute(statement)
        for row in (meta("format", FORMAT), meta("from_creation", True)):
            database.execute(*row)
        disk.commit(database)
    return database


def _begin(disk: Disk, database: sqlite3.Connection, tables: Tables, rows: list[Statement]) -> None:
    """Write that the journal was opened once more, and what is left of it.

    That is on the medium whatever the durability: from how often it was opened follow the numbers that this process
    gives its models in a session, and who gave them once more after the machine died would get its models.
    """
    (usual,) = database.execute("PRAGMA synchronous").fetchone()
    database.execute("PRAGMA synchronous = FULL")
    database.execute("BEGIN IMMEDIATE")
    for sql, values in [*rows, meta("incarnation", tables.incarnation + 1)]:
        database.execute(sql, values)
    disk.commit(database)
    database.execute(f"PRAGMA synchronous = {usual}")
