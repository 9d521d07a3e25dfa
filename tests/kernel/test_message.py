from __future__ import annotations

from typing import Any

import attrs
import pytest

from tinker_actors.kernel import Message
from tinker_actors.kernel.message import MailboxStatistics, State


class Role:
    pass


@attrs.frozen
class Plain(Message[Role, int]):
    number: int


def test_a_message_stands_for_itself_and_is_cancelled_with_its_caller() -> None:
    """Without a word about it, a message belongs to no unit and its handler ends when its caller leaves."""
    assert Plain(1).unit == "none"
    assert Plain(1).on_abandon == "cancel"


def test_messages_are_values() -> None:
    """Messages are compared by their contents and cannot be changed on their way."""
    assert Plain(1) == Plain(1) != Plain(2)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Plain(1).number = 2


def test_policy_and_unit_are_the_class_s() -> None:
    """A message of a slotted class carries nothing but its contents."""

    @attrs.frozen
    class Ended(Plain):
        on_abandon = "wait"
        unit = "end"

    assert (Ended(1).on_abandon, Ended(1).unit) == ("wait", "end")
    assert not hasattr(Ended(1), "__dict__")


def test_states_have_names_of_their_own() -> None:
    """No two states of an envelope are shown alike."""
    assert len({state.value for state in State}) == len(State)


def test_statistics_are_frozen() -> None:
    """Statistics are a picture of one moment."""
    zeros: dict[str, Any] = dict.fromkeys((field.name for field in attrs.fields(MailboxStatistics)), 0)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        MailboxStatistics(**zeros).queued = 1
