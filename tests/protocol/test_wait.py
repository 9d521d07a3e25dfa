from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tinker_actors.protocol.wait import WaitBoard, WaitEnded, Waiting, WaitSeen


def test_those_who_wait_for_the_same_are_put_together() -> None:
    """The oldest first, with what the service has said; who leaves is gone."""
    board = WaitBoard()
    old = board.enter("m", "OptimStep", "r1", now=0.0)
    for number in range(3):
        board.enter("s", "Sample", f"r{number + 2}", now=5.0 + number)
    old.state, old.reason = "paused_capacity", "no room"
    assert board.look(now=10.0) == [
        WaitSeen("m", "OptimStep", "r1", 10.0, "paused_capacity", "no room", 1),
        WaitSeen("s", "Sample", "r2", 5.0, "active", "", 3),
    ]
    assert board.leave(old, now=11.0) is None
    assert [seen.what for seen in board.look(now=11.0)] == ["Sample"]
    assert len(board) == 3


def test_a_wait_is_told_after_a_minute_and_each_time_it_has_doubled() -> None:
    """And its end, with its length."""
    board = WaitBoard()
    entry = board.enter("s0", "CreateModel", "r1", now=0.0)
    told = [
        (float(second), waiting.seconds)
        for second in range(0, 1000, 10)
        for waiting in board.due(now=float(second))
    ]
    assert told == [(second, second) for second in (60.0, 120.0, 240.0, 480.0, 960.0)]
    assert board.leave(entry, now=1000.0) == WaitEnded("s0", "CreateModel", "r1", 1000.0)


def test_many_that_stand_still_are_told_of_once() -> None:
    """By the oldest of them, with how many there are; other work of the same subject is apart."""
    board = WaitBoard()
    entries = [board.enter("s", "Sample", f"r{number}", now=0.0) for number in range(400)]
    board.enter("s", "Other", "x", now=0.0)
    board.enter("s", "Sample", "young", now=50.0)
    assert board.due(now=61.0) == [
        Waiting("s", "Sample", "r0", 61.0, "active", "", 400),
        Waiting("s", "Other", "x", 61.0, "active", "", 1),
    ]
    assert board.due(now=70.0) == []
    ends = [board.leave(entry, now=71.0) for entry in entries]
    assert ends == [WaitEnded("s", "Sample", "r0", 71.0), *[None] * 399]


@given(st.lists(st.tuples(st.integers(0, 2), st.floats(0, 59)), max_size=60))
def test_a_stream_of_short_waits_is_never_told(waits: list[tuple[int, float]]) -> None:
    """However many there are."""
    board, now = WaitBoard(), 0.0
    for subject, seconds in waits:
        entry = board.enter(str(subject), "Sample", "r", now=now)
        now += seconds
        assert board.due(now=now) == []
        assert board.leave(entry, now=now) is None
    assert len(board) == 0


def test_a_place_in_a_line_of_ones_own_is_seen_and_not_told() -> None:
    """However long it takes; the service's own waits behind it are told."""
    board = WaitBoard()
    place = board.enter("s", "room for a sample", "", now=0.0, telling=False)
    board.enter("s", "Sample", "r", now=1.0)
    assert [waiting.what for waiting in board.due(now=1000.0)] == ["Sample"]
    assert [seen.what for seen in board.look(now=1000.0)] == ["room for a sample", "Sample"]
    assert board.leave(place, now=1000.0) is None


def test_waits_are_sentences() -> None:
    """For the log, and for whoever prints them."""
    assert str(WaitSeen("m", "Forward", "r", 61.4, "active", "", 1)) == (
        "Forward of m has been waited for 61 s"
    )
    assert str(Waiting("s", "Sample", "r", 60.0, "paused_rate_limit", "too many", 3)) == (
        "Sample of s has been waited for 60 s, and 2 more; paused_rate_limit; too many"
    )
    assert str(Waiting("s", "server", "", 60.0, "WAITING_SERVER", "", 1)) == (
        "server of s has been waited for 60 s; WAITING_SERVER"
    )
    assert str(WaitEnded("m", "Forward", "r", 61.4)) == "Forward of m: the wait is over after 61 s"


def test_a_place_in_line_hides_no_wait_that_is_news() -> None:
    """It is neither told of nor counted, also where it is the oldest of its kind."""
    board = WaitBoard()
    board.enter("s", "Sample", "", now=0.0, telling=False)
    board.enter("s", "Sample", "r1", now=1.0)
    assert board.due(now=70.0) == [Waiting("s", "Sample", "r1", 69.0, "active", "", 1)]
