"""Whether a call is sent again, when, and what a failed call means. The one retry rule of the package. Pure.

A send is *doubtful* when its first byte was written and no complete answer was read, or the answer was 408 or
5xx: the service may have carried it out. No connection, 429 and `x-should-retry: true` are not doubtful; a 400
without a body counts as the last of these, for it comes from something before the service. What follows depends on
the endpoint's `on_doubt` and on what the service does with a number it has seen (`dedupe`):

    what happened                                  on_doubt   dedupe   then
    `x-should-retry: false`                        any        any      stop
    no connection, 429, `x-should-retry: true`     any        any      again, within the budget
    402                                            any        any      again after a pause that costs no budget,
                                                                       until the window is over
    doubtful                                       resend     any      again, within the budget
    doubtful                                       create     any      again; the first may be left as an orphan
    doubtful                                       named      any      again, under the same name
    doubtful                                       numbered   replay   again, the same bytes and number
    doubtful                                       numbered   reject   again; see the next two rows
    409, and an earlier send was doubtful          numbered   reject   "expected m, got n" with m > n, "reused":
                                                                       applied, and the result is lost
    409, and an earlier send was doubtful          named      any      look whether it is there by now
    doubtful                                       numbered   none     stop
    doubtful                                       give_up    any      stop
    other statuses, an answer that cannot be read  any        any      stop

A stop of a numbered call after a doubtful send is a *fence*: nobody knows what the model's state is, so the model is
made anew and never addressed again. An endpoint without a budget (`retries` = 0: samples, beats, polls, telemetry)
is never sent again here: a layer above it decides, and nothing is retried in two layers.

A driver keeps one `Sends` per call and asks after each failure:

    sends, rule = Sends(), Rule(endpoint.retries, endpoint.on_doubt, dedupe)
    while True:
        try:
            return await exchange(...)
        except APIError as error:
            pause = billing.refused(now) if is_billing(error) else None
            verdict = sends.failed(failure_of(error), rule, pause=pause, chance=rng.random())
            error.attempts = sends.attempts
            if isinstance(verdict, Applied):
                raise ResultLost(...) from error
            if not isinstance(verdict, Again):
                raise            # `sends.verdict` tells the caller whether to look, or to fence
        await sleep(verdict.delay)

A caller that has to know whether a send was doubtful (a promise may be refused later for the same reason) makes the
`Sends` itself, passes it in, and asks `result_failed` about the failure of the promise.
"""

from __future__ import annotations

import email.utils
import math
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Literal, TypeAlias

import attrs

from tinker_actors.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    ConflictError,
    RequestFailedError,
)
from tinker_actors.wire.endpoint import OnDoubt

__all__ = [
    "Again",
    "Applied",
    "BillingPause",
    "DedupeMode",
    "Failure",
    "Look",
    "Rule",
    "Sends",
    "Stop",
    "Verdict",
    "backoff_delay",
    "decide",
    "decide_conflict",
    "failure_of",
    "parse_retry_after",
    "says_early",
    "says_used",
]

DedupeMode = Literal["replay", "reject", "none"]
"""What a service does with a number it has seen: answer with the first result, refuse, or run it again."""

# tinker 0.38.0 _base_client.py:651-746
_BASE_DELAY = 0.5
_MAX_DELAY = 10.0
_JITTER = 0.25
_MAX_RETRY_AFTER = 60.0  # a service that asks for more is taken to mean something else
_MAX_DOUBLINGS = 64  # far above every cap, far below what a float holds
_LONGEST_HEADER = 64  # a number or a date is shorter

_BILLING = 402
_CONFLICT = 409

# TuFT 0.2.2 and SkyRL (head of 2026-11): how they refuse a number that has been used
_EXPECTED = re.compile(r"expected (\d{1,18}), got (\d{1,18})", re.IGNORECASE)
_REUSED = "sequence number was reused"


@attrs.frozen(kw_only=True)
class Failure:
    """One attempt that did not succeed.

    Attributes:
        sent: a byte was written.
        status: the answer's status; None if no complete answer was read.
        retry_after: seconds the service asked to wait.
        should_retry: what the header `x-should-retry` said, if it was there.
        text: what the answer says; read of a 409 only.
    """

    sent: bool
    status: int | None = None
    retry_after: float | None = None
    should_retry: bool | None = None
    text: str = attrs.field(default="", repr=False)

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
class Rule:
    """What holds for one call.

    Attributes:
        retries: further attempts it may have; 0 leaves everything to the layer above.
        on_doubt: what may be done after a doubtful send.
        dedupe: what the service does with a repeated number.
    """

    retries: int
    on_doubt: OnDoubt
    dedupe: DedupeMode


@attrs.frozen
class Again:
    """Send the same bytes again after `delay` seconds.

    Attributes:
        delay: seconds.
        counts: it takes one from the budget.
        orphan: what the doubtful send made, if it made something, is left behind.
    """

    delay: float
    counts: bool = True
    orphan: bool = False


@attrs.frozen
class Applied:
    """An earlier send was carried out, and its result is lost."""


@attrs.frozen
class Look:
    """An earlier send may have made what has this name: ask whether it is there."""


@attrs.frozen
class Stop:
    """Raise the failure.

    Attributes:
        fence: it is not known whether the model was changed; it must not be addressed again.
    """

    fence: bool = False


Verdict: TypeAlias = Again | Applied | Look | Stop


def decide(
    failure: Failure, rule: Rule, *, spent: int, in_doubt: bool, pause: float | None, chance: float
) -> Verdict:
    """Decide about one failed attempt; the table stands at the head of the module.

    Args:
        failure: what happened.
        rule: what holds for the call.
        spent: how much of the budget is used up.
        in_doubt: this send or an earlier one of the same call was doubtful.
        pause: seconds to wait after a 402; None if the window is over.
        chance: a number in [0, 1) for the jitter.
    """
    stop = Stop(fence=in_doubt and rule.on_doubt == "numbered")
    if failure.should_retry is False or rule.retries == 0:
        return stop
    if failure.status == _BILLING and pause is not None:
        return Again(pause, counts=False)
    if failure.status == _CONFLICT and in_doubt and not failure.refused:
        return decide_conflict(failure.text, rule)
    if spent < rule.retries and (failure.refused or (failure.doubtful and _may_resend(rule))):
        delay = backoff_delay(spent, failure.retry_after, chance)
        return Again(delay, orphan=failure.doubtful and rule.on_doubt == "create")
    return stop


def _may_resend(rule: Rule) -> bool:
    if rule.on_doubt == "numbered":
        return rule.dedupe != "none"
    return rule.on_doubt != "give_up"


def decide_conflict(text: str, rule: Rule) -> Applied | Look | Stop:
    """Say what a 409 means that follows a doubtful send of the same bytes.

    Args:
        text: what the service says.
        rule: what holds for the call.
    """
    if rule.on_doubt == "named":
        return Look()
    if rule.on_doubt == "numbered" and rule.dedupe == "reject" and says_used(text):
        return Applied()
    return Stop(fence=rule.on_doubt == "numbered")


def says_used(text: str) -> bool:
    """Whether a conflict says that the number was used, and not that it comes too early."""
    numbers = _EXPECTED.search(text)
    if numbers is not None:
        return int(numbers[1]) > int(numbers[2])
    return _REUSED in text.lower()


def says_early(text: str) -> bool:
    """Whether a conflict says that the number comes too early: one before it was not used, for its request failed."""
    numbers = _EXPECTED.search(text)
    return numbers is not None and int(numbers[1]) < int(numbers[2])


@attrs.define(eq=False)
class Sends:
    """What has become of the sends of one call.

    Attributes:
        attempts: how many failed.
        spent: how much of the budget is used up.
        doubtful: one of them may have been carried out.
        orphan: one of them may have made something that nobody knows.
        verdict: the latest decision; None if nothing has failed.
        rule: what held for it.
        gate: is waited for before each further attempt; what it raises ends the call.
    """

    attempts: int = 0
    spent: int = 0
    doubtful: bool = False
    orphan: bool = False
    verdict: Verdict | None = None
    rule: Rule | None = None
    gate: Callable[[], Awaitable[None]] | None = None

    def failed(self, failure: Failure, rule: Rule, *, pause: float | None = None, chance: float) -> Verdict:
        """Take a failed attempt into account and decide; see `decide`."""
        self.attempts += 1
        self.rule = rule
        self.doubtful = self.doubtful or failure.doubtful
        verdict = decide(failure, rule, spent=self.spent, in_doubt=self.doubtful, pause=pause, chance=chance)
        if isinstance(verdict, Again):
            self.spent += verdict.counts
            self.orphan = self.orphan or verdict.orphan
        self.verdict = verdict
        return verdict

    def result_failed(self, error: BaseException) -> Applied | Look | Stop:
        """Say what it means that the promise of this call was not kept.

        Some services take every send and refuse a repeated number by its promise.
        """
        verdict: Applied | Look | Stop = Stop()
        if (
            self.rule is not None
            and self.doubtful
            and (
                isinstance(error, ConflictError)
                or (isinstance(error, RequestFailedError) and says_used(str(error)))
            )
        ):
            verdict = decide_conflict(str(error), self.rule)
        self.verdict = verdict
        return verdict

    @property
    def is_fence(self) -> bool:
        """Whether the latest decision is that the model must not be addressed again."""
        return isinstance(self.verdict, Stop) and self.verdict.fence

    @property
    def number_in_doubt(self) -> bool:
        """Whether it is not known if the number this call went out with is used up, and that matters."""
        if self.rule is None or not self.doubtful:
            return False
        return self.rule.on_doubt == "numbered" or self.rule.dedupe != "none"


def failure_of(error: APIError) -> Failure:
    """Return what an error says about its attempt."""
    if isinstance(error, APIConnectionError):
        return Failure(sent=error.doubtful)
    if isinstance(error, APIStatusError):
        return Failure(
            sent=True,
            status=error.status_code,
            retry_after=error.retry_after,
            should_retry=error.should_retry,
            text=str(error),
        )
    return Failure(sent=True, status=200)  # an answer that cannot be read is final


def backoff_delay(attempt: int, retry_after: float | None, chance: float) -> float:
    """Return the seconds before the next attempt, never more than 60.

    What the service asked for, if that is above 0 and at most 60; else half a second, doubled with every attempt
    up to 10, less up to a quarter of it.
    """
    if retry_after is not None and 0 < retry_after <= _MAX_RETRY_AFTER:
        return retry_after
    return float(min(_BASE_DELAY * 2 ** min(attempt, _MAX_DOUBLINGS), _MAX_DELAY) * (1 - _JITTER * chance))


def parse_retry_after(milliseconds: str | None, seconds: str | None, now: datetime | None) -> float | None:
    """Read the headers `retry-after-ms` and `retry-after`, in this order.

    Args:
        milliseconds: the first; a number.
        seconds: the second; a number of seconds, or a date.
        now: the wall clock, with a time zone; None leaves dates unread.

    Returns:
        Seconds, not negative and finite; None if neither says so. `backoff_delay` decides whether they count.
    """
    for text, scale in ((milliseconds, 1000.0), (seconds, 1.0)):
        if text is None or len(text) > _LONGEST_HEADER:
            continue
        try:
            value = float(text) / scale
        except ValueError:
            value = math.nan if scale != 1 or now is None else _seconds_until(text, now)
        if value >= 0 and math.isfinite(value):
            return value
    return None


def _seconds_until(text: str, now: datetime) -> float:
    try:
        then = email.utils.parsedate_to_datetime(text)
        if then.tzinfo is None:  # "-0000": universal time, and nothing known of the place
            then = then.replace(tzinfo=UTC)
        return (then - now).total_seconds()
    except (
        ValueError,
        TypeError,
        OverflowError,
        IndexError,
    ):  # what the parser raises about dates that are none
        return math.nan


@attrs.define(eq=False)
class BillingPause:
    """How long 402 is waited out: one for all calls of a service.

    A 402 means that the account cannot be charged just now. The work pauses instead of failing, until the
    *incident* has lasted for the whole window. It ends when there was no 402 for a while.

    Attributes:
        window: seconds an incident may last; what the service says wins (`billing_exception_max_pause_duration_sec`).
    """

    # tinker 0.38.0 lib/internal_client_holder.py
    PERIOD = 5.0
    """Seconds between two attempts."""
    RESET = 300.0
    """Seconds without a 402 after which the next one is a new incident."""
    WARNING_PERIOD = 60.0
    """Seconds between two warnings."""

    window: float = 3600.0
    _since: float = -math.inf
    _latest: float = -math.inf
    _warned: float = -math.inf

    def refused(self, now: float) -> float | None:
        """Take a 402 into account; return the seconds to pause, or None: the window is over, raise."""
        if now - self._latest > self.RESET:
            self._since = now
        self._latest = now
        return self.PERIOD if now - self._since < self.window else None

    def should_warn(self, now: float) -> bool:
        """Whether a warning is due; true at most once a minute."""
        if now - self._warned < self.WARNING_PERIOD:
            return False
        self._warned = now
        return True
