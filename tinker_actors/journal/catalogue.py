"""The saved states of a run, from the moment they were put in line until they are gone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, cast

import attrs

from tinker_actors.journal.schema import Statement
from tinker_actors.protocol.journal import Checkpoint, Operation
from tinker_actors.protocol.retention import CheckpointState, RunCheckpoint

__all__ = ["Catalogue", "SavedState", "begun"]

_ROW: Final = "INSERT OR REPLACE INTO checkpoints VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_UNWRITTEN: Final = frozenset({"weights_access_token", "left_out"})


@attrs.define(eq=False)
class SavedState:
    """A saved state.

    Attributes:
        position: of the operation that saved or loaded it.
        name: what it was saved under; None if it was loaded.
        path: where it is.
        state: what is known of it.
        usable: a restore can start from it.
        left_out: it is not used by this process, which could not load it; the next one may.
        step: how many steps it holds.
        tokens: how many had been trained.
        metric: how good it is.
        pinned: it is kept whatever the rules say.
        time: when it was put in line, in seconds since 1970.
        ttl: the time to live that it was given, in seconds.
        weights_access_token: admits to it; it is never written.
    """

    position: int
    name: str | None
    path: str | None = None
    state: CheckpointState = "begun"
    usable: bool = False
    step: int = 0
    tokens: int = 0
    metric: float | None = None
    pinned: bool = False
    time: float = 0.0
    ttl: int | None = None
    weights_access_token: str | None = attrs.field(default=None, repr=False)
    left_out: bool = False

    def row(self) -> Statement:
        """Return its row."""
        values = attrs.astuple(self, filter=lambda field, _: field.name not in _UNWRITTEN)
        return _ROW, values

    def checkpoint(self) -> Checkpoint:
        """Return it as the rules know it."""
        return Checkpoint(cast("str", self.path), self.position, self.weights_access_token)

    def of_run(self) -> RunCheckpoint:
        """Return it as a run shows it."""
        return RunCheckpoint(
            name=self.name or "",
            path=self.path,
            step=self.step,
            state=self.state,
            tokens=self.tokens,
            metric=self.metric,
            pinned=self.pinned,
            time=self.time,
            ttl_seconds=self.ttl,
        )


def begun(position: int, operation: Operation, *, step: int, tokens: int, time: float) -> SavedState | None:
    """Return the state that an operation saves or loads; None if it does neither."""
    if operation.kind == "save_state":
        ttl = operation.ttl_seconds
        return SavedState(position, operation.name, step=step, tokens=tokens, time=time, ttl=ttl)
    if operation.kind == "load_state" and operation.optimizer:
        return SavedState(position, None, operation.path, step=step, tokens=tokens, time=time)
    return None


class Catalogue:
    """The saved states of a run, by position.

    Args:
        states: those that are known, in order.
    """

    def __init__(self, states: Iterable[SavedState]) -> None:
        self._states = {one.position: one for one in states}

    def __iter__(self) -> Iterator[SavedState]:
        return iter(self._states.values())

    def __contains__(self, position: int) -> bool:
        return position in self._states

    def add(self, state: SavedState) -> None:
        """Take one in."""
        self._states[state.position] = state

    def at(self, position: int) -> SavedState:
        """Return the one at a position; one that is not known yet begins here."""
        return self._states.setdefault(position, SavedState(position, None))

    def named(self, name: str) -> SavedState | None:
        """Return the newest one of a name."""
        return next((one for one in reversed(self._states.values()) if one.name == name), None)

    def remove(self, position: int) -> list[Statement]:
        """Forget one; return the rows."""
        if self._states.pop(position, None) is None:
            return []
        return [("DELETE FROM checkpoints WHERE position = ?", (position,))]

    def since(self, position: int) -> list[int]:
        """Return the positions of those that are there or may come to be, from one position on."""
        found: list[int] = []
        for one in reversed(self._states.values()):
            if one.position < position:
                break
            if one.state != "gone":
                found.append(one.position)
        return found

    @property
    def usable(self) -> list[SavedState]:
        """Those that a restore of this process can start from, in order."""
        return [one for one in self if one.usable and not one.left_out]

    def left_out_behind(self, position: int) -> list[SavedState]:
        """Return those behind a position that only this process does without."""
        return [one for one in self if one.left_out and one.usable and one.position > position]

    @property
    def safe_from(self) -> SavedState | None:
        """The second newest one that is usable and verified: what is older than it is not needed to restore."""
        verified = [one for one in self.usable if one.state == "verified"]
        return verified[-2] if len(verified) > 1 else None
