"""Random programs of calls that cross both ways, fail and are cancelled: each ends, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest
import trio

from tinker_actors.bridges.crossing import aio, from_aio
from tinker_actors.bridges.guest import run
from tinker_actors.errors import ForeignCancellation

PROGRAMS = 200
DEPTH = 4


class Program:
    """One random program; `open` counts the functions that have begun and not cleaned up."""

    def __init__(self, seed: int, counts: Counter[str]) -> None:
        self._rng = random.Random(seed)
        self._counts = counts

    async def steps_of_trio(self) -> None:
        for _ in range(self._rng.randrange(6)):
            await trio.lowlevel.checkpoint()

    async def steps_of_asyncio(self) -> None:
        for _ in range(self._rng.randrange(6)):
            await asyncio.sleep(0)

    async def in_trio(self, depth: int) -> str:
        """Do something in trio."""
        self._counts["open"] += 1
        try:
            await self.steps_of_trio()
            match self._rng.choice(
                ["fail", "shield", "go", "go", "crowd", "end"] if depth else ["fail", "end"]
            ):
                case "fail":
                    raise KeyError("of trio")
                case "shield":
                    with trio.CancelScope(shield=True):
                        await aio(self.in_asyncio, depth - 1)
                case "go":
                    await aio(self.in_asyncio, depth - 1)
                case "crowd":
                    await self.crowd(depth)
            await self.steps_of_trio()
            return "value"
        finally:
            with trio.CancelScope(shield=True):
                await self.steps_of_trio()
            self._counts["open"] -= 1

    async def crowd(self, depth: int) -> None:
        """Call several at once, and cancel them after a while."""
        try:
            async with trio.open_nursery() as nursery:
                for _ in range(2):
                    nursery.start_soon(aio, self.in_asyncio, depth - 1)
                await self.steps_of_trio()
                nursery.cancel_scope.cancel()
        except ExceptionGroup:
            self._counts["groups of trio"] += 1

    async def in_asyncio(self, depth: int) -> str:
        """Do something in asyncio."""
        self._counts["open"] += 1
        try:
            await self.steps_of_asyncio()
            match self._rng.choice(
                ["fail", "suicide", "swallow", "go", "go", "crowd"] if depth else ["end", "fail"]
            ):
                case "fail":
                    raise KeyError("of asyncio")
                case "suicide":
                    asyncio.current_task().cancel()
                    await asyncio.sleep(0)
                case "swallow":
                    try:
                        await from_aio(self.in_trio, depth - 1)
                    except asyncio.CancelledError:
                        self._counts["swallowed"] += 1
                case "go":
                    await from_aio(self.in_trio, depth - 1)
                case "crowd":
                    await self.crowd_of_asyncio(depth)
            await self.steps_of_asyncio()
            return "value"
        finally:
            try:
                await self.steps_of_asyncio()
            finally:
                self._counts["open"] -= 1

    async def crowd_of_asyncio(self, depth: int) -> None:
        """Call several at once, and cancel one of them after a while."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(from_aio(self.in_trio, depth - 1)) for _ in range(2)]
                await self.steps_of_asyncio()
                tasks[0].cancel()
        except ExceptionGroup:
            self._counts["groups of asyncio"] += 1

    async def play(self) -> None:
        """Run it, and count how it ended."""
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.cancel_later, scope)
                try:
                    await aio(self.in_asyncio, DEPTH)
                    self._counts["values"] += 1
                except KeyError:
                    self._counts["errors"] += 1
                except ForeignCancellation:
                    self._counts["cancelled over there"] += 1
                nursery.cancel_scope.cancel()
        self._counts["cancelled"] += scope.cancelled_caught

    async def cancel_later(self, scope: trio.CancelScope) -> None:
        for _ in range(self._rng.randrange(200)):
            await trio.lowlevel.checkpoint()
        scope.cancel()


@pytest.mark.parametrize("seed", [1, 2])
def test_random_programs_end_and_leave_nothing_behind(seed: int) -> None:
    """Two hundred at once: values, errors and cancellations of every kind, and each function has cleaned up."""
    counts: Counter[str] = Counter()

    async def main() -> None:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for number in range(PROGRAMS):
                    nursery.start_soon(Program(seed * 1000 + number, counts).play)
        assert not asyncio.all_tasks()

    run(main, asyncio=True)
    assert counts["open"] == 0
    # No more is certain: the order of trio's tasks is not, so neither is who is cancelled where.
    assert sum(counts[end] for end in ("values", "errors", "cancelled over there", "cancelled")) >= PROGRAMS
