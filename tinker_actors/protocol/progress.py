"""Whether the samples of one client move on: slow ones are told of early, stuck ones are given up late. Pure.

Theory of operation. One stuck sample is a slow one; only when none of a client's samples has ended for long, all are
stuck. What counts is the *silence*: the time since one of them ended, or since the first began after there was none.
After five minutes of it somebody should hear of it, and again after ten, twenty and so on. After the client's
`progress_timeout` (two hours, if nothing else was said) all that wait are given up, and the silence begins anew for
those that come later: they belong to the next *era*. A time in which the service could not be reached at all is not
the samples' and does not count.
"""

from __future__ import annotations

import math

import attrs

__all__ = ["Progress"]

_FIRST_WORD = 300.0  # seconds of silence


@attrs.define(eq=False)
class Progress:
    """When samples of one client ended.

    Attributes:
        latest: when one ended, or when the silence began for another reason.
        waiting: samples that have begun and not ended.
        era: how often all that waited were given up.
    """

    latest: float = -math.inf
    waiting: int = 0
    era: int = 0
    _next_word: float = _FIRST_WORD  # seconds of silence after which it is told again
    _silent_since: float = -math.inf  # the silence that `_next_word` belongs to

    def begin(self, now: float) -> int:
        """A sample begins; the first after none is where the silence starts. Returns its era."""
        if not self.waiting:
            self.latest = now
        self.waiting += 1
        return self.era

    def end(self, now: float) -> None:
        """A sample has ended, well or badly."""
        self.waiting -= 1
        self.latest = now

    def leave(self) -> None:
        """A sample is not waited for any more; that says nothing about the service."""
        self.waiting -= 1

    def resume(self, now: float) -> None:
        """The service could not be reached until now."""
        self.latest = max(self.latest, now)

    def is_stuck(self, era: int, timeout: float, now: float) -> bool:
        """Whether a sample of an era is given up, because none has ended for too long.

        Args:
            era: what `begin` said.
            timeout: seconds of silence; infinity: never.
            now: the present time.
        """
        if era == self.era and self.waiting and now - self.latest >= timeout:
            self.era += 1
            self.latest = now
        return era != self.era

    def overdue(self, now: float) -> float | None:
        """Return the seconds of silence if somebody should hear of them now; None: not yet, or he has."""
        if self._silent_since != self.latest:
            self._silent_since, self._next_word = self.latest, _FIRST_WORD
        silence = now - self.latest
        if not self.waiting or silence < self._next_word:
            return None
        while self._next_word <= silence:
            self._next_word *= 2
        return silence
