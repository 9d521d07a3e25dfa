"""One poll for all samples of a sampling session: what drives `protocol.batch_poll`.

Theory of operation. Who waits for a sample leaves an event with the poller and sleeps on it. The poller's task sends
what the machine asks for, one poll after the other, and sets the events of those whose samples have ended. When nobody
waits and the service knows everything it lingers for a moment and ends; the machine stays with the sampling session, so
that the next poller goes on where it was. A poller also ends with its FuturesActor: after a crash, those who waited
ask for their samples one by one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import attrs
import trio

from tinker_actors.actors.event import EventHub
from tinker_actors.actors.message import WaitForResult
from tinker_actors.actors.silence import check_progress
from tinker_actors.actors.target import SampleTarget
from tinker_actors.errors import APIConnectionError, APIError, BillingError
from tinker_actors.protocol.batch_poll import BatchPoll, Broken, Completion, Found, Poll, Ready
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

_LINGER = 5.0  # seconds that it is ready for the next sample
_LAST_WORD = 5.0  # seconds for the poll that is sent when the client leaves


@attrs.define(eq=False)
class _Waiting:
    message: WaitForResult[Any]
    found: Found | None = None
    event: trio.Event = attrs.field(factory=trio.Event)


class BatchPoller:
    """Finds out which samples of one session have ended; `run` is its task.

    Args:
        transport: the way to the service.
        events: where it is told that samples do not move on.
        target: whose samples.
        machine: what has been read of them.
    """

    def __init__(
        self, transport: HttpTransport, events: EventHub, target: SampleTarget, machine: BatchPoll
    ) -> None:
        self._transport = transport
        self._hub = events
        self._target = target
        self._machine = machine
        self._changed = trio.Event()
        self._waiting: dict[str, _Waiting] = {}
        self._fetching = 0  # results that will be told as fetched

    async def wait(self, message: WaitForResult[Any]) -> Found:
        """Wait until a sample has ended; a checkpoint unless that is known already."""
        found = self._machine.wait(message.request_id)
        if found is None:
            self._changed.set()
            found = await self._completion(message)
        if isinstance(found, Ready):
            self._fetching += 1
        return found

    async def _completion(self, message: WaitForResult[Any]) -> Found:
        request_id = message.request_id
        waiting = self._waiting[request_id] = _Waiting(message)
        try:
            await waiting.event.wait()
        except BaseException:
            if isinstance(waiting.found, Ready):
                self._machine.fetched(request_id)
            else:
                self._machine.leave(request_id)
            raise
        finally:
            del self._waiting[request_id]
        assert waiting.found is not None, "it is set before the event"
        return waiting.found

    def fetched(self, request_id: str) -> None:
        """The sample's result is here; the service may forget it."""
        self._fetching -= 1
        self._machine.fetched(request_id)
        self._changed.set()

    async def run(self) -> None:
        """Poll until that has come to an end, or nobody has waited for a while."""
        while not self._machine.ended:
            poll = self._machine.next_poll()
            if poll is not None:
                await self._send(poll)
            elif not await self._linger():
                return

    async def _linger(self) -> bool:
        """Wait until there may be something to ask or to tell; False if there was nothing for a while."""
        self._changed = trio.Event()
        with trio.move_on_after(_LINGER):
            await self._changed.wait()
        return self._changed.is_set() or self._fetching > 0

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
            if isinstance(error, APIConnectionError) and not error.doubtful:
                self._target.progress.resume(
                    trio.current_time()
                )  # an absent service is not the samples' silence
            billing = isinstance(error, BillingError)
            pause = self._transport.billing_pause(RETRIEVE_FUTURES.name) if billing else None
            outcome = self._machine.failed(error, billing_pause=pause)
            if isinstance(outcome, dict):
                self._tell(outcome)
            else:
                await trio.sleep(outcome)
        else:
            completions = [done for one in reply.completions if (done := _completion(one)) is not None]
            self._tell(self._machine.answered(poll, reply.cursor, completions))
            if poll.waits and not completions:
                self._look_at_samples()
                await trio.sleep(max(0.0, started + MIN_HOLD - trio.current_time()))

    async def _call(self, poll: Poll) -> RetrieveFuturesResponse:
        request = RetrieveFuturesRequest(
            target=SamplingSessionTarget(
                sampling_session_id=self._target.sampling_session_id, cloned_sampler_id=self._target.clone
            ),
            prev_cursor=poll.prev_cursor,
            timeout=None if poll.waits else 0.0,
            retrieved_request_ids=poll.retrieved,
        )
        options = RequestOptions(timeout=poll.deadline)
        return await self._transport.call(RETRIEVE_FUTURES, request, options=options)

    def _tell(self, found: dict[str, Found]) -> None:
        for request_id, what in found.items():
            waiting = self._waiting.get(request_id)
            if waiting is not None:
                waiting.found = what
                waiting.event.set()

    def _look_at_samples(self) -> None:
        """Have those told that are stuck, and somebody hear of those that are slow."""
        for request_id, waiting in self._waiting.items():
            message = waiting.message
            stuck = check_progress(
                self._hub, self._target, message.era, message.progress_timeout, "no sample has ended"
            )
            if stuck is not None and waiting.found is None:
                self._machine.leave(request_id)
                waiting.found = Broken(stuck)
                waiting.event.set()


def _completion(one: FutureCompletion) -> Completion | None:
    """Return what has ended; None if it is not said what.

    A state that is not known counts as an end: the fetch of the result says what it means, and waits if it is none.
    """
    if isinstance(one, Mapping):
        request_id = one.get("request_id")
        return Completion(request_id) if isinstance(request_id, str) else None
    size = one.response_payload_uncompressed_size if isinstance(one, FutureFinished) else None
    return Completion(one.request_id, size or 0)
