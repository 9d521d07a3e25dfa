"""Death watch: whoever wants to know gets exactly one `Down`, also of an actor that had ended before.

Theory of operation. Each actor that can be watched has one `Obituary`. It holds the watchers while the actor
lives and the `Down` once it has ended. Telling them is synchronous; what a watcher does with it (put it before
an actor's messages, wake a task) is its own affair.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any, Literal, TypeAlias

import attrs
import trio

from tinker_actors.kernel.message import Message
from tinker_actors.kernel.outcome import Outcome

__all__ = ["Down", "DownReason", "Obituary", "Watch"]

DownReason: TypeAlias = Literal["stopped", "failed", "stuck", "restarting"]
"""`stopped`: in good order. `failed`: given up after a crash. `stuck`: cancelled, and it does not end.
`restarting`: an incarnation ended and another one follows; only for those who asked for it."""


@attrs.frozen
class Down(Message[Any, None]):
    """An actor has ended. An actor that watches another one gets it before all other messages.

    Attributes:
        path: the actor that has ended.
        reason: how.
        cause: what it raised, if it failed or is restarting.
    """

    path: str
    reason: DownReason
    cause: Exception | None = None


class Obituary:
    """Who wants to know of an actor's end, and the end itself.

    Attributes:
        down: how it ended; None while it lives.
    """

    __slots__ = ("_incarnations", "_next", "_watchers", "down")

    def __init__(self) -> None:
        self.down: Down | None = None
        self._watchers: dict[int, Callable[[Down], None]] | None = None  # few are watched
        self._incarnations: tuple[int, ...] = ()
        self._next = 0

    @trio.lowlevel.enable_ki_protection
    def add(self, watcher: Callable[[Down], None], *, incarnations: bool = False) -> int:
        """Have `watcher` called once at the end, at once if it has come; it must not raise.

        Args:
            watcher: called with the `Down`.
            incarnations: call it also whenever an incarnation ends that another one follows.

        Returns:
            a key for `remove`.
        """
        key = self._next
        self._next += 1
        if self.down is not None:
            watcher(self.down)
            return key
        if self._watchers is None:
            self._watchers = {}
        self._watchers[key] = watcher
        if incarnations:
            self._incarnations += (key,)
        return key

    @trio.lowlevel.enable_ki_protection
    def remove(self, key: int) -> None:
        """Forget a watcher; one that is not there any more is no matter."""
        if self._watchers is not None:
            self._watchers.pop(key, None)
        self._incarnations = tuple(other for other in self._incarnations if other != key)

    @trio.lowlevel.enable_ki_protection
    def restarting(self, down: Down) -> None:
        """Tell those who want to know of incarnations."""
        for key in self._incarnations:
            watcher = (self._watchers or {}).get(key)
            if watcher is not None:  # else one that was told before has removed it
                watcher(down)

    @trio.lowlevel.enable_ki_protection
    def ended(self, down: Down) -> None:
        """Tell everybody, once and for all."""
        if self.down is not None:
            return
        self.down = down
        watchers, self._watchers = self._watchers, None
        self._incarnations = ()
        for watcher in (watchers or {}).values():
            watcher(down)

    @property
    def watchers(self) -> int:
        """How many wait for it."""
        return len(self._watchers or ())

    async def wait(self) -> Down:
        """Wait for the end. A checkpoint."""
        async with self.watching() as watch:
            return await watch.down()

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncGenerator[Watch]:  # noqa: ASYNC911 - entering and leaving wait for nothing
        """Watch for as long as the block lasts."""
        outcome: Outcome[Down] = Outcome()

        def note(down: Down) -> None:
            outcome.settle(down)

        key = self.add(note)
        try:
            yield Watch(outcome)
        finally:
            self.remove(key)


class Watch:
    """A watch that lasts as long as its `async with` block."""

    def __init__(self, outcome: Outcome[Down]) -> None:
        self._outcome = outcome

    async def down(self) -> Down:
        """Wait for the end and return it. A checkpoint."""
        return await self._outcome.wait()
