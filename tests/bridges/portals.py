"""What happens in portals, written down; for the tests of portals."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator

import trio


def portal_threads() -> list[str]:
    """Name the threads of portals that are alive."""
    return [thread.name for thread in threading.enumerate() if "portal" in thread.name]


class Log(list[str]):
    """What happened, in order, and events to wait for from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()

    async def wait(self) -> None:
        """Wait for ever, and clean up."""
        self.begun.set()
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()
            self.append("cleaned up")

    @contextlib.asynccontextmanager
    async def manager(self, name: str) -> AsyncIterator[str]:
        """A context manager with a nursery, that logs how it was left."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                yield name
            except trio.Cancelled:
                self.append(f"{name} was cancelled")
                raise
            except Exception as error:
                self.append(f"{name} failed: {error}")
                error.add_note(f"seen by {name}")
                nursery.cancel_scope.cancel()
                raise
            else:
                self.append(f"{name} was left")
            nursery.cancel_scope.cancel()


async def double(value: int, *, times: int = 2) -> int:
    """Multiply, in trio."""
    await trio.lowlevel.checkpoint()
    return value * times
