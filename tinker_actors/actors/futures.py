"""The FuturesActor: waits for the results of promises.

Theory of operation. The service answers long work with a promise; its result is fetched by long polls. Polls
run side by side, each in a handler of its own, and the failure of one is the outcome of that promise alone. A
caller that leaves ends its poll. `protocol.future` decides what an answer means; most promises need one poll, and
that way is kept short.

Samples may be waited for together, by one poll for each sampling session (`batch`), if the service offers that; then
only their results are fetched one by one. A poller runs while somebody waits and for a moment after that; what it has
read is remembered for as long as the sampling session has a client. Samples whose callers have left are told to a
service that wants to know.

What the polls of a service share is in `Polls`, which outlives an incarnation: how many bytes of large results may
be on their way, what the queues are in, and the throttle of samples, which hears of paused queues and refused polls.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable
from typing import Any, Generic, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

import attrs
import trio

from tinker_actors.actors.batch import BatchPoller
from tinker_actors.actors.event import EventHub
from tinker_actors.actors.message import Futures, TellCancelled, WaitForResult
from tinker_actors.actors.reachability import Reachability
from tinker_actors.actors.silence import check_progress
from tinker_actors.actors.target import SampleTarget
from tinker_actors.actors.telemetry import Reporter
from tinker_actors.actors.throttle import BytesGate
from tinker_actors.actors.waits import PATROL_PERIOD, Waits
from tinker_actors.errors import (
    ActorStopped,
    APIConnectionError,
    HandlerCrashed,
    TinkerActorsError,
    TinkerError,
)
from tinker_actors.kernel import Actor, ActorRef, Ending, handles
from tinker_actors.protocol.batch_poll import Alone, BatchPoll, Broken, Ready
from tinker_actors.protocol.cancel import CancelQueue
from tinker_actors.protocol.future import (
    Done,
    Failed,
    FetchPayload,
    PollAgain,
    Polling,
    Result,
    decide,
    overdue,
    take,
)
from tinker_actors.protocol.queue_state import ACTIVE, QueueBoard, QueueChange, reason_of
from tinker_actors.protocol.throttle import INFLIGHT_RESPONSE_BYTES, SampleThrottle
from tinker_actors.protocol.wait import Entry
from tinker_actors.transport.http import HttpTransport
from tinker_actors.wire.endpoints import CANCEL_FUTURE, RETRIEVE_FUTURE
from tinker_actors.wire.future import CancelFutureRequest, RetrieveFutureRequest

__all__ = ["CONCURRENCY", "SAMPLE", "FuturesActor", "Polls", "wait_for_result"]

CONCURRENCY = 4096
"""Promises that may be waited for at once."""
SAMPLE = "Sample"
"""What the promise of a sample is called when its result is asked for."""
# Polls of a sample without an answer, in a row, after which the health of the service is asked for; how many more then.
_PATIENT, _ASKS_EVERY = 3, 8

T = TypeVar("T")

_LOG = logging.getLogger("tinker_actors.futures")
# Results that have a protobuf form; for others it is not asked for. tinker 0.38.0 lib/api_future_impl.py
_IN_PROTOBUF = frozenset({SAMPLE, "Forward", "ForwardBackward"})


@attrs.define(eq=False)
class Polls:
    """What all polls of a service share.

    Attributes:
        events: where changes of queues are told.
        waits: who waits for what.
        throttle: what samples pass on their way to the service.
        responses: bytes of large results on their way.
        board: what the queues are in.
        cancels: samples that nobody waits for any more.
        together: samples are waited for together.
        reporter: takes what telemetry is to tell; None if there is no telemetry.
        reachability: whether the service can be reached at all: while it cannot, silence is not the samples'.
    """

    events: EventHub
    waits: Waits
    throttle: SampleThrottle
    responses: BytesGate = attrs.field(factory=lambda: BytesGate(INFLIGHT_RESPONSE_BYTES))
    board: QueueBoard = attrs.field(factory=QueueBoard)
    cancels: CancelQueue = attrs.field(factory=CancelQueue)
    together: bool = False
    reporter: Reporter | None = None
    reachability: Reachability | None = None

    @property
    def is_away(self) -> bool:
        """Whether the service cannot be reached, as far as anybody has found out."""
        return self.reachability is not None and self.reachability.away_since is not None


@attrs.define(eq=False)
class _Wait(Generic[T]):
    """One promise that is waited for.

    Attributes:
        message: who waits for what.
        polling: how far it has come.
        entry: where it stands on the board of those who wait.
        held: bytes of the result that room was made for.
        reported: its queue was paused.
    """

    message: WaitForResult[T]
    polling: Polling
    entry: Entry
    held: int = 0
    reported: bool = False


_Next: TypeAlias = Result[T] | Failed | FetchPayload | PollAgain


class FuturesActor(Actor[Futures]):
    """Polls promises; several at once."""

    declares = (TinkerError,)

    def __init__(self, transport: HttpTransport, polls: Polls) -> None:
        self._transport = transport
        self._polls = polls
        self._timeout = transport.config.promise_timeout
        self._streams: WeakKeyDictionary[SampleTarget, BatchPoll] = WeakKeyDictionary()
        self._pollers: dict[SampleTarget, BatchPoller] = {}  # those that run
        self._telling = False

    async def on_start(self) -> None:
        """Begin to look for long waits."""
        await trio.lowlevel.checkpoint()
        self.context.every(PATROL_PERIOD, self._polls.waits.patrol)

    @handles(WaitForResult)
    async def wait_for_result(self, message: WaitForResult[T]) -> T:
        """Poll until there is a result that can be read.

        Raises:
            RequestFailedError: the request ran and failed.
            SessionGoneError: the promise is lost.
            APIStatusError: the service refuses to answer.
            APIResponseValidationError: the service's answer is none.
            APITimeoutError: it took longer than `promise_timeout`, or than the patience with such a service.
            APIConnectionError: samples are stuck.
        """
        capability = self._transport.capability
        polling = Polling(
            message.request_id,
            metadata_first=capability.newer_fields,
            patience=capability.patience if self._timeout is None else None,
        )
        waits = self._polls.waits
        wait = _Wait(message, polling, waits.enter(message.subject, message.request_type, message.request_id))
        target = message.target
        if target is None or message.again or not self._polls.together:
            result = self._alone(wait)
        else:
            result = self._together(wait, target)
        try:
            return await (result if self._timeout is None else self._in_time(wait, result, self._timeout))
        except TinkerError as error:
            if self._polls.reporter is not None:
                self._polls.reporter.poll_failed(error, message.request_id, message.request_type)
            raise
        finally:
            waits.leave(wait.entry)

    async def _in_time(self, wait: _Wait[T], result: Awaitable[T], seconds: float) -> T:
        with trio.move_on_after(seconds):
            return await result
        raise overdue(wait.polling, seconds).error

    async def _together(self, wait: _Wait[T], target: SampleTarget) -> T:
        """Wait for a sample with all others of its session; then fetch its result."""
        stream = self._streams.get(target)
        if stream is None:
            stream = self._streams[target] = BatchPoll()
        poller = self._poller(target, stream)
        match await poller.wait(wait.message):
            case Alone():
                return await self._alone(wait)
            case Broken(error):
                raise error.renewed()
            case Ready(size):
                wait.polling = attrs.evolve(wait.polling, metadata_first=False)
                try:
                    return await self._fetch(wait, size)
                finally:  # whatever came of it, and also if the caller has left: nobody asks for it again
                    poller.fetched(wait.message.request_id)

    def _poller(self, target: SampleTarget, stream: BatchPoll) -> BatchPoller:
        poller = self._pollers.get(target)
        if poller is None:
            poller = BatchPoller(self._transport, self._polls.events, target, stream)
            if not stream.ended:
                self._pollers[target] = poller
                self.context.spawn(self._run, target, poller)
        return poller

    async def _run(self, target: SampleTarget, poller: BatchPoller) -> None:
        try:
            await poller.run()
        finally:
            del self._pollers[target]

    async def _fetch(self, wait: _Wait[T], size: int) -> T:
        await self._polls.responses.take(size)
        try:
            return await self._alone(wait)
        finally:
            self._polls.responses.give(size)

    async def _alone(self, wait: _Wait[T]) -> T:
        command = await self._poll(wait)
        if isinstance(command, Result):
            return command.value
        try:
            return await self._go_on(wait, command)
        finally:
            self._settle(wait)

    async def _go_on(self, wait: _Wait[T], command: _Next[T]) -> T:
        """Do what the answers ask for until there is a result; a checkpoint unless the first command is the last."""
        while True:
            match command:
                case Result(value):
                    return value
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

    async def _poll(self, wait: _Wait[T]) -> _Next[T]:
        message, polling = wait.message, wait.polling
        answer = await self._transport.poll(
            RetrieveFutureRequest(message.request_id, polling.metadata_first),
            request_type=message.request_type,
            iteration=polling.iteration,
            accept_protobuf=message.request_type in _IN_PROTOBUF,
        )
        pause = self._transport.billing_pause(RETRIEVE_FUTURE.name) if answer.status == 402 else None
        command = decide(polling, answer, pause=pause)
        return take(polling, command.payload, message.kind) if isinstance(command, Done) else command

    async def _pause(self, wait: _Wait[Any], command: PollAgain) -> None:
        """Wait as long as the answer asks for; a checkpoint only if it does."""
        now, message = trio.current_time(), wait.message
        queue = command.queue
        _note(wait.entry, command, sampling=message.request_type == SAMPLE)
        if message.target is not None:
            self._look_at_sample(message, message.target, command, is_news=not wait.reported)
        if queue is not None:
            wait.reported = True
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
        if message.target is not None and command.waiting == "service":
            await self._until_back(message.target, command)

    async def _until_back(self, target: SampleTarget, command: PollAgain) -> None:
        """Wait with all others while the service is away; a checkpoint only then.

        Raises:
            APIConnectionError: it has been away for longer than an outage may last.
        """
        reachability, polling = self._polls.reachability, command.polling
        is_time = polling.failures >= _PATIENT and (polling.failures - _PATIENT) % _ASKS_EVERY == 0
        if reachability is None or not (is_time or (polling.failures and self._polls.is_away)):
            return
        message = f"request {polling.request_id}: the service is away; its last word was: {polling.last_word}"
        if await reachability.wait(APIConnectionError(message, doubtful=True, retryable=False)):
            target.progress.resume(trio.current_time())

    def _look_at_sample(
        self, message: WaitForResult[Any], target: SampleTarget, command: PollAgain, *, is_news: bool
    ) -> None:
        """Tell the throttle what a poll without a result says about samples, and whether these move on."""
        polls, now = self._polls, trio.current_time()
        if command.waiting == "limit":
            polls.throttle.backoff.refused(now=now, retry_after=command.delay)
            polls.throttle.paused()
        elif command.queue is not None and command.queue.is_paused and is_news:
            polls.throttle.paused()
        if polls.is_away:
            target.progress.resume(now)
            return
        stuck = check_progress(
            polls.events, target, message.era, message.progress_timeout, command.polling.last_word
        )
        if stuck is not None:
            raise stuck

    @handles(TellCancelled)
    async def tell_cancelled(self, _: TellCancelled) -> None:
        """Tell the service of all samples in the queue, one batch after the other; a failure is let go."""
        if self._telling:
            await trio.lowlevel.checkpoint()
            return
        self._telling = True
        try:
            while batch := self._polls.cancels.take():
                async with trio.open_nursery() as nursery:
                    for request_id in batch:
                        nursery.start_soon(self._cancel, request_id)
        finally:
            self._telling = False

    async def _cancel(self, request_id: str) -> None:
        with contextlib.suppress(TinkerActorsError):
            await self._transport.call(CANCEL_FUTURE, CancelFutureRequest(request_id))

    async def on_stop(self, ending: Ending) -> None:
        """Tell the service which results have been fetched."""
        await trio.lowlevel.checkpoint()
        if ending != "crash":
            async with trio.open_nursery() as nursery:
                for poller in self._pollers.values():
                    nursery.start_soon(poller.close)

    def _settle(self, wait: _Wait[Any]) -> None:
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


def _note(entry: Entry, command: PollAgain, *, sampling: bool) -> None:
    """Write down what a poll has said of why there is no result yet."""
    queue = command.queue
    if queue is not None:
        entry.state = queue.state
        paused = queue.state != ACTIVE
        entry.reason = reason_of(queue.state, queue.reason, sampling=sampling) if paused else ""
    else:
        entry.state, entry.reason = ACTIVE, "" if command.waiting == "result" else command.polling.last_word


async def wait_for_result(futures: ActorRef[Futures], message: WaitForResult[T]) -> T:
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
        message = attrs.evolve(message, again=True)
