"""The TrainingActor: one per model. Its mailbox order is the order on the wire.

Theory of operation. A message is turned into an operation, the operation is written to the journal, its
requests are sent one after the other, and the actor takes its next message at once; results are waited for in
tasks of their own, so `optim_step` is on the wire while `forward_backward` still runs. A request the service
refuses hands its number to the next one: there is no hole.

What outlives an incarnation is the `Lineage`: how the model was made, the journal, and who waits for what. If
the service loses the model, or it is not known whether a request was carried out, the incarnation ends with
`ModelLost` and its supervisor starts the next one, which makes a *new* model, loads the latest checkpoint with
the optimizer's state, sends what came after again, and goes on with the mailbox. The old model's id is never
addressed again, except to unload it. Callers notice nothing but time.

No partial gradient is kept: see `protocol.step`.

A service that refuses a number it has seen may say, when a doubtful request is sent again, that it has carried it out
(`protocol.retry`). Then the operation is done: its number is used up, nothing is restored, and the caller gets
`ResultLost`, for the effect is there and only the answer is not.
"""

from __future__ import annotations

import math
import random
from typing import Any, NoReturn

import trio

from tinker_actors.actors.custom_loss import CustomAnswer, CustomLosses
from tinker_actors.actors.event import EventHub
from tinker_actors.actors.lineage import Lineage, StartState
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
from tinker_actors.actors.restoring import Restoring
from tinker_actors.actors.session import Session
from tinker_actors.actors.submission import Sent, Submitter
from tinker_actors.actors.training_operation import checkpoint_path, load_operation, operation_of
from tinker_actors.actors.training_results import Results
from tinker_actors.actors.void import Void, step_void
from tinker_actors.errors import (
    APIStatusError,
    APITimeoutError,
    InputError,
    ModelLost,
    ModelPoisoned,
    RequestFailedError,
    ResultLost,
    StepVoid,
    TinkerError,
)
from tinker_actors.kernel import Actor, ActorRef, Ending, ReplyToken, Stop, handles
from tinker_actors.protocol.custom_loss import CustomLoss, backward_data
from tinker_actors.protocol.event import ModelLostEvent, ModelRestored, SamplerRebound
from tinker_actors.protocol.journal import Operation, Record
from tinker_actors.protocol.plan import Reply, reply_of
from tinker_actors.protocol.recovery import classify, is_refusal_of_key, says_not_done
from tinker_actors.protocol.step import CHANGING, Consequence, OperationKind, Step, judge
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

_LOAD_LIMIT = 3600.0  # seconds that loading a saved state may take while the service can be reached
# Seconds for a model to give its slot back: who leaves does not wait for a service that is gone.
_LAST_WORD = 3.0
# What these have made is worth what came before them: they are done when that has its results.
_HOLD_WEIGHTS: frozenset[OperationKind] = frozenset(
    {"optim_step", "save_state", "save_for_sampler", "save_external"}
)


class TrainingActor(Actor[Training]):
    """Trains one model; see the module."""

    declares = (InputError, ModelPoisoned, StepVoid)

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
        self._submitter = Submitter(transport, session)
        self._results = Results(lineage, transport, futures, self._submitter.result_failed)
        self._restoring = Restoring(lineage, transport, session, futures, events, rng)
        inline = transport.config.heartbeat == "loop"
        self._custom = CustomLosses(self._compute, None if inline else lineage.losses)
        self._unconfirmed: set[int] = set()
        self._step = Step()
        self._changing: dict[
            int, None
        ] = {}  # positions of what changes the model, as long as it has no result
        self._spoilt_after = (
            math.inf
        )  # the position of the first operation whose failure has spoilt the model
        self._losing = False
        self._progress = trio.Event()

    # --- coming to life ----------------------------------------------------------------------------------

    async def on_start(self) -> None:
        """Make the model; after a loss, restore it."""
        self._lineage.actor = self.context.ref
        if self._lineage.poison is not None:
            self._give_up(self._lineage.poison)
            await trio.lowlevel.checkpoint()
        elif self._lineage.info is None:
            await self._restoring.begin()
            await self._load_first()
            self.context.spawn(self._end_with_session)
        else:
            await self._restore()

    async def _restore(self) -> None:
        lineage, journal = self._lineage, self._lineage.journal
        rung = self._restoring.next_rung(self.context.last_failure)
        if rung == "poison":
            self._give_up(lineage.first_cause or _unknown_loss(lineage.model_id))
            return
        if not journal.complete:
            message = "more was trained since the last save_state than the replay log holds"
            self._give_up(ModelLost(message, model_id=lineage.model_id))
            return
        old_id = lineage.model_id
        async with self._restoring.slot():
            try:
                await self._restoring.make_again(rung)
            except TinkerError as error:
                if not is_refusal_of_key(error):
                    raise
                self._give_up(error)
                return
            self.context.spawn(self._end_with_session)
            state = self._restoring.to_load
            if state is not None and not await self._load(state):
                return
            records = [record for record in journal.replay() if self._is_needed(record)]
            self._unconfirmed = {record.position for record in records}
            await self._replay(records)
        self._events.publish(
            ModelRestored(
                old_model_id=old_id,
                model_id=lineage.model_id,
                checkpoint=None if lineage.state is None else lineage.state.path,
                replayed=len(records),
                steps=sum(record.operation.kind == "optim_step" for record in records),
            )
        )
        self._confirm(-1)

    async def _replay(self, records: list[Record]) -> None:
        """Send operations again; what fails now has the consequences that it would have had for what stood in line."""
        lineage, before = self._lineage, self._lineage.void
        for record in records:
            void = None if lineage.void is before else lineage.void
            if lineage.poison is not None:
                self._drop(record, lineage.poison.renewed())
            elif void is None or record.operation.kind not in ("forward_backward", "optim_step"):
                await self._send(record)
            else:
                self._drop(record, void.error())
                if record.operation.kind == "optim_step" and not void.whole_line:
                    lineage.void = before

    def _drop(self, record: Record, error: TinkerError) -> None:
        """Never do an operation again that was sent before the loss."""
        self._lineage.journal.strike(record.position)
        self._confirm(record.position)
        self._answer(record.position, error)

    async def _end_with_session(self) -> None:
        """End this incarnation when the session ends that its model was made in."""
        await self._session.left(self._lineage.epoch)
        if self._lineage.poison is None and not self._losing:
            model_id = self._lineage.model_id
            self._lose(ModelLost(f"the session of model {model_id} has ended", model_id=model_id))

    def _is_needed(self, record: Record) -> bool:
        """Whether an operation has to be sent again: of publications only those that somebody still samples from."""
        if record.operation.kind != "save_for_sampler" or not record.done:
            return True
        publication = self._lineage.publication_at(record.position)
        if publication is None or publication.is_over:
            self._lineage.journal.release(record.position)
            return False
        target = None if publication.target is None else publication.target()
        return target is None or not self._session.is_current(target.epoch)

    def _confirm(self, position: int) -> None:
        """Note that an operation that was sent again has its result; with the last one, the restore has succeeded."""
        self._unconfirmed.discard(position)
        if self._lineage.restoring and not self._unconfirmed:
            self._lineage.restored()

    def _give_up(self, cause: TinkerError) -> None:
        """There is nothing to restore from: poison the model and tell everybody who waits."""
        poison = self._poison(cause)
        for token in self._lineage.waiting.values():
            token.fail(poison.renewed())
        self._lineage.waiting.clear()
        self._lineage.given_up[self._lineage.model_id] = None
        self.context.spawn(self._restoring.unload_given_up)
        self._lineage.tell()

    async def _load_first(self) -> None:
        """Load the state that a new model starts from; if it cannot be loaded, the model gives its slot back.

        Raises:
            TinkerError: why it cannot be loaded.
        """
        state = self._restoring.to_load
        if state is None:
            return
        operation = load_operation(state)
        try:
            for sent in await self._submit(operation):
                await self._results.of_one(operation, sent)
        except ResultLost:
            return
        except TinkerError:
            with trio.CancelScope(shield=True):
                await self._give_slot_back()
            raise

    async def _load(self, state: StartState) -> bool:
        """Load the saved state; False, and the model is poisoned, if neither it nor an older one can be had.

        Raises:
            ModelLost: it is gone, and there is an older one: the next incarnation loads that into a new model.
        """
        operation = load_operation(state)
        try:
            with trio.CancelScope() as scope:
                self.context.spawn(self._limit_load, scope)
                for sent in await self._submit(operation):
                    await self._results.of_one(operation, sent)
        except ResultLost:
            return True
        except (APIStatusError, RequestFailedError) as error:
            if classify(error, "load_state") is not None:
                self._lose(error)
            if not self._lineage.journal.fall_back():
                self._give_up(error)
                return False
            self._lose(error)
        if scope.cancelled_caught:
            path = state.path
            self._lose(APITimeoutError(f"loading {path} took longer than {_LOAD_LIMIT:g} s", doubtful=True))
        return True

    async def _limit_load(self, scope: trio.CancelScope) -> None:
        """End a load that takes too long, unless it is the service that is out of reach."""
        while True:
            await trio.sleep(_LOAD_LIMIT)
            if await self._session.reachability.is_there():
                scope.cancel(reason="the load takes too long")
                return

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
            loss = await self._custom.compute(message)
        except ModelLost:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the user's function raises is the answer
            token: ReplyToken[ForwardBackwardOutput] = self.context.detach_reply()
            self._follow("forward_backward", error, self._step, taken=False)
            token.fail(error)
            return token
        self._refuse_if_void(ends_step=False)  # another part of the step may have failed meanwhile
        operation = Operation(kind="forward_backward", data=backward_data(message.forward, loss))
        return await self._take(operation, loss)

    async def _compute(self, operation: Operation) -> Reply:
        """Have an operation done that changes nothing, and that the journal needs not know."""
        sent = await self._submit(operation)
        try:
            return reply_of(await self._results.of(operation, sent))
        except TinkerError as error:
            if self._is_loss(error, operation, sent):
                await self._lose_once(error)  # noqa: ASYNC120 - it never comes back
            raise

    @handles(OptimStep)
    async def optim_step(self, message: OptimStep) -> ReplyToken[OptimStepResponse]:
        """Apply the gradient."""
        step = self._step
        while message.confirm and step.awaited:
            await self._progress.wait()
        self._refuse_if_void(ends_step=True)
        if message.confirm and step.failure is not None:  # the model is poisoned: other gradients are there
            raise step_void(step.failure) from step.failure
        return await self._take(operation_of(message))

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

    @handles(Unload)
    async def unload(self, _: Unload) -> Stop[None]:
        """Give the slot back when all that came before has its outcome."""
        await self._settled()
        self._lineage.unloaded = True
        await self._give_slot_back()
        return Stop(None)

    def _refuse_if_poisoned(self) -> None:
        if self._lineage.poison is not None:
            raise self._lineage.poison.renewed()

    async def _take(self, operation: Operation, loss: CustomLoss | None = None) -> ReplyToken[Any]:
        self._refuse_if_poisoned()
        token: ReplyToken[Any] = self.context.detach_reply(survives_restart=True)
        position = self._lineage.journal.record(operation)
        self._lineage.waiting[position] = token if loss is None else CustomAnswer(token, loss)
        await self._send(Record(position, operation))
        return token

    # --- sending -----------------------------------------------------------------------------------------

    async def _send(self, record: Record) -> None:
        """Send an operation's requests and leave the waiting to a task."""
        operation, step, lineage = record.operation, self._step, self._lineage
        is_gradient = operation.kind == "forward_backward"
        # Another part of the step may fail while this one is on its way, and must be judged as if it were there.
        step.gradients += is_gradient
        step.closed = operation.kind == "optim_step"
        submission = await self._submitter.submit(operation, lineage.model_id, lineage.epoch)
        if submission.loss is not None:
            self._lose(submission.loss)
        step.gradients += is_gradient * (len(submission.sent) - 1)
        if submission.refusal is not None:
            step.closed = False
            self._failed(record, submission.refusal, step, taken=False)
            return
        step.awaited += is_gradient
        if step.closed:
            self._step = Step()
        if operation.kind in CHANGING:
            self._changing[record.position] = None
        self.context.spawn(self._finish, record, submission.sent, step)

    async def _submit(self, operation: Operation) -> list[Sent]:
        """Send an operation that is no user's."""
        lineage = self._lineage
        submission = await self._submitter.submit(operation, lineage.model_id, lineage.epoch)
        if submission.loss is not None:
            self._lose(submission.loss)
        if submission.refusal is not None:
            raise submission.refusal
        return submission.sent

    # --- results -----------------------------------------------------------------------------------------

    async def _finish(self, record: Record, sent: list[Sent], step: Step) -> None:
        kind, failure = record.operation.kind, None
        try:
            reply: object = reply_of(await self._results.of(record.operation, sent))
        except ResultLost as error:
            reply = error
        except TinkerError as error:
            if self._is_loss(error, record.operation, sent):
                await self._lose_once(error)
            reply = failure = error
        if kind == "forward_backward":
            step.awaited -= 1
            step.gradients -= failure is not None
        elif kind in _HOLD_WEIGHTS:
            await self._turn(record)
        if kind == "optim_step" and step.failure is not None:
            void = step_void(step.failure, started=True)
            reply, failure = void, failure and void
        self._changing.pop(record.position, None)
        if failure is None:
            await self._succeeded(record, reply)
        else:
            self._failed(record, failure, step, taken=True)

    async def _turn(self, record: Record) -> None:
        """Wait for the results of all that has made the weights that an operation applies to. A checkpoint."""
        await trio.lowlevel.checkpoint()
        while next(iter(self._changing), record.position) < record.position:
            await self._progress.wait()

    def _spoilt(self, record: Record, reply: object) -> object:
        """Return the reply to what was sent behind a void step: what it was computed with is worth nothing."""
        poison = self._lineage.poison
        if poison is None or record.position <= self._spoilt_after:
            return reply
        return reply if isinstance(reply, StepVoid) else poison.renewed()

    async def _succeeded(self, record: Record, reply: object) -> None:
        """Take note that an operation is done; its reply may be a `ResultLost`, or a `StepVoid`."""
        journal = self._lineage.journal
        path = checkpoint_path(record.operation, reply)
        if path is not None:
            # What it holds must have its results first; a loss meanwhile finds it not done, and does it again.
            while not journal.settled_before(record.position):
                await self._progress.wait()
            if self._spoilt(record, reply) is reply:
                journal.checkpointed(record.position, path, record.operation.weights_access_token)
        reply = self._spoilt(record, reply)
        journal.done(record.position, keep=self._note_publication(record, reply))
        self._confirm(record.position)
        self._answer(record.position, reply)

    def _answer(self, position: int, reply: object) -> None:
        """Answer whoever waits for an operation; nobody does if it was done before a loss."""
        token = self._lineage.waiting.pop(position, None)
        if token is not None and isinstance(reply, TinkerError):
            token.fail(reply)
        elif token is not None:
            token.settle(reply)
        self._progress.set()
        self._progress = trio.Event()

    def _note_publication(self, record: Record, reply: object) -> bool:
        """Note weights that were published without a name; True if they are to be published again after a loss."""
        if not isinstance(reply, SaveWeightsForSamplerResult) or reply.sampling_session_id is None:
            return False
        lineage = self._lineage
        known = lineage.publication_at(record.position)
        if known is None:
            lineage.published(record.position, reply.sampling_session_id)
            return True
        known.sampling_session_id = reply.sampling_session_id
        target = None if known.target is None else known.target()
        if target is not None:
            before = target.sampling_session_id
            target.rebind(reply.sampling_session_id, lineage.epoch)
            self._events.publish(SamplerRebound(before, reply.sampling_session_id))
        lineage.tell()
        return True

    def _failed(self, record: Record, error: TinkerError, step: Step, *, taken: bool) -> None:
        if record.done:  # it is part of the weights, so they cannot be restored without it
            self._failed_again(record, error)
            return
        self._confirm(record.position)
        self._lineage.journal.strike(record.position)
        self._events.report(error)
        if self._follow(record.operation.kind, error, step, taken=taken) == "poison":
            self._spoilt_after = min(self._spoilt_after, record.position)
        self._answer(record.position, error)

    def _follow(self, kind: OperationKind, error: Exception, step: Step, *, taken: bool) -> Consequence:
        """Do what follows for its step from an operation's failure, and return what that is."""
        if kind == "forward_backward" and step.failure is None:
            step.failure = error
        certain = not taken or says_not_done(error)
        match consequence := judge(kind, step, taken=taken, certain=certain):
            case "poison":
                self._poison(error)
            case "hold":
                self._lineage.void = Void.of_line(error, self.context, whole_line=True)
            case "void":
                self._lineage.void = Void.of_line(error, self.context, whole_line=False)
                if self._step is step:
                    self._step = Step()
            case "fail":
                pass
        return consequence

    def _is_loss(self, error: TinkerError, operation: Operation, sent: list[Sent]) -> bool:
        """Whether a result that failed says that the model is gone, or may have changed."""
        return any(one.sends.is_fence for one in sent) or classify(error, operation.kind) == "gone"

    async def _lose_once(self, cause: TinkerError) -> NoReturn:
        """End this incarnation; who finds out while it ends waits for that."""
        if not self._losing:
            self._lose(cause)
        await trio.sleep_forever()

    def _failed_again(self, record: Record, error: TinkerError) -> None:
        """Something that was done before the loss was sent again, and failed."""
        publication = self._lineage.publication_at(record.position)
        if publication is None:
            self._lose(error)
        self._lineage.forget(publication)
        self._confirm(record.position)

    def _lose(self, cause: TinkerError) -> NoReturn:
        """End this incarnation: the model has to be restored."""
        model_id = self._lineage.model_id
        self._losing = True
        self._events.publish(ModelLostEvent(model_id, str(cause), len(self._lineage.waiting)))
        message = f"the state of model {model_id} on the service is lost: {cause}"
        raise ModelLost(message, model_id=model_id) from cause

    def _poison(self, cause: Exception) -> ModelPoisoned:
        """Send nothing to this model any more."""
        if self._lineage.poison is None:
            model_id = self._lineage.model_id
            poison = ModelPoisoned(f"model {model_id} is not used any more: {cause}", model_id=model_id)
            poison.__cause__ = cause
            self._lineage.poison = poison
            self._lineage.tell()
        return self._lineage.poison

    # --- ending ------------------------------------------------------------------------------------------

    async def on_drain(self) -> None:
        """Wait for the results of what was sent."""
        await self._settled()

    async def _settled(self) -> None:
        """Wait until all that was sent has its outcome. A checkpoint."""
        await trio.lowlevel.checkpoint()
        while self._lineage.waiting:
            await self._progress.wait()

    async def on_stop(self, ending: Ending) -> None:
        """Give the slot back, if this is the end of the model and not only of an incarnation."""
        if ending in ("crash", "restart") or self._lineage.unloaded:
            await trio.lowlevel.checkpoint()
            return
        await self._give_slot_back()

    async def _give_slot_back(self) -> None:
        """Unload the model as well as may be: the newest services have no such call and free it with the session."""
        with trio.move_on_after(_LAST_WORD):
            await self._restoring.unload(self._lineage.model_id)


def _unknown_loss(model_id: str) -> ModelLost:
    return ModelLost("its actor has failed again and again while it was restored", model_id=model_id)
