"""Messages for another role and arguments of another type, refused verb by verb before anything runs."""

from __future__ import annotations

from collections.abc import Sequence

import tinker_actors as ta
from tinker_actors.actors.admin import AdminClient
from tinker_actors.actors.message import ForwardBackward, LoadState, OptimStep, Sample, SaveState
from tinker_actors.actors.rest import RestClient

PATH = "tinker://a/weights/b"


async def messages_for_another_role(
    training: ta.TrainingClient, sampling: ta.SamplingClient, sample: Sample
) -> None:
    """A sampler does not train, and a model does not sample."""
    await training.ref.ask(sample)  # E: mypy[arg-type] pyright[reportArgumentType]
    await training.ref.submit(sample)  # E: mypy[arg-type] pyright[reportArgumentType]
    await training.submit(sample)  # E: mypy[arg-type] pyright[reportArgumentType]
    await sampling.ref.ask(SaveState("a"))  # E: mypy[arg-type] pyright[reportArgumentType]
    await sampling.ref.submit(LoadState(PATH, optimizer=False))  # E: mypy[arg-type] pyright[reportArgumentType]
    await sampling.ref.tell(OptimStep(ta.AdamParams()))  # E: mypy[arg-type] pyright[reportArgumentType]


def messages_that_are_none(data: Sequence[ta.Datum]) -> None:
    """Their contents have types as well."""
    ForwardBackward(data, "no such loss")  # E: mypy[arg-type] pyright[reportArgumentType]
    ForwardBackward(3, "ppo")  # E: mypy[arg-type] pyright[reportArgumentType]
    OptimStep({"learning_rate": 1.0})  # E: mypy[arg-type] pyright[reportArgumentType]
    SaveState(7)  # E: mypy[arg-type] pyright[reportArgumentType]
    LoadState(PATH)  # E: mypy[call-arg] pyright[reportCallIssue]


async def training_verbs(training: ta.TrainingClient, data: Sequence[ta.Datum]) -> None:
    """One wrong argument each."""
    await training.forward(data, "no such loss")  # E: mypy[arg-type] pyright[reportArgumentType]
    await training.forward_backward("data", "ppo")  # E: mypy[arg-type] pyright[reportArgumentType]
    await training.forward_backward(data)  # E: mypy[call-arg] pyright[reportCallIssue]
    await training.forward_backward_custom(data, "ppo")  # E: mypy[arg-type] pyright[reportArgumentType]
    await training.optim_step(1e-3)  # E: mypy[arg-type] pyright[reportArgumentType]
    await training.save_state(7)  # E: mypy[arg-type] pyright[reportArgumentType]
    await training.load_state(PATH, optimizer=True)  # E: mypy[call-arg] pyright[reportCallIssue]
    await training.load_state_with_optimizer(None)  # E: mypy[arg-type] pyright[reportArgumentType]
    await training.save_weights_for_sampler()  # E: mypy[call-arg] pyright[reportCallIssue]
    await training.create_sampling_client(None)  # E: mypy[arg-type] pyright[reportArgumentType]


async def sampling_verbs(sampling: ta.SamplingClient, prompt: ta.ModelInput) -> None:
    """One wrong argument each."""
    await sampling.sample("text", 1, ta.SamplingParams())  # E: mypy[arg-type] pyright[reportArgumentType]
    await sampling.sample(prompt, 1, {"max_tokens": 3})  # E: mypy[arg-type] pyright[reportArgumentType]
    await sampling.sample(prompt, 1, ta.SamplingParams(), retry_config=None)  # E: mypy[call-arg] pyright[reportCallIssue]
    await sampling.compute_logprobs([1, 2])  # E: mypy[arg-type] pyright[reportArgumentType]


async def service_verbs(service: ta.ServiceClient, rest: RestClient, admin: AdminClient) -> None:
    """One wrong argument each."""
    await service.create_lora_training_client("base", rank="8")  # E: mypy[arg-type] pyright[reportArgumentType]
    await service.create_sampling_client(7)  # E: mypy[arg-type] pyright[reportArgumentType]
    await service.create_sampling_client(base_model="b", retry_config={})  # E: mypy[arg-type] pyright[reportArgumentType]
    await service.from_sampler_handle(b"handle")  # E: mypy[arg-type] pyright[reportArgumentType]
    await service.copy_weights(None)  # E: mypy[arg-type] pyright[reportArgumentType]
    await rest.get_training_run("r", "everybody's")  # E: mypy[arg-type] pyright[reportArgumentType]
    await rest.delete_checkpoint("r")  # E: mypy[call-arg] pyright[reportCallIssue]
    await rest.set_checkpoint_ttl_from_tinker_path(PATH, "an hour")  # E: mypy[arg-type] pyright[reportArgumentType]
    await admin.get_audit_log("all", "yesterday")  # E: mypy[arg-type] pyright[reportArgumentType]
