"""The checkpoints of a user, whatever run they are of."""

from __future__ import annotations

from tinker_actors.transport.options import RequestOptions
from tinker_actors.transport.resources.resource import AsyncAPIResource
from tinker_actors.wire.endpoints import LIST_USER_CHECKPOINTS
from tinker_actors.wire.run import CheckpointsListResponse
from tinker_actors.wire.service import Empty

__all__ = ["AsyncCheckpointsResource"]


class AsyncCheckpointsResource(AsyncAPIResource):
    """`client.checkpoints`."""

    async def list(
        self, *, limit: int = 100, offset: int = 0, options: RequestOptions | None = None
    ) -> CheckpointsListResponse:
        """List all checkpoints, the latest first."""
        return await self._caller.call(
            LIST_USER_CHECKPOINTS, Empty(), query={"limit": limit, "offset": offset}, options=options
        )
