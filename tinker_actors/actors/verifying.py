"""Making sure that a model of a run is what it should be: not rolled back, and restored with all that was saved.

Theory of operation. After anything that may have been a restart of the service, and before anything more is sent to the
model, one datum of the step that followed each usable saved state is computed again. A model that gives what it gave
right after the saved state has lost the steps since: it is made again. The same is done before a saved state counts as
one, and when a process goes on with the model of an earlier one. While a model is restored it is done before each
operation that is sent again; what was not sent again yet is not expected of it. A service may also say by itself that
a model is corrupted.

A service may say that no model survives its restart; then nothing of this has to be found out.

In the first step after a saved state no result tells: a model that was set back to the very same weights has lost
nothing but the gradients that it had accumulated. If there were any, it is made again.

After a restore, what the two steps after the saved state compute is compared with what they computed before. If that is
something else, an older saved state is tried, once; then the model is given up with `RestoreMismatch`.

If the second of these steps was not there before the restore, nothing tells whether the optimizer came along. What the
restored model computes in it is kept, and the next restore from that state has to give the same; but if it does, both
may have lost the optimizer, and it is still unverified. So it is checked as soon as both steps are there, beside the
line (`actors.optimizer_check`). A state from before the first step has no optimizer that could be lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NoReturn, TypeAlias

import attrs
import trio

from tinker_actors.actors.event import EventHub
from tinker_actors.actors.lineage import Lineage, StartState
from tinker_actors.actors.optimizer_check import OptimizerCheck
from tinker_actors.actors.reachability import Reachability
from tinker_actors.actors.submission import Accepted, Submitter
from tinker_actors.actors.training_line import TrainingLine
from tinker_actors.errors import APIError, JournalError, ModelLost, RestoreMismatch, TinkerError
from tinker_actors.protocol.event import (
    OptimizerUnverified,
    RestoreMismatchFound,
    RestoreVerified,
    RollbackFound,
)
from tinker_actors.protocol.journal import STEP_ENDS, Checkpoint, Record, Witness
from tinker_actors.protocol.retry import says_early
from tinker_actors.protocol.witness import (
    Fate,
    distance,
    follows,
    has_steps,
    is_lost,
    is_same,
    logprobs_of,
    of_rollback,
)
from tinker_actors.transport.http import HttpTransport
from tinker_actors.wire.endpoints import GET_TRAINING_RUN
from tinker_actors.wire.service import Empty
from tinker_actors.wire.training import ForwardBackwardOutput

__all__ = ["Verifying", "is_corrupted"]

_PAUSE = 0.5  # seconds before a forward pass is tried again that had overtaken what was on its way
_PAUSES = 20

_Part: TypeAlias = Literal["weights", "optimizer"]


class Verifying:
    """Makes sure that one incarnation of a run's model is what it should be.

    Args:
        lineage: the model.
        transport: the way to the service.
        reachability: counts what may have been a restart.
        line: what is sent to the model.
        submitter: sends it.
        events: where events go.
        optimizer: checks the optimizer where no earlier result tells.
    """

    def __init__(
        self,
        lineage: Lineage,
        transport: HttpTransport,
        reachability: Reachability,
        line: TrainingLine,
        submitter: Submitter,
        events: EventHub,
        optimizer: OptimizerCheck,
    ) -> None:
        self._lineage = lineage
        self._transport = transport
        self._reachability = reachability
        self._line = line
        self._submitter = submitter
        self._events = events
        self._optimizer = optimizer
        self._revived = False
        self._state: StartState | None = None  # what the model was loaded with
        self._loaded: Checkpoint | None = None  # if that is a state of its own
        self._turn = trio.Lock()
        self._seen = reachability.interruptions
        self._creation: Witness | None = None
        self._apart: dict[Literal[1, 2], float] = {}  # how far a restored model was from each witness
        self._vouched = False  # the second witness is of a model that had the optimizer

    # --- set back to its creation ------------------------------------------------------------------------

    @property
    def is_unguarded(self) -> bool:
        """Whether a rollback would take the model to its creation, which is before the state that was loaded into it.

        No witness tells of that; from its first own state on a rollback leads there.
        """
        lineage, latest = self._lineage, self._lineage.journal.checkpoint
        if self._transport.capability.restart_ends_models or lineage.loaded is None:
            return False
        return latest is not None and latest.position == lineage.loaded

    @property
    def knows_creation(self) -> bool:
        """Whether a rollback would take the model to its creation, and what it would compute then is known.

        That is another thing than right after the state that was loaded: results of the first step tell, too, and are
        not waited for.
        """
        return self.is_unguarded and self._creation is not None

    async def look_at_creation(self) -> None:
        """See what a model computes that was just made, before a saved state is loaded into it.

        Raises:
            ModelLost: it is lost already.
        """
        if not self._lineage.in_run or not self.is_unguarded:
            return
        loaded, witnesses = self._lineage.loaded, self._lineage.journal.witnesses()
        for witness in sorted(witnesses, key=lambda one: (follows(one, loaded), one.position), reverse=True):
            output = await self._compute(witness)
            logprobs = None if output is None else logprobs_of(output, 0)
            if output is None or logprobs is None:
                continue
            if not (
                follows(witness, loaded) and self._is_same(witness, output)
            ):  # as after a run's first state
                self._creation = attrs.evolve(witness, checkpoint=None, logprobs=logprobs)
            return

    async def _test_for_creation(self) -> None:
        witness = self._creation
        if witness is None or not self.is_unguarded:
            return
        output = await self._compute(witness)
        if output is not None and self._is_same(witness, output):
            self._found(None)

    # --- rolled back -------------------------------------------------------------------------------------

    def begin(self) -> None:
        """The model was just made: what happened before does not concern it."""
        self._seen = self._reachability.interruptions
        self._loaded, self._state = self._lineage.journal.checkpoint, self._lineage.state
        if self._lineage.in_run and self._transport.config.check_optimizer and not self._is_new:
            self._optimizer.arm()

    @property
    def suspicious(self) -> bool:
        """Whether the service may have been restarted since anybody has made sure."""
        if (
            self._transport.capability.restart_ends_models
        ):  # then it is told so, and there is nothing to find out
            return False
        return self._seen != self._reachability.interruptions

    async def check(self, excused: Callable[[], bool] = lambda: False) -> None:
        """Make sure that the model was not rolled back, if that may have been. A checkpoint only then.

        Args:
            excused: says, whenever there is progress, whether the caller need not know it any more.

        Raises:
            ModelLost: it was, or the service says that it is corrupted.
        """
        while self.suspicious and not excused():
            if self._turn.locked():
                await self._line.progress.wait()
            else:
                await self.test()

    def doubt(self) -> None:
        """Let what was looked at count for nothing: the model had more than was known."""
        self._seen = -1

    async def between(self, before: Accepted | None) -> None:
        """Make sure that the model was not rolled back, while there are numbers that are taken and not sent.

        Where a service carries requests out in the order of their numbers, nothing can be computed then. One that
        remembers numbers is asked for the promise of the request before: if it gives the same, it was not restarted.

        Args:
            before: the latest request that the service had taken before what may have been a restart.

        Raises:
            ModelLost: it was rolled back, or that cannot be told.
        """
        if self.suspicious:
            await self.suspect(before)

    async def suspect(self, before: Accepted | None) -> None:
        """As `between`, for a model that may have been rolled back."""
        lineage, capability = self._lineage, self._transport.capability
        if capability.restart_ends_models:
            return
        if capability.early_numbers == "run":
            await self.test()
            return
        journal, model_id = lineage.journal, lineage.model_id
        if not has_steps(journal.witnesses(), journal.replay()) and not self._may_lack_gradients():
            return  # it has nothing that could be lost
        if capability.dedupe == "replay" and await self._submitter.is_remembered(before, model_id):
            return
        message = (
            "the service failed to answer before this step's end, and it cannot be told whether "
            f"model {model_id} still has all that came before: it is made again to be sure"
        )
        self._line.lose(ModelLost(message, model_id=model_id))

    async def test(self) -> None:
        """Make sure that the model was not rolled back. Always a checkpoint.

        Raises:
            ModelLost: it was, or the service says that it is corrupted.
        """
        if self._transport.capability.restart_ends_models:
            await trio.lowlevel.checkpoint()
            return
        async with self._turn:
            while True:
                seen = self._reachability.interruptions
                while self._line.is_early and not self.knows_creation:  # there is nothing to compare with
                    await self._line.progress.wait()
                await self._test()
                self._seen = seen
                if not self.suspicious:
                    break
        self._line.wake()

    def _may_lack_gradients(self) -> bool:
        """Whether the step under way had gradients in the model before what may have been a restart."""
        since = self._line.step.since
        return since is not None and since != self._reachability.interruptions

    async def _test(self) -> None:
        lineage, journal, line = self._lineage, self._lineage.journal, self._line
        model_id = lineage.model_id
        if not _has_ended_step(line.given) and self._may_lack_gradients():
            message = (
                f"the service failed to answer, and it cannot be told whether model {model_id} still has this step's "
                "gradients: it is made again to be sure"
            )
            line.lose(ModelLost(message, model_id=model_id))
        if await is_corrupted(self._transport, model_id):
            line.lose(ModelLost(f"the service says that model {model_id} is corrupted", model_id=model_id))
        await self._test_for_creation()
        for witness in of_rollback(journal.witnesses(), line.given):
            output = await self._compute(witness)
            if output is not None and self._is_same(witness, output):
                self._found(_path(witness.checkpoint))

    def _is_same(self, witness: Witness, output: ForwardBackwardOutput) -> bool:
        return is_same(distance(witness, output, 0), noise=self._transport.capability.noise)

    def _found(self, path: str | None) -> NoReturn:
        model_id = self._lineage.model_id
        self._events.publish(RollbackFound(model_id, path))
        message = f"model {model_id} was rolled back on the service, to {path or 'its creation'}"
        self._line.lose(ModelLost(message, model_id=model_id))

    async def _compute(self, witness: Witness) -> ForwardBackwardOutput | None:
        """Compute a witness's datum again; None if the service does not compute it, or the disk does not give it.

        Raises:
            ModelLost: what is on its way does not come there.
        """
        try:
            operation = await self._lineage.journal.read_witness(witness)
        except JournalError:  # what is sent next will tell, or the next process
            return None
        if operation is None:
            return None
        data = (operation.data[witness.datum],)
        forward = attrs.evolve(operation, kind="forward", data=data, body=None)
        for _ in range(_PAUSES):
            try:
                output = await self._line.compute(forward)
            except JournalError:
                return None
            except ModelLost:
                raise  # this incarnation ends
            except TinkerError as error:
                if not says_early(str(error)):
                    return None
            else:
                return output if isinstance(output, ForwardBackwardOutput) else None
            await trio.sleep(_PAUSE)
        model_id = self._lineage.model_id
        message = f"it cannot be told whether model {model_id} was rolled back"
        return self._line.lose(ModelLost(message, model_id=model_id))

    # --- restored ----------------------------------------------------------------------------------------

    def compare(self, record: Record, output: ForwardBackwardOutput) -> None:
        """Compare what a gradient that was sent again has computed with what it computed before.

        Raises:
            ModelLost: that is something else.
        """
        lineage = self._lineage
        witness = lineage.journal.witness_at(record.position)
        if witness is None or record.position in lineage.disowned:
            return
        apart = self._apart[witness.which] = distance(witness, output, witness.datum)
        model = lineage.journal.model
        alone = None if model is None else model.alone_from
        self._vouched |= witness.which == 2 and (alone is None or record.position < alone)
        noise = self._transport.capability.noise
        if is_lost(witness, apart, first=self._apart.get(1, 0.0), noise=noise):
            if self.suspicious:  # it may have lost what it was restored with, and who says so is on the way
                message = (
                    f"model {lineage.model_id} may have been set back on the service while it was restored"
                )
                self._line.lose(ModelLost(message, model_id=lineage.model_id))
            self._mismatch(witness, apart)

    def _mismatch(self, witness: Witness, apart: float) -> None:
        lost: _Part = "weights" if witness.which == 1 else "optimizer"
        what = f"computes something else than before (log probabilities differ by {apart:.3g} in the mean)"
        self._go_back(_path(witness.checkpoint), lost, apart, what, self._lineage.journal.fall_back)

    def _go_back(
        self, path: str | None, lost: _Part, apart: float, what: str, fall_back: Callable[[], bool]
    ) -> NoReturn:
        """Try the state before, once; then give the model up."""
        lineage, model_id = self._lineage, self._lineage.model_id
        self._events.publish(RestoreMismatchFound(model_id, path, lost, apart))
        message = f"model {model_id}, restored from {path or 'its seed'}, {what}: its {lost} must be lost"
        error = RestoreMismatch(message, model_id=model_id, checkpoint=path, lost=lost)
        if lineage.mismatch is not None or not fall_back():
            lineage.doom = error
        lineage.mismatch = error
        self._line.lose(ModelLost(message, model_id=model_id))

    def revived(self) -> None:
        """The model has all that came before: tell how far that is known."""
        self._revived = True
        if self._vouched or (self._is_new and self._apart):
            self._verified()
        elif not self._is_new:
            self._events.publish(OptimizerUnverified(self._lineage.model_id, self._loaded_from))
        if self._vouched or not self._optimizer.armed:
            self._optimizer.disarm()
            self._lineage.mismatch = None
        self._look_at_optimizer()

    @property
    def _is_new(self) -> bool:
        """Whether the model was restored from what was before its first step, so that no optimizer could be lost."""
        return self._lineage.start is None and (self._loaded is None or self._loaded.position == 0)

    @property
    def _loaded_from(self) -> str | None:
        return None if self._state is None else self._state.path

    def _verified(self) -> None:
        self._lineage.mismatch = None
        apart = max(self._apart.values(), default=0.0)
        self._events.publish(RestoreVerified(self._lineage.model_id, self._loaded_from, apart))

    # --- whether the optimizer came along ----------------------------------------------------------------

    def sent(self, record: Record) -> None:
        """Take note of what the service has taken, in order."""
        self._optimizer.sent(record)

    def had(self, record: Record, reply: object) -> None:
        """Take note of a result."""
        self._optimizer.had(record, reply)
        self._look_at_optimizer()

    def _look_at_optimizer(self) -> None:
        if self._revived and self._optimizer.ready:
            self._optimizer.start(self._told)

    def _told(self, fate: Fate, apart: float) -> None:
        """Take note of what became of the optimizer.

        Raises:
            ModelLost: it was lost.
        """
        if self._line.losing or self._lineage.unloaded:
            return
        if fate == "lost":
            witnesses, second = self._lineage.journal.witnesses(), self._optimizer.second
            self._lineage.disowned |= {one.position for one in witnesses if one.position >= second}
            what = (
                f"goes on as one without its optimizer does (to {apart:.3g} in the mean of log probabilities)"
            )
            self._go_back(self._loaded_from, "optimizer", apart, what, self._fall_back_behind)
        self._lineage.mismatch = None
        if fate == "kept":
            self._verified()

    def _fall_back_behind(self) -> bool:
        """Fall back to a state from before the one that was loaded, over what was saved since."""
        journal, loaded = self._lineage.journal, self._loaded
        while loaded is not None and journal.fall_back():
            if journal.checkpoint is None or journal.checkpoint.position < loaded.position:
                return True
        return False


def _has_ended_step(records: Sequence[Record]) -> bool:
    """Whether a step has ended since the latest state that was saved, also if that does not count as such yet."""
    for record in reversed(records):
        if record.operation.kind in STEP_ENDS:
            return True
        if record.operation.kind == "save_state":
            return False
    return False


def _path(checkpoint: Checkpoint | None) -> str | None:
    return None if checkpoint is None else checkpoint.path


async def is_corrupted(transport: HttpTransport, model_id: str) -> bool:
    """Whether the service says that a model is of no use any more; not all services can say it."""
    try:
        run = await transport.call(GET_TRAINING_RUN, Empty(), path={"training_run_id": model_id})
    except APIError:
        return False
    return run.corrupted
