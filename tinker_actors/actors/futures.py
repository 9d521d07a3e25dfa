"""The FuturesActor: waits for the results of promises.

Theory of operation. The service answers long work with a promise; its result is fetched by long polls. Polls
run side by side, each in a handler of its own, and the failure of one is the outcome of that promise alone. A
caller that leaves ends its poll. `protocol.future` decides what an answer means; most promises need one poll, and
that way is kept short.

What the polls of a service share is in `Polls`, which outlives an incarnation: how many bytes of large results may
be on their way, what the queues are in, the clock that a refused sample moves, and what counts as stuck.
"""

from __future__ import annotations

import logging

import attrs
import trio

from tinker_actors.actors.event import EventHub
from tinker_actors.actors.message import Futures, WaitForResult
from tinker_actors.actors.throttle import BytesGate
from tinker_actors.errors import ActorStopped, APIConnectionError, HandlerCrashed, TinkerError
from tinker_actors.kernel import Actor, ActorRef, handles
from tinker_actors.protocol.backoff import SampleBackoff
from tinker_actors.protocol.future import (
    Answer,
    Command,
    Done,
    Failed,
    FetchPayload,
    PollAgain,
    Polling,
    decide,
    overdue,
)
from tinker_actors.protocol.queue_state import QueueBoard, QueueChange
from tinker_actors.protocol.throttle import INFLIGHT_RESPONSE_BYTES, Progress
from tinker_actors.transport.http import HttpTransport
from tinker_actors.wire.future import RetrieveFutureRequest
from tinker_actors.wire.payload import Payload

__all__ = ["CONCURRENCY", "SAMPLE", "FuturesActor", "Polls", "stuck", "wait_for_result"]

CONCURRENCY = 4096
"""Promises that may be waited for at once."""
SAMPLE = "Sample"
"""What the promise of a sample is called when its result is asked for."""

_LOG = logging.getLogger("tinker_actors.futures")
# Results that have a protobuf form; for others it is not asked for. tinker 0.38.0 lib/api_future_impl.py
_IN_PROTOBUF = frozenset({SAMPLE, "Forward", "ForwardBackward"})


@attrs.define(eq=False)
class Polls:
    """What all polls of a service share.

    Attributes:
        events: where changes of queues are told.
        backoff: the clock that holds samples back.
        progress: when samples have ended.
        responses: bytes of large results on their way.
        board: what the queues are in.
    """

    events: EventHub
    backoff: SampleBackoff = attrs.field(factory=SampleBackoff)
    progress: Progress = attrs.field(factory=Progress)
    responses: BytesGate = attrs.field(factory=lambda: BytesGate(INFLIGHT_RESPONSE_BYTES))
    board: QueueBoard = attrs.field(factory=QueueBoard)


@attrs.define(eq=False)
class _Wait:
    """One promise that is waited for.

    Attributes:
        message: who waits for what.
        polling: how far it has come.
        held: bytes of the result that room was made for.
        reported: its queue was paused.
    """

    message: WaitForResult
    polling: Polling
    held: int = 0
    reported: bool = False


class FuturesActor(Actor[Futures]):
    """Polls promises; several at once."""

    declares = (TinkerError,)

    def __init__(self, transport: HttpTransport, polls: Polls) -> None:
        self._transport = transport
        self._polls = polls
        self._timeout = transport.config.promise_timeout

    @handles(WaitForResult)
    async def wait_for_result(self, message: WaitForResult) -> Payload:
        """Poll until there is a result; it comes as the service wrote it.

        Raises:
            RequestFailedError: the request ran and failed.
            SessionGoneError: the promise is lost.
            APIStatusError: the service refuses to answer.
            APIResponseValidationError: the service's answer is none.
            APITimeoutError: it took longer than `promise_timeout`.
            APIConnectionError: samples are stuck.
        """
        polling = Polling(message.request_id, metadata_first=self._transport.capability.newer_fields)
        wait = _Wait(message, polling)
        if self._timeout is None:
            return await self._result(wait)
        with trio.move_on_after(self._timeout):
            return await self._result(wait)
        raise overdue(wait.polling, self._timeout).error

    async def _result(self, wait: _Wait) -> Payload:
        command = await self._poll(wait)
        if isinstance(command, Done):
            return command.payload
        try:
            return await self._go_on(wait, command)
        finally:
            self._settle(wait)

    async def _go_on(self, wait: _Wait, command: Command) -> Payload:
        """Do what the answers ask for until there is a result; a checkpoint unless the first command is the last."""
        while True:
            match command:
                case Done(payload):
                    return payload
                case Failed(error):
                    raise error
                case FetchPayload(size, polling):
                    wait.polling = polling
                    await self._polls.responses.take(size)
                    wait.held = size
                case PollAgain():
                    wait.polling = command.polling
                    await self._pause(wait, command)
            command = await self._poll(wait)

    async def _poll(self, wait: _Wait) -> Command:
        message, polling = wait.message, wait.polling
        answer = await self._transport.poll(
            RetrieveFutureRequest(message.request_id, polling.metadata_first),
            request_type=message.request_type,
            iteration=polling.iteration,
            accept_protobuf=message.request_type in _IN_PROTOBUF,
        )
        return decide(polling, answer, pause=self._billing_pause(answer))

    def _billing_pause(self, answer: Answer) -> float | None:
        if answer.status != 402:
            return None
        now = trio.current_time()
        if self._transport.billing.should_warn(now):
            _LOG.warning("the account cannot be charged; the work pauses")
        return self._transport.billing.refused(now)

    async def _pause(self, wait: _Wait, command: PollAgain) -> None:
        """Wait as long as the answer asks for; a checkpoint only if it does."""
        now, message = trio.current_time(), wait.message
        if message.request_type == SAMPLE:
            if command.waiting == "limit":
                self._polls.backoff.refused(now=now, retry_after=command.delay)
            if self._polls.progress.is_stuck(now):
                raise stuck(self._polls.progress.timeout)
        if command.queue is not None:
            wait.reported = True
            queue = command.queue
            self._tell(
                message.subject,
                self._polls.board.report(
                    message.subject,
                    message.request_id,
                    queue.state,
                    queue.reason,
                    now=now,
                    sampling=message.request_type == SAMPLE,
                ),
            )
        if command.delay:
            await trio.sleep(command.delay)

    def _settle(self, wait: _Wait) -> None:
        if wait.held:
            self._polls.responses.give(wait.held)
        if wait.reported:
            message = wait.message
            change = self._polls.board.end(message.subject, message.request_id, now=trio.current_time())
            self._tell(message.subject, change)

    def _tell(self, subject: str, change: QueueChange | None) -> None:
        if change is not None:
            self._polls.events.publish(change)
        line = self._polls.board.line(subject, now=trio.current_time())
        if line is not None:
            _LOG.warning("%s", line)


def stuck(seconds: float) -> APIConnectionError:
    """Return what all samples end with when none has ended for long."""
    # tinker 0.38.0 lib/retry_handler.py
    message = f"No progress made in {seconds:g}s. Requests appear to be stuck."
    return APIConnectionError(message, doubtful=True, retryable=False)


async def wait_for_result(futures: ActorRef[Futures], message: WaitForResult) -> Payload:
    """Wait for a promise's result, also across a restart of the FuturesActor: asking again changes nothing.

    Raises:
        TinkerError: see `FuturesActor.wait_for_result`.
        ActorStopped: the FuturesActor has ended for good.
    """
    while True:
        try:
            return await futures.ask(message)
        except (ActorStopped, HandlerCrashed):
            if futures.stopped:
                raise
