"""The two ways to send a finished request, through the connections of its lane.

Theory of operation. The *direct* way hands a request to the pool of its lane and takes a whole answer. The *client*
way sends the same bytes by `httpx.AsyncClient`: it follows redirects, runs a user's authentication, and can give an
answer whose body is still to be read. Both have one deadline for the whole exchange, the wait for a connection
included, and both raise httpx's errors, from which `translated` tells whether a byte was written.

The pools bound what is under way by themselves. In front of a carrier that is no pool stands a limiter of ours, as wide
as the lane.

Redirects are followed here, not by httpx: it would take our key along to another origin.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Final, TypeAlias

import httpx
import trio

from tinker_actors.errors import APIConnectionError, APITimeoutError
from tinker_actors.transport.config import Config
from tinker_actors.transport.head import Origin
from tinker_actors.transport.headers import FOREIGN
from tinker_actors.transport.lanes import LANE_LIMITS, StockPool, make_lane_pools
from tinker_actors.transport.pool import ConnectionPool
from tinker_actors.transport.reply import Reply
from tinker_actors.transport.request import WireRequest
from tinker_actors.transport.tls import make_ssl_context
from tinker_actors.wire.endpoint import Lane

__all__ = [
    "BROKEN",
    "Carrier",
    "Lanes",
    "LiveBody",
    "MayLead",
    "Through",
    "Ways",
    "heartbeat_pool",
    "same_service",
    "translated",
]

Carrier: TypeAlias = httpx.AsyncBaseTransport
"""What carries requests: the network, an application in this process, or a test's script."""
Through: TypeAlias = Carrier | Mapping[Lane, Carrier]
"""What takes the network's place: for everything, or for each lane."""
MayLead: TypeAlias = Callable[[httpx.URL], bool]
"""Whether a redirect to this address is followed."""

_MAX_REDIRECTS = 20  # httpx 0.28 has the same
# Seconds that a pool has more than the exchange. It knows whether a byte was written, so its own limit comes first.
_GRACE = 1.0

BROKEN: Final = (httpx.RequestError, OSError, trio.BrokenResourceError, trio.ClosedResourceError)
"""What a way raises when there is no whole answer: httpx's errors, and those of a carrier that has none of its own."""
# Before a byte of the request is written, these are what httpx raises.
_UNSENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.LocalProtocolError,
)


def translated(error: Exception, what: str, where: str) -> APIConnectionError:
    """Turn what a way raised into our error, which knows whether a byte was written.

    Args:
        error: one of `BROKEN`.
        what: the call.
        where: the service.
    """
    sent = not isinstance(error, _UNSENT)
    timed_out = isinstance(error, httpx.TimeoutException)
    reason = str(error) or type(error).__name__
    if sent:
        trouble = f"{where}: {'no answer in time' if timed_out else 'the exchange broke off'}"
    else:
        trouble = f"base_url = {where!r}: {'no connection in time' if timed_out else 'cannot connect'}"
    kind = APITimeoutError if timed_out else APIConnectionError
    return kind(f"{what}: {trouble}: {reason}", doubtful=sent)


class Ways:
    """The connections of one lane.

    Args:
        carrier: what carries requests.
        limit: how many at once; None if the carrier bounds them itself.
        connect_timeout: seconds to open a connection.
    """

    def __init__(self, carrier: Carrier, limit: int | None, connect_timeout: float) -> None:
        self.carrier = carrier
        self.connect_timeout = connect_timeout
        self._pool = carrier if isinstance(carrier, ConnectionPool) else None
        self._limiter = None if limit is None else trio.CapacityLimiter(limit)
        # Nothing of its own but redirects and authentication: requests bring their headers and time limits along.
        self._client = httpx.AsyncClient(transport=_Borrowed(carrier), trust_env=False)

    async def direct(self, request: WireRequest) -> Reply:
        """Send a request and return its whole answer, by the short way. Checkpoints.

        Raises:
            httpx.TransportError: no whole answer.
        """
        if self._pool is None:
            built = request.as_httpx(self.connect_timeout)
            return await self._whole(built, request.timeout, self.carrier.handle_async_request)
        place = request.place
        timeout = math.inf if request.timeout is None else request.timeout
        raw = await self._pool.exchange(
            place.origin,
            request.method.encode("ascii"),
            place.target,
            request.headers,
            request.body,
            timeout=timeout,
            sni=place.sni,
            head=request.head(),
        )
        return Reply(raw.status, raw.headers, raw.body)

    async def by_client(
        self, built: httpx.Request, timeout: float | None, may_lead: MayLead, auth: httpx.Auth | None
    ) -> Reply:
        """Send a request by httpx's client and return its whole answer. Checkpoints.

        Args:
            built: the request.
            timeout: seconds for the whole exchange; None is no limit.
            may_lead: where redirects are followed to.
            auth: a user's way to authenticate.

        Raises:
            httpx.RequestError: no whole answer.
        """
        return await self._whole(built, timeout, lambda request: self._follow(request, may_lead, auth))

    async def open(
        self, built: httpx.Request, timeout: float | None, may_lead: MayLead, auth: httpx.Auth | None
    ) -> httpx.Response:
        """Send a request and return its answer once the head is there. Checkpoints.

        The answer holds its connection until it is read to its end or closed. Arguments and errors: `by_client`.
        """
        holder = object()
        deadline = math.inf if timeout is None else trio.current_time() + timeout
        await self._take_place(holder, deadline)
        grace = _GRACE if self._limiter is None else 0.0
        try:
            with trio.fail_at(deadline + grace):
                response = await self._follow(built, may_lead, auth)
        except trio.TooSlowError as error:
            self._release(holder)
            raise _too_slow(sent=True) from error
        except BaseException:
            self._release(holder)
            raise
        body = response.extensions.get("body")
        if isinstance(body, LiveBody) and not response.is_closed:
            body.release = lambda: self._release(holder)
        else:
            self._release(holder)
        return response

    async def read(self, response: httpx.Response, timeout: float | None) -> Reply:
        """Read an answer of `open` to its end. Checkpoints.

        Raises:
            httpx.TransportError: no whole answer.
        """
        try:
            with trio.fail_after(math.inf if timeout is None else timeout):
                return await _read(response)
        except trio.TooSlowError as error:
            raise _too_slow(sent=True) from error

    async def _take_place(self, holder: object, deadline: float) -> None:
        if self._limiter is None:
            return
        try:
            with trio.fail_at(deadline):
                await self._limiter.acquire_on_behalf_of(holder)
        except trio.TooSlowError as error:
            raise _too_slow(sent=False) from error

    def _release(self, holder: object) -> None:
        if self._limiter is not None:
            self._limiter.release_on_behalf_of(holder)

    async def _whole(
        self,
        built: httpx.Request,
        timeout: float | None,
        send: Callable[[httpx.Request], Awaitable[httpx.Response]],
    ) -> Reply:
        now = trio.current_time()
        deadline = math.inf if timeout is None else now + timeout
        if self._limiter is None:
            if timeout is not None:
                built.extensions["deadline"] = deadline
            return await self._in_time(built, deadline + _GRACE, send)
        holder = object()
        await self._take_place(holder, deadline)
        try:
            return await self._in_time(built, deadline, send)
        finally:
            self._release(holder)

    async def _in_time(
        self,
        built: httpx.Request,
        deadline: float,
        send: Callable[[httpx.Request], Awaitable[httpx.Response]],
    ) -> Reply:
        try:
            with trio.fail_at(deadline):
                return await _read(await send(built))
        except trio.TooSlowError as error:
            raise _too_slow(sent=True) from error

    async def _follow(
        self, request: httpx.Request, may_lead: MayLead, auth: httpx.Auth | None
    ) -> httpx.Response:
        for _ in range(_MAX_REDIRECTS + 1):
            response = await self._client.send(request, stream=True, auth=auth, follow_redirects=False)
            following = response.next_request
            if following is None or following.url.scheme not in ("http", "https"):
                return response
            if not may_lead(following.url):
                return response
            await response.aclose()
            if isinstance(following.stream, httpx.SyncByteStream):
                following.read()  # so that it is known to be whole
            if not same_service(request.url, following.url):
                auth = None
                _strip(following)
            request = following
        raise httpx.RemoteProtocolError(f"more than {_MAX_REDIRECTS} redirects", request=request)

    async def aclose(self) -> None:
        """Close the client; the carrier is closed by whom it belongs to. Checkpoints."""
        await self._client.aclose()


def _too_slow(*, sent: bool) -> httpx.TimeoutException:
    if sent:
        return httpx.ReadTimeout("its time was up")
    return httpx.PoolTimeout("its time was up before there was a connection")


async def _read(response: httpx.Response) -> Reply:
    """Read an answer as it comes, compressed or not, and let its connection go."""
    stream = response.stream
    assert isinstance(stream, httpx.AsyncByteStream)
    try:
        raw = b"".join([chunk async for chunk in stream])
    finally:
        with trio.CancelScope(shield=True):
            await response.aclose()
    return Reply(response.status_code, [(name.lower(), value) for name, value in response.headers.raw], raw)


def same_service(before: httpx.URL, after: httpx.URL) -> bool:
    """Whether a redirect stays with the origin, or only goes from http to https on the usual ports."""
    old, new = Origin.of(before), Origin.of(after)
    upgraded = (old.scheme, old.port, new.scheme, new.port) == ("http", 80, "https", 443)
    return old == new or (upgraded and old.host == new.host)


def _strip(request: httpx.Request) -> None:
    """Take from a request everything that says who we are."""
    for name in list(request.headers):
        if name not in FOREIGN and name not in ("host", "content-length"):
            del request.headers[name]
    request.extensions.pop("sni_hostname", None)


class _Borrowed(httpx.AsyncBaseTransport):
    """A carrier that several clients share; closing one of them leaves it open."""

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._carrier.handle_async_request(request)
        if not response.is_closed:
            response.stream = LiveBody(response.stream)
            response.extensions["body"] = response.stream
        return response


class LiveBody(httpx.AsyncByteStream):
    """The body of an answer that is still coming.

    httpx puts several async generators on top of it. One that is left before its end is a nuisance, so whoever leaves
    early lets the body end (`end`) and goes on to the end.
    """

    def __init__(self, stream: httpx.SyncByteStream | httpx.AsyncByteStream) -> None:
        assert isinstance(stream, httpx.AsyncByteStream)
        self._stream = stream
        self._iterator: AsyncIterator[bytes] | None = None
        self._ended = False
        self.release: Callable[[], None] | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._ended:
            await trio.lowlevel.checkpoint()
            raise StopAsyncIteration
        if self._iterator is None:
            self._iterator = aiter(self._stream)
        return await anext(self._iterator)

    def end(self) -> None:
        """Give nothing more."""
        self._ended = True

    async def aclose(self) -> None:
        """Let go of the connection. Checkpoints if the carrier does."""
        self._ended = True
        try:
            await self._stream.aclose()
        finally:
            release, self.release = self.release, None
            if release is not None:
                release()


class Lanes:
    """The ways into one service, lane by lane; made without a connection.

    Args:
        config: how the service is reached.
        through: what carries the requests in place of the network, all of them or those of each lane; it is not
            closed.

    Attributes:
        over_network: nothing takes the network's place.
    """

    def __init__(self, config: Config, through: Through | None) -> None:
        self.over_network = through is None
        self._pools = {} if through is not None else _pools(config)
        carriers: Mapping[Lane, Carrier] = self._pools
        if through is not None:
            carriers = through if isinstance(through, Mapping) else dict.fromkeys(LANE_LIMITS, through)
        self._lanes = {
            lane: Ways(carriers[lane], _limit(carriers[lane], limit), config.connect_timeout)
            for lane, limit in LANE_LIMITS.items()
        }

    def __getitem__(self, lane: Lane) -> Ways:
        return self._lanes[lane]

    async def aclose(self) -> None:
        """Close the connections. Checkpoints."""
        with trio.CancelScope(shield=True):  # noqa: ASYNC912 - closing does not wait for the other side
            for ways in self._lanes.values():
                await ways.aclose()
            for pool in self._pools.values():
                await pool.aclose()
        await trio.lowlevel.checkpoint()


def _limit(carrier: Carrier, limit: int) -> int | None:
    """Return how much may be under way over a carrier; None if it bounds that itself."""
    return None if isinstance(carrier, ConnectionPool | StockPool) else limit


def _pools(config: Config, limits: Mapping[Lane, int] = LANE_LIMITS) -> Mapping[Lane, Carrier]:
    return make_lane_pools(
        kind=config.pool,
        origin=Origin.of(httpx.URL(config.base_url)),
        ssl_context=config.ssl_context or make_ssl_context(),
        connect_timeout=config.connect_timeout,
        proxies=config.proxy,
        limits=limits,
    )


def heartbeat_pool(config: Config) -> Carrier:
    """Return a connection for the beats alone, in the loop that beats; it is closed by leaving its context."""
    return _pools(config, {Lane.SESSION: 1})[Lane.SESSION]
