"""Gradients and steps. Each of these calls is answered with the promise of its result."""

from __future__ import annotations

from tinker_actors.transport.options import RequestOptions
from tinker_actors.transport.resources.resource import AsyncAPIResource
from tinker_actors.wire.endpoints import CREATE_CUSTOM_LOSS, FORWARD, FORWARD_BACKWARD, OPTIM_STEP
from tinker_actors.wire.future import UntypedAPIFuture
from tinker_actors.wire.optimizer import OptimStepRequest
from tinker_actors.wire.training import CreateCustomLossRequest, ForwardBackwardRequest, ForwardRequest

__all__ = ["AsyncTrainingResource"]


class AsyncTrainingResource(AsyncAPIResource):
    """`client.training`."""

    async def forward(
        self, request: ForwardRequest, *, options: RequestOptions | None = None
    ) -> UntypedAPIFuture:
        """Compute a batch's loss without a gradient. The latest services have dropped this call."""
        return await self._caller.call(FORWARD, request, options=options)

    async def forward_backward(
        self, request: ForwardBackwardRequest, *, options: RequestOptions | None = None
    ) -> UntypedAPIFuture:
        """Add the gradient of a batch to the model's."""
        return await self._caller.call(FORWARD_BACKWARD, request, options=options)

    async def optim_step(
        self, request: OptimStepRequest, *, options: RequestOptions | None = None
    ) -> UntypedAPIFuture:
        """Apply the gradient and clear it."""
        return await self._caller.call(OPTIM_STEP, request, options=options)

    async def create_custom_loss(
        self, request: CreateCustomLossRequest, *, options: RequestOptions | None = None
    ) -> UntypedAPIFuture:
        """Give the service a loss of your own; the promise is that of its id."""
        return await self._caller.call(CREATE_CUSTOM_LOSS, request, options=options)
