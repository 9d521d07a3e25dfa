"""For those who look at a run from outside: what its event file holds, live, over a remote shell, or afterwards.

    for recorded in read_events("runs/addition", follow=True):
        print(recorded.t, recorded.event)

The events of the service are those of `tinker_actors.events`; the others are here. A `TreeSeen` tells only what is new:
`latest_snapshot` puts the last ones together, and a `TreePicture` those that come one after the other.
"""

from __future__ import annotations

from tinker_actors.observe.reading import latest_snapshot, read_events
from tinker_actors.protocol.event_line import (
    ActorEnded,
    ActorHangs,
    ActorReady,
    EventsLost,
    FileBegun,
    FileEnded,
    MessageLost,
    MessagesLost,
    Recorded,
    UnknownEvent,
)
from tinker_actors.protocol.tree_seen import (
    ActorSeen,
    MailboxSeen,
    PastSeen,
    RunningSeen,
    SupervisorSeen,
    TreePicture,
    TreeSeen,
)

__all__ = [
    "ActorEnded",
    "ActorHangs",
    "ActorReady",
    "ActorSeen",
    "EventsLost",
    "FileBegun",
    "FileEnded",
    "MailboxSeen",
    "MessageLost",
    "MessagesLost",
    "PastSeen",
    "Recorded",
    "RunningSeen",
    "SupervisorSeen",
    "TreePicture",
    "TreeSeen",
    "UnknownEvent",
    "latest_snapshot",
    "read_events",
]
