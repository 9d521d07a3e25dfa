"""The SamplingActors: a pool that draws samples behind one limiter.

Theory of operation. All sampling of a service goes through one pool: its workers take messages from one
mailbox, each handles several at once, and a `CapacityLimiter` bounds what is in flight. A refusal (429) moves
one shared clock that holds everybody back who samples from that service with that key, in this process; it
never shortens a wait. Samples have no retries in the transport: a doubtful send is sent again with the same
number, which costs money at worst, never correctness; a promise that is lost is asked for anew with a new
number. A caller that leaves takes its sample with it.
"""

from __future__ import annotations

import hashlib
import random

import attrs
import trio

from tinker_actors.actors.futures import wait_for_result
from tinker_actors.actors.message import Futures, Sample, Sampling, WaitForResult
from tinker_actors.errors import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    DecodeError,
    RateLimitError,
    SessionGoneError,
    TinkerActorsError,
)
from tinker_actors.kernel import Actor, ActorRef, handles
from tinker_actors.protocol.backoff import SampleBackoff
from tinker_actors.protocol.retry import backoff_delay
from tinker_actors.transport.config import Config
from tinker_actors.transport.http import HttpTransport
from tinker_actors.wire.endpoints import ASAMPLE
from tinker_actors.wire.payload import Payload, read
from tinker_actors.wire.sampling import SampleRequest, SampleResponse, SampleSubmitted

__all__ = ["SamplingActor", "SamplingShare", "shared_backoff"]

_RESENDS = 8  # doubtful sends of one sample before its caller is told
_PROMISES = 4  # lost promises of one sample before its caller is told

_BACKOFFS: trio.lowlevel.RunVar[dict[tuple[str, str], SampleBackoff]] = trio.lowlevel.RunVar(
    "sample_backoffs"
)


def shared_backoff(config: Config) -> SampleBackoff:
    """Return the clock of a service and key; all services of this trio run share it."""
    try:
        table = _BACKOFFS.get()
    except LookupError:
        table = {}
        _BACKOFFS.set(table)
    digest = hashlib.sha256((config.api_key or "").encode()).hexdigest()
    return table.setdefault((config.base_url, digest), SampleBackoff())


@attrs.define(eq=False)
class SamplingShare:
    """What the workers of one pool share.

    Attributes:
        limiter: samples in flight.
        backoff: when the next may be sent.
        rng: chance for delays.
    """

    limiter: trio.CapacityLimiter
    backoff: SampleBackoff
    rng: random.Random
    _numbers: dict[str, int] = attrs.field(factory=dict)

    def take_number(self, sampling_session_id: str) -> int:
        """Return the next number of a sampling session, from 0."""
        number = self._numbers.get(sampling_session_id, 0)
        self._numbers[sampling_session_id] = number + 1
        return number


class SamplingActor(Actor[Sampling]):
    """Draws samples; one worker of the pool."""

    declares = (TinkerActorsError,)

    def __init__(self, transport: HttpTransport, futures: ActorRef[Futures], share: SamplingShare) -> None:
        self._transport = transport
        self._futures = futures
        self._share = share

    @handles(Sample)
    async def sample(self, message: Sample) -> SampleResponse:
        """Draw sequences.

        Raises:
            RequestFailedError: the service ran it and it failed.
            APIStatusError: the service refused it.
            APIConnectionError: no answer, several times over.
        """
        async with self._share.limiter:
            lost = 0
            while True:
                promise = await self._submit(message)
                try:
                    waiting = WaitForResult(promise.request_id, "Sample", message.target.sampling_session_id)
                    return _response(await wait_for_result(self._futures, waiting))
                except SessionGoneError:
                    lost += 1
                    if lost == _PROMISES:
                        raise

    async def _submit(self, message: Sample) -> SampleSubmitted:
        session_id = message.target.sampling_session_id
        request = _request(message, self._share.take_number(session_id))
        doubtful = 0
        while True:
            await trio.sleep(self._share.backoff.wait(trio.current_time()))
            try:
                return await self._transport.call(ASAMPLE, request)
            except RateLimitError as error:
                self._share.backoff.refused(now=trio.current_time(), retry_after=error.retry_after)
            except (APIConnectionError, APIStatusError) as error:
                if not _worth_resending(error) or doubtful == _RESENDS:
                    raise
                await trio.sleep(backoff_delay(doubtful, None, self._share.rng.random()))
                doubtful += 1


def _worth_resending(error: APIConnectionError | APIStatusError) -> bool:
    if isinstance(error, APIConnectionError):
        return True
    return error.status_code == 408 or error.status_code >= 500


def _request(message: Sample, number: int) -> SampleRequest:
    return SampleRequest(
        prompt=message.prompt,
        sampling_params=message.sampling_params,
        num_samples=message.num_samples,
        sampling_session_id=message.target.sampling_session_id,
        seq_id=number,
        prompt_logprobs=message.include_prompt_logprobs or None,
        topk_prompt_logprobs=message.topk_prompt_logprobs,
    )


def _response(payload: Payload) -> SampleResponse:
    try:
        return read(SampleResponse, payload)
    except DecodeError as error:
        raise APIResponseValidationError(f"sample: {error}", error.problems) from error
