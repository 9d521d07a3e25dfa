from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinker_actors.errors import InputError, status_error_class
from tinker_actors.protocol.policy import is_user_error
from tinker_actors.protocol.telemetry import (
    BATCH_SIZE,
    FLUSH_PERIOD,
    MAX_QUEUED,
    TelemetryQueue,
    failure_event,
)


@pytest.mark.requirement("R147")
def test_the_sizes_are_tinkers() -> None:
    """Of 0.38.0: 10,000 events, batches of 100, a flush every 10 seconds."""
    assert (MAX_QUEUED, BATCH_SIZE, FLUSH_PERIOD) == (10_000, 100, 10.0)


@pytest.mark.requirement("R147")
def test_a_full_queue_drops_the_new_and_counts_them() -> None:
    """What is there stays; whoever adds is told and goes on."""
    queue = TelemetryQueue()
    assert all(queue.add({"n": n}) for n in range(MAX_QUEUED))
    assert not queue.add({"n": -1})
    assert not queue.add({"n": -2})
    assert (len(queue), queue.dropped) == (MAX_QUEUED, 2)
    assert queue.take_batch() == [{"n": n} for n in range(BATCH_SIZE)]
    assert queue.add({"n": MAX_QUEUED})
    assert queue.dropped == 2


@given(st.lists(st.integers(0, 150) | st.none(), max_size=20), st.integers(1, 300))
def test_events_leave_in_order_and_once(acts: list[int | None], room: int) -> None:
    """Any sequence of adding (a number) and taking (None) is that of a bounded list."""
    queue = TelemetryQueue(max_queued=room)
    model: list[dict[str, object]] = []
    added = dropped = 0
    for act in acts:
        if act is None:
            assert queue.take_batch() == model[:BATCH_SIZE]
            del model[:BATCH_SIZE]
            continue
        for _ in range(act):
            fits = len(model) < room
            assert queue.add({"n": added}) == fits
            if fits:
                model.append({"n": added})
            dropped += not fits
            added += 1
        assert (len(queue), queue.dropped) == (len(model), dropped)


def caused(error: BaseException) -> ValueError:
    """Make an error that says nothing itself."""
    outer = ValueError("hunter2")
    outer.__cause__ = error
    return outer


@pytest.mark.requirement("R72", "R149")
@pytest.mark.parametrize(
    ("error", "users", "data"),
    [
        (status_error_class(400)("hunter2", status_code=400), True, {"status_code": 400}),
        (status_error_class(408)("hunter2", status_code=408), False, {}),
        (status_error_class(503)("hunter2", status_code=503), False, {}),
        (InputError("api_key", "hunter2", "no"), True, {}),
        (caused(status_error_class(404)("hunter2", status_code=404)), True, {}),
        (ValueError("hunter2"), False, {}),
    ],
    ids=repr,
)
def test_whose_fault_it_was_goes_by_the_rule_of_retries(
    error: BaseException, users: bool, data: dict[str, object]
) -> None:
    """A user's error is a warning, others are exceptions; what they say is not told."""
    kind = type(error).__name__
    assert is_user_error(error) is users
    event = failure_event(error)
    assert "hunter2" not in repr(event)
    if users:
        assert event == {
            "event": "GENERIC_EVENT",
            "severity": "WARNING",
            "event_name": "user_error",
            "event_data": {"error_type": kind, **data},
        }
    else:
        assert event == {
            "event": "UNHANDLED_EXCEPTION",
            "severity": "ERROR",
            "error_type": kind,
            "error_message": kind,
        }
