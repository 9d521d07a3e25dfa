"""The SamplingActors: a pool that draws samples behind one limiter and one throttle.

Theory of operation. All sampling of a service goes through one throttle (`protocol.throttle`): it bounds how many
samples are in flight, which the service's refusals and paused queues move (`protocol.aimd`), and how many, and how many
bytes, are being submitted. A refusal (429) also moves one shared clock that holds everybody back who samples from that
service with that key, in this process; it never shortens a wait. There are two pools with a mailbox each, for the two
lanes; both have the same throttle, in which evaluations go first.

Samples have no retries in the transport. What stands above it is the client's `RetryConfig`. A 429 is no failure: the
sample waits for its turn again and goes out with the same number. So does a doubtful send, which costs money at worst,
never correctness. A promise that is lost, or a request that failed and was not the user's fault, is asked for anew with
a new number. Attempts are not counted, with one exception (`_DRAWS`): what ends them is that none of the client's
samples moves on any more. No place is held while a sample waits to try again, and a caller that leaves takes its
sample with it.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Sequence

import attrs
import trio

from tinker_actors.actors.event import EventHub
from tinker_actors.actors.futures import SAMPLE, wait_for_result
from tinker_actors.actors.message import Futures, Sample, Sampling, TellCancelled, WaitForResult
from tinker_actors.actors.rebinding import SamplerOpener
from tinker_actors.actors.session import Session
from tinker_actors.actors.silence import check_progress
from tinker_actors.actors.throttle import SampleGate
from tinker_actors.actors.waits import Waits
from tinker_actors.errors import (
    ActorError,
    APIConnectionError,
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
from tinker_actors.protocol.policy import RetryConfig
from tinker_actors.protocol.reachability import cannot_reach
from tinker_actors.protocol.recovery import sampler_lost
from tinker_actors.protocol.sample import complete
from tinker_actors.protocol.throttle import sample_bytes
from tinker_actors.protocol.wait import FULL, HELD_BACK
from tinker_actors.transport.config import Config, normal_url
from tinker_actors.transport.http import HttpTransport
from tinker_actors.wire.endpoints import ASAMPLE
from tinker_actors.wire.sampling import SampleRequest, SampleResponse, SampleSubmitted
from tinker_actors.wire.service import ClientConfigResponse

__all__ = ["SamplingActor", "SamplingShare", "sampling_policy", "shared_backoff"]

_ROOM = "room for a sample"
_SESSIONS = 4  # sampling sessions that may be lost while one sample is submitted
_DRAWS = 4  # a request that the service ran so often and that failed each time would fail again
_PROBED = 8  # after each so many failed sends in a row it is asked whether the service is there at all

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


def sampling_policy(wanted: RetryConfig | None, limits: ClientConfigResponse) -> RetryConfig:
    """Return when samples are drawn anew: as the user wants it, but not where the service wants it otherwise."""
    policy = wanted or RetryConfig()
    if limits.sample_no_retries:
        policy = attrs.evolve(policy, enable_retry_logic=False)
    if not limits.sample_enable_stuck_detection:
        policy = attrs.evolve(policy, enable_stuck_detection=False)
    return policy


@attrs.define(eq=False)
class SamplingShare:
    """What the workers of a service's pools share.

    Attributes:
        gate: what samples pass on their way to the service, and hold a place of while they are there.
        rng: chance for delays.
        session: the present session.
        samplers: opens sampling sessions anew.
        waits: who waits for what.
        events: where it is told that samples do not move on, and of failures.
        policy: what holds for samples that bring none of their own.
        cancels: samples that nobody waits for any more.
    """

    gate: SampleGate
    rng: random.Random
    session: Session
    samplers: SamplerOpener
    waits: Waits
    events: EventHub
    policy: RetryConfig = attrs.field(factory=RetryConfig)
    cancels: CancelQueue = attrs.field(factory=CancelQueue)


class SamplingActor(Actor[Sampling]):
    """Draws samples; one worker of a pool."""

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
            APIConnectionError: no answer, and no progress of any sample of this client for too long.
            ServiceTooOld: the service does not know what was asked for.
        """
        progress = message.target.progress
        era = progress.begin(trio.current_time())
        try:
            reply = await self._draw(message, era)
        except BaseException as error:
            if isinstance(error, trio.Cancelled) or progress.era != era:
                progress.leave()  # that it was left, or given up, says nothing of the service
            else:
                progress.end(trio.current_time())
            if isinstance(error, Exception):
                self._share.events.report(error)
            raise
        progress.end(trio.current_time())
        return reply

    async def _draw(self, message: Sample, era: int) -> SampleResponse:
        share = self._share
        policy = message.retry_config or share.policy
        attempt = 0
        while True:
            promise = await self._submit_anywhere(message, policy, era)
            try:
                response = await wait_for_result(
                    self._futures, _waiting(message, promise, policy.patience, era)
                )
            except trio.Cancelled:
                self._abandon(promise)
                raise
            except Exception as error:
                attempt += 1
                if not _draws_anew(policy, error, attempt):
                    raise
                self._check_progress(message, policy, era, error)
            else:
                return _finished(message, promise, response)
            finally:
                share.gate.ended()
            await trio.sleep(policy.delay(attempt - 1, share.rng.random()))

    def _abandon(self, promise: SampleSubmitted) -> None:
        """Let the service know that nobody waits for a sample any more, if it wants to."""
        if self._share.cancels.add(promise.request_id):
            with contextlib.suppress(ActorError):  # a courtesy
                self._futures.tell_nowait(TellCancelled())

    async def _submit_anywhere(self, message: Sample, policy: RetryConfig, era: int) -> SampleSubmitted:
        """Submit a sample where its weights are: its sampling session may have to be opened anew."""
        target, samplers, session = message.target, self._share.samplers, self._share.session
        for trial in range(_SESSIONS):
            if target.epoch and not session.is_current(target.epoch):
                await samplers.rebind(target)
            before = target.sampling_session_id
            try:
                return await self._submit(message, policy, era)
            except TinkerError as error:
                if target.origin is None or trial == _SESSIONS - 1 or not sampler_lost(error):
                    raise
            await samplers.rebind(target, before)
        raise AssertionError("the last trial has returned or raised")

    async def _submit(self, message: Sample, policy: RetryConfig, era: int) -> SampleSubmitted:
        """Send a sample until the service promises it, always with the same number; its place is then held."""
        gate, limit = self._share.gate, self._share.gate.throttle.limit
        request, size = _request(message), sample_bytes(message.prompt)
        failures, again = 0, False
        while True:
            weight = None if again else gate.enter_nowait(size)
            if weight is None:
                weight = await self._room(message, size, again=again)
            generation, give_back = limit.generation, gate.leave
            try:
                promise = await self._transport.call(ASAMPLE, request)
            except RateLimitError as error:
                gate.refused(size, error.retry_after, generation)
                failure: Exception = error
            except BillingError as error:
                self._postpone(size, error)
                failure = error
            except Exception as error:
                if not policy.retries(error):
                    raise
                failures += 1
                failure = error
            else:
                give_back = gate.submitted
                return promise
            finally:
                give_back(weight)
            again = True
            self._check_progress(message, policy, era, failure)
            if not isinstance(failure, RateLimitError | BillingError):
                await self._pause(message, policy, failures, failure)

    async def _room(self, message: Sample, size: int, *, again: bool) -> int:
        """Wait in line to submit a sample, where it can be seen."""
        share = self._share
        entry = share.waits.enter(message.target.sampling_session_id, _ROOM, telling=False)
        held_back = share.gate.throttle.backoff.until > trio.current_time()
        entry.state, entry.reason = (
            (HELD_BACK, "the service has refused samples") if held_back else (FULL, "")
        )
        try:
            return await share.gate.enter(size, message.priority, again=again)
        finally:
            share.waits.leave(entry)

    async def _pause(self, message: Sample, policy: RetryConfig, failures: int, failure: Exception) -> None:
        """Wait before a sample is sent again: for the service to come back, if it is away, else for a moment."""
        share = self._share
        is_time = _was_not_sent(failure) or failures % _PROBED == 0
        if is_time and cannot_reach(failure) and await share.session.reachability.wait(failure):
            message.target.progress.resume(trio.current_time())
        else:
            await trio.sleep(policy.delay(failures - 1, share.rng.random()))

    def _postpone(self, size: int, error: BillingError) -> None:
        """Hold samples back while the account cannot be charged, within the billing window."""
        if self._transport.billing_pause("asample") is None:
            raise error
        self._share.gate.hold_back(size)

    def _check_progress(self, message: Sample, policy: RetryConfig, era: int, error: Exception) -> None:
        target = message.target
        stuck = check_progress(
            self._share.events, target, era, policy.patience, f"{type(error).__name__}: {error}"
        )
        if stuck is not None:
            raise stuck from error


def _was_not_sent(error: Exception) -> bool:
    return isinstance(error, APIConnectionError) and not error.doubtful


def _draws_anew(policy: RetryConfig, error: Exception, attempts: int) -> bool:
    if isinstance(error, SessionGoneError):  # the promise is lost, not the sampling session
        return policy.enable_retry_logic
    if isinstance(error, RequestFailedError) and attempts >= _DRAWS:
        return False
    return policy.retries(error)


def _request(message: Sample) -> SampleRequest:
    target = message.target
    return SampleRequest(
        prompt=message.prompt,
        sampling_params=message.sampling_params,
        num_samples=message.num_samples,
        sampling_session_id=target.sampling_session_id,
        seq_id=target.take_number(),
        prompt_logprobs=message.include_prompt_logprobs or None,
        topk_prompt_logprobs=message.topk_prompt_logprobs,
        topk_sample_logprobs=message.topk_sample_logprobs,
        target_prompt_logprobs=message.target_prompt_logprobs,
        prompt_alt_tokens_k=message.prompt_alt_tokens_k,
        prompt_logprobs_last_n=message.prompt_logprobs_last_n,
        record_stability_info=message.record_stability_info or None,
    )


def _waiting(
    message: Sample, promise: SampleSubmitted, patience: float, era: int
) -> WaitForResult[SampleResponse]:
    target = message.target
    return WaitForResult(
        SampleResponse,
        promise.request_id,
        SAMPLE,
        target.sampling_session_id,
        target=target,
        era=era,
        progress_timeout=patience,
    )


def _finished(message: Sample, promise: SampleSubmitted, response: SampleResponse) -> SampleResponse:
    """Check that everything is there that was asked for, and give the sequences their names."""
    if message.include_prompt_logprobs or message.prompt_alt_tokens_k:
        response = complete(
            response,
            message.prompt.length,
            alt_tokens=message.prompt_alt_tokens_k > 0,
            last_n=message.prompt_logprobs_last_n,
        )
    names = promise.sample_sequence_ids
    return response if names is None else _named(response, names)


def _named(response: SampleResponse, names: Sequence[str]) -> SampleResponse:
    """Give each sequence the name that the promise has for it; older services have none, and some too few."""
    sequences = [sequence.renamed(name) for sequence, name in zip(response.sequences, names, strict=False)]
    return attrs.evolve(response, sequences=(*sequences, *response.sequences[len(sequences) :]))
