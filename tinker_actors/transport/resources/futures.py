"""Promises. The service holds an answer back until there is one, or for a while."""

from __future__ import annotations

from tinker_actors.transport.options import RequestOptions
from tinker_actors.transport.resources.resource import AsyncAPIResource
from tinker_actors.wire.endpoints import CANCEL_FUTURE, RETRIEVE_FUTURE, RETRIEVE_FUTURES
from tinker_actors.wire.future import (
    CancelFutureRequest,
    RetrieveFutureRequest,
    RetrieveFuturesRequest,
    RetrieveFuturesResponse,
)
from tinker_actors.wire.payload import Payload
from tinker_actors.wire.service import Empty

__all__ = ["AsyncFuturesResource"]


class AsyncFuturesResource(AsyncAPIResource):
    """`client.futures`."""

    async def retrieve(
        self, request: RetrieveFutureRequest, *, options: RequestOptions | None = None
    ) -> Payload:
        """Ask for the result of a promise; the answer is handed over as it came."""
        return await self._caller.call(RETRIEVE_FUTURE, request, options=options)

    async def retrieve_batch(
        self, request: RetrieveFuturesRequest, *, options: RequestOptions | None = None
    ) -> RetrieveFuturesResponse:
        """Ask which promises of a sampling session have been kept."""
        return await self._caller.call(RETRIEVE_FUTURES, request, options=options)

    async def cancel(self, request: CancelFutureRequest, *, options: RequestOptions | None = None) -> Empty:
        """Say that nobody waits for a promise any more."""
        return await self._caller.call(CANCEL_FUTURE, request, options=options)
