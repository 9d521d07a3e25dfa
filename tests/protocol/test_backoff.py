from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinker_actors.protocol.backoff import SampleBackoff

seconds = st.none() | st.floats(0, 1e6)


@pytest.mark.requirement("R128")
@pytest.mark.lesson("D31", "L15")
def test_a_refusal_holds_everybody_back() -> None:
    """For as long as the service asks, else for a second."""
    backoff = SampleBackoff()
    assert backoff.wait(10.0) == 0.0
    backoff.refused(now=10.0, retry_after=None)
    assert (backoff.wait(10.0), backoff.wait(10.75), backoff.wait(11.0), backoff.wait(12.0)) == (
        1.0,
        0.25,
        0.0,
        0.0,
    )
    backoff.refused(now=12.0, retry_after=5.5)
    assert (backoff.until, backoff.wait(12.0), backoff.refusals) == (17.5, 5.5, 2)


@pytest.mark.requirement("R129")
@pytest.mark.lesson("L14")
def test_a_shorter_wait_does_not_replace_a_longer_one() -> None:
    """The later refusal asks for less, and the first one still holds."""
    backoff = SampleBackoff()
    backoff.refused(now=0.0, retry_after=60.0)
    backoff.refused(now=1.0, retry_after=0.5)
    assert backoff.wait(1.0) == 59.0


def test_retry_after_zero_is_not_an_invitation_to_knock_without_a_pause() -> None:
    """The pause of a second stays."""
    backoff = SampleBackoff()
    backoff.refused(now=3.0, retry_after=0.0)
    assert backoff.wait(3.0) == 1.0


@pytest.mark.lesson("L16")
@pytest.mark.parametrize("asked", [60.0, 60.1, 86_400.0, 1e300])
def test_nobody_is_held_back_for_longer_than_a_minute(asked: float) -> None:
    """A header that asks for a day does not stop all sampling for a day: a minute later somebody tries."""
    backoff = SampleBackoff()
    backoff.refused(now=10.0, retry_after=asked)
    assert backoff.until == 70.0


@pytest.mark.requirement("R129")
@pytest.mark.lesson("L14")
@given(st.lists(st.tuples(st.floats(0, 100), seconds), max_size=20))
def test_the_clock_only_moves_forward(refusals: list[tuple[float, float | None]]) -> None:
    """No sequence of refusals shortens a wait; each is held for what it asked, up to a minute."""
    backoff, now = SampleBackoff(), 0.0
    for pause, asked in refusals:
        now += pause
        before = backoff.until
        backoff.refused(now=now, retry_after=asked)
        assert backoff.until >= before
        assert backoff.wait(now) >= min(asked or 1.0, 60.0) * (1 - 1e-9) - 1e-9 * now
        assert backoff.wait(backoff.until) == 0.0
    assert backoff.refusals == len(refusals)


def test_a_large_sample_waits_for_longer() -> None:
    """Five seconds above 128 KiB, where the service asks for nothing."""
    for size, pause in [(128 * 1024, 1.0), (128 * 1024 + 1, 5.0)]:
        backoff = SampleBackoff()
        backoff.refused(now=0.0, retry_after=None, size=size)
        assert backoff.until == pause
        backoff.refused(now=0.0, retry_after=30.0, size=size)
        assert backoff.until == 30.0
