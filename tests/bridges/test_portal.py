from __future__ import annotations

import concurrent.futures
import contextvars
import os
import signal
import threading
import traceback
from collections.abc import Callable, Generator

import pytest
import trio

from tests.bridges.portals import Log, double
from tinker_actors.bridges import at_exit
from tinker_actors.bridges import portal as portal_module
from tinker_actors.bridges.crossing import aio
from tinker_actors.bridges.portal import Portal, open_portal
from tinker_actors.errors import PortalClosed

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


# --- calls -----------------------------------------------------------------------------------------------


def test_a_call_returns_the_result_of_a_trio_function() -> None:
    """Arguments and context variables go in, the value comes out, and the thread is gone afterwards."""

    async def look() -> tuple[str, int]:
        seen = VARIABLE.get()
        VARIABLE.set("trio's")
        return seen, threading.get_ident()

    VARIABLE.set("the caller's")
    with open_portal() as portal:
        assert repr(portal) == "<Portal open>"
        assert portal.call(double, 4, times=3) == 12
        seen, thread = portal.call(look)
        assert (seen, VARIABLE.get()) == ("the caller's", "the caller's")
        assert thread != threading.get_ident()
    assert repr(portal) == "<Portal closed>"


@pytest.mark.parametrize("kind", [KeyError, SystemExit])
def test_an_exception_is_raised_as_it_is(kind: type[BaseException]) -> None:
    """No group around it, its traceback names the trio function, and the portal lives on."""

    async def break_down() -> None:
        await trio.lowlevel.checkpoint()
        raise kind("of trio")

    with open_portal() as portal:
        with pytest.raises(kind) as caught:
            portal.call(break_down)
        assert "break_down" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert portal.call(double, 1) == 2


def test_many_threads_call_at_once() -> None:
    """Each gets its own answer."""
    with open_portal() as portal, concurrent.futures.ThreadPoolExecutor(16) as threads:
        assert list(threads.map(lambda value: portal.call(double, value), range(500))) == [
            2 * value for value in range(500)
        ]


def test_something_awaitable_is_waited_for() -> None:
    """Whatever has __await__ in trio, such as a Pending."""

    class Awaitable:
        def __await__(self) -> Generator[object, object, int]:
            return double(7).__await__()

    with open_portal() as portal:
        assert portal.result(Awaitable()) == 14


def test_submit_gives_a_future_at_once() -> None:
    """It is a concurrent.futures.Future, and the usual functions take it."""
    log = Log()
    with open_portal() as portal:
        waiting = portal.submit(log.wait)
        done = portal.submit(double, 5)
        assert concurrent.futures.wait([waiting, done], return_when="FIRST_COMPLETED").done == {done}
        assert done.result() == 10
        assert done.cancel() is False
        waiting.cancel()


def test_cancelling_a_future_cancels_the_trio_task_and_waits_for_its_clean_up() -> None:
    """The future is done, and cancelled, when the task has cleaned up."""
    log = Log()
    with open_portal() as portal:
        future = portal.submit(log.wait)
        assert log.begun.wait(10)
        assert future.cancel() is True
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(10)
        assert log == ["cleaned up"]
        assert future.cancelled()
        assert future.cancel() is True
        assert concurrent.futures.wait([future], 10).done == {future}


def test_a_future_cancelled_before_its_task_begins_never_runs() -> None:
    """Calls that stand behind a busy loop are taken back."""
    release = threading.Event()
    ran = []

    async def block() -> None:
        release.wait(10)  # noqa: ASYNC251 - the loop is to be busy

    async def run() -> None:
        ran.append(True)

    with open_portal() as portal:
        busy = portal.submit(block)
        future = portal.submit(run)
        future.cancel()
        release.set()
        busy.result(10)
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(10)
    assert ran == []


def test_a_value_in_spite_of_the_cancellation_is_kept() -> None:
    """A task that finishes its work has finished it."""
    begun = threading.Event()

    async def stubborn() -> str:
        with trio.CancelScope(shield=True):
            begun.set()
            await trio.sleep(0.01)
        return "value"

    with open_portal() as portal:
        future = portal.submit(stubborn)
        assert begun.wait(10)
        future.cancel()
        assert future.result(10) == "value"


@pytest.mark.usefixtures("default_sigint")
def test_ctrl_c_in_the_thread_that_waits_cancels_the_call_and_waits_for_its_clean_up() -> None:
    """KeyboardInterrupt goes on when the trio task has cleaned up; the portal lives on."""
    log = Log()

    async def interrupted() -> None:
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        await log.wait()

    with open_portal() as portal:
        with pytest.raises(KeyboardInterrupt):
            portal.call(interrupted)
        assert log == ["cleaned up"]
        assert portal.call(double, 1) == 2


def test_in_the_portals_own_thread_a_call_is_refused() -> None:
    """There it would wait for itself."""
    with open_portal() as portal:

        async def call() -> None:
            for function in (portal.submit, portal.call):
                with pytest.raises(RuntimeError, match="await the function instead"):
                    function(double, 1)
            with pytest.raises(RuntimeError, match="await the function instead"):
                portal.close()

        portal.call(call)


def test_in_a_forked_process_a_call_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread did not come along, so nothing would ever answer."""
    with open_portal() as portal:
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: -1)
            with pytest.raises(RuntimeError, match="open one after the fork"):
                portal.call(double, 1)
        assert portal.call(double, 1) == 2


def test_a_portal_may_have_an_asyncio_loop_beside_trio() -> None:
    """Then what is called may use aio()."""
    import asyncio

    with open_portal(asyncio=True) as portal:
        assert portal.call(aio, asyncio.sleep, 0, "of asyncio") == "of asyncio"
    with open_portal() as portal, pytest.raises(RuntimeError, match="asyncio=True"):
        portal.call(aio, asyncio.sleep, 0)


# --- after the end ---------------------------------------------------------------------------------------


def test_a_closed_portal_is_forgotten() -> None:
    """Nothing holds it until the program ends."""
    open_before = list(at_exit._OPEN)
    with open_portal():
        assert len(at_exit._OPEN) == len(open_before) + 1
    assert list(at_exit._OPEN) == open_before


@pytest.mark.parametrize(
    "use",
    [
        lambda portal: portal.call(double, 1),
        lambda portal: portal.submit(double, 1),
        lambda portal: portal.open(Log().manager("late")),
        lambda portal: next(portal.iterate(trio.open_memory_channel[int](0)[1])),
    ],
    ids=["call", "submit", "open", "iterate"],
)
def test_a_closed_portal_says_so(use: Callable[[Portal], object]) -> None:
    """Every use is refused with a typed error, and nothing has begun."""
    portal = open_portal()
    portal.close()
    with pytest.raises(PortalClosed, match="the portal is closed") as caught:
        use(portal)
    assert caught.value.started is False


def test_calls_that_arrive_while_the_portal_closes_are_refused() -> None:
    """Between the closing of the door and the end of the thread, too."""
    begun, release = threading.Event(), threading.Event()

    async def work() -> None:
        begun.set()
        while not release.is_set():  # noqa: ASYNC110 - another thread sets it
            await trio.sleep(0.001)

    portal = open_portal()
    portal.submit(work)
    assert begun.wait(10)
    closing = threading.Thread(target=portal.close)
    closing.start()
    while not portal._stop.is_set():
        pass
    with pytest.raises(PortalClosed):
        portal.call(double, 1)
    release.set()
    closing.join(10)


def test_a_loop_that_breaks_down_leaves_nobody_waiting() -> None:
    """Calls that are under way and later ones are told, and closing raises what has happened."""
    log = Log()

    async def break_the_loop() -> None:
        async def crash() -> None:
            raise KeyError("of a system task")

        trio.lowlevel.spawn_system_task(crash)
        await log.wait()

    portal = open_portal()
    value = portal.open(log.manager("first"))
    assert value == "first"
    with pytest.raises(PortalClosed) as caught:
        portal.call(break_the_loop)
    assert caught.value.started is True
    with pytest.raises(trio.TrioInternalError):
        portal.close()
    assert sorted(log) == ["cleaned up", "first was cancelled"]
    with pytest.raises(PortalClosed):
        portal.call(double, 1)


def test_a_loop_that_does_not_start_is_an_error_of_open_portal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The opener gets the cause, and no thread is left."""

    def fail(*_: object, **__: object) -> None:
        raise OSError("no more files")

    monkeypatch.setattr(portal_module, "run", fail)
    with pytest.raises(OSError, match="no more files"):
        open_portal()
