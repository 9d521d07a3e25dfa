"""Sessions: who is connected, and who has been silent for too long.

Theory of operation. A session lives from its creation until it is finished, or until no beat came for
`timeout` seconds. Both ends are final. What belongs to an ended session is freed by whoever calls `sweep`,
which names each ended session once.

    alive ──finish──> finished          alive ──no beat for `timeout` s──> expired

Every method may be called from any thread: beats come from a thread of their own, with a trio loop of its
own, so that a client whose main loop is blocked stays alive. One lock guards everything, nothing under it
waits, and time comes from a callable that any thread may call.
"""

from __future__ import annotations

import enum
import math
import threading
from collections.abc import Callable, Mapping, Sequence

import attrs

from .refusal import refusal

__all__ = ["Beats", "SessionState", "SessionTable"]


class SessionState(enum.Enum):
    """Where a session is in its life."""

    ALIVE = "alive"
    FINISHED = "finished"
    EXPIRED = "expired"


@attrs.frozen
class Beats:
    """What is known of a session's heartbeats.

    Attributes:
        count: how many came.
        last: time of the last one, or of the session's creation.
    """

    count: int
    last: float


@attrs.define
class _Session:
    tags: tuple[str, ...]
    user_metadata: dict[str, str]
    display_name: str | None
    beats: Beats
    state: SessionState = SessionState.ALIVE


class SessionTable:
    """All sessions of a service.

    Args:
        timeout: seconds without a beat after which a session expires.
        clock: the time in seconds; called from any thread.
        new_id: makes an id that was never given out before, not even by an earlier life of the service.
        remembered: ended sessions whose clients are told so (410); older ones are unknown (404).
    """

    def __init__(
        self,
        *,
        timeout: float,
        clock: Callable[[], float],
        new_id: Callable[[], str],
        remembered: int = 1024,
    ) -> None:
        self.timeout = timeout
        self._clock = clock
        self._new_id = new_id
        self._remembered = remembered
        self._lock = threading.Lock()
        self._alive: dict[str, _Session] = {}
        self._ended: dict[str, _Session] = {}
        self._unswept: list[str] = []
        self._total_beats = 0

    def create(
        self,
        tags: Sequence[str] = (),
        user_metadata: Mapping[str, str] | None = None,
        display_name: str | None = None,
    ) -> str:
        """Open a session and return its id."""
        with self._lock:
            session_id = self._new_id()
            beats = Beats(0, self._clock())
            self._alive[session_id] = _Session(tuple(tags), dict(user_metadata or {}), display_name, beats)
            return session_id

    def revive(
        self,
        session_id: str,
        tags: Sequence[str],
        user_metadata: Mapping[str, str],
        display_name: str | None,
        state: SessionState,
    ) -> None:
        """Take over a session of an earlier life; if it is alive, its silence begins now."""
        with self._lock:
            beats = Beats(0, self._clock())
            session = _Session(tuple(tags), dict(user_metadata), display_name, beats, state)
            (self._alive if state is SessionState.ALIVE else self._ended)[session_id] = session

    def heartbeat(self, session_id: str) -> Beats:
        """Note a beat.

        Raises:
            SessionGoneError: the session has finished or expired.
            NotFoundError: there is no such session.
        """
        with self._lock:
            session = self._living(session_id)
            session.beats = Beats(session.beats.count + 1, self._clock())
            self._total_beats += 1
            return session.beats

    def check_alive(self, session_id: str) -> None:
        """Make sure that a session is alive.

        Raises:
            SessionGoneError: it has finished or expired.
            NotFoundError: there is no such session.
        """
        with self._lock:
            self._living(session_id)

    def finish(self, session_id: str) -> bool:
        """End a session; returns whether it was alive until now. The first end counts.

        Raises:
            NotFoundError: there is no such session.
        """
        with self._lock:
            self._expire()
            if session_id in self._ended:
                return False
            self._living(session_id)
            self._end(session_id, SessionState.FINISHED)
            return True

    def beats(self, session_id: str) -> Beats:
        """Return what is known of a session's beats, alive or ended.

        Raises:
            NotFoundError: there is no such session.
        """
        with self._lock:
            return self._find(session_id).beats

    def state(self, session_id: str) -> SessionState:
        """Return where a session is in its life.

        Raises:
            NotFoundError: there is no such session.
        """
        with self._lock:
            self._expire()
            return self._find(session_id).state

    def end(self, session_id: str) -> SessionState:
        """Return how a session has ended that `sweep` named; one that is forgotten already had expired."""
        with self._lock:
            session = self._ended.get(session_id)
            return SessionState.EXPIRED if session is None else session.state

    def about(self, session_id: str) -> tuple[Mapping[str, str], str | None]:
        """Return what is kept with a session, alive or ended, and what it is called.

        Raises:
            NotFoundError: there is no such session.
        """
        with self._lock:
            session = self._find(session_id)
            return dict(session.user_metadata), session.display_name

    def ids(self) -> list[str]:
        """Return all sessions that are remembered, those that live first, the latest first."""
        with self._lock:
            self._expire()
            return [*reversed(self._alive), *reversed(self._ended)]

    def sweep(self) -> list[str]:
        """Return the sessions that ended since the last call, however they ended."""
        with self._lock:
            self._expire()
            swept, self._unswept = self._unswept, []
            return swept

    def next_expiry(self) -> float:
        """Return the time at which the next session expires unless it beats; infinity if none is alive."""
        with self._lock:
            oldest = min((session.beats.last for session in self._alive.values()), default=math.inf)
            return oldest + self.timeout

    @property
    def alive_count(self) -> int:
        """Sessions that are alive."""
        with self._lock:
            self._expire()
            return len(self._alive)

    @property
    def total_beats(self) -> int:
        """Beats of all sessions."""
        with self._lock:
            return self._total_beats

    # Below here the lock is held.

    def _living(self, session_id: str) -> _Session:
        self._expire()
        session = self._find(session_id)
        if session.state is not SessionState.ALIVE:
            raise refusal(410, f"Session {session_id!r} has {session.state.value}")
        return session

    def _find(self, session_id: str) -> _Session:
        session = self._alive.get(session_id) or self._ended.get(session_id)
        if session is None:
            raise refusal(404, f"Session {session_id!r} is not known")
        return session

    def _expire(self) -> None:
        now = self._clock()
        silent = [key for key, session in self._alive.items() if now >= session.beats.last + self.timeout]
        for session_id in silent:
            self._end(session_id, SessionState.EXPIRED)

    def _end(self, session_id: str, state: SessionState) -> None:
        session = self._alive.pop(session_id)
        session.state = state
        self._ended[session_id] = session
        self._unswept.append(session_id)
        while len(self._ended) > self._remembered:
            del self._ended[next(iter(self._ended))]
