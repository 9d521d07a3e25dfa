"""What a service tells those who listen: the events of `service.ref.subscribe`, under one name.

    async with service.ref.subscribe(ModelRestored, SessionRenewed) as events:
        async for event in events:
            match event:
                case ModelRestored(model_id=model_id, steps=steps):
                    ...

Each is a frozen value; `ServiceEvent` is the union of all of them. `WaitSeen` is what `service.waits()` is made of, and
`QueueStateObserver` what `service.ref.observe_queues` takes.
"""

from __future__ import annotations

from tinker_actors.actors.event import EventChannel
from tinker_actors.protocol.event import (
    ActorFailed,
    HeartbeatMissed,
    Lagged,
    LoopBlocked,
    ModelLostEvent,
    ModelRestored,
    OptimizerUnverified,
    OrphanPossible,
    QueueChange,
    Reattached,
    RestoreMismatchFound,
    RestoreVerified,
    RollbackFound,
    SamplerRebound,
    SamplingSlow,
    ServerBack,
    ServerUnreachable,
    ServiceEvent,
    SessionRenewed,
    WaitEnded,
    Waiting,
)
from tinker_actors.protocol.queue_state import QueueState, QueueStateObserver
from tinker_actors.protocol.run_event import CheckpointSaved, RunDraining, RunOpened, StepDecided, StepsLost
from tinker_actors.protocol.wait import WaitSeen

__all__ = [
    "ActorFailed",
    "CheckpointSaved",
    "EventChannel",
    "HeartbeatMissed",
    "Lagged",
    "LoopBlocked",
    "ModelLostEvent",
    "ModelRestored",
    "OptimizerUnverified",
    "OrphanPossible",
    "QueueChange",
    "QueueState",
    "QueueStateObserver",
    "Reattached",
    "RestoreMismatchFound",
    "RestoreVerified",
    "RollbackFound",
    "RunDraining",
    "RunOpened",
    "SamplerRebound",
    "SamplingSlow",
    "ServerBack",
    "ServerUnreachable",
    "ServiceEvent",
    "SessionRenewed",
    "StepDecided",
    "StepsLost",
    "WaitEnded",
    "WaitSeen",
    "Waiting",
]
