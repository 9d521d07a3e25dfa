"""Handlers that are no plain functions, and fields of messages that are no settings."""

from __future__ import annotations

from typing import Any, ClassVar

import attrs
import pytest
import trio

from tinker_actors.errors import HandlerCrashed
from tinker_actors.kernel import Actor, ChildSpec, Message, handles


class Role:
    pass


@attrs.frozen
class Double(Message[Role, int]):
    number: int


class Doubling:
    """A handler that is an object."""

    async def __call__(self, actor: Any, message: Double) -> int:
        await trio.lowlevel.checkpoint()
        if message.number < 0:
            raise ValueError("negative")
        return 2 * message.number


class DoublerActor(Actor[Role]):
    double = handles(Double)(Doubling())


async def test_an_object_may_be_a_handler(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Whatever can be called with the actor and the message handles it, and crashes like any other."""
    async with stage.open() as tree:
        ref = await tree.start_child(ChildSpec(name="a", factory=DoublerActor))
        assert await ref.ask(Double(21)) == 42
        with pytest.raises(HandlerCrashed):
            await ref.ask(Double(-1))
        assert await ref.ask(Double(1)) == 2


def test_a_field_does_not_change_how_a_message_is_treated() -> None:
    """A field named like a setting of messages is refused where the class is written; a `ClassVar` is the setting."""
    with pytest.raises(TypeError, match=r"Wrong\.unit means something to the runtime"):

        class Wrong(Message[Role, None]):
            unit: Any = "kg"

    class Right(Message[Role, None]):
        unit: ClassVar[Any] = "end"

    assert Right.unit == "end"
