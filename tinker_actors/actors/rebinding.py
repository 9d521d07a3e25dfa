"""Sampling sessions: opening them, and opening them anew when they are lost.

Theory of operation. A sampling session ends with its session, and now and then alone. Its target is *rebound*: it goes
on with another sampling session of the same weights, and all clients that share it notice nothing but time. Saved
weights and base models are opened again; many samples may find a target lost at once, but only the first opens it
anew. Weights that were published without a name ended with their session: they are published again by the model that
is restored, when it comes to the place in its line where it had published them, and whoever samples waits for that.
If the service has dropped them alone, as it seems, the model is looked for first: it may be gone as well.
"""

from __future__ import annotations

import contextlib
import weakref

import trio

from tinker_actors.actors.event import EventHub
from tinker_actors.actors.message import Training
from tinker_actors.actors.run_message import Look
from tinker_actors.actors.session import Session
from tinker_actors.actors.target import FromBase, FromPath, Published, SampleTarget
from tinker_actors.errors import SamplerLost, TinkerActorsError, TinkerError
from tinker_actors.kernel import ActorRef
from tinker_actors.protocol.event import OrphanPossible, SamplerRebound
from tinker_actors.protocol.recovery import session_lost
from tinker_actors.protocol.retry import Sends
from tinker_actors.transport.http import HttpTransport
from tinker_actors.wire.endpoints import CREATE_SAMPLING_SESSION
from tinker_actors.wire.sampling import CreateSamplingSessionRequest

__all__ = ["SamplerOpener"]

_SESSIONS = 3  # sessions that may be lost while one sampling session is opened
_LOOK = 10.0  # seconds after which those who wait for a model look whether it is still there


class SamplerOpener:
    """Opens the sampling sessions of a service.

    Args:
        transport: the way to it.
        session: the present session.
        events: where events go.
    """

    def __init__(self, transport: HttpTransport, session: Session, events: EventHub) -> None:
        self._transport = transport
        self._session = session
        self._events = events
        self._turns: weakref.WeakKeyDictionary[SampleTarget, trio.Lock] = weakref.WeakKeyDictionary()

    async def open(self, origin: FromPath | FromBase) -> SampleTarget:
        """Open a sampling session; if the session turns out to be lost, in the next one.

        Raises:
            TinkerError: the service refuses.
        """
        session = self._session
        path = origin.path if isinstance(origin, FromPath) else None
        for trial in range(_SESSIONS):
            await session.settled()
            epoch = session.epoch
            try:
                return SampleTarget(await self._open_in_session(origin), epoch, origin)
            except TinkerError as error:
                if trial == _SESSIONS - 1 or not (session_lost(error, path) or not session.is_current(epoch)):
                    raise
            await session.renew(epoch)
        raise AssertionError("the last trial has returned or raised")

    async def _open_in_session(self, origin: FromPath | FromBase) -> str:
        session = self._session
        session_id, number = session.session_id, session.take_sampler_seq()
        request = CreateSamplingSessionRequest(
            session_id=session_id,
            sampling_session_seq_id=number,
            base_model=origin.base_model if isinstance(origin, FromBase) else None,
            model_path=origin.path if isinstance(origin, FromPath) else None,
        )
        sends = Sends()

        async def ask() -> str:
            sends.spent = 0  # an outage in between is no fault of the call's
            reply = await self._transport.call(CREATE_SAMPLING_SESSION, request, sends=sends)
            return reply.sampling_session_id

        sampling_session_id = await session.reachability.call(ask)
        if sends.orphan:
            self._events.publish(OrphanPossible("create_sampling_session", session_id, number))
        return sampling_session_id

    async def rebind(self, target: SampleTarget, lost: str | None = None) -> None:
        """Have a target go on in the present session, with another sampling session than the lost one.

        Args:
            target: what is sampled from.
            lost: the sampling session that the service no longer has; None: whatever belongs to an older epoch.

        Raises:
            SamplerLost: the weights are gone and cannot be had again.
            TinkerError: the service refuses.
        """
        turn = self._turns.setdefault(target, trio.Lock())
        async with turn:
            if lost == target.sampling_session_id and isinstance(target.origin, Published):
                await self._session.check(target.epoch)  # perhaps it has gone with its session
            while not self._is_bound(target, lost):
                await self._session.settled()
                match target.origin:
                    case FromPath() | FromBase() as origin:
                        before, found = target.sampling_session_id, await self.open(origin)
                        target.rebind(found.sampling_session_id, found.epoch)
                        self._events.publish(SamplerRebound(before, found.sampling_session_id))
                    case Published() as origin:
                        await self._wait_for_model(target, origin, lost)
                    case None:
                        raise _gone(target, "it is not known what it was opened from")

    def _is_bound(self, target: SampleTarget, lost: str | None) -> bool:
        return self._session.is_current(target.epoch) and target.sampling_session_id != lost

    async def _wait_for_model(self, target: SampleTarget, origin: Published, lost: str | None) -> None:
        lineage, looked_for = origin.lineage, ""
        while not self._is_bound(target, lost):
            if lineage.poison is not None:
                raise _gone(target, "its model is not used any more") from lineage.poison.renewed()
            if lineage.publication_of(target) is None:
                raise _gone(
                    target, "more was trained or loaded before the state that its model is restored from"
                )
            if self._session.is_current(target.epoch) and self._session.is_current(lineage.epoch):
                if not looked_for and lineage.actor is not None:
                    looked_for, target.dropped = lineage.model_id, True
                    await _look(lineage.actor)
                    continue
                if looked_for in {"", lineage.model_id}:
                    raise _gone(target, "the service has dropped it, and its model has gone on since")
            if lineage.actor is not None and lineage.actor.stopped:
                raise _gone(target, "its model has ended")
            changed = lineage.changed
            with trio.move_on_after(_LOOK):
                await changed.wait()


async def _look(model: ActorRef[Training]) -> None:
    """Have a model looked for: a restarted service may know the session, and have neither model nor samplers.

    It is not known to be lost as long as nobody asks anything of it.
    """
    with contextlib.suppress(TinkerActorsError):  # whoever waits looks what has become of it
        await model.ask(Look())


def _gone(target: SampleTarget, why: str) -> SamplerLost:
    message = (
        f"sampling session {target.sampling_session_id} is lost and its weights cannot be had again: {why}"
    )
    return SamplerLost(message)
