"""The numbers of one model's requests. Pure.

The service carries requests out in the order of their numbers, and one that keeps early ones waits for the missing
ones. So a number that was not used must not leave a hole: it comes back and is given to the next request.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

import attrs

__all__ = ["Numbers"]


@attrs.define(eq=False)
class Numbers:
    """Gives numbers out, the lowest free one first.

    Attributes:
        next_new: the lowest number that was never given out.
    """

    next_new: int
    _returned: list[int] = attrs.field(factory=list[int])

    @classmethod
    def of(cls, next_new: int, free: Iterable[int] = ()) -> Numbers:
        """Return the numbers of a model that others have given numbers of before.

        Args:
            next_new: the lowest number that was never given out.
            free: those below it that came back.
        """
        return cls(next_new, sorted(free))

    @property
    def free(self) -> tuple[int, ...]:
        """Numbers that came back and wait for the next requests."""
        return tuple(sorted(self._returned))

    def take(self) -> int:
        """Return a number for a request that is about to be sent."""
        if self._returned:
            return heapq.heappop(self._returned)
        self.next_new += 1
        return self.next_new - 1

    def give_back(self, number: int) -> None:
        """The service did not take the request with this number."""
        heapq.heappush(self._returned, number)

    def freed(self, numbers: Sequence[int]) -> tuple[int, ...]:
        """Return those of some numbers that have come back and were not given out again."""
        return tuple(number for number in numbers if number in self._returned)
