"""The Run: what a loop works with. Made by `open_run`; valid inside it."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, cast

import attrs
import trio

from tinker_actors.actors.guide import Guide
from tinker_actors.actors.message import ForwardBackward, ForwardBackwardCustom
from tinker_actors.actors.service_client import ServiceClient
from tinker_actors.actors.training_client import TrainingClient
from tinker_actors.errors import InputError, RunMismatch
from tinker_actors.kernel import Pending
from tinker_actors.kernel.bound import check_count
from tinker_actors.kernel.outcome import Outcome
from tinker_actors.protocol.batch import check_flag
from tinker_actors.protocol.chunking import datum_bytes
from tinker_actors.protocol.journal import Decision
from tinker_actors.protocol.loop_state import read_state
from tinker_actors.protocol.resume import ResumePoint
from tinker_actors.protocol.retention import RunCheckpoint
from tinker_actors.protocol.run_event import RunDraining, StepDecided
from tinker_actors.protocol.run_journal import RunJournal
from tinker_actors.runs.keeping import Collected, Keeping
from tinker_actors.runs.saving import Saving
from tinker_actors.runs.step import DecidedStep, RunStep
from tinker_actors.wire.codec import JsonValue
from tinker_actors.wire.input import Datum
from tinker_actors.wire.optimizer import OptimParams, OptimStepResponse
from tinker_actors.wire.training import ForwardBackwardOutput, LossFnType

__all__ = ["Losses", "Run", "RunSteps"]

_LOG: Final = logging.getLogger("tinker_actors.runs")
_DATUM_ROOM: Final = 128  # bytes that a datum may take in the journal beside its values


@attrs.define(eq=False)
class Losses:
    """Which losses a run is trained with; which it was is in the journal, with each decision.

    Attributes:
        declared: the one it was opened with; None: none was.
        journal: of the run.
        refused: in the first step after a resume, another one than before is refused.
        of_step: that of the latest gradient of the present step; None: it has none, or one of the user's own.
    """

    declared: str | None
    journal: RunJournal
    refused: bool
    of_step: str | None = None

    @property
    def before(self) -> str | None:
        """The one it was trained with last."""
        return self.journal.loss_fn

    def check(self, loss_fn: object) -> None:
        """Refuse another one.

        Raises:
            InputError: the run was opened with another one.
            RunMismatch: the run was trained with another one before it was resumed.
        """
        if self.declared is not None and loss_fn != self.declared:
            raise InputError("loss_fn", loss_fn, f"the run was opened with loss={self.declared!r}")
        if self.refused and self.before is not None and loss_fn != self.before:
            how = "if that is meant, open it with accept=('loss',)"
            message = f"loss was {self.before!r} before the run was resumed, and is {loss_fn!r} ({how})"
            raise RunMismatch(message, fields={"loss": (self.before, loss_fn)})

    def take(self, loss_fn: str) -> None:
        """A gradient of the present step has this one."""
        self.refused, self.of_step = False, loss_fn

    def name_in(self, decision: Decision) -> Decision:
        """Return the decision of the present step with its loss, so that both are written in one transaction."""
        return attrs.evolve(decision, loss_fn=self.of_step)


class RunSteps:
    """The steps of a run that are not decided yet, one after the other; made by `Run.steps`."""

    def __init__(self, run: Run, total: float, ahead: int) -> None:
        self._run = run
        self._total = total
        self._ahead = ahead
        self._step: RunStep | None = None

    def __aiter__(self) -> RunSteps:
        return self

    async def __anext__(self) -> RunStep:
        """Return the next step. Always a checkpoint."""
        run = self._run
        if self._step is not None:
            await run.require_decision(self._step)
        await run.settle(self._ahead)
        await run.between_steps()
        if run.draining or run.decided >= self._total:
            raise StopAsyncIteration
        self._step = RunStep(run.decided, run)
        return self._step


class Run(Guide):
    """A run: a model, its journal, and where the loop stands. Made by `open_run`.

    Attributes:
        service: the service it is trained on; for sampling, and whatever else.
        training: the model, for what belongs to no step: sampling from it, evaluating it. Steps are for `steps`.
        resumed: where this run goes on, and how it came there.
        directory: where it lies.
    """

    _made_by: ClassVar[str] = "async with tinker_actors.open_run(...) as run"
    _made_of: ClassVar[str] = "service"
    _beside: ClassVar[Mapping[str, type]] = {"run.training": TrainingClient, "run.service": ServiceClient}

    def __init__(
        self,
        service: ServiceClient,
        training: TrainingClient,
        journal: RunJournal,
        saving: Saving,
        keeping: Keeping,
        losses: Losses,
        resumed: ResumePoint,
        directory: Path,
    ) -> None:
        self.service = service
        self.training = training
        self.resumed = resumed
        self.directory = directory
        self._journal = journal
        self._saving = saving
        self._keeping = keeping
        self._losses = losses
        self._draining = ""
        self._told = journal.steps  # how many steps were told of, by earlier processes too
        self._of_step = 0  # bytes of the present step's batches
        self._largest = 0  # bytes of the batches of the largest step so far
        self._under_way: deque[DecidedStep] = deque()

    def __repr__(self) -> str:
        return f"<Run {self.directory.name}: {self.decided} steps decided>"

    # --- the loop ----------------------------------------------------------------------------------------

    @property
    def decided(self) -> int:
        """How many steps are decided, which is the index of the next."""
        return self._journal.steps

    @property
    def loop_state(self) -> JsonValue:
        """Where the loop stands after the last decided step, as it was given with it; None on a fresh run."""
        return read_state(self._journal.loop_state)

    def steps(self, total: int | None = None, *, ahead: int = 2) -> RunSteps:
        """Give the run's steps, from the first that is not decided; `async for step in run.steps(300)`.

        It ends when the run has that many steps, those of earlier processes included, or when it is to drain. Between
        steps checkpoints are put in line as the policy says.

        Args:
            total: how many steps the run is to have; None is no end.
            ahead: how many steps may be without their results when the next begins.

        Raises:
            InputError: no number of steps.
            RuntimeError: (from the loop) the body of a step has decided nothing.
            TinkerActorsError: (from the loop) a step failed, and nobody has awaited it.
        """
        if total is not None:
            check_count("total", total, 0)
        check_count("ahead", ahead, 0)
        return RunSteps(self, math.inf if total is None else total, ahead)

    async def checkpoint(self, *, metric: float | None = None, pin: bool = False) -> RunCheckpoint:
        """Save what is decided, wait until it is seen on the service, and return the checkpoint.

        Steps behind it go in line meanwhile. If the latest checkpoint holds it all, that one is returned.

        Args:
            metric: how good it is, for `Retention.best`.
            pin: keep it whatever the rules say.

        Raises:
            InputError: no number, or no flag.
            TinkerActorsError: why it was not saved.
        """
        check_flag("pin", pin)
        return await self._saving.save(metric=_metric(metric), pin=pin)

    @property
    def checkpoints(self) -> tuple[RunCheckpoint, ...]:
        """All checkpoints of this run that are known, in the order in which they were begun."""
        return tuple(self._journal.checkpoints)

    def pin(self, name: str, *, pinned: bool = True) -> RunCheckpoint:
        """Keep a checkpoint whatever the rules say, or no more; return it.

        Raises:
            InputError: the run has no such checkpoint.
        """
        check_flag("pinned", pinned)
        described = self._keeping.describe(name, pinned=pinned)
        self._saving.look_over_soon()
        return described

    def rate(self, name: str, metric: float) -> RunCheckpoint:
        """Say how good a checkpoint is, for instance when it has been evaluated; return it.

        Raises:
            InputError: the run has no such checkpoint, or no number.
        """
        described = self._keeping.describe(name, metric=_metric(metric))
        self._saving.look_over_soon()
        return described

    async def gc(self, *, dry_run: bool = True) -> Collected:
        """Delete on the service the checkpoints that no rule keeps. A checkpoint.

        Args:
            dry_run: only say which that are, and why the others are kept.
        """
        check_flag("dry_run", dry_run)
        return await self._keeping.collect(dry_run=dry_run)

    # --- draining ----------------------------------------------------------------------------------------

    @property
    def draining(self) -> bool:
        """Whether the run is to end after this step."""
        return bool(self._draining)

    def drain(self, why: str = "the program asked for it") -> None:
        """Let this step be the last: `steps` ends, and leaving the run saves a checkpoint."""
        if not self._draining:
            self._draining = why
            self.service.ref.publish(RunDraining(why, self.decided))
            _LOG.info("the run ends after this step: %s", why)

    # --- for its steps -----------------------------------------------------------------------------------

    async def train(
        self,
        data: Sequence[Datum],
        loss_fn: LossFnType,
        optim_params: OptimParams,
        loss_fn_config: Mapping[str, float | str] | None,
        decision: Decision,
        in_line: Callable[[Outcome[Any]], None],
    ) -> DecidedStep:
        """Decide a whole step; `RunStep.train` is for users."""
        self._losses.check(loss_fn)
        wanted = await self._make_room(data)
        train = self.training.train
        named = attrs.evolve(decision, loss_fn=loss_fn)
        trained = await train(data, loss_fn, optim_params, loss_fn_config, named, in_line)
        self._of_step += wanted
        self._losses.refused = False
        self._tell(decision)
        done = DecidedStep(decision.step, trained.forward, trained.optim)
        self._under_way.append(done)
        return done

    async def gradient(
        self, message: ForwardBackward | ForwardBackwardCustom
    ) -> Pending[ForwardBackwardOutput]:
        """Put a gradient in line; `RunStep.forward_backward` is for users."""
        if isinstance(message, ForwardBackward):
            self._losses.check(message.loss_fn)
        wanted = await self._make_room(message.data)
        pending = await self.training.submit(message)
        self._of_step += wanted
        if isinstance(message, ForwardBackward):
            self._losses.take(message.loss_fn)
        return pending

    async def optim_step(
        self, optim_params: OptimParams, decision: Decision, in_line: Callable[[Outcome[Any]], None]
    ) -> Pending[OptimStepResponse]:
        """Decide a step by its end; `RunStep.optim_step` is for users."""
        named = self._losses.name_in(decision)
        pending = await self.training.decide(optim_params, named, in_line)
        self._tell(decision)
        return pending

    async def skip(self, decision: Decision, in_line: Callable[[Outcome[Any]], None]) -> None:
        """Decide that a step trains nothing; `RunStep.skip` is for users."""
        await self.training.skip(decision, in_line)
        self._tell(decision)

    def _tell(self, decision: Decision) -> None:
        """Tell that a step is decided."""
        self._told = decision.step + 1
        self.service.ref.publish(StepDecided(decision.step, skipped=decision.skipped))

    async def _make_room(self, data: Sequence[Datum]) -> int:
        """See that the journal has room for a batch, and return how much it may need there.

        One that is none is refused by what it is put into.
        """
        wanted = 0
        if isinstance(cast("object", data), Sequence):
            data = [one for one in data if isinstance(cast("object", one), Datum)]
            wanted = sum(datum_bytes(one) + _DATUM_ROOM for one in data)
            await self._saving.make_room(wanted)
        return wanted  # noqa: ASYNC910 - what it is put into is a checkpoint

    # --- for the loop ------------------------------------------------------------------------------------

    async def require_decision(self, step: RunStep) -> None:
        """See that a step is decided before the next begins. Always a checkpoint.

        Raises:
            RuntimeError: nothing has decided it.
        """
        await trio.lowlevel.checkpoint()
        if step.deciding is not None and not step.decided:
            await self.training.reach()  # its caller was cancelled; what it has put in line comes first
        if not step.decided:
            raise RuntimeError(
                f"step {step.index} ended without a decision: its body must call step.train, step.optim_step "
                f"or step.skip, or leave the loop"
            )
        if step.deciding is not None and self._told <= step.index:
            self._tell(step.deciding)  # its caller was cancelled before it could

    async def settle(self, ahead: int) -> None:
        """Wait until no more than so many steps are without their results.

        Raises:
            TinkerActorsError: one has failed, and nobody has asked for its result. It is told of once.
        """
        while self._under_way:
            oldest = self._under_way[0]
            if not oldest.settled and len(self._under_way) <= ahead:
                return
            try:
                await oldest.over()
            except Exception:  # not if the caller is cancelled: then nobody has been told
                self._under_way.popleft()
                raise
            self._under_way.popleft()

    async def between_steps(self) -> None:
        """Put a checkpoint in line if one is due; see that there is room for another step. Always a checkpoint.

        In the middle of a step there is no telling a batch that is needed from those that a checkpoint makes needless.
        """
        self._largest = max(self._largest, self._of_step)
        self._of_step = 0
        self._losses.of_step = None
        await self._saving.between_steps(self._largest)


def _metric(metric: object) -> float | None:
    if metric is None:
        return None
    good = isinstance(metric, int | float) and not isinstance(metric, bool)
    if not good or not math.isfinite(cast("float", metric)):
        raise InputError("metric", metric, "must be a finite number, or None")
    return float(cast("float", metric))
