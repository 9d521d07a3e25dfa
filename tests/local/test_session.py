from __future__ import annotations

import itertools
import math
import threading

import pytest

from tinker_actors.errors import NotFoundError, SessionGoneError
from tinker_actors.local.session import Beats, SessionState, SessionTable


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def table(clock: Clock) -> SessionTable:
    numbers = itertools.count()
    return SessionTable(timeout=300, clock=clock, new_id=lambda: f"s{next(numbers)}", remembered=2)


def test_beats_are_counted_and_dated(clock: Clock, table: SessionTable) -> None:
    """Each beat counts and has its time; before the first one, the creation's time stands."""
    first, second = table.create(), table.create()
    assert table.beats(first) == Beats(0, 1000)
    clock.now = 1010
    assert table.heartbeat(first) == Beats(1, 1010)
    clock.now = 1020
    table.heartbeat(first)
    assert table.beats(first) == Beats(2, 1020)
    assert table.beats(second) == Beats(0, 1000)
    assert (table.alive_count, table.total_beats) == (2, 2)


def test_silence_ends_a_session(clock: Clock, table: SessionTable) -> None:
    """A session without a beat for the timeout expires at that very time, and no beat brings it back."""
    session_id = table.create()
    clock.now = 1299.9
    table.heartbeat(session_id)
    assert table.next_expiry() == 1599.9
    clock.now = 1599.8
    table.check_alive(session_id)
    clock.now = 1599.9
    with pytest.raises(SessionGoneError, match="has expired") as caught:
        table.heartbeat(session_id)
    assert caught.value.status_code == 410
    assert table.state(session_id) is SessionState.EXPIRED
    assert (table.alive_count, table.next_expiry(), table.total_beats) == (0, math.inf, 1)


def test_finishing_is_final_and_the_first_one_counts(table: SessionTable) -> None:
    """A finished session answers beats with 410; finishing it again changes nothing."""
    session_id = table.create()
    assert table.finish(session_id)
    assert not table.finish(session_id)
    with pytest.raises(SessionGoneError, match="has finished"):
        table.heartbeat(session_id)
    assert table.state(session_id) is SessionState.FINISHED


def test_an_unknown_session_is_not_found(table: SessionTable) -> None:
    """Ids that were never given out are 404 in every call."""
    for call in (table.heartbeat, table.check_alive, table.finish, table.beats, table.state):
        with pytest.raises(NotFoundError, match="'nobody' is not known"):
            call("nobody")


def test_each_ended_session_is_swept_once(clock: Clock, table: SessionTable) -> None:
    """What has to be freed is named once, however the session ended."""
    finished, silent, beating = table.create(), table.create(), table.create()
    table.finish(finished)
    clock.now = 1200
    table.heartbeat(beating)
    clock.now = 1300
    assert table.sweep() == [finished, silent]
    assert table.sweep() == []
    clock.now = 1500
    assert table.sweep() == [beating]


def test_old_ends_are_forgotten(table: SessionTable) -> None:
    """Beyond the limit the oldest ended sessions become unknown."""
    ids = [table.create() for _ in range(3)]
    for session_id in ids:
        table.finish(session_id)
    with pytest.raises(NotFoundError):
        table.heartbeat(ids[0])
    for session_id in ids[1:]:
        with pytest.raises(SessionGoneError):
            table.heartbeat(session_id)


@pytest.mark.lesson("D56")
def test_beats_from_many_threads_are_all_counted(table: SessionTable) -> None:
    """The table may be used from any thread at any time: no beat is lost, no call fails."""
    session_id = table.create()

    def beat() -> None:
        for _ in range(500):
            table.heartbeat(session_id)
            table.sweep()

    threads = [threading.Thread(target=beat) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(100):
        table.finish(table.create())
    for thread in threads:
        thread.join()
    assert table.beats(session_id).count == table.total_beats == 2000
