"""The SessionActor: opens the session, opens a new one if it is lost, and finishes it.

Theory of operation. A session is the life on the service that models and samplers belong to. Its loss is not a
crash but a change of *epoch*: whoever finds out says which epoch it means, and only the first report of an
epoch opens a new session. `Session` is what the other actors read: the ids of the present epoch and the
counters that number models and samplers in it.

From the report on, the epoch is over: what was to be sent in it is refused here (`is_current`), everybody who belongs
to it is told (`left`), and who needs a session waits for the next one (`settled`). If the service refuses a new
session, all who wait are told why, and whoever comes next has it tried again: one *renewal* for all who wait for it.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import random
from collections.abc import Awaitable, Callable, Generator

import attrs
import trio

from tinker_actors.actors.event import EventHub
from tinker_actors.actors.message import CheckSession, Heartbeat, RenewSession, SessionRole, StartBeating
from tinker_actors.actors.reachability import Reachability
from tinker_actors.actors.throttle import BytesGate
from tinker_actors.actors.waits import Waits
from tinker_actors.errors import (
    ActorStopped,
    APIError,
    APIStatusError,
    CredentialError,
    RateLimitError,
    ServiceClosing,
    TinkerError,
)
from tinker_actors.kernel import Actor, ActorRef, Ending, handles
from tinker_actors.protocol.cancel import CancelQueue
from tinker_actors.protocol.event import OrphanPossible, SessionRenewed
from tinker_actors.protocol.recovery import MAX_RESTORES, is_refusal_of_key, restore_delay, session_lost
from tinker_actors.protocol.retry import Sends, backoff_delay
from tinker_actors.protocol.throttle import DISPATCH_BYTES
from tinker_actors.transport.http import HttpTransport
from tinker_actors.transport.options import RequestOptions
from tinker_actors.version import __version__
from tinker_actors.wire.endpoints import (
    CLIENT_CONFIG,
    CLIENT_DYNAMIC_CONFIG,
    CREATE_SESSION,
    FINISH_SESSION,
    GET_SESSION,
    SESSION_HEARTBEAT,
)
from tinker_actors.wire.service import (
    ClientConfigRequest,
    ClientConfigResponse,
    ClientDynamicConfigResponse,
    Empty,
)
from tinker_actors.wire.session import (
    CreateSessionRequest,
    FinishReason,
    FinishSessionRequest,
    FinishType,
    SessionHeartbeatRequest,
)

__all__ = ["Adoption", "Session", "SessionActor"]

_LOG = logging.getLogger("tinker_actors.session")
_RESTORES = 2  # more would only wait for each other on the service
_LIVED = 60.0  # seconds after which the loss of a session is not taken for the same trouble as the one before
_ONCE = RequestOptions(max_retries=0, timeout=10.0)
# From a proxy, or too busy. A 500 is an answer: TuFT gives it for a session it does not know.
_NO_ANSWER = frozenset({408, 429, 502, 503, 504, *range(520, 530)})
_SHORTEST_REFRESH = 10.0  # seconds; tinker 0.38.0 lib/internal_client_holder.py


@attrs.frozen(kw_only=True)
class Adoption:
    """What an earlier process has left, and this one goes on with.

    Attributes:
        session_id: its session; empty if it had none. If that has ended, a new one is opened.
        first_number: the first number that models and sampling sessions get: none may be used twice, and some services
            have one session for all.
        waits: there is work to go on with, so an absent service is waited for: it may be starting anew as this process
            is. Else it is an error, as it is for those who begin.
    """

    session_id: str
    first_number: int
    waits: bool = True


@attrs.define(eq=False)
class _Renewal:
    """A new session is being opened, or was refused."""

    ended: trio.Event = attrs.field(factory=trio.Event)
    refusal: TinkerError | None = None


@attrs.define(eq=False)
class Session:
    """The present session. Only the SessionActor changes its ids; the counters are taken by whoever sends.

    Attributes:
        session_id: the service's id; empty before the first session.
        epoch: counts sessions, from 1.
        limits: what the service sets for its clients.
        keeper: the SessionActor; who finds the session lost tells it.
        reachability: whether the service can be reached; who cannot reach it waits there.
        waits: who waits for what.
        dispatch: bytes of batches being submitted.
        cancels: samples that nobody waits for any more; the service says whether it wants to know.
        restores: models being restored at the same time.
        finish: how the session ends, if somebody has said so.
        detail: what is said of its end.
        closed: the service was closed.
        first_number: of models and sampling sessions, in each session.
    """

    reachability: Reachability
    waits: Waits
    session_id: str = ""
    epoch: int = 0
    limits: ClientConfigResponse = attrs.field(factory=ClientConfigResponse)
    keeper: ActorRef[SessionRole] | None = None
    cancels: CancelQueue = attrs.field(factory=CancelQueue)
    dispatch: BytesGate = attrs.field(factory=lambda: BytesGate(DISPATCH_BYTES))
    restores: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(_RESTORES))
    finish: FinishType | None = None
    detail: str | None = None
    closed: bool = False
    first_number: int = 0
    _until_closed: set[trio.CancelScope] = attrs.field(factory=set[trio.CancelScope])
    _models: int = 0
    _samplers: int = 0
    _renewal: _Renewal | None = None  # since the present session was lost
    _changed: trio.Event = attrs.field(factory=trio.Event)

    # --- epochs ------------------------------------------------------------------------------------------

    def is_current(self, epoch: int) -> bool:
        """Whether something may still be sent in this epoch."""
        return epoch == self.epoch and not self.is_lost

    @property
    def is_lost(self) -> bool:
        """Whether the present session has ended and there is no new one yet."""
        return self._renewal is not None

    async def settled(self) -> None:
        """Wait until there is a session that is not known to be lost; a checkpoint only if there is none.

        Raises:
            ServiceClosing: there will be none any more.
            TinkerError: the service refuses to open one.
        """
        if self.closed:
            raise ServiceClosing
        while self._renewal is not None:
            renewal = self._renewal if self._renewal.refusal is None else self._have_renewed()
            await renewal.ended.wait()
            if renewal.refusal is not None:
                raise renewal.refusal.renewed()

    async def left(self, epoch: int) -> None:
        """Wait until this epoch is over; a checkpoint only if it is not."""
        while self.is_current(epoch):
            await self._changed.wait()

    async def renew(self, epoch: int) -> None:
        """Say that this epoch's session is lost, and wait for the next one.

        Raises:
            TinkerError: the service refuses to open one.
        """
        if self.is_current(epoch):
            self._have_renewed()
        await self.settled()

    def _have_renewed(self) -> _Renewal:
        """Have a new session opened."""
        assert self.keeper is not None, "there was a session, so there is a SessionActor"
        try:
            self.keeper.tell_nowait(RenewSession(self.epoch))
        except ActorStopped as error:
            raise ServiceClosing from error
        return self.lose()

    async def check(self, epoch: int) -> None:
        """Have it found out whether this epoch's session is lost, without a word from the service.

        When this returns, that is known, and if it is lost, a new one was opened or refused.
        """
        assert self.keeper is not None, "there was a session, so there is a SessionActor"
        await self.keeper.ask(CheckSession(epoch))

    def lose(self) -> _Renewal:
        """The present session is lost; return what those wait for who need another one."""
        if self._renewal is None or self._renewal.refusal is not None:
            self._renewal = _Renewal()
            self._tell()
        return self._renewal

    def refused(self, error: TinkerError) -> None:
        """The service refuses to open a new one, or there is none any more to open one."""
        if self._renewal is not None:
            self._renewal.refusal = error
            self._renewal.ended.set()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # --- the end -----------------------------------------------------------------------------------------

    def say_how_it_ends(self, finish: FinishType, detail: str | None) -> None:
        """Say how the session ends; the first word counts."""
        if self.finish is None:
            self.finish, self.detail = finish, detail

    def close(self) -> None:
        """There will be no session any more: tell everybody who waits for one, or for the service in one."""
        self.closed = True
        for scope in self._until_closed:
            scope.cancel(reason="the service is closed")
        self.refused(ServiceClosing())

    @contextlib.contextmanager
    def until_closed(self) -> Generator[None]:
        """Do what is no actor's, and what the end of the service is to end.

        Raises:
            ServiceClosing: it has ended, or does so meanwhile.
        """
        if self.closed:
            raise ServiceClosing
        with trio.CancelScope() as scope:
            self._until_closed.add(scope)
            try:
                yield
            finally:
                self._until_closed.discard(scope)
        if scope.cancelled_caught:
            raise ServiceClosing

    # --- numbers -----------------------------------------------------------------------------------------

    def take_model_seq(self) -> int:
        """Return the next number of a model in this session."""
        self._models += 1
        return self._models - 1

    @property
    def next_sampler_seq(self) -> int:
        """The number that the next sampling session will have."""
        return self._samplers

    def take_sampler_seq(self) -> int:
        """Return the next number of a sampling session in this session."""
        self._samplers += 1
        return self._samplers - 1

    def begin(self, session_id: str) -> None:
        """Begin a new epoch."""
        self.session_id = session_id
        self.epoch += 1
        self._models = self._samplers = self.first_number
        if self._renewal is not None:
            self._renewal.ended.set()
            self._renewal = None
        self._tell()


class SessionActor(Actor[SessionRole]):
    """Owns the session's epoch."""

    declares = (APIError, CredentialError)

    def __init__(
        self,
        transport: HttpTransport,
        session: Session,
        heartbeat: ActorRef[Heartbeat],
        events: EventHub,
        rng: random.Random,
        adoption: Adoption | None = None,
    ) -> None:
        self._transport = transport
        self._session = session
        self._heartbeat = heartbeat
        self._adoption = adoption
        self._events = events
        self._rng = rng
        self._opened_at = 0.0
        self._streak = 0

    async def on_start(self) -> None:
        """Learn the service's limits and open the first session; a restart keeps the one there is."""
        self._session.keeper = self.context.ref
        if self._session.epoch:
            await trio.lowlevel.checkpoint()
            if self._session.is_lost:  # it crashed while it opened a new one
                self.context.ref.tell_nowait(RenewSession(self._session.epoch))
            self.context.spawn(self._follow_flags)
            return
        if self._adoption is not None:
            self._session.first_number = self._adoption.first_number
        if self._adoption is not None and self._adoption.waits:
            await self._adopt(self._adoption)
        else:
            await self._learn_limits()
            await self._open()
        self.context.spawn(self._follow_flags)

    async def _adopt(self, adoption: Adoption) -> None:
        """Go on with an earlier process's session, or open one; however long the service is absent."""
        reach = self._session.reachability
        await reach.call(self._learn_limits)
        left, alive = adoption.session_id, False
        if left:
            alive = await reach.call(lambda: self._is_alive(left))
        if alive:
            await self._begin(left)
        else:
            await reach.call(self._open)

    async def _is_alive(self, session_id: str) -> bool:
        """Whether an earlier process's session has not ended, as far as the service can say.

        Raises:
            TinkerError: it has not said it.
        """
        beaten = True
        beat = SessionHeartbeatRequest(session_id)
        try:
            await self._ask(lambda: self._transport.call(SESSION_HEARTBEAT, beat, options=_ONCE))
        except APIStatusError as error:
            if error.status_code in _NO_ANSWER:
                raise
            if error.status_code < 500:
                return False
            beaten = False  # some say so of a session that they do not know
        place = {"session_id": session_id}
        try:
            await self._ask(lambda: self._transport.call(GET_SESSION, Empty(), path=place, options=_ONCE))
        except APIStatusError as error:
            if error.status_code in _NO_ANSWER:
                raise
            return beaten and not session_lost(error)
        return True

    async def _ask(self, question: Callable[[], Awaitable[object]]) -> None:
        """Ask the service something, and again as long as it is too busy to answer.

        Raises:
            RateLimitError: it stays so.
            TinkerError: another failure, at once.
        """
        for attempt in range(self._transport.config.max_retries):
            try:
                await question()
            except RateLimitError as error:
                await trio.sleep(backoff_delay(attempt, error.retry_after, self._rng.random()))
            else:
                return
        await question()

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
        await self._begin(reply.session_id)

    async def _begin(self, session_id: str) -> None:
        self._session.begin(session_id)
        self._opened_at = trio.current_time()
        await self._heartbeat.tell(StartBeating(session_id))

    @handles(RenewSession)
    async def renew(self, message: RenewSession) -> None:
        """Open a new session if the lost one is the present one; those who wait for it are told if that is refused."""
        session = self._session
        if message.lost_epoch != session.epoch:
            await trio.lowlevel.checkpoint()
            return
        session.lose()
        _LOG.warning("session %s is lost; a new one is opened", session.session_id)
        try:
            await self._reopen()
        except TinkerError as error:
            _LOG.warning("no new session in place of %s is to be had: %s", session.session_id, error)
            session.refused(error)
            return
        _LOG.warning("session %s goes on as %s", message.lost_epoch, session.session_id)
        self._events.publish(SessionRenewed(session.session_id, session.epoch))

    async def _reopen(self) -> None:
        """Open a session, as often as it takes to reach the service; refusals are tried again, a few times."""
        if trio.current_time() - self._opened_at > _LIVED:
            self._streak = 0
        for attempt in itertools.count(self._streak):
            await trio.sleep(restore_delay(attempt, self._rng.random()))
            try:
                await self._session.reachability.call(self._open)
            except APIError as error:
                if is_refusal_of_key(error) or attempt - self._streak == MAX_RESTORES:
                    raise
            else:
                break
        self._streak += 1

    @handles(CheckSession)
    async def check(self, message: CheckSession) -> None:
        """Ask whether the session is still there, and open a new one if it is not; not all services can say."""
        session = self._session
        if message.epoch != session.epoch:
            await trio.lowlevel.checkpoint()
            return
        session_id = session.session_id
        try:
            await self._transport.call(SESSION_HEARTBEAT, SessionHeartbeatRequest(session_id))
        except APIError as error:
            if getattr(error, "status_code", None) in (404, 410):
                await self.renew(RenewSession(message.epoch))
                return
        try:  # a beat that got through proves nothing
            await self._transport.call(GET_SESSION, Empty(), path={"session_id": session_id}, options=_ONCE)
        except APIError as error:
            if session_lost(error):
                await self.renew(RenewSession(message.epoch))

    async def on_stop(self, ending: Ending) -> None:
        """Finish the session, if this is the end of it; that it cannot be told is in the log and nowhere else."""
        session = self._session
        if ending in ("crash", "restart") or not session.epoch or session.is_lost:
            await trio.lowlevel.checkpoint()
            return
        how = session.finish or ("success" if ending == "drain" else "interrupted")
        request = FinishSessionRequest(FinishReason(how), session.detail)
        try:
            await self._transport.call(FINISH_SESSION, request, path={"session_id": session.session_id})
        except TinkerError as error:
            if getattr(error, "status_code", None) not in (404, 405, 410):  # no such call, or gone already
                _LOG.warning("session %s could not be finished: %s", session.session_id, error)
