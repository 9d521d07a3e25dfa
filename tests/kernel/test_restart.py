from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinker_actors.kernel import Backoff, RestartPolicy
from tinker_actors.kernel.restart import Decision, GiveUp, Record, Remain, Restart, RestartType, decide

CHANCES = st.floats(0, 1, exclude_max=True)
BACKOFFS = st.builds(Backoff, base=st.floats(0, 100), maximum=st.floats(0, 1000), jitter=st.floats(0, 1))


def ask(policy: RestartPolicy, **facts: object) -> Decision:
    """Decide about a first crash, unless the facts say otherwise."""
    facts = {
        "crashed": True,
        "failures": (),
        "ran_for": 0.0,
        "now": 0.0,
        "streak": 0,
        "chance": 0.0,
        **facts,
    }
    return decide(policy, **facts)


@pytest.mark.lesson("D12")
@pytest.mark.rule("S4")
@pytest.mark.parametrize(
    ("restart", "crashed", "expected"),
    [
        ("permanent", True, Restart),
        ("permanent", False, Restart),
        ("transient", True, Restart),
        ("transient", False, Remain),
        ("temporary", True, Remain),
        ("temporary", False, Remain),
    ],
)
def test_the_types_of_restart(restart: RestartType, crashed: bool, expected: type[Decision]) -> None:
    """Permanent children always live again, transient ones after a crash, temporary ones never."""
    assert isinstance(ask(RestartPolicy(restart=restart), crashed=crashed), expected)


@pytest.mark.rule("S7")
@given(BACKOFFS, st.integers(0, 10_000), CHANCES)
def test_a_delay_never_exceeds_its_maximum(backoff: Backoff, streak: int, chance: float) -> None:
    """However long the streak, the delay lies between nothing and the maximum, and jitter only shortens it."""
    delay = backoff.delay(streak, chance)
    assert 0 <= delay <= backoff.maximum
    whole = backoff.delay(streak, 0.0)
    assert whole * (1 - backoff.jitter) - 1e-9 <= delay <= whole


@given(BACKOFFS, st.integers(0, 100), CHANCES)
def test_delays_of_a_streak_do_not_shrink(backoff: Backoff, streak: int, chance: float) -> None:
    """With the same chance, a longer streak never waits less."""
    assert backoff.delay(streak, chance) <= backoff.delay(streak + 1, chance)


@pytest.mark.rule("S7")
def test_delays_double_up_to_the_maximum() -> None:
    """Without jitter the delays are base, twice the base, and so on."""
    backoff = Backoff(base=1.0, maximum=5.0, jitter=0.0)
    assert [backoff.delay(streak, 0.9) for streak in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]


@pytest.mark.rule("S5")
@given(st.integers(0, 5), st.lists(st.floats(0, 100), max_size=8), st.floats(0, 100))
def test_the_window_counts_restarts_of_the_period(allowed: int, stamps: list[float], now: float) -> None:
    """It is given up exactly if the period before now holds as many restarts as are allowed."""
    policy = RestartPolicy(max_restarts=allowed, period=10.0)
    failures = tuple(sorted(stamp for stamp in stamps if stamp <= now))
    recent = sum(now - stamp < 10.0 for stamp in failures)
    decision = ask(policy, failures=failures, now=now)
    assert isinstance(decision, GiveUp if recent >= allowed else Restart)


@pytest.mark.rule("S6")
def test_the_window_is_in_running_time() -> None:
    """Slow cycles do not outlive the window: what counts is the time the child ran, not the clock on the wall.

    Four crashes a minute apart, each after one second of running, are four crashes within four seconds.
    """
    policy = RestartPolicy(max_restarts=3, period=30.0)
    assert isinstance(ask(policy, failures=(1.0, 2.0, 3.0), now=4.0, ran_for=1.0), GiveUp)
    assert isinstance(ask(policy, failures=(1.0, 2.0, 3.0), now=31.0, ran_for=28.0), Restart)


@pytest.mark.rule("S6")
@given(st.integers(0, 50), st.floats(0, 100), CHANCES)
def test_health_ends_a_streak(streak: int, ran_for: float, chance: float) -> None:
    """The backoff starts from its base again after `reset_after` seconds of health, and not before."""
    policy = RestartPolicy(reset_after=10.0)
    decision = ask(policy, streak=streak, ran_for=ran_for, chance=chance)
    counted = 0 if ran_for >= 10.0 else streak
    assert decision == Restart(policy.backoff.delay(counted, chance), counted + 1)


@pytest.mark.rule("S6")
@pytest.mark.scenario(26)
def test_a_crash_just_after_the_window_keeps_the_streak() -> None:
    """Crashing a little less often than the window forbids does not bring the short delays back."""
    policy = RestartPolicy(max_restarts=1, period=5.0, reset_after=10.0)
    decision = ask(policy, failures=(0.0,), now=6.0, ran_for=6.0, streak=4)
    assert decision == Restart(policy.backoff.delay(4, 0.0), 5)


def test_what_does_not_count_is_restarted_as_often_as_it_comes() -> None:
    """A change outside that an actor answers by starting anew costs nothing of its restarts, nor of its streak."""
    record = Record(RestartPolicy(max_restarts=1, uncounted=(KeyError,)))
    for _ in range(100):
        assert record.ended("lost", crashed=True, ran_for=0.0, chance=0.0, counts=False) == Restart(0.1, 0)
    assert isinstance(record.ended("bug", crashed=True, ran_for=0.0, chance=0.0), Restart)
    assert isinstance(record.ended("lost", crashed=True, ran_for=0.0, chance=0.0, counts=False), Restart)
    assert isinstance(record.ended("bug", crashed=True, ran_for=0.0, chance=0.0), GiveUp)
    temporary = Record(RestartPolicy(restart="temporary", uncounted=(KeyError,)))
    assert isinstance(temporary.ended("lost", crashed=True, ran_for=0.0, chance=0.0, counts=False), Remain)
