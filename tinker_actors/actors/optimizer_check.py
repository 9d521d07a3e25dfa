"""Whether a restored model has got its optimizer, where no earlier result tells: one step is taken without it.

Theory of operation. What a restored model computes in the second step after its saved state depends on the optimizer
that it had in the first. The same is computed on a *scratch* model, which gets the weights of the saved state without
the optimizer, and the first step: one that computes the same has nothing that the restored model lacks. The first
step is told from none by what the scratch model computes before it.

Where gradients hardly change from step to step, an Adam that begins afresh moves as the old one would. So before
an optimizer counts as lost, a second scratch model loads all of the state and takes a step without any gradient: a
momentum that came along moves it.

Nothing is computed on the restored model itself, and no line is held up: its own results are compared. A scratch model
takes a slot of the service for some moments; it is not in the journal. One that a process leaves behind when it dies
ends with its session. Whatever fails, or takes too long, tells nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, Self, TypeAlias

import attrs
import numpy as np
import trio

from tinker_actors.actors.birth import birth_of
from tinker_actors.actors.futures import wait_for_result
from tinker_actors.actors.lineage import Lineage, StartState
from tinker_actors.actors.message import Futures, WaitForResult
from tinker_actors.actors.session import Session
from tinker_actors.actors.submission import Submitter
from tinker_actors.actors.training_operation import load_operation
from tinker_actors.kernel import ActorRef
from tinker_actors.protocol.journal import Operation, Record, Witness
from tinker_actors.protocol.plan import REPLIES, REQUEST_TYPES, Reply, reply_of
from tinker_actors.protocol.witness import Fate, Trial, distance, fate_of_optimizer, is_same, witness_of
from tinker_actors.transport.http import HttpTransport
from tinker_actors.wire.endpoints import UNLOAD_MODEL
from tinker_actors.wire.model import UnloadModelRequest
from tinker_actors.wire.optimizer import AdamParams, OptimStepResponse
from tinker_actors.wire.tensor import TensorData
from tinker_actors.wire.training import ForwardBackwardOutput

__all__ = ["OptimizerCheck"]

_LIMIT: Final = 600.0  # seconds that all of it may take
_LAST_WORD: Final = 3.0  # seconds for a scratch model to give its slot back
_FACTORS: Final = ("weights", "advantages")  # what a loss is multiplied with, by its name
_Replies: TypeAlias = dict[int, ForwardBackwardOutput | None]
_LOG = logging.getLogger("tinker_actors.runs")


class OptimizerCheck:
    """Checks the optimizer of one incarnation of a model.

    Args:
        lineage: the model.
        transport: the way to the service.
        session: the present session.
        futures: waits for promises.
        spawn: starts a task that ends with the incarnation.
    """

    def __init__(
        self,
        lineage: Lineage,
        transport: HttpTransport,
        session: Session,
        futures: ActorRef[Futures],
        spawn: Callable[..., None],
    ) -> None:
        self._lineage = lineage
        self._transport = transport
        self._session = session
        self._futures = futures
        self._spawn = spawn
        self._state: StartState | None = None
        self._records: list[Record] = []  # the first step after the state, and the first gradient behind it
        self._complete = False
        self._replies: _Replies = {}
        self.second = -1  # the position of that gradient, which tells of the optimizer

    # --- what the restored model does --------------------------------------------------------------------

    @property
    def armed(self) -> bool:
        """Whether there is something to be found out, and it may still be."""
        return self._state is not None

    @property
    def ready(self) -> bool:
        """Whether all results of the restored model are there that are compared."""
        return self.armed and self._complete and all(one.position in self._replies for one in self._records)

    def arm(self) -> None:
        """A saved state was just loaded into the model, and what comes after it is about to be sent."""
        state = self._lineage.state
        if state is not None and state.optimizer and self._lineage.lora_config is not None:
            self._state = state

    def disarm(self) -> None:
        """There is nothing to be found out any more; batches are not kept."""
        self._state, self._records, self._replies = None, [], {}

    def sent(self, record: Record) -> None:
        """Take note of what the model was sent, in order."""
        kind = record.operation.kind
        if not self.armed or self._complete:
            return
        ended = any(one.operation.kind == "optim_step" for one in self._records)
        if kind == "load_state" or (kind == "optim_step" and (ended or not self._records)):
            self.disarm()  # no step with a gradient, and one behind it
        elif kind in ("forward_backward", "optim_step"):
            self._records.append(record)
            self._complete = ended

    def had(self, record: Record, reply: object) -> None:
        """Take note of a result."""
        known = any(one.position == record.position for one in self._records)
        if known and isinstance(reply, ForwardBackwardOutput | OptimStepResponse):
            self._replies[record.position] = reply if isinstance(reply, ForwardBackwardOutput) else None

    # --- what scratch models do --------------------------------------------------------------------------

    def start(self, told: Callable[[Fate, float], None]) -> None:
        """Begin to find out, once.

        Args:
            told: is told what became of the optimizer, and how far the model is from one that has lost it.
        """
        state, records, replies = self._state, self._records, self._replies
        assert state is not None, "it is armed"
        self.second = records[-1].position
        self.disarm()
        self._spawn(self._run, state, records, replies, told)

    async def _run(
        self, state: StartState, records: list[Record], replies: _Replies, told: Callable[[Fate, float], None]
    ) -> None:
        trial, reach = None, self._session.reachability
        seen = reach.interruptions
        try:
            with trio.move_on_after(_LIMIT):
                trial = await self._try(state, records, replies)
        except Exception as error:  # noqa: BLE001 - whatever fails here is no failure of the run
            _LOG.info("model %s: its optimizer cannot be checked: %s", self._lineage.model_id, error)
        if trial is None or seen != reach.interruptions:  # a scratch model may have been set back, too
            told("cannot tell", float("inf"))
        else:
            told(fate_of_optimizer(trial, noise=self._noise), trial.apart)

    @property
    def _noise(self) -> float:
        return self._transport.capability.noise

    async def _try(self, state: StartState, records: list[Record], replies: _Replies) -> Trial | None:
        """Take the step again without the optimizer; None if results have nothing that can be compared."""
        *step, last = [(one, await self._lineage.journal.read(one)) for one in records]
        first, second = _witness(replies, step[0][0]), _witness(replies, last[0])
        if first is None or second is None:
            return None
        forward = _forward(last[1], second.datum)
        async with self._scratch() as scratch:
            await scratch.do(load_operation(attrs.evolve(state, optimizer=False)))
            before = await scratch.compute(forward)
            outputs = [await scratch.do(operation, record.plan) for record, operation in step]
            after = await scratch.compute(forward)
        moved = witness_of(before)
        start = outputs[0]
        if moved is None or not isinstance(start, ForwardBackwardOutput):
            return None
        trial = Trial(
            start=distance(first, start, first.datum),
            moved=distance(moved, after, 0),
            apart=distance(second, after, 0),
        )
        if fate_of_optimizer(trial, noise=self._noise) == "lost":
            trial = attrs.evolve(trial, coasts=await self._coasts(state, forward, step[-1][1], step[0][1]))
        return trial

    async def _coasts(
        self, state: StartState, forward: Operation, end: Operation, gradient: Operation
    ) -> bool:
        """Whether a model with all of the state is moved by a step without a gradient; also if that cannot be told."""
        params, nothing = end.optim_params, _without_weight(gradient)
        if nothing is None or not isinstance(params, AdamParams):
            return True
        params = attrs.evolve(params, weight_decay=0.0, grad_clip_norm=0.0)
        async with self._scratch() as scratch:
            await scratch.do(load_operation(state))
            before = witness_of(await scratch.compute(forward))
            await scratch.do(nothing)
            await scratch.do(attrs.evolve(end, optim_params=params))
            after = await scratch.compute(forward)
        return before is None or not is_same(distance(before, after, 0), noise=self._noise)

    def _scratch(self) -> _Scratch:
        return _Scratch(self._lineage, self._transport, self._session, self._futures)


class _Scratch:
    """A model of the same shape, for some moments."""

    def __init__(
        self, lineage: Lineage, transport: HttpTransport, session: Session, futures: ActorRef[Futures]
    ) -> None:
        self._lineage = lineage
        self._transport = transport
        self._session = session
        self._futures = futures
        self._submitter = Submitter(transport, session)
        self._epoch = session.epoch
        self._model_id = ""

    async def __aenter__(self) -> Self:
        session = self._session
        session_id, number = session.session_id, session.take_model_seq()
        birth = birth_of(self._lineage, session_id, number, by_loading=False)
        self._model_id = birth.model_id
        try:
            promise = (await self._transport.call(birth.endpoint, birth.request)).request_id
            waiting = WaitForResult(birth.reply, promise, birth.request_type, session_id)
            self._model_id = (await wait_for_result(self._futures, waiting)).model_id or birth.model_id
        except BaseException:
            await self.__aexit__()  # noqa: ASYNC102 - is shielded, and bounded
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Give the slot back as well as may be; what stays ends with the session."""
        with trio.move_on_after(_LAST_WORD, shield=True):  # noqa: ASYNC912 - a call is a cancel point
            try:
                await self._transport.call(UNLOAD_MODEL, UnloadModelRequest(self._model_id))
            except Exception as error:  # noqa: BLE001 - whatever fails here is no failure of the run
                _LOG.debug("scratch model %s was not unloaded: %s", self._model_id, error)

    async def do(self, operation: Operation, plan: tuple[int, ...] = ()) -> Reply:
        """Do an operation, and return its result.

        Raises:
            TinkerError: why it failed.
        """
        prepared = self._submitter.prepare(operation, plan)
        submission = await self._submitter.submit(prepared, self._model_id, self._epoch)
        failure = submission.loss or submission.refusal
        if failure is not None:
            raise failure
        kind, replies = operation.kind, list[Reply]()
        for sent in submission.sent:
            if sent.lost is not None:
                raise sent.lost
            waiting = WaitForResult(REPLIES[kind], sent.request_id, REQUEST_TYPES[kind], self._model_id)
            replies.append(await wait_for_result(self._futures, waiting))
        return reply_of(replies)

    async def compute(self, forward: Operation) -> ForwardBackwardOutput:
        """Do a forward pass."""
        output = await self.do(forward)
        assert isinstance(output, ForwardBackwardOutput), "it is what a forward pass gives"
        return output


def _witness(replies: _Replies, record: Record) -> Witness | None:
    output = replies[record.position]
    return None if output is None else witness_of(output)


def _forward(gradient: Operation, datum: int) -> Operation:
    return attrs.evolve(gradient, kind="forward", data=(gradient.data[datum],), body=None)


def _without_weight(gradient: Operation) -> Operation | None:
    """Return an operation whose gradient is 0; None if its loss is multiplied with nothing that could be."""
    datum = gradient.data[0]
    inputs = datum.loss_fn_inputs
    names = [name for name in _FACTORS if name in inputs]
    if not names:
        return None
    changed = dict(inputs)
    for name in names:
        values = inputs[name].to_numpy()
        changed[name] = TensorData.from_numpy(np.zeros_like(values))
    data = (attrs.evolve(datum, loss_fn_inputs=changed),)
    return attrs.evolve(gradient, data=data, body=None)
