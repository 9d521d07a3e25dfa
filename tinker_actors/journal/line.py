"""The present model of a journal, the numbers its requests have had, and the promises that are open on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from tinker_actors.journal.ledger import meta
from tinker_actors.journal.schema import Statement
from tinker_actors.protocol.journal import ModelFacts, PartSent

__all__ = ["Line"]


class Line:
    """What was sent to the present model. Each change gives the rows that say so.

    Args:
        model: the model.
        live: whether everything that was replayed into it has its result.
        parts: the requests of operations that have no result, by position.
    """

    def __init__(
        self, model: ModelFacts | None, parts: dict[int, tuple[PartSent, ...]], *, live: bool
    ) -> None:
        self.model = model
        self.live = live
        self._parts = parts

    def made(self, facts: ModelFacts) -> list[Statement]:
        """Take over a new model, or what is said of the numbers of the present one."""
        rows: list[Statement] = []
        if self.model is None or self.model.model_id != facts.model_id:
            self.live = False
            self._parts.clear()
            rows = [meta("live", False), ("DELETE FROM requests", ())]
        self.model = facts
        return [*rows, self._facts()]

    def revived(self) -> list[Statement]:
        """Note that the model is live."""
        self.live = True
        return [meta("live", True)]

    def take(self, numbers: Sequence[int]) -> list[Statement]:
        """Count numbers as used."""
        if self.model is None or not numbers:
            return []
        following = max(self.model.next_number, max(numbers) + 1)  # others in between are no operation's
        free = tuple(number for number in self.model.free if number not in numbers)
        self.model = attrs.evolve(self.model, next_number=following, free=free)
        return [self._facts()]

    def give_back(self, numbers: Iterable[int]) -> list[Statement]:
        """Count numbers as free."""
        freed = set(numbers)
        if self.model is None or not freed:
            return []
        self.model = attrs.evolve(self.model, free=tuple(sorted(freed.union(self.model.free))))
        return [self._facts()]

    def _facts(self) -> Statement:
        assert self.model is not None, "it was made"
        return meta("model", attrs.asdict(self.model))

    def expect(self, position: int, numbers: Sequence[int]) -> None:
        """Note the numbers of an operation's requests; their rows are written with the operation."""
        if numbers:
            self._parts[position] = tuple([PartSent(number=number, request_id=None) for number in numbers])

    def accepted(self, position: int, part: int, request_id: str) -> list[Statement]:
        """Note the promise for a request."""
        parts = list(self._parts.get(position, ()))
        if part >= len(parts):  # it was replayed: its number on this model is not known, nor is it wanted
            return []
        parts[part] = attrs.evolve(parts[part], request_id=request_id)
        self._parts[position] = tuple(parts)
        sql = "UPDATE requests SET request_id = ? WHERE position = ? AND part = ?"
        return [(sql, (request_id, position, part))]

    def settled(self, position: int) -> list[Statement]:
        """Forget the requests of an operation."""
        if self._parts.pop(position, None) is None:
            return []
        return [("DELETE FROM requests WHERE position = ?", (position,))]

    def parts(self, position: int) -> tuple[PartSent, ...]:
        """Return the requests of an operation that has no result."""
        return self._parts.get(position, ())
