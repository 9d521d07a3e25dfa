"""`tinker-actors supervise`: runs a command, and again when it ends badly.

Theory of operation. The command is a process in a process group of its own, so that a Ctrl-C reaches it once: through
here, and not from the terminal as well. SIGINT and SIGTERM are passed on, each time they come, to this one process and
to nobody else; SIGHUP, of a terminal that goes away, as SIGTERM. Nothing is ever killed. To the terminal the command
runs in the background: it may write, and is not stopped for more than that; where it would read, there is nothing.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol

import click
import trio

from tinker_actors.cli.supervision import End, Supervision, Verdict
from tinker_actors.journal.event_file import ATTEMPT
from tinker_actors.kernel import Backoff, RestartPolicy

__all__ = ["Child", "Starter", "run_supervised", "supervise"]


class Child(Protocol):
    """A process that runs."""

    async def wait(self) -> int:
        """Wait for its end and return its code; that of a signal is negative."""
        ...

    def send_signal(self, number: int, /) -> None:
        """Send it a signal."""
        ...


Starter = Callable[[int], Awaitable[Child]]
"""Starts the command; is told which attempt it is."""


async def run_supervised(
    start: Starter,
    supervision: Supervision,
    signals: AsyncIterator[int],
    chance: Callable[[], float],
    say: Callable[[str], object],
) -> int:
    """Run a command until it ends well, or for good, and return the status to exit with. Checkpoints.

    Args:
        start: starts the command.
        supervision: decides what follows.
        signals: those that come.
        chance: gives numbers in [0, 1).
        say: is given lines for the user.
    """
    keeper = _Keeper(start, supervision, chance, say)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.pass_on, signals)
        end = await keeper.run()
        nursery.cancel_scope.cancel(reason="the command has ended for good")
    if end.line:
        say(end.line)
    return end.status


class _Keeper:
    """Keeps a command running."""

    def __init__(
        self,
        start: Starter,
        supervision: Supervision,
        chance: Callable[[], float],
        say: Callable[[str], object],
    ) -> None:
        self._start = start
        self._supervision = supervision
        self._chance = chance
        self._say = say
        self._child: Child | None = None
        self._asked = trio.Event()

    async def pass_on(self, signals: AsyncIterator[int]) -> None:
        """Pass signals on to whatever runs; if nothing does, nothing is started any more."""
        async for number in signals:
            passed_on = signal.SIGTERM if number == signal.SIGHUP else number
            self._supervision.passed_on = passed_on
            self._asked.set()
            if self._child is not None:
                self._child.send_signal(passed_on)

    async def run(self) -> End:
        """Run the command until that is the end."""
        while True:
            verdict = await self._attempt()
            if isinstance(verdict, End):
                return verdict
            self._say(verdict.line)
            with trio.move_on_after(verdict.delay):
                await self._asked.wait()
            if self._supervision.passed_on is not None:
                return self._supervision.asked_while_down(self._supervision.passed_on)

    async def _attempt(self) -> Verdict:
        supervision = self._supervision
        try:
            child = await self._start(supervision.attempt)
        except OSError as error:
            return supervision.not_started(error)
        began = trio.current_time()
        if supervision.passed_on is not None:
            child.send_signal(supervision.passed_on)  # it came while the command was being started
        self._child = child
        code = await child.wait()
        self._child = None
        return supervision.ended(code, ran_for=trio.current_time() - began, chance=self._chance())


# --- the command line ------------------------------------------------------------------------------------


@click.command(context_settings={"allow_interspersed_args": False})
@click.option(
    "--max-restarts",
    default=10,
    show_default=True,
    type=click.IntRange(min=0),
    help="So many restarts within the window; after one more failure it is given up.",
)
@click.option(
    "--window",
    default=3600.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Seconds of running time within which there may be so many restarts.",
)
@click.option(
    "--backoff",
    default=1.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Seconds before the first restart; they double.",
)
@click.option(
    "--max-backoff",
    default=60.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Seconds before a restart, at most.",
)
@click.option(
    "--no-restart-on",
    "final",
    metavar="CODE",
    multiple=True,
    type=click.IntRange(1, 255),
    help="An exit code after which it is not started again, beside 2, 78, 126 and 127.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def supervise(
    max_restarts: int,
    window: float,
    backoff: float,
    max_backoff: float,
    final: tuple[int, ...],
    command: tuple[str, ...],
) -> None:
    """Run COMMAND, and start it again when it fails or is killed.

    SIGINT and SIGTERM are passed on to it, and it is not started again after that. The exit status is that of its last
    run; 0 ends it at once. TINKER_ACTORS_ATTEMPT tells it how often it was started: 1, 2 and so on.
    """
    policy = RestartPolicy(
        restart="transient",
        max_restarts=max_restarts,
        period=window,
        backoff=Backoff(base=backoff, maximum=max_backoff),
    )
    sys.exit(trio.run(_supervise, command, Supervision(policy, final)))


async def _supervise(command: Sequence[str], supervision: Supervision) -> int:
    for number in (signal.SIGTTIN, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)  # the command inherits that
    wanted = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # else it is to survive its terminal
        wanted.append(signal.SIGHUP)

    async def start(attempt: int) -> Child:
        return await trio.lowlevel.open_process(
            command,
            stdin=subprocess.DEVNULL if sys.stdin is None or sys.stdin.isatty() else None,
            env=os.environ | {ATTEMPT: str(attempt)},
            process_group=0,
        )

    with trio.open_signal_receiver(*wanted) as signals:
        return await run_supervised(start, supervision, signals, random.Random().random, _say)


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # nobody reads it any more, which must not end the command
        click.echo(f"supervise: {line}", err=True)
