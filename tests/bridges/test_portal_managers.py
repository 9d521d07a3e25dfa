from __future__ import annotations

import contextlib
import signal
import threading
import traceback
from collections.abc import AsyncIterator

import pytest
import trio

from tests.bridges.portals import Log
from tinker_actors.bridges.portal import open_portal
from tinker_actors.errors import InputError, PortalClosed


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
