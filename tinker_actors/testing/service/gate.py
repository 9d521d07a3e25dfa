"""What every request passes: the key, the buckets, and the book of faults."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final

from .call import Call
from .fault import InjectedFault, Schedule, ServiceFault
from .reply import Answer, Refusal
from .state import ServiceState

__all__ = ["Gate"]

_OPEN_ENDPOINTS: Final = frozenset({"healthz", "client_config", "auth_token"})
"""They take the key itself, also where others want a token."""


class Gate:
    """Refuses who has no key or no token of a bucket, and notes each fault that strikes."""

    def __init__(
        self, state: ServiceState, schedule: Schedule, api_key: str | None, injected: list[InjectedFault]
    ) -> None:
        self.schedule = schedule
        self._state = state
        self._api_key = api_key
        self._injected = injected

    def inject(self, fault: ServiceFault, call: Call) -> None:
        """Note that a fault strikes."""
        self._injected.append(InjectedFault(fault, call.request.number, call.request.endpoint, call.now))

    def refusal_of_key(self, call: Call) -> Answer | None:
        """Return the refusal of a request without the right key or token."""
        endpoint = call.request.endpoint
        given = call.request.header("x-api-key")
        if self._state.token_lifetime is not None and endpoint not in _OPEN_ENDPOINTS:
            if self._state.tokens.get(given or "", -1.0) > call.now:
                return None
            challenge = ("www-authenticate", 'Bearer error="invalid_token"')
            return Refusal(401, "the token is invalid or has expired", (challenge,)).answer
        if self._api_key is None or endpoint == "healthz" or given == self._api_key:
            return None
        return Refusal(401, "x-api-key is missing or wrong").answer

    def limit(self, call: Call) -> Answer | None:
        """Return the refusal of a request that found a bucket empty, or the service full of samples."""
        full = self.schedule.full(call.request.endpoint, self._state.samples_at(call.now), call.now)
        if full is not None:
            self._injected.append(InjectedFault(full, call.request.number, call.request.endpoint, call.now))
            headers = self.retry_after(call.now, full.retry_after, "seconds")
            return Refusal(429, f"there are {full.samples} samples already", headers).answer
        found = self.schedule.limited(call.request.endpoint, call.now)
        if found is None:
            return None
        limit, wait = found
        self._injected.append(InjectedFault(limit, call.request.number, call.request.endpoint, call.now))
        headers = self.retry_after(call.now, wait, limit.retry_after_form)
        return Refusal(429, "rate limit exceeded", headers).answer

    def retry_after(self, now: float, seconds: float | None, form: str | None) -> tuple[tuple[str, str], ...]:
        """Return the header that asks to wait, in one of its forms."""
        if seconds is None or form is None:
            return ()
        if form == "ms":
            return (("retry-after-ms", f"{1000 * seconds:.0f}"),)
        if form == "seconds":
            return (("retry-after", f"{seconds:g}"),)
        date = datetime.fromtimestamp(self._state.epoch + now + seconds, UTC)
        return (("retry-after", format_datetime(date, usegmt=True)),)
