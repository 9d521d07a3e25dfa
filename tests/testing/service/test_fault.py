"""Plans of faults, and the schedule that keeps to them."""

from __future__ import annotations

import math

import pytest

from tinker_actors.errors import InputError
from tinker_actors.testing import Capacity, Pause, RateLimit, ServiceFault, ServiceFaults
from tinker_actors.testing.service.fault import Schedule


def struck(faults, endpoints, seed=0, now=float):
    """Return the numbers of the requests that something strikes."""
    schedule = Schedule(faults, seed)
    return [count for count, name in enumerate(endpoints) if schedule.arrive(name, now(count))[1]]


def test_a_fault_strikes_the_first_of_its_requests_or_the_one_named() -> None:
    """`nth` counts the requests that the fault may strike, and no others."""
    line = ["asample", "optim_step", "asample", "asample"]
    assert struck(ServiceFaults().refuse(500), line) == [0]
    assert struck(ServiceFaults().refuse(500, of="asample", nth=2), line) == [2]
    assert struck(ServiceFaults().refuse(500, of=("optim_step", "asample"), nth=None), line) == [0, 1, 2, 3]
    assert struck(ServiceFaults().lose_model(), line) == [1]  # a sample names no model


def test_a_fault_with_a_time_strikes_everything_within_it() -> None:
    """Start counts, end does not; `nth` counts within it."""
    line = ["asample"] * 6
    assert struck(ServiceFaults().refuse(429, start=2, end=4), line) == [2, 3]
    assert struck(ServiceFaults().refuse(429, start=2, end=5, nth=2), line) == [3]


def test_chance_is_the_same_for_the_same_seed_and_does_not_hang_together() -> None:
    """What strikes one endpoint's requests does not depend on other requests between them."""
    faults = ServiceFaults().drop(rate=0.3, of="asample")
    alone = struck(faults, ["asample"] * 200, seed=5)
    assert alone == struck(faults, ["asample"] * 200, seed=5) != struck(faults, ["asample"] * 200, seed=6)
    mixed = struck(faults, ["asample", "optim_step", "healthz"] * 200, seed=5)
    assert [number // 3 for number in mixed] == alone
    assert 30 < len(alone) < 90


def test_a_bucket_refuses_when_it_is_empty_and_says_until_when() -> None:
    """Tokens come back at their rate, up to the burst."""
    schedule = Schedule(ServiceFaults(limits=(RateLimit(per_second=0.5, burst=2),)), 0)
    assert [schedule.limited("asample", 0.0) for _ in range(2)] == [None, None]
    assert schedule.limited("optim_step", 0.0) is None
    limit, wait = schedule.limited("asample", 1.0)
    assert (limit.burst, wait) == (2, pytest.approx(1.0))
    assert schedule.limited("asample", 2.0) is None
    assert [schedule.limited("asample", 99.0) is None for _ in range(3)] == [True, True, False]


def test_plans_are_values_that_chaining_does_not_change() -> None:
    """Each method returns a new plan; the old one stays as it was."""
    empty = ServiceFaults()
    one = empty.rollback(of="optim_step")
    assert empty == ServiceFaults()
    assert one.planned == (ServiceFault(what="rollback", of=frozenset({"optim_step"})),)
    assert one.delay(3).planned[1].law.seconds == 3.0


REFUSED = [
    (lambda: ServiceFault(what="explode"), "what"),
    (lambda: ServiceFault(what="drop", form="gently"), "form"),
    (lambda: ServiceFaults().refuse(500, of="assample"), "of"),
    (lambda: ServiceFaults().lose_model(of="asample"), "of"),
    (lambda: ServiceFaults().evict(of="get_info"), "of"),
    (lambda: ServiceFaults().drop(nth=0), "nth"),
    (lambda: ServiceFaults().drop(rate=1.5), "rate"),
    (lambda: ServiceFaults().drop(start=5, end=4), "start"),
    (lambda: ServiceFaults().drop(start=math.nan), "start"),
    (lambda: ServiceFaults().refuse(200), "status"),
    (lambda: ServiceFaults().refuse(429, retry_after_form="soon"), "retry_after_form"),
    (lambda: RateLimit(per_second=0), "per_second"),
    (lambda: RateLimit(per_second=1, burst=0), "burst"),
    (lambda: RateLimit(per_second=1, of=frozenset({"x"})), "of"),
    (lambda: Pause(start=3, end=2), "start"),
    (lambda: Capacity(samples=-1), "samples"),
    (lambda: Capacity(samples=1, start=-1.0), "start"),
]


@pytest.mark.parametrize(("make", "field"), REFUSED, ids=[str(place) for place in range(len(REFUSED))])
def test_a_plan_that_makes_no_sense_is_refused(make, field) -> None:
    """The error names the field, before anything runs."""
    with pytest.raises(InputError) as caught:
        make()
    assert caught.value.field == field
