"""One outcome, any number of readers.

Theory of operation. An `Outcome` is settled once, synchronously; the first settlement wins and later ones
are counted, not raised. Readers wait on it without touching the work behind it: a reader that is cancelled
leaves and nothing else changes. Each reader gets an exception object of its own, because one object raised in
several tasks would collect the tracebacks of all of them.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

import trio

from tinker_actors.errors import TinkerActorsError
from tinker_actors.kernel.border import call_user

__all__ = ["Outcome", "fresh"]

_LOG = logging.getLogger("tinker_actors.kernel")

T = TypeVar("T")


def fresh(error: Exception) -> Exception:
    """Return an exception that may be raised in one more task: same type, arguments, cause and notes."""
    if isinstance(error, TinkerActorsError):
        return error.renewed()
    try:
        twin = _twin(error)
    except Exception:  # noqa: BLE001 - an exception class may refuse to be copied in any way it likes
        return error.with_traceback(None)
    notes = getattr(error, "__notes__", None)
    if notes is not None:
        twin.__notes__ = list(notes)  # notes added to one copy must not show on another
    twin.__cause__ = error.__cause__
    return twin


def _twin(error: Exception) -> Exception:
    """Copy an exception; one whose `__init__` takes something else than its `args` is rebuilt without it."""
    try:
        twin = copy.copy(error)
        if len(twin.args) == len(error.args) and all(map(_same, twin.args, error.args)):
            return twin
    except Exception:  # noqa: BLE001, S110 - whatever its `__init__` raises, the other way is left
        pass
    twin = type(error).__new__(type(error), *error.args)
    twin.args = error.args
    twin.__dict__.update(error.__dict__)
    return twin


def _same(left: object, right: object) -> bool:
    return left is right


class _Leaving:
    """What trio calls when a parked task is cancelled. One object; a nested function would be eight for each wait."""

    __slots__ = ("_on_abort", "_outcome", "_task", "refused")

    def __init__(
        self,
        outcome: Outcome[Any],
        task: trio.lowlevel.Task,
        on_abort: Callable[[], trio.lowlevel.Abort] | None,
    ) -> None:
        self._outcome = outcome
        self._task = task
        self._on_abort = on_abort
        self.refused = False

    def __call__(self, _: Callable[[], object]) -> trio.lowlevel.Abort:
        if self._outcome.let_go(self._task, self._on_abort):
            return trio.lowlevel.Abort.SUCCEEDED
        self.refused = True
        return trio.lowlevel.Abort.FAILED


class Outcome(Generic[T]):
    """A value or an error that is settled once and may be awaited by any number of tasks.

    Attributes:
        settled: there is a value or an error.
        error: the error it was settled with, if any; not for raising, see `wait`.
        late: settlements that came after the first and were dropped.
        observed: somebody has got the value or the error, or said that nobody needs to.
    """

    # Class attributes are the state of a new outcome: making one must cost little, and most change few of them.
    settled: bool = False
    error: Exception | None = None
    late: int = 0
    observed: bool = False
    _value: T | None = None
    # Most outcomes have one reader, so a set of them is made for the second only.
    _waiting: trio.lowlevel.Task | dict[trio.lowlevel.Task, None] | None = None
    _on_failure: Callable[[Outcome[T]], None] | None = None

    @property
    def on_failure(self) -> Callable[[Outcome[T]], None] | None:
        """Called once if it is settled with an error while nobody waits; at once if that has happened."""
        return self._on_failure

    @on_failure.setter
    def on_failure(self, callback: Callable[[Outcome[T]], None] | None) -> None:
        self._on_failure = callback
        if self.error is not None:
            self._tell_of_failure()

    def settle(self, value: T) -> bool:
        """Settle with a value; False if it was settled already."""
        return self._close(value, None)

    def fail(self, error: Exception) -> bool:
        """Settle with an error; False if it was settled already."""
        return self._close(None, error)

    @trio.lowlevel.enable_ki_protection
    def _close(self, value: T | None, error: Exception | None) -> bool:
        if self.settled:
            self.late += 1
            return False
        self.settled = True
        if value is not None:
            self._value = value
        waiting = self._waiting
        if waiting is not None:
            self._waiting = None
            self.observed = True  # a task that has been woken does get it
            if isinstance(waiting, dict):
                for task in waiting:
                    trio.lowlevel.reschedule(task)
            else:
                trio.lowlevel.reschedule(waiting)
        if error is not None:
            self.error = error
            self._tell_of_failure()
        return True

    def _tell_of_failure(self) -> None:
        callback = self._on_failure
        if callback is None or self.observed:
            return
        try:
            call_user(callback, self)
        except Exception:  # noqa: BLE001 - a user's function must not keep other outcomes unsettled
            _LOG.exception("a callback for failures failed")

    async def wait(self) -> T:
        """Return the value, or raise a fresh copy of the error. Always a checkpoint."""
        if self.settled:
            await trio.lowlevel.checkpoint()
        else:
            await self.park()
        return self.result()

    @trio.lowlevel.enable_ki_protection
    async def park(self, on_abort: Callable[[], trio.lowlevel.Abort] | None = None) -> None:
        """Wait until an outcome that is not settled yet is. Always a checkpoint.

        Args:
            on_abort: called if the waiting task is cancelled; it may refuse (`Abort.FAILED`), and then the
                wait goes on until the outcome is settled and ends in the cancellation.
        """
        task = trio.lowlevel.current_task()
        leaving = _Leaving(self, task, on_abort)
        self._remember(task)
        await trio.lowlevel.wait_task_rescheduled(leaving)
        if leaving.refused:
            await trio.lowlevel.checkpoint_if_cancelled()

    def let_go(self, task: trio.lowlevel.Task, on_abort: Callable[[], trio.lowlevel.Abort] | None) -> bool:
        """A task that is parked is cancelled: let it go, unless `on_abort` refuses; return whether it goes."""
        self._forget(task)  # first of all: `on_abort` may settle this very outcome
        if on_abort is None or on_abort() is trio.lowlevel.Abort.SUCCEEDED or self.settled:
            return True
        self._remember(task)
        return False

    def _remember(self, task: trio.lowlevel.Task) -> None:
        waiting = self._waiting
        if waiting is None:
            self._waiting = task
        elif isinstance(waiting, dict):
            waiting[task] = None
        else:
            self._waiting = {waiting: None, task: None}

    def _forget(self, task: trio.lowlevel.Task) -> None:
        if isinstance(self._waiting, dict):
            del self._waiting[task]
        else:
            self._waiting = None

    def result(self) -> T:
        """Return the value or raise the error of a settled outcome, without waiting.

        Raises:
            RuntimeError: it is not settled.
        """
        if not self.settled:
            raise RuntimeError("the outcome is not settled yet")
        self.observed = True
        if self.error is not None:
            raise fresh(self.error)
        return cast("T", self._value)
