"""The typed messages that runs and samplers send to a TrainingActor, beside those of `actors.message`."""

from __future__ import annotations

from typing import ClassVar

import attrs

from tinker_actors.actors.deferred import Deferred
from tinker_actors.actors.message import ANY_NUMBER, Training, datums
from tinker_actors.errors import TinkerActorsError
from tinker_actors.kernel import Message
from tinker_actors.kernel.message import Unit
from tinker_actors.protocol.batch import check_batch, check_optim
from tinker_actors.protocol.journal import Decision
from tinker_actors.wire.input import Datum
from tinker_actors.wire.optimizer import OptimParams, OptimStepResponse
from tinker_actors.wire.training import ForwardBackwardOutput, LossFnType

__all__ = ["Look", "Reach", "Revive", "Skip", "Train", "TrainForward", "TrainOptim"]


@attrs.frozen
class Train(Message[Training, None]):
    """Decide a whole step, a gradient and its `optim_step`, and send it. Answered as soon as it is decided.

    The results are asked for by a `TrainForward` and a `TrainOptim`, which go in line with it, as one block.

    Attributes:
        data: the batch.
        loss_fn: the loss.
        loss_fn_config: the loss's settings.
        optim_params: the optimizer's settings.
        decision: what a run decides with this step; written in one transaction with both operations.
        gradient: the output, once it is there.
        optim: the step's metrics, once they are there.
        refusals: why the step was not decided.

    Raises:
        InputError: see `protocol.batch.check_batch` and `check_optim`.
        JournalError: it could not be written; nothing of it was sent.
    """

    unit: ClassVar[Unit] = "part"
    max_redeliver: ClassVar[int] = ANY_NUMBER

    data: tuple[Datum, ...] = attrs.field(converter=datums)
    loss_fn: LossFnType
    loss_fn_config: dict[str, float | str] | None
    optim_params: OptimParams
    decision: Decision | None = None
    gradient: Deferred[ForwardBackwardOutput] = attrs.field(
        init=False, repr=False, eq=False, factory=Deferred
    )
    optim: Deferred[OptimStepResponse] = attrs.field(init=False, repr=False, eq=False, factory=Deferred)
    refusals: list[TinkerActorsError] = attrs.field(
        init=False, repr=False, eq=False, factory=list[TinkerActorsError]
    )

    def __attrs_post_init__(self) -> None:
        check_batch(self.data, self.loss_fn, self.loss_fn_config)
        check_optim(self.optim_params)


@attrs.frozen
class TrainForward(Message[Training, ForwardBackwardOutput]):
    """Wait for the output of a step's gradient; see `Train`."""

    unit: ClassVar[Unit] = "part"
    max_redeliver: ClassVar[int] = ANY_NUMBER

    train: Train


@attrs.frozen
class TrainOptim(Message[Training, OptimStepResponse]):
    """Wait for the end of a step; see `Train`."""

    unit: ClassVar[Unit] = "end"
    max_redeliver: ClassVar[int] = ANY_NUMBER

    train: Train


@attrs.frozen
class Skip(Message[Training, None]):
    """Decide a step in which nothing is trained."""

    max_redeliver: ClassVar[int] = ANY_NUMBER

    decision: Decision


@attrs.frozen
class Reach(Message[Training, None]):
    """Answered when everything that stands before it has been taken up: written, and sent or refused."""

    max_redeliver: ClassVar[int] = ANY_NUMBER


@attrs.frozen
class Look(Message[Training, None]):
    """See whether the service still has the model; if not, restore it. Answered when the model is there."""

    max_redeliver: ClassVar[int] = ANY_NUMBER


@attrs.frozen
class Revive(Message[Training, None]):
    """Go on with the model of an earlier process, or restore it; the first message of such an actor."""

    max_redeliver: ClassVar[int] = ANY_NUMBER
