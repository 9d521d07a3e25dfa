"""What each verb of a SamplingClient gives, and each message for the pool; checked, never run."""

from __future__ import annotations

from typing import Literal, assert_type

import tinker_actors as ta
from tinker_actors.actors.message import Sample, SampleTarget, Sampling
from tinker_actors.kernel import ActorRef
from tinker_actors.protocol.policy import RetryConfig
from tinker_actors.text.tokenizer import Tokenizer


async def verbs(sampling: ta.SamplingClient, prompt: ta.ModelInput) -> None:
    """They are done when they return."""
    params = ta.SamplingParams(max_tokens=1)
    assert_type(await sampling.sample(prompt, 1, params), ta.SampleResponse)
    assert_type(await sampling.compute_logprobs(prompt), list[float | None])
    assert_type(await sampling.get_tokenizer(), Tokenizer)
    assert_type(sampling.get_base_model(), str)
    assert_type(sampling.base_model, str)
    assert_type(sampling.version, int)
    assert_type(sampling.priority, Literal["training", "evaluation"])
    assert_type(sampling.retry_config, RetryConfig | None)
    assert_type(sampling.record_stability_info, bool)
    assert_type(sampling.evaluation(), ta.SamplingClient)
    assert_type(sampling.get_sampler_handle(), str)
    assert_type(sampling.target, SampleTarget)
    assert_type(sampling.ref, ActorRef[Sampling])


async def handles(service: ta.ServiceClient, handle: str) -> None:
    """A line of text makes a client anew."""
    assert_type(await ta.SamplingClient.from_sampler_handle(handle, service=service), ta.SamplingClient)


async def messages(sampling: ta.SamplingClient, prompt: ta.ModelInput) -> None:
    """A sample that is asked for knows its reply."""
    target, params = sampling.target, ta.SamplingParams()
    assert_type(
        await sampling.ref.ask(Sample(target=target, prompt=prompt, num_samples=1, sampling_params=params)),
        ta.SampleResponse,
    )
    assert_type(
        await sampling.ref.submit(
            Sample(target=target, prompt=prompt, num_samples=1, sampling_params=params)
        ),
        ta.Pending[ta.SampleResponse],
    )
