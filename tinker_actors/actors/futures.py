"""The FuturesActor: waits for the results of promises.

Theory of operation. The service answers long work with a promise; its result is fetched by long polls. Polls
run side by side, each in a handler of its own, and the failure of one is the outcome of that promise alone. A
caller that leaves ends its poll. `protocol.future` decides what an answer means.
"""

from __future__ import annotations

import trio

from tinker_actors.actors.message import Futures, WaitForResult
from tinker_actors.errors import ActorStopped, HandlerCrashed, TinkerError
from tinker_actors.kernel import Actor, ActorRef, handles
from tinker_actors.protocol.future import Command, Failed, FetchPayload, PollAgain, Polling, decide
from tinker_actors.transport.http import HttpTransport
from tinker_actors.wire.payload import Payload
from tinker_actors.wire.session import RetrieveFutureRequest

__all__ = ["CONCURRENCY", "FuturesActor", "wait_for_result"]

CONCURRENCY = 4096
"""Promises that may be waited for at once."""


class FuturesActor(Actor[Futures]):
    """Polls promises; several at once."""

    declares = (TinkerError,)

    def __init__(self, transport: HttpTransport) -> None:
        self._transport = transport

    @handles(WaitForResult)
    async def wait_for_result(self, message: WaitForResult) -> Payload:
        """Poll until there is a result; it comes as the service wrote it.

        Raises:
            RequestFailedError: the request ran and failed.
            SessionGoneError: the promise is lost.
            APIStatusError: the service refuses to answer.
            APIResponseValidationError: the service's answer is none.
        """
        command: Command = PollAgain(0.0, Polling(message.request_id))
        while isinstance(command, PollAgain | FetchPayload):
            polling = command.polling
            if isinstance(command, PollAgain) and command.delay:
                await trio.sleep(command.delay)
            answer = await self._transport.poll(
                RetrieveFutureRequest(message.request_id, polling.metadata_first),
                request_type=message.request_type,
                iteration=polling.iteration,
            )
            command = decide(polling, answer)
        if isinstance(command, Failed):
            raise command.error
        return command.payload


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
