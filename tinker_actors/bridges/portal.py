"""A blocking portal: trio in a thread of its own, for scripts and notebooks that have no loop, or another one.

    with tinker_actors.open_portal() as portal:
        service = portal.open(tinker_actors.open_service("local"))
        training = portal.call(service.create_lora_training_client, "tinker-actors/char-100k", rank=8)
        pending = portal.call(training.forward_backward, batch, "cross_entropy")
        portal.call(training.optim_step, tinker_actors.AdamParams())
        print(portal.result(pending).metrics)

Theory of operation. The thread runs one trio main task with two nurseries. The outer one has a keeper for each context
manager that was opened: a nursery cannot be entered in one call and left in another, so a task of its own enters it,
holds it and leaves it. The inner one has the calls. Closing closes the door, waits for the calls, leaves the managers
in reverse order, and ends the thread. All that changes is changed in the loop's thread, by plain functions that other
threads put into trio's queue; what other threads wait for are futures.

If the body of the `with` raised, calls are cancelled, and the managers are left with that error, as if it had been
raised in their own bodies. A portal that nobody has closed is closed when the program's main thread has ended, as if
its body had been cancelled then; calls of other threads are cancelled with it.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import contextvars
import functools
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, cast

import trio

from tinker_actors.bridges.at_exit import close_at_exit, closed
from tinker_actors.bridges.call import Call
from tinker_actors.bridges.guest import run
from tinker_actors.bridges.keeper import Keeper
from tinker_actors.bridges.waiting import wait_for_call
from tinker_actors.errors import InputError, PortalClosed

__all__ = ["Portal", "open_portal"]

P = ParamSpec("P")
T = TypeVar("T")


def open_portal(*, asyncio: bool = False) -> Portal:
    """Start trio in a thread of its own, and return the portal to it.

    To be used in a `with` statement, or to be closed by `Portal.close`.

    Args:
        asyncio: run an asyncio loop beside trio, so that what is called may use `aio`.
    """
    return Portal._start(asyncio=asyncio)  # noqa: SLF001 - the constructor is not for users


class Portal:
    """Calls into a trio loop that runs in another thread; made by `open_portal`. Any thread may use it.

    Each method blocks, but for `submit`. From an asyncio loop, such as that of a notebook, `acall`, `aopen` and
    `aresult` do the same without blocking it.

    Whatever is called sees the context variables of the caller. Its errors are raised as they are. KeyboardInterrupt
    in the thread that waits cancels the call, waits for its clean-up, and goes on; a second one does not wait.

    Every method raises PortalClosed when the portal is closed, and RuntimeError in the portal's own thread, where it
    would wait for itself, and in a forked process, which has no such thread.
    """

    # Set by the loop's thread before `open_portal` returns.
    _token: trio.lowlevel.TrioToken
    _calls: trio.Nursery
    _keeping: trio.Nursery

    def __init__(self, *, asyncio: bool) -> None:
        self._process = os.getpid()
        self._ready: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._keepers: list[Keeper[Any]] = []
        self._leaving: Keeper[Any] | None = None
        self._running: set[Call[Any]] = set()
        self._idle: set[trio.CancelScope] = set()  # iterations that wait until they are asked for a step
        self._stop = trio.Event()
        self._ended = threading.Event()
        self._failure: BaseException | None = None
        self._errors: list[BaseException] = []
        self._thread = threading.Thread(
            target=self._run, args=(asyncio,), name="tinker_actors portal", daemon=True
        )

    @classmethod
    def _start(cls, *, asyncio: bool) -> Self:
        portal = cls(asyncio=asyncio)
        close_at_exit(portal._close_at_exit)
        portal._thread.start()
        try:
            portal._ready.result()
        except Exception:
            portal._thread.join()
            raise
        return portal

    def __repr__(self) -> str:
        return f"<Portal {'closed' if self._stop.is_set() or self._ended.is_set() else 'open'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        for other in self._end(error):
            error.add_note(f"closing the portal failed as well: {other!r}")
        error.__traceback__ = trace  # without the frames of those who saw it pass

    # ------------------------------------------------------------------------------------------------- calls

    def call(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call an async function of trio, and return its result."""
        call = self._make(function, *args, **kwargs)
        try:
            self._send(call)
            return call.result()
        except BaseException:
            if not call.done():  # so it is the wait that was interrupted
                call.cancel()
                concurrent.futures.wait([call])
            raise

    def submit(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> Call[T]:
        """Call an async function of trio, and return a future at once.

        Cancelling the future cancels the trio task; the future is done when that has cleaned up.
        """
        call = self._make(function, *args, **kwargs)
        self._send(call)
        return call

    def result(self, awaitable: Awaitable[T], /) -> T:
        """Wait for something awaitable of trio, such as a `Pending`, and return its result.

        Interrupting the wait changes nothing about what is waited for.
        """
        return self.call(_wait, awaitable)

    def iterate(self, iterable: AsyncIterable[T], /) -> Iterator[T]:
        """Go through an async iterable of trio; one task steps through it, and takes a step only when asked for it.

        Leaving the loop early closes the iterable; so does closing the portal, when the step under way has ended.
        """
        wanted, wants = trio.open_memory_channel[None](0)
        offer, offered = trio.open_memory_channel[T](0)

        async def ask() -> T:
            await wanted.send(None)
            return await offered.receive()

        task = self.submit(self._step_through, iterable, wants, offer)
        try:
            while True:
                try:
                    item = self.call(ask)
                except (trio.BrokenResourceError, trio.EndOfChannel):
                    break
                yield item
            task.result()
        except GeneratorExit:
            raise
        except BaseException:
            task.cancel()
            raise
        finally:
            self._close_channels(wanted, offered)
            if threading.current_thread() is not self._thread:  # a forgotten iterator may be collected there
                concurrent.futures.wait([task])

    def _close_channels(
        self, wanted: trio.MemorySendChannel[None], offered: trio.MemoryReceiveChannel[T]
    ) -> None:
        """Tell the task that nothing more is wanted."""

        def close() -> None:
            wanted.close()
            offered.close()

        with contextlib.suppress(PortalClosed):
            self._soon(close)

    # ----------------------------------------------------------------------------------------- context managers

    def open(self, manager: AbstractAsyncContextManager[T, bool | None], /) -> T:
        """Enter an async context manager of trio, and return its value.

        It is left by `leave`, or when the portal is closed, in reverse order of opening.
        """
        return self.call(self._enter, manager)

    def leave(self, value: object, /) -> None:
        """Leave the context manager that gave this value; raises what leaving it raises.

        Raises:
            InputError: `open` has not returned this value, or it has been left.
        """
        self.call(self._leave, value)

    def close(self) -> None:
        """Close the portal: wait for the calls, leave what is open, end the thread. Again does nothing.

        Raises:
            BaseException: what leaving a context manager raised; an ExceptionGroup if it was several.
        """
        errors = self._end(None)
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise BaseExceptionGroup("closing the portal failed", errors)

    # ---------------------------------------------------------------------------------------------- from asyncio

    async def acall(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Do as `call` does, from asyncio, without blocking its loop.

        A cancelled caller cancels the trio task and waits for its clean-up.
        """
        call = self._make(function, *args, **kwargs)
        self._send(call)
        return await wait_for_call(call)

    async def aopen(self, manager: AbstractAsyncContextManager[T, bool | None], /) -> T:
        """Do as `open` does, from asyncio."""
        return await self.acall(self._enter, manager)

    async def aleave(self, value: object, /) -> None:
        """Do as `leave` does, from asyncio."""
        await self.acall(self._leave, value)

    async def aresult(self, awaitable: Awaitable[T], /) -> T:
        """Do as `result` does, from asyncio."""
        return await self.acall(_wait, awaitable)

    # --------------------------------------------------------------------------------------- in any other thread

    def _make(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> Call[T]:
        self._check_thread()
        return Call(functools.partial(function, *args, **kwargs), self._soon)

    def _send(self, call: Call[T]) -> None:
        self._soon(functools.partial(self._begin, call, contextvars.copy_context()))

    def _check_thread(self) -> None:
        if threading.current_thread() is self._thread:
            raise RuntimeError(
                "this is the portal's own thread, where a call would wait for itself: await the function instead"
            )
        if os.getpid() != self._process:
            raise RuntimeError("the portal belongs to another process: open one after the fork")

    def _soon(self, function: Callable[[], object]) -> None:
        try:
            self._token.run_sync_soon(function)
        except trio.RunFinishedError:
            raise PortalClosed("the portal is closed") from None

    def _end(self, failure: BaseException | None) -> list[BaseException]:
        """End the loop and its thread, and return what that raised, but for the failure itself."""
        self._check_thread()
        try:
            self._hurry(failure)
            self._ended.wait()
        except BaseException as interrupt:
            self._hurry(interrupt)
            self._ended.wait()
            raise
        finally:
            if self._ended.is_set():
                self._thread.join()  # not before: up to Python 3.12, an interrupted join takes the thread for dead
        closed(self._close_at_exit)
        errors, self._errors = self._errors, []
        return [error for error in errors if error is not failure]

    def _hurry(self, failure: BaseException | None) -> None:
        with contextlib.suppress(PortalClosed):
            self._soon(functools.partial(self._begin_to_end, failure))

    def _close_at_exit(self) -> None:
        errors = self._end(SystemExit())
        if errors:
            raise BaseExceptionGroup("closing the portal failed", errors)

    # ------------------------------------------------------------------------------------------ in the loop's thread

    def _run(self, asyncio: bool) -> None:
        try:
            run(self._main, asyncio=asyncio)
        except BaseException as error:  # noqa: ASYNC103, BLE001 - whoever opens or closes the portal raises it
            self._break_down(error)
        self._ended.set()

    def _break_down(self, error: BaseException) -> None:
        if not self._ready.done():
            closed(self._close_at_exit)
            self._ready.set_exception(error)
        self._errors.append(error)
        for call in list(self._running):
            call.refuse(PortalClosed("the loop of the portal broke down"))

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as self._keeping:
            async with trio.open_nursery() as self._calls:
                self._ready.set_result(None)
                await self._stop.wait()
            while self._keepers:
                self._leaving = self._keepers.pop()
                self._leaving.begin_to_leave(self._failure)
                await self._leaving.left.wait()
                self._note(self._leaving)

    def _begin(self, call: Call[T], context: contextvars.Context) -> None:
        """Start a call; it is plain, and may not raise, as everything that other threads put into the queue."""
        if self._stop.is_set():
            call.refuse(PortalClosed("the portal is closed"))
            return
        self._running.add(call)
        call.add_done_callback(self._running.discard)
        context.run(self._calls.start_soon, call.run)

    def _begin_to_end(self, failure: BaseException | None) -> None:
        """Close the door; called again with an error if somebody does not want to wait for the rest."""
        self._stop.set()
        for waiting in self._idle:
            waiting.cancel(reason="the portal ends")
        if failure is None or self._failure is not None:
            return
        self._failure = failure
        self._calls.cancel_scope.cancel(reason="the portal ends")
        if self._leaving is not None:
            self._leaving.begin_to_leave(failure)

    async def _step_through(
        self,
        iterable: AsyncIterable[T],
        wants: trio.MemoryReceiveChannel[None],
        offer: trio.MemorySendChannel[T],
    ) -> None:
        """Offer the next item whenever one is wanted; close a generator in the task that went through it."""
        with wants, offer:
            iterator = aiter(iterable)
            try:
                while await self._is_wanted(wants):
                    try:
                        item = await anext(iterator)
                    except StopAsyncIteration:
                        return
                    await offer.send(item)
            finally:
                if isinstance(iterator, AsyncGenerator):
                    await iterator.aclose()  # noqa: ASYNC102 - a generator that was cancelled has closed itself

    async def _is_wanted(self, wants: trio.MemoryReceiveChannel[None]) -> bool:
        """Wait until a step is asked for; False if none will be.

        Raises:
            PortalClosed: the portal ends, and would wait for ever for whoever does not ask.
        """
        with trio.CancelScope() as waiting:  # noqa: ASYNC912 - `receive` is a cancel point
            if self._stop.is_set():
                waiting.cancel(reason="the portal ends")
            self._idle.add(waiting)
            try:
                await wants.receive()
            except trio.EndOfChannel:
                return False
            finally:
                self._idle.discard(waiting)
            return True
        raise PortalClosed("the portal was closed before the iteration had ended")

    async def _enter(self, manager: AbstractAsyncContextManager[T, bool | None]) -> T:
        keeper = Keeper(manager)
        value = await self._keeping.start(keeper.keep)
        self._keepers.append(keeper)
        return cast("T", value)  # trio does not say what `start` returns

    async def _leave(self, value: object) -> None:
        keeper = next((keeper for keeper in reversed(self._keepers) if keeper.value is value), None)
        if keeper is None:
            raise InputError("value", value, "is nothing that this portal has opened and not left")
        self._keepers.remove(keeper)
        keeper.begin_to_leave(None)
        try:
            await keeper.left.wait()
        except trio.Cancelled:
            keeper.cancel()
            with trio.CancelScope(shield=True):
                await keeper.left.wait()
            self._note(keeper)
            raise
        if keeper.error is not None:
            raise keeper.error

    def _note(self, keeper: Keeper[Any]) -> None:
        if keeper.error is not None:
            self._errors.append(keeper.error)


async def _wait(awaitable: Awaitable[T]) -> T:
    return await awaitable
