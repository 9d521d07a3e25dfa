"""Models that are trained."""

from __future__ import annotations

from tinker_actors.transport.options import RequestOptions
from tinker_actors.transport.resources.resource import AsyncAPIResource
from tinker_actors.wire.endpoints import CREATE_MODEL, GET_INFO, UNLOAD_MODEL
from tinker_actors.wire.future import UntypedAPIFuture
from tinker_actors.wire.model import CreateModelRequest, GetInfoRequest, GetInfoResponse, UnloadModelRequest

__all__ = ["AsyncModelsResource"]


class AsyncModelsResource(AsyncAPIResource):
    """`client.models`."""

    async def create(
        self, request: CreateModelRequest, *, options: RequestOptions | None = None
    ) -> UntypedAPIFuture:
        """Make a model; the answer is the promise of its id."""
        return await self._caller.call(CREATE_MODEL, request, options=options)

    async def get_info(
        self, request: GetInfoRequest, *, options: RequestOptions | None = None
    ) -> GetInfoResponse:
        """Ask what a model is."""
        return await self._caller.call(GET_INFO, request, options=options)

    async def unload(
        self, request: UnloadModelRequest, *, options: RequestOptions | None = None
    ) -> UntypedAPIFuture:
        """Give a model's room back. The latest services have dropped this call."""
        return await self._caller.call(UNLOAD_MODEL, request, options=options)
