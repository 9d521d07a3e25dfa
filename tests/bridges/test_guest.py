from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from tinker_actors.bridges.crossing import aio, from_aio
from tinker_actors.bridges.guest import run, run_guest
from tinker_actors.errors import ForeignCancellation

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
HOSTED = pytest.mark.parametrize("asyncio_too", [False, True], ids=["trio", "asyncio"])


# --- run -------------------------------------------------------------------------------------------------


@HOSTED
def test_run_gives_the_value_of_main(asyncio_too: bool) -> None:
    """With and without asyncio: arguments go in, context variables are seen, the value comes out."""

    async def main(left: int, right: int) -> tuple[int, str]:
        await trio.lowlevel.checkpoint()
        return left + right, VARIABLE.get()

    VARIABLE.set("outside")
    assert run(main, 1, 2, asyncio=asyncio_too) == (3, "outside")


@HOSTED
@pytest.mark.parametrize("kind", [KeyError, SystemExit, KeyboardInterrupt])
def test_run_raises_what_main_raises(asyncio_too: bool, kind: type[BaseException]) -> None:
    """The very error, with no group around it."""

    async def main() -> None:
        await trio.lowlevel.checkpoint()
        raise kind("of main")

    with pytest.raises(kind):
        run(main, asyncio=asyncio_too)


@HOSTED
def test_run_takes_the_options_of_trio(asyncio_too: bool) -> None:
    """Clock and instruments go to trio."""
    steps = []

    class Steps(trio.abc.Instrument):
        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            steps.append(task.name)

    async def main() -> float:
        return trio.current_time()

    clock = trio.testing.MockClock(rate=0)
    assert run(main, asyncio=asyncio_too, clock=clock, instruments=[Steps()]) == 0.0
    assert steps


def test_both_loops_are_closed_afterwards() -> None:
    """The asyncio loop is closed, its threads have ended, and a second run starts afresh."""
    loops = []

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        await aio(asyncio.to_thread, threading.get_ident)

    for _ in range(2):
        run(main, asyncio=True)
    assert loops[0] is not loops[1]
    assert all(loop.is_closed() for loop in loops)
    assert not [thread for thread in threading.enumerate() if "asyncio" in thread.name]


def test_asyncio_tasks_left_over_are_cancelled_and_awaited_while_trio_still_runs() -> None:
    """A task that the environment left behind cleans up, and so does the trio call it waits for."""
    log = []

    async def in_trio(begun: asyncio.Event) -> None:
        begun.set()
        try:
            await trio.sleep_forever()
        finally:
            log.append("trio has cleaned up")

    async def in_asyncio(begun: asyncio.Event) -> None:
        try:
            await from_aio(in_trio, begun)
        finally:
            await asyncio.sleep(0)
            log.append("asyncio has cleaned up")

    left_over = []

    async def leave_behind() -> None:
        begun = asyncio.Event()
        left_over.append(asyncio.create_task(in_asyncio(begun)))
        await begun.wait()

    async def main() -> None:
        await aio(leave_behind)
        log.append("main ends")

    run(main, asyncio=True)
    assert log == ["main ends", "trio has cleaned up", "asyncio has cleaned up"]


def test_when_main_fails_the_tasks_left_over_end_as_well() -> None:
    """The error of main is raised when they have cleaned up."""
    log = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            log.append("asyncio has cleaned up")

    async def main() -> None:
        log.append(asyncio.get_running_loop().create_task(wait()).get_name())
        await aio(asyncio.sleep, 0)
        raise KeyError("of main")

    with pytest.raises(KeyError, match="of main"):
        run(main, asyncio=True)
    assert log[1:] == ["asyncio has cleaned up"]


def test_calls_from_asyncio_are_refused_when_main_has_ended() -> None:
    """A task that starts to call while everything ends is told so, and does not hang."""
    told = []

    async def call_late() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            try:
                await from_aio(trio.sleep, 0)
                told.append("still served")
            except RuntimeError as error:
                told.append(str(error))

    kept = []

    async def main() -> None:
        kept.append(asyncio.get_running_loop().create_task(call_late()))
        await aio(asyncio.sleep, 0)

    run(main, asyncio=True)
    assert told == ["still served"]  # run() ends asyncio's tasks first

    async def guest() -> None:
        kept.append(asyncio.get_running_loop().create_task(call_late()))
        await aio(asyncio.sleep, 0)

    async def program() -> None:
        await run_guest(guest)
        kept[-1].cancel()
        await asyncio.wait([kept[-1]])

    asyncio.run(program())
    assert "needs trio as a guest" in told[1]


def test_a_task_of_the_environments_own_that_exits_ends_the_program() -> None:
    """SystemExit in a task nobody awaits: main is cancelled and cleans up, and run() raises it."""
    log = []

    async def leave() -> None:
        await asyncio.sleep(0)
        raise SystemExit(4)

    kept = []

    async def main() -> None:
        kept.append(asyncio.get_running_loop().create_task(leave()))
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await aio(asyncio.sleep, 0)
            log.append("main has cleaned up")

    with pytest.raises(SystemExit) as caught:
        run(main, asyncio=True)
    assert caught.value.code == 4
    assert log == ["main has cleaned up"]
    assert kept[0].exception() is caught.value


def test_a_loop_that_is_stopped_by_others_goes_on_until_trio_has_ended() -> None:
    """A guest is never left half-way."""

    async def main() -> str:
        asyncio.get_running_loop().stop()
        await trio.sleep(0.01)
        return await aio(asyncio.sleep, 0, "to the end")

    assert run(main, asyncio=True) == "to the end"


def test_a_loop_that_runs_already_is_named() -> None:
    """In a notebook, or within asyncio, the error says what to use."""

    async def program() -> None:
        with pytest.raises(RuntimeError, match="open_portal"):
            run(trio.sleep, 0, asyncio=True)

    asyncio.run(program())


@HOSTED
def test_within_trio_there_is_no_second_trio(asyncio_too: bool) -> None:
    """Neither a second host nor a second guest."""

    async def main() -> None:
        with pytest.raises(RuntimeError, match="runs in this thread already"):
            run(trio.sleep, 0, asyncio=True)

    run(main, asyncio=asyncio_too)


def test_run_works_outside_of_the_main_thread() -> None:
    """Where signals are no concern."""
    results = []
    thread = threading.Thread(
        target=lambda: results.append(run(aio, asyncio.sleep, 0, "value", asyncio=True))
    )
    thread.start()
    thread.join(10)
    assert results == ["value"]


# --- Ctrl-C ----------------------------------------------------------------------------------------------

INTERRUPTED = """
import asyncio, sys, trio
import tinker_actors as ta

async def step():
    try:
        print("waiting", flush=True)
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0)
        print("asyncio has cleaned up", flush=True)

async def main():
    try:
        await ta.aio(step)
    finally:
        print("trio has cleaned up", flush=True)

try:
    ta.run(main, asyncio=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_ctrl_c_from_outside_wakes_the_loops_and_cleans_both_up(tmp_path: Path) -> None:
    """A real signal, sent while both loops sleep: everything cleans up, and KeyboardInterrupt comes out."""
    program = tmp_path / "program.py"
    program.write_text("import signal\nsignal.signal(2, signal.default_int_handler)\n" + INTERRUPTED, "utf-8")
    command = [sys.executable, "-W", "error", str(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=30)
    assert (output.splitlines(), errors) == (
        ["asyncio has cleaned up", "trio has cleaned up", "interrupted"],
        "",
    )


@pytest.mark.usefixtures("default_sigint")
def test_ctrl_c_while_tasks_left_over_are_awaited_does_not_wait_for_them() -> None:
    """A task that does not end when it is cancelled is given up on Ctrl-C, and trio ends."""

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT)
            await asyncio.Event().wait()

    kept = []

    async def main() -> str:
        kept.append(asyncio.get_running_loop().create_task(stubborn()))
        await aio(asyncio.sleep, 0)
        return "value"

    with pytest.raises(KeyboardInterrupt):
        run(main, asyncio=True)
    assert kept[0].cancelled()


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="asyncio handles signals on Unix only")
def test_a_host_that_handles_signals_is_left_alone() -> None:
    """A guest of a loop with signal handlers warns of nothing, and the handlers go on working."""
    seen = []

    async def main() -> None:
        await aio(asyncio.sleep, 0)

    async def program() -> None:
        loop = asyncio.get_running_loop()
        handled = asyncio.Event()
        loop.add_signal_handler(signal.SIGUSR1, lambda: (seen.append("signal"), handled.set()))
        try:
            await run_guest(main)
            os.kill(os.getpid(), signal.SIGUSR1)
            async with asyncio.timeout(5):
                await handled.wait()
        finally:
            loop.remove_signal_handler(signal.SIGUSR1)

    asyncio.run(program())
    assert seen == ["signal"]


# --- run_guest -------------------------------------------------------------------------------------------


def test_run_guest_gives_the_value_of_main_and_leaves_the_loops_tasks_alone() -> None:
    """In a running asyncio program, trio comes and goes; what else runs there goes on."""

    async def main(value: int) -> int:
        return value + await aio(asyncio.sleep, 0, 1)

    async def program() -> list[int]:
        others = asyncio.create_task(asyncio.Event().wait())
        values = [await run_guest(main, 1), await run_guest(main, 2)]
        assert not others.done()
        others.cancel()
        return values

    assert asyncio.run(program()) == [2, 3]


def test_run_guest_raises_what_main_raises() -> None:
    """The very error."""

    async def main() -> None:
        raise KeyError("of main")

    with pytest.raises(KeyError, match="of main"):
        asyncio.run(run_guest(main))


def test_cancelling_run_guest_cancels_main_and_waits_for_its_clean_up() -> None:
    """A time limit of asyncio around the guest is one for main."""
    log = []

    async def main(limit: asyncio.Timeout) -> None:
        limit.reschedule(0)
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await aio(asyncio.sleep, 0)
            log.append("trio has cleaned up")

    async def program() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60) as limit:
                await run_guest(main, limit)
        log.append("asyncio goes on")

    asyncio.run(program())
    assert log == ["trio has cleaned up", "asyncio goes on"]


def test_an_error_of_the_guests_clean_up_wins_over_the_cancellation() -> None:
    """What fails while it is cancelled has failed."""

    async def main(limit: asyncio.Timeout) -> None:
        limit.reschedule(0)
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("clean-up")

    async def program() -> None:
        with pytest.raises(ValueError, match="clean-up"):
            async with asyncio.timeout(60) as limit:
                await run_guest(main, limit)

    asyncio.run(program())


def test_calls_under_way_when_the_guest_ends_are_cancelled_with_a_typed_error() -> None:
    """Another asyncio task that waits for the guest is told that it ended, not that it was cancelled itself."""
    begun = []

    async def in_trio() -> None:
        begun.append(True)
        await trio.sleep_forever()

    async def other() -> str:
        with pytest.raises(ForeignCancellation, match="on the side of trio"):
            await from_aio(in_trio)
        return "told"

    tasks = []

    async def main() -> None:
        tasks.append(asyncio.get_running_loop().create_task(other()))
        while not begun:  # noqa: ASYNC110 - a list tells nobody
            await trio.lowlevel.checkpoint()

    async def program() -> str:
        await run_guest(main)
        return await tasks[0]

    assert asyncio.run(program()) == "told"


def test_a_guest_that_is_ending_takes_no_new_calls() -> None:
    """While calls under way clean up, a new one is refused, and does not hang."""
    begun = []

    async def slow_to_end() -> None:
        begun.append(True)
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.02)

    async def other() -> str:
        try:
            await from_aio(slow_to_end)
        finally:
            begun.clear()

    async def late() -> str:
        while begun:
            try:
                await from_aio(trio.lowlevel.checkpoint)
            except ForeignCancellation:
                continue  # it was under way when main ended
            except RuntimeError as error:
                return str(error)
        return "served to the end"

    tasks = []

    async def main() -> None:
        tasks.append(asyncio.get_running_loop().create_task(other()))
        while not begun:  # noqa: ASYNC110 - a list tells nobody
            await trio.lowlevel.checkpoint()
        tasks.append(asyncio.get_running_loop().create_task(late()))
        await trio.lowlevel.checkpoint()

    async def program() -> str:
        await run_guest(main)
        with pytest.raises(ForeignCancellation):
            await tasks[0]
        return await tasks[1]

    assert "its main function has ended" in asyncio.run(program())


@pytest.mark.parametrize(
    "start",
    [
        lambda: run(trio.sleep, 0, asyncio=True, clock=object()),
        lambda: asyncio.run(run_guest(trio.sleep, 0, clock=object())),
    ],
    ids=["run", "run_guest"],
)
def test_a_trio_that_does_not_start_is_an_error_and_no_hang(start: Callable[[], object]) -> None:
    """The asyncio loop does not wait for it, and the thread can start another one."""
    with pytest.raises(trio.TrioInternalError):
        start()
    assert run(aio, asyncio.sleep, 0, "value", asyncio=True) == "value"


def test_a_loop_has_one_guest_at_a_time() -> None:
    """The second is refused, and the first goes on."""

    async def second() -> None:
        with pytest.raises(RuntimeError, match="runs in this thread already"):
            await run_guest(trio.sleep, 0)

    async def main() -> str:
        await aio(second)
        return "goes on"

    assert asyncio.run(run_guest(main)) == "goes on"


@pytest.mark.usefixtures("default_sigint")
def test_ctrl_c_of_an_asyncio_program_cancels_its_guest() -> None:
    """asyncio.run takes the interrupt, cancels its main task, and so the guest; all clean up."""
    log = []

    async def main() -> None:
        try:
            asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT)
            await trio.sleep_forever()
        finally:
            log.append("trio has cleaned up")

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(run_guest(main))
    assert log == ["trio has cleaned up"]


def test_neither_loop_starves_the_other() -> None:
    """While trio spins, asyncio's timers fire, and the other way round."""

    async def spin_in_asyncio(until: trio.Event) -> int:
        turns = 0
        while not until.is_set():
            turns += 1
            await asyncio.sleep(0)
        return turns

    async def main() -> None:
        fired = trio.Event()
        began = time.monotonic()

        async def fire() -> None:
            await trio.sleep(0.01)
            fired.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fire)
            assert await aio(spin_in_asyncio, fired) > 1
        handle = []
        asyncio.get_running_loop().call_later(0.01, handle.append, True)
        while not handle:  # noqa: ASYNC110 - trio spins on purpose
            await trio.lowlevel.checkpoint()
        assert time.monotonic() - began < 10

    run(main, asyncio=True)
