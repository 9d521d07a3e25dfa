"""Signals of a run: the first ends it in good order, the second cancels it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Final

import attrs
import trio

__all__ = ["Signals"]

_ENDS: Final = (signal.SIGINT, signal.SIGTERM)
_KILLED: Final = 128  # and the signal's number: what shells say of a program that a signal has ended


@attrs.define(eq=False)
class Signals:
    """Receives SIGINT and SIGTERM while a run is open, where signals arrive: in the main thread.

    Attributes:
        body: what the second one cancels.
        second: the one that cancelled the body; None as long as none has.
    """

    body: trio.CancelScope
    second: signal.Signals | None = None

    async def receive(  # noqa: ASYNC114 - no list of such functions is kept
        self,
        drain: Callable[[str], None],
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Do so until the second one has come; a third one is the program's own affair again.

        Args:
            drain: what the first one calls, with why.
            task_status: told when signals are received.
        """
        if threading.current_thread() is not threading.main_thread():
            task_status.started()
            await trio.lowlevel.checkpoint()
            return
        with trio.open_signal_receiver(*_ENDS) as signals:
            task_status.started()
            first = True
            async for number in signals:
                name = signal.Signals(number).name
                if first:
                    first = False
                    drain(f"{name} was received; once more cancels it")
                    continue
                self.second = signal.Signals(number)
                self.body.cancel(reason=f"{name} was received a second time")
                return

    def raise_second(self) -> None:
        """End the program as the second signal would have.

        Raises:
            KeyboardInterrupt: it was SIGINT.
            SystemExit: it was SIGTERM.
        """
        if self.second is signal.SIGINT:
            raise KeyboardInterrupt
        if self.second is not None:
            raise SystemExit(_KILLED + self.second)
