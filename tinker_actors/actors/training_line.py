"""What was sent to one incarnation of a model: its order, its results, and what follows from its failures.

Theory of operation. An operation is cut, its numbers are taken, its intent is written to the journal, and only then are
its requests sent; the waiting is left to a task. When the result is there, the journal is told and whoever waits is
answered. Whoever waits is kept in the `Lineage`, by the operation's position: it outlives the incarnation.

Operations that hold weights (a step, a save) are done when all that made those weights has its results. What a failure
means for the step around it is said by `protocol.step`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NoReturn

import trio

from tinker_actors.actors.event import EventHub
from tinker_actors.actors.lineage import Answer, Lineage
from tinker_actors.actors.session import Session
from tinker_actors.actors.submission import Accepted, Prepared, Sent, Submission, Submitter
from tinker_actors.actors.training_operation import checkpoint_path
from tinker_actors.actors.training_results import Results
from tinker_actors.actors.void import Void, step_void
from tinker_actors.actors.watcher import Watcher
from tinker_actors.errors import (
    JournalError,
    JournalFull,
    ModelLost,
    ModelPoisoned,
    ResultLost,
    StepVoid,
    TinkerError,
)
from tinker_actors.kernel import Context
from tinker_actors.protocol.event import ModelLostEvent, SamplerRebound
from tinker_actors.protocol.journal import STEP_ENDS, Decision, ModelFacts, Operation, PartSent, Record
from tinker_actors.protocol.plan import Reply, reply_of
from tinker_actors.protocol.recovery import classify, says_not_done
from tinker_actors.protocol.retry import says_early, says_used
from tinker_actors.protocol.step import CHANGING, SAVING, Consequence, OperationKind, Step, judge
from tinker_actors.protocol.witness import alone_from
from tinker_actors.wire.training import ForwardBackwardOutput
from tinker_actors.wire.weights import SaveWeightsForSamplerResult

__all__ = ["TrainingLine"]

# What these have made is worth what came before them: they are done when that has its results.
_HOLD_WEIGHTS: frozenset[OperationKind] = frozenset({"optim_step", *SAVING})


class TrainingLine:
    """What was sent to one incarnation of a model.

    Args:
        lineage: the model.
        context: of its actor; waiting is done in its tasks.
        session: the present session.
        submitter: sends.
        results: waits.
        events: where events go.

    Attributes:
        step: the one under way.
        losing: the incarnation is about to end.
        progress: set, and replaced, whenever an operation has got its outcome.
        unconfirmed: positions of what is replayed and has no result yet.
        unsent: positions of what is still to be replayed.
        watcher: looks whether the model of a run is what it should be.
        held: results are not asked for before this is set: it is not sure yet that the model is what it was.
    """

    def __init__(
        self,
        lineage: Lineage,
        context: Context[Any],
        session: Session,
        submitter: Submitter,
        results: Results,
        events: EventHub,
    ) -> None:
        self._lineage = lineage
        self._context = context
        self._session = session
        self._submitter = submitter
        self._results = results
        self._events = events
        self._changing: dict[int, None] = {}  # positions of what changes the model and has no result yet
        self._spoilt_after = math.inf  # the position of the first operation whose failure spoilt the model
        self.step = Step()
        self.losing = False
        self.progress = trio.Event()
        self.unconfirmed: set[int] = set()
        self.unsent: set[int] = set()
        self.held: trio.Event | None = None
        self.watcher: Watcher | None = None

    # --- deciding ----------------------------------------------------------------------------------------

    async def decide(
        self, operations: Sequence[Operation], decision: Decision | None = None
    ) -> list[tuple[Record, Prepared]]:
        """Write what is to be sent to the journal, in one transaction, with what was decided.

        Raises:
            JournalError: it cannot be written; nothing may be sent.
        """
        prepared = [self._submitter.prepare(operation) for operation in operations]
        positions: list[int] = []
        try:
            with trio.CancelScope(shield=True):  # else it might be written, and nobody would know
                positions = await self._lineage.journal.record([one.intent for one in prepared], decision)
        except JournalError as error:
            for one in prepared:
                self._submitter.release(one)
            if not isinstance(error, JournalFull):  # there may be room again
                self._lineage.unwritten = error
            raise
        return [
            (Record(position, one.operation), one) for position, one in zip(positions, prepared, strict=True)
        ]

    @property
    def latest(self) -> Accepted | None:
        """The latest request that the service has taken."""
        return self._submitter.latest

    def expect(self, record: Record, answer: Answer) -> None:
        """Note who waits for an operation, and that it is of the step under way if it is part of one."""
        self._lineage.waiting[record.position] = answer
        if record.operation.kind in ("forward_backward", "optim_step"):
            self.step.positions.append(record.position)

    # --- sending -----------------------------------------------------------------------------------------

    async def send(self, record: Record, prepared: Prepared, before: Sequence[PartSent] = ()) -> bool:
        """Send an operation's requests and leave the waiting to a task; False if the service refuses.

        Args:
            record: what is sent.
            prepared: its requests.
            before: what an earlier process knew of them.
        """
        operation, step, lineage = record.operation, self.step, self._lineage
        self.unsent.discard(record.position)
        is_gradient, is_end = operation.kind == "forward_backward", operation.kind == "optim_step"
        # Another part of the step may fail while this one is on its way, and must be judged as if it were there.
        step.gradients += is_gradient
        step.closed |= is_end
        if (is_gradient or is_end) and record.position not in step.positions:
            step.positions.append(record.position)

        lineage.savers |= {lineage.model_id} if operation.kind in SAVING else set()

        watcher, latest, reachability = self.watcher, self._submitter.latest, self._session.reachability
        interruptions = reachability.interruptions

        async def still_the_same() -> None:
            if watcher is not None:
                await watcher.between(latest)

        submission = await self._submitter.submit(
            prepared,
            lineage.model_id,
            lineage.epoch,
            partial(lineage.journal.accepted, record.position),
            before,
            still_the_same if is_end else None,
        )
        if submission.loss is not None:
            self.lose(submission.loss)
        if is_gradient and step.since is None:
            # Of several requests the first may have been taken at once; and so was one that is refused as a repetition.
            before_all = len(prepared.numbers) > 1 or any(one.may_be_older for one in submission.sent)
            step.since = interruptions if before_all else reachability.interruptions
            if watcher is not None and step.since != reachability.interruptions:
                watcher.doubt()  # whoever has looked meanwhile did not know of it
        step.gradients += is_gradient * (len(submission.sent) - 1)
        if submission.refusal is not None:
            step.closed &= not is_end
            step.decided &= not is_end  # if it goes on, its end will be another
            self._failed(record, prepared, submission.refusal, step, taken=False)
            return False
        self._note_sent(record, step)
        self._context.spawn(self._finish, record, prepared, submission.sent, step)
        return True

    def _note_sent(self, record: Record, step: Step) -> None:
        kind = record.operation.kind
        step.awaited += kind == "forward_backward"
        if kind == "optim_step":
            self.step = Step()
        if kind in CHANGING:
            self._changing[record.position] = None
        if self.watcher is not None:
            self.watcher.sent(record)

    def take_up(self, step: Sequence[Record], *, begun: bool) -> None:
        """Go on with a step that was decided before: if a part of it is left behind, all of it is.

        Args:
            step: all of it that is in the journal.
            begun: the model may have it already, its end included; and it has what has its result.
        """
        now = self.step
        if step[0].position in now.positions:
            return
        now.positions.extend(record.position for record in step)
        now.decided = True
        if begun:
            now.gradients += sum(record.done for record in step)
            now.closed = True

    def take_back(self, record: Record, prepared: Prepared) -> None:
        """Do not send an operation that was decided, because a gradient of its step has failed."""
        lineage = self._lineage
        self._submitter.release(prepared)
        lineage.journal.strike(record.position, freed=prepared.numbers)
        error = lineage.poison or lineage.void
        assert error is not None, "a gradient that fails has its consequences"
        self.answer(record.position, error.renewed() if isinstance(error, ModelPoisoned) else error.error())

    async def submit(self, operation: Operation) -> list[Sent]:
        """Send an operation that is no user's."""
        lineage, prepared = self._lineage, self._submitter.prepare(operation)
        return self._taken(await self._submitter.submit(prepared, lineage.model_id, lineage.epoch))

    def _taken(self, submission: Submission) -> list[Sent]:
        """Return what the service has taken.

        Raises:
            ModelLost: the model has to be restored.
            TinkerError: it was refused.
        """
        if submission.loss is not None:
            self.lose(submission.loss)
        if submission.refusal is not None:
            raise submission.refusal
        return submission.sent

    async def compute(self, operation: Operation) -> Reply:
        """Have an operation done that changes nothing.

        In a run the journal has to know of it: another process must not use its numbers for something else.

        Raises:
            JournalError: it cannot be written.
            TinkerError: why it failed.
        """
        lineage = self._lineage
        if not lineage.in_run:
            return await self._result_of(operation, await self.submit(operation))
        [(record, prepared)] = await self.decide([operation])
        accepted = partial(lineage.journal.accepted, record.position)
        try:
            submission = await self._submitter.submit(prepared, lineage.model_id, lineage.epoch, accepted)
            return await self._result_of(operation, self._taken(submission))
        finally:
            lineage.journal.strike(record.position, freed=self._submitter.numbers.freed(prepared.numbers))

    async def _result_of(self, operation: Operation, sent: list[Sent]) -> Reply:
        try:
            return reply_of(await self._results.of(operation, sent))
        except TinkerError as error:
            if self._is_loss(error, operation, sent):
                await self._lose_once(error)  # noqa: ASYNC120 - it never comes back
            raise

    # --- results -----------------------------------------------------------------------------------------

    async def _finish(self, record: Record, prepared: Prepared, sent: list[Sent], step: Step) -> None:
        kind, failure = record.operation.kind, None
        if self.held is not None and not self._is_first(record):
            await self.held.wait()
        try:
            reply: object = reply_of(await self._results.of(record.operation, sent))
        except ResultLost as error:
            reply = error
        except TinkerError as error:
            if await self._is_lost(error, record, sent):
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
            self._failed(record, prepared, failure, step, taken=True)

    async def _make_sure(self, record: Record) -> None:
        """Wait until it is sure that a result is no work of a model that was rolled back. A checkpoint only if not."""
        watcher = self.watcher
        if watcher is None or not watcher.suspicious or self._is_excused(record, watcher):
            return
        await self._turn(record)
        # It may become one of the first while it waits: then whoever tests may be waiting for it.
        await watcher.check(lambda: self._is_excused(record, watcher))

    def _is_excused(self, record: Record, watcher: Watcher) -> bool:
        """Whether it is no matter for a result if the model was rolled back."""
        return self._is_first(record) and not watcher.knows_creation

    def _is_first(self, record: Record) -> bool:
        """Whether an operation is of the first step after a saved state: what it gives is the same after a rollback."""
        if record.operation.kind != "forward_backward":
            return False
        return not any(
            one.position < record.position and one.operation.kind in STEP_ENDS for one in self.given
        )

    @property
    def given(self) -> list[Record]:
        """What was sent to the model since the latest saved state; what is still to be replayed was not."""
        return [record for record in self._lineage.journal.replay() if record.position not in self.unsent]

    @property
    def is_early(self) -> bool:
        """Whether the first step after the latest saved state has been sent, and its gradients have no results yet."""
        awaited = False
        for record in self.given:
            if record.operation.kind in STEP_ENDS:
                return awaited
            awaited |= record.operation.kind == "forward_backward" and not record.done
        return False

    async def _turn(self, record: Record) -> None:
        """Wait for the results of all that has made the weights that an operation applies to. A checkpoint."""
        await trio.lowlevel.checkpoint()
        while next(iter(self._changing), record.position) < record.position:
            await self.progress.wait()

    def _spoilt(self, record: Record, reply: object) -> object:
        """Return the reply to what was sent behind a void step: what it was computed with is worth nothing."""
        poison = self._lineage.poison
        if poison is None or record.position <= self._spoilt_after:
            return reply
        return reply if isinstance(reply, StepVoid) else poison.renewed()

    async def _succeeded(self, record: Record, reply: object) -> None:
        """Take note that an operation is done; its reply may be a `ResultLost`, or a `StepVoid`."""
        journal = self._lineage.journal
        while not record.done and self._lacks(record):
            await self.progress.wait()
        await self._make_sure(record)
        path = checkpoint_path(record.operation, reply)
        if path is not None:
            # What it holds must have its results first, in this model too, for they tell whether it was restored with
            # all that was saved. A loss meanwhile finds it not done, and does it again.
            while not journal.settled_before(record.position) or self._is_verifying(record.position):
                await self.progress.wait()
            if self._spoilt(record, reply) is reply:
                journal.checkpointed(record.position, path, record.operation.weights_access_token)
        reply = self._spoilt(record, reply)
        output = reply if isinstance(reply, ForwardBackwardOutput) else None
        if self.watcher is not None and record.done and output is not None:
            self.watcher.compare(record, output)
        journal.done(record.position, output, keep=self._note_publication(record, reply))
        self.confirm(record.position)
        self.answer(record.position, reply)
        if self.watcher is not None:
            self.watcher.had(record, reply)

    def _is_verifying(self, position: int) -> bool:
        """Whether something before it was replayed and has no result yet that could be compared."""
        return min(self.unconfirmed, default=position) < position

    def _lacks(self, record: Record) -> bool:
        """Whether something before it that was done has been sent again, and may fail: then it is made without that."""
        return bool(self.unconfirmed) and any(
            one.done and one.position in self.unconfirmed and one.operation.kind in CHANGING
            for one in self._lineage.journal.replay()
            if one.position < record.position
        )

    def answer(self, position: int, reply: object) -> None:
        """Answer whoever waits for an operation; nobody does if it was done before a loss."""
        token = self._lineage.waiting.pop(position, None)
        if token is not None and isinstance(reply, TinkerError):
            token.fail(reply)
        elif token is not None:
            token.settle(reply)
        self.wake()

    def wake(self) -> None:
        """Let everybody look again who waits for progress."""
        self.progress.set()
        self.progress = trio.Event()

    def confirm(self, position: int) -> None:
        """Note that an operation that was sent again has its result; with the last one, the restore has succeeded."""
        self.unconfirmed.discard(position)
        if self._lineage.restoring and not self.unconfirmed:
            self._lineage.restored()
            self.note_life()
            if self.watcher is not None:
                self.watcher.revived()

    def note_model(self) -> None:
        """Note the model that takes everything from now on, and the numbers that are used by now."""
        lineage, numbers = self._lineage, self._submitter.numbers
        facts = ModelFacts(
            model_id=lineage.model_id,
            session_id=self._session.session_id,
            model_seq=lineage.model_seq,
            next_number=numbers.next_new,
            sampler_seq=self._session.next_sampler_seq,
            free=numbers.free,
            loaded=lineage.loaded,
            alone_from=alone_from(lineage.loaded, lineage.journal.model, lineage.journal.replay()),
        )
        lineage.journal.made(facts)

    def note_life(self) -> None:
        """Note that the model has all that came before."""
        self.note_model()
        self._lineage.journal.revived()

    def drop(self, record: Record, error: TinkerError) -> None:
        """Never do an operation again that was sent before the loss."""
        self._lineage.journal.strike(record.position)
        self.confirm(record.position)
        self.answer(record.position, error)

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

    # --- failures ----------------------------------------------------------------------------------------

    def _failed(
        self, record: Record, prepared: Prepared, error: TinkerError, step: Step, *, taken: bool
    ) -> None:
        if record.done:  # it is part of the weights, so they cannot be restored without it
            self._failed_again(record, error)
            return
        self._events.report(error)
        consequence = self.follow(record.operation.kind, error, step, taken=taken)
        if self.is_left_behind(consequence):
            self.answer(record.position, error)
            self.leave_behind(step, error, record)
        self.confirm(record.position)
        freed = self._submitter.numbers.freed(prepared.numbers)
        self._lineage.journal.strike(record.position, freed=freed)
        if consequence == "poison":
            self._spoilt_after = min(self._spoilt_after, record.position)
        self.answer(record.position, error)

    def is_left_behind(self, consequence: Consequence) -> bool:
        """Whether a step is answered with a new model, which gets everything but that step."""
        return self._lineage.in_run and consequence in ("poison", "hold")

    def leave_behind(self, step: Step, error: Exception, failed: Record | None = None) -> NoReturn:
        """End this incarnation; the next one makes a model that never had this step.

        It is struck out only when that model is there: until then it is in the one that there is.

        Args:
            step: what is left behind.
            error: why.
            failed: the operation that failed, if it was written.
        """
        lineage, void = self._lineage, step_void(error, started=True)
        gone = {*step.positions, *(() if failed is None else (failed.position,))}
        lineage.left_behind.extend(sorted(gone))
        lineage.excused = True
        for position in gone:
            self.answer(position, void.renewed())
        if not (step.closed or step.decided or (failed is not None and failed.operation.kind in STEP_ENDS)):
            lineage.void = Void.of_line(error, self._context, whole_line=False)  # the rest is still in line
        self.lose(void)

    def follow(self, kind: OperationKind, error: Exception, step: Step, *, taken: bool) -> Consequence:
        """Do what follows for its step from an operation's failure, and return what that is.

        What is left behind is left to the caller: whoever waits is answered first.
        """
        if kind == "forward_backward" and step.failure is None:
            step.failure = error
        certain = not taken or says_not_done(error)
        consequence = judge(kind, step, taken=taken, certain=certain)
        if self.is_left_behind(consequence):
            return consequence
        match consequence:
            case "poison":
                self.poison(error)
            case "hold":
                self._lineage.void = Void.of_line(error, self._context, whole_line=True)
            case "void":
                self._lineage.void = Void.of_line(error, self._context, whole_line=False)
                if self.step is step:
                    self.step = Step()
            case "fail":
                pass
        return consequence

    async def _is_lost(self, error: TinkerError, record: Record, sent: list[Sent]) -> bool:  # noqa: ASYNC910 - seldom
        """Whether a result that failed means that the model is made again; in a run that may have more reasons."""
        if self._is_loss(error, record.operation, sent):
            return True
        if not self._lineage.in_run:
            return False
        if says_early(str(error)):
            await self._turn(record)  # what failed before it has consequences of its own
            return True
        # It was published, and nobody knows as what.
        return record.operation.is_unnamed and says_used(str(error))

    def _is_loss(self, error: TinkerError, operation: Operation, sent: list[Sent]) -> bool:
        """Whether a result that failed says that the model is gone, or may have changed."""
        return any(one.sends.is_fence for one in sent) or classify(error, operation.kind) == "gone"

    async def _lose_once(self, cause: TinkerError) -> NoReturn:
        """End this incarnation; who finds out while it ends waits for that."""
        if not self.losing:
            self.lose(cause)
        await trio.sleep_forever()

    def _failed_again(self, record: Record, error: TinkerError) -> None:
        """Something that was done before the loss was sent again, and failed."""
        publication = self._lineage.publication_at(record.position)
        if publication is None:
            self.lose(error)
        self._lineage.forget(publication)
        self.confirm(record.position)
        self.wake()

    def lose(self, cause: TinkerError) -> NoReturn:
        """End this incarnation: the model has to be restored."""
        model_id = self._lineage.model_id
        self.losing = True
        self._events.publish(ModelLostEvent(model_id, str(cause), len(self._lineage.waiting)))
        known = isinstance(cause, ModelLost)  # it says what has become of the model, or that nobody knows
        message = str(cause) if known else f"the state of model {model_id} on the service is lost: {cause}"
        raise ModelLost(message, model_id=model_id) from cause

    def poison(self, cause: Exception) -> ModelPoisoned:
        """Send nothing to this model any more."""
        if self._lineage.poison is None:
            model_id = self._lineage.model_id
            poison = ModelPoisoned(f"model {model_id} is not used any more: {cause}", model_id=model_id)
            poison.__cause__ = cause
            self._lineage.poison = poison
            self._lineage.tell()
        return self._lineage.poison

    async def settled(self) -> None:
        """Wait until all that was sent has its outcome. A checkpoint."""
        await trio.lowlevel.checkpoint()
        while self._lineage.waiting:
            await self.progress.wait()
