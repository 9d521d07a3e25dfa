"""Reply types follow from messages; roles say who may be sent what. Checked, never run."""

from __future__ import annotations

import random
from typing import Any, assert_type

import attrs

from tinker_actors.kernel import (
    Actor,
    ActorRef,
    ChildSpec,
    Context,
    Ending,
    Message,
    Pending,
    PoolSpec,
    ReplyToken,
    Supervisor,
    handles,
    open_supervisor,
    start_pool,
)


class Store:
    """A role."""


class Counter(Store):
    """A narrower role: a counter is a store, too."""


@attrs.frozen
class Add(Message[Counter, int]):
    amount: int


@attrs.frozen
class Names(Message[Counter, tuple[str, ...]]):
    pass


@attrs.frozen
class Save(Message[Store, None]):
    """For every store."""


class CounterActor(Actor[Counter]):
    declares = (ValueError,)

    def __init__(self) -> None:
        self.total = 0

    @handles(Add)
    async def add(self, message: Add) -> int:
        self.total += message.amount
        return self.total

    @handles(Names)
    async def names(self, message: Names) -> ReplyToken[tuple[str, ...]]:
        token: ReplyToken[tuple[str, ...]] = self.context.detach_reply(survives_restart=True)
        assert_type(token.settle(("a",)), bool)
        return token

    @handles(Save)
    async def save(self, message: Save) -> None:
        assert_type(self.context, Context[Counter])
        assert_type(self.context.ref, ActorRef[Counter])
        self.context.spawn(self.later, 1, "x")

    async def later(self, number: int, text: str) -> None:
        pass

    async def on_stop(self, ending: Ending) -> None:
        pass


async def replies(ref: ActorRef[Counter]) -> None:
    """What is asked decides what comes back."""
    assert_type(await ref.ask(Add(1)), int)
    assert_type(await ref.ask(Names()), tuple[str, ...])
    pending = await ref.submit(Add(1))
    assert_type(pending, Pending[int])
    assert_type(await pending, int)
    assert_type(await pending.withdraw(), bool)
    await ref.tell(Add(1))
    ref.tell_nowait(Add(1))


async def roles(counter: ActorRef[Counter]) -> None:
    """A message for the wider role may go to the narrower one, and a narrower ref may stand for a wider one."""
    await counter.tell(Save())
    store: ActorRef[Store] = counter
    await store.tell(Save())


async def trees(supervisor: Supervisor) -> None:
    """Starting a child gives a ref of its role; so does a pool."""
    spec = ChildSpec(name="counter", factory=CounterActor)
    assert_type(spec, ChildSpec[Counter])
    assert_type(await supervisor.start_child(spec), ActorRef[Counter])
    pool = PoolSpec(name="pool", workers=3)
    assert_type(await start_pool(supervisor, pool, CounterActor), ActorRef[Counter])


async def main() -> None:
    """A tree is opened with a generator of random numbers."""
    async with open_supervisor("tree", rng=random.Random(0)) as tree:
        assert_type(tree, Supervisor)


async def take(wider: Pending[object]) -> None:
    """Anything that will be there may be waited for."""
    assert_type(await wider, object)


async def give(narrower: Pending[int], anything: Pending[Any]) -> None:
    """A Pending of something is a Pending of something wider."""
    await take(narrower)
    await take(anything)
