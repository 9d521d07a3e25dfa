"""Weights: saved, loaded, looked at, copied. A checkpoint's id is `weights/<name>` or `sampler_weights/<name>`."""

from __future__ import annotations

import attrs

from tinker_actors.transport.options import DEFAULT_OPTIONS, RequestOptions
from tinker_actors.transport.resources.resource import AsyncAPIResource
from tinker_actors.wire.endpoints import (
    CHECKPOINT_ARCHIVE_URL,
    COPY_WEIGHTS,
    DELETE_CHECKPOINT,
    EXTERNAL_WEIGHTS_URLS,
    LIST_CHECKPOINTS,
    LOAD_WEIGHTS,
    PUBLISH_CHECKPOINT,
    SAVE_WEIGHTS,
    SAVE_WEIGHTS_EXTERNAL,
    SAVE_WEIGHTS_FOR_SAMPLER,
    SET_CHECKPOINT_TTL,
    UNPUBLISH_CHECKPOINT,
    WEIGHTS_INFO,
)
from tinker_actors.wire.future import UntypedAPIFuture
from tinker_actors.wire.run import CheckpointsListResponse
from tinker_actors.wire.service import Empty
from tinker_actors.wire.weights import (
    CheckpointArchiveUrlResponse,
    CopyWeightsRequest,
    CopyWeightsResponse,
    ExternalWeightsUrlsResponse,
    LoadWeightsRequest,
    SaveWeightsExternalRequest,
    SaveWeightsForSamplerRequest,
    SaveWeightsRequest,
    SetCheckpointTtlRequest,
    WeightsInfoRequest,
    WeightsInfoResponse,
)

__all__ = ["AsyncWeightsResource"]

_ACCESS_TOKEN = "x-tinker-weights-access-token"  # tinker 0.38.0 lib/public_interfaces/rest_client.py


class AsyncWeightsResource(AsyncAPIResource):
    """`client.weights`."""

    async def load(
        self, request: LoadWeightsRequest, *, options: RequestOptions | None = None
    ) -> UntypedAPIFuture:
        """Load saved weights into a model; the answer is a promise."""
        return await self._caller.call(LOAD_WEIGHTS, request, options=options)

    async def save(
        self, request: SaveWeightsRequest, *, options: RequestOptions | None = None
    ) -> UntypedAPIFuture:
        """Save weights and optimizer under a name; the answer is the promise of their path."""
        return await self._caller.call(SAVE_WEIGHTS, request, options=options)

    async def save_for_sampler(
        self, request: SaveWeightsForSamplerRequest, *, options: RequestOptions | None = None
    ) -> UntypedAPIFuture:
        """Save weights for sampling; the answer is the promise of where they are."""
        return await self._caller.call(SAVE_WEIGHTS_FOR_SAMPLER, request, options=options)

    async def save_external(
        self, request: SaveWeightsExternalRequest, *, options: RequestOptions | None = None
    ) -> UntypedAPIFuture:
        """Save weights for use outside of the service; the answer is the promise of their path."""
        return await self._caller.call(SAVE_WEIGHTS_EXTERNAL, request, options=options)

    async def info(
        self, request: WeightsInfoRequest, *, options: RequestOptions | None = None
    ) -> WeightsInfoResponse:
        """Ask what saved weights are of."""
        return await self._caller.call(WEIGHTS_INFO, request, options=options)

    async def copy(
        self, request: CopyWeightsRequest, *, options: RequestOptions | None = None
    ) -> CopyWeightsResponse:
        """Copy saved weights into a project or a session of your own.

        The token that admits to weights of another account goes into a header, which is kept out of logs.
        """
        token = request.weights_access_token
        if token is not None:
            request = attrs.evolve(request, weights_access_token=None)
            options = (options or DEFAULT_OPTIONS).over(RequestOptions(headers={_ACCESS_TOKEN: token}))
        return await self._caller.call(COPY_WEIGHTS, request, options=options)

    async def list(
        self, training_run_id: str, *, options: RequestOptions | None = None
    ) -> CheckpointsListResponse:
        """List the checkpoints of a training run."""
        return await self._caller.call(
            LIST_CHECKPOINTS, Empty(), path={"training_run_id": training_run_id}, options=options
        )

    async def delete(
        self, training_run_id: str, checkpoint_id: str, *, options: RequestOptions | None = None
    ) -> Empty:
        """Delete a checkpoint. If the answer to it is lost, it may be told that it is not there."""
        return await self._caller.call(
            DELETE_CHECKPOINT,
            Empty(),
            path={"training_run_id": training_run_id, "checkpoint_id": checkpoint_id},
            options=options,
        )

    async def publish(
        self, training_run_id: str, checkpoint_id: str, *, options: RequestOptions | None = None
    ) -> Empty:
        """Let everybody load a checkpoint."""
        return await self._caller.call(
            PUBLISH_CHECKPOINT,
            Empty(),
            path={"training_run_id": training_run_id, "checkpoint_id": checkpoint_id},
            options=options,
        )

    async def unpublish(
        self, training_run_id: str, checkpoint_id: str, *, options: RequestOptions | None = None
    ) -> Empty:
        """Let nobody else load a checkpoint any more."""
        return await self._caller.call(
            UNPUBLISH_CHECKPOINT,
            Empty(),
            path={"training_run_id": training_run_id, "checkpoint_id": checkpoint_id},
            options=options,
        )

    async def set_ttl(
        self,
        training_run_id: str,
        checkpoint_id: str,
        request: SetCheckpointTtlRequest,
        *,
        options: RequestOptions | None = None,
    ) -> Empty:
        """Say for how long a checkpoint is kept."""
        return await self._caller.call(
            SET_CHECKPOINT_TTL,
            request,
            path={"training_run_id": training_run_id, "checkpoint_id": checkpoint_id},
            options=options,
        )

    async def archive_url(
        self, training_run_id: str, checkpoint_id: str, *, options: RequestOptions | None = None
    ) -> CheckpointArchiveUrlResponse:
        """Ask for the address of a checkpoint as one archive. The latest services have dropped this call."""
        return await self._caller.call(
            CHECKPOINT_ARCHIVE_URL,
            Empty(),
            path={"training_run_id": training_run_id, "checkpoint_id": checkpoint_id},
            options=options,
        )

    async def external_urls(
        self, training_run_id: str, checkpoint_id: str, *, options: RequestOptions | None = None
    ) -> ExternalWeightsUrlsResponse:
        """Ask for the addresses of the files of external weights."""
        return await self._caller.call(
            EXTERNAL_WEIGHTS_URLS,
            Empty(),
            path={"training_run_id": training_run_id, "checkpoint_id": checkpoint_id},
            options=options,
        )
