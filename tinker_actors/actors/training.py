"""The TrainingActor: one per model. Its mailbox order is the order on the wire.

Theory of operation. A message is turned into an operation, the operation is written to the journal, its
requests are sent one after the other, and the actor takes its next message at once; results are waited for in
tasks of their own, so `optim_step` is on the wire while `forward_backward` still runs (`actors.training_line`). A
request the service refuses hands its number to the next one: there is no hole.

What outlives an incarnation is the `Lineage`: how the model was made, the journal, and who waits for what. If
the service loses the model, or it is not known whether a request was carried out, the incarnation ends with
`ModelLost` and its supervisor starts the next one, which makes a *new* model, loads the latest checkpoint with
the optimizer's state, sends what came after again (`actors.revival`), and goes on with the mailbox. The old model's id
is never addressed again, except to unload it. Callers notice nothing but time.

No partial gradient is kept: see `protocol.step`.

A service that refuses a number it has seen may say, when a doubtful request is sent again, that it has carried it out
(`protocol.retry`). Then the operation is done: its number is used up, nothing is restored, and the caller gets
`ResultLost`, for the effect is there and only the answer is not.
"""

from __future__ import annotations

import random
from typing import Any

import trio

from tinker_actors.actors.custom_loss import CustomAnswer, CustomLosses
from tinker_actors.actors.event import EventHub
from tinker_actors.actors.lineage import Lineage
from tinker_actors.actors.message import (
    Forward,
    ForwardBackward,
    ForwardBackwardCustom,
    Futures,
    LoadState,
    OptimStep,
    SaveState,
    SaveWeightsExternal,
    SaveWeightsForSampler,
    Training,
    Unload,
)
from tinker_actors.actors.optimizer_check import OptimizerCheck
from tinker_actors.actors.reattaching import Reattaching
from tinker_actors.actors.restoring import Restoring
from tinker_actors.actors.revival import Revival
from tinker_actors.actors.run_message import Look, Reach, Revive, Skip, Train, TrainForward, TrainOptim
from tinker_actors.actors.session import Session
from tinker_actors.actors.submission import Submitter
from tinker_actors.actors.training_line import TrainingLine
from tinker_actors.actors.training_operation import operation_of, train_operations
from tinker_actors.actors.training_results import Results
from tinker_actors.actors.verifying import Verifying
from tinker_actors.actors.void import step_void
from tinker_actors.errors import (
    InputError,
    JournalError,
    JournalFull,
    ModelLost,
    ModelPoisoned,
    StepVoid,
)
from tinker_actors.kernel import Actor, ActorRef, Ending, ReplyToken, Stop, handles
from tinker_actors.protocol.custom_loss import CustomLoss, backward_data
from tinker_actors.protocol.journal import Decision, Operation
from tinker_actors.protocol.step import OperationKind
from tinker_actors.transport.http import HttpTransport
from tinker_actors.wire.optimizer import OptimStepResponse
from tinker_actors.wire.training import ForwardBackwardOutput
from tinker_actors.wire.weights import (
    LoadWeightsResponse,
    SaveWeightsExternalResponse,
    SaveWeightsForSamplerResult,
    SaveWeightsResponse,
)

__all__ = ["TrainingActor"]


class TrainingActor(Actor[Training]):
    """Trains one model; see the module."""

    declares = (InputError, JournalError, ModelPoisoned, StepVoid)

    def __init__(
        self,
        lineage: Lineage,
        transport: HttpTransport,
        session: Session,
        futures: ActorRef[Futures],
        events: EventHub,
        rng: random.Random,
    ) -> None:
        self._lineage = lineage
        self._transport = transport
        self._session = session
        self._futures = futures
        self._events = events
        self._restoring = Restoring(lineage, transport, session, futures, events, rng)

    async def on_start(self) -> None:
        """Make the model; after a loss, restore it."""
        lineage, context = self._lineage, self.context
        lineage.actor = context.ref
        submitter = Submitter(self._transport, self._session)
        results = Results(lineage, self._transport, self._futures, submitter.result_failed)
        line = self._line = TrainingLine(lineage, context, self._session, submitter, results, self._events)
        inline = self._transport.config.heartbeat == "loop"
        self._custom = CustomLosses(line.compute, None if inline else lineage.losses)
        reach = self._session.reachability
        optimizer = OptimizerCheck(lineage, self._transport, self._session, self._futures, context.spawn)
        self._verifying = Verifying(lineage, self._transport, reach, line, submitter, self._events, optimizer)
        if lineage.in_run:
            line.watcher = self._verifying
        reattaching = Reattaching(lineage, self._transport, self._session, line, submitter, self._verifying)
        self._revival = Revival(
            lineage,
            context,
            self._session,
            line,
            submitter,
            results,
            self._restoring,
            self._events,
            reattaching,
            self._verifying,
        )
        await self._revival.begin()

    # --- messages ----------------------------------------------------------------------------------------

    @handles(Forward)
    async def forward(self, message: Forward) -> ReplyToken[ForwardBackwardOutput]:
        """Compute a loss."""
        return await self._take(operation_of(message))

    @handles(ForwardBackward)
    async def forward_backward(self, message: ForwardBackward) -> ReplyToken[ForwardBackwardOutput]:
        """Accumulate a gradient."""
        self._refuse_if_void(ends_step=False)
        return await self._take(operation_of(message))

    @handles(ForwardBackwardCustom)
    async def forward_backward_custom(
        self, message: ForwardBackwardCustom
    ) -> ReplyToken[ForwardBackwardOutput]:
        """Accumulate the gradient of a loss of the user's own; see `actors.custom_loss`."""
        self._refuse_if_void(ends_step=False)
        self._refuse_if_poisoned()
        try:
            await self._verify()
            loss = await self._custom.compute(message)
        except ModelLost:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the user's function raises is the answer
            return self._refuse("forward_backward", error)
        self._refuse_if_void(ends_step=False)  # another part of the step may have failed meanwhile
        operation = Operation(kind="forward_backward", data=backward_data(message.forward, loss))
        return await self._take(operation, loss)

    @handles(OptimStep)
    async def optim_step(self, message: OptimStep) -> ReplyToken[OptimStepResponse]:
        """Apply the gradient."""
        step = self._line.step
        while message.confirm and step.awaited:
            await self._line.progress.wait()
        self._refuse_if_void(ends_step=True)
        if message.confirm and step.failure is not None:  # the model is poisoned: other gradients are there
            raise step_void(step.failure) from step.failure
        return await self._take(operation_of(message), decision=message.decision)

    @handles(Train)
    async def train(self, message: Train) -> ReplyToken[None]:
        """Decide a whole step and send it."""
        line = self._line
        try:
            self._refuse_if_void(ends_step=False)
            self._refuse_if_poisoned()
            await self._verify()
            gradient, optim = await line.decide(train_operations(message), message.decision)
        except (JournalError, ModelPoisoned, StepVoid) as error:
            message.refusals.append(error)
            raise
        decided: ReplyToken[None] = self.context.detach_reply()
        decided.settle(None)
        line.expect(gradient[0], message.gradient)
        line.expect(optim[0], message.optim)
        step, before = line.step, line.latest
        sent = await line.send(*gradient)
        if sent and line.watcher is not None:
            await line.watcher.between(before)
        if sent and step.failure is None:  # the gradient may have failed while that took its time
            await line.send(*optim)
        else:
            line.take_back(*optim)
        return decided

    @handles(TrainForward)
    async def train_forward(self, message: TrainForward) -> ReplyToken[ForwardBackwardOutput]:
        """Hand over the output of a step's gradient."""
        await trio.lowlevel.checkpoint()
        _refuse_if_refused(message.train)
        token: ReplyToken[ForwardBackwardOutput] = self.context.detach_reply(survives_restart=True)
        message.train.gradient.hand_to(token)
        return token

    @handles(TrainOptim)
    async def train_optim(self, message: TrainOptim) -> ReplyToken[OptimStepResponse]:
        """Hand over the end of a step; with it ends what was given up of it."""
        await trio.lowlevel.checkpoint()
        void = self._lineage.void
        if void is not None and not void.whole_line:
            self._lineage.void = None
        _refuse_if_refused(message.train)
        token: ReplyToken[OptimStepResponse] = self.context.detach_reply(survives_restart=True)
        message.train.optim.hand_to(token)
        return token

    @handles(Skip)
    async def skip(self, message: Skip) -> None:
        """Decide a step in which nothing is trained."""
        self._refuse_if_poisoned()
        await self._line.decide((), message.decision)

    @handles(Reach)
    async def reach(self, _: Reach) -> None:
        """Everything before it has been taken up."""
        await trio.lowlevel.checkpoint()

    @handles(SaveState)
    async def save_state(self, message: SaveState) -> ReplyToken[SaveWeightsResponse]:
        """Save weights and optimizer."""
        return await self._take(operation_of(message))

    @handles(SaveWeightsForSampler)
    async def save_for_sampler(
        self, message: SaveWeightsForSampler
    ) -> ReplyToken[SaveWeightsForSamplerResult]:
        """Save weights to sample from."""
        return await self._take(operation_of(message))

    @handles(SaveWeightsExternal)
    async def save_external(self, message: SaveWeightsExternal) -> ReplyToken[SaveWeightsExternalResponse]:
        """Save weights for use elsewhere."""
        return await self._take(operation_of(message))

    @handles(LoadState)
    async def load_state(self, message: LoadState) -> ReplyToken[LoadWeightsResponse]:
        """Load weights."""
        return await self._take(operation_of(message))

    def _refuse_if_void(self, *, ends_step: bool) -> None:
        """Refuse what still belongs to a step that was given up; see `actors.void`."""
        void = self._lineage.void
        if void is None:
            return
        held = void.holds(self.context.call)
        if not held or (ends_step and not void.whole_line):
            self._lineage.void = None
        if held:
            raise void.error() from void.cause

    @handles(Revive)
    async def revive(self, _: Revive) -> None:
        """Go on with the model of an earlier process, or restore it."""
        await self._revival.resume()
        self._refuse_if_poisoned()

    @handles(Look)
    async def look(self, _: Look) -> None:
        """See whether the service still has the model."""
        self._refuse_if_poisoned()
        await self._revival.look()

    @handles(Unload)
    async def unload(self, _: Unload) -> Stop[None]:
        """Give the slot back when all that came before has its outcome."""
        await self._line.settled()
        self._lineage.unloaded = True
        await self._revival.give_slot_back()
        return Stop(None)

    async def _verify(self) -> None:
        """Make sure that a run's model is what it should be before anything more is sent to it."""
        if self._lineage.in_run:
            await self._verifying.check()
            self._refuse_if_poisoned()  # it may have found that the journal cannot be written

    def _refuse_if_poisoned(self) -> None:
        reason = self._lineage.poison or self._lineage.unwritten
        if reason is not None:
            raise reason.renewed()

    def _refuse(self, kind: OperationKind, error: Exception) -> ReplyToken[Any]:
        """Answer with an error that is known before anything was written, and do what follows for the step."""
        line, token = self._line, self.context.detach_reply()
        consequence = line.follow(kind, error, line.step, taken=False)
        token.fail(error)
        if line.is_left_behind(consequence):
            line.leave_behind(line.step, error)
        return token

    async def _take(
        self, operation: Operation, loss: CustomLoss | None = None, decision: Decision | None = None
    ) -> ReplyToken[Any]:
        self._refuse_if_poisoned()
        line, step = self._line, self._line.step
        await self._verify()
        try:
            [(record, prepared)] = await line.decide([operation], decision)
        except JournalFull as error:
            return self._refuse(operation.kind, error)
        if step.failure is not None and operation.kind in ("forward_backward", "optim_step"):
            line.take_back(record, prepared)  # another part of the step has failed meanwhile
            self._refuse_if_void(ends_step=operation.kind == "optim_step")
        token: ReplyToken[Any] = self.context.detach_reply(survives_restart=True)
        line.expect(record, token if loss is None else CustomAnswer(token, loss))
        await line.send(record, prepared)
        return token

    # --- ending ------------------------------------------------------------------------------------------

    async def on_drain(self) -> None:
        """Wait for the results of what was sent."""
        await self._line.settled()

    async def on_stop(self, ending: Ending) -> None:
        """Give the slot back, if this is the end of the model and not only of an incarnation."""
        if ending in ("crash", "restart") or self._lineage.unloaded:
            await trio.lowlevel.checkpoint()
            return
        await self._revival.give_slot_back()


def _refuse_if_refused(train: Train) -> None:
    """Refuse to hand over what was never decided."""
    for refusal in train.refusals:
        raise refusal.renewed()
