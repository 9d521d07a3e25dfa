"""The one place where requests are built, whichever way they take.

What does not change from send to send is made once for each row of the table and kept: where it goes, and all headers
but the key of the call, the number of the attempt, and the length of the body.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import attrs

from tinker_actors.protocol.capability import CapabilityRecord
from tinker_actors.protocol.query import merge, stringify
from tinker_actors.transport.body import Body, knows_zstd
from tinker_actors.transport.config import Config
from tinker_actors.transport.head import begin_head
from tinker_actors.transport.headers import (
    HeaderPlan,
    RawHeaders,
    default_headers,
    merge_headers,
    platform_headers,
)
from tinker_actors.transport.options import RequestOptions, given
from tinker_actors.transport.request import WireRequest
from tinker_actors.transport.url import Place, Places
from tinker_actors.wire.endpoint import Endpoint
from tinker_actors.wire.payload import JSON

__all__ = ["AnyEndpoint", "Builder", "Job"]

AnyEndpoint: TypeAlias = Endpoint[Any, Any]
"""An endpoint, whatever it takes and gives."""

_DEFAULTS: Final = {field.name: field.default for field in attrs.fields(Endpoint)}
_KEPT_PLANS = 16  # of one row; more means that something in them changes with every call
# Headers that belong to a call. Names and values: tinker 0.38.0 lib/public_interfaces/sampling_client.py.
_OF_CALLS: Mapping[str, Mapping[str, str]] = {"asample": {"x-tinker-sampling-backpressure": "1"}}


def accepted_encodings() -> str:
    """Return the compressions that we can undo."""
    return "gzip, deflate, zstd" if knows_zstd() else "gzip, deflate"


@attrs.define(eq=False)
class Job:
    """One logical call, through all its attempts.

    Attributes:
        endpoint: which one.
        request: the value its body is made of.
        path: what fills the parts of its path.
        query: what the caller put behind the path.
        options: what the call says differently, as the caller gave it.
        key: the idempotency key that all attempts carry; None for none.
        accept: the forms of answers that are understood; None for the usual one.
        extra: headers that belong to this call alone.
        url: a place that the caller named, in place of the endpoint's path.
        live: the answer's body is left to be read.
        trying: what is assumed of the service for one send, in place of what is known.
        body: the body as it was made last, and of what.
        sent: the request that went out last.
        no_token: the exchange of the key, which has retries of its own, brought none: the call is not tried again.
    """

    endpoint: AnyEndpoint
    request: object
    path: Mapping[str, str] | None
    query: Mapping[str, object] | None
    options: RequestOptions
    key: bytes | None = None
    accept: str | None = None
    extra: RawHeaders = attrs.field(factory=list)
    url: str | None = None
    live: bool = False
    trying: CapabilityRecord | None = None
    body: tuple[object, Body] | None = None
    sent: WireRequest | None = None
    no_token: bool = False


@attrs.define(eq=False)
class _Row:
    """What is kept of an endpoint. It is found by identity: comparing all of an endpoint takes longer."""

    endpoint: AnyEndpoint
    place: Place | None
    plans: dict[tuple[object, ...], HeaderPlan] = attrs.field(factory=dict)
    heads: dict[HeaderPlan, bytes] = attrs.field(factory=dict)

    def keep(self, kind: tuple[object, ...], plan: HeaderPlan) -> None:
        """Keep a plan for the next request of its kind."""
        if len(self.plans) >= _KEPT_PLANS:
            self.plans.clear()
            self.heads.clear()
        self.plans[kind] = plan

    def begun(self, plan: HeaderPlan, method: str) -> bytes | None:
        """Return the begin of the heads of a kept plan, if all of them go to one place."""
        if self.place is None:
            return None
        head = self.heads.get(plan)
        if head is None:
            head = begin_head(self.place.origin, method.encode("ascii"), self.place.target, plan.fixed)
            self.heads[plan] = head
        return head


class Builder:
    """Builds the requests to one service.

    Args:
        config: how the service is reached.

    Attributes:
        places: where they may go.
    """

    def __init__(self, config: Config) -> None:
        self.places = Places(config.base_url)
        self._config = config
        self._rows: dict[int, _Row] = {}
        self._base_layer = merge_headers(config.headers)

    def timeout(self, endpoint: AnyEndpoint, options: RequestOptions) -> float | None:
        """Return the seconds an exchange has: the call's, the endpoint's own, or the client's."""
        usual = self._config.timeout if endpoint.timeout == _DEFAULTS["timeout"] else endpoint.timeout
        return given(options.timeout, usual)

    def retries(self, endpoint: AnyEndpoint, options: RequestOptions) -> int:
        """Return the further attempts a call has, likewise."""
        usual = self._config.max_retries if endpoint.retries == _DEFAULTS["retries"] else endpoint.retries
        return given(options.max_retries, usual)

    def build(
        self,
        job: Job,
        options: RequestOptions,
        body: Body,
        credentials: Mapping[str, str],
        *,
        attempt: int,
        endpoint: AnyEndpoint,
    ) -> WireRequest:
        """Build the request of one attempt.

        Args:
            job: the call.
            options: its options, as hooks left them.
            body: what it carries.
            credentials: the headers that say who we are.
            attempt: 0 for the first.
            endpoint: whose path it takes; the job's, but where the form of the body decides.

        Raises:
            InputError: a part of the path, the query or the headers that cannot be sent.
        """
        row = self._row(endpoint) if job.url is None else _Row(endpoint, None)
        place = self._place(row, job, options)
        timeout = self.timeout(job.endpoint, options)
        kind = (credentials.get("x-api-key"), body.content_type, body.encoding, job.accept, timeout)
        kept = place.ours and not options.headers
        plan = row.plans.get(kind) if kept else None
        if plan is None:
            plan = self._plan(job, options, place, body, credentials, timeout)
            if kept:
                row.keep(kind, plan)
        method = endpoint.method
        length = len(body.content) if body.content or method in ("POST", "PUT", "PATCH") else None
        headers = plan.headers(job.key, attempt, length)
        if job.extra:
            headers += job.extra
        begun = row.begun(plan, method) if kept and place is row.place else None
        return WireRequest(method, place, headers, body.content, timeout, begun, len(plan.fixed))

    def _row(self, endpoint: AnyEndpoint) -> _Row:
        row = self._rows.get(id(endpoint))
        if row is None:
            fixed = not endpoint.places and not self._config.query and endpoint.path
            row = _Row(endpoint, self.places.below(endpoint.path) if fixed else None)
            self._rows[id(endpoint)] = row  # the row holds the endpoint, so nothing else gets its identity
        return row

    def _place(self, row: _Row, job: Job, options: RequestOptions) -> Place:
        if row.place is not None and not job.query and not options.query:
            return row.place if not job.path else self.places.below(row.endpoint.target(job.path))
        query = stringify(merge(self._config.query, job.query or {}, options.query))
        if job.url is not None:
            return self.places.find(job.url, query)
        return self.places.below(row.endpoint.target(job.path), query)

    def _plan(
        self,
        job: Job,
        options: RequestOptions,
        place: Place,
        body: Body,
        credentials: Mapping[str, str],
        timeout: float | None,
    ) -> HeaderPlan:
        defaults = default_headers(job.accept or JSON, accepted_encodings())
        described = {"content-type": body.content_type, "content-encoding": body.encoding}
        defaults |= {name: value for name, value in described.items() if value is not None}
        if not place.ours:  # somebody else learns nothing of us but what this one call says
            return HeaderPlan.of(
                place.host, merge_headers(defaults, options.headers), keyed=False, counted=False
            )
        layers = merge_headers(
            defaults,
            platform_headers(),
            {} if timeout is None else {"x-stainless-read-timeout": f"{timeout:g}"},
            _OF_CALLS.get(job.endpoint.name, {}),
            credentials,
            self._base_layer,
            options.headers,
        )
        return HeaderPlan.of(place.host, layers, keyed=job.endpoint.method != "GET", counted=True)
