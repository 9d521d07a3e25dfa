"""Our side: the same work done by actors.

Every function does `count` operations and returns the CPU seconds of their loop. One message object is sent over and
over, so that making messages is not part of it.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator
from time import process_time
from typing import Any

import attrs
import raw
import trio
import trio.testing

from tinker_actors.kernel import (
    Actor,
    ActorRef,
    ChildSpec,
    Message,
    PoolSpec,
    Supervisor,
    handles,
    open_supervisor,
    start_pool,
)

__all__ = [
    "WORKERS",
    "Echo",
    "EchoActor",
    "ask",
    "ask_concurrently",
    "ask_pool",
    "ask_with_deadline",
    "open_tree",
    "tell",
]

WORKERS = 4
"""Actors in the pool, and places of the limiter they share."""


class Echo:
    """Role of the actor that has nothing to do."""


@attrs.frozen
class Note(Message[Echo, None]):
    """Is counted."""


@attrs.frozen
class Ping(Message[Echo, object]):
    """Comes back."""


class EchoActor(Actor[Echo]):
    """Counts, or gives back."""

    def __init__(self) -> None:
        self.seen = 0

    @handles(Note)
    async def note(self, _: Note) -> None:
        """Count it."""
        self.seen += 1

    @handles(Ping)
    async def ping(self, message: Ping) -> object:
        """Give it back."""
        return message


@contextlib.asynccontextmanager
async def open_tree(**options: Any) -> AsyncIterator[Supervisor]:
    """Open a tree with these options of `open_supervisor`."""
    async with open_supervisor("bench", rng=random.Random(0), **options) as tree:
        yield tree


@contextlib.asynccontextmanager
async def _running(**options: Any) -> AsyncIterator[ActorRef[Echo]]:
    """Run an actor in a tree that is opened with these options."""
    async with open_tree(**options) as tree:
        ref = await tree.start_child(ChildSpec(name="echo", factory=EchoActor, capacity=raw.BUFFER))
        await trio.testing.wait_all_tasks_blocked()
        yield ref


async def _ask(ref: ActorRef[Echo], count: int) -> None:
    message = Ping()
    for _ in range(count):
        await ref.ask(message)


async def tell(count: int) -> float:
    """Tell an actor with 64 places, until it has handled everything: the last message is an ask."""
    message = Note()
    async with _running() as ref:
        begin = process_time()
        for _ in range(count - 1):
            await ref.tell(message)
        await ref.ask(message)
        return process_time() - begin


async def ask(count: int, **options: Any) -> float:
    """Ask an actor, one message after the other, in a tree that is opened with these options."""
    async with _running(**options) as ref:
        begin = process_time()
        await _ask(ref, count)
        return process_time() - begin


async def ask_with_deadline(count: int) -> float:
    """Do the same, each ask under a `fail_after` of its own."""
    message = Ping()
    async with _running() as ref:
        begin = process_time()
        for _ in range(count):
            with trio.fail_after(raw.DEADLINE):
                await ref.ask(message)
        return process_time() - begin


async def ask_concurrently(count: int, callers: int) -> float:
    """Ask an actor, with `count` asks split among callers that all wait at once."""
    async with _running() as ref:
        begin = process_time()
        async with trio.open_nursery() as crowd:
            for _ in range(callers):
                crowd.start_soon(_ask, ref, count // callers)
        return process_time() - begin


async def ask_pool(count: int) -> float:
    """Ask a pool whose workers share a limiter, one message after the other."""
    spec = PoolSpec(name="echoes", workers=WORKERS, limiter=trio.CapacityLimiter(WORKERS))
    async with open_tree() as tree:
        pool = await start_pool(tree, spec, EchoActor)
        await trio.testing.wait_all_tasks_blocked()
        begin = process_time()
        await _ask(pool.ref, count)
        return process_time() - begin
