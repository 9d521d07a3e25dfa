"""Correct use of the kernel: the reply's type follows from the message, and roles may widen."""

from __future__ import annotations

from typing import assert_type

import attrs

from tinker_actors.kernel import ActorRef, Message, Pending


class Counter:
    """A role: who counts."""


class ResettableCounter(Counter):
    """A narrower role: who also starts anew."""


@attrs.frozen
class Add(Message[Counter, int]):
    """Count on; the reply is the total."""

    amount: int


@attrs.frozen
class Reset(Message[ResettableCounter, None]):
    """Start anew."""


@attrs.frozen
class Describe(Message[Counter, tuple[str, float]]):
    """Say the counter's name and its mean."""


async def replies_have_their_types(counter: ActorRef[Counter]) -> None:
    """`ask` gives the reply, `submit` a Pending of it, `tell` nothing."""
    assert_type(await counter.ask(Add(2)), int)
    assert_type(await counter.ask(Describe()), tuple[str, float])
    pending = await counter.submit(Add(2))
    assert_type(pending, Pending[int])
    assert_type(await pending, int)
    await counter.tell(Add(2))


async def a_narrower_role_takes_a_wider_roles_messages(counter: ActorRef[ResettableCounter]) -> None:
    """What may be said to every counter may be said to a resettable one."""
    assert_type(await counter.ask(Add(2)), int)
    await counter.ask(Reset())
    wider: ActorRef[Counter] = counter
    assert_type(await wider.ask(Add(2)), int)
