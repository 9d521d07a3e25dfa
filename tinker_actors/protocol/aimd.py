"""How many samples may be at a service at once, learned from its refusals. Pure.

Theory of operation. Services do not say how many samples they hold for a key; they refuse one too many, or let it
stand in a paused queue. So the limit is felt out: it falls by a factor when the service refuses, and rises step by step
while it does not (additive increase, multiplicative decrease).

    what happens                                   then
    a request is refused that was sent after       the limit becomes `_FACTOR` of what the service holds, which is
      the last fall                                  what it was found to allow; the rise begins anew
    a request is refused that was sent before      nothing: it is the same refusal
    one sent before the fall is accepted after     the service holds more than it seemed: the fall is computed anew
    a queue is paused                              a fall, but only one in each round
    a round in which somebody had to wait for      a step upwards
      the limit, without a fall
    any other round                                nothing: what was not used has not been tried

A *round* is over when as many samples have ended as the limit allowed when it began: about the time one sample takes.
Steps are small near the level that was last refused and grow with the distance from it, below and beyond (the cubic
curve of RFC 9438): a level that holds is disturbed seldom, and one that has been given up is reached soon, from 1 to
400 within about twenty rounds.

There is no limit before the first refusal, and none when the rise has come to the most that is allowed anyway. The
first refusal after that may be one of a rate and say little about how many there may be at once, so the first fall ends
at ten, further ones at one.
"""

from __future__ import annotations

import math

import attrs

__all__ = ["AdaptiveLimit"]

_FACTOR = 0.9
_GROWTH = 0.05  # samples per cubed round
_FIRST_LEAST = 10


@attrs.define(eq=False)
class AdaptiveLimit:
    """How many samples may be in flight; see the module.

    Attributes:
        most: never more than this.
        allowed: how many now.
        generation: counts the falls; who sends notes it and says it if he is refused.
    """

    most: int
    allowed: int = attrs.field(init=False)
    generation: int = attrs.field(default=0, init=False)
    _ceiling: float = attrs.field(default=math.inf, init=False)  # the level that was last refused
    _quiet: int = attrs.field(default=0, init=False)  # full rounds since then
    _left: int = attrs.field(default=0, init=False)  # samples that are still to end in this round
    _crowded: bool = attrs.field(default=False, init=False)  # somebody had to wait in this round
    _fell: bool = attrs.field(default=False, init=False)  # in this round
    _least: int = attrs.field(default=1, init=False)  # where falls end
    _settled: bool = attrs.field(default=True, init=False)  # something was sent since the last fall

    def __attrs_post_init__(self) -> None:
        self.allowed = self.most

    @property
    def is_low(self) -> bool:
        """Whether it has fallen and not risen to the most again; else there is nothing to count."""
        return self._ceiling < math.inf

    def has_room(self, in_flight: int) -> bool:
        """Whether one more may be sent; notes who has to wait."""
        if in_flight < self.allowed:
            self._settled = True
            return True
        self._crowded = True
        return False

    def accepted(self, held: int) -> None:
        """Take in that the service accepted a request, and now holds so many."""
        if not self._settled and held > self._ceiling:
            self._fall(held)

    def refused(self, generation: int, held: int) -> None:
        """Take in that a request was refused while the service held so many.

        Args:
            generation: as it was when the request was sent.
            held: samples that were accepted and have not ended.
        """
        if generation == self.generation:
            self._settled = False
            self._begin_fall(held)

    def paused(self, held: int) -> None:
        """Take in that a queue is paused while the service holds so many."""
        if not self._fell:
            self._begin_fall(held)

    def ended(self) -> None:
        """Take in that a sample has ended."""
        self._left -= 1
        if self._left <= 0 and self.is_low:
            self._end_round()

    def _begin_fall(self, held: int) -> None:
        self.generation += 1
        self._least = 1 if self.is_low else min(_FIRST_LEAST, self.most)
        self._fall(min(held, self.allowed))

    def _fall(self, held: int) -> None:
        self._ceiling = float(max(self._least, held))
        self._quiet = 0
        self.allowed = max(self._least, int(self._ceiling * _FACTOR))
        self._begin_round(fell=True)

    def _begin_round(self, *, fell: bool) -> None:
        self._left = self.allowed
        self._crowded, self._fell = False, fell

    def _end_round(self) -> None:
        if self._crowded and not self._fell:
            self._quiet += 1
            self.allowed = min(self.most, max(self.allowed, int(self._level())))
        if self.allowed == self.most:
            self._ceiling = math.inf
        self._begin_round(fell=False)

    def _level(self) -> float:
        """Return the point of the curve after so many full rounds."""
        flat = math.cbrt(self._ceiling * (1 - _FACTOR) / _GROWTH)  # rounds after which it is at the ceiling
        return self._ceiling + _GROWTH * (self._quiet - flat) ** 3
