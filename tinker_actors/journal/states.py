"""What becomes of saved states: done, verified, taken the place of, gone.

One that could not be loaded, and is not known to be gone, is *left out*: this process goes on from the one before, and
in its rules it is no more; but it stays usable in the table, for the next process. That holds as long as the table has
all that came before it and after the state that is used: when anything of that goes, it goes as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from tinker_actors.journal.catalogue import Catalogue, SavedState
from tinker_actors.journal.holding import Holding
from tinker_actors.journal.ledger import meta
from tinker_actors.journal.schema import Statement
from tinker_actors.journal.store import Store
from tinker_actors.protocol.retention import RunCheckpoint

__all__ = ["States"]

# Loop states that nobody can come back to; which rollouts a step was made of is remembered.
_OLD: Final = "position < (SELECT MAX(position) FROM decisions WHERE position < ?)"
_FORGET: Final = (
    f"DELETE FROM decisions WHERE groups = '[]' AND {_OLD}",  # noqa: S608 - constants
    f"UPDATE decisions SET after = NULL WHERE after IS NOT NULL AND {_OLD}",  # noqa: S608 - likewise
)


class States:
    """The saved states of a run, and what they let go.

    Args:
        store: where it is written.
        holding: the operations.
        catalogue: the states.
    """

    def __init__(self, store: Store, holding: Holding, catalogue: Catalogue) -> None:
        self._store = store
        self._holding = holding
        self._rules = holding.rules
        self._catalogue = catalogue

    def begin(self, states: Iterable[SavedState]) -> None:
        """Take in those that were put in line; their rows are written with the operations."""
        for state in states:
            self._catalogue.add(state)

    def strike(self, position: int) -> list[Statement]:
        """Forget one that is not made after all; return the rows."""
        begun = position in self._catalogue and self._catalogue.at(position).state == "begun"
        rows = self._catalogue.remove(position) if begun else []
        return [*rows, *self._let_go_behind(position)]

    def _let_go_behind(self, position: int) -> list[Statement]:
        """Something is not held any more, so what was left out behind it has no place in the line."""
        rows: list[Statement] = []
        for state in self._catalogue.left_out_behind(position):
            state.usable = False
            rows.append(state.row())
        return rows

    def recent(self) -> list[int]:
        """Return the positions of the newest usable one, and of those that were put in line after it."""
        newest = self._rules.checkpoint
        return self._catalogue.since(-1 if newest is None else newest.position)

    def checkpointed(self, position: int, path: str, weights_access_token: str | None) -> None:
        """Note where one is; see `DurableJournal.checkpointed`."""
        newest = self._rules.checkpoint
        state = self._catalogue.at(position)
        if state.usable:
            return
        state.path, state.weights_access_token = path, weights_access_token
        state.state = "verified" if state.name is None else "done"  # what was loaded was there
        state.usable = newest is None or position > newest.position
        rows: list[Statement] = []
        if state.usable:
            self._rules.checkpointed(position, path, weights_access_token)
            self._store.later(self._roll)
            replaced = [one for one in self._catalogue if one is not state and one.path == path]
            for one in replaced if state.name is not None else ():
                rows += self._lose(one)
        self._holding.write([*rows, state.row()])

    def _roll(self) -> list[Statement]:
        self._store.segments.roll()
        return []

    def _lose(self, state: SavedState) -> list[Statement]:
        state.state = "gone"
        if state.usable:
            state.usable = False
            self._rules.lose(state.position)
        return [state.row(), *self._let_go_behind(state.position)]

    def fall_back(self, *, gone: bool = True) -> bool:
        """Forget the newest usable one for the one before; for good, or in this process."""
        newest = self._rules.checkpoint
        if newest is None or not self._rules.fall_back():
            return False
        state = self._catalogue.at(newest.position)
        if not gone:
            state.left_out = True
            return True
        state.state, state.usable = "gone", False
        self._holding.write([state.row()])
        return True

    def listed(self) -> tuple[RunCheckpoint, ...]:
        """Return those that were saved under a name."""
        return tuple([one.of_run() for one in self._catalogue if one.name is not None])

    def mark(self, name: str, state: Literal["verified", "gone"]) -> bool:
        """Note what became of one; see `DurableJournal.mark`."""
        known = self._catalogue.named(name)
        if known is None:
            return False
        if state == "gone":
            return self._mark_gone(known)
        if known.state == "done":
            known.state = "verified"
            self._holding.write([known.row(), *self._trim()])
        return known.state == "verified"

    def _mark_gone(self, state: SavedState) -> bool:
        newest = self._rules.checkpoint
        if state.usable and newest is not None and newest.position == state.position:
            return self.fall_back()
        self._holding.write(self._lose(state))
        return True

    def _trim(self) -> list[Statement]:
        """Let go what is older than the second newest one that is verified; return the rows."""
        oldest = self._catalogue.safe_from
        if oldest is None:
            return []
        self._rules.trim(oldest.position)
        rows: list[Statement] = [meta("from_creation", False)]
        for one in [one for one in self._catalogue if one.position < oldest.position]:
            if one.state == "gone" or one.name is None:
                rows += self._catalogue.remove(one.position)
            elif one.usable:
                one.usable = False
                rows.append(one.row())
        return [*rows, *[(sql, (oldest.position,)) for sql in _FORGET]]

    def describe(self, name: str, metric: float | None, pinned: bool | None, ttl_seconds: int | None) -> None:
        """Note more about one; see `DurableJournal.describe`."""
        state = self._catalogue.named(name)
        if state is None:
            return
        state.metric = state.metric if metric is None else metric
        state.pinned = state.pinned if pinned is None else pinned
        state.ttl = state.ttl if ttl_seconds is None else ttl_seconds or None
        self._store.note([state.row()])
