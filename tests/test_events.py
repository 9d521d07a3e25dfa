"""The events that users match on are under one name."""

from __future__ import annotations

from tinker_actors import events
from tinker_actors.protocol import event, run_event

BESIDE = {"EventChannel", "QueueState", "QueueStateObserver", "WaitSeen"}


def test_every_event_is_there_for_users() -> None:
    """What a service can tell has a public name, and the channel it comes through as well."""
    runs = set(run_event.__all__) - {"RunEvent"}
    assert set(events.__all__) - BESIDE == set(event.__all__) | runs
    assert all(getattr(events, name) is getattr(event, name) for name in event.__all__)
    assert all(getattr(events, name) is getattr(run_event, name) for name in runs)
