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
from typing import Generic, TypeVar, cast

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


class Outcome(Generic[T]):
    """A value or an error that is settled once and may be awaited by any number of tasks.

    Attributes:
        late: settlements that came after the first and were dropped.
        observed: somebody has got the value or the error, or said that nobody needs to.
    """

    __slots__ = (
        "__weakref__",
        "_error",
        "_on_failure",
        "_settled",
        "_value",
        "_waiting",
        "late",
        "observed",
    )

    def __init__(self) -> None:
        self._settled = False
        self._value: T | None = None
        self._error: Exception | None = None
        self._waiting: dict[trio.lowlevel.Task, None] = {}
        self._on_failure: Callable[[Outcome[T]], None] | None = None
        self.late = 0
        self.observed = False

    @property
    def settled(self) -> bool:
        """Whether there is a value or an error."""
        return self._settled

    @property
    def error(self) -> Exception | None:
        """The error it was settled with, if any; not for raising, see `wait`."""
        return self._error

    @property
    def on_failure(self) -> Callable[[Outcome[T]], None] | None:
        """Called once if it is settled with an error while nobody waits; at once if that has happened."""
        return self._on_failure

    @on_failure.setter
    def on_failure(self, callback: Callable[[Outcome[T]], None] | None) -> None:
        self._on_failure = callback
        if self._error is not None:
            self._tell_of_failure()

    def settle(self, value: T) -> bool:
        """Settle with a value; False if it was settled already."""
        return self._close(value, None)

    def fail(self, error: Exception) -> bool:
        """Settle with an error; False if it was settled already."""
        return self._close(None, error)

    @trio.lowlevel.enable_ki_protection
    def _close(self, value: T | None, error: Exception | None) -> bool:
        if self._settled:
            self.late += 1
            return False
        self._settled, self._value, self._error = True, value, error
        waiting, self._waiting = self._waiting, {}
        for task in waiting:
            self.observed = True  # a task that has been woken does get it
            trio.lowlevel.reschedule(task)
        if error is not None:
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
        if self._settled:
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
        refused = False

        def abort(_: Callable[[], object]) -> trio.lowlevel.Abort:
            nonlocal refused
            del self._waiting[task]  # first of all: `on_abort` may settle this very outcome
            if on_abort is None or on_abort() is trio.lowlevel.Abort.SUCCEEDED or self._settled:
                return trio.lowlevel.Abort.SUCCEEDED
            self._waiting[task] = None
            refused = True
            return trio.lowlevel.Abort.FAILED

        self._waiting[task] = None
        await trio.lowlevel.wait_task_rescheduled(abort)
        if refused:
            await trio.lowlevel.checkpoint_if_cancelled()

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
