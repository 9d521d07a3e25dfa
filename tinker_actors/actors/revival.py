"""How an incarnation of a model comes to life: made, or made again after a loss and given what came before.

Theory of operation. The first incarnation makes the model. Each later one makes a *new* model, loads the latest saved
state into it with the optimizer's state, and sends what came after again (`protocol.journal`); then it takes its
messages, which have kept their order. The restore has succeeded when everything that was sent again has its result.

The first incarnation on the journal of an earlier process goes on with that process's model, if it may
(`actors.reattaching`), and restores it else. It does so in its first message: a start that fails has failed for good, a
message is handled again by the next incarnation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import trio

from tinker_actors.actors.event import EventHub
from tinker_actors.actors.lineage import Lineage, Resumed, StartState
from tinker_actors.actors.reattaching import Reattaching
from tinker_actors.actors.restoring import Restoring
from tinker_actors.actors.session import Session
from tinker_actors.actors.submission import Submitter
from tinker_actors.actors.training_line import TrainingLine
from tinker_actors.actors.training_operation import load_operation
from tinker_actors.actors.training_results import Results
from tinker_actors.actors.verifying import Verifying
from tinker_actors.errors import (
    APIStatusError,
    APITimeoutError,
    JournalError,
    ModelLost,
    RequestFailedError,
    RestoreMismatch,
    ResultLost,
    TinkerError,
)
from tinker_actors.kernel import Context
from tinker_actors.protocol.event import ModelRestored
from tinker_actors.protocol.journal import Record
from tinker_actors.protocol.reattach import decided
from tinker_actors.protocol.recovery import classify, is_refusal_of_key, says_state_gone

__all__ = ["Revival"]

_LOAD_LIMIT = 3600.0  # seconds that loading a saved state may take while the service can be reached
# Seconds for a model to give its slot back: who leaves does not wait for a service that is gone.
_LAST_WORD = 3.0


class Revival:
    """Brings one incarnation of a model to life.

    Args:
        lineage: the model.
        context: of its actor.
        session: the present session.
        line: what is sent to it.
        submitter: has its numbers.
        results: waits for results.
        restoring: makes models.
        events: where events go.
        reattaching: goes on with models of earlier processes.
        verifying: looks whether the model is what it should be.
    """

    def __init__(
        self,
        lineage: Lineage,
        context: Context[Any],
        session: Session,
        line: TrainingLine,
        submitter: Submitter,
        results: Results,
        restoring: Restoring,
        events: EventHub,
        reattaching: Reattaching,
        verifying: Verifying,
    ) -> None:
        self._lineage = lineage
        self._context = context
        self._session = session
        self._line = line
        self._submitter = submitter
        self._results = results
        self._restoring = restoring
        self._events = events
        self._reattaching = reattaching
        self._verifying = verifying

    async def begin(self) -> None:
        """Make the model; after a loss, restore it. Always a checkpoint."""
        lineage = self._lineage
        end = lineage.poison or lineage.doom
        if end is not None:
            self._give_up(end)
            await trio.lowlevel.checkpoint()
        elif lineage.resuming:  # that is for its first message, which may fail as often as it takes
            await trio.lowlevel.checkpoint()
        elif not lineage.model_id:
            await self._restoring.begin()
            self._line.note_model()
            await self._load_first()
            self._line.note_life()
            self._context.spawn(self._end_with_session)
        else:
            await self._restore()

    async def resume(self) -> None:
        """Go on with the model of an earlier process if nothing speaks against it; else restore it. Once."""
        lineage, model = self._lineage, self._lineage.journal.model
        if not lineage.resuming or model is None:
            await trio.lowlevel.checkpoint()
            return
        lineage.resuming, lineage.succeeds = False, True
        lineage.savers.add(model.model_id)  # an earlier process may have saved something
        lineage.model_id, lineage.model_seq, lineage.epoch = (
            model.model_id,
            model.model_seq,
            self._session.epoch,
        )
        lineage.loaded = model.loaded
        try:
            attached = await self._reattaching.attach()
        except ModelLost as error:  # restored by the next incarnation, which says why
            lineage.why = str(error.__cause__ or error)
            raise
        if attached is not None:
            self._events.publish(attached)
            self._context.spawn(self._end_with_session)
            return
        await self._restore()

    async def look(self) -> None:
        """See whether the service still has the model. Always a checkpoint.

        Raises:
            ModelLost: it has not.
        """
        try:
            await self._restoring.learn()
        except TinkerError as error:
            if classify(error, "forward") == "gone":
                self._line.lose(error)

    async def _restore(self) -> None:
        lineage, journal = self._lineage, self._lineage.journal
        rung = self._restoring.next_rung(self._context.last_failure)
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
            latest = journal.checkpoint
            lineage.loaded = None if latest is None else latest.position
            self._line.note_model()
            self._leave_behind()
            self._context.spawn(self._end_with_session)
            if lineage.info is None:
                await self._restoring.learn()
            state = self._restoring.to_load
            self._verifying.begin()
            if state is not None:
                await self._verifying.look_at_creation()
                if not await self._load(state):
                    return
            records = [record for record in journal.replay() if self._is_needed(record)]
            self._line.unconfirmed = {record.position for record in records}
            self._line.unsent = set(self._line.unconfirmed)
            try:
                sent = await self._replay(records)
            except JournalError as error:
                self._give_up(error)
                return
        self._tell(old_id, sent)
        self._line.confirm(-1)

    def _leave_behind(self) -> None:
        """Strike out what the old model had and the new one is not to have."""
        for position in self._lineage.left_behind:
            self._lineage.journal.strike(position)
        self._lineage.left_behind = []

    def _tell(self, old_id: str, records: Sequence[Record]) -> None:
        """Tell that the model is there again."""
        lineage = self._lineage
        checkpoint = None if lineage.state is None else lineage.state.path
        steps = sum(record.operation.kind == "optim_step" for record in records)
        cause = lineage.first_cause
        why = lineage.why or ("" if cause is None else str(cause.__cause__ or cause))
        if lineage.resumed is None and lineage.succeeds:
            lineage.resumed = Resumed(how="restored", checkpoint=checkpoint, steps=steps, why=why)
        lineage.why = ""
        self._events.publish(
            ModelRestored(
                old_model_id=old_id,
                model_id=lineage.model_id,
                checkpoint=checkpoint,
                replayed=len(records),
                steps=steps,
                why=why,
            )
        )

    async def _replay(self, records: Sequence[Record]) -> list[Record]:
        """Send operations again; return those that were sent.

        What fails now has the consequences that it would have had for what stood in line.
        """
        lineage, before, sent = self._lineage, self._lineage.void, list[Record]()
        steps = decided(records)
        for record in records:
            operation = await lineage.journal.read(record)  # what happens meanwhile counts
            if lineage.in_run:
                await self._verifying.check()  # it may have been set back since it was made
            void = None if lineage.void is before else lineage.void
            if lineage.poison is not None:
                self._line.drop(record, lineage.poison.renewed())
            elif void is None or record.operation.kind not in ("forward_backward", "optim_step"):
                if record.position in steps:
                    self._line.take_up(steps[record.position], begun=False)
                await self._line.send(record, self._submitter.prepare(operation, record.plan))
                sent.append(record)
            else:
                self._line.drop(record, void.error())
                if record.operation.kind == "optim_step" and not void.whole_line:
                    lineage.void = before
        return sent

    async def _end_with_session(self) -> None:
        """End this incarnation when the session ends that its model was made in."""
        await self._session.left(self._lineage.epoch)
        if self._lineage.poison is None and not self._line.losing:
            model_id = self._lineage.model_id
            self._line.lose(ModelLost(f"the session of model {model_id} has ended", model_id=model_id))

    def _is_needed(self, record: Record) -> bool:
        """Whether an operation has to be sent again: of publications only those that somebody still samples from."""
        if record.operation.kind == "forward" and record.position not in self._lineage.waiting:
            self._lineage.journal.strike(record.position)
            return False
        if record.operation.kind != "save_for_sampler" or not record.done:
            return True
        publication = self._lineage.publication_at(record.position)
        if publication is None or publication.is_over:
            self._lineage.journal.release(record.position)
            return False
        target = None if publication.target is None else publication.target()
        return target is None or target.dropped or not self._session.is_current(target.epoch)

    def _give_up(self, cause: TinkerError | JournalError | RestoreMismatch) -> None:
        """There is nothing to restore from: poison the model and tell everybody who waits."""
        poison = self._line.poison(cause)
        for token in self._lineage.waiting.values():
            token.fail(poison.renewed())
        self._lineage.waiting.clear()
        self._lineage.given_up[self._lineage.model_id] = None
        self._context.spawn(self._restoring.unload_given_up)
        self._lineage.tell()

    # --- loading -----------------------------------------------------------------------------------------

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
            for sent in await self._line.submit(operation):
                await self._results.of_one(operation, sent)
        except ResultLost:
            return
        except TinkerError:
            with trio.CancelScope(shield=True):
                await self.give_slot_back()
            raise

    async def _load(self, state: StartState) -> bool:
        """Load the saved state; False, and the model is poisoned, if neither it nor an older one can be had.

        Raises:
            ModelLost: it was not loaded; the next incarnation loads it, or one before it, into a new model.
        """
        operation, lineage, line = load_operation(state), self._lineage, self._line
        try:
            with trio.CancelScope() as scope:
                self._context.spawn(self._limit_load, scope)
                for sent in await line.submit(operation):
                    await self._results.of_one(operation, sent)
        except ResultLost:
            return True
        except (APIStatusError, RequestFailedError) as error:
            loss = classify(error, "load_state")
            if loss != "gone" and not lineage.not_loaded(state.path, gone=says_state_gone(error)):
                self._give_up(error)
                return False
            line.lose(error)
        if scope.cancelled_caught:
            path = state.path
            lineage.not_loaded(path, gone=False)
            line.lose(APITimeoutError(f"loading {path} took longer than {_LOAD_LIMIT:g} s", doubtful=True))
        return True

    async def _limit_load(self, scope: trio.CancelScope) -> None:
        """End a load that takes too long, unless it is the service that is out of reach."""
        while True:
            await trio.sleep(_LOAD_LIMIT)
            if await self._session.reachability.is_there():
                scope.cancel(reason="the load takes too long")
                return

    async def give_slot_back(self) -> None:
        """Unload the model as well as may be: the newest services have no such call and free it with the session."""
        with trio.move_on_after(_LAST_WORD):
            await self._restoring.unload(self._lineage.model_id)


def _unknown_loss(model_id: str) -> ModelLost:
    return ModelLost("its actor has failed again and again while it was restored", model_id=model_id)
