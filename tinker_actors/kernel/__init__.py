"""Actors over trio: typed messages, bounded mailboxes, supervision.

This room knows nothing of Tinker; it may be used for actors of any kind.
"""

from __future__ import annotations

from tinker_actors.kernel.actor import Actor, Context, Ending, ReplyToken, handles
from tinker_actors.kernel.envelope import TRACE
from tinker_actors.kernel.instrument import ActorCrashed, ActorEnded, ActorReady, KernelEvent
from tinker_actors.kernel.message import MailboxStatistics, Message
from tinker_actors.kernel.pool import PoolSpec, start_pool
from tinker_actors.kernel.ref import ActorRef, Pending
from tinker_actors.kernel.restart import Backoff, RestartPolicy
from tinker_actors.kernel.slot import ChildSpec, StopMode
from tinker_actors.kernel.supervisor import Supervisor, open_supervisor

__all__ = [
    "TRACE",
    "Actor",
    "ActorCrashed",
    "ActorEnded",
    "ActorReady",
    "ActorRef",
    "Backoff",
    "ChildSpec",
    "Context",
    "Ending",
    "KernelEvent",
    "MailboxStatistics",
    "Message",
    "Pending",
    "PoolSpec",
    "ReplyToken",
    "RestartPolicy",
    "StopMode",
    "Supervisor",
    "handles",
    "open_supervisor",
    "start_pool",
]
