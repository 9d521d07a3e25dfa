"""Waiting in asyncio for the end of something that is cancelled with its caller, and cleans up first."""

from __future__ import annotations

import asyncio  # noqa: TID251 - the loop that waits
import contextlib
from collections.abc import Callable
from typing import TypeVar

from tinker_actors.bridges.call import Call

__all__ = ["wait_for_call", "wait_for_the_end"]

T = TypeVar("T")


async def wait_for_the_end(
    ended: asyncio.Future[None], cancel: Callable[[], object]
) -> asyncio.CancelledError | None:
    """Wait until a future is done; a cancellation calls `cancel` and waits on.

    Returns:
        The first cancellation, for the caller to raise; None if there was none.
    """
    cancelled: asyncio.CancelledError | None = None
    with contextlib.ExitStack() as abandoned:
        abandoned.callback(cancel)  # the coroutine was closed; it will not hear of the end
        while not ended.done():
            try:
                await asyncio.wait([ended])
            except asyncio.CancelledError as error:  # noqa: ASYNC103 - the caller raises it
                cancelled = cancelled or error
                cancel()
        abandoned.pop_all()
    return cancelled


async def wait_for_call(call: Call[T]) -> T:
    """Return or raise what a call in another thread gives.

    Raises:
        asyncio.CancelledError: the caller was cancelled, and the call has cleaned up.
        BaseException: whatever the call raised.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def tell(_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits any more
            loop.call_soon_threadsafe(ended.set_result, None)

    call.add_done_callback(tell)
    cancelled = await wait_for_the_end(ended, call.cancel)
    if cancelled is not None and (call.cancelled() or call.exception() is None):
        raise cancelled
    return call.result()
