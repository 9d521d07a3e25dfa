"""Reply types follow from messages; roles say who may be sent what. Checked, never run."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, assert_type

import attrs

from tinker_actors.kernel import (
    Actor,
    ActorRef,
    ActorSnapshot,
    ChildSpec,
    Coalesce,
    Context,
    DeadLetter,
    Down,
    DownReason,
    Ending,
    KernelEvent,
    MailboxStatistics,
    Message,
    Pending,
    Pool,
    PoolSpec,
    ReplyToken,
    Stop,
    Supervisor,
    SupervisorSnapshot,
    Watch,
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
class Double(Message[Counter, int]):
    """Another message with the same reply."""

    max_redeliver: ClassVar[int] = 2


@attrs.frozen
class Names(Message[Counter, tuple[str, ...]]):
    exclusive: ClassVar[bool] = True


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

    @handles(Double)
    async def double(self, message: Double) -> int | Stop[int]:
        """Reply, or reply and end."""
        return Stop(self.total) if self.total else 0

    @handles(Names)
    async def names(self, message: Names) -> ReplyToken[tuple[str, ...]]:
        token: ReplyToken[tuple[str, ...]] = self.context.detach_reply(survives_restart=True)
        assert_type(token.settle(("a",)), bool)
        return token

    @handles(Save)
    async def save(self, message: Save) -> Stop[None]:
        assert_type(self.context, Context[Counter])
        assert_type(self.context.ref, ActorRef[Counter])
        self.context.spawn(self.later, 1, "x")
        self.context.send_after(1, Add(1), key="add")
        self.context.send_after(1, Save())
        self.context.watch(self.context.ref, incarnations=True)
        return Stop(None)

    @handles(Down)
    async def down(self, message: Down) -> None:
        """Whoever watches has a handler for it."""
        assert_type(message.path, str)
        assert_type(message.reason, DownReason)
        assert_type(message.cause, Exception | None)

    async def later(self, number: int, text: str) -> None:
        pass

    async def on_undelivered(self, messages: Sequence[Message[Any, Any]]) -> None:
        pass

    async def on_stop(self, ending: Ending) -> None:
        pass


async def replies(ref: ActorRef[Counter]) -> None:
    """What is asked decides what comes back; what is submitted is a Pending of it; what is told gives nothing."""
    assert_type(await ref.ask(Add(1)), int)
    assert_type(await ref.ask(Names()), tuple[str, ...])
    pending = await ref.submit(Add(1))
    assert_type(pending, Pending[int])
    assert_type(await pending, int)
    assert_type(await pending.withdraw(), bool)
    assert_type(ref.submit_nowait(Names()), Pending[tuple[str, ...]])
    await ref.tell(Add(1))
    ref.tell_nowait(Add(1))


async def blocks(ref: ActorRef[Counter]) -> None:
    """Messages that are submitted together have Pendings of their common reply."""
    assert_type(await ref.submit_many([Add(1), Add(2)]), list[Pending[int]])
    for pending in await ref.submit_many([Add(1), Double()]):
        assert_type(await pending, int)


async def roles(counter: ActorRef[Counter]) -> None:
    """A message for the wider role may go to the narrower one, and a narrower ref may stand for a wider one."""
    await counter.tell(Save())
    store: ActorRef[Store] = counter
    await store.tell(Save())


async def ends(ref: ActorRef[Counter]) -> None:
    """Who waits for the end of an actor hears how it came."""
    assert_type(await ref.wait_stopped(), Down)
    async with ref.watching() as watch:
        assert_type(watch, Watch)
        assert_type(await watch.down(), Down)
    assert_type(ref.statistics(), MailboxStatistics)


def key(message: Message[Any, Any]) -> str | None:
    return "add" if isinstance(message, Add) else None


async def trees(supervisor: Supervisor) -> None:
    """Starting a child gives a ref of its role; so does a pool."""
    spec = ChildSpec(name="counter", factory=CounterActor, overflow=Coalesce(key=key))
    assert_type(spec, ChildSpec[Counter])
    assert_type(await supervisor.start_child(spec), ActorRef[Counter])
    pool = await start_pool(supervisor, PoolSpec(name="pool", workers=3), CounterActor)
    assert_type(pool, Pool[Counter])
    assert_type(pool.ref, ActorRef[Counter])
    assert_type(await pool.ref.ask(Add(1)), int)
    await pool.resize(pool.size + 1)
    nested = supervisor.start_supervisor("nested", "rest_for_one", auto_shutdown="any")
    assert_type(nested, Supervisor)


def look(event: KernelEvent) -> None:
    """What an observer is told is told apart by its type."""
    if isinstance(event, DeadLetter):
        assert_type(event.message, Message[Any, Any] | None)


async def main() -> None:
    """A tree is opened with a generator of random numbers, and can be looked at."""
    async with open_supervisor("tree", rng=random.Random(0), observer=look) as tree:
        assert_type(tree, Supervisor)
        assert_type(tree.dead_letters.counts, Mapping[str, int])
        assert_type(tree.snapshot(), SupervisorSnapshot)
        for child in tree.snapshot().children:
            if isinstance(child, ActorSnapshot):
                assert_type(child.mailbox, MailboxStatistics)


async def take(wider: Pending[object]) -> None:
    """Anything that will be there may be waited for."""
    assert_type(await wider, object)


async def give(narrower: Pending[int], anything: Pending[Any]) -> None:
    """A Pending of something is a Pending of something wider."""
    await take(narrower)
    await take(anything)
