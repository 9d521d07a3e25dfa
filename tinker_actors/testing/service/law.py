"""Latency laws: how long something takes, as data; chance is passed in."""

from __future__ import annotations

import math
import random
from typing import TypeAlias

import attrs

from tinker_actors.errors import InputError

__all__ = ["AT_ONCE", "Exponential", "Fixed", "Law", "Lognormal", "SlowTail", "Uniform"]


def _check(name: str, value: float, *, above: float = 0.0) -> None:
    if not (above <= value < math.inf):
        raise InputError(name, value, f"must be a number of at least {above:g}")


@attrs.frozen
class Fixed:
    """Always so many seconds.

    Raises:
        InputError: a negative number.
    """

    seconds: float = 0.0

    def __attrs_post_init__(self) -> None:
        _check("seconds", self.seconds)

    def draw(self, _: random.Random) -> float:
        """Return the seconds; draws nothing."""
        return self.seconds


@attrs.frozen
class Uniform:
    """Between two numbers of seconds, each as likely.

    Raises:
        InputError: a negative number, or the higher one is the lower.
    """

    low: float
    high: float

    def __attrs_post_init__(self) -> None:
        _check("low", self.low)
        _check("high", self.high, above=self.low)

    def draw(self, rng: random.Random) -> float:
        """Return seconds; draws one number."""
        return self.low + (self.high - self.low) * rng.random()


@attrs.frozen
class Exponential:
    """Exponentially distributed, with a mean in seconds.

    Raises:
        InputError: a negative mean.
    """

    mean: float

    def __attrs_post_init__(self) -> None:
        _check("mean", self.mean)

    def draw(self, rng: random.Random) -> float:
        """Return seconds; draws one number."""
        return -self.mean * math.log(1.0 - rng.random())


@attrs.frozen
class Lognormal:
    """Lognormally distributed: the usual shape of answer times.

    Attributes:
        median: seconds; half of all are shorter.
        sigma: how wide it is; 0 is always the median.

    Raises:
        InputError: a negative number.
    """

    median: float
    sigma: float = 0.5

    def __attrs_post_init__(self) -> None:
        _check("median", self.median)
        _check("sigma", self.sigma)

    def draw(self, rng: random.Random) -> float:
        """Return seconds."""
        return self.median * math.exp(self.sigma * rng.gauss(0.0, 1.0))


@attrs.frozen
class SlowTail:
    """As another law says, but some take much longer.

    Attributes:
        usual: the law of most.
        rate: which part of all is slow, 0 to 1.
        factor: how many times longer these take.

    Raises:
        InputError: a rate that is none, or a factor below 1.
    """

    usual: Law
    rate: float = 0.01
    factor: float = 20.0

    def __attrs_post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise InputError("rate", self.rate, "must be between 0 and 1")
        _check("factor", self.factor, above=1.0)

    def draw(self, rng: random.Random) -> float:
        """Return seconds."""
        slow = rng.random() < self.rate
        return self.usual.draw(rng) * (self.factor if slow else 1.0)


Law: TypeAlias = Fixed | Uniform | Exponential | Lognormal | SlowTail

AT_ONCE = Fixed(0.0)
