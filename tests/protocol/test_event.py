from __future__ import annotations

from typing import get_args

import attrs
import pytest

from tinker_actors.protocol import event
from tinker_actors.protocol.event import ActorFailed, ServiceEvent
from tinker_actors.protocol.run_event import RunEvent


def test_every_event_is_a_service_event() -> None:
    """Whoever matches on the union has met them all."""
    classes = {vars(event)[name] for name in event.__all__} - {ServiceEvent}
    assert set(get_args(ServiceEvent)) == classes | set(get_args(RunEvent))


def test_events_are_facts() -> None:
    """They cannot be changed, and are told apart by what they say."""
    fact = ActorFailed("service/training/model-0", "KeyError: 3", 0.5)
    assert fact == ActorFailed("service/training/model-0", "KeyError: 3", 0.5)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        fact.actor = "another"  # type: ignore[misc]  # wrong on purpose
