"""One outcome, any number of readers.

Theory of operation. An `Outcome` is settled once, synchronously; the first settlement wins and later ones are
counted, not raised. Readers wait on it without touching the work behind it: a reader that is cancelled leaves
and nothing else changes. Each reader gets an exception object of its own, because one object raised in several
tasks would collect the tracebacks of all of them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Generic, TypeVar, cast

import trio

from tinker_actors.errors import TinkerActorsError

__all__ = ["Outcome", "fresh"]

T = TypeVar("T")


def fresh(error: Exception) -> Exception:
    """Return an exception that may be raised in one more task: same type, arguments, cause and notes."""
    if isinstance(error, TinkerActorsError):
        return error.renewed()
    try:
        twin = copy.copy(error)
    except Exception:  # noqa: BLE001 - an exception class may refuse to be copied in any way it likes
        return error.with_traceback(None)
    twin.__cause__ = error.__cause__
    return twin


class Outcome(Generic[T]):
    """A value or an error that is settled once and may be awaited by any number of tasks.

    Attributes:
        late: settlements that came after the first and were dropped.
        observed: somebody has got the value or the error, or said that nobody needs to.
        on_failure: called once if it is settled with an error while nobody waits.
    """

    __slots__ = ("_error", "_settled", "_value", "_waiting", "late", "observed", "on_failure")

    def __init__(self) -> None:
        self._settled = False
        self._value: T | None = None
        self._error: Exception | None = None
        self._waiting: dict[trio.lowlevel.Task, None] = {}
        self.late = 0
        self.observed = False
        self.on_failure: Callable[[Outcome[T]], None] | None = None

    @property
    def settled(self) -> bool:
        """Whether there is a value or an error."""
        return self._settled

    @property
    def error(self) -> Exception | None:
        """The error it was settled with, if any; not for raising, see `wait`."""
        return self._error

    def settle(self, value: T) -> bool:
        """Settle with a value; False if it was settled already."""
        return self._close(value, None)

    def fail(self, error: Exception) -> bool:
        """Settle with an error; False if it was settled already."""
        return self._close(None, error)

    def _close(self, value: T | None, error: Exception | None) -> bool:
        if self._settled:
            self.late += 1
            return False
        self._settled, self._value, self._error = True, value, error
        waiting, self._waiting = self._waiting, {}
        for task in waiting:
            trio.lowlevel.reschedule(task)
        if error is not None and not waiting and self.on_failure is not None:
            self.on_failure(self)
        return True

    async def wait(self, on_abort: Callable[[], trio.lowlevel.Abort] | None = None) -> T:
        """Return the value, or raise a fresh copy of the error. Always a checkpoint.

        Args:
            on_abort: called if the waiting task is cancelled; it may refuse (`Abort.FAILED`), and then the
                wait goes on until the outcome is settled and ends in the cancellation.
        """
        if self._settled:
            await trio.lowlevel.checkpoint()
        else:
            refused = await self._park(on_abort)
            if refused:
                await trio.lowlevel.checkpoint_if_cancelled()
        return self.result()

    async def _park(self, on_abort: Callable[[], trio.lowlevel.Abort] | None) -> bool:
        task = trio.lowlevel.current_task()
        refused = False

        def abort(_: Callable[[], object]) -> trio.lowlevel.Abort:
            nonlocal refused
            answer = trio.lowlevel.Abort.SUCCEEDED if on_abort is None else on_abort()
            if answer is trio.lowlevel.Abort.SUCCEEDED:
                self._waiting.pop(task, None)
            else:
                refused = True
            return answer

        self._waiting[task] = None
        await trio.lowlevel.wait_task_rescheduled(abort)
        return refused

    def result(self) -> T:
        """Return the value or raise the error of a settled outcome, without waiting.

        Raises:
            RuntimeError: it is not settled.
        """
        if not self._settled:
            raise RuntimeError("the outcome is not settled yet")
        self.observed = True
        if self._error is not None:
            raise fresh(self._error)
        return cast("T", self._value)
