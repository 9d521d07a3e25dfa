"""Silence of a client's samples: told early, ended late."""

from __future__ import annotations

import math

import pytest

from tinker_actors.protocol.progress import Progress


@pytest.mark.requirement("R132")
def test_all_are_stuck_when_none_has_ended_for_long() -> None:
    """One that ends, well or badly, starts the time anew; one that leaves does not."""
    progress = Progress()
    assert progress.begin(1000.0) == 0
    assert progress.begin(1099.0) == 0
    assert not progress.is_stuck(0, 100.0, 1099.9)
    progress.end(1099.9)
    assert not progress.is_stuck(0, 100.0, 1199.0)
    progress.begin(1150.0)
    progress.leave()
    assert progress.is_stuck(0, 100.0, 1199.9)


@pytest.mark.lesson("D26")
def test_time_begins_with_the_first_sample() -> None:
    """However long nothing was asked for before it."""
    progress = Progress()
    assert not progress.is_stuck(0, 100.0, 10**9)
    progress.begin(10.0)
    progress.end(11.0)
    progress.begin(10_000.0)
    assert not progress.is_stuck(0, 100.0, 10_099.0)
    assert progress.is_stuck(0, 100.0, 10_100.0)


def test_who_comes_after_the_end_is_of_another_era() -> None:
    """All that waited are given up; those that come later have their own time, and infinity has no end."""
    progress = Progress()
    eras = [progress.begin(0.0) for _ in range(3)]
    assert not progress.is_stuck(eras[0], math.inf, 10**9)
    assert progress.is_stuck(eras[0], 100.0, 100.0)
    later = progress.begin(100.0)
    assert (later, progress.era) == (1, 1)
    assert all(progress.is_stuck(era, 100.0, 101.0) for era in eras)
    assert not progress.is_stuck(later, 100.0, 199.0)
    assert progress.is_stuck(later, 100.0, 200.0)


def test_an_absent_service_is_not_the_samples_silence() -> None:
    """The time until it is back does not count."""
    progress = Progress()
    progress.begin(0.0)
    progress.resume(5000.0)
    progress.resume(10.0)
    assert not progress.is_stuck(0, 7200.0, 12_199.0)
    assert progress.is_stuck(0, 7200.0, 12_200.0)


def test_silence_is_told_early_and_ever_more_seldom() -> None:
    """After five minutes, ten, twenty and so on; a sample that ends makes it begin anew."""
    progress = Progress()
    assert progress.overdue(10**9) is None
    progress.begin(0.0)
    progress.begin(0.0)
    told = [now for now in range(0, 7200, 10) if progress.overdue(float(now)) is not None]
    assert told == [300, 600, 1200, 2400, 4800]
    progress.end(7200.0)
    assert progress.overdue(7499.0) is None
    assert progress.overdue(9000.0) == 1800.0
    assert progress.overdue(9001.0) is None
