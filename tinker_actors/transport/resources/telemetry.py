"""Events about the client."""

from __future__ import annotations

from tinker_actors.transport.options import RequestOptions
from tinker_actors.transport.resources.resource import AsyncAPIResource
from tinker_actors.wire.endpoints import TELEMETRY
from tinker_actors.wire.telemetry import TelemetryResponse, TelemetrySendRequest

__all__ = ["AsyncTelemetryResource"]


class AsyncTelemetryResource(AsyncAPIResource):
    """`client.telemetry`."""

    async def send(
        self, request: TelemetrySendRequest, *, options: RequestOptions | None = None
    ) -> TelemetryResponse:
        """Send a batch of events, once."""
        return await self._caller.call(TELEMETRY, request, options=options)
