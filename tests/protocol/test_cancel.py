from __future__ import annotations

import pytest

from tinker_actors.protocol.cancel import CancelQueue


def test_a_service_that_does_not_want_to_know_is_not_told() -> None:
    """It is off until the service says otherwise."""
    queue = CancelQueue()
    assert not queue.add("a")
    assert queue.take() == ()


def test_batches_hold_the_oldest() -> None:
    """64 at most, each once."""
    queue = CancelQueue(enabled=True)
    for number in range(100):
        assert queue.add(f"r{number}")
    queue.add("r99")
    assert queue.take() == tuple(f"r{number}" for number in range(64))
    assert queue.take() == tuple(f"r{number}" for number in range(64, 100))
    assert queue.take() == ()


def test_a_size_that_is_none_is_one() -> None:
    """Whatever a service says, the queue gets shorter."""
    queue = CancelQueue(enabled=True, max_batch=0)
    queue.add("a")
    queue.add("b")
    assert queue.take() == ("a",)


def test_too_many_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest; the memory has an end."""
    monkeypatch.setattr("tinker_actors.protocol.cancel._MAX_QUEUED", 2)
    queue = CancelQueue(enabled=True)
    assert [queue.add(name) for name in "abc"] == [True, True, False]
    assert queue.dropped == 1
