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
    RESTARTING = "restarting"  # waits out its backoff, or for its group
    STOPPED = "stopped"
    FAILED = "failed"
    STUCK = "stuck"  # was cancelled and does not end; nobody waits for it


class Event(enum.Enum):
    """What may happen to a slot."""

    START = "start"
    READY = "ready"
    DRAIN = "drain"
    STOP = "stop"
    CRASH = "crash"  # and it is to live again
    FINISH = "finish"  # it ended by itself, and is to live again
    HALT = "halt"  # it was cancelled, to be started again with its group
    RETRY = "retry"
    ENDED = "ended"
    GIVE_UP = "give up"
    STICK = "stick"


_AGAIN = {Event.CRASH: Life.RESTARTING, Event.HALT: Life.RESTARTING}
_OVER = {Event.GIVE_UP: Life.FAILED, Event.ENDED: Life.STOPPED, Event.STICK: Life.STUCK}

TRANSITIONS: Mapping[Life, Mapping[Event, Life]] = {
    Life.NEW: {Event.START: Life.STARTING, Event.ENDED: Life.STOPPED},
    Life.STARTING: {Event.READY: Life.RUNNING, **_AGAIN, **_OVER},
    Life.RUNNING: {Event.DRAIN: Life.DRAINING, Event.STOP: Life.STOPPING, **_AGAIN, **_OVER},
    Life.DRAINING: {Event.STOP: Life.STOPPING, **_AGAIN, **_OVER},
    # Again after STOPPING: something is still owed that only another incarnation can answer, or it is permanent.
    Life.STOPPING: {Event.FINISH: Life.RESTARTING, **_AGAIN, **_OVER},
    Life.RESTARTING: {Event.RETRY: Life.STARTING, Event.GIVE_UP: Life.FAILED, Event.ENDED: Life.STOPPED},
    Life.STOPPED: {},
    Life.FAILED: {},
    Life.STUCK: {},
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
