"""What each verb of a TrainingClient gives, and each message for its actor; checked, never run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_type

import numpy as np
from numpy.typing import NDArray

import tinker_actors as ta
from tinker_actors.actors.message import (
    Forward,
    ForwardBackward,
    ForwardBackwardCustom,
    LoadState,
    OptimStep,
    SaveState,
    SaveWeightsExternal,
    SaveWeightsForSampler,
    Training,
    Unload,
)
from tinker_actors.actors.run_message import Reach, Revive, Skip, Train, TrainForward, TrainOptim
from tinker_actors.actors.telemetry import TelemetryHandle
from tinker_actors.actors.training_client import Trained
from tinker_actors.actors.training_step import Planned, TrainingStep
from tinker_actors.kernel import ActorRef
from tinker_actors.protocol.journal import Decision
from tinker_actors.text.tokenizer import Tokenizer
from tinker_actors.types import (
    CustomLoss,
    GetInfoResponse,
    SaveWeightsForSamplerResponse,
    SaveWeightsResponse,
)
from tinker_actors.wire.weights import (
    LoadWeightsResponse,
    SaveWeightsExternalResponse,
    SaveWeightsForSamplerResult,
)


def half(data: Sequence[ta.Datum], logprobs: Sequence[NDArray[np.float32]]) -> CustomLoss:
    """Lose half of what the tokens are unlikely."""
    return CustomLoss(sum(-0.5 * float(one.sum()) for one in logprobs), [0 * one - 0.5 for one in logprobs])


async def steps(training: ta.TrainingClient, data: Sequence[ta.Datum]) -> None:
    """They are in line when they return."""
    assert_type(await training.forward(data, "ppo", {"a": 1.0}), ta.Pending[ta.ForwardBackwardOutput])
    assert_type(await training.forward_backward(data, "ppo"), ta.Pending[ta.ForwardBackwardOutput])
    assert_type(await training.forward_backward_custom(data, half), ta.Pending[ta.ForwardBackwardOutput])
    assert_type(await training.optim_step(ta.AdamParams()), ta.Pending[ta.OptimStepResponse])
    assert_type(await (await training.optim_step(ta.AdamParams())), ta.OptimStepResponse)


async def decided(training: ta.TrainingClient, data: Sequence[ta.Datum], decision: Decision) -> None:
    """They are decided when they return."""
    trained = await training.train(data, "ppo", ta.AdamParams(), decision=decision)
    assert_type(trained, Trained)
    assert_type(trained.forward, ta.Pending[ta.ForwardBackwardOutput])
    assert_type(trained.optim, ta.Pending[ta.OptimStepResponse])
    assert_type(await training.decide(ta.AdamParams(), decision), ta.Pending[ta.OptimStepResponse])
    await training.skip(decision)
    await training.reach()


async def decisions_are_messages(
    ref: ActorRef[Training], data: Sequence[ta.Datum], decision: Decision
) -> None:
    """Those that make up a step that is decided as one belong together."""
    train = Train(tuple(data), "ppo", None, ta.AdamParams(), decision)
    await ref.ask(Train(tuple(data), "ppo", None, ta.AdamParams()))
    assert_type(await ref.ask(TrainForward(train)), ta.ForwardBackwardOutput)
    assert_type(await ref.ask(TrainOptim(train)), ta.OptimStepResponse)
    await ref.ask(Skip(decision))
    await ref.ask(Reach())
    await ref.ask(Revive())
    assert_type(await ref.submit(Train(tuple(data), "ppo", None, ta.AdamParams())), ta.Pending[None])
    assert_type(await ref.submit(TrainForward(train)), ta.Pending[ta.ForwardBackwardOutput])
    assert_type(await ref.submit(TrainOptim(train)), ta.Pending[ta.OptimStepResponse])
    assert_type(await ref.submit(Skip(decision)), ta.Pending[None])
    assert_type(await ref.submit(Reach()), ta.Pending[None])
    assert_type(await ref.submit(Revive()), ta.Pending[None])


async def one_step(training: ta.TrainingClient, data: Sequence[ta.Datum]) -> None:
    """Its parts are known by type before they are in line."""
    async with training.step(confirm=True) as step:
        assert_type(step, TrainingStep)
        forward = step.forward_backward(data, "ppo")
        assert_type(forward, Planned[ta.ForwardBackwardOutput])
        assert_type(step.forward(data, "ppo"), Planned[ta.ForwardBackwardOutput])
        assert_type(step.forward_backward_custom(data, half), Planned[ta.ForwardBackwardOutput])
        assert_type(step.submit(SaveState("a")), Planned[SaveWeightsResponse])
        assert_type(step.optim_step(ta.AdamParams()), Planned[ta.OptimStepResponse])
    assert_type(await forward, ta.ForwardBackwardOutput)
    assert_type(forward.pending, ta.Pending[ta.ForwardBackwardOutput])


async def results(training: ta.TrainingClient) -> None:
    """They are done when they return."""
    assert_type(await training.save_state("a", 3600), SaveWeightsResponse)
    assert_type(await training.load_state("tinker://a/weights/b"), LoadWeightsResponse)
    assert_type(await training.load_state_with_optimizer("tinker://a/weights/b"), LoadWeightsResponse)
    assert_type(await training.save_weights_for_sampler("a"), SaveWeightsForSamplerResponse)
    assert_type(await training.save_weights_and_get_sampling_client(), ta.SamplingClient)
    assert_type(await training.create_sampling_client("tinker://a/sampler_weights/b"), ta.SamplingClient)
    assert_type(await training.save_weights_external("a"), SaveWeightsExternalResponse)
    assert_type(await training.get_tokenizer(), Tokenizer)
    await training.unload()


def known(training: ta.TrainingClient) -> None:
    """They need not be waited for."""
    assert_type(training.get_info(), GetInfoResponse)
    assert_type(training.get_console_url(), str)
    assert_type(training.get_telemetry(), TelemetryHandle | None)
    assert_type(training.model_id, str)
    assert_type(training.ref, ActorRef[Training])


async def asks(training: ta.TrainingClient, data: Sequence[ta.Datum]) -> None:
    """Each message knows its reply."""
    ref = training.ref
    assert_type(await ref.ask(Forward(data, "ppo")), ta.ForwardBackwardOutput)
    assert_type(await ref.ask(ForwardBackward(data, "ppo")), ta.ForwardBackwardOutput)
    assert_type(await ref.ask(ForwardBackwardCustom(data, half)), ta.ForwardBackwardOutput)
    assert_type(await ref.ask(OptimStep(ta.AdamParams())), ta.OptimStepResponse)
    assert_type(await ref.ask(SaveState("a")), SaveWeightsResponse)
    assert_type(await ref.ask(SaveWeightsForSampler()), SaveWeightsForSamplerResult)
    assert_type(await ref.ask(SaveWeightsExternal("a")), SaveWeightsExternalResponse)
    await ref.ask(Unload())
    assert_type(await ref.ask(LoadState("tinker://a/weights/b", optimizer=True)), LoadWeightsResponse)


async def submits(training: ta.TrainingClient, data: Sequence[ta.Datum]) -> None:
    """So does a Pending, by the client as by its actor's address."""
    ref = training.ref
    assert_type(await ref.submit(Forward(data, "ppo")), ta.Pending[ta.ForwardBackwardOutput])
    assert_type(await ref.submit(ForwardBackward(data, "ppo")), ta.Pending[ta.ForwardBackwardOutput])
    assert_type(await ref.submit(ForwardBackwardCustom(data, half)), ta.Pending[ta.ForwardBackwardOutput])
    assert_type(await ref.submit(OptimStep(ta.AdamParams())), ta.Pending[ta.OptimStepResponse])
    assert_type(await ref.submit(SaveState("a")), ta.Pending[SaveWeightsResponse])
    assert_type(await ref.submit(SaveWeightsForSampler()), ta.Pending[SaveWeightsForSamplerResult])
    assert_type(await ref.submit(SaveWeightsExternal("a")), ta.Pending[SaveWeightsExternalResponse])
    assert_type(await ref.submit(Unload()), ta.Pending[None])
    assert_type(await ref.submit(LoadState("tinker://a/weights/b", True)), ta.Pending[LoadWeightsResponse])
    assert_type(await training.submit(SaveState("a")), ta.Pending[SaveWeightsResponse])
