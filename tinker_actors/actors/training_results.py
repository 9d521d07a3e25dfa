"""The results of what was sent to a model: waiting for them, and what is made of those that cannot be had."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import trio

from tinker_actors.actors.futures import wait_for_result
from tinker_actors.actors.lineage import Lineage
from tinker_actors.actors.message import Futures, WaitForResult
from tinker_actors.actors.submission import Sent
from tinker_actors.errors import APIError, ResultLost, TinkerError
from tinker_actors.kernel import ActorRef
from tinker_actors.protocol.journal import Operation
from tinker_actors.protocol.plan import REPLIES, REQUEST_TYPES, Reply
from tinker_actors.protocol.recovery import find_saved
from tinker_actors.protocol.retry import Applied, Look
from tinker_actors.transport.http import HttpTransport
from tinker_actors.wire.endpoints import LIST_CHECKPOINTS
from tinker_actors.wire.service import Empty
from tinker_actors.wire.weights import (
    SaveWeightsExternalResponse,
    SaveWeightsForSamplerResult,
    SaveWeightsResponse,
)

__all__ = ["Results"]


class Results:
    """Waits for the results of one model's requests.

    Args:
        lineage: the model.
        transport: the way to the service.
        futures: waits for promises.
        failed: is told of each request whose promise was not kept, and why.
    """

    def __init__(
        self,
        lineage: Lineage,
        transport: HttpTransport,
        futures: ActorRef[Futures],
        failed: Callable[[Sent, TinkerError], None],
    ) -> None:
        self._lineage = lineage
        self._transport = transport
        self._futures = futures
        self._failed = failed

    async def of(self, operation: Operation, sent: list[Sent]) -> list[Reply]:
        """Wait for all results of an operation at the same time.

        Raises:
            TinkerError: why one of them failed; a `ResultLost` only if no other did.
        """
        if len(sent) == 1:
            return [await self.of_one(operation, sent[0])]
        outcomes: dict[int, Reply | TinkerError] = {}

        async def wait(index: int) -> None:
            try:
                outcomes[index] = await self.of_one(operation, sent[index])
            except TinkerError as error:
                outcomes[index] = error

        async with trio.open_nursery() as nursery:
            for index in range(len(sent)):
                nursery.start_soon(wait, index)
        ordered = [outcomes[index] for index in range(len(sent))]
        errors = [outcome for outcome in ordered if isinstance(outcome, TinkerError)]
        if errors:
            raise next((error for error in errors if not isinstance(error, ResultLost)), errors[0])
        return [outcome for outcome in ordered if not isinstance(outcome, TinkerError)]

    async def of_one(self, operation: Operation, sent: Sent) -> Reply:
        """Wait for the result of one of an operation's requests.

        Raises:
            ResultLost: it was carried out, and its result cannot be had.
            TinkerError: why it failed.
        """
        if sent.lost is not None:
            raise sent.lost
        if sent.conflict is not None:
            return await self._look(operation, sent.conflict)
        kind = operation.kind
        waiting = WaitForResult(REPLIES[kind], sent.request_id, REQUEST_TYPES[kind], self._lineage.model_id)
        try:
            return await wait_for_result(self._futures, waiting)
        except TinkerError as error:
            verdict = sent.sends.result_failed(error)
            if isinstance(verdict, Applied):
                message = f"{kind}: the service has carried it out and its result is lost: {error}"
                raise ResultLost(message, request_id=sent.request_id) from error
            if not isinstance(verdict, Look):
                self._failed(sent, error)
                raise
            conflict = error
        return await self._look(operation, conflict)

    async def _look(self, operation: Operation, conflict: TinkerError) -> Reply:
        """Look whether what a doubtful save should have made is there.

        Raises:
            TinkerError: the conflict, if it is not, or if that cannot be told.
        """
        path = None
        with contextlib.suppress(APIError):  # some services have no such list
            place = {"training_run_id": self._lineage.model_id}
            there = await self._transport.call(LIST_CHECKPOINTS, Empty(), path=place)
            path = find_saved(there.checkpoints, operation.kind, operation.name)
        if path is None:
            raise conflict
        match operation.kind:
            case "save_for_sampler":
                return SaveWeightsForSamplerResult(path=path)
            case "save_external":
                return SaveWeightsExternalResponse(path=path)
            case _:
                return SaveWeightsResponse(path=path)
