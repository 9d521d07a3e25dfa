"""Wrong use of the kernel, refused before it runs."""

from __future__ import annotations

import attrs

from tinker_actors.kernel import ActorRef, Message, Pending


class Counter:
    """A role: who counts."""


class ResettableCounter(Counter):
    """A narrower role: who also starts anew."""


class Speaker:
    """Another role."""


@attrs.frozen
class Add(Message[Counter, int]):
    """Count on; the reply is the total."""

    amount: int


@attrs.frozen
class Reset(Message[ResettableCounter, None]):
    """Start anew."""


@attrs.frozen
class Say(Message[Speaker, str]):
    """Say something."""

    words: str


async def a_message_for_another_role(counter: ActorRef[Counter]) -> None:
    """A counter does not speak."""
    await counter.ask(Say("one"))  # E: mypy[arg-type] pyright[reportArgumentType]
    await counter.submit(Say("one"))  # E: mypy[arg-type] pyright[reportArgumentType]
    await counter.tell(Say("one"))  # E: mypy[arg-type] pyright[reportArgumentType]


async def a_message_for_a_narrower_role(counter: ActorRef[Counter]) -> None:
    """Not every counter can be reset."""
    await counter.ask(Reset())  # E: mypy[arg-type] pyright[reportArgumentType]


async def the_reply_taken_for_another_type(counter: ActorRef[Counter]) -> None:
    """The total is a number."""
    total: str = await counter.ask(Add(1))  # E: mypy[arg-type] pyright[reportAssignmentType]
    pending: Pending[str] = await counter.submit(Add(1))  # E: mypy[arg-type] pyright[reportAssignmentType]
    print(total, pending)


async def a_wider_ref_taken_for_a_narrower_one(counter: ActorRef[Counter]) -> None:
    """A ref cannot be narrowed by assignment."""
    narrower: ActorRef[ResettableCounter] = counter  # E: mypy[assignment] pyright[reportAssignmentType]
    print(narrower)


async def a_wrong_argument(counter: ActorRef[Counter]) -> None:
    """Messages are checked as any other call is."""
    await counter.ask(Add("two"))  # E: mypy[arg-type] pyright[reportArgumentType]
