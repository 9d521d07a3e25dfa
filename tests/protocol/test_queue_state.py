from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinker_actors.protocol.queue_state import ACTIVE, QueueBoard, QueueChange, QueueState, reason_of

RATE, CAPACITY = "paused_rate_limit", "paused_capacity"


def report(board: QueueBoard, state: str, now: float, who: str = "r1", reason: str | None = None) -> object:
    return board.report("m", who, state, reason, now=now, sampling=False)


@pytest.mark.parametrize(
    ("state", "reason", "sampling", "words"),
    [
        (RATE, None, False, "concurrent training clients rate limit hit"),
        (RATE, None, True, "concurrent sampler weights limit hit"),
        (CAPACITY, None, False, "Tinker backend is running short on capacity, please wait"),
        (CAPACITY, "", True, "Tinker backend is running short on capacity, please wait"),
        (CAPACITY, "moving", True, "moving"),
        ("paused_odd", None, False, "unknown"),
    ],
)
def test_a_pause_has_a_reason(state: str, reason: str | None, sampling: bool, words: str) -> None:
    """The service's own words, else the usual ones."""
    assert reason_of(state, reason, sampling=sampling) == words


def test_both_edges_of_a_pause_are_told_once() -> None:
    """However often the service repeats itself; the second tells how long it was."""
    board = QueueBoard()
    assert report(board, ACTIVE, 0.0) is None
    assert not board.paused
    words = reason_of(CAPACITY, None, sampling=False)
    assert report(board, CAPACITY, 10.0) == QueueChange("m", CAPACITY, words, ACTIVE, 0.0, "r1")
    assert board.paused
    assert report(board, CAPACITY, 20.0) is None
    assert report(board, ACTIVE, 70.0) == QueueChange("m", ACTIVE, "", CAPACITY, 60.0, "r1")
    assert not board.paused


def test_another_state_or_reason_is_a_change() -> None:
    """Each is told with what was before it and how long that lasted."""
    board = QueueBoard()
    report(board, CAPACITY, 0.0, reason="a")
    assert report(board, CAPACITY, 5.0, reason="b") == QueueChange("m", CAPACITY, "b", CAPACITY, 5.0, "r1")
    assert report(board, RATE, 7.0, reason="b") == QueueChange("m", RATE, "b", CAPACITY, 2.0, "r1")
    assert board.end("m", "r1", now=8.0) == QueueChange("m", ACTIVE, "", RATE, 1.0, "r1")


def test_a_subject_is_paused_until_none_of_its_requests_is() -> None:
    """Requests of one model hear of a pause one after the other; it is one pause."""
    board = QueueBoard()
    report(board, RATE, 0.0, "r1")
    assert report(board, RATE, 1.0, "r2") is None
    assert board.end("m", "r1", now=2.0) is None
    assert board.end("m", "r9", now=2.5) is None
    assert board.end("m", "r2", now=3.0) == QueueChange("m", ACTIVE, "", RATE, 3.0, "r2")
    assert board.end("m", "r2", now=4.0) is None


def test_subjects_are_apart() -> None:
    """The pause of one model is none of another."""
    board = QueueBoard()
    board.report("a", "r1", RATE, None, now=0.0, sampling=False)
    assert board.end("b", "r1", now=1.0) is None
    assert board.line("b", now=10_000.0) is None
    assert board.paused


@pytest.mark.requirement("R102")
def test_samples_are_logged_at_once_and_training_after_a_minute() -> None:
    """Both once a minute at most, with the reason, before any refusal."""
    board = QueueBoard()
    board.report("s", "r1", RATE, None, now=0.0, sampling=True)
    board.report("m", "r2", CAPACITY, "no room", now=0.0, sampling=False)
    assert board.line("s", now=0.0) == (
        "Sampling for s is paused. Reason: concurrent sampler weights limit hit"
    )
    assert board.line("s", now=59.0) is None
    assert board.line("s", now=60.0) is not None
    assert board.line("m", now=59.0) is None
    assert board.line("m", now=60.0) == "Training for m is paused. Reason: no room"
    assert board.line("m", now=119.0) is None


def test_the_log_hears_of_both_ends_of_a_pause_or_of_none() -> None:
    """With its length; a queue that stops and goes by the second is no news twice a minute."""
    board = QueueBoard()
    lines = []
    for second in range(0, 130, 2):
        board.report("s", "r1", RATE, None, now=float(second), sampling=True)
        lines.append(board.line("s", now=float(second)))
        board.end("s", "r1", now=second + 1.0)
        lines.append(board.line("s", now=second + 1.0))
    told = [line for line in lines if line is not None]
    pause = "Sampling for s is paused. Reason: concurrent sampler weights limit hit"
    assert told == [pause, "Sampling for s goes on after 1 s"] * 3


@pytest.mark.lesson("D43", "L32")
def test_nothing_is_kept_of_what_is_over() -> None:
    """A thousand models that pause and go on leave nothing behind, a minute later."""
    board = QueueBoard()
    for number in range(1000):
        subject = f"m{number}"
        board.report(subject, "r", CAPACITY, None, now=0.0, sampling=number % 2 == 0)
        board.line(subject, now=0.0)
        board.report(subject, "r", CAPACITY, None, now=70.0, sampling=number % 2 == 0)
        board.line(subject, now=70.0)
        board.end(subject, "r", now=71.0)
        board.line(subject, now=71.0)
    board.line("any", now=200.0)
    assert len(board) == 0
    assert not board.paused


def test_states_have_the_official_names() -> None:
    """A word that is not known is `unknown`."""
    assert QueueState.of("paused_capacity") is QueueState.PAUSED_CAPACITY
    assert QueueState.of("active") == "active"
    assert QueueState.of("paused_odd") is QueueState.UNKNOWN


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["r1", "r2", "r3"]),
            st.sampled_from([ACTIVE, RATE, CAPACITY, "odd", "gone"]),
            st.floats(0, 100),
        ),
        max_size=40,
    )
)
def test_what_is_told_tells_the_whole_story(events: list[tuple[str, str, float]]) -> None:
    """Each change begins where the last one ended, no two are alike, and the seconds add up to the time."""
    board, now, known, since = QueueBoard(), 0.0, ACTIVE, 0.0
    for who, state, pause in events:
        now += pause
        if state == "gone":
            change = board.end("m", who, now=now)
        else:
            change = board.report("m", who, state, None, now=now, sampling=True)
        if change is not None:
            assert (change.previous, change.subject) == (known, "m")
            assert change.state != known
            assert change.seconds == (0.0 if known == ACTIVE else now - since)
            known, since = change.state, now
        assert board.paused == (known != ACTIVE)
