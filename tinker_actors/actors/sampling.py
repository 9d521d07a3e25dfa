"""The SamplingActors: a pool that draws samples behind one limiter and one throttle.

Theory of operation. All sampling of a service goes through one pool: its workers take messages from one
mailbox, each handles several at once, and a `CapacityLimiter` bounds what is in flight. On its way to the service a
sample passes the throttle (`protocol.throttle`), which bounds how many, and how many bytes, are being submitted; it
is passed before each attempt, and left before the result is waited for. A refusal (429) moves one shared clock that
holds everybody back who samples from that service with that key, in this process; it never shortens a wait.

Samples have no retries in the transport. A refused one is sent again with the same number, and so is a doubtful send,
which costs money at worst, never correctness. A promise that is lost, or a request that failed and was not the user's
fault, is asked for anew with a new number, as the policy (`RetryConfig`) says. A caller that leaves takes its sample
with it.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import random
from collections.abc import Callable, Sequence

import attrs
import trio

from tinker_actors.actors.futures import SAMPLE, stuck, wait_for_result
from tinker_actors.actors.message import Futures, Sample, Sampling, TellCancelled, WaitForResult
from tinker_actors.actors.rebinding import SamplerOpener
from tinker_actors.actors.session import Session
from tinker_actors.actors.throttle import SampleGate
from tinker_actors.errors import (
    ActorError,
    APIConnectionError,
    APIStatusError,
    BillingError,
    RateLimitError,
    RequestFailedError,
    SessionGoneError,
    TinkerActorsError,
    TinkerError,
)
from tinker_actors.kernel import Actor, ActorRef, handles
from tinker_actors.protocol.backoff import SampleBackoff
from tinker_actors.protocol.cancel import CancelQueue
from tinker_actors.protocol.policy import RetryConfig, is_retryable
from tinker_actors.protocol.recovery import sampler_lost
from tinker_actors.protocol.retry import backoff_delay
from tinker_actors.protocol.throttle import Progress, sample_bytes
from tinker_actors.transport.config import Config, normal_url
from tinker_actors.transport.http import HttpTransport
from tinker_actors.wire.endpoints import ASAMPLE
from tinker_actors.wire.sampling import SampleRequest, SampleResponse, SampleSubmitted

__all__ = ["SamplingActor", "SamplingShare", "shared_backoff"]

_LOG = logging.getLogger("tinker_actors.sampling")
_RESENDS = 8  # doubtful sends of one sample before its caller is told
_SESSIONS = 4  # sampling sessions that may be lost while one sample is submitted
_PROMISES = 4  # promises of one sample that may come to nothing before its caller is told
_TOKEN_BYTES = (
    10  # what a token is taken to weigh in a sample; tinker 0.38.0 lib/public_interfaces/sampling_client.py
)

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
    digest = hashlib.sha256((config.api_key or config.credential_command or "").encode()).hexdigest()
    return table.setdefault((normal_url(config.base_url), digest), SampleBackoff())


@attrs.define(eq=False)
class SamplingShare:
    """What the workers of one pool share.

    Attributes:
        limiter: samples in flight.
        gate: what they pass on their way to the service.
        progress: when samples have ended.
        rng: chance for delays.
        session: the present session.
        samplers: opens sampling sessions anew.
        policy: what is asked for anew.
        cancels: samples that nobody waits for any more.
        report: is told of every failure.
    """

    limiter: trio.CapacityLimiter
    gate: SampleGate
    progress: Progress
    rng: random.Random
    session: Session
    samplers: SamplerOpener
    policy: RetryConfig = attrs.field(factory=RetryConfig)
    cancels: CancelQueue = attrs.field(factory=CancelQueue)
    report: Callable[[BaseException], None] | None = None


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
        share = self._share
        async with share.limiter:
            share.progress.begin(trio.current_time())
            try:
                reply = await self._draw(message)
            except trio.Cancelled:
                share.progress.leave()
                raise
            except BaseException as error:
                share.progress.end(trio.current_time())
                if share.report is not None:
                    share.report(error)
                raise
            share.progress.end(trio.current_time())
            return reply

    async def _draw(self, message: Sample) -> SampleResponse:
        size = sample_bytes(message.prompt)
        attempt = 0
        while True:
            promise = await self._submit_anywhere(message, size)
            subject = message.target.sampling_session_id
            waiting = WaitForResult(SampleResponse, promise.request_id, SAMPLE, subject)
            try:
                response = await wait_for_result(self._futures, waiting)
            except trio.Cancelled:
                self._abandon(promise)
                raise
            except (SessionGoneError, RequestFailedError) as error:
                attempt += 1
                if attempt == _PROMISES or not self._may_try_anew(error):
                    raise
            else:
                names = promise.sample_sequence_ids
                return response if names is None else _named(response, names)
            await trio.sleep(self._share.policy.delay(attempt - 1, self._share.rng.random()))

    def _abandon(self, promise: SampleSubmitted) -> None:
        """Let the service know that nobody waits for a sample any more, if it wants to."""
        if self._share.cancels.add(promise.request_id):
            with contextlib.suppress(ActorError):  # a courtesy
                self._futures.tell_nowait(TellCancelled())

    def _may_try_anew(self, error: SessionGoneError | RequestFailedError) -> bool:
        policy = self._share.policy
        if isinstance(error, SessionGoneError):  # the promise is lost, not the sampling session
            return policy.enable_retry_logic
        return policy.retries(error)

    async def _submit_anywhere(self, message: Sample, size: int) -> SampleSubmitted:
        """Submit a sample where its weights are: its sampling session may have to be opened anew."""
        target, samplers, session = message.target, self._share.samplers, self._share.session
        for trial in range(_SESSIONS):
            if target.epoch and not session.is_current(target.epoch):
                await samplers.rebind(target)
            before = target.sampling_session_id
            try:
                return await session.reachability.call(lambda: self._submit(message, size))
            except TinkerError as error:
                if target.origin is None or trial == _SESSIONS - 1 or not sampler_lost(error):
                    raise
            await samplers.rebind(target, before)
        raise AssertionError("the last trial has returned or raised")

    async def _submit(self, message: Sample, size: int) -> SampleSubmitted:
        share = self._share
        request = _request(message, message.target.take_number())
        doubtful = 0
        while True:
            weight = share.gate.enter_nowait(size)
            if weight is None:
                weight = await share.gate.enter(size)
            try:
                return await self._transport.call(ASAMPLE, request)
            except RateLimitError as error:
                share.gate.refused(size, error.retry_after)
                self._check_progress(error)
                continue
            except BillingError as error:
                self._postpone(size, error)
                continue
            except (APIConnectionError, APIStatusError) as error:
                if not is_retryable(error) or doubtful == _RESENDS:
                    raise
            finally:
                share.gate.leave(weight)
            await trio.sleep(backoff_delay(doubtful, None, share.rng.random()))
            doubtful += 1

    def _postpone(self, size: int, error: BillingError) -> None:
        """Hold samples back while the account cannot be charged, within the billing window."""
        now = trio.current_time()
        if self._transport.billing.should_warn(now):
            _LOG.warning("the account cannot be charged; sampling pauses")
        if self._transport.billing.refused(now) is None:
            raise error
        self._share.gate.refused(size, None)

    def _check_progress(self, error: RateLimitError) -> None:
        if self._share.progress.is_stuck(trio.current_time()):
            raise stuck(self._share.progress.timeout) from error


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


def _named(response: SampleResponse, names: Sequence[str]) -> SampleResponse:
    """Give each sequence the name that the promise has for it; older services have none, and some too few."""
    sequences = [
        attrs.evolve(sequence, sequence_id=name)
        for sequence, name in zip(response.sequences, names, strict=False)
    ]
    return attrs.evolve(response, sequences=(*sequences, *response.sequences[len(sequences) :]))
