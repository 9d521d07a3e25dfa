"""The life of an actor's slot, as a table.

The slot is what a ref points to. It outlives its incarnations: RESTARTING is the time between two of them.
Everything that changes a slot's state goes through `step`; a transition that is not in the table is a bug.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

__all__ = ["TRANSITIONS", "Event", "Life", "step"]


class Life(enum.Enum):
    """Where a slot is in its life."""

    NEW = "new"
    STARTING = "starting"  # on_start runs
    RUNNING = "running"
    DRAINING = "draining"  # takes nothing new, works off its mailbox
    STOPPING = "stopping"  # has handled its last message; on_drain, then on_stop run
    RESTARTING = "restarting"  # waits out its backoff
    STOPPED = "stopped"
    FAILED = "failed"


class Event(enum.Enum):
    """What may happen to a slot."""

    START = "start"
    READY = "ready"
    DRAIN = "drain"
    STOP = "stop"
    CRASH = "crash"  # and it is to live again
    RETRY = "retry"
    ENDED = "ended"
    GIVE_UP = "give up"


TRANSITIONS: Mapping[Life, Mapping[Event, Life]] = {
    Life.NEW: {Event.START: Life.STARTING, Event.ENDED: Life.STOPPED},
    Life.STARTING: {
        Event.READY: Life.RUNNING,
        Event.CRASH: Life.RESTARTING,
        Event.GIVE_UP: Life.FAILED,
        Event.ENDED: Life.STOPPED,
    },
    Life.RUNNING: {
        Event.DRAIN: Life.DRAINING,
        Event.STOP: Life.STOPPING,
        Event.CRASH: Life.RESTARTING,
        Event.GIVE_UP: Life.FAILED,
        Event.ENDED: Life.STOPPED,
    },
    Life.DRAINING: {
        Event.STOP: Life.STOPPING,
        Event.CRASH: Life.RESTARTING,
        Event.GIVE_UP: Life.FAILED,
        Event.ENDED: Life.STOPPED,
    },
    Life.STOPPING: {
        Event.CRASH: Life.RESTARTING,  # something is still owed that only another incarnation can answer
        Event.GIVE_UP: Life.FAILED,
        Event.ENDED: Life.STOPPED,
    },
    Life.RESTARTING: {Event.RETRY: Life.STARTING, Event.GIVE_UP: Life.FAILED, Event.ENDED: Life.STOPPED},
    Life.STOPPED: {},
    Life.FAILED: {},
}


def step(life: Life, event: Event) -> Life:
    """Return the state after `event`.

    Raises:
        RuntimeError: the table has no such transition.
    """
    try:
        return TRANSITIONS[life][event]
    except KeyError:
        raise RuntimeError(f"an actor that is {life.value} cannot {event.value}") from None
