"""Actors for the tests of the test kit."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio

from tinker_actors.kernel import Actor, Backoff, Ending, Message, ReplyToken, RestartPolicy, Stop, handles


class Counter:
    """Role."""


class Declared(Exception):
    """An answer of the counter, not a crash."""


@attrs.frozen
class Add(Message[Counter, int]):
    """Add, and reply with the total."""

    amount: int = 1


@attrs.frozen
class Nap(Message[Counter, str]):
    """Sleep."""

    seconds: float


@attrs.frozen
class Throw(Message[Counter, None]):
    """Raise."""

    error: Exception


@attrs.frozen
class Detach(Message[Counter, str]):
    """Leave the answer to a token, kept in `CounterActor.tokens`."""


@attrs.frozen
class Leave(Message[Counter, str]):
    """End in good order."""


@attrs.frozen
class Begin(Message[Counter, None]):
    """Start a task in a nursery that is not the actor's."""

    nursery: Any
    function: Any


@attrs.frozen
class Strange(Message[Counter, None]):
    """Nobody has a handler for it."""


class CounterActor(Actor[Counter]):
    """Counts."""

    declares = (Declared,)

    def __init__(self, log: list[Any] | None = None) -> None:
        self.log = [] if log is None else log
        self.total = 0
        self.tokens: list[ReplyToken[str]] = []

    async def on_start(self) -> None:
        self.log.append(("start", self.context.incarnation))
        await trio.lowlevel.checkpoint()

    async def on_drain(self) -> None:
        self.log.append("drain")
        await trio.lowlevel.checkpoint()

    async def on_undelivered(self, messages: Any) -> None:
        self.log.append(("undelivered", list(messages)))
        await trio.lowlevel.checkpoint()

    async def on_stop(self, ending: Ending) -> None:
        self.log.append(("stop", ending))
        await trio.lowlevel.checkpoint()

    @handles(Add)
    async def add(self, message: Add) -> int:
        await trio.lowlevel.checkpoint()
        self.total += message.amount
        self.log.append(message.amount)
        return self.total

    @handles(Nap)
    async def nap(self, message: Nap) -> str:
        await trio.sleep(message.seconds)
        return "slept"

    @handles(Throw)
    async def throw(self, message: Throw) -> None:
        await trio.lowlevel.checkpoint()
        raise message.error

    @handles(Detach)
    async def detach(self, _: Detach) -> ReplyToken[str]:
        await trio.lowlevel.checkpoint()
        self.tokens.append(self.context.detach_reply())
        return self.tokens[-1]

    @handles(Leave)
    async def leave(self, _: Leave) -> Stop[str]:
        await trio.lowlevel.checkpoint()
        return Stop("left")

    @handles(Begin)
    async def begin(self, message: Begin) -> None:
        await trio.lowlevel.checkpoint()
        message.nursery.start_soon(message.function)


class Cast:
    """The names above, for tests: test folders are no packages."""

    Counter = Counter
    Declared = Declared
    Add = Add
    Nap = Nap
    Throw = Throw
    Detach = Detach
    Leave = Leave
    Begin = Begin
    Strange = Strange
    CounterActor = CounterActor
    steady = RestartPolicy(backoff=Backoff(base=10.0, maximum=10.0, jitter=0.0))


@pytest.fixture
def cast() -> type[Cast]:
    """Give the actors and their messages."""
    return Cast
