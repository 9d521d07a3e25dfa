from __future__ import annotations

import asyncio
import contextvars
import sys
import traceback
from collections.abc import Callable

import pytest
import trio
import trio.lowlevel

from tests.bridges.crossings import Log, hosted
from tinker_actors.bridges.crossing import aio, from_aio
from tinker_actors.errors import ForeignCancellation

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def pass_deadline(scope: trio.CancelScope) -> None:
    """Let the deadline of a scope be now."""
    scope.deadline = trio.current_time()


def pass_timeout(limit: asyncio.Timeout) -> None:
    """Let the time limit of asyncio be up now."""
    limit.reschedule(asyncio.get_running_loop().time())


# --- from trio to asyncio --------------------------------------------------------------------------------


def test_an_asyncio_function_runs_on_the_host_loop_and_gives_its_result() -> None:
    """Arguments and keyword arguments go over, the value comes back, and asyncio's own tools work in between."""

    async def double(value: int, *, times: int) -> int:
        assert asyncio.current_task() is not None
        async with asyncio.timeout(5), asyncio.Lock():
            await asyncio.sleep(0)
        return value * times

    async def main() -> int:
        return await aio(double, 4, times=3)

    assert hosted(main) == 12


def test_an_exception_of_asyncio_is_raised_in_trio_with_its_traceback() -> None:
    """The very exception arrives, and its traceback names the asyncio function that raised it."""

    async def break_down() -> None:
        await asyncio.sleep(0)
        raise KeyError("of the environment")

    async def main() -> None:
        with pytest.raises(KeyError, match="of the environment") as caught:
            await aio(break_down)
        assert "break_down" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]

    hosted(main)


def test_a_system_exit_of_an_environment_is_its_callers_to_handle() -> None:
    """An environment that calls sys.exit() ends its own step, not the loop that hosts everybody."""

    async def leave() -> None:
        sys.exit(3)

    async def main() -> str:
        with pytest.raises(SystemExit):
            await aio(leave)
        return await aio(asyncio.sleep, 0, "still here")

    assert hosted(main) == "still here"


def test_a_cancelled_trio_scope_cancels_the_asyncio_task_and_waits_for_its_clean_up() -> None:
    """The scope is left after the last line of the asyncio task's clean-up."""
    log = Log()

    async def main() -> None:
        with trio.CancelScope() as scope:
            log.begun = scope.cancel
            await aio(log.asyncio_waits)
        assert scope.cancelled_caught
        log.append("trio goes on")

    hosted(main)
    assert log == ["asyncio begins", "asyncio has cleaned up", "trio goes on"]


def test_a_deadline_of_trio_reaches_asyncio() -> None:
    """fail_after around a call is a time limit for the asyncio function."""
    log = Log()

    async def main() -> None:
        with pytest.raises(trio.TooSlowError), trio.fail_after(60) as scope:
            log.begun = lambda: pass_deadline(scope)
            await aio(log.asyncio_waits)

    hosted(main)
    assert log == ["asyncio begins", "asyncio has cleaned up"]


def test_in_a_cancelled_scope_nothing_is_called() -> None:
    """A call whose caller is cancelled already does not begin."""
    log = Log()

    async def main() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            await aio(log.asyncio_waits)
        assert scope.cancelled_caught

    hosted(main)
    assert log == []


def test_a_call_cancelled_before_its_first_step_does_not_begin() -> None:
    """Between the call and the first step of its task there is nothing to clean up."""
    log = Log()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(aio, log.asyncio_waits)
            nursery.cancel_scope.cancel()
        async with trio.open_nursery() as nursery:
            scope = nursery.cancel_scope
            asyncio.get_running_loop().call_soon(scope.cancel)  # runs before the task that aio() makes
            await aio(log.asyncio_waits)

    hosted(main)
    assert log == []


def test_in_a_shielded_scope_a_cancelled_task_can_clean_up_on_the_other_side() -> None:
    """A cancelled trio task may close its asyncio environment if it shields the call."""
    log = Log()

    async def close() -> None:
        await asyncio.sleep(0)
        log.append("closed")

    async def main() -> None:
        with trio.CancelScope() as scope:
            try:
                scope.cancel()
                await trio.lowlevel.checkpoint()
            finally:
                with trio.CancelScope(shield=True):
                    await aio(close)

    hosted(main)
    assert log == ["closed"]


def test_a_value_in_spite_of_the_cancellation_is_given_and_the_scope_stays_cancelled() -> None:
    """A task that swallows its cancellation loses nothing: the caller has its value until its next checkpoint."""

    async def stubborn(begun: Callable[[], object]) -> str:
        begun()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.Event().wait()
        return "value"

    async def main() -> str:
        with trio.CancelScope() as scope:
            value = await aio(stubborn, scope.cancel)
            await trio.lowlevel.checkpoint()
            pytest.fail("the scope was cancelled")
        assert scope.cancelled_caught
        return value

    assert hosted(main) == "value"


def test_an_error_of_the_clean_up_is_raised_in_place_of_the_cancellation() -> None:
    """As in trio itself: what fails while it is cancelled has failed."""

    async def fragile(begun: Callable[[], object]) -> None:
        begun()
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("clean-up")

    async def main() -> None:
        with pytest.raises(ValueError, match="clean-up"), trio.CancelScope() as scope:
            await aio(fragile, scope.cancel)

    hosted(main)


def test_a_task_cancelled_from_the_asyncio_side_is_a_typed_error_in_trio() -> None:
    """Nobody in trio was cancelled, so nobody there gets a Cancelled."""

    async def cancel_itself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel("by its own side")
        await asyncio.sleep(0)

    async def main() -> None:
        with pytest.raises(ForeignCancellation, match="on the side of asyncio") as caught:
            await aio(cancel_itself)
        assert isinstance(caught.value.__cause__, asyncio.CancelledError)
        assert caught.value.started is True

    hosted(main)


def test_a_task_cancelled_by_others_before_its_first_step_is_a_typed_error_too() -> None:
    """Even then the caller does not hang."""

    async def cancel_the_newcomer() -> None:
        me = asyncio.current_task()
        while not (others := asyncio.all_tasks() - {me}):  # noqa: ASYNC110 - nobody tells of new tasks
            await asyncio.sleep(0)
        for task in others:
            task.cancel()

    async def never() -> None:
        pytest.fail("was cancelled before its first step")

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(aio, cancel_the_newcomer)
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            with pytest.raises(ForeignCancellation):
                await aio(never)

    hosted(main)


def test_asyncio_sees_the_callers_context_variables_and_keeps_its_own() -> None:
    """What the caller has set is seen; what the callee sets stays with it."""

    async def look() -> str:
        seen = VARIABLE.get()
        VARIABLE.set("asyncio's")
        return seen

    async def main() -> None:
        VARIABLE.set("trio's")
        assert await aio(look) == "trio's"
        assert VARIABLE.get() == "trio's"

    hosted(main)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio has eager tasks since 3.12")
def test_eager_tasks_do_no_harm() -> None:
    """A loop that runs tasks at once, within the call that makes them, is served the same."""

    async def at_once(value: int) -> int:
        return value

    async def main() -> object:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        assert await aio(at_once, 3) == 3
        return await aio(asyncio.sleep, 0, "later")

    assert hosted(main) == "later"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio has eager tasks since 3.12")
@pytest.mark.parametrize("waits", [False, True])
def test_an_eager_task_that_cancels_its_caller_in_its_first_step_is_waited_for(waits: bool) -> None:
    """The call ends once, when the task has ended, and the trio task is woken for nothing else."""
    log = Log()

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        with trio.CancelScope() as scope:

            async def cancel_caller() -> None:
                scope.cancel()
                if waits:
                    await log.asyncio_waits()

            await aio(cancel_caller)
            log.append("returned")
            await trio.lowlevel.checkpoint()
        log.append(f"cancelled: {scope.cancelled_caught}")
        with trio.move_on_after(0.05):
            await trio.sleep_forever()

    hosted(main)
    ended = ["asyncio begins", "asyncio has cleaned up"] if waits else ["returned"]
    assert log == [*ended, "cancelled: True"]


async def test_without_a_host_the_error_says_how_to_start() -> None:
    """Under plain trio there is no asyncio loop to call."""
    with pytest.raises(RuntimeError, match=r"run\(main, asyncio=True\)"):
        await aio(asyncio.sleep, 0)


def test_each_side_is_told_that_it_is_the_wrong_one() -> None:
    """Calls in the wrong direction are named before anything runs."""

    async def main() -> None:
        with pytest.raises(RuntimeError, match="in asyncio code, await the function itself"):
            await aio(aio, asyncio.sleep, 0)
        with pytest.raises(RuntimeError, match="in trio code, await the function itself"):
            await from_aio(trio.sleep, 0)

    hosted(main)


# --- from asyncio to trio --------------------------------------------------------------------------------


def test_asyncio_calls_a_trio_function_and_gets_its_result() -> None:
    """Over and back: the value, the keyword arguments, the context variables."""

    async def in_trio(value: int, *, times: int) -> tuple[int, str]:
        await trio.lowlevel.checkpoint()
        seen = VARIABLE.get()
        VARIABLE.set("trio's")
        return value * times, seen

    async def in_asyncio() -> tuple[int, str, str]:
        VARIABLE.set("asyncio's")
        value, seen = await from_aio(in_trio, 4, times=3)
        return value, seen, VARIABLE.get()

    async def main() -> object:
        return await aio(in_asyncio)

    assert hosted(main) == (12, "asyncio's", "asyncio's")


@pytest.mark.parametrize("kind", [KeyError, SystemExit])
def test_an_exception_of_trio_is_raised_in_asyncio(kind: type[BaseException]) -> None:
    """It does not touch the run that hosts the calls."""

    async def break_down() -> None:
        await trio.lowlevel.checkpoint()
        raise kind("of trio")

    async def in_asyncio() -> str:
        with pytest.raises(kind) as caught:
            await from_aio(break_down)
        assert "break_down" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        return "caught"

    async def main() -> object:
        return await aio(in_asyncio)

    assert hosted(main) == "caught"


def test_a_cancelled_asyncio_task_cancels_its_trio_call_and_waits_for_its_clean_up() -> None:
    """A time limit of asyncio around a call: the trio function has cleaned up before the limit is reported."""
    log = Log()

    async def in_asyncio() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60) as limit:
                log.begun = lambda: pass_timeout(limit)
                await from_aio(log.trio_waits)
        log.append("asyncio goes on")

    async def main() -> None:
        await aio(in_asyncio)

    hosted(main)
    assert log == ["trio begins", "trio has cleaned up", "asyncio goes on"]


def test_cancelling_twice_does_not_cut_the_clean_up_short() -> None:
    """The caller waits on, however often it is cancelled."""
    log = Log()

    async def in_asyncio() -> None:
        begun = asyncio.Event()
        log.begun = begun.set
        calling = asyncio.create_task(from_aio(log.trio_waits))
        await begun.wait()
        calling.cancel()
        await asyncio.sleep(0)
        calling.cancel()
        await asyncio.wait([calling])
        assert calling.cancelled()

    async def main() -> None:
        await aio(in_asyncio)

    hosted(main)
    assert log == ["trio begins", "trio has cleaned up"]


def test_an_asyncio_coroutine_that_is_closed_cancels_its_trio_call() -> None:
    """It cannot wait any more, but what it has begun ends."""
    log = Log()

    async def close_early() -> None:
        begun, ended = asyncio.Event(), asyncio.Event()
        log.begun = begun.set

        async def call() -> None:
            try:
                await log.trio_waits()
            finally:
                ended.set()

        waiting = from_aio(call)
        waiting.send(None)
        await begun.wait()
        waiting.close()
        await ended.wait()

    hosted(lambda: aio(close_early))
    assert log == ["trio begins", "trio has cleaned up"]


def test_a_trio_value_in_spite_of_the_cancellation_is_dropped_for_it() -> None:
    """Asyncio cancels once, so the cancellation must not be swallowed; an error of the callee's own is raised."""

    async def stubborn(limit: asyncio.Timeout) -> str:
        pass_timeout(limit)
        with trio.CancelScope(shield=True):
            await trio.sleep(0.02)
        return "value"

    async def fragile(limit: asyncio.Timeout) -> None:
        pass_timeout(limit)
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("clean-up")

    async def in_asyncio() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60) as limit:
                await from_aio(stubborn, limit)
        with pytest.raises(ValueError, match="clean-up"):
            async with asyncio.timeout(60) as limit:
                await from_aio(fragile, limit)

    async def main() -> None:
        await aio(in_asyncio)

    hosted(main)


def test_cancellation_goes_there_and_back_and_there_again() -> None:
    """Trio cancels asyncio, which cancels trio: every layer cleans up, innermost first."""
    log = Log()

    async def in_asyncio() -> None:
        try:
            await from_aio(log.trio_waits)
        finally:
            await asyncio.sleep(0)
            log.append("asyncio has cleaned up")

    async def main() -> None:
        with trio.CancelScope() as scope:
            log.begun = scope.cancel
            await aio(in_asyncio)
        log.append("trio goes on")

    hosted(main)
    assert log == ["trio begins", "trio has cleaned up", "asyncio has cleaned up", "trio goes on"]


def test_a_cancelled_of_another_trio_task_ends_its_own_call_only() -> None:
    """A trio function that raises a Cancelled of a scope that is not its own is a typed error, and hurts nobody."""

    async def stray() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled as error:
                kept = error
                raise
        raise kept

    async def in_asyncio() -> str:
        with pytest.raises(ForeignCancellation, match="on the side of trio"):
            await from_aio(stray)
        return "goes on"

    async def main() -> object:
        return await aio(in_asyncio)

    assert hosted(main) == "goes on"


def test_without_trio_the_error_says_how_to_start() -> None:
    """In a plain asyncio program there is no trio to call."""

    async def main() -> None:
        with pytest.raises(RuntimeError, match="run_guest"):
            await from_aio(trio.sleep, 0)

    asyncio.run(main())
