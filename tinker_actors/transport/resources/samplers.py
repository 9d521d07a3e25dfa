"""Samplers, looked at from outside."""

from __future__ import annotations

from tinker_actors.transport.options import RequestOptions
from tinker_actors.transport.resources.resource import AsyncAPIResource
from tinker_actors.wire.endpoints import GET_SAMPLER
from tinker_actors.wire.sampling import GetSamplerResponse
from tinker_actors.wire.service import Empty

__all__ = ["AsyncSamplersResource"]


class AsyncSamplersResource(AsyncAPIResource):
    """`client.samplers`."""

    async def get(self, sampler_id: str, *, options: RequestOptions | None = None) -> GetSamplerResponse:
        """Look at one sampler: its base model and its weights."""
        return await self._caller.call(GET_SAMPLER, Empty(), path={"sampler_id": sampler_id}, options=options)
