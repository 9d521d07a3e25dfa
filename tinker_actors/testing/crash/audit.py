"""What must hold at every moment, by what is committed on disk, not by what a process believes.

Before a request that changes a model goes out, the database of the journal is asked whether the intent is there, with
this very number, and its batch; a request that was sent before may be sent again, for instance to see whether the
service remembers it. Requests that a restore sends again have numbers that no intent has; of them only the kind is
known. Between two lives, each checkpoint that a restore may start from must be on the service; one that is outdated
may have been deleted a moment before that was written.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Final

import attrs
import orjson

__all__ = ["Audit"]

_KINDS: Final = {
    "forward_backward": "forward_backward",
    "optim_step": "optim_step",
    "save_weights": "save_state",
}
_INTENT: Final = """
SELECT body, segment, offset + 40 + length FROM requests
JOIN operations USING(position) LEFT JOIN bodies ON body = digest
WHERE number = ? AND kind = ?
"""


@attrs.define(eq=False)
class Audit:
    """Looks into the journal of a run.

    Attributes:
        directory: of the run.
        found: what did not hold, in words.
        database: the journal's, as long as a life has it open.
    """

    directory: Path
    found: list[str] = attrs.field(factory=list[str])
    database: sqlite3.Connection | None = None
    _sent: set[bytes] = attrs.field(factory=set[bytes])

    def sends(self, endpoint: str, read: Callable[[], Any]) -> None:
        """Look whether a request may go out.

        Args:
            endpoint: where to.
            read: gives its body as JSON values.
        """
        kind = _KINDS.get(endpoint)
        if kind is None or self.database is None:
            return
        body = read()
        model_id, number = body["model_id"], body["seq_id"]
        content = orjson.dumps([endpoint, body], option=orjson.OPT_SORT_KEYS)
        if content in self._sent:
            return
        self._sent.add(content)
        if self.database.in_transaction or not self._is_intended(self.database, kind, model_id, number):
            what = f"{endpoint}, number {number} of {model_id},"
            self.found.append(f"{what} was sent before its intent was committed")

    def _is_intended(self, journal: sqlite3.Connection, kind: str, model_id: str, number: int) -> bool:
        facts = dict(journal.execute("SELECT name, value FROM meta WHERE name IN ('model', 'live')"))
        model: dict[str, Any] = json.loads(facts.get("model", "null")) or {}
        if model.get("model_id") == model_id:
            for body, segment, end in journal.execute(_INTENT, (number, kind)):
                return body is None or self._is_on_disk(segment, end)
            if facts.get("live") == "true":
                return False
        found = journal.execute("SELECT 1 FROM operations WHERE kind = ?", (kind,)).fetchone()
        return found is not None  # a restore sends it again

    def _is_on_disk(self, segment: int | None, end: int) -> bool:
        if segment is None:
            return False
        path = self.directory / "bodies" / f"{segment:06d}.seg"
        return path.exists() and path.stat().st_size >= end

    def rests(self, checkpoints: Collection[str]) -> None:
        """Look, between two lives, whether the service has what the journal would restore from."""
        path = self.directory / "journal.sqlite"
        if not path.exists():
            return
        with (
            contextlib.closing(sqlite3.connect(path)) as journal,
            contextlib.suppress(sqlite3.OperationalError),  # a life may end before there are tables
        ):
            for name, saved in journal.execute("SELECT name, path FROM checkpoints WHERE usable"):
                if saved not in checkpoints:
                    self.found.append(f"checkpoint {name} counts as saved, and the service does not have it")
