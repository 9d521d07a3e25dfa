"""Going on with the very model that an earlier process has left on the service.

Theory of operation. What is known is put before a table (`protocol.reattach`), and what the service says of the model.
If nothing speaks against it, operations without a result are taken up again, in their order: a request that has a
promise is waited for; one of which it is not known whether it was sent is sent again, with the same number and the same
bytes, and a service that remembers numbers says what became of it. Results are taken only when the model has passed the
test for a rollback.

A step that was decided is taken up as a whole: if a part of it fails, all of it is left behind, what has its result
already and what is still to be read from the disk too.

A gradient of a step that nobody has ended is left behind, with the model that carries it: the user's loop begins that
step again. It is struck out only when there is a new model, for a process that dies before must find it.
"""

from __future__ import annotations

import attrs
import trio

from tinker_actors.actors.lineage import Lineage, Resumed
from tinker_actors.actors.session import Session
from tinker_actors.actors.submission import Accepted, Prepared, Submitter
from tinker_actors.actors.training_line import TrainingLine
from tinker_actors.actors.verifying import Verifying, is_corrupted
from tinker_actors.errors import TinkerError
from tinker_actors.protocol.event import Reattached
from tinker_actors.protocol.number import Numbers
from tinker_actors.protocol.plan import parts_by_plan
from tinker_actors.protocol.reattach import (
    Facts,
    OpenOperation,
    Restore,
    decide,
    decided,
    in_doubt,
    is_of_use,
    undecided,
)
from tinker_actors.protocol.recovery import is_refusal_of_key
from tinker_actors.transport.http import HttpTransport
from tinker_actors.wire.endpoints import GET_INFO
from tinker_actors.wire.model import GetInfoRequest, GetInfoResponse

__all__ = ["Reattaching"]

_NOTHING_KNOWN = "nothing is known of the time since"


class Reattaching:
    """Goes on with a model of an earlier process.

    Args:
        lineage: the model.
        transport: the way to the service.
        session: the present session.
        line: what is sent to it.
        submitter: has its numbers.
        verifying: tells whether it was rolled back.
    """

    def __init__(
        self,
        lineage: Lineage,
        transport: HttpTransport,
        session: Session,
        line: TrainingLine,
        submitter: Submitter,
        verifying: Verifying,
    ) -> None:
        self._lineage = lineage
        self._transport = transport
        self._session = session
        self._line = line
        self._submitter = submitter
        self._verifying = verifying

    async def attach(self) -> Reattached | None:
        """Go on with the model that the journal knows; None if something speaks against it, which is noted.

        Raises:
            ModelLost: it turned out to be lost while it was gone on with.
            TinkerError: the service refuses the key.
        """
        lineage, journal = self._lineage, self._lineage.journal
        model = journal.model
        assert model is not None, "there was an earlier process"
        records = journal.replay()
        stray = undecided(records)
        open_ones = [record for record in records if not record.done]
        lineage.left_behind = [
            *(record.position for record in stray),
            *(record.position for record in open_ones if not is_of_use(record)),
        ]
        taken_up: list[OpenOperation] = [(record, journal.parts(record.position)) for record in open_ones]
        if lineage.resumption is None:
            lineage.why = _NOTHING_KNOWN
            return None
        facts = Facts(
            resumption=lineage.resumption,
            live=journal.live,
            dedupe=self._transport.capability.dedupe,
            stray=bool(stray),
            doubtful=in_doubt(taken_up),
            session_kept=self._session.session_id == model.session_id,
            session_timeout=self._transport.capability.session_timeout,
            unguarded=self._verifying.is_unguarded,
        )
        verdict = decide(facts)
        if not isinstance(verdict, Restore):
            verdict = decide(await self._ask(facts))
        if isinstance(verdict, Restore):
            lineage.why = verdict.why
            return None
        lineage.left_behind = []
        self._submitter.adopt(Numbers.of(model.next_number, model.free))
        return await self._take_up(taken_up)

    async def _ask(self, facts: Facts) -> Facts:
        """Ask the service what has become of the model."""
        lineage = self._lineage
        try:
            lineage.info = await self._info()
        except TinkerError as error:
            if is_refusal_of_key(error):
                raise
            return attrs.evolve(facts, answers=False)
        corrupted = await is_corrupted(self._transport, lineage.model_id)
        return attrs.evolve(facts, corrupted=corrupted)

    async def _info(self) -> GetInfoResponse:
        request = GetInfoRequest(self._lineage.model_id)
        return await self._session.reachability.call(lambda: self._transport.call(GET_INFO, request))

    async def _take_up(self, operations: list[OpenOperation]) -> Reattached:
        """Take up what has no result: send again what is in doubt, and wait for the rest."""
        lineage, line = self._lineage, self._line
        held = line.held = trio.Event()
        before: Accepted | None = None
        steps = decided(lineage.journal.replay())
        for record, parts in operations:
            if record.position in steps:
                line.take_up(steps[record.position], begun=True)
            if record.operation.kind == "optim_step" and parts[-1].request_id is None:
                await self._verifying.suspect(before)
            operation = await lineage.journal.read(record)
            cut = parts_by_plan(operation, record.plan) if record.plan else [operation]
            numbers = tuple(part.number for part in parts)
            await line.send(record, Prepared(operation, cut, numbers), parts)
            known = parts[-1].request_id
            before = None if known is None else Accepted(cut[-1], numbers[-1], known)
        await self._verifying.test()
        held.set()
        line.held = None
        lineage.resumed = Resumed(how="attached")
        resent = sum(any(part.request_id is None for part in parts) for _, parts in operations)
        return Reattached(lineage.model_id, resent, len(operations) - resent)
