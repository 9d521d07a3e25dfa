"""Calls between trio and the asyncio loop that hosts it: `aio` goes to asyncio, `from_aio` comes from there.

Theory of operation. Both loops turn in one thread, so each side may call plain functions of the other: no locks, no
queues. A call from trio makes an asyncio task and parks the trio task until that has ended; a call from asyncio makes
a trio task in the nursery of the guest run, and an asyncio future that is done when that has ended.

The callee always ends before its caller goes on. A caller that is cancelled cancels the callee, and waits:

| the caller was cancelled, and the callee | `aio` (in trio) | `from_aio` (in asyncio) |
|---|---|---|
| ended by that cancellation | `trio.Cancelled` | `asyncio.CancelledError` |
| raised an error of its own | that error | that error |
| returned a value all the same | the value; the next checkpoint raises | `asyncio.CancelledError` |

The last row differs because the loops do: a cancelled scope of trio stays cancelled, so nothing is forgotten if the
value is handed over; asyncio cancels once, and who takes that once for an answer has swallowed it.

A callee that was cancelled by somebody on its own side has not been cancelled by its caller, who may be in the best of
health. A `Cancelled` of nobody would end the caller's task without a word; so it raises `ForeignCancellation`.
"""

from __future__ import annotations

import asyncio  # noqa: TID251 - the loop on the other side
import functools
from collections.abc import Awaitable, Callable
from typing import Generic, NoReturn, ParamSpec, TypeVar

import attrs
import outcome
import trio

from tinker_actors.bridges.waiting import wait_for_the_end
from tinker_actors.errors import ForeignCancellation

__all__ = ["Host", "aio", "from_aio", "install_host"]

P = ParamSpec("P")
T = TypeVar("T")


@attrs.define(eq=False)
class Host:
    """The asyncio loop that hosts this run of trio.

    Attributes:
        loop: the loop.
        calls: where calls from asyncio run; None when the main function of the run has ended.
    """

    loop: asyncio.AbstractEventLoop
    calls: trio.Nursery | None


_HOST: trio.lowlevel.RunVar[Host | None] = trio.lowlevel.RunVar("tinker_actors.bridges.host", default=None)


def install_host(host: Host) -> None:
    """Make the host known to this run."""
    _HOST.set(host)


# --------------------------------------------------------------------------------------------------- trio to asyncio


async def aio(function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run an asyncio function on the host loop, from trio, and return its result.

    The function runs in an asyncio task of its own: `asyncio.timeout`, task groups and locks work in it. It sees the
    context variables of the caller; what it sets stays with it. If the caller is cancelled, so is the task, and this
    call returns only when the task has ended; a task that swallows its cancellation is waited for. To clean up in a
    cancelled scope, call it within `trio.CancelScope(shield=True)`. An asyncio context manager that has to be left in
    the task that entered it, such as `asyncio.timeout()`, belongs into one function, not into two calls.

    Args:
        function: an asyncio coroutine function, or anything that returns an asyncio awaitable.
        *args: its arguments.
        **kwargs: its keyword arguments.

    Raises:
        RuntimeError: this is not the trio of `run(main, asyncio=True)` or `run_guest(main)`.
        ForeignCancellation: the task was cancelled from the asyncio side.
        BaseException: whatever the function raised, with its traceback.
    """
    host = _host_of_trio()
    await trio.lowlevel.checkpoint_if_cancelled()
    call = _AsyncioCall(functools.partial(function, *args, **kwargs), host.loop, _name(function))
    result: T = await trio.lowlevel.wait_task_rescheduled(call.abort)
    return result


def _host_of_trio() -> Host:
    if not trio.lowlevel.in_trio_task():
        raise RuntimeError("aio() is called by trio tasks: in asyncio code, await the function itself")
    host = _HOST.get()
    if host is None:
        raise RuntimeError(
            "aio() needs an asyncio loop beside trio: start the program by tinker_actors.run(main, asyncio=True), "
            "not by trio.run(main)"
        )
    return host


class _AsyncioCall(Generic[T]):
    """One asyncio task that a trio task waits for."""

    def __init__(
        self, function: Callable[[], Awaitable[T]], loop: asyncio.AbstractEventLoop, name: str
    ) -> None:
        self._function = function
        self._loop = loop
        self._name = name
        self._caller = trio.lowlevel.current_task()
        self._raise_cancel: Callable[[], NoReturn] | None = None
        self._started = False
        self._task: asyncio.Task[outcome.Outcome[T]] | None = None
        # Not at once: a loop with eager tasks would run the function within this step of the trio task.
        self._starting = loop.call_soon(self._start)

    def _start(self) -> None:
        self._started = True
        self._task = self._loop.create_task(self._run(), name=self._name)
        self._task.add_done_callback(self._end)
        if self._raise_cancel is not None:  # an eager task has cancelled its caller in its first step
            self._cancel(self._task)

    async def _run(self) -> outcome.Outcome[T]:
        # The outcome is a value, so that SystemExit goes to the caller and does not stop the host loop.
        try:
            return outcome.Value(await self._function())
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: ASYNC103, BLE001 - raised again in the trio task
            return outcome.Error(error)  # noqa: ASYNC104

    def abort(self, raise_cancel: Callable[[], NoReturn]) -> trio.lowlevel.Abort:
        """The trio task is cancelled, or is to raise KeyboardInterrupt."""
        if not self._started:
            self._starting.cancel()
            return trio.lowlevel.Abort.SUCCEEDED
        self._raise_cancel = raise_cancel
        if self._task is not None:
            self._cancel(self._task)
        return trio.lowlevel.Abort.FAILED

    @staticmethod
    def _cancel(task: asyncio.Task[outcome.Outcome[T]]) -> None:
        task.cancel("the trio task that waits for it was cancelled")

    def _end(self, task: asyncio.Task[outcome.Outcome[T]]) -> None:
        if task.cancelled():  # before its first step
            result: outcome.Outcome[T] = outcome.Error(asyncio.CancelledError())
        else:
            error = task.exception()
            result = task.result() if error is None else outcome.Error(error)
        trio.lowlevel.reschedule(self._caller, self._as_trio_says(result))

    def _as_trio_says(self, result: outcome.Outcome[T]) -> outcome.Outcome[T]:
        if not isinstance(result, outcome.Error) or not isinstance(result.error, asyncio.CancelledError):
            return result  # an interrupt that was not raised stays pending in trio, as a cancelled scope does
        if self._raise_cancel is not None:
            return outcome.capture(self._raise_cancel)
        return outcome.Error(_foreign("asyncio", result.error))


def _name(function: object) -> str:
    return getattr(function, "__qualname__", None) or repr(function)


def _foreign(where: str, cause: BaseException | None) -> ForeignCancellation:
    error = ForeignCancellation(f"the call was cancelled on the side of {where}, not by its caller")
    error.__cause__ = cause
    return error


# --------------------------------------------------------------------------------------------------- asyncio to trio


async def from_aio(function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a trio function in the guest run, from asyncio, and return its result.

    So an asyncio environment calls a sampling client: `await from_aio(sampling.sample, prompt, 1, params)`. The
    function runs in a trio task of its own and sees the context variables of the caller; what it sets stays with it.
    If the caller is cancelled, so is the trio task, and this call returns only when that has ended.

    Args:
        function: a trio async function.
        *args: its arguments.
        **kwargs: its keyword arguments.

    Raises:
        RuntimeError: the caller is not an asyncio task of a loop that hosts trio, or the run's main function has
            ended.
        ForeignCancellation: the trio task was cancelled, but not by the caller: the run is ending.
        BaseException: whatever the function raised, with its traceback.
    """
    host = _host_of_asyncio()
    assert host.calls is not None
    call = _TrioCall(functools.partial(function, *args, **kwargs), host.loop)
    host.calls.start_soon(call.run, name=_name(function))
    cancelled = await wait_for_the_end(call.ended, call.cancel)
    return call.result(cancelled)


def _host_of_asyncio() -> Host:
    if trio.lowlevel.in_trio_task():
        raise RuntimeError("from_aio() is called by asyncio tasks: in trio code, await the function itself")
    host = _HOST.get() if trio.lowlevel.in_trio_run() else None
    if host is None:
        raise RuntimeError(
            "from_aio() needs trio as a guest of this asyncio loop: start the program by "
            "tinker_actors.run(main, asyncio=True), or trio by `await tinker_actors.run_guest(main)`"
        )
    if host.calls is None:
        raise RuntimeError("from_aio(): the trio run is ending: its main function has ended")
    return host


class _TrioCall(Generic[T]):
    """One trio task that an asyncio task waits for.

    Attributes:
        ended: done when the trio task has ended.
    """

    def __init__(self, function: Callable[[], Awaitable[T]], loop: asyncio.AbstractEventLoop) -> None:
        self._function = function
        self._scope = trio.CancelScope()
        self._outcome: outcome.Outcome[T] | None = None
        self.ended: asyncio.Future[None] = loop.create_future()

    async def run(self) -> None:
        """Run the function, in the trio task; whatever it raises goes to the caller."""
        try:
            with self._scope:
                self._outcome = outcome.Value(await self._function())
        except trio.Cancelled:  # noqa: ASYNC103 - the run is ending; the task ends here, and `result` says so
            self._outcome = None
        except BaseException as error:  # noqa: BLE001 - raised again in the asyncio task
            self._outcome = outcome.Error(error)
        finally:
            self.ended.set_result(None)

    def cancel(self) -> None:
        """Cancel the trio task."""
        self._scope.cancel(reason="the asyncio task that waits for it was cancelled")

    def result(self, cancelled: asyncio.CancelledError | None) -> T:
        """Return or raise what the call gives its caller, who may have been cancelled meanwhile."""
        if isinstance(self._outcome, outcome.Error):
            return self._outcome.unwrap()
        if cancelled is not None:
            raise cancelled
        if self._outcome is None:
            raise _foreign("trio", None)
        return self._outcome.unwrap()
