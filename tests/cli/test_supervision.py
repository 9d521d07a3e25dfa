"""What becomes of a supervised command that has ended."""

from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinker_actors.cli.supervision import DO_NOT_RESTART, Again, End, Supervision, status_of
from tinker_actors.kernel import Backoff, RestartPolicy


def supervision(max_restarts: int = 3, period: float = 100.0, final: tuple[int, ...] = ()) -> Supervision:
    policy = RestartPolicy(
        restart="transient",
        max_restarts=max_restarts,
        period=period,
        backoff=Backoff(base=1.0, maximum=60.0, jitter=0.25),
    )
    return Supervision(policy, final)


def test_a_good_end_is_the_end() -> None:
    """Whatever was before it; nobody needs to be told."""
    supervised = supervision()
    assert isinstance(supervised.ended(1, ran_for=1.0, chance=0.0), Again)
    assert supervised.ended(0, ran_for=1.0, chance=0.0) == End(0)


@pytest.mark.parametrize("code", [1, 3, 255, -signal.SIGKILL, -signal.SIGSEGV, -60])
def test_a_bad_end_is_followed_by_another_start(code: int) -> None:
    """Of whatever kind; the delays double, less what chance takes off."""
    supervised = supervision(max_restarts=10)
    delays = []
    for attempt in range(1, 9):
        assert supervised.attempt == attempt
        verdict = supervised.ended(code, ran_for=1.0, chance=0.0)
        assert isinstance(verdict, Again)
        delays.append(verdict.delay)
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60]
    last = supervised.ended(code, ran_for=1.0, chance=0.5)
    assert isinstance(last, Again)
    assert last.delay == 60 * (1 - 0.25 * 0.5)


def test_the_lines_say_how_it_ended_and_what_follows() -> None:
    """With its code or the signal's name, how long it ran, and when it is started again."""
    supervised = supervision(max_restarts=2)
    lines = [supervised.ended(code, ran_for=12.34, chance=0.0).line for code in (1, -9, -60)]
    assert lines == [
        "attempt 1 ended with 1 after 12.3 s; started again in 1.0 s",
        "attempt 2 was ended by SIGKILL after 12.3 s; started again in 2.0 s",
        "attempt 3 was ended by signal 60 after 12.3 s; given up: 2 restarts within 100 s of running time are allowed",
    ]


def test_too_many_restarts_are_too_many() -> None:
    """The status is then that of the command's last run."""
    supervised = supervision(max_restarts=2)
    verdicts = [supervised.ended(7, ran_for=10.0, chance=0.0) for _ in range(3)]
    assert [type(verdict) for verdict in verdicts] == [Again, Again, End]
    assert verdicts[-1] == End(
        7,
        "attempt 3 ended with 7 after 10.0 s; given up: 2 restarts within 100 s of running time are allowed",
    )
    assert supervision(max_restarts=0).ended(-9, ran_for=1.0, chance=0.0) == End(
        137,
        "attempt 1 was ended by SIGKILL after 1.0 s; given up: 0 restarts within 100 s of running time are allowed",
    )


def test_what_fails_seldom_may_fail_for_ever() -> None:
    """Restarts that are further apart than the window do not add up, and each comes after the first delay."""
    supervised = supervision(max_restarts=1)
    verdicts = [supervised.ended(1, ran_for=150.0, chance=0.0) for _ in range(20)]
    assert [getattr(verdict, "delay", None) for verdict in verdicts] == [1.0] * 20


@pytest.mark.parametrize("code", [2, DO_NOT_RESTART, 126, 127, 9])
def test_what_another_start_would_not_change_is_not_started(code: int) -> None:
    """Wrong usage and configuration, what cannot be run, and codes that the user has named."""
    verdict = supervision(final=(9,)).ended(code, ran_for=1.0, chance=0.0)
    assert verdict == End(
        code, f"attempt 1 ended with {code} after 1.0 s; another start would not change that"
    )


@pytest.mark.parametrize(("code", "status"), [(1, 1), (-15, 143), (130, 130)])
def test_who_was_asked_to_end_is_not_started_again(code: int, status: int) -> None:
    """However it has ended."""
    supervised = supervision()
    supervised.passed_on = signal.SIGTERM
    verdict = supervised.ended(code, ran_for=1.0, chance=0.0)
    assert isinstance(verdict, End)
    assert verdict.status == status
    assert verdict.line.endswith("; it was asked to end")


def test_a_signal_between_two_runs_is_the_end() -> None:
    """With the status that the signal itself would give."""
    supervised = supervision()
    supervised.ended(1, ran_for=1.0, chance=0.0)
    assert supervised.asked_while_down(signal.SIGINT) == End(130, "ended by SIGINT before attempt 2")


def test_what_cannot_be_run_is_the_end() -> None:
    """With the status a shell would give."""
    missing = FileNotFoundError(2, "No such file or directory")
    assert supervision().not_started(missing) == End(
        127, "attempt 1 cannot be started: No such file or directory"
    )
    assert supervision().not_started(PermissionError(13, "Permission denied")).status == 126


@given(st.integers(-64, 255))
def test_statuses_are_those_of_a_shell(code: int) -> None:
    """A signal's are above 128; all can be exited with."""
    assert 0 <= status_of(code) <= 255
    assert status_of(code) == (code if code >= 0 else 128 + abs(code))
