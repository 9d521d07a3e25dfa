"""What services say about the queues that requests stand in, and what of it is worth telling. Pure.

Theory of operation. A poll that brings no result may bring the state of the request's queue: `active`,
`paused_capacity`, `paused_rate_limit`, with or without a reason. Many requests of one *subject* (a model, a sampling
session) are polled at the same time and hear the same, each when its own poll comes back. The board keeps, by
subject, which requests heard of a pause. The subject is paused from the first of these until none is left; each
change of its (state, reason) is one `QueueChange`, the end of the pause included, with the seconds the state before
it lasted. A result, a failure and a caller that leaves end what the request has heard.

What goes into the log is a matter of its own: a pause of samples is told at once, one of training after a quarter of
an hour, both once a minute at most.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import attrs

__all__ = ["ACTIVE", "QueueBoard", "QueueChange", "reason_of"]

ACTIVE = "active"
# tinker 0.38.0 lib/public_interfaces/training_client.py and sampling_client.py
_PATIENCE = 900.0  # seconds of a pause before the log hears of it
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


@attrs.frozen
class QueueChange:
    """A subject's queue is in another state than before.

    Attributes:
        subject: a model's or a sampling session's id.
        state: the state it is in now; `active` means that requests run.
        reason: why, in words; empty if it is active.
        previous: the state before.
        seconds: how long that lasted; 0 if it was never told of.
    """

    subject: str
    state: str
    reason: str
    previous: str
    seconds: float


@attrs.define(eq=False)
class _Pause:
    """One subject's pause."""

    state: str
    reason: str
    since: float  # this state and reason
    began: float  # the whole pause
    sampling: bool
    told: float = -math.inf
    requests: set[str] = attrs.field(factory=set[str])


class QueueBoard:
    """What all subjects' queues are in; see the module."""

    def __init__(self) -> None:
        self._pauses: dict[str, _Pause] = {}

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
            return QueueChange(subject, state, words, ACTIVE, 0.0)
        pause.requests.add(request_id)
        if (pause.state, pause.reason) == (state, words):
            return None
        change = QueueChange(subject, state, words, pause.state, now - pause.since)
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
        return QueueChange(subject, ACTIVE, "", pause.state, now - pause.since)

    def line(self, subject: str, *, now: float) -> str | None:
        """Return the line that is due in the log about a subject; None if none is."""
        pause = self._pauses.get(subject)
        if pause is None or now - pause.told < _PERIOD:
            return None
        if not pause.sampling and now - pause.began < _PATIENCE:
            return None
        pause.told = now
        what = "Sampling" if pause.sampling else "Training"
        return f"{what} for {subject} is paused. Reason: {pause.reason}"
