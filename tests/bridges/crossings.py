"""Calls between asyncio and trio, written down; for the tests of crossings."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import trio
import trio.lowlevel

from tinker_actors.bridges.guest import run


def hosted(main: Callable[[], Awaitable[object]]) -> object:
    """Run a trio function beside an asyncio loop, and no longer than ten seconds."""

    async def bounded() -> object:
        with trio.fail_after(10):
            return await main()

    return run(bounded, asyncio=True)


class Log(list[str]):
    """What happened, in order; ``begun`` is called when one of the functions has begun to wait."""

    begun: Callable[[], object] = staticmethod(lambda: None)

    async def asyncio_waits(self) -> None:
        """Wait for ever in asyncio, and take two steps to clean up."""
        self.append("asyncio begins")
        self.begun()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            self.append("asyncio has cleaned up")

    async def trio_waits(self) -> None:
        """Wait for ever in trio, and take two steps to clean up."""
        self.append("trio begins")
        self.begun()
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()
                await trio.lowlevel.checkpoint()
            self.append("trio has cleaned up")
