from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trio
import trio.lowlevel

from tests.bridges.crossings import Log, hosted
from tinker_actors.bridges.crossing import aio
from tinker_actors.bridges.guest import run


@pytest.mark.usefixtures("default_sigint")
def test_ctrl_c_reaches_the_main_function_through_asyncio() -> None:
    """The interrupt strikes while asyncio waits: both sides clean up, and run() raises KeyboardInterrupt."""
    log = Log()

    async def interrupted() -> None:
        asyncio.get_running_loop().call_later(0.01, signal.raise_signal, signal.SIGINT)
        await log.asyncio_waits()

    async def main() -> None:
        try:
            await aio(interrupted)
        finally:
            log.append("trio has cleaned up")

    with pytest.raises(KeyboardInterrupt):
        hosted(main)
    assert log == ["asyncio begins", "asyncio has cleaned up", "trio has cleaned up"]


@pytest.mark.usefixtures("default_sigint")
def test_ctrl_c_is_not_lost_in_a_task_that_swallows_its_cancellation() -> None:
    """The value arrives, and the next checkpoint raises the interrupt."""

    async def stubborn() -> str:
        asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.Event().wait()
        return "value"

    values = []

    async def main() -> None:
        values.append(await aio(stubborn))
        await trio.lowlevel.checkpoint()
        pytest.fail("was interrupted")

    with pytest.raises(KeyboardInterrupt):
        run(main, asyncio=True)
    assert values == ["value"]


def test_asyncio_iterators_are_asyncios_and_trios_are_trios() -> None:
    """Async generators left half-way are closed by the loop they ran in."""
    log = Log()

    async def numbers(whose: str, sleep: Callable[[float], Awaitable[object]]) -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await sleep(0)
            log.append(f"{whose} is closed")

    kept = []

    async def half_way(whose: str, sleep: Callable[[float], Awaitable[object]]) -> int:
        generator = numbers(whose, sleep)
        kept.append(generator)
        return await anext(generator)

    async def trio_sleep(seconds: float) -> None:
        with trio.CancelScope(shield=True):  # trio closes what is left in a cancelled scope
            await trio.sleep(seconds)

    async def main() -> None:
        assert await aio(half_way, "asyncio's", asyncio.sleep) == 1
        assert await half_way("trio's", trio_sleep) == 1

    hosted(main)
    assert log == ["trio's is closed", "asyncio's is closed"]
