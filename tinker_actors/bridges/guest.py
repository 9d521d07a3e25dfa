"""trio as a guest of an asyncio loop: both turn in one thread, and neither waits for the other.

    async def main() -> None:                     # trio
        async with tinker_actors.open_service() as service:
            ...
            reply = await tinker_actors.aio(environment.step, action)      # asyncio

    tinker_actors.run(main, asyncio=True)

Theory of operation. The asyncio loop is the host; trio's loop runs in slices as callbacks of it, and waits for its own
I/O in a thread. The main function runs in trio. When it has ended, what is left ends in this order: asyncio tasks are
cancelled and awaited while trio still runs, for they may be waiting for it; then calls from asyncio; then trio with its
async generators; then the asyncio loop with its own, and its threads.

Ctrl-C is trio's: KeyboardInterrupt is raised in the main function, or in the trio code that is running, and the
clean-up goes the usual way, through the calls that are under way on the other side. It is never raised in asyncio code.
"""

from __future__ import annotations

import asyncio  # noqa: TID251 - the host
import functools
import signal
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypedDict, TypeVar, TypeVarTuple

import outcome
import trio
from trio.abc import Clock, Instrument

from tinker_actors.bridges.crossing import Host, aio, install_host
from tinker_actors.bridges.waiting import wait_for_the_end

__all__ = ["run", "run_guest"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class _Options(TypedDict):
    clock: Clock | None
    instruments: Sequence[Instrument]
    restrict_keyboard_interrupt_to_checkpoints: bool


def run(
    main: Callable[[*Ts], Awaitable[T]],
    *args: *Ts,
    asyncio: bool = False,
    clock: Clock | None = None,
    instruments: Sequence[Instrument] = (),
    restrict_keyboard_interrupt_to_checkpoints: bool = False,
) -> T:
    """Run a trio program, if asked for with an asyncio loop beside it, and return its result.

    Without `asyncio` this is `trio.run`. With it, asyncio code is called by `aio`, and calls back by `from_aio`; both
    loops are closed when this returns, and everything that ran in them has ended: asyncio tasks that are left over
    are cancelled and awaited.

    Args:
        main: a trio async function.
        *args: its arguments.
        asyncio: also run an asyncio loop, in the same thread, as trio's host.
        clock: as for `trio.run`. A clock that jumps does not see asyncio's sleeps.
        instruments: as for `trio.run`.
        restrict_keyboard_interrupt_to_checkpoints: as for `trio.run`.

    Raises:
        RuntimeError: an asyncio loop, or trio, runs in this thread already.
        KeyboardInterrupt: Ctrl-C, after the clean-up.
        BaseException: whatever `main` raised.
    """
    options = _Options(
        clock=clock,
        instruments=instruments,
        restrict_keyboard_interrupt_to_checkpoints=restrict_keyboard_interrupt_to_checkpoints,
    )
    if not asyncio:
        return trio.run(main, *args, **options)
    return _run_hosted(_Guest(functools.partial(main, *args), options, ends_tasks=True))


async def run_guest(
    main: Callable[[*Ts], Awaitable[T]],
    *args: *Ts,
    clock: Clock | None = None,
    instruments: Sequence[Instrument] = (),
    restrict_keyboard_interrupt_to_checkpoints: bool = False,
) -> T:
    """Run a trio function as a guest of the asyncio loop that is running, from asyncio, and return its result.

    For asyncio programs and for single cells of notebooks. The guest lives as long as this call: if the caller is
    cancelled, `main` is cancelled, and this call returns when it has ended. Calls of `from_aio` that are still under
    way when `main` ends are cancelled. A loop has one guest at a time.

    Args:
        main: a trio async function.
        *args: its arguments.
        clock: as for `trio.run`. A clock that jumps does not see asyncio's sleeps.
        instruments: as for `trio.run`.
        restrict_keyboard_interrupt_to_checkpoints: as for `trio.run`.

    Raises:
        RuntimeError: trio runs in this thread already.
        asyncio.CancelledError: the caller was cancelled.
        BaseException: whatever `main` raised.
    """
    _refuse_a_second_trio()
    options = _Options(
        clock=clock,
        instruments=instruments,
        restrict_keyboard_interrupt_to_checkpoints=restrict_keyboard_interrupt_to_checkpoints,
    )
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    guest = _Guest(functools.partial(main, *args), options, ends_tasks=False)
    guest.start(lambda: ended.set_result(None))
    cancelled = await wait_for_the_end(ended, guest.cancel)
    if cancelled is not None and not guest.failed:
        raise cancelled
    return guest.result()


def _run_hosted(guest: _Guest[T]) -> T:
    """Run a guest in an asyncio loop of its own."""
    _refuse_a_running_loop()
    with asyncio.Runner() as runner:
        fatal = _turn(runner.get_loop(), guest)
    if fatal is not None:
        raise fatal
    return guest.result()


def _turn(loop: asyncio.AbstractEventLoop, guest: _Guest[T]) -> BaseException | None:
    """Turn the loop until the guest has left; return what a task threw at the loop itself, such as SystemExit."""
    fatal: BaseException | None = None
    loop.call_soon(guest.start, loop.stop)
    while not guest.ended:  # again, if somebody else has stopped the loop: trio must not be left half-way
        try:
            loop.run_forever()
        except BaseException as error:  # noqa: ASYNC103, BLE001 - raised when both loops are closed
            fatal = fatal or error
            guest.cancel()
    return fatal


class _Guest(Generic[T]):
    """One run of trio in the asyncio loop that is running.

    Args:
        main: the main function.
        options: of `trio.run`.
        ends_tasks: cancel and await all asyncio tasks when `main` has ended.
    """

    def __init__(self, main: Callable[[], Awaitable[T]], options: _Options, *, ends_tasks: bool) -> None:
        self._main = main
        self._options = options
        self._ends_tasks = ends_tasks
        self._scope = trio.CancelScope()
        self._outcome: outcome.Outcome[T] | None = None
        self._end: Callable[[], object] = lambda: None

    @property
    def ended(self) -> bool:
        """Whether trio has ended."""
        return self._outcome is not None

    @property
    def failed(self) -> bool:
        """Whether the main function raised an error of its own."""
        return isinstance(self._outcome, outcome.Error) and not self._scope.cancelled_caught

    def result(self) -> T:
        """Return or raise what the main function gave."""
        assert self._outcome is not None
        return self._outcome.unwrap()

    def cancel(self) -> None:
        """Cancel the main function."""
        self._scope.cancel(reason="the asyncio side ends the guest run")

    def start(self, end: Callable[[], object]) -> None:
        """Start trio; `end` is called when it has ended. Called with the loop running, so that it is found."""
        self._end = end
        loop = asyncio.get_running_loop()
        try:
            trio.lowlevel.start_guest_run(
                self._run,
                loop,
                run_sync_soon_threadsafe=loop.call_soon_threadsafe,
                run_sync_soon_not_threadsafe=loop.call_soon,
                done_callback=self._leave,
                host_uses_signal_set_wakeup_fd=_wakeup_is_taken(),
                **self._options,
            )
        except Exception as error:  # noqa: BLE001 - raised by `result`
            self._leave(outcome.Error(error))

    def _leave(self, result: outcome.Outcome[T]) -> None:
        self._outcome = result
        self._end()

    async def _run(self, loop: asyncio.AbstractEventLoop) -> T:
        async with trio.open_nursery() as calls:
            host = Host(loop, calls)
            install_host(host)
            result = await _acapture(self._run_main)
            if self._ends_tasks:
                ending = await _acapture(aio, _end_other_tasks)
                if isinstance(ending, outcome.Error) and isinstance(result, outcome.Value):
                    result = ending  # Ctrl-C
            host.calls = None
            calls.cancel_scope.cancel(reason="the main function of the guest run has ended")
        return result.unwrap()

    async def _run_main(self) -> T:
        with self._scope:
            return await self._main()
        raise asyncio.CancelledError  # the asyncio side has cancelled it, and says what that means


async def _acapture(function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> outcome.Outcome[T]:
    """Run a function; unlike outcome's own, also keep KeyboardInterrupt, which must not come out in a group."""
    try:
        return outcome.Value(await function(*args))
    except BaseException as error:  # noqa: ASYNC103, BLE001 - unwrapped outside of the nursery
        return outcome.Error(error)  # noqa: ASYNC104


async def _end_other_tasks() -> None:
    """Cancel the other asyncio tasks of the loop, and wait for them."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel("the program ends")
    if tasks:
        await asyncio.wait(tasks)


def _wakeup_is_taken() -> bool:
    """Say whether the host has itself woken up by signals; if not, trio may do so."""
    if threading.current_thread() is not threading.main_thread():
        return True  # signals are no concern of this thread
    descriptor = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(descriptor)
    return descriptor != -1


def _refuse_a_running_loop() -> None:
    _refuse_a_second_trio()
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        "run(main, asyncio=True) starts an asyncio loop, and one runs in this thread already: use "
        "`await tinker_actors.run_guest(main)`, or, in notebooks, `tinker_actors.open_portal()`"
    )


def _refuse_a_second_trio() -> None:
    if trio.lowlevel.in_trio_run():
        raise RuntimeError(
            "trio runs in this thread already: await the function, or use from_aio() in asyncio code"
        )
