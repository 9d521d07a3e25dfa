from __future__ import annotations

import itertools

import pytest

from tinker_actors.kernel.lifecycle import TRANSITIONS, Event, Life, step


def reachable(start: Life) -> set[Life]:
    """Follow the table from one state."""
    found, ahead = {start}, [start]
    while ahead:
        for life in TRANSITIONS[ahead.pop()].values():
            if life not in found:
                found.add(life)
                ahead.append(life)
    return found


def test_every_state_is_in_the_table_and_can_be_reached() -> None:
    """No state is missing and none is there for nothing."""
    assert set(TRANSITIONS) == set(Life)
    assert reachable(Life.NEW) == set(Life)


def test_every_event_means_something_somewhere() -> None:
    """No event is there for nothing."""
    assert {event for row in TRANSITIONS.values() for event in row} == set(Event)


def test_what_has_ended_has_no_successor() -> None:
    """STOPPED, FAILED and STUCK, and only they, are final; from everywhere else there is a way to an end."""
    over = {Life.STOPPED, Life.FAILED, Life.STUCK}
    assert {life for life, row in TRANSITIONS.items() if not row} == over
    for life in set(Life) - over:
        assert reachable(life) >= over


def test_only_a_life_with_a_task_can_be_stuck() -> None:
    """What has not begun, and what waits for its restart, has no task that could ignore its cancellation."""
    assert {life for life, row in TRANSITIONS.items() if Event.STICK in row} == {
        Life.STARTING,
        Life.RUNNING,
        Life.DRAINING,
        Life.STOPPING,
    }


@pytest.mark.parametrize(("life", "event"), list(itertools.product(Life, Event)))
def test_step_follows_the_table_and_nothing_else(life: Life, event: Event) -> None:
    """A transition of the table is made; any other is a defect, and says which it was."""
    if event in TRANSITIONS[life]:
        assert step(life, event) is TRANSITIONS[life][event]
    else:
        with pytest.raises(RuntimeError, match=f"{life.value} cannot {event.value}"):
            step(life, event)
