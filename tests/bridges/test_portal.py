from __future__ import annotations

import concurrent.futures
import contextlib
import contextvars
import os
import signal
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Generator, Iterator

import pytest
import trio

from tinker_actors.bridges import at_exit
from tinker_actors.bridges import portal as portal_module
from tinker_actors.bridges.crossing import aio
from tinker_actors.bridges.portal import Portal, open_portal
from tinker_actors.errors import InputError, PortalClosed

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def portal_threads() -> list[str]:
    """Name the threads of portals that are alive."""
    return [thread.name for thread in threading.enumerate() if "portal" in thread.name]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Each test begins and ends without a portal's thread."""
    assert portal_threads() == []
    yield
    assert portal_threads() == []


class Log(list[str]):
    """What happened, in order, and events to wait for from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()

    async def wait(self) -> None:
        """Wait for ever, and clean up."""
        self.begun.set()
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()
            self.append("cleaned up")

    @contextlib.asynccontextmanager
    async def manager(self, name: str) -> AsyncIterator[str]:
        """A context manager with a nursery, that logs how it was left."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                yield name
            except trio.Cancelled:
                self.append(f"{name} was cancelled")
                raise
            except Exception as error:
                self.append(f"{name} failed: {error}")
                error.add_note(f"seen by {name}")
                nursery.cancel_scope.cancel()
                raise
            else:
                self.append(f"{name} was left")
            nursery.cancel_scope.cancel()


async def double(value: int, *, times: int = 2) -> int:
    """Multiply, in trio."""
    await trio.lowlevel.checkpoint()
    return value * times


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


# --- iterators -------------------------------------------------------------------------------------------


def test_an_async_iterable_is_gone_through_step_by_step() -> None:
    """One task takes a step only when asked for one, so that generators with nurseries work."""
    log = Log()
    tasks = set()

    async def numbers() -> AsyncIterator[int]:
        for number in range(3):
            tasks.add(trio.lowlevel.current_task())
            log.append(f"made {number}")
            yield number

    with open_portal() as portal:
        for number in portal.iterate(numbers()):
            log.append(f"took {number}")
        assert not portal._idle
    assert log == ["made 0", "took 0", "made 1", "took 1", "made 2", "took 2"]
    assert len(tasks) == 1


def test_leaving_the_loop_early_closes_the_generator_without_cancelling_it() -> None:
    """Its clean-up may wait."""
    log = Log()

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await trio.lowlevel.checkpoint()  # noqa: ASYNC102 - it is not cancelled
            log.append("closed")

    with open_portal() as portal:
        iterator = portal.iterate(numbers())
        assert next(iterator) == 1
        iterator.close()
        assert log == ["closed"]


def test_what_is_no_async_iterable_is_told() -> None:
    """At the first step, and nobody waits for an item."""
    errors: list[TypeError] = []

    def take(portal: Portal) -> None:
        try:
            next(portal.iterate([1]))  # type: ignore[arg-type]
        except TypeError as error:
            errors.append(error)

    with open_portal() as portal:
        taking = threading.Thread(target=take, args=(portal,), daemon=True)
        taking.start()
        taking.join(10)
        assert not taking.is_alive()
    assert "async iterable" in str(errors)


def test_an_exception_of_the_iterable_is_raised_after_its_items() -> None:
    """As in trio; also if it is one that trio's channels raise."""

    async def numbers() -> AsyncIterator[int]:
        yield 1
        await trio.lowlevel.checkpoint()
        raise trio.EndOfChannel

    with open_portal() as portal:
        iterator = portal.iterate(numbers())
        assert next(iterator) == 1
        with pytest.raises(trio.EndOfChannel):
            next(iterator)


def test_a_channel_is_iterated_and_left_open() -> None:
    """Only generators are closed: a channel belongs to whoever opened it."""
    send, receive = trio.open_memory_channel[int](2)
    send.send_nowait(1)
    send.send_nowait(2)
    with open_portal() as portal:
        iterator = portal.iterate(receive)
        assert next(iterator) == 1
        iterator.close()
        assert portal.call(receive.receive) == 2
    send.close()
    receive.close()


def test_closing_ends_an_iteration_that_nobody_continues() -> None:
    """The generator is closed, closing does not wait for more, and whoever asks later is told."""
    log = Log()

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await trio.lowlevel.checkpoint()  # noqa: ASYNC102 - it is not cancelled
            log.append("closed")

    portal = open_portal()
    iterator = portal.iterate(numbers())
    assert next(iterator) == 1
    closing = threading.Thread(target=portal.close, daemon=True)
    closing.start()
    closing.join(10)
    assert not closing.is_alive()
    assert log == ["closed"]
    with pytest.raises(PortalClosed):
        next(iterator)


def test_closing_during_a_step_lets_it_end() -> None:
    """The item that was asked for is given; then the generator is closed."""
    log = Log()
    release = threading.Event()
    given: list[int] = []

    async def numbers() -> AsyncIterator[int]:
        log.begun.set()
        await trio.to_thread.run_sync(release.wait)
        yield 1
        log.append("gone on")

    portal = open_portal()
    iterator = portal.iterate(numbers())
    taking = threading.Thread(target=lambda: given.append(next(iterator)), daemon=True)
    taking.start()
    log.begun.wait(10)
    closing = threading.Thread(target=portal.close, daemon=True)
    closing.start()
    while not portal._stop.is_set():
        threading.Event().wait(0.001)
    release.set()
    closing.join(10)
    taking.join(10)
    assert (closing.is_alive(), given, log) == (False, [1], [])
    with pytest.raises(PortalClosed):
        next(iterator)


@pytest.mark.usefixtures("default_sigint")
def test_ctrl_c_during_a_step_cancels_the_iterable() -> None:
    """The generator is cancelled where it waits, and cleans up."""
    log = Log()

    async def numbers() -> AsyncIterator[int]:
        yield 1
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        await log.wait()

    with open_portal() as portal:
        iterator = portal.iterate(numbers())
        assert next(iterator) == 1
        with pytest.raises(KeyboardInterrupt):
            next(iterator)
        assert log == ["cleaned up"]


# --- context managers ------------------------------------------------------------------------------------


def test_managers_are_entered_in_trio_and_left_in_reverse_order() -> None:
    """Each has a task of its own, so nurseries and scopes in them are left where they were entered."""
    log = Log()
    with open_portal() as portal:
        for name in ("first", "second", "third"):
            assert portal.open(log.manager(name)) == name
    assert log == ["third was left", "second was left", "first was left"]


def test_a_manager_can_be_left_before_the_end_and_out_of_order() -> None:
    """leave() takes the value; a value that is not held is refused by its name."""
    log = Log()
    with open_portal() as portal:
        first, _ = portal.open(log.manager("first")), portal.open(log.manager("second"))
        portal.leave(first)
        assert log == ["first was left"]
        with pytest.raises(InputError, match="value = 'first'"):
            portal.leave(first)
    assert log == ["first was left", "second was left"]


def test_an_error_of_entering_is_raised_by_open() -> None:
    """As it is, and nothing is held."""

    @contextlib.asynccontextmanager
    async def broken() -> AsyncIterator[None]:
        await trio.lowlevel.checkpoint()
        raise KeyError("of entering")
        yield

    with open_portal() as portal, pytest.raises(KeyError, match="of entering"):
        portal.open(broken())


def test_an_error_of_leaving_is_raised_by_whoever_leaves() -> None:
    """leave() raises it; else closing does, several of them in a group."""

    @contextlib.asynccontextmanager
    async def fragile(name: str) -> AsyncIterator[str]:
        yield name
        await trio.lowlevel.checkpoint()
        raise KeyError(name)

    with open_portal() as portal:
        value = portal.open(fragile("left"))
        with pytest.raises(KeyError, match="left"):
            portal.leave(value)

    portal = open_portal()
    portal.open(fragile("alone"))
    with pytest.raises(KeyError, match="alone"):
        portal.close()
    portal.close()  # again: nothing

    portal = open_portal()
    for name in ("first", "second"):
        portal.open(fragile(name))
    with pytest.raises(ExceptionGroup) as caught:
        portal.close()
    assert [error.args for error in caught.value.exceptions] == [("second",), ("first",)]


def test_a_manager_that_ends_by_itself_is_not_silent() -> None:
    """If what is held breaks down, closing raises why."""
    broken = threading.Event()

    @contextlib.asynccontextmanager
    async def collapsing() -> AsyncIterator[None]:
        async def collapse() -> None:
            broken.set()
            raise KeyError("of a background task")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(collapse)
            yield

    portal = open_portal()
    portal.open(collapsing())
    assert broken.wait(10)
    with pytest.raises(ExceptionGroup) as caught:
        portal.close()
    assert caught.group_contains(KeyError)


def test_an_error_of_the_body_cancels_calls_and_is_shown_to_the_managers() -> None:
    """Each is left with that very error, as if it had been raised in its own body; the traceback stays short."""
    log = Log()

    def body() -> None:
        with open_portal() as portal:
            portal.open(log.manager("first"))
            portal.open(log.manager("second"))
            future = portal.submit(log.wait)
            log.begun.wait(10)
            future.add_done_callback(lambda done: log.append(f"{done.exception()!r}"))
            raise ValueError("of the body")

    with pytest.raises(ValueError, match="of the body") as caught:
        body()
    assert log == [
        "cleaned up",
        "PortalClosed('the portal was closed before the call had ended')",
        "second failed: of the body",
        "first failed: of the body",
    ]
    notes = caught.value.__notes__
    assert notes[:1] == ["seen by second"]
    frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert "keep" not in frames
    assert "body" in frames


def test_what_closing_raises_after_an_error_of_the_body_is_a_note_on_it() -> None:
    """The body's error wins."""

    @contextlib.asynccontextmanager
    async def fragile() -> AsyncIterator[None]:
        try:
            yield
        finally:
            raise KeyError("of leaving")

    with pytest.raises(ValueError, match="of the body") as caught, open_portal() as portal:
        portal.open(fragile())
        raise ValueError("of the body")
    assert caught.value.__notes__ == ["closing the portal failed as well: KeyError('of leaving')"]


def test_an_interrupt_of_the_body_cancels_the_managers() -> None:
    """KeyboardInterrupt is no error of theirs; they are cancelled, as trio would."""
    log = Log()
    with pytest.raises(KeyboardInterrupt), open_portal() as portal:
        portal.open(log.manager("first"))
        raise KeyboardInterrupt
    assert log == ["first was cancelled"]


def test_leaving_in_order_waits_for_calls_and_they_may_use_what_is_open() -> None:
    """The door is closed first, the calls end, and only then the managers are left."""
    log = Log()

    async def work() -> str:
        await trio.sleep(0.01)
        log.append("worked")
        return "value"

    with open_portal() as portal:
        portal.open(log.manager("first"))
        future = portal.submit(work)
    assert future.result(0) == "value"
    assert log == ["worked", "first was left"]


@pytest.mark.usefixtures("default_sigint")
@pytest.mark.parametrize("where", ["in a call", "in a manager"])
def test_ctrl_c_while_closing_does_not_wait_for_the_rest(where: str) -> None:
    """What takes too long is cancelled, the thread ends, and KeyboardInterrupt goes on."""
    log = Log()

    async def interrupt_and_wait() -> None:
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        await log.wait()

    @contextlib.asynccontextmanager
    async def slow() -> AsyncIterator[None]:
        yield
        await interrupt_and_wait()

    portal = open_portal()
    portal.open(log.manager("first"))
    if where == "in a manager":
        portal.open(slow())
    else:
        ready = threading.Event()

        async def call() -> None:
            while not portal._stop.is_set():  # noqa: ASYNC110 - closing tells nobody else
                ready.set()
                await trio.sleep(0.001)
            await interrupt_and_wait()

        future = portal.submit(call)
        ready.wait(10)
    with pytest.raises(KeyboardInterrupt):
        portal.close()
    assert log == ["cleaned up", "first was cancelled"]
    if where == "in a call":
        error = future.exception(0)
        assert isinstance(error, PortalClosed)
        assert error.started is True


@pytest.mark.usefixtures("default_sigint")
def test_ctrl_c_while_leaving_one_manager_hurries_it() -> None:
    """Its leaving is cancelled and awaited; the others stay open."""
    log = Log()

    @contextlib.asynccontextmanager
    async def slow() -> AsyncIterator[str]:
        yield "slow"
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        await log.wait()

    with open_portal() as portal:
        portal.open(log.manager("first"))
        value = portal.open(slow())
        with pytest.raises(KeyboardInterrupt):
            portal.leave(value)
        assert log == ["cleaned up"]
    assert log == ["cleaned up", "first was left"]


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
