"""The SessionActor: opens the session, opens a new one if it is lost, and finishes it.

Theory of operation. A session is the life on the service that models and samplers belong to. Its loss is not a
crash but a change of *epoch*: whoever finds out says which epoch it means, and only the first report of an
epoch opens a new session. `Session` is what the other actors read: the ids of the present epoch and the
counters that number models and samplers in it.
"""

from __future__ import annotations

import attrs
import trio

from tinker_actors.actors.event import EventHub
from tinker_actors.actors.message import Heartbeat, RenewSession, SessionRole, StartBeating
from tinker_actors.actors.reachability import Reachability
from tinker_actors.actors.throttle import BytesGate
from tinker_actors.errors import APIError
from tinker_actors.kernel import Actor, ActorRef, Ending, handles
from tinker_actors.protocol.cancel import CancelQueue
from tinker_actors.protocol.event import OrphanPossible, SessionRenewed
from tinker_actors.protocol.retry import Sends
from tinker_actors.protocol.throttle import DISPATCH_BYTES
from tinker_actors.transport.http import HttpTransport
from tinker_actors.version import __version__
from tinker_actors.wire.endpoints import CLIENT_CONFIG, CLIENT_DYNAMIC_CONFIG, CREATE_SESSION, FINISH_SESSION
from tinker_actors.wire.service import ClientConfigRequest, ClientConfigResponse, ClientDynamicConfigResponse
from tinker_actors.wire.session import CreateSessionRequest, FinishReason, FinishSessionRequest

__all__ = ["Session", "SessionActor"]

_SHORTEST_REFRESH = 10.0  # seconds; tinker 0.38.0 lib/internal_client_holder.py


@attrs.define(eq=False)
class Session:
    """The present session. Only the SessionActor changes its ids; the counters are taken by whoever sends.

    Attributes:
        session_id: the service's id; empty before the first session.
        epoch: counts sessions, from 1.
        limits: what the service sets for its clients.
        keeper: the SessionActor; who finds the session lost tells it.
        reachability: whether the service can be reached; who cannot reach it waits there.
        dispatch: bytes of batches being submitted.
        cancels: samples that nobody waits for any more; the service says whether it wants to know.
    """

    reachability: Reachability
    session_id: str = ""
    epoch: int = 0
    limits: ClientConfigResponse = attrs.field(factory=ClientConfigResponse)
    keeper: ActorRef[SessionRole] | None = None
    cancels: CancelQueue = attrs.field(factory=CancelQueue)
    dispatch: BytesGate = attrs.field(factory=lambda: BytesGate(DISPATCH_BYTES))
    _models: int = 0
    _samplers: int = 0

    def take_model_seq(self) -> int:
        """Return the next number of a model in this session."""
        self._models += 1
        return self._models - 1

    def take_sampler_seq(self) -> int:
        """Return the next number of a sampling session in this session."""
        self._samplers += 1
        return self._samplers - 1

    def begin(self, session_id: str) -> None:
        """Begin a new epoch."""
        self.session_id = session_id
        self.epoch += 1
        self._models = self._samplers = 0


class SessionActor(Actor[SessionRole]):
    """Owns the session's epoch."""

    declares = (APIError,)

    def __init__(
        self,
        transport: HttpTransport,
        session: Session,
        heartbeat: ActorRef[Heartbeat],
        events: EventHub,
    ) -> None:
        self._transport = transport
        self._session = session
        self._heartbeat = heartbeat
        self._events = events

    async def on_start(self) -> None:
        """Learn the service's limits and open the first session; a restart keeps the one there is."""
        self._session.keeper = self.context.ref
        if self._session.epoch:
            await trio.lowlevel.checkpoint()
            self.context.spawn(self._follow_flags)
            return
        await self._learn_limits()
        await self._open()
        self.context.spawn(self._follow_flags)

    async def _learn_limits(self) -> None:
        request = ClientConfigRequest(__version__)
        try:
            self._session.limits = await self._transport.call(CLIENT_CONFIG, request)
        except APIError as error:
            if getattr(error, "status_code", None) not in (404, 405):  # older services have no such call
                raise
        self._transport.learn(self._session.limits)
        self._session.dispatch = BytesGate(self._session.limits.fwdbwd_dispatch_bytes_semaphore_size)

    async def _follow_flags(self) -> None:
        """Ask for the flags that may change, now and then; a service without them is not asked again.

        A failure keeps what was said before.
        """
        period = ClientDynamicConfigResponse().refresh_interval_sec
        while True:
            try:
                flags = await self._transport.call(CLIENT_DYNAMIC_CONFIG, ClientConfigRequest(__version__))
            except APIError as error:
                if getattr(error, "status_code", None) in (404, 405):
                    return
            else:
                self._session.cancels.enabled = flags.sample_cancel_enabled
                self._session.cancels.max_batch = flags.sample_cancel_max_batch_size
                period = flags.refresh_interval_sec
            await trio.sleep(max(period, _SHORTEST_REFRESH))

    async def _open(self) -> None:
        config = self._transport.config
        request = CreateSessionRequest(
            tags=config.tags,
            user_metadata=dict(config.user_metadata),
            sdk_version=__version__,
            project_id=config.project_id,
        )
        sends = Sends()
        reply = await self._transport.call(CREATE_SESSION, request, sends=sends)
        if sends.orphan:
            self._events.publish(OrphanPossible("create_session", "", self._session.epoch))
        self._session.begin(reply.session_id)
        await self._heartbeat.tell(StartBeating(reply.session_id))

    @handles(RenewSession)
    async def renew(self, message: RenewSession) -> None:
        """Open a new session if the lost one is the present one."""
        if message.lost_epoch != self._session.epoch:
            await trio.lowlevel.checkpoint()
            return
        await self._open()
        self._events.publish(SessionRenewed(self._session.session_id, self._session.epoch))

    async def on_stop(self, ending: Ending) -> None:
        """Finish the session, if this is the end of it."""
        if ending == "crash" or not self._session.epoch:
            await trio.lowlevel.checkpoint()
            return
        reason = FinishReason("success" if ending == "drain" else "interrupted")
        path = {"session_id": self._session.session_id}
        try:
            await self._transport.call(FINISH_SESSION, FinishSessionRequest(reason), path=path)
        except APIError as error:
            if getattr(error, "status_code", None) not in (404, 410):  # no such call, or gone already
                raise
