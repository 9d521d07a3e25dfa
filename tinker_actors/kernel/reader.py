"""A reader: the task that takes messages of a mailbox and handles them, one after the other.

Theory of operation. A cancel scope per message would be the largest single cost of an ask. So a reader has one
scope that is entered once and serves many messages; only when a handler was interrupted (its caller left, or
its deadline passed) is it used up, and the reader goes on in a fresh one. Between two messages nobody holds a
reader's scope: a message forgets its reader in the same synchronous step in which its handler ends.

Which reader runs in a task is known through a context variable, so that an ask made by a handler, or by a task
of a nursery the handler opened, is known to be made by that actor. Whoever waits, notes on what (`waits`);
`cycle` reads these notes.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Generator
from typing import Any, Protocol

import trio

__all__ = ["CURRENT_READER", "Reader", "Station", "current_reader", "waiting_on"]


class Station(Protocol):
    """What readers serve, and wait on: a mailbox."""

    owner: str

    def occupants(self, *, exclusive: bool) -> tuple[list[Reader], bool]:
        """Return the readers that stand between it and its next message, and whether all of them must end."""
        ...


class Reader:
    """One task that handles messages.

    Attributes:
        station: the mailbox it serves.
        signals: messages of the runtime to this incarnation (`Down`, timers), which go before all others;
            shared by the readers of an incarnation.
        task: the one that it is.
        scope: cancels the handler that runs.
        interrupted: its scope is used up.
        envelope: what it handles.
        waits: the mailboxes that its handler waits on.
        retired: it is to take no more messages.
        holds_token: it has a token of its mailbox's limiter.
        in_hook: it stands for a hook of the actor that runs.
    """

    __slots__ = (
        "__weakref__",
        "envelope",
        "holds_token",
        "in_hook",
        "interrupted",
        "retired",
        "scope",
        "signals",
        "station",
        "task",
        "waits",
    )

    def __init__(self, station: Station, signals: list[Any]) -> None:
        self.station: Station = station
        self.signals: list[Any] = signals
        self.task: trio.lowlevel.Task | None = None
        self.scope: trio.CancelScope | None = None
        self.interrupted: bool = False
        self.envelope: Any = None
        self.waits: list[Station] = []
        self.retired: bool = False
        self.holds_token: bool = False
        self.in_hook: bool = False

    @trio.lowlevel.enable_ki_protection
    def interrupt(self, reason: str) -> None:
        """Cancel the handler that runs."""
        self.interrupted = True
        if self.scope is not None:
            self.scope.cancel(reason=reason)


CURRENT_READER: contextvars.ContextVar[Reader | None] = contextvars.ContextVar(
    "tinker_actors.CURRENT_READER", default=None
)
"""The reader whose handler's code runs in this task; set by the runtime."""


def current_reader() -> Reader | None:
    """Return the reader on whose behalf this task runs: its own, or a task below it in the tree of nurseries.

    A task that a handler has left in somebody else's nursery has inherited the context, but nobody waits for it.
    """
    reader = CURRENT_READER.get()
    if reader is None:
        return None
    task: trio.lowlevel.Task | None = trio.lowlevel.current_task()
    while task is not None and task is not reader.task:
        nursery = task.parent_nursery
        task = None if nursery is None else nursery.parent_task
    return None if task is None else reader


@contextlib.contextmanager
def waiting_on(reader: Reader, station: Station) -> Generator[None]:
    """Note that a reader's handler waits on a mailbox."""
    reader.waits.append(station)
    try:
        yield
    finally:
        reader.waits.remove(station)
