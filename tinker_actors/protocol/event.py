"""What a service tells those who listen, as frozen facts."""

from __future__ import annotations

from typing import TypeAlias

import attrs

from tinker_actors.protocol.queue_state import QueueChange
from tinker_actors.protocol.run_event import RunEvent
from tinker_actors.protocol.wait import WaitEnded, Waiting

__all__ = [
    "ActorFailed",
    "HeartbeatMissed",
    "Lagged",
    "LoopBlocked",
    "ModelLostEvent",
    "ModelRestored",
    "OptimizerUnverified",
    "OrphanPossible",
    "QueueChange",
    "Reattached",
    "RestoreMismatchFound",
    "RestoreVerified",
    "RollbackFound",
    "SamplerRebound",
    "SamplingSlow",
    "ServerBack",
    "ServerUnreachable",
    "ServiceEvent",
    "SessionRenewed",
    "WaitEnded",
    "Waiting",
]


@attrs.frozen
class ActorFailed:
    """An actor crashed.

    Attributes:
        actor: its path.
        cause: one line.
        delay: seconds until it is started again; None if it is not.
    """

    actor: str
    cause: str
    delay: float | None


@attrs.frozen
class ModelLostEvent:
    """The service lost a model; it is about to be restored.

    Attributes:
        model_id: the id that is gone.
        cause: one line.
        in_flight: operations that were on their way.
    """

    model_id: str
    cause: str
    in_flight: int


@attrs.frozen
class ModelRestored:
    """A model was restored.

    Attributes:
        old_model_id: the id that is never addressed again.
        model_id: the new id.
        checkpoint: what it was loaded from; None if it was made anew from its seed.
        replayed: operations sent again.
        steps: optimizer steps among them.
        why: what had become of the old one, in one line.
    """

    old_model_id: str
    model_id: str
    checkpoint: str | None
    replayed: int
    steps: int
    why: str = ""


@attrs.frozen
class Reattached:
    """A process goes on with the model of an earlier one.

    Attributes:
        model_id: the model.
        resent: operations of which a request was sent again, because it was not known whether it had been.
        polled: operations whose results are waited for again.
    """

    model_id: str
    resent: int
    polled: int


@attrs.frozen
class RollbackFound:
    """A model of a run was rolled back on the service, under its id; it is about to be restored.

    Attributes:
        model_id: the model.
        checkpoint: what it was rolled back to; None for its creation.
    """

    model_id: str
    checkpoint: str | None


@attrs.frozen
class RestoreVerified:
    """A restored model computes what it computed before, weights and optimizer included.

    Attributes:
        model_id: the new id.
        checkpoint: what it was loaded from; None if it was made anew from its seed.
        apart: the largest mean distance of log probabilities that was seen.
    """

    model_id: str
    checkpoint: str | None
    apart: float


@attrs.frozen
class RestoreMismatchFound:
    """A restored model computes something else than it did before: the service has lost a part of what it had saved.

    Attributes:
        model_id: the new id.
        checkpoint: what it was loaded from; None if it was made anew from its seed.
        lost: `weights` or `optimizer`.
        apart: the mean distance of log probabilities.
    """

    model_id: str
    checkpoint: str | None
    lost: str
    apart: float


@attrs.frozen
class OptimizerUnverified:
    """A model was restored, and too few steps came after the saved state to tell whether its optimizer came along.

    Attributes:
        model_id: the new id.
        checkpoint: what it was loaded from; None if it was made anew from its seed.
    """

    model_id: str
    checkpoint: str | None


@attrs.frozen
class OrphanPossible:
    """Something was asked for twice, because no answer came: the service may hold one more than is known of.

    Attributes:
        what: the call, such as `create_model`.
        session_id: the session it would belong to; empty if it is a session.
        number: its number there.
    """

    what: str
    session_id: str
    number: int


@attrs.frozen
class SamplingSlow:
    """None of a client's samples has ended for a while: told after five minutes, then after ten, twenty and so on.

    Attributes:
        sampling_session_id: what they are drawn from.
        seconds: how long.
        waiting: how many wait.
        why: what the service said last, as far as it is known.
    """

    sampling_session_id: str
    seconds: float
    waiting: int
    why: str


@attrs.frozen
class SessionRenewed:
    """The session was lost and a new one was opened."""

    session_id: str
    epoch: int


@attrs.frozen
class SamplerRebound:
    """A sampling session was lost, and its clients go on with another one of the same weights.

    Attributes:
        old_sampling_session_id: the one that is gone.
        sampling_session_id: the new one.
    """

    old_sampling_session_id: str
    sampling_session_id: str


@attrs.frozen
class ServerUnreachable:
    """The service cannot be reached; what needs it waits.

    Attributes:
        cause: one line.
    """

    cause: str


@attrs.frozen
class ServerBack:
    """The service can be reached again, after `seconds`."""

    seconds: float


@attrs.frozen
class HeartbeatMissed:
    """No beat got through for `seconds`."""

    session_id: str
    seconds: float


@attrs.frozen
class LoopBlocked:
    """The event loop did not turn for `seconds`; `stack` shows where it stood."""

    seconds: float
    stack: str


@attrs.frozen
class Lagged:
    """This subscriber did not keep up: here `count` events are missing."""

    count: int


ServiceEvent: TypeAlias = (
    ActorFailed
    | RunEvent
    | Lagged
    | ModelLostEvent
    | ModelRestored
    | OrphanPossible
    | Reattached
    | RollbackFound
    | RestoreVerified
    | RestoreMismatchFound
    | OptimizerUnverified
    | SamplingSlow
    | SessionRenewed
    | SamplerRebound
    | ServerUnreachable
    | ServerBack
    | HeartbeatMissed
    | LoopBlocked
    | QueueChange
    | Waiting
    | WaitEnded
)
