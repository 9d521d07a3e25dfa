"""One clock that holds back everybody who samples from the same service with the same key."""

from __future__ import annotations

import attrs

__all__ = ["SampleBackoff"]

_DEFAULT_PAUSE = 1.0  # seconds after a 429 without Retry-After; tinker 0.38.0 internal_client_holder.py


@attrs.define
class SampleBackoff:
    """When the next sample may be sent. It only ever moves forward: a later refusal never shortens a wait.

    Attributes:
        until: trio time before which nothing is sent.
        refusals: how many refusals it has seen.
    """

    until: float = 0.0
    refusals: int = 0

    def refused(self, *, now: float, retry_after: float | None) -> None:
        """Take a 429 into account.

        Args:
            now: the present time.
            retry_after: seconds the service asked to wait; None and 0 leave it to us, for 0 would mean to knock
                without a pause.
        """
        self.refusals += 1
        self.until = max(self.until, now + (retry_after or _DEFAULT_PAUSE))

    def wait(self, now: float) -> float:
        """Return the seconds until something may be sent."""
        return max(0.0, self.until - now)
