"""A context manager that is held open in a task of its own, until somebody else wants it left."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Generic, TypeVar

import trio

__all__ = ["Keeper"]

T = TypeVar("T")


class Keeper(Generic[T]):
    """Enters a context manager, holds it, and leaves it, all in one task: nurseries and scopes want that.

    Attributes:
        value: what the manager gave.
        left: set when it has been left.
        error: what leaving it raised, or what ended it early.
    """

    value: T

    def __init__(self, manager: AbstractAsyncContextManager[T, bool | None]) -> None:
        self._manager = manager
        self._scope = trio.CancelScope()
        self._leaving = trio.Event()
        self._failure: Exception | None = None
        self.left = trio.Event()
        self.error: BaseException | None = None

    async def keep(self, task_status: trio.TaskStatus[T]) -> None:  # noqa: ASYNC114 - started by name
        """Run the task; an error of entering is raised, any later one is kept in `error`.

        Raises:
            BaseException: entering the manager failed.
        """
        entered = False
        try:
            with self._scope:
                async with self._manager as value:
                    entered = True
                    self.value = value
                    task_status.started(value)
                    await self._leaving.wait()
                    if self._failure is not None:
                        raise self._failure
        except trio.Cancelled:
            raise
        except BaseException as error:  # noqa: ASYNC103 - kept for whoever leaves
            if not entered:
                raise
            self.error = error
        finally:
            self.left.set()

    def begin_to_leave(self, failure: BaseException | None) -> None:
        """Leave as if the manager's body had returned, or raised this error.

        What is no `Exception`, such as KeyboardInterrupt, cancels the body, for that is what trio makes of it.
        """
        if isinstance(failure, Exception):
            self._failure = failure
        elif failure is not None:
            self.cancel()
        self._leaving.set()

    def cancel(self) -> None:
        """Cancel the body, or the leaving if that takes too long."""
        self._scope.cancel(reason="the portal ends, or leaving takes too long")
