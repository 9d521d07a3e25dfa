"""The lanes of a service: for each kind of traffic connections of its own, so that none can starve another."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType
from typing import Literal

import httpx
import trio

from tinker_actors.transport.bodies import Limits
from tinker_actors.transport.head import Origin
from tinker_actors.transport.pool import ConnectionPool, PoolStatistics
from tinker_actors.transport.proxy import ProxyRules, ProxyTarget
from tinker_actors.transport.slots import Slots
from tinker_actors.wire.endpoint import Lane

__all__ = ["LANE_LIMITS", "StockPool", "make_lane_pools"]

# One connection is one request under way. Long polls hold theirs, so that lane is as wide as samples in flight.
LANE_LIMITS: Mapping[Lane, int] = MappingProxyType(
    {
        Lane.TRAIN: 16,
        Lane.SAMPLE: 64,
        Lane.SESSION: 8,
        Lane.FUTURES: 512,
        Lane.TELEMETRY: 1,
    }
)
KEEPALIVE_EXPIRY = 4.0  # seconds; uvicorn and hypercorn close an idle connection after 5


def make_lane_pools(
    *,
    kind: Literal["own", "stock"],
    origin: Origin,
    ssl_context: ssl.SSLContext,
    connect_timeout: float,
    proxies: ProxyRules | None = None,
    limits: Mapping[Lane, int] = LANE_LIMITS,
) -> dict[Lane, ConnectionPool] | dict[Lane, StockPool]:
    """Make the connections of each lane; the caller closes them.

    Args:
        kind: our pool, or httpx's own behind a limiter of ours.
        origin: of the service; httpx's own pool has one proxy, the one for this origin.
        ssl_context: whom to trust.
        connect_timeout: seconds to open a connection.
        proxies: which proxy to go through.
        limits: requests under way at once.
    """
    proxies = proxies or ProxyRules()
    if kind == "stock":
        proxy = proxies.choose(origin)
        return {lane: StockPool(limit, ssl_context, proxy) for lane, limit in limits.items()}
    return {
        lane: ConnectionPool(
            limit=limit,
            ssl_context=ssl_context,
            connect_timeout=connect_timeout,
            keepalive_expiry=KEEPALIVE_EXPIRY,
            proxy=proxies,
        )
        for lane, limit in limits.items()
    }


class StockPool(httpx.AsyncBaseTransport):
    """httpx's own pool, for comparison and as a way out.

    Its waiters can lose connections for good when they are cancelled, so they wait in front of it, for slots of ours.

    Args:
        limit: requests under way at once.
        ssl_context: whom to trust.
        proxy: the proxy for everything.
    """

    def __init__(self, limit: int, ssl_context: ssl.SSLContext, proxy: ProxyTarget | None = None) -> None:
        self._slots = Slots(limit)
        self._pool = httpx.AsyncHTTPTransport(
            verify=ssl_context,
            proxy=None if proxy is None else _for_httpx(proxy, ssl_context),
            limits=httpx.Limits(
                max_connections=limit, max_keepalive_connections=limit, keepalive_expiry=KEEPALIVE_EXPIRY
            ),
        )

    def statistics(self) -> PoolStatistics:
        """Return what the pool is doing; how many connections it keeps it does not tell."""
        return PoolStatistics(self._slots.limit, self._slots.in_use, self._slots.waiting, 0)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request as httpx does. The response holds a slot until it is closed. Checkpoints.

        Raises:
            httpx.TransportError: as httpx's own transport; httpx.PoolTimeout while waiting for a slot.
            httpx.ConnectError: also if it is closed.
        """
        limits = Limits.of(request)
        with limits.scope:
            limits.start(limits.pool)
            if not await self._slots.take():
                raise httpx.ConnectError("the connections of this service are closed")
        if limits.scope.cancelled_caught:
            raise httpx.PoolTimeout("no connection became free in time")
        try:
            response = await self._pool.handle_async_request(request)
            assert isinstance(response.stream, httpx.AsyncByteStream)
            response.stream = _Held(response.stream, self._slots)
        except BaseException:
            self._slots.give_back()
            raise
        return response

    async def aclose(self) -> None:
        """Close all connections; later requests fail. Checkpoints."""
        self._slots.close()
        await self._pool.aclose()
        await trio.lowlevel.checkpoint()


def _for_httpx(proxy: ProxyTarget, ssl_context: ssl.SSLContext) -> httpx.Proxy:
    headers = (
        {} if proxy.authorization is None else {"Proxy-Authorization": proxy.authorization.decode("ascii")}
    )
    tls = ssl_context if proxy.origin.scheme == "https" else None
    return httpx.Proxy(str(proxy.origin), headers=headers, ssl_context=tls)


class _Held(httpx.AsyncByteStream):
    """A body that holds a slot until it is closed."""

    def __init__(self, stream: httpx.AsyncByteStream, slots: Slots) -> None:
        self._stream = stream
        self._slots: Slots | None = slots

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._stream)

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            slots, self._slots = self._slots, None
            if slots is not None:
                slots.give_back()
