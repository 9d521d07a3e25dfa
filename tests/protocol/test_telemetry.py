from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tinker_actors.protocol.telemetry import BATCH_SIZE, FLUSH_PERIOD, MAX_QUEUED, TelemetryQueue


def test_the_sizes_are_tinkers() -> None:
    """Of 0.38.0: 10,000 events, batches of 100, a flush every 10 seconds."""
    assert (MAX_QUEUED, BATCH_SIZE, FLUSH_PERIOD) == (10_000, 100, 10.0)


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
