"""The numbers of one model's requests. Pure.

The service carries requests out in the order of their numbers, and one that keeps early ones waits for the missing
ones. So a number that was not used must not leave a hole: it comes back and is given to the next request.
"""

from __future__ import annotations

import heapq

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

    def take(self) -> int:
        """Return a number for a request that is about to be sent."""
        if self._returned:
            return heapq.heappop(self._returned)
        self.next_new += 1
        return self.next_new - 1

    def give_back(self, number: int) -> None:
        """The service did not take the request with this number."""
        heapq.heappush(self._returned, number)
