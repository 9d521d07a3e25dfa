"""The HeartbeatActor: starts, watches and stops the beating, and turns its facts into events.

The beats themselves come from `transport.heartbeat`: a thread with its own loop and connection, or, under
virtual time, a task of this loop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import trio

from tinker_actors.actors.event import EventHub
from tinker_actors.actors.message import CheckSession, Heartbeat, RenewSession, StartBeating
from tinker_actors.actors.session import Session
from tinker_actors.errors import ActorError, ServiceClosing
from tinker_actors.kernel import Actor, handles
from tinker_actors.protocol.event import HeartbeatMissed, LoopBlocked
from tinker_actors.transport.config import Config
from tinker_actors.transport.heartbeat import Beat, Blocked, Fact, Gone, Heart, Missed, TransportOpener

__all__ = ["HeartbeatActor"]

_SUSPICIOUS = (
    3  # beats in a row that were answered 500; TuFT 0.2.2 says so of a session that it does not know
)
_LOG = logging.getLogger("tinker_actors.heartbeat")


class HeartbeatActor(Actor[Heartbeat]):
    """Keeps one session alive.

    Args:
        config: how the service is reached, and how often to beat.
        session: the present session.
        through: opens a transport to use in place of the network.
        events: where facts worth knowing go.
        credentials: gives the headers that say who we are; called in whatever thread beats.
    """

    def __init__(
        self,
        config: Config,
        session: Session,
        through: TransportOpener | None,
        events: EventHub,
        credentials: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._credentials = credentials
        self._config = config
        self._session = session
        self._through = through
        self._events = events
        self._heart: Heart | None = None
        self._last_beat = 0.0
        self._last_warning = 0.0
        self._failures = 0
        self._fails = False  # the last beat did not get through

    async def on_start(self) -> None:
        """After a crash, go on beating for the session there is."""
        await trio.lowlevel.checkpoint()
        if self._session.session_id:
            self._beat_for(self._session.session_id)

    @handles(StartBeating)
    async def start_beating(self, message: StartBeating) -> None:
        """Beat for a session from now on; the first beat goes out at once."""
        await trio.lowlevel.checkpoint()
        self._beat_for(message.session_id)

    def _beat_for(self, session_id: str) -> None:
        self._last_beat = self._last_warning = trio.current_time()
        if self._heart is not None:
            self._heart.session_id = session_id
            return
        self._heart = Heart(self._config, session_id, self._take, self._through, self._credentials)
        in_thread = self._config.heartbeat == "thread"
        self.context.spawn(self._heart.beat_in_thread if in_thread else self._heart.beat_in_loop)

    def _take(self, fact: Fact) -> None:
        """Take a fact in; called in the main loop, outside of any task."""
        now = trio.current_time()
        match fact:
            case Beat():
                self._last_beat = now
                self._failures = 0
                self._fails = False
            case Missed(session_id, why, status, broken):
                # A service that fails all of them, for it has no use for them, is not restarted all the time.
                if broken or (status is not None and status >= 500 and not self._fails):
                    self._session.reachability.interrupted()
                self._fails = True
                self._missed(session_id, why, now)
                self._suspect(session_id, status)
            case Gone(session_id, status):
                if self._is_present(session_id):  # else it is known already
                    _LOG.warning("the service says that session %s has ended (status %d)", session_id, status)
                    self._tell(RenewSession(self._session.epoch))
            case Blocked(seconds, stack):
                _LOG.warning("the event loop has not turned for %.1f s; it stands in\n%s", seconds, stack)
                self._events.publish(LoopBlocked(seconds, stack))

    def _missed(self, session_id: str, why: str, now: float) -> None:
        silent = now - self._last_beat
        if silent < self._config.heartbeat_warn_after:
            return
        if now - self._last_warning >= self._config.heartbeat_warn_after:
            self._last_warning = now
            _LOG.warning("no heartbeat of session %s has got through for %.0f s: %s", session_id, silent, why)
            self._events.publish(HeartbeatMissed(session_id, silent))

    def _suspect(self, session_id: str, status: int | None) -> None:
        """Have it looked up whether the session is there if beats keep failing with 500: so says one service."""
        self._failures = self._failures + 1 if status == 500 else 0
        if self._failures and self._failures % _SUSPICIOUS == 0 and self._is_present(session_id):
            self._tell(CheckSession(self._session.epoch))

    def _is_present(self, session_id: str) -> bool:
        return session_id == self._session.session_id and not self._session.is_lost

    def _tell(self, message: CheckSession | RenewSession) -> None:
        keeper = self._session.keeper
        if keeper is None:
            return
        try:
            keeper.tell_nowait(message)
        except ServiceClosing:
            pass  # the session was finished before this beat was answered
        except ActorError as error:
            _LOG.warning("%s could not be told: %s", type(message).__name__, error)
