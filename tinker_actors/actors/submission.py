"""Sending one model's requests: their numbers, their order, and what became of each.

Theory of operation. An operation goes out in one request or, if its batch is large, in several: one after the other,
or together where the service is known to keep early numbers (`protocol.chunking.waves`). It is `prepare`d first: cut,
and its numbers taken, lowest first, for they are part of the intent that is written before anything is sent. A number
that the service did not take comes back and is given to the next request, so there is no hole. So does that of a
request that failed later, where a failure uses no number up. Each request holds its bytes of the budget that the models
of a service share while it is sent.

Nothing is raised for what the service says: refusals are part of the answer, for several requests may be under way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import attrs
import trio

from tinker_actors.actors.session import Session
from tinker_actors.errors import ModelLost, ResultLost, TinkerError
from tinker_actors.protocol.chunking import waves
from tinker_actors.protocol.journal import Intent, Operation, PartSent
from tinker_actors.protocol.number import Numbers
from tinker_actors.protocol.plan import REQUEST_TYPES, Place, parts, parts_by_plan, plan_of, request_of
from tinker_actors.protocol.recovery import Cause, Rung, classify, frees_number, next_rung
from tinker_actors.protocol.retry import Look, Rule, Sends
from tinker_actors.transport.http import HttpTransport

__all__ = ["Accepted", "Gate", "Prepared", "Sent", "Submission", "Submitter"]


Gate: TypeAlias = Callable[[], Awaitable[None]]


@attrs.frozen
class Prepared:
    """An operation that is about to be sent.

    Attributes:
        operation: what it is.
        cut: its parts, one for each request.
        numbers: theirs.
    """

    operation: Operation
    cut: Sequence[Operation]
    numbers: tuple[int, ...]

    @property
    def intent(self) -> Intent:
        """What is written of it before it is sent."""
        return Intent(operation=self.operation, numbers=self.numbers, plan=plan_of(self.cut))


@attrs.frozen
class Sent:
    """A request that the service has taken.

    Attributes:
        number: its number.
        request_id: its promise; empty if the service has carried it out and gives none any more.
        sends: what became of the sends.
        lost: what is raised for a result that cannot be had.
        conflict: what the service said of a name that an earlier send may have used.
    """

    number: int
    request_id: str
    sends: Sends
    lost: ResultLost | None = None
    conflict: TinkerError | None = None

    @property
    def may_be_older(self) -> bool:
        """Whether it may have been carried out by a send before the last, for the service refuses to repeat it."""
        rule = self.sends.rule
        return self.sends.doubtful and rule is not None and rule.dedupe == "reject"


@attrs.frozen
class _Refused:
    """A request that the service has not taken, or may not have."""

    error: TinkerError
    is_loss: bool


@attrs.frozen
class Accepted:
    """The latest request that the service has taken.

    Attributes:
        part: what it asked for.
        number: its number.
        request_id: its promise.
    """

    part: Operation
    number: int
    request_id: str


_Outcome: TypeAlias = Sent | _Refused | None  # None: not sent


@attrs.frozen
class Submission:
    """What became of an operation's requests.

    Attributes:
        sent: those that the service has taken, in the order of the parts.
        refusal: why one was not taken; None if all were.
        loss: why the model has to be restored.
    """

    sent: list[Sent]
    refusal: TinkerError | None = None
    loss: TinkerError | None = None


class Submitter:
    """Sends the requests of one incarnation of a model.

    Args:
        transport: the way to the service.
        session: whose limits count, and whose numbers sampling sessions have.
    """

    def __init__(self, transport: HttpTransport, session: Session) -> None:
        self._transport = transport
        self._session = session
        self._numbers = Numbers(1)  # creation took 0
        self._epoch = 0
        self.latest: Accepted | None = None

    @property
    def numbers(self) -> Numbers:
        """The numbers of the model's requests."""
        return self._numbers

    def adopt(self, numbers: Numbers) -> None:
        """Go on with the numbers of a model that another process has sent to."""
        self._numbers = numbers

    def prepare(self, operation: Operation, plan: Sequence[int] = ()) -> Prepared:
        """Cut an operation into its requests and take their numbers.

        Args:
            operation: what is to be sent, with its batch.
            plan: how it was cut before; empty: as the service's limits say.
        """
        limits = self._session.limits
        if plan:
            cut = parts_by_plan(operation, plan)
        else:
            cut = parts(
                operation,
                max_datums=limits.fwdbwd_max_chunk_len,
                max_bytes=limits.fwdbwd_max_chunk_bytes_count,
            )
        return Prepared(operation, cut, tuple(self._numbers.take() for _ in cut))

    def release(self, prepared: Prepared) -> None:
        """Take the numbers back of what is not sent after all."""
        for number in prepared.numbers:
            self._numbers.give_back(number)

    async def submit(
        self,
        prepared: Prepared,
        model_id: str,
        epoch: int,
        accepted: Callable[[int, str], None] = lambda _, __: None,
        before: Sequence[PartSent] = (),
        gate: Gate | None = None,
    ) -> Submission:
        """Send an operation's requests; after a refusal none that has not begun. Always a checkpoint.

        Args:
            prepared: what is sent.
            model_id: whom it concerns.
            epoch: the session the model belongs to; nothing is sent once that is over.
            accepted: is told of each request that was taken, by its place, and of its promise.
            before: what an earlier process knew of its requests. What has a promise is not sent again.
            gate: is waited for before it is sent once more; of an operation in one request.
        """
        self._epoch = epoch
        cut, numbers = prepared.cut, prepared.numbers
        if before:
            return _submission(await self._send_again(prepared, model_id, accepted, before))
        if len(cut) == 1:
            outcome = await self._send(cut[0], model_id, numbers[0], Sends(gate=gate))
            _tell(accepted, 0, outcome)
            return _submission([outcome])
        return _submission(await self._send_all(cut, numbers, model_id, accepted))

    async def _send_all(
        self,
        cut: Sequence[Operation],
        numbers: Sequence[int],
        model_id: str,
        accepted: Callable[[int, str], None],
    ) -> list[_Outcome]:
        outcomes: list[_Outcome] = [None] * len(cut)

        async def send(index: int) -> None:
            outcomes[index] = outcome = await self._send(cut[index], model_id, numbers[index])
            _tell(accepted, index, outcome)

        parks = self._transport.capability.early_numbers == "park"
        together = parks and self._session.limits.parallel_fwdbwd_chunks
        for wave in waves(len(cut), together=together):
            async with trio.open_nursery() as nursery:
                for index in wave:
                    nursery.start_soon(send, index)
            if any(isinstance(outcomes[index], _Refused) for index in wave):
                break
        for number, outcome in zip(numbers, outcomes, strict=True):
            if outcome is None:
                self._numbers.give_back(number)
        return outcomes

    async def _send_again(
        self,
        prepared: Prepared,
        model_id: str,
        accepted: Callable[[int, str], None],
        before: Sequence[PartSent],
    ) -> list[_Outcome]:
        """Send what an earlier process may have sent, one after the other: each may have been carried out already."""
        outcomes: list[_Outcome] = []
        for index, (part, known) in enumerate(zip(prepared.cut, before, strict=True)):
            if any(isinstance(outcome, _Refused) for outcome in outcomes):
                break
            sends = self._doubtful(part, model_id, known.number)
            if known.request_id is not None:
                outcomes.append(Sent(known.number, known.request_id, sends))
                continue
            outcome = await self._send(part, model_id, known.number, sends)
            _tell(accepted, index, outcome)
            outcomes.append(outcome)
        return outcomes

    def _doubtful(self, part: Operation, model_id: str, number: int) -> Sends:
        """Return the sends of a request that an earlier process may have sent."""
        endpoint, _ = request_of(part, attrs.evolve(self._place(model_id, number), take_sampler_seq=int))
        rule = Rule(endpoint.retries, endpoint.on_doubt, self._transport.capability.dedupe)
        return Sends(doubtful=True, rule=rule)

    def _place(self, model_id: str, number: int) -> Place:
        return Place(
            model_id=model_id,
            seq_id=number,
            take_sampler_seq=self._session.take_sampler_seq,
            training_body=self._transport.capability.training_body,
        )

    async def _send(
        self, part: Operation, model_id: str, number: int, sends: Sends | None = None
    ) -> Sent | _Refused:
        endpoint, request = request_of(part, self._place(model_id, number))
        sends = sends or Sends()

        async def attempt() -> str:
            if sends.attempts and sends.gate is not None:
                await sends.gate()
            sends.spent = 0  # an outage in between is no fault of the call's
            async with self._session.dispatch.hold(part.data_bytes):
                self._check_epoch(model_id)
                return (await self._transport.call(endpoint, request, sends=sends)).request_id

        def may_repeat(_: BaseException) -> bool:
            return not sends.doubtful or self._rung(sends) == "resume"

        try:
            with self._session.waits.shown(model_id, f"sending {REQUEST_TYPES[part.kind]}"):
                request_id = await self._session.reachability.call(attempt, may_repeat=may_repeat)
        except ResultLost as error:
            return Sent(number, "", sends, error)
        except TinkerError as error:
            if isinstance(sends.verdict, Look):
                return Sent(number, "", sends, conflict=error)
            is_loss = (
                isinstance(error, ModelLost)
                or classify(error, part.kind) is not None
                or sends.number_in_doubt
            )
            if not is_loss:
                self._numbers.give_back(number)
            return _Refused(error, is_loss)
        if not part.is_unnamed:  # else it is not the same bytes again
            self.latest = Accepted(part, number, request_id)
        return Sent(number, request_id, sends)

    async def is_remembered(self, latest: Accepted | None, model_id: str) -> bool:
        """Whether a service that remembers numbers gives the same promise again for a request that it took before.

        Then it has not been restarted since. It is asked by sending the request again.
        """
        if latest is None:
            return False
        endpoint, request = request_of(latest.part, self._place(model_id, latest.number))
        try:
            again = await self._session.reachability.call(lambda: self._transport.call(endpoint, request))
        except TinkerError:
            return False
        return again.request_id == latest.request_id

    def result_failed(self, sent: Sent, error: TinkerError) -> None:
        """Take the number of a request back that failed, where that does not use it up."""
        if frees_number(error, self._transport.capability.dedupe):
            self._numbers.give_back(sent.number)

    def _check_epoch(self, model_id: str) -> None:
        if not self._session.is_current(self._epoch):
            raise ModelLost(f"the session of model {model_id} has ended", model_id=model_id)

    def _rung(self, sends: Sends) -> Rung:
        """Return what is done about a request that is in doubt."""
        numbered = sends.rule is not None and sends.rule.on_doubt == "numbered"
        cause: Cause = "doubtful_numbered" if numbered else "doubtful"
        return next_rung(cause, self._transport.capability.dedupe)


def _tell(accepted: Callable[[int, str], None], part: int, outcome: _Outcome) -> None:
    if isinstance(outcome, Sent) and outcome.request_id:
        accepted(part, outcome.request_id)


def _submission(outcomes: list[_Outcome]) -> Submission:
    sent = [outcome for outcome in outcomes if isinstance(outcome, Sent)]
    refused = [outcome for outcome in outcomes if isinstance(outcome, _Refused)]
    losses = [outcome.error for outcome in refused if outcome.is_loss]
    return Submission(sent, refused[0].error if refused else None, losses[0] if losses else None)
