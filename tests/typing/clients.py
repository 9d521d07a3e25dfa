"""What the clients' verbs and the typed messages give; checked, never run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_type

import numpy as np
from numpy.typing import NDArray

import tinker_actors as ta
from tinker_actors.actors.message import (
    ForwardBackward,
    ForwardBackwardCustom,
    OptimStep,
    Sample,
    SampleTarget,
    SaveState,
    SaveWeightsForSampler,
)
from tinker_actors.events import EventChannel, Lagged, ModelRestored, ServiceEvent, SessionRenewed
from tinker_actors.rl.losses import compose
from tinker_actors.rl.regularizers import KL, L2
from tinker_actors.transport.client import AsyncTinker
from tinker_actors.transport.options import OMIT, RequestOptions
from tinker_actors.types import SaveWeightsForSamplerResponse, SaveWeightsResponse
from tinker_actors.wire.service import HealthResponse
from tinker_actors.wire.weights import SaveWeightsForSamplerResult


async def steps_give_pendings(training: ta.TrainingClient, data: list[ta.Datum]) -> None:
    """The step verbs return Pendings of their results."""
    forward = await training.forward_backward(data, "cross_entropy")
    assert_type(forward, ta.Pending[ta.ForwardBackwardOutput])
    assert_type(await forward, ta.ForwardBackwardOutput)
    optim = await training.optim_step(ta.AdamParams())
    assert_type(optim, ta.Pending[ta.OptimStepResponse])
    assert_type(await optim.withdraw(), bool)


async def a_loss_of_ones_own(training: ta.TrainingClient, data: list[ta.Datum]) -> None:
    """A function, a composition of the house, and the typed message."""

    def loss_fn(batch: Sequence[ta.Datum], logprobs: Sequence[NDArray[np.float32]]) -> ta.CustomLoss:
        return ta.CustomLoss(float(len(batch)), logprobs)

    pending = await training.forward_backward_custom(data, loss_fn)
    assert_type(pending, ta.Pending[ta.ForwardBackwardOutput])
    composed = compose(loss_fn, L2(0.1), KL(0.1, reference="reference"))
    assert_type(await (await training.forward_backward_custom(data, composed)), ta.ForwardBackwardOutput)
    message = ForwardBackwardCustom(data, composed)
    assert_type(await training.ref.ask(message), ta.ForwardBackwardOutput)


async def everything_else_gives_its_result(training: ta.TrainingClient) -> None:
    """Saves and samplers are there when the await returns."""
    assert_type(await training.save_state("a"), SaveWeightsResponse)
    assert_type(await training.save_weights_for_sampler("a"), SaveWeightsForSamplerResponse)
    assert_type(await training.save_weights_and_get_sampling_client(), ta.SamplingClient)


async def messages_know_their_replies(training: ta.TrainingClient, data: tuple[ta.Datum, ...]) -> None:
    """The public channel infers the reply from the message."""
    assert_type(await training.ref.submit(ForwardBackward(data, "ppo")), ta.Pending[ta.ForwardBackwardOutput])
    assert_type(await training.ref.ask(OptimStep(ta.AdamParams())), ta.OptimStepResponse)
    assert_type(await training.submit(SaveState("a")), ta.Pending[SaveWeightsResponse])
    assert_type(await training.ref.ask(SaveWeightsForSampler()), SaveWeightsForSamplerResult)


async def samples_are_asked_for(sampling: ta.SamplingClient, prompt: ta.ModelInput) -> None:
    """By verb and by message."""
    assert_type(await sampling.sample(prompt, 1, ta.SamplingParams()), ta.SampleResponse)
    message = Sample(
        target=SampleTarget("s"), prompt=prompt, num_samples=1, sampling_params=ta.SamplingParams()
    )
    assert_type(await sampling.ref.ask(message), ta.SampleResponse)
    assert_type(await sampling.compute_logprobs(prompt, prompt_logprobs_last_n=1), list[float | None])
    assert_type(sampling.evaluation(), ta.SamplingClient)


async def samplers_go_to_other_processes(service: ta.ServiceClient, sampling: ta.SamplingClient) -> None:
    """As text, and back."""
    handle = assert_type(sampling.get_sampler_handle(), str)
    policy = ta.RetryConfig(progress_timeout=60)
    assert_type(await service.from_sampler_handle(handle, policy), ta.SamplingClient)
    assert_type(await ta.SamplingClient.from_sampler_handle(handle, service=service), ta.SamplingClient)


async def subscriptions_know_their_events(service: ta.ServiceClient) -> None:
    """Named kinds and no others; none named means all."""
    assert_type(service.ref.subscribe(), EventChannel[ServiceEvent])
    assert_type(service.ref.subscribe(max_buffer=10), EventChannel[ServiceEvent])
    assert_type(service.ref.subscribe(ModelRestored), EventChannel[ModelRestored])
    two = service.ref.subscribe(ModelRestored, Lagged)
    assert_type(two, EventChannel[ModelRestored | Lagged])
    assert_type(await two.receive(), ModelRestored | Lagged)
    async with service.ref.subscribe(ModelRestored, SessionRenewed, Lagged) as three:
        async for event in three:
            assert_type(event, ModelRestored | SessionRenewed | Lagged)


async def calls_may_say_things_differently(client: AsyncTinker) -> None:
    """Headers, query and body of one call, as a user writes them down."""
    options = RequestOptions(headers={"x-a": "1"}, query={"b": [1]}, json={"c": None}, timeout=3)
    assert_type(await client.service.health_check(options=options), HealthResponse)
    assert_type(RequestOptions(headers={"x-a": OMIT, "x-b": "2"}), RequestOptions)
