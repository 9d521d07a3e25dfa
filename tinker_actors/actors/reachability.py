"""Whether the service can be reached; who cannot reach it waits here, and one of them asks when it is back.

Theory of operation. A call that could not reach the service, or that has used up its attempts on 5xx and silence,
waits in `wait`. The first to wait begins an *outage*; one of those who wait asks for the service's health, at longer
and longer intervals, and all go on when there is an answer. There is no task for that: the one who asks holds a lock,
and if its caller leaves, the next one takes over. So there is one prober as long as anybody waits, and none otherwise:
when the last one leaves, nothing is known of the service any more, and who fails within a minute goes on with the
outage that was left.

While an outage lasts the state of the service is `WAITING_SERVER`. It is no failure: nothing is restarted because of
it, no budget is spent, and no operation ends, unless `Config.outage_timeout` says so.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Awaitable, Callable
from typing import Literal, TypeAlias, TypeVar

import attrs
import trio

from tinker_actors.actors.event import EventHub
from tinker_actors.errors import APIError, APIStatusError, TinkerError
from tinker_actors.protocol.event import ServerBack, ServerUnreachable
from tinker_actors.protocol.reachability import CALM, STUBBORN, Probing, answers, cannot_reach, may_pass
from tinker_actors.transport.http import HttpTransport
from tinker_actors.transport.options import RequestOptions
from tinker_actors.wire.endpoints import HEALTH
from tinker_actors.wire.service import Empty

__all__ = ["Reachability", "State", "always"]

_LOG = logging.getLogger("tinker_actors.service")
T = TypeVar("T")
State: TypeAlias = Literal["REACHABLE", "WAITING_SERVER"]
_ONE_PROBE = RequestOptions(max_retries=0, timeout=10.0)


def always(_: BaseException) -> bool:
    """Say of any failed call that it may be sent again."""
    return True


@attrs.define(eq=False)
class _Outage:
    since: float
    probes: int = 0
    waiting: int = 0
    over: bool = False
    left: float | None = None  # when the last of those who waited gave up


class Reachability:
    """Whether one service can be reached.

    Args:
        transport: the way to it.
        events: where it is told that the service is away, and that it is back.
        rng: chance for the delays between probes.
        timeout: seconds an outage may last before those who wait raise what they came with; None has no end.
    """

    def __init__(
        self, transport: HttpTransport, events: EventHub, rng: random.Random, timeout: float | None
    ) -> None:
        self._transport = transport
        self._events = events
        self._rng = rng
        self._timeout = math.inf if timeout is None else timeout
        self._probing = Probing()
        self._turn = trio.Lock()
        self._outage: _Outage | None = None
        self._given_up: _Outage | None = None

    @property
    def state(self) -> State:
        """What the service is, as far as anybody has found out."""
        return "REACHABLE" if self._outage is None else "WAITING_SERVER"

    @property
    def interruptions(self) -> int:
        """How often the service gave no answer, or one of its own failure: it may have been restarted since."""
        return self._transport.interruptions

    def interrupted(self) -> None:
        """Count that the service gave no answer to somebody who calls it by another way."""
        self._transport.interruptions += 1

    @property
    def away_since(self) -> float | None:
        """The trio time at which the present outage began."""
        return None if self._outage is None else self._outage.since

    async def call(
        self, attempt: Callable[[], Awaitable[T]], *, may_repeat: Callable[[BaseException], bool] = always
    ) -> T:
        """Do something that calls the service, and again once the service can be reached.

        Args:
            attempt: what is done; it has its own retries.
            may_repeat: whether it may be done again after this failure.

        Raises:
            TinkerError: the failure, if it is another one, may not be repeated, or does not pass.
        """
        since: float | None = None
        while True:
            try:
                return await attempt()
            except TinkerError as error:
                if not cannot_reach(error) or not may_repeat(error):
                    raise
                failure = error
            since = trio.current_time() if since is None else since
            if await self.wait(failure):
                since = None
            elif not may_pass(failure) or trio.current_time() - since > min(STUBBORN, self._timeout):
                raise failure

    async def wait(self, error: BaseException) -> bool:
        """Wait until the service can be reached; False if it could at once, and only the call had failed.

        Args:
            error: what the call failed of.

        Raises:
            BaseException: `error`, when the outage has lasted for too long.
        """
        outage = self._outage
        if outage is None:
            outage = self._begin(error)
        outage.waiting += 1
        try:
            with trio.move_on_at(outage.since + self._timeout):
                async with self._turn:
                    while not outage.over:
                        await self._probe(outage)
        finally:
            outage.waiting -= 1
            if not outage.waiting and not outage.over:
                self._give_up(outage)
        if not outage.over:
            raise error
        return outage.probes > 1

    def _begin(self, error: BaseException) -> _Outage:
        now = trio.current_time()
        given_up, self._given_up = self._given_up, None
        if given_up is not None and given_up.left is not None and now - given_up.left <= CALM:
            self._outage = given_up  # it was told when it began
            return given_up
        self._outage = outage = _Outage(now)
        self._probing.begin(now)
        cause = f"{type(error).__name__}: {error}"
        url, most = self._transport.config.base_url, self._timeout
        long = "however long that takes" if math.isinf(most) else f"{most:.0f} s at most"
        _LOG.warning("the service %s cannot be reached; the work waits for it, %s: %s", url, long, cause)
        self._events.publish(ServerUnreachable(cause))
        return outage

    async def _probe(self, outage: _Outage) -> None:
        await trio.sleep(self._probing.delay(self._rng.random()))
        outage.probes += 1
        if await self.is_there():
            self._end(outage)

    async def is_there(self) -> bool:
        """Ask the service for its health, once; any answer but 408 and 5xx will do."""
        try:
            await self._transport.call(HEALTH, Empty(), options=_ONE_PROBE)
        except APIStatusError as error:
            return answers(error.status_code)
        except APIError as error:
            return not cannot_reach(error)
        except TinkerError:  # there is no key to ask with; whoever waits is told so by its own call
            return True
        return True

    def _give_up(self, outage: _Outage) -> None:
        """Nobody asks for the service any more, so nobody knows that it is away; who comes soon goes on with it."""
        outage.left = trio.current_time()
        self._outage, self._given_up = None, outage

    def _end(self, outage: _Outage) -> None:
        outage.over = True
        self._outage = None
        now = trio.current_time()
        self._probing.end(now)
        seconds = now - outage.since
        url = self._transport.config.base_url
        _LOG.warning("the service %s can be reached again, after %.0f s", url, seconds)
        self._events.publish(ServerBack(seconds))
