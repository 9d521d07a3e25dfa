"""A training step as one unit: its operations go in line together, with nothing between them.

    async with training.step() as step:
        forward = step.forward_backward(batch, "cross_entropy")
        optim = step.optim_step(adam)
    print((await forward).metrics)

While the body runs nothing is sent; messages check themselves as they are made. When it ends they go in line as one
block, so the steps of several tasks never mix. A body that raises has sent nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import trio

from tinker_actors.actors.message import Forward, ForwardBackward, ForwardBackwardCustom, OptimStep, Training
from tinker_actors.errors import InputError
from tinker_actors.kernel import Message, Pending
from tinker_actors.protocol.custom_loss import CustomLossFn
from tinker_actors.wire.input import Datum
from tinker_actors.wire.optimizer import OptimParams, OptimStepResponse
from tinker_actors.wire.training import ForwardBackwardOutput, LossFnType

__all__ = ["Planned", "TrainingStep"]

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

SubmitMany = Callable[[Sequence[Message[Training, Any]]], Awaitable[list[Pending[Any]]]]


class Planned(Generic[R_co]):
    """The result of an operation of a step; like a `Pending` as soon as the step's block has ended."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._pending: Pending[R_co] | None = None

    def __repr__(self) -> str:
        return f"<Planned {self._kind}: not in line>" if self._pending is None else repr(self._pending)

    def __await__(self) -> Generator[Any, Any, R_co]:
        return self.pending.__await__()

    @property
    def pending(self) -> Pending[R_co]:
        """The `Pending` of its message.

        Raises:
            RuntimeError: the step's block has not ended, or it ended in an exception, so nothing was sent.
        """
        if self._pending is None:
            why = "the step's block has not ended, or was left by an exception"
            raise RuntimeError(f"{self._kind} is not in line: {why}")
        return self._pending

    @property
    def settled(self) -> bool:
        """Whether the answer, or the failure, is there."""
        return self._pending is not None and self._pending.settled

    async def withdraw(self) -> bool:
        """Take the whole step back, if nothing of it has begun; see `Pending.withdraw`. A checkpoint."""
        return await self.pending.withdraw()

    def in_line(self, pending: Pending[R_co]) -> None:
        """Its message has been admitted; told by the step."""
        self._pending = pending


class TrainingStep:
    """Collects the operations of one step. Made by `TrainingClient.step`.

    Args:
        confirm: the step's `optim_step` waits for the results of its gradients, unless it says otherwise itself.
    """

    def __init__(self, *, confirm: bool) -> None:
        self._confirm = confirm
        self._messages: list[Message[Training, Any]] = []
        self._planned: list[Planned[Any]] = []
        self._closed = False

    def __repr__(self) -> str:
        kinds = ", ".join(type(message).__name__ for message in self._messages)
        return f"<TrainingStep of {kinds or 'nothing'}>"

    def submit(self, message: Message[Training, R]) -> Planned[R]:
        """Add any training message to the step.

        Raises:
            InputError: the step has its `optim_step`, or its block has ended.
        """
        kind = type(message).__name__
        if self._closed:
            raise InputError("step", kind, "the step is closed: its optim_step is the last of it")
        planned: Planned[R] = Planned(kind)
        self._messages.append(message)
        self._planned.append(planned)
        self._closed = message.unit == "end"
        return planned

    def forward(
        self,
        data: Sequence[Datum],
        loss_fn: LossFnType,
        loss_fn_config: Mapping[str, float | str] | None = None,
    ) -> Planned[ForwardBackwardOutput]:
        """Add the computation of a batch's loss.

        Raises:
            InputError: as `TrainingClient.forward`, or see `submit`.
        """
        return self.submit(Forward(data, loss_fn, _config(loss_fn_config)))

    def forward_backward(
        self,
        data: Sequence[Datum],
        loss_fn: LossFnType,
        loss_fn_config: Mapping[str, float | str] | None = None,
    ) -> Planned[ForwardBackwardOutput]:
        """Add the accumulation of a batch's gradient.

        Raises:
            InputError: as `TrainingClient.forward_backward`, or see `submit`.
        """
        return self.submit(ForwardBackward(data, loss_fn, _config(loss_fn_config)))

    def forward_backward_custom(
        self, data: Sequence[Datum], loss_fn: CustomLossFn
    ) -> Planned[ForwardBackwardOutput]:
        """Add the accumulation of the gradient of a loss of your own.

        Raises:
            InputError: as `TrainingClient.forward_backward_custom`, or see `submit`.
        """
        return self.submit(ForwardBackwardCustom(data, loss_fn))

    def optim_step(
        self, optim_params: OptimParams, *, confirm: bool | None = None
    ) -> Planned[OptimStepResponse]:
        """Add the step with the accumulated gradient, which closes the step.

        Args:
            optim_params: the optimizer's settings.
            confirm: wait for the results of the gradients before it is sent; None: as the step was told.

        Raises:
            InputError: as `TrainingClient.optim_step`, or see `submit`.
        """
        return self.submit(OptimStep(optim_params, self._confirm if confirm is None else confirm))

    async def send(self, submit_many: SubmitMany) -> None:
        """Put everything in line as one block; called at the end of the step's own block. A checkpoint."""
        self._closed = True
        if not self._messages:
            await trio.lowlevel.checkpoint()
            return
        for planned, pending in zip(self._planned, await submit_many(self._messages), strict=True):
            planned.in_line(pending)


def _config(config: Mapping[str, float | str] | None) -> dict[str, float | str] | None:
    return None if config is None else dict(config)
