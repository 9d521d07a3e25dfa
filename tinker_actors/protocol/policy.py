"""Whose fault a failure is, whether trying again may help, and the policy that stands above sampling. Pure.

One rule for all who ask: policies of retries, and telemetry.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import cast

import attrs

from tinker_actors.errors import (
    APIConnectionError,
    APIStatusError,
    ConfigError,
    CredentialError,
    InputError,
    ModelLost,
    RequestFailedError,
    ResultLost,
    RetryableException,
)

__all__ = ["RetryConfig", "is_retryable", "is_user_error"]

_MAX_DOUBLINGS = 64  # far above every cap, far below what a float holds


def is_user_error(error: BaseException) -> bool:
    """Whether the user has to change something, and trying again is of no use.

    That is a local refusal, a key that cannot be used, a failure that the service calls the user's, and 4xx but 408,
    429 and what the service says may be retried. An error that says nothing of the kind itself is judged by its
    cause, and then its context: a ValueError that comes from a 400 is the user's.
    """
    opinions = (_blames_user(link) for link in _chain(error))
    return next((opinion for opinion in opinions if opinion is not None), False)


def is_retryable(error: BaseException) -> bool:
    """Whether the failure is passing: no connection, no answer in time, 408, 429, 5xx, or what says so itself.

    Unlike `is_user_error` it looks at the error alone. What the service says about trying again (`x-should-retry`)
    wins.
    """
    if isinstance(error, APIStatusError):
        if error.should_retry is not None:
            return error.should_retry
        return _is_transient(error.status_code)
    if isinstance(error, RequestFailedError):
        return error.category != "user"
    return isinstance(error, APIConnectionError | RetryableException)


def _blames_user(error: BaseException) -> bool | None:
    """Say what an error tells by itself; None if nothing."""
    if isinstance(error, InputError | ConfigError | CredentialError):
        return True
    if isinstance(error, RequestFailedError):
        return error.category == "user"
    if isinstance(error, APIConnectionError | ModelLost | ResultLost | RetryableException):
        return False
    status = getattr(error, "status_code", None)
    if not isinstance(status, int):
        return None
    may_retry = getattr(error, "should_retry", None) is True
    return 400 <= status < 500 and not _is_transient(status) and not may_retry


def _is_transient(status: int) -> bool:
    return status in (408, 429) or status >= 500


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Walk an error, its causes and its contexts, each once."""
    seen: set[int] = set()
    open_links: list[BaseException | None] = [error]
    while open_links:
        link = open_links.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        open_links += [link.__context__, link.__cause__]


# --- the policy above sampling ---------------------------------------------------------------------------


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _is_width(value: object) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1)


def _are_exceptions(value: object) -> bool:
    if not isinstance(value, tuple):
        return False
    kinds = cast("tuple[object, ...]", value)
    return all(isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


_POLICY_RULES = {
    "max_connections": (_is_width, "an integer, at least 1, or None for no bound"),
    "progress_timeout": (_positive, "a number of seconds above 0"),
    "retry_delay_base": (_positive, "a number of seconds above 0"),
    "retry_delay_max": (_positive, "a number of seconds above 0"),
    "jitter_factor": (_is_share, "a number from 0 to 1"),
    "enable_retry_logic": (_is_flag, "True or False"),
    "enable_stuck_detection": (_is_flag, "True or False"),
    "retryable_exceptions": (_are_exceptions, "a tuple of exception classes"),
}


@attrs.frozen(kw_only=True)
class RetryConfig:
    """When a sample that failed as a whole is drawn anew. Names and values: tinker 0.38.0 lib/retry_handler.py.

    A user error is never tried again, whatever `retryable_exceptions` says.

    Attributes:
        max_connections: samples of one client in flight at once; None sets no bound.
        progress_timeout: seconds without any sample done, after which the client counts as stuck.
        retry_delay_base: seconds before the first retry; each further one waits twice as long.
        retry_delay_max: seconds that no wait exceeds.
        jitter_factor: how much of a wait is left to chance, up and down.
        enable_retry_logic: try again at all.
        enable_stuck_detection: look at `progress_timeout`.
        retryable_exceptions: what is tried again beside what `is_retryable` names.

    Raises:
        ConfigError: a value of another type, or out of its range.
    """

    max_connections: int | None = 1000
    progress_timeout: float = 7200.0
    retry_delay_base: float = 0.5
    retry_delay_max: float = 10.0
    jitter_factor: float = 0.25
    enable_retry_logic: bool = True
    enable_stuck_detection: bool = True
    retryable_exceptions: tuple[type[Exception], ...] = (
        TimeoutError,
        APIConnectionError,
        RetryableException,
    )

    def __attrs_post_init__(self) -> None:
        for name, (good, why) in _POLICY_RULES.items():
            value = getattr(self, name)
            if not good(value):
                raise ConfigError(f"{name} = {value!r}: must be {why}")
        if self.retry_delay_base > self.retry_delay_max:
            raise ConfigError(
                f"retry_delay_base = {self.retry_delay_base!r}: must not be above retry_delay_max = "
                f"{self.retry_delay_max!r}"
            )

    def retries(self, error: BaseException) -> bool:
        """Whether this policy tries again after the error."""
        if not self.enable_retry_logic or is_user_error(error):
            return False
        if isinstance(error, APIConnectionError) and not error.retryable:
            return False  # somebody's patience has ended
        return is_retryable(error) or isinstance(error, self.retryable_exceptions)

    @property
    def patience(self) -> float:
        """Seconds without progress after which samples are given up; infinity: never."""
        return self.progress_timeout if self.enable_stuck_detection else math.inf

    def delay(self, attempt: int, chance: float) -> float:
        """Return the seconds before retry `attempt` (from 0), for a chance in [0, 1)."""
        full = self.retry_delay_base * 2.0 ** min(attempt, _MAX_DOUBLINGS)
        return min(full * (1 + self.jitter_factor * (2 * chance - 1)), self.retry_delay_max)
