"""One poll for all samples of a sampling session: what drives `protocol.batch_poll`.

Theory of operation. Who waits for a sample leaves an event with the poller and sleeps on it. The poller's task sends
what the machine asks for, one poll after the other, and sets the events of those whose samples have ended; it sleeps
while nobody waits and the service knows everything. A poller ends with its FuturesActor: after a crash, those who
waited ask for their samples one by one.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping

import trio

from tinker_actors.errors import APIError, BillingError
from tinker_actors.protocol.batch_poll import BatchPoll, Completion, Found, Poll
from tinker_actors.protocol.future import MIN_HOLD
from tinker_actors.transport.http import HttpTransport
from tinker_actors.transport.options import RequestOptions
from tinker_actors.wire.endpoints import RETRIEVE_FUTURES
from tinker_actors.wire.future import (
    FutureCompletion,
    FutureFinished,
    RetrieveFuturesRequest,
    RetrieveFuturesResponse,
    SamplingSessionTarget,
)

__all__ = ["BatchPoller"]

_LOG = logging.getLogger("tinker_actors.futures")
_LAST_WORD = 5.0  # seconds for the poll that is sent when the client leaves


class BatchPoller:
    """Finds out which samples of one session have ended; `run` is its task.

    Args:
        transport: the way to the service.
        sampling_session_id: whose samples.
    """

    def __init__(self, transport: HttpTransport, sampling_session_id: str) -> None:
        self._transport = transport
        self._target = SamplingSessionTarget(sampling_session_id=sampling_session_id)
        self._machine = BatchPoll()
        self._changed = trio.Event()
        self._events: dict[str, trio.Event] = {}
        self._found: dict[str, Found] = {}

    async def wait(self, request_id: str) -> Found:
        """Wait until a sample has ended; a checkpoint unless that is known already."""
        found = self._machine.wait(request_id)
        if found is not None:
            return found
        event = self._events[request_id] = trio.Event()
        self._changed.set()
        try:
            await event.wait()
            return self._found[request_id]
        except BaseException:
            self._machine.leave(request_id)
            raise
        finally:
            del self._events[request_id]
            self._found.pop(request_id, None)

    def fetched(self, request_id: str) -> None:
        """The sample's result is here; the service may forget it."""
        self._machine.fetched(request_id)
        self._changed.set()

    async def run(self) -> None:
        """Poll until that has come to an end."""
        while not self._machine.ended:
            poll = self._machine.next_poll()
            if poll is None:
                self._changed = trio.Event()
                await self._changed.wait()
            else:
                await self._send(poll)

    async def close(self) -> None:
        """Tell the service what it does not know yet, if that is quickly done."""
        poll = self._machine.last_poll()
        if poll is None:
            await trio.lowlevel.checkpoint()
            return
        with trio.move_on_after(_LAST_WORD), contextlib.suppress(APIError):
            await self._call(poll)

    async def _send(self, poll: Poll) -> None:
        started = trio.current_time()
        try:
            reply = await self._call(poll)
        except APIError as error:
            outcome = self._machine.failed(error, billing_pause=self._billing_pause(error))
            if isinstance(outcome, dict):
                self._tell(outcome)
            else:
                await trio.sleep(outcome)
        else:
            completions = [done for one in reply.completions if (done := _completion(one)) is not None]
            self._tell(self._machine.answered(poll, reply.cursor, completions))
            if poll.waits and not completions:
                await trio.sleep(max(0.0, started + MIN_HOLD - trio.current_time()))

    async def _call(self, poll: Poll) -> RetrieveFuturesResponse:
        request = RetrieveFuturesRequest(
            target=self._target,
            prev_cursor=poll.prev_cursor,
            timeout=None if poll.waits else 0.0,
            retrieved_request_ids=poll.retrieved,
        )
        options = RequestOptions(timeout=poll.deadline)
        return await self._transport.call(RETRIEVE_FUTURES, request, options=options)

    def _billing_pause(self, error: APIError) -> float | None:
        if not isinstance(error, BillingError):
            return None
        now = trio.current_time()
        if self._transport.billing.should_warn(now):
            _LOG.warning("the account cannot be charged; the work pauses")
        return self._transport.billing.refused(now)

    def _tell(self, found: dict[str, Found]) -> None:
        for request_id, what in found.items():
            event = self._events.get(request_id)
            if event is not None:
                self._found[request_id] = what
                event.set()


def _completion(one: FutureCompletion) -> Completion | None:
    """Return what has ended; None if it is not said what.

    A state that is not known counts as an end: the fetch of the result says what it means, and waits if it is none.
    """
    if isinstance(one, Mapping):
        request_id = one.get("request_id")
        return Completion(request_id) if isinstance(request_id, str) else None
    size = one.response_payload_uncompressed_size if isinstance(one, FutureFinished) else None
    return Completion(one.request_id, size or 0)
