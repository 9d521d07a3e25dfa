"""Actors over trio: typed messages, bounded mailboxes, supervision.

This room knows nothing of Tinker; it may be used for actors of any kind.
"""

from __future__ import annotations

from tinker_actors.kernel.actor import Actor, Ending, Stop, handles
from tinker_actors.kernel.context import Context
from tinker_actors.kernel.dead_letter import DeadLetter, DeadLetters, Reason
from tinker_actors.kernel.envelope import TRACE
from tinker_actors.kernel.instrument import (
    ActorCrashed,
    ActorEnded,
    ActorReady,
    ActorStuck,
    KernelEvent,
    MessageAdmitted,
    MessageSettled,
    MessageStarted,
    Observer,
)
from tinker_actors.kernel.message import MailboxStatistics, Message
from tinker_actors.kernel.overflow import Coalesce, Overflow
from tinker_actors.kernel.pool import Pool, PoolSpec, start_pool
from tinker_actors.kernel.ref import ActorRef, Pending, StopMode
from tinker_actors.kernel.restart import Backoff, Intensity, RestartPolicy
from tinker_actors.kernel.snapshot import (
    ActorSnapshot,
    PastMessage,
    RunningMessage,
    Snapshot,
    SupervisorSnapshot,
)
from tinker_actors.kernel.spec import ChildSpec
from tinker_actors.kernel.supervisor import AutoShutdown, Strategy, Supervisor
from tinker_actors.kernel.token import ReplyToken
from tinker_actors.kernel.tree import open_supervisor
from tinker_actors.kernel.watch import Down, DownReason, Watch

__all__ = [
    "TRACE",
    "Actor",
    "ActorCrashed",
    "ActorEnded",
    "ActorReady",
    "ActorRef",
    "ActorSnapshot",
    "ActorStuck",
    "AutoShutdown",
    "Backoff",
    "ChildSpec",
    "Coalesce",
    "Context",
    "DeadLetter",
    "DeadLetters",
    "Down",
    "DownReason",
    "Ending",
    "Intensity",
    "KernelEvent",
    "MailboxStatistics",
    "Message",
    "MessageAdmitted",
    "MessageSettled",
    "MessageStarted",
    "Observer",
    "Overflow",
    "PastMessage",
    "Pending",
    "Pool",
    "PoolSpec",
    "Reason",
    "ReplyToken",
    "RestartPolicy",
    "RunningMessage",
    "Snapshot",
    "Stop",
    "StopMode",
    "Strategy",
    "Supervisor",
    "SupervisorSnapshot",
    "Watch",
    "handles",
    "open_supervisor",
    "start_pool",
]
