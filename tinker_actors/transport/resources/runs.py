"""Training runs: every model that was ever made."""

from __future__ import annotations

from tinker_actors.transport.options import RequestOptions
from tinker_actors.transport.resources.resource import AccessScope, AsyncAPIResource
from tinker_actors.wire.endpoints import GET_TRAINING_RUN, LIST_TRAINING_RUNS
from tinker_actors.wire.run import TrainingRun, TrainingRunsResponse
from tinker_actors.wire.service import Empty

__all__ = ["AsyncRunsResource"]


class AsyncRunsResource(AsyncAPIResource):
    """`client.runs`."""

    async def list(
        self,
        *,
        limit: int = 20,
        offset: int = 0,
        access_scope: AccessScope = "owned",
        project_id: str | None = None,
        options: RequestOptions | None = None,
    ) -> TrainingRunsResponse:
        """List training runs, the latest first."""
        return await self._caller.call(
            LIST_TRAINING_RUNS,
            Empty(),
            query={"limit": limit, "offset": offset, "access_scope": access_scope, "project_id": project_id},
            options=options,
        )

    async def get(
        self,
        training_run_id: str,
        *,
        access_scope: AccessScope = "owned",
        options: RequestOptions | None = None,
    ) -> TrainingRun:
        """Look at one training run."""
        return await self._caller.call(
            GET_TRAINING_RUN,
            Empty(),
            path={"training_run_id": training_run_id},
            query={"access_scope": access_scope},
            options=options,
        )
