"""Notebooks and scripts as users write them: cells in one namespace, and programs that forget to close."""

from __future__ import annotations

import ast
import asyncio
import functools
import inspect
import os
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from tinker_actors.bridges.portal import open_portal

BLOCKING = [
    """
import tinker_actors as ta
portal = ta.open_portal()
service = portal.open(ta.open_service("local", seed=1))
""",
    """
training = portal.call(service.create_lora_training_client, "tinker-actors/char-100k", rank=8)
batch = [ta.Datum(model_input=ta.ModelInput.from_ints([5, 6, 7]),
                  loss_fn_inputs={"target_tokens": [6, 7, 8], "weights": [1.0, 1.0, 1.0]})]
""",
    """
pending = portal.call(training.forward_backward, batch, "cross_entropy")
portal.call(training.optim_step, ta.AdamParams(learning_rate=1e-3))
loss = portal.result(pending).metrics["loss:sum"]
""",
    """
sampling = portal.call(training.save_weights_and_get_sampling_client)
reply = portal.call(sampling.sample, ta.ModelInput.from_ints([5, 6]), 2, ta.SamplingParams(max_tokens=4))
""",
    """
portal.close()
""",
]

AWAITING = [
    """
import tinker_actors as ta
portal = ta.open_portal()
service = await portal.aopen(ta.open_service("local", seed=1))
""",
    """
training = await portal.acall(service.create_lora_training_client, "tinker-actors/char-100k", rank=8)
batch = [ta.Datum(model_input=ta.ModelInput.from_ints([5, 6, 7]),
                  loss_fn_inputs={"target_tokens": [6, 7, 8], "weights": [1.0, 1.0, 1.0]})]
""",
    """
pending = await portal.acall(training.forward_backward, batch, "cross_entropy")
await portal.acall(training.optim_step, ta.AdamParams(learning_rate=1e-3))
loss = (await portal.aresult(pending)).metrics["loss:sum"]
""",
    """
sampling = await portal.acall(training.save_weights_and_get_sampling_client)
reply = await portal.acall(sampling.sample, ta.ModelInput.from_ints([5, 6]), 2, ta.SamplingParams(max_tokens=4))
""",
    """
await portal.aleave(service)
portal.close()
""",
]
"""The same cells for a kernel whose loop is to go on: with the `await` that notebooks allow at the top level."""


async def run_cells(cells: list[str]) -> dict[str, object]:
    """Run the cells one after the other in one namespace, in the asyncio loop, as a notebook's kernel does."""
    namespace: dict[str, object] = {}
    for number, cell in enumerate(cells):
        code = compile(cell, f"<cell {number}>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = types.FunctionType(code, namespace)()
        if inspect.iscoroutine(result):
            await result
    return namespace


@pytest.mark.parametrize("cells", [BLOCKING, AWAITING], ids=["blocking", "awaiting"])
def test_a_notebook_trains_and_samples_across_its_cells(
    cells: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Service, clients and pendings of earlier cells are used in later ones; nothing runs on after the last."""
    namespace = asyncio.run(run_cells(cells))
    assert namespace["loss"] > 0
    assert [len(sequence.tokens) for sequence in namespace["reply"].sequences] == [4, 4]
    assert not [thread for thread in threading.enumerate() if "tinker" in thread.name]


def test_the_kernels_loop_goes_on_while_a_cell_awaits() -> None:
    """A call by acall does not block the loop it is called from: here it waits for what that loop does."""
    ticked = threading.Event()

    async def tick() -> None:
        for _ in range(5):
            await asyncio.sleep(0.001)
        ticked.set()

    async def wait_for_the_ticks() -> str:
        with trio.fail_after(30):
            while not ticked.is_set():  # noqa: ASYNC110 - another thread sets it
                await trio.sleep(0.001)
        return "ticked"

    async def notebook() -> str:
        ticking = asyncio.create_task(tick())
        with open_portal() as portal:
            result = await portal.acall(wait_for_the_ticks)
        await ticking
        return result

    assert asyncio.run(notebook()) == "ticked"


def test_an_awaiting_cell_that_is_cancelled_cancels_the_trio_task_and_waits() -> None:
    """As for a blocking one; and errors of trio are raised in the cell."""
    log = []

    async def wait(begun: Callable[[], object]) -> None:
        begun()
        try:
            await trio.sleep_forever()
        finally:
            log.append("cleaned up")

    async def stubborn(begun: Callable[[], object]) -> str:
        begun()
        with trio.CancelScope(shield=True):
            await trio.sleep(0.02)
        return "too late"

    async def break_down() -> None:
        raise KeyError("of trio")

    async def notebook() -> None:
        with open_portal() as portal:
            for function in (wait, stubborn):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(60) as limit:
                        loop = asyncio.get_running_loop()
                        begun = functools.partial(loop.call_soon_threadsafe, limit.reschedule, 0)
                        await portal.acall(function, begun)
            with pytest.raises(KeyError, match="of trio"):
                await portal.acall(break_down)
            assert await portal.acall(trio.lowlevel.checkpoint) is None

    asyncio.run(notebook())
    assert log == ["cleaned up"]


# --- programs that end -----------------------------------------------------------------------------------

PROGRAM = """
import contextlib, sys, threading, trio
import tinker_actors as ta

def say(text):
    sys.stdout.write(f"{text}\\n")  # in one piece, for two threads may speak at once

@contextlib.asynccontextmanager
async def resource(name):
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            yield name
            nursery.cancel_scope.cancel()
    finally:
        await trio.lowlevel.cancel_shielded_checkpoint()
        say(f"{name} is left")

async def wait():
    try:
        await trio.sleep_forever()
    finally:
        say("call cleaned up")
"""


def run_program(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program that uses a portal, warnings being errors."""
    program = folder / "program.py"
    program.write_text(PROGRAM + text, "utf-8")
    command = [sys.executable, "-W", "error", str(program)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_a_program_that_forgets_to_close_its_portal_ends_all_the_same(tmp_path: Path) -> None:
    """At exit calls are cancelled and managers are left, in order; nothing hangs, and nothing is printed."""
    done = run_program(
        """
portal = ta.open_portal()
portal.open(resource("first"))
portal.open(resource("second"))
portal.submit(wait)
print("program ends")
""",
        tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "program ends",
        "call cleaned up",
        "second is left",
        "first is left",
    ]


@pytest.mark.skipif(
    (3, 12, 0) <= sys.version_info < (3, 12, 3),
    reason="this Python starts no thread when the main one has ended",
)
def test_at_exit_clean_up_may_still_use_threads(tmp_path: Path) -> None:
    """Those of trio, and those of asyncio."""
    done = run_program(
        """
import asyncio

@contextlib.asynccontextmanager
async def threaded():
    try:
        yield
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(print, "in a thread of trio")
            await ta.aio(asyncio.to_thread, print, "in a thread of asyncio")

portal = ta.open_portal(asyncio=True)
portal.open(threaded())
""",
        tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["in a thread of trio", "in a thread of asyncio"]


def test_a_program_that_fails_without_closing_its_portal_shows_its_own_error(tmp_path: Path) -> None:
    """The traceback is the program's, and what is open is left."""
    done = run_program("portal = ta.open_portal()\nportal.open(resource('first'))\n1 / 0\n", tmp_path)
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("ZeroDivisionError: division by zero")
    assert done.stdout.splitlines() == ["first is left"]


def test_other_threads_of_a_program_are_told_that_its_portal_is_closed(tmp_path: Path) -> None:
    """The end of the main thread is the end of a portal that nobody closes, and a thread that calls does not hang."""
    done = run_program(
        """
portal = ta.open_portal()
portal.open(resource("first"))
begun = threading.Event()

async def begin_and_wait():
    begun.set()
    await wait()

def work():
    try:
        portal.call(begin_and_wait)
    except ta.errors.PortalClosed:
        say("the thread was told")

threading.Thread(target=work).start()
begun.wait()
""",
        tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines()) == ["call cleaned up", "first is left", "the thread was told"]


def test_errors_of_closing_at_exit_are_shown(tmp_path: Path) -> None:
    """Nobody is left to raise them to; the others are closed all the same."""
    done = run_program(
        """
@contextlib.asynccontextmanager
async def fragile():
    try:
        yield
    finally:
        raise KeyError("of leaving")

first, second = ta.open_portal(), ta.open_portal()
first.open(resource("first"))
second.open(fragile())
""",
        tmp_path,
    )
    assert (done.returncode, done.stdout) == (0, "first is left\n")
    assert "KeyError: 'of leaving'" in done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_process_ends_without_the_portal_of_its_parent(tmp_path: Path) -> None:
    """It neither waits for a thread that it does not have nor leaves what is the parent's."""
    done = run_program(
        """
import os, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of forks of processes with threads
portal = ta.open_portal()
portal.open(resource("first"))
child = os.fork()
if child == 0:
    try:
        portal.call(wait)
    except RuntimeError as error:
        print(error, flush=True)
    sys.exit(3)
print("child ended with", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
""",
        tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "the portal belongs to another process: open one after the fork",
        "child ended with 3",
        "first is left",
    ]


def test_an_open_service_of_a_program_that_forgets_it_is_closed_at_exit(tmp_path: Path) -> None:
    """With all its threads, models and sessions; only the line that names the backend is printed."""
    done = run_program(
        """
portal = ta.open_portal()
service = portal.open(ta.open_service("local", seed=1))
training = portal.call(service.create_lora_training_client, "tinker-actors/char-100k", rank=4)
print(type(training).__name__)
""",
        tmp_path,
    )
    assert done.returncode == 0
    assert done.stdout == "TrainingClient\n"
    assert done.stderr.splitlines() == [
        "tinker_actors: using the embedded service, because backend='local' was given"
    ]
