"""`AsyncTinker`: the calls of the API by name, and those that have none.

Theory of operation. A client is a thin thing over an `HttpTransport`: its resources are made when they are asked for,
and a copy with other settings has the same connections. Calls that stand in the table of endpoints keep their row's
lane, time and rule for doubtful sends, also when they are made by method and path.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Mapping
from functools import cached_property
from typing import Any, TypeVar, cast

import attrs

from tinker_actors.errors import ConfigError, InputError
from tinker_actors.protocol.credential import check_api_key
from tinker_actors.protocol.pagination import PageInfo
from tinker_actors.protocol.query import merge
from tinker_actors.transport.body import Files, form
from tinker_actors.transport.build import AnyEndpoint, Job
from tinker_actors.transport.config import Config, check_base_url
from tinker_actors.transport.exchange import HttpTransport
from tinker_actors.transport.headers import without_secrets
from tinker_actors.transport.opening import open_transport
from tinker_actors.transport.options import (
    NOT_GIVEN,
    Given,
    NotGiven,
    RequestOptions,
    View,
    given,
    said,
)
from tinker_actors.transport.paging import AsyncPaginator, member
from tinker_actors.transport.resources.admin import AsyncAdminResource
from tinker_actors.transport.resources.checkpoints import AsyncCheckpointsResource
from tinker_actors.transport.resources.futures import AsyncFuturesResource
from tinker_actors.transport.resources.models import AsyncModelsResource
from tinker_actors.transport.resources.runs import AsyncRunsResource
from tinker_actors.transport.resources.samplers import AsyncSamplersResource
from tinker_actors.transport.resources.sampling import AsyncSamplingResource
from tinker_actors.transport.resources.service import AsyncServiceResource
from tinker_actors.transport.resources.sessions import AsyncSessionsResource
from tinker_actors.transport.resources.telemetry import AsyncTelemetryResource
from tinker_actors.transport.resources.training import AsyncTrainingResource
from tinker_actors.transport.resources.weights import AsyncWeightsResource
from tinker_actors.transport.view import StreamingView
from tinker_actors.transport.ways import Through
from tinker_actors.wire.endpoint import Endpoint, Lane, Method
from tinker_actors.wire.endpoints import ENDPOINTS
from tinker_actors.wire.service import Empty

__all__ = ["AsyncTinker"]

T = TypeVar("T")
RequestT = TypeVar("RequestT")
ReplyT = TypeVar("ReplyT")

_BY_PATH: Mapping[tuple[str, str], AnyEndpoint] = {(row.method, row.path): row for row in ENDPOINTS}


def _row(method: Method, path: str, reply: Any) -> AnyEndpoint:
    """Return the row of a call that is made by method and path."""
    plain = "/" + path.partition("?")[0].lstrip("/")
    row = _BY_PATH.get((method, plain))
    if row is None:
        return Endpoint(f"{method} {plain}", method, plain, object, reply, Lane.SESSION, redirects="anywhere")
    return attrs.evolve(row, request=object, reply=reply)


class AsyncTinker:
    """The HTTP client of one service.

    Args:
        transport: what makes the calls; `AsyncTinker.open` makes one.
        view: how answers are given.
    """

    def __init__(self, transport: HttpTransport, *, view: View = "parsed") -> None:
        self._transport = transport
        self._view: View = view

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls, config: Config, *, rng: random.Random | None = None, through: Through | None = None
    ) -> AsyncIterator[AsyncTinker]:
        """Open the connections to one service; leaving it closes them.

        Args:
            config: how the service is reached.
            rng: chance for jitter and idempotency keys.
            through: what carries the requests in place of the network, or one for each lane; it is not closed.
        """
        async with open_transport(config, rng=rng or random.Random(), through=through) as transport:
            yield cls(transport)

    def __repr__(self) -> str:
        return f"<AsyncTinker {self.base_url}>"

    @property
    def config(self) -> Config:
        """How the service is reached."""
        return self._transport.config

    @property
    def base_url(self) -> str:
        """Where it is, with a slash at its end."""
        return f"{self.config.base_url}/"

    # ------------------------------------------------------------------------------------------------- resources

    @cached_property
    def service(self) -> AsyncServiceResource:
        """What the service says of itself, and the sessions it keeps."""
        return AsyncServiceResource(self)

    @cached_property
    def models(self) -> AsyncModelsResource:
        """Models that are trained."""
        return AsyncModelsResource(self)

    @cached_property
    def training(self) -> AsyncTrainingResource:
        """Gradients and steps."""
        return AsyncTrainingResource(self)

    @cached_property
    def weights(self) -> AsyncWeightsResource:
        """Weights: saved, loaded, looked at, copied."""
        return AsyncWeightsResource(self)

    @cached_property
    def sampling(self) -> AsyncSamplingResource:
        """Samples."""
        return AsyncSamplingResource(self)

    @cached_property
    def futures(self) -> AsyncFuturesResource:
        """Promises."""
        return AsyncFuturesResource(self)

    @cached_property
    def telemetry(self) -> AsyncTelemetryResource:
        """Events about the client."""
        return AsyncTelemetryResource(self)

    @cached_property
    def runs(self) -> AsyncRunsResource:
        """Training runs."""
        return AsyncRunsResource(self)

    @cached_property
    def checkpoints(self) -> AsyncCheckpointsResource:
        """The checkpoints of a user."""
        return AsyncCheckpointsResource(self)

    @cached_property
    def sessions(self) -> AsyncSessionsResource:
        """Sessions, looked at from outside."""
        return AsyncSessionsResource(self)

    @cached_property
    def samplers(self) -> AsyncSamplersResource:
        """Samplers, looked at from outside."""
        return AsyncSamplersResource(self)

    @cached_property
    def admin(self) -> AsyncAdminResource:
        """What only administrators may see."""
        return AsyncAdminResource(self)

    # ----------------------------------------------------------------------------------------------------- views

    @property
    def with_raw_response(self) -> Any:  # the same methods, each returning an APIResponse of what it says
        """The same client, whose calls return whole answers (`APIResponse`)."""
        return AsyncTinker(self._transport, view="raw")

    @property
    def with_streaming_response(self) -> Any:  # the same methods, each to be used in `async with`
        """The same client, whose calls give answers with their bodies still to be read, in `async with`."""
        return StreamingView(AsyncTinker(self._transport, view="stream"))

    def copy(
        self,
        *,
        base_url: str | None = None,
        api_key: Given[str | None] = NOT_GIVEN,
        timeout: Given[float | None] = NOT_GIVEN,
        max_retries: int | None = None,
        strict: bool | None = None,
        headers: Mapping[str, str] | None = None,
        set_headers: Mapping[str, str] | None = None,
        query: Mapping[str, object] | None = None,
        set_query: Mapping[str, object] | None = None,
    ) -> AsyncTinker:
        """Return a client with other settings over the same connections; this one stays as it is.

        Args:
            base_url: another place. Headers that hold secrets, and a way to authenticate, are not taken along.
            api_key: another key; None sends none. Never taken along to another place by itself.
            timeout: seconds for a whole exchange; None is no limit.
            max_retries: further attempts of a call.
            strict: refuse answers with unknown fields.
            headers: merged over those of this client.
            set_headers: in place of those of this client.
            query: merged over that of this client.
            set_query: in place of that of this client.

        Raises:
            ConfigError: a value of another kind, or both of a pair.
            InputError: a key that does not look like one.
        """
        config = self.config
        if base_url is not None and check_base_url("base_url", base_url) != config.base_url:
            config = attrs.evolve(
                config, base_url=base_url, api_key=None, auth=None, headers=without_secrets(config.headers)
            )
        changes: dict[str, Any] = {  # by name: no type can say which belongs to which
            "headers": _laid_over("headers", config.headers, headers, set_headers),
            "query": _laid_over("query", config.query, query, set_query),
        }
        if not isinstance(api_key, NotGiven):
            changes["api_key"] = None if api_key is None else check_api_key("api_key", api_key)
        changes["timeout"] = given(timeout, config.timeout)
        changes |= {
            name: value
            for name, value in (("max_retries", max_retries), ("strict", strict))
            if value is not None
        }
        return AsyncTinker(self._transport.with_config(attrs.evolve(config, **changes)), view=self._view)

    with_options = copy

    # ----------------------------------------------------------------------------------------------------- calls

    async def call(
        self,
        endpoint: Endpoint[RequestT, ReplyT],
        request: RequestT,
        *,
        path: Mapping[str, str] | None = None,
        query: Mapping[str, object] | None = None,
        options: RequestOptions | None = None,
    ) -> ReplyT:
        """Call an endpoint; see `HttpTransport.call`."""
        return await self._transport.call(
            endpoint, request, path=path, query=query, options=self._options(options)
        )

    def _options(self, options: RequestOptions | None) -> RequestOptions:
        if self._view == "parsed":
            return said(options)
        return RequestOptions(view=self._view).over(said(options))

    async def get(
        self,
        path: str,
        *,
        cast_to: type[T],
        query: Mapping[str, object] | None = None,
        options: RequestOptions | None = None,
    ) -> T:
        """GET what is at a path; see `post`."""
        return await self._request("GET", path, cast_to, Empty(), query, options)

    async def post(
        self,
        path: str,
        *,
        cast_to: type[T],
        body: object = Empty(),
        files: Files | None = None,
        query: Mapping[str, object] | None = None,
        options: RequestOptions | None = None,
    ) -> T:
        """POST to a path; always a checkpoint.

        Args:
            path: below the base URL, or an absolute URL; our key goes to no other origin.
            cast_to: what to read the answer as.
            body: a wire object, a JSON value, or bytes; the fields of the form if there are files.
            files: sent as a form, whose boundary httpx draws.
            query: what follows the path.
            options: what this call says differently.

        Raises:
            APIError: as `HttpTransport.call`.
        """
        content = body if files is None else form(_fields(body), files)
        return await self._request("POST", path, cast_to, content, query, options)

    async def put(
        self,
        path: str,
        *,
        cast_to: type[T],
        body: object = Empty(),
        query: Mapping[str, object] | None = None,
        options: RequestOptions | None = None,
    ) -> T:
        """PUT to a path; see `post`."""
        return await self._request("PUT", path, cast_to, body, query, options)

    async def patch(
        self,
        path: str,
        *,
        cast_to: type[T],
        body: object = Empty(),
        query: Mapping[str, object] | None = None,
        options: RequestOptions | None = None,
    ) -> T:
        """PATCH what is at a path; see `post`."""
        return await self._request("PATCH", path, cast_to, body, query, options)

    async def delete(
        self,
        path: str,
        *,
        cast_to: type[T],
        body: object = Empty(),
        query: Mapping[str, object] | None = None,
        options: RequestOptions | None = None,
    ) -> T:
        """DELETE what is at a path; see `post`."""
        return await self._request("DELETE", path, cast_to, body, query, options)

    def get_api_list(
        self,
        path: str,
        *,
        items: str,
        cast_to: type[Any] = dict,
        limit: int = 20,
        offset: int = 0,
        query: Mapping[str, object] | None = None,
        options: RequestOptions | None = None,
    ) -> AsyncPaginator[Any]:
        """Return a list that is asked for page by page: await it for its first page, or go through its items.

        Args:
            path: as of `post`.
            items: where in the reply they are.
            cast_to: what to read each reply as.
            limit: items of a page, at most.
            offset: items to leave out.
            query: what else follows the path.
            options: what these calls say differently.

        Raises:
            InputError: a limit of nothing, or a negative offset.
        """

        async def fetch(page: PageInfo) -> Any:
            asked = merge(query or {}, {"limit": page.limit, "offset": page.offset})
            return await self.get(path, cast_to=cast_to, query=asked, options=options)

        return AsyncPaginator(fetch, member(items), PageInfo(limit=limit, offset=offset))

    async def _request(
        self,
        method: Method,
        path: str,
        cast_to: type[T],
        body: object,
        query: Mapping[str, object] | None,
        options: RequestOptions | None,
    ) -> T:
        endpoint = _row(method, path, cast_to)
        own = self._options(options)
        job = Job(endpoint, body, None, query, own, self._transport.key(endpoint, own), url=path)
        return cast("T", await self._transport.run(job))


def _laid_over(
    name: str, own: Mapping[str, T], over: Mapping[str, T] | None, instead: Mapping[str, T] | None
) -> Mapping[str, T]:
    if over is not None and instead is not None:
        raise ConfigError(f"{name} and set_{name}: give one of them")
    return instead if instead is not None else {**own, **(over or {})}


def _fields(body: object) -> Mapping[str, object]:
    if isinstance(body, Empty):
        return {}
    if not isinstance(body, Mapping):
        raise InputError("body", type(body).__name__, "beside files, it must be a mapping of fields")
    return cast("Mapping[str, object]", body)
