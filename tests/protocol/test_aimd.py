"""The limit that is felt out: when it falls, when it rises, and where it settles."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinker_actors.protocol.aimd import AdaptiveLimit


def quiet_round(limit: AdaptiveLimit, *, crowded: bool = True) -> int:
    """Let a round pass in which nothing is refused; return how many are allowed then."""
    if crowded:
        assert not limit.has_room(limit.allowed)
    for _ in range(limit.allowed):
        limit.ended()
    return limit.allowed


def test_there_is_no_limit_before_the_first_refusal() -> None:
    """But the most that was set; then nothing is counted."""
    limit = AdaptiveLimit(400)
    assert (limit.allowed, limit.is_low) == (400, False)
    assert limit.has_room(399)
    assert not limit.has_room(400)
    limit.ended()
    assert limit.allowed == 400


def test_it_falls_to_what_the_service_holds() -> None:
    """By a factor below it, once for all refusals of what was sent before the fall."""
    limit = AdaptiveLimit(400)
    limit.refused(0, 100)
    assert (limit.allowed, limit.generation, limit.is_low) == (90, 1, True)
    for _ in range(50):
        limit.refused(0, 60)
    assert (limit.allowed, limit.generation) == (90, 1)
    limit.refused(1, 60)
    assert (limit.allowed, limit.generation) == (54, 2)
    limit.refused(2, 300)  # the service cannot hold more than were allowed: those end, and nothing is learned
    assert limit.allowed == 48


def test_what_was_accepted_after_the_fall_counts() -> None:
    """Refusals may overtake the acceptance of what was sent with them; once something new is sent, they are settled."""
    limit = AdaptiveLimit(400)
    limit.refused(0, 3)
    for held in range(4, 51):
        limit.accepted(held)
    assert limit.allowed == 45
    assert limit.has_room(44)
    limit.accepted(45)
    limit.accepted(51)
    assert limit.allowed == 45


def test_one_refusal_may_be_a_matter_of_rate() -> None:
    """The first fall ends at ten; if it goes on, one is what is left."""
    limit = AdaptiveLimit(400)
    limit.refused(0, 0)
    assert limit.allowed == 10
    limit.refused(1, 0)
    assert limit.allowed == 1
    small = AdaptiveLimit(4)
    small.refused(0, 2)
    assert (small.allowed, small.is_low) == (4, True)
    small.refused(1, 2)
    assert small.allowed == 1


def test_it_rises_while_rounds_are_quiet_and_full() -> None:
    """In small steps near the level that was refused, in large ones far beyond it, until there is no limit."""
    limit = AdaptiveLimit(400)
    limit.refused(0, 100)
    levels = [quiet_round(limit) for _ in range(30)]
    assert levels == sorted(levels)
    assert levels[:9] == [90, 94, 97, 98, 99, 99, 100, 100, 100]
    assert levels[-1] == 400
    assert not limit.is_low
    assert quiet_round(limit) == 400


def test_it_comes_from_one_to_the_most_within_about_twenty_rounds() -> None:
    """A service that was overloaded is used again soon."""
    limit = AdaptiveLimit(400)
    for generation in range(2):
        limit.refused(generation, 0)
    assert limit.allowed == 1
    rounds = 0
    while limit.is_low:
        quiet_round(limit)
        rounds += 1
    assert 15 <= rounds <= 25


def test_rounds_that_nobody_had_to_wait_in_teach_nothing() -> None:
    """What was not used has not been tried; and the round of a fall is not a quiet one."""
    limit = AdaptiveLimit(400)
    limit.refused(0, 100)
    assert quiet_round(limit, crowded=False) == 90
    assert quiet_round(limit) == 94
    limit.refused(1, 94)
    assert limit.allowed == 84
    assert quiet_round(limit) == 84  # the round in which it fell
    assert quiet_round(limit) > 84


def test_a_paused_queue_is_one_fall_in_each_round() -> None:
    """However many samples hear of it."""
    limit = AdaptiveLimit(400)
    for _ in range(100):
        limit.paused(200)
    assert (limit.allowed, limit.generation) == (180, 1)
    quiet_round(limit)
    limit.paused(180)
    assert limit.allowed == 162


class Service:
    """A service that holds at most `capacity` samples, each for one unit of time, on a clock of its own.

    Refusals and acceptances come at once; a refusal holds the client back for `pause`.
    """

    def __init__(self, limit: AdaptiveLimit, pause: float) -> None:
        self.limit = limit
        self.pause = pause
        self.now = 0.0
        self.ends: deque[float] = deque()
        self.until = 0.0
        self.refusals = 0

    def run(self, seconds: float, capacity: int) -> None:
        """Let time pass with more to do than can be done."""
        end = self.now + seconds
        while self.now < end:
            while self.ends and self.ends[0] <= self.now:
                self.ends.popleft()
                self.limit.ended()
            while self.now >= self.until and self.limit.has_room(len(self.ends)):
                if len(self.ends) >= capacity:
                    self.refusals += 1
                    self.limit.refused(self.limit.generation, len(self.ends))
                    self.until = self.now + self.pause
                else:
                    self.ends.append(self.now + 1.0)
                    self.limit.accepted(len(self.ends))
                    self.now += 1e-4
            nexts = [end, *([self.until] if self.until > self.now else []), *list(self.ends)[:1]]
            self.now = max(self.now, min(nexts))


@pytest.mark.parametrize("pause", [0.01, 0.05])
def test_it_follows_a_limit_that_moves(pause: float) -> None:
    """50, 10, 100: twenty rounds after each move, what is in flight is within a tenth of it, at all times."""
    service = Service(AdaptiveLimit(400), pause)
    for capacity in (50, 10, 100):
        service.run(20.0, capacity)
        for _ in range(40):
            service.run(0.25, capacity)
            assert 0.9 * capacity <= len(service.ends) <= capacity


def test_a_level_that_holds_is_seldom_disturbed() -> None:
    """A refusal in five rounds or more, once it is found."""
    service = Service(AdaptiveLimit(400), 0.05)
    for capacity in (10, 50, 100):
        service.run(30.0, capacity)
        before = service.refusals
        service.run(50.0, capacity)
        assert service.refusals - before <= 10


@given(
    st.integers(1, 500),
    st.lists(
        st.tuples(st.sampled_from(["refused", "old", "paused", "ended", "accepted"]), st.integers(0, 600)),
        max_size=60,
    ),
)
def test_it_stays_in_its_bounds(most: int, events: list[tuple[str, int]]) -> None:
    """At least one, at most the most, whatever happens in whatever order."""
    limit = AdaptiveLimit(most)
    for what, number in events:
        match what:
            case "refused":
                limit.refused(limit.generation, number)
            case "old":
                limit.refused(limit.generation - 1, number)
            case "paused":
                limit.paused(number)
            case "ended":
                limit.has_room(number)
                for _ in range(number):
                    limit.ended()
            case _:
                limit.accepted(min(number, most))
        assert 1 <= limit.allowed <= most
