"""One step of a run's loop: it is decided once, together with where the loop stands after it.

Theory of operation. A step is *decided* when its intent is committed in the journal: what is sent, and the loop's state
`after` it, in one transaction. From then on the step is part of the run whatever dies; before it, nothing of it was
sent. `train` decides a whole step at once. With the single operations each gradient has its own intent, and the step is
decided with that of its `optim_step`; a process that dies in between leaves a gradient in a model that is never used
again.

What is decided is asked of the journal alone: a caller who was cancelled while a step was in line does not know. One
who was cancelled before that, for instance while room was made for the batch, has begun nothing: the step is as it was.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from tinker_actors.actors.message import ForwardBackward, ForwardBackwardCustom
from tinker_actors.errors import ResultLost, TinkerActorsError
from tinker_actors.kernel import Pending
from tinker_actors.kernel.outcome import Outcome
from tinker_actors.protocol.custom_loss import CustomLossFn
from tinker_actors.protocol.journal import Decision
from tinker_actors.protocol.loop_state import check_groups, write_state
from tinker_actors.wire.input import Datum
from tinker_actors.wire.optimizer import OptimParams, OptimStepResponse
from tinker_actors.wire.training import ForwardBackwardOutput, LossFnType

__all__ = ["DecidedStep", "RunStep", "StepHome"]


_InLine: TypeAlias = Callable[[Outcome[Any]], None]


class StepHome(Protocol):
    """The run, as its steps see it."""

    @property
    def decided(self) -> int:
        """How many steps are decided."""
        ...

    async def gradient(
        self, message: ForwardBackward | ForwardBackwardCustom
    ) -> Pending[ForwardBackwardOutput]:
        """Put a gradient in line. If this raises, or is cancelled, it is not."""
        ...

    async def train(
        self,
        data: Sequence[Datum],
        loss_fn: LossFnType,
        optim_params: OptimParams,
        loss_fn_config: Mapping[str, float | str] | None,
        decision: Decision,
        in_line: _InLine,
    ) -> DecidedStep:
        """Put a whole step in line; return when it is decided.

        `in_line` is called when it is in line, with what fails if it will not be decided.
        """
        ...

    async def optim_step(
        self, optim_params: OptimParams, decision: Decision, in_line: _InLine
    ) -> Pending[OptimStepResponse]:
        """Put the end of a step in line; return when it is decided; `in_line` as in `train`."""
        ...

    async def skip(self, decision: Decision, in_line: _InLine) -> None:
        """Decide that a step trains nothing; `in_line` as in `train`."""
        ...


class DecidedStep:
    """A step that is part of the run, whatever dies. Awaiting it gives the output of its gradient.

    Any number of tasks may wait for it, and waiting does nothing else. A step that failed raises what failed: it has
    no effect on the weights, and the run goes on without it.

    Attributes:
        index: which step, from 0.
    """

    def __init__(
        self, index: int, forward: Pending[ForwardBackwardOutput], optim: Pending[OptimStepResponse]
    ) -> None:
        self.index = index
        self._forward = forward
        self._optim = optim
        self._asked_for = False

    def __repr__(self) -> str:
        return f"<DecidedStep {self.index}: {'done' if self.settled else 'under way'}>"

    def __await__(self) -> Generator[Any, Any, ForwardBackwardOutput]:
        self._asked_for = True
        return self._result().__await__()

    @property
    def forward(self) -> Pending[ForwardBackwardOutput]:
        """The result of its gradient."""
        self._asked_for = True
        return self._forward

    @property
    def optim(self) -> Pending[OptimStepResponse]:
        """The result of its optimizer step."""
        self._asked_for = True
        return self._optim

    @property
    def settled(self) -> bool:
        """Whether both results, or their failures, are there."""
        return self._forward.settled and self._optim.settled

    async def _result(self) -> ForwardBackwardOutput:
        try:
            output = await self._forward
        except Exception:
            self._optim.outcome.observed = True  # it fails with it, and says the same
            raise
        await self._optim
        return output

    async def over(self) -> None:
        """Wait for both results; raise the failure if nobody has asked for it. Always a checkpoint.

        A result that is lost is none: the step is in the weights, and nobody has missed it.
        """
        failure: TinkerActorsError | None = None
        for pending in (self._forward, self._optim):
            try:
                await pending
            except ResultLost:
                pass
            except TinkerActorsError as error:
                failure = failure or error
        if failure is not None and not self._asked_for:
            raise failure


class RunStep:
    """One step of a run's loop, made by `Run.steps`. One call decides it: `train`, `optim_step` or `skip`.

    Attributes:
        index: which step, from 0.
        deciding: what a call has begun to decide it with, and was neither refused nor cancelled before it was in line;
            None: none has.
    """

    def __init__(self, index: int, home: StepHome) -> None:
        self.index = index
        self._home = home
        self._gradients = 0  # that are in line, or about to be
        self.deciding: Decision | None = None
        self._in_line: Outcome[Any] | None = None  # of what decides it

    def __repr__(self) -> str:
        return f"<RunStep {self.index}: {'decided' if self.decided else 'not decided'}>"

    @property
    def decided(self) -> bool:
        """Whether it is part of the run, whatever dies."""
        return self._home.decided > self.index

    async def train(
        self,
        data: Sequence[Datum],
        loss_fn: LossFnType,
        optim_params: OptimParams,
        *,
        after: object,
        groups: Sequence[str] = (),
        loss_fn_config: Mapping[str, float | str] | None = None,
    ) -> DecidedStep:
        """Train one step: gradient and optimizer step, as one. Returns when the step is decided.

        Args:
            data: the batch.
            loss_fn: which loss.
            optim_params: the optimizer's settings for this step.
            after: where the loop stands after this step: JSON of at most 64 KiB. It is `Run.loop_state` when the run
                is opened again.
            groups: ids of what the batch was made of, kept with the step.
            loss_fn_config: the loss's settings.

        Raises:
            InputError: a batch, settings, a state or ids that cannot be; the step is as it was.
            RunMismatch: another loss than the run was trained with before it was resumed.
            JournalError: the journal cannot be written. Nothing was sent; the run has to be opened again.
            JournalFull: the journal has no room, and no checkpoint could make any. Nothing was sent.
            RuntimeError: the step is decided, or has operations of its own.
        """
        self._refuse("train", also_after_gradients=True)
        decision = self._decision(after, groups)
        with self._deciding(decision):
            return await self._home.train(
                data, loss_fn, optim_params, loss_fn_config, decision, self._note_line
            )

    async def skip(self, *, after: object, groups: Sequence[str] = ()) -> None:
        """Decide that this step trains nothing, for instance because all its groups were filtered out.

        Args:
            after: as in `train`.
            groups: as in `train`.

        Raises:
            InputError, JournalError, RuntimeError: as `train`.
        """
        self._refuse("skip", also_after_gradients=True)
        decision = self._decision(after, groups, skipped=True)
        with self._deciding(decision):
            await self._home.skip(decision, self._note_line)

    async def forward_backward(
        self,
        data: Sequence[Datum],
        loss_fn: LossFnType,
        loss_fn_config: Mapping[str, float | str] | None = None,
    ) -> Pending[ForwardBackwardOutput]:
        """Put the accumulation of a batch's gradient in line; `optim_step` then decides the step.

        Raises:
            InputError: a batch that cannot be sent.
            RunMismatch, RuntimeError: as `train`.
            JournalError: (from the Pending) as `train`.
        """
        return await self._gradient(ForwardBackward(data, loss_fn, _config(loss_fn_config)))

    async def forward_backward_custom(
        self, data: Sequence[Datum], loss_fn: CustomLossFn
    ) -> Pending[ForwardBackwardOutput]:
        """Put the accumulation of the gradient of a loss of your own in line; `optim_step` then decides the step.

        Raises:
            InputError: a batch without targets, or something else than a loss function.
            RuntimeError: as `train`.
            JournalError: (from the Pending) as `train`.
        """
        return await self._gradient(ForwardBackwardCustom(data, loss_fn))

    async def _gradient(
        self, message: ForwardBackward | ForwardBackwardCustom
    ) -> Pending[ForwardBackwardOutput]:
        self._refuse(type(message).__name__, also_after_gradients=False)
        self._gradients += 1
        try:
            return await self._home.gradient(message)
        except BaseException:
            self._gradients -= 1
            raise

    async def optim_step(
        self, optim_params: OptimParams, *, after: object, groups: Sequence[str] = ()
    ) -> Pending[OptimStepResponse]:
        """Put the step with the accumulated gradient in line. Returns when the step is decided.

        Args:
            optim_params: the optimizer's settings for this step.
            after: as in `train`.
            groups: as in `train`.

        Raises:
            InputError, JournalError, RuntimeError: as `train`.
        """
        self._refuse("optim_step", also_after_gradients=False)
        decision = self._decision(after, groups)
        with self._deciding(decision):
            return await self._home.optim_step(optim_params, decision, self._note_line)

    def _refuse(self, verb: str, *, also_after_gradients: bool) -> None:
        """Refuse what cannot come in this step any more."""
        if self._in_line is not None and self._in_line.error is not None:
            self.deciding = self._in_line = None  # it was refused when its caller had left
        if self.decided or self.deciding is not None:
            how = "is decided" if self.decided else "is being decided"
            raise RuntimeError(f"{verb}: step {self.index} {how}; take the next one of run.steps()")
        if self._gradients and also_after_gradients:
            why = "has gradients of its own, which only optim_step applies"
            raise RuntimeError(f"{verb}: step {self.index} {why}")

    def _decision(self, after: object, groups: Sequence[str], *, skipped: bool = False) -> Decision:
        return Decision(
            step=self.index, after=write_state(after), groups=check_groups(groups), skipped=skipped
        )

    @contextlib.contextmanager
    def _deciding(self, decision: Decision) -> Iterator[None]:
        """Let nothing else decide it meanwhile; after a refusal, or if it never came into line, it is as it was."""
        self.deciding, self._in_line = decision, None
        try:
            yield
        except BaseException as error:
            if isinstance(error, Exception) or self._in_line is None:
                self.deciding = self._in_line = None
            raise

    def _note_line(self, outcome: Outcome[Any]) -> None:
        """Note that what decides it is in line: from now on it is decided also if its caller leaves."""
        self._in_line = outcome


def _config(config: Mapping[str, float | str] | None) -> dict[str, float | str] | None:
    return None if config is None else dict(config)
