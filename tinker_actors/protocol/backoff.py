"""One clock that holds back everybody who samples from the same service with the same key."""

from __future__ import annotations

import math

import attrs

__all__ = ["SampleBackoff"]

# Seconds after a refusal without Retry-After, and bytes above which a sample counts as large: tinker 0.38.0
# lib/internal_client_holder.py and lib/public_interfaces/sampling_client.py.
_PAUSE = 1.0
_LARGE_PAUSE = 5.0
_LARGE = 128 * 1024
_LONGEST = 60.0  # seconds; one header must not stop all sampling for a day


@attrs.define
class SampleBackoff:
    """When the next sample may be sent. It only ever moves forward: a later refusal never shortens a wait.

    Attributes:
        until: trio time before which nothing is sent; minus infinity before the first refusal.
        refusals: how many refusals it has seen.
    """

    until: float = -math.inf
    refusals: int = 0

    def refused(self, *, now: float, retry_after: float | None, size: int = 0) -> None:
        """Take a refusal (429, or a 402 that is waited out) into account.

        Args:
            now: the present time.
            retry_after: seconds the service asked to wait; None and 0 leave it to us, for 0 would mean to knock
                without a pause. More than a minute counts as a minute.
            size: bytes the refused sample was taken to weigh; a large one waits for longer.
        """
        self.refusals += 1
        pause = retry_after or (_LARGE_PAUSE if size > _LARGE else _PAUSE)
        self.until = max(self.until, now + min(pause, _LONGEST))

    def wait(self, now: float) -> float:
        """Return the seconds until something may be sent."""
        return max(0.0, self.until - now)
