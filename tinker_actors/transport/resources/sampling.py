"""Samples."""

from __future__ import annotations

from tinker_actors.transport.options import RequestOptions
from tinker_actors.transport.resources.resource import AsyncAPIResource
from tinker_actors.wire.endpoints import ASAMPLE, JOIN_SAMPLING_SESSION
from tinker_actors.wire.sampling import (
    JoinSamplingSessionRequest,
    JoinSamplingSessionResponse,
    SampleRequest,
    SampleSubmitted,
)

__all__ = ["AsyncSamplingResource"]


class AsyncSamplingResource(AsyncAPIResource):
    """`client.sampling`."""

    async def asample(
        self, request: SampleRequest, *, options: RequestOptions | None = None
    ) -> SampleSubmitted:
        """Ask for sequences that continue a prompt; the answer is a promise. Nothing is sent again."""
        return await self._caller.call(ASAMPLE, request, options=options)

    async def join(
        self, request: JoinSamplingSessionRequest, *, options: RequestOptions | None = None
    ) -> JoinSamplingSessionResponse:
        """Sample from a place that another process has opened."""
        return await self._caller.call(JOIN_SAMPLING_SESSION, request, options=options)
