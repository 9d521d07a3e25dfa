"""Latency laws."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from tinker_actors.errors import InputError
from tinker_actors.testing import Exponential, Fixed, Lognormal, SlowTail, Uniform


def draws(law, count=4000):
    rng = random.Random(3)
    return [law.draw(rng) for _ in range(count)]


def test_each_law_has_its_middle_and_its_bounds() -> None:
    """Fixed, uniform, exponential and lognormal times lie where their numbers say, and never below zero."""
    assert set(draws(Fixed(2.5))) == {2.5}
    uniform = draws(Uniform(1.0, 3.0))
    assert 1.0 <= min(uniform) < 1.1
    assert 2.9 < max(uniform) <= 3.0
    assert statistics.mean(draws(Exponential(2.0))) == pytest.approx(2.0, rel=0.1)
    assert statistics.median(draws(Lognormal(0.5, 1.0))) == pytest.approx(0.5, rel=0.1)
    assert min(draws(Lognormal(0.5, 2.0))) > 0


def test_a_slow_tail_is_slow_as_often_as_it_says() -> None:
    """So many of all take so many times longer, and the others take what they usually take."""
    slow = sum(seconds > 1 for seconds in draws(SlowTail(Fixed(0.1), rate=0.05, factor=50)))
    assert 150 < slow < 250
    assert set(draws(SlowTail(Fixed(0.1), rate=0.0))) == {0.1}


REFUSED = [
    (lambda: Fixed(-1), "seconds"),
    (lambda: Fixed(math.inf), "seconds"),
    (lambda: Fixed(math.nan), "seconds"),
    (lambda: Uniform(2, 1), "high"),
    (lambda: Exponential(-1), "mean"),
    (lambda: Lognormal(-1), "median"),
    (lambda: Lognormal(1, -1), "sigma"),
    (lambda: SlowTail(Fixed(1), rate=2), "rate"),
    (lambda: SlowTail(Fixed(1), factor=0.5), "factor"),
]


@pytest.mark.parametrize(("make", "field"), REFUSED, ids=[str(place) for place in range(len(REFUSED))])
def test_a_law_that_makes_no_sense_is_refused(make, field) -> None:
    """The error names the field."""
    with pytest.raises(InputError) as caught:
        make()
    assert caught.value.field == field
