from __future__ import annotations

import signal
import threading
from collections.abc import AsyncIterator

import pytest
import trio

from tests.bridges.portals import Log
from tinker_actors.bridges.portal import Portal, open_portal
from tinker_actors.errors import PortalClosed


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
