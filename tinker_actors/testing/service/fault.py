"""What is to go wrong with a scripted service, and when: plain facts, and the schedule that keeps to them.

Theory of operation. A `ServiceFaults` is data. The schedule counts requests by endpoint; whether a fault is due is
decided by these counts, the time and a generator that is made anew for each request from the seed, the endpoint and
its count. So a fault of the third `forward_backward` is the same one whatever else is under way, and the same seed
with the same requests gives the same faults.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterator, Mapping
from typing import Final, Literal, TypeAlias, TypedDict, Unpack, get_args

import attrs

from tinker_actors.errors import InputError

from .dialect import FailureForm, LostForm
from .law import AT_ONCE, Fixed, Law
from .route import ENDPOINT_NAMES, MODEL_ENDPOINTS, PROMISING, SESSION_ENDPOINTS

__all__ = [
    "Capacity",
    "FaultKind",
    "InjectedFault",
    "Pause",
    "RateLimit",
    "RetryAfterForm",
    "Schedule",
    "ServiceFault",
    "ServiceFaults",
    "When",
]

FaultKind: TypeAlias = Literal[
    "delay",
    "refuse",
    "drop",
    "stall",
    "duplicate",
    "evict",
    "fail",
    "garbage",
    "lose_model",
    "lose_session",
    "rollback",
]
RetryAfterForm: TypeAlias = Literal["seconds", "ms", "date"]

_FORMS: Final[Mapping[FaultKind, tuple[str, ...]]] = {
    "delay": ("request", "answer"),
    "refuse": ("before", "after"),
    "drop": ("connect", "request", "answer", "body", "reset"),
    "stall": ("request", "answer", "body"),
    "duplicate": ("request", "answer"),
    "evict": get_args(LostForm),
    "fail": get_args(FailureForm),
    "garbage": ("not_json", "html", "truncated", "wrong_type", "wrong_shape", "empty"),
    "lose_model": ("400", "404", "410"),
    "lose_session": ("410", "404", "500", "silent"),
    "rollback": ("",),
}
_SCOPES: Final[Mapping[FaultKind, frozenset[str]]] = {
    "evict": PROMISING,
    "fail": PROMISING,
    "lose_model": MODEL_ENDPOINTS,
    "lose_session": SESSION_ENDPOINTS,
    "rollback": MODEL_ENDPOINTS,
}


class When(TypedDict, total=False):
    """Which requests a fault strikes; see `ServiceFault`."""

    of: str | Collection[str]
    nth: int | None
    rate: float
    start: float
    end: float


@attrs.frozen(kw_only=True)
class ServiceFault:
    """One thing that is to go wrong.

    Attributes:
        what: its kind; `ServiceFaults` has a method for each.
        form: in which of its forms.
        of: the endpoints whose requests count and are struck; all that it makes sense for if there are none.
        nth: which of these requests within its time, counted from 1; None for each.
        rate: probability that one is struck, 0 to 1.
        start: seconds after the service's begin before which nothing is struck.
        end: seconds after which nothing is.
        law: how long a delay takes.
        status: of a refusal, or of a failure in the form "status".
        retry_after: seconds a refusal asks to wait.
        retry_after_form: in which header and form it asks.
        headers: of a refusal.
        text: of a refusal or failure.
        category: of a failure.

    Raises:
        InputError: an unknown kind, form or endpoint, or a number out of its bounds.
    """

    what: FaultKind
    form: str = ""
    of: frozenset[str] = frozenset()
    nth: int | None = 1
    rate: float = 1.0
    start: float = 0.0
    end: float = math.inf
    law: Law = AT_ONCE
    status: int = 0
    retry_after: float | None = None
    retry_after_form: RetryAfterForm = "seconds"
    headers: tuple[tuple[str, str], ...] = ()
    text: str = ""
    category: str = "server"

    def __attrs_post_init__(self) -> None:
        forms = _FORMS.get(self.what)
        if forms is None:
            raise InputError("what", self.what, f"must be one of {', '.join(_FORMS)}")
        if self.form not in forms:
            raise InputError("form", self.form, f"of {self.what} must be one of {', '.join(forms)}")
        scope = _SCOPES.get(self.what, ENDPOINT_NAMES)
        if not self.of <= scope:
            raise InputError("of", sorted(self.of - scope), f"{self.what} must be of some of {sorted(scope)}")
        if self.nth is not None and self.nth < 1:
            raise InputError("nth", self.nth, "must be 1 or more, or None for each")
        if not 0 <= self.rate <= 1:
            raise InputError("rate", self.rate, "must be between 0 and 1")
        if not 0 <= self.start <= self.end:
            raise InputError("start", self.start, f"must be between 0 and end = {self.end}")
        if self.what == "refuse" and not 300 <= self.status <= 599:
            raise InputError("status", self.status, "must be between 300 and 599")
        if self.retry_after_form not in get_args(RetryAfterForm):
            raise InputError("retry_after_form", self.retry_after_form, "must be 'seconds', 'ms' or 'date'")

    def counts(self, endpoint: str, now: float) -> bool:
        """Whether a request is one of those it may strike."""
        scope = self.of or _SCOPES.get(self.what)
        return self.start <= now < self.end and (scope is None or endpoint in scope)


@attrs.frozen(kw_only=True)
class RateLimit:
    """A bucket of tokens; each request takes one, and with none left it is refused with 429.

    Attributes:
        per_second: tokens that come back.
        burst: tokens there can be.
        of: the endpoints that draw on it.
        retry_after_form: the form of the time until the next token; None does not say it.

    Raises:
        InputError: a number that is not above 0, or an unknown endpoint.
    """

    per_second: float
    burst: int = 1
    of: frozenset[str] = frozenset({"asample"})
    retry_after_form: RetryAfterForm | None = "seconds"

    def __attrs_post_init__(self) -> None:
        if not self.per_second > 0:
            raise InputError("per_second", self.per_second, "must be above 0")
        if self.burst < 1:
            raise InputError("burst", self.burst, "must be 1 or more")
        if not self.of <= ENDPOINT_NAMES:
            raise InputError("of", sorted(self.of - ENDPOINT_NAMES), "must be endpoints")


@attrs.frozen(kw_only=True)
class Pause:
    """A time in which no work is done: polls say why, and results come after it.

    Attributes:
        start: seconds after the service's begin.
        end: seconds after it.
        queue_state: what polls are told meanwhile.
        reason: why, for users.

    Raises:
        InputError: an end before the start.
    """

    start: float
    end: float
    queue_state: Literal["paused_capacity", "paused_rate_limit"] = "paused_capacity"
    reason: str | None = None

    def __attrs_post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise InputError("start", self.start, f"must be between 0 and end = {self.end}")


@attrs.frozen(kw_only=True)
class Capacity:
    """So many samples may be at the service at once; one more is refused with 429.

    Attributes:
        samples: how many.
        start: seconds after the service's begin from which on it holds; until the next one's start.
        retry_after: seconds a refusal asks to wait; None does not say it.

    Raises:
        InputError: a number out of its bounds.
    """

    samples: int
    start: float = 0.0
    retry_after: float | None = 1.0

    def __attrs_post_init__(self) -> None:
        if self.samples < 0:
            raise InputError("samples", self.samples, "must not be negative")
        if self.start < 0:
            raise InputError("start", self.start, "must not be negative")


@attrs.frozen(kw_only=True)
class ServiceFaults:
    """What is to go wrong with a service. Its methods return a new plan with one thing more, so they can be chained.

        faults = (
            ServiceFaults(latency=SlowTail(Lognormal(0.05), rate=0.01))
            .refuse(429, of="asample", start=10, end=40, retry_after=5)
            .lose_model(of="forward_backward", nth=3)
            .drop("answer", rate=0.01)
        )

    A fault strikes the first request it may strike; with a `rate`, a `start` or an `end`, each one. `nth` says which,
    or with None each; `of` names endpoints.

    Attributes:
        latency: of every answer.
        work: of everything that is answered with a promise; the work of one model is done one after the other.
        limits: buckets that requests draw on.
        pauses: times in which no work is done.
        capacities: how many samples there may be at once, in the order of their starts.
        planned: the faults.
    """

    latency: Law = AT_ONCE
    work: Law = AT_ONCE
    limits: tuple[RateLimit, ...] = ()
    pauses: tuple[Pause, ...] = ()
    capacities: tuple[Capacity, ...] = ()
    planned: tuple[ServiceFault, ...] = ()

    def delay(
        self, law: Law | float, form: Literal["request", "answer"] = "answer", **when: Unpack[When]
    ) -> ServiceFaults:
        """Deliver a request later (and so perhaps after others), or its answer."""
        seconds = law if not isinstance(law, int | float) else Fixed(float(law))
        return self._and("delay", form, when, law=seconds)

    def refuse(
        self,
        status: int,
        form: Literal["before", "after"] = "before",
        *,
        retry_after: float | None = None,
        retry_after_form: RetryAfterForm = "seconds",
        headers: Collection[tuple[str, str]] = (),
        text: str = "",
        **when: Unpack[When],
    ) -> ServiceFaults:
        """Answer with an error status, before the request is carried out, or after it was."""
        return self._and(
            "refuse",
            form,
            when,
            status=status,
            retry_after=retry_after,
            retry_after_form=retry_after_form,
            headers=tuple(headers),
            text=text,
        )

    def drop(
        self,
        form: Literal["connect", "request", "answer", "body", "reset"] = "answer",
        **when: Unpack[When],
    ) -> ServiceFaults:
        """Drop the connection.

        `connect`: it is refused (on loopback, closed), and nothing is carried out. `request`: it is closed when the
        request was read, and nothing is carried out. The others strike when it *was* carried out: before the answer,
        in the middle of its body, or there with a reset.
        """
        return self._and("drop", form, when)

    def stall(
        self, form: Literal["request", "answer", "body"] = "body", **when: Unpack[When]
    ) -> ServiceFaults:
        """Never answer (`request`: nothing is carried out; `answer`: it is), or stop halfway in the body."""
        return self._and("stall", form, when)

    def duplicate(
        self, form: Literal["request", "answer"] = "request", **when: Unpack[When]
    ) -> ServiceFaults:
        """Carry a request out twice, as a proxy that sends it again makes it, or send the answer twice.

        A second copy of an answer can only be seen on loopback, where it lies on the connection.
        """
        return self._and("duplicate", form, when)

    def evict(self, form: LostForm = "404", **when: Unpack[When]) -> ServiceFaults:
        """Do the work and lose the result: polls for it are told this for ever."""
        return self._and("evict", form, when)

    def fail(
        self,
        form: FailureForm = "error",
        *,
        status: int = 422,
        text: str = "the request failed, as planned",
        category: str = "server",
        **when: Unpack[When],
    ) -> ServiceFaults:
        """Let the work fail; the poll for it is told so in one of five forms."""
        return self._and("fail", form, when, status=status, text=text, category=category)

    def garbage(
        self,
        form: Literal["not_json", "html", "truncated", "wrong_type", "wrong_shape", "empty"] = "not_json",
        **when: Unpack[When],
    ) -> ServiceFaults:
        """Carry the request out, and answer 200 with something that is not the answer."""
        return self._and("garbage", form, when)

    def lose_model(self, form: Literal["400", "404", "410"] = "400", **when: Unpack[When]) -> ServiceFaults:
        """Lose the model that the request names, before it is carried out."""
        return self._and("lose_model", form, when)

    def lose_session(
        self, form: Literal["410", "404", "500", "silent"] = "410", **when: Unpack[When]
    ) -> ServiceFaults:
        """Lose the session that the request belongs to, and its models; the form is what heartbeats are told."""
        return self._and("lose_session", form, when)

    def rollback(self, **when: Unpack[When]) -> ServiceFaults:
        """Set the model back to its latest checkpoint, under the same id and without a word."""
        return self._and("rollback", "", when)

    def _and(self, what: FaultKind, form: str, when: When, **settings: object) -> ServiceFaults:
        of = when.get("of", ())
        names = frozenset({of} if isinstance(of, str) else of)
        each = not {"rate", "start", "end"}.isdisjoint(when)
        chosen: dict[str, object] = {"nth": None if each else 1, **when, "of": names, **settings}
        # The names are those of the methods above; `ServiceFault` checks the values.
        fault = ServiceFault(what=what, form=form, **chosen)  # type: ignore[arg-type]
        return attrs.evolve(self, planned=(*self.planned, fault))


@attrs.frozen
class InjectedFault:
    """A fault that has struck.

    Attributes:
        fault: which; a `RateLimit` or a `Capacity` that refused counts as well.
        request: the number of the request.
        endpoint: its endpoint.
        at: when, in seconds since the service began.
    """

    fault: ServiceFault | RateLimit | Capacity
    request: int
    endpoint: str
    at: float


@attrs.define
class _Bucket:
    limit: RateLimit
    tokens: float
    at: float = 0.0

    def wait(self, now: float) -> float:
        """Take a token and return 0, or return the seconds until there is one."""
        self.tokens = min(self.limit.burst, self.tokens + (now - self.at) * self.limit.per_second)
        self.at = now
        if self.tokens >= 1:
            self.tokens -= 1
            return 0.0
        return (1 - self.tokens) / self.limit.per_second


class Schedule:
    """Says what strikes each request; one for each run of a service."""

    def __init__(self, faults: ServiceFaults, seed: int) -> None:
        self._faults = faults
        self._seed = seed
        self._counts = [0] * len(faults.planned)
        self._arrived: dict[str, int] = {}
        self._buckets = [_Bucket(limit, float(limit.burst)) for limit in faults.limits]

    def arrive(self, endpoint: str, now: float) -> tuple[random.Random, list[ServiceFault]]:
        """Count a request; return chance of its own and the faults that strike it, in the order of the plan."""
        count = self._arrived[endpoint] = self._arrived.get(endpoint, 0) + 1
        rng = random.Random(f"{self._seed}:{endpoint}:{count}")
        return rng, list(self._due(endpoint, now, rng))

    def _due(self, endpoint: str, now: float, rng: random.Random) -> Iterator[ServiceFault]:
        for index, fault in enumerate(self._faults.planned):
            struck = (
                fault.rate >= 1 or rng.random() < fault.rate
            )  # drawn of each request, so none shifts another's
            if not fault.counts(endpoint, now):
                continue
            self._counts[index] += 1
            if struck and fault.nth in (None, self._counts[index]):
                yield fault

    def full(self, endpoint: str, samples: int, now: float) -> Capacity | None:
        """Return the capacity that one more request would exceed."""
        if endpoint != "asample":
            return None
        begun = [capacity for capacity in self._faults.capacities if capacity.start <= now]
        return begun[-1] if begun and samples >= begun[-1].samples else None

    def limited(self, endpoint: str, now: float) -> tuple[RateLimit, float] | None:
        """Take a token from each bucket of an endpoint; return one that is empty and the seconds until it is not."""
        for bucket in self._buckets:
            if endpoint in bucket.limit.of:
                wait = bucket.wait(now)
                if wait > 0:
                    return bucket.limit, wait
        return None
