"""What counts as an unreachable service, and how often it is asked whether it is back. Pure.

    a call ended with                                             then
    no connection, or none in time                                the service is away
    no answer, 408 or 5xx; the call may be sent again             the service is away
    no answer, 408 or 5xx; the call may not be sent again         a fence (`protocol.retry`)
    401, 403, no usable key                                       raised at once
    anything else                                                 raised

An absent service is a state, not a failure: whoever needs it waits, one prober asks for its health, and no budget is
spent. A service whose health is fine and that still fails a call is another matter:

    500             it is there and cannot do this: raised at once
    anything else   the call is sent again, for two hours at most; then it is raised
"""

from __future__ import annotations

from typing import Final

import attrs

from tinker_actors.errors import APIConnectionError, APIStatusError

__all__ = ["CALM", "STUBBORN", "Probing", "answers", "cannot_reach", "may_pass"]

STUBBORN: Final = 7200.0
"""Seconds for which a call is sent again to a service that is in good health and does not answer it."""
CALM: Final = 60.0
"""Seconds after which a new outage is not taken for the old one."""
_FIRST, _LONGEST = 1.0, 30.0  # seconds between two probes
_JITTER = 0.25
_DOUBLINGS = 5  # beyond these the longest delay holds


def cannot_reach(error: BaseException) -> bool:
    """Whether a call that may be sent again failed because the service was not there."""
    if isinstance(error, APIConnectionError):
        return error.retryable
    if isinstance(error, APIStatusError) and error.should_retry is not False:
        return error.status_code == 408 or error.status_code >= 500
    return False


def may_pass(error: BaseException) -> bool:
    """Whether a failure may pass although the service is in good health."""
    return not (isinstance(error, APIStatusError) and error.status_code == 500)


def answers(status: int | None) -> bool:
    """Whether the answer to a probe says that the service is there; one without that call is there as well."""
    return status is not None and status != 408 and status < 500


@attrs.define
class Probing:
    """When to ask next: after a second, then twice as long each time, up to half a minute, less up to a quarter.

    An outage that follows closely upon another goes on where that one was.
    """

    _tries: int = 0
    _ended: float | None = None

    def begin(self, now: float) -> None:
        """An outage begins."""
        if self._ended is not None and now - self._ended > CALM:
            self._tries = 0

    def delay(self, chance: float) -> float:
        """Return the seconds until the next probe.

        Args:
            chance: a number in [0, 1).
        """
        whole = min(_LONGEST, _FIRST * 2 ** min(self._tries, _DOUBLINGS))
        self._tries += 1
        return float(whole * (1 - _JITTER * chance))

    def end(self, now: float) -> None:
        """The outage has ended."""
        self._ended = now
