"""The arithmetic of restarts: records of children, windows of supervisors."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tinker_actors.errors import InputError
from tinker_actors.kernel import Backoff, Intensity, RestartPolicy
from tinker_actors.kernel.restart import GiveUp, Record, Remain, Restart, Window

FLAT = Backoff(base=1.0, maximum=8.0, jitter=0.0)


def end(record: Record, *, ran_for: float = 0.0, crashed: bool = True, line: str = "x") -> Any:
    return record.ended(line, crashed=crashed, ran_for=ran_for, chance=0.0)


# --- a supervisor's window ----------------------------------------------------------------------------------


@pytest.mark.rule("S5")
def test_so_many_and_no_more() -> None:
    """`max_restarts` within the period are admitted, the next one is not."""
    window = Window(Intensity(max_restarts=3, period=60.0), 100.0)
    assert [window.admit(100.0 + second) for second in range(4)] == [True, True, True, False]
    assert window.restarts == 4


def test_old_ones_do_not_count() -> None:
    """What lies a period back is forgotten, exactly at its end."""
    window = Window(Intensity(max_restarts=1, period=60.0), 0.0)
    assert window.admit(0.0)
    assert not window.admit(59.9)
    assert not window.admit(119.0)
    assert window.admit(179.0)
    assert window.restarts == 1


@pytest.mark.rule("S6")
def test_the_clock_stands_still_while_a_child_waits() -> None:
    """A long backoff ages no restart, so slow cycles of crashes cannot outlive the window."""
    window = Window(Intensity(max_restarts=1, period=60.0), 0.0)
    assert window.admit(0.0)
    window.pause(10.0)
    window.resume(1010.0)
    assert not window.admit(1050.0)
    assert window.admit(1111.0)


@pytest.mark.parametrize(("now", "admitted"), [(1059.9, False), (1060.0, True)])
def test_what_ran_before_a_wait_counts(now: float, admitted: bool) -> None:
    """The seconds before a pause and those after it add up to the period."""
    window = Window(Intensity(max_restarts=1, period=60.0), 0.0)
    assert window.admit(0.0)
    window.pause(10.0)
    window.resume(1010.0)
    assert window.admit(now) is admitted


def test_it_goes_on_when_the_last_one_has_waited() -> None:
    """Two waits that overlap are one pause."""
    window = Window(Intensity(max_restarts=1, period=60.0), 0.0)
    assert window.admit(0.0)
    window.pause(10.0)
    window.pause(20.0)
    window.resume(500.0)
    assert not window.admit(900.0)
    window.resume(1000.0)
    assert not window.admit(1049.0)
    assert window.admit(1110.0)


def test_a_window_that_admits_nothing() -> None:
    """`max_restarts=0` means that nothing is ever restarted."""
    assert not Window(Intensity(max_restarts=0), 0.0).admit(5.0)


def test_a_new_life_begins_with_an_empty_window() -> None:
    """`clear` forgets the restarts, and keeps the clock."""
    window = Window(Intensity(max_restarts=1, period=60.0), 0.0)
    assert window.admit(1.0)
    window.clear()
    assert window.restarts == 0
    assert window.admit(2.0)
    assert not window.admit(3.0)


@pytest.mark.parametrize(
    "settings", [{"max_restarts": -1}, {"max_restarts": 1.5}, {"period": -1.0}, {"period": math.nan}]
)
def test_wrong_intensities_are_refused(settings: dict[str, Any]) -> None:
    """A number out of its bounds is refused where it is written."""
    with pytest.raises(InputError) as caught:
        Intensity(**settings)
    assert caught.value.field in settings


# --- a child's record ---------------------------------------------------------------------------------------


@pytest.mark.rule("S7")
def test_a_streak_of_crashes_waits_longer_and_ends() -> None:
    """Delays double up to the largest, and after `max_restarts` the child is given up."""
    record = Record(RestartPolicy(max_restarts=5, backoff=FLAT))
    decisions = [end(record) for _ in range(6)]
    assert decisions[:5] == [Restart(1, 1), Restart(2, 2), Restart(4, 3), Restart(8, 4), Restart(8, 5)]
    assert decisions[5] == GiveUp()


def test_health_resets_the_delay_but_not_the_count() -> None:
    """After `reset_after` healthy seconds the delay starts from its base; the window still remembers."""
    record = Record(RestartPolicy(max_restarts=3, period=100.0, reset_after=10.0, backoff=FLAT))
    assert [end(record, ran_for=9.9), end(record, ran_for=9.9)] == [Restart(1, 1), Restart(2, 2)]
    assert end(record, ran_for=10.0) == Restart(1, 1)
    assert record.streak == 1
    assert end(record, ran_for=10.0) == GiveUp()


@pytest.mark.rule("S6")
def test_only_running_time_ages() -> None:
    """The window moves by the seconds the child was healthy, whatever the clock on the wall says."""
    record = Record(RestartPolicy(max_restarts=1, period=30.0, backoff=FLAT))
    assert isinstance(end(record, ran_for=5.0), Restart)
    assert end(record, ran_for=29.9) == GiveUp()
    assert isinstance(end(record, ran_for=30.1), Restart)


@pytest.mark.lesson("D12")
@pytest.mark.rule("S4")
@pytest.mark.parametrize(
    ("restart", "crashed", "remains"),
    [
        ("permanent", True, False),
        ("permanent", False, False),
        ("transient", True, False),
        ("transient", False, True),
        ("temporary", True, True),
        ("temporary", False, True),
    ],
)
def test_who_is_started_again(restart: Any, crashed: bool, remains: bool) -> None:
    """The type of the child and the way it ended decide."""
    decision = end(Record(RestartPolicy(restart=restart)), crashed=crashed)
    assert isinstance(decision, Remain) is remains


def test_the_history_is_that_of_the_window() -> None:
    """The lines of the ends that count, oldest first; `clear` empties it."""
    record = Record(RestartPolicy(max_restarts=9, period=10.0, backoff=FLAT))
    for number in range(4):
        end(record, ran_for=4.0, line=str(number))
    assert record.history == ("1", "2", "3")
    end(record, ran_for=2.0, line="4")
    assert record.history == ("2", "3", "4")  # the end before is exactly a period old
    record.clear()
    assert record.history == ()
    assert record.streak == 0
    assert end(record) == Restart(1, 1)


@pytest.mark.rule("S6")
def test_reset_after_follows_the_backoff() -> None:
    """By default it is the middle of the delays, and at least ten seconds."""
    assert RestartPolicy().reset_after == pytest.approx(15.05)
    assert RestartPolicy(backoff=FLAT).reset_after == 10.0
    assert RestartPolicy(backoff=FLAT, reset_after=0.0).reset_after == 0.0


def test_a_significant_child_may_end_by_itself() -> None:
    """A permanent child never does, so it cannot be significant."""
    with pytest.raises(InputError) as caught:
        RestartPolicy().check_significant(significant=True)
    assert caught.value.field == "significant"
    RestartPolicy().check_significant(significant=False)
    RestartPolicy(restart="transient").check_significant(significant=True)
