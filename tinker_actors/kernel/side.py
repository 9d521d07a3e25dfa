"""The tasks an actor has spawned, beside its handlers.

Theory of operation. Most actors spawn none, so the nursery for them is opened with the first one, in a task of
the tree. It is shielded like the incarnation itself, which cancels it when it ends, and waits for it. If one of
the tasks raises, the others are cancelled and the incarnation is told.
"""

from __future__ import annotations

import contextvars
from collections.abc import Awaitable, Callable

import trio

from tinker_actors.kernel.border import await_user
from tinker_actors.kernel.outcome import Outcome
from tinker_actors.kernel.reader import CURRENT_READER

__all__ = ["Side"]

Function = Callable[..., Awaitable[object]]


class Side:
    """The spawned tasks of one incarnation.

    Args:
        failed: called in the task that raised, before the others are cancelled.

    Attributes:
        task: the one that holds the nursery.
    """

    def __init__(self, failed: Callable[[BaseException], None]) -> None:
        self.task: trio.lowlevel.Task | None = None
        self._failed = failed
        self._scope = trio.CancelScope(shield=True)
        self._nursery: trio.Nursery | None = None
        self._early: list[tuple[contextvars.Context, Function, tuple[object, ...]]] = []
        self._over: Outcome[None] = Outcome()

    def start(self, function: Function, args: tuple[object, ...]) -> None:
        """Run a task.

        Raises:
            RuntimeError: the incarnation has ended.
        """
        if self._scope.cancel_called or self._over.settled:
            raise RuntimeError("the incarnation has ended and starts no task any more")
        if self._nursery is None:
            self._early.append((contextvars.copy_context(), function, args))
        else:
            self._nursery.start_soon(self._run_one, function, args, name=function)

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Hold the nursery until `end` or `cancel`. A checkpoint.

        Raises:
            BaseException: what a task raised that is not an `Exception`.
        """
        self.task = trio.lowlevel.current_task()
        try:
            with self._scope:
                async with trio.open_nursery() as self._nursery:
                    for context, function, args in self._early:
                        context.run(self._start, self._nursery, function, args)
                    self._early.clear()
                    await trio.sleep_forever()
        except Exception:  # noqa: BLE001, S110 - the incarnation has been told, by `failed`
            pass
        finally:
            self._nursery = self.task = None
            self._over.settle(None)

    def _start(self, nursery: trio.Nursery, function: Function, args: tuple[object, ...]) -> None:
        nursery.start_soon(self._run_one, function, args, name=function)

    @trio.lowlevel.enable_ki_protection
    async def _run_one(self, function: Function, args: tuple[object, ...]) -> None:
        CURRENT_READER.set(None)  # what it asks, no handler waits for
        try:
            await await_user(function, *args)
        except trio.Cancelled:
            raise
        except BaseException as error:
            self._failed(error)
            raise

    def cancel(self, reason: str) -> None:
        """Cancel them all."""
        self._scope.cancel(reason=reason)

    async def end(self, reason: str) -> None:
        """Cancel them all and wait for their end. A checkpoint; not cancelled itself."""
        self.cancel(reason)
        with trio.CancelScope(shield=True):
            await self._over.wait()
