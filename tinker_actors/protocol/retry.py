"""Whether a call is sent again, and when. The one retry rule below the sampling backoff.

A send is *doubtful* when its first byte was written and no complete answer was read, or the answer was 408 or
5xx: the service may have carried it out. Refusals (no connection, 429, `x-should-retry: true`) are not
doubtful and are tried again within the endpoint's budget. Everything else is final.

    what happened                      endpoint says        then
    `x-should-retry: false`            any                  raise
    no connection, 429, should-retry   any                  again, until the budget is spent
    doubtful                           resend, create       again, until the budget is spent
    doubtful                           numbered, named      again only if the service answers a repeated number
                                                            with its first result (`replay`); else raise
    doubtful                           give_up              raise
    other statuses                     any                  raise
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import attrs

from tinker_actors.wire.endpoint import OnDoubt

__all__ = ["Again", "DedupeMode", "Failure", "Verdict", "backoff_delay", "decide", "parse_retry_after"]

DedupeMode = Literal["replay", "reject", "none"]
"""What a service does with a number it has seen: answer with the first result, refuse, or run it again."""

# tinker 0.38.0 _base_client.py:651-746
_BASE_DELAY = 0.5
_MAX_DELAY = 10.0
_JITTER = 0.25
_MAX_RETRY_AFTER = 60.0  # a service that asks for more is taken to mean something else


@attrs.frozen(kw_only=True)
class Failure:
    """One attempt that did not succeed.

    Attributes:
        sent: a byte was written.
        status: the answer's status; None if no complete answer was read.
        retry_after: seconds the service asked to wait.
        should_retry: what the header `x-should-retry` said, if it was there.
    """

    sent: bool
    status: int | None = None
    retry_after: float | None = None
    should_retry: bool | None = None

    @property
    def doubtful(self) -> bool:
        """Whether the service may have carried the request out."""
        if self.should_retry is True:
            return False
        if self.status is None:
            return self.sent
        return self.status == 408 or self.status >= 500

    @property
    def refused(self) -> bool:
        """Whether the service did nothing and may take the request later."""
        if self.should_retry is not None:
            return self.should_retry
        return not self.sent or self.status == 429


@attrs.frozen
class Again:
    """Send it again after `delay` seconds."""

    delay: float


Verdict: TypeAlias = Again | None


def decide(
    failure: Failure, *, attempt: int, retries: int, on_doubt: OnDoubt, dedupe: DedupeMode, chance: float
) -> Verdict:
    """Decide about one failed attempt.

    Args:
        failure: what happened.
        attempt: 0 for the first one.
        retries: how many further attempts the endpoint allows.
        on_doubt: the endpoint's row in the table above.
        dedupe: what the service does with a repeated number.
        chance: a number in [0, 1) for the jitter.

    Returns:
        `Again`, or None: raise.
    """
    if attempt >= retries or failure.should_retry is False:
        return None
    by_mode = on_doubt in ("numbered", "named")
    resend_doubtful = on_doubt in ("resend", "create") or (by_mode and dedupe == "replay")
    if failure.refused or (failure.doubtful and resend_doubtful):
        return Again(backoff_delay(attempt, failure.retry_after, chance))
    return None


def backoff_delay(attempt: int, retry_after: float | None, chance: float) -> float:
    """Return the seconds before the next attempt, never more than 60.

    What the service asked for, if that is above 0 and at most 60; else half a second, doubled with every attempt
    up to 10, less up to a quarter of it.
    """
    if retry_after is not None and 0 < retry_after <= _MAX_RETRY_AFTER:
        return retry_after
    return float(min(_BASE_DELAY * 2 ** min(attempt, 10), _MAX_DELAY) * (1 - _JITTER * chance))


def parse_retry_after(milliseconds: str | None, seconds: str | None) -> float | None:
    """Read the headers `retry-after-ms` and `retry-after`, in this order; None if neither can be read.

    Only numbers are read, no dates: a date is worth nothing without the service's clock.
    """
    for text, scale in ((milliseconds, 1000.0), (seconds, 1.0)):
        if text is None:
            continue
        try:
            value = float(text) / scale
        except ValueError:
            continue
        if value >= 0 and math.isfinite(value):
            return value
    return None
