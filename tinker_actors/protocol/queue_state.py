"""What services say about the queues that requests stand in, and what of it is worth telling. Pure.

Theory of operation. A poll that brings no result may bring the state of the request's queue: `active`,
`paused_capacity`, `paused_rate_limit`, with or without a reason. Many requests of one *subject* (a model, a sampling
session) are polled at the same time and hear the same, each when its own poll comes back. The board keeps, by
subject, which requests heard of a pause. The subject is paused from the first of these until none is left; each
change of its (state, reason) is one `QueueChange`, the end of the pause included, with the seconds the state before
it lasted. A result, a failure and a caller that leaves end what the request has heard.

What goes into the log is a matter of its own: a pause of samples is told at once, one of training after a minute,
both once a minute at most, and the end of each pause whose beginning was told. Nothing is kept of a subject for longer
than a minute after its last pause.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol

import attrs

__all__ = ["ACTIVE", "QueueBoard", "QueueChange", "QueueState", "QueueStateObserver", "reason_of"]

ACTIVE = "active"
_PATIENCE = 60.0  # seconds of a pause of training before the log hears of it; in tinker 0.38.0 it is 900
# tinker 0.38.0 lib/public_interfaces/training_client.py and sampling_client.py
_PERIOD = 60.0  # seconds between two lines about one subject
_REASONS: Mapping[str, str] = {
    "paused_rate_limit": "concurrent training clients rate limit hit",
    "paused_capacity": "Tinker backend is running short on capacity, please wait",
}
_SAMPLING_REASONS: Mapping[str, str] = {
    **_REASONS,
    "paused_rate_limit": "concurrent sampler weights limit hit",
}


def reason_of(state: str, reason: str | None, *, sampling: bool) -> str:
    """Return the reason for a pause in words: the service's own, else the usual one of that state."""
    if reason:
        return reason
    return (_SAMPLING_REASONS if sampling else _REASONS).get(state, "unknown")


class QueueState(StrEnum):
    """The states of a queue, as the official client names them."""

    ACTIVE = "active"
    PAUSED_RATE_LIMIT = "paused_rate_limit"
    PAUSED_CAPACITY = "paused_capacity"
    UNKNOWN = "unknown"

    @classmethod
    def of(cls, state: str) -> QueueState:
        """Return the state of that name; `UNKNOWN` if this package does not know it."""
        return cls(state) if state in _STATES else cls.UNKNOWN


_STATES = frozenset(state.value for state in QueueState)


class QueueStateObserver(Protocol):
    """Whoever wants to be told when the requests of a client begin or cease to wait. Tinker's name."""

    def on_queue_state_change(self, queue_state: QueueState, queue_state_reason: str | None) -> None:
        """Take in that the queue is in another state, or in the same for another reason.

        Args:
            queue_state: the state it is in now.
            queue_state_reason: why, in words; None if requests run.
        """
        ...


@attrs.frozen
class QueueChange:
    """A subject's queue is in another state than before.

    Attributes:
        subject: a model's or a sampling session's id.
        state: the state it is in now; `active` means that requests run.
        reason: why, in words; empty if it is active.
        previous: the state before.
        seconds: how long that lasted; 0 if it was never told of.
        request_id: the request whose poll brought the news.
    """

    subject: str
    state: str
    reason: str
    previous: str
    seconds: float
    request_id: str = ""


@attrs.define(eq=False)
class _Pause:
    """One subject's pause."""

    state: str
    reason: str
    since: float  # this state and reason
    began: float  # the whole pause
    sampling: bool
    told: bool = False
    requests: set[str] = attrs.field(factory=set[str])


class QueueBoard:
    """What all subjects' queues are in; see the module."""

    def __init__(self) -> None:
        self._pauses: dict[str, _Pause] = {}
        self._told: dict[str, float] = {}  # when the log last heard of a pause; forgotten after a minute
        self._over: dict[str, str] = {}  # lines about ended pauses

    def __len__(self) -> int:
        return len(self._pauses) + len(self._told) + len(self._over)

    @property
    def paused(self) -> bool:
        """Whether any queue is paused; while none is, there is nothing to `end`."""
        return bool(self._pauses)

    def report(
        self, subject: str, request_id: str, state: str, reason: str | None, *, now: float, sampling: bool
    ) -> QueueChange | None:
        """Take in what a poll said.

        Returns:
            the change, if it is one.
        """
        if not state.startswith("paused"):
            return self.end(subject, request_id, now=now)
        words = reason_of(state, reason, sampling=sampling)
        pause = self._pauses.get(subject)
        if pause is None:
            self._pauses[subject] = _Pause(state, words, now, now, sampling, requests={request_id})
            return QueueChange(subject, state, words, ACTIVE, 0.0, request_id)
        pause.requests.add(request_id)
        if (pause.state, pause.reason) == (state, words):
            return None
        change = QueueChange(subject, state, words, pause.state, now - pause.since, request_id)
        pause.state, pause.reason, pause.since = state, words, now
        return change

    def end(self, subject: str, request_id: str, *, now: float) -> QueueChange | None:
        """Take in that a request runs, has ended, or is not waited for any more.

        Returns:
            the change, if it was the last one that had heard of a pause.
        """
        pause = self._pauses.get(subject)
        if pause is None:
            return None
        pause.requests.discard(request_id)
        if pause.requests:
            return None
        del self._pauses[subject]
        if pause.told:
            self._over[subject] = f"{_work(pause)} for {subject} goes on after {now - pause.began:.0f} s"
        return QueueChange(subject, ACTIVE, "", pause.state, now - pause.since, request_id)

    def line(self, subject: str, *, now: float) -> str | None:
        """Return the line that is due in the log about a subject; None if none is."""
        for name in [name for name, told in self._told.items() if now - told >= _PERIOD]:
            del self._told[name]
        pause = self._pauses.get(subject)
        if pause is None:
            return self._over.pop(subject, None)
        if subject in self._told or (not pause.sampling and now - pause.began < _PATIENCE):
            return None
        self._told[subject] = now
        pause.told = True
        return f"{_work(pause)} for {subject} is paused. Reason: {pause.reason}"


def _work(pause: _Pause) -> str:
    return "Sampling" if pause.sampling else "Training"
