"""Wrong use of the clients, refused before it runs."""

from __future__ import annotations

import tinker_actors as ta
from tinker_actors.actors.message import OptimStep, SaveState
from tinker_actors.events import EventChannel, ModelRestored, SessionRenewed


async def a_training_message_for_the_sampling_pool(sampling: ta.SamplingClient) -> None:
    """Samplers do not train."""
    await sampling.ref.ask(OptimStep(ta.AdamParams()))  # E: mypy[arg-type] pyright[reportArgumentType]


async def a_result_taken_for_another_type(training: ta.TrainingClient) -> None:
    """A Pending is not its result, and a save is not a path."""
    output: ta.OptimStepResponse = await training.optim_step(ta.AdamParams())  # E: mypy[assignment] pyright[reportAssignmentType]
    path: str = await training.ref.ask(SaveState("a"))  # E: mypy[arg-type] pyright[reportAssignmentType]
    print(output, path)


async def names_that_are_none(training: ta.TrainingClient, sampling: ta.SamplingClient, service: ta.ServiceClient) -> None:
    """A misspelt name is one, and a Pending has nothing of its answer."""
    _ = training.forward_bakward  # E: mypy[attr-defined] pyright[reportAttributeAccessIssue] pyright[reportUnknownMemberType] pyright[reportUnknownVariableType]
    _ = sampling.sample_async  # E: mypy[attr-defined] pyright[reportAttributeAccessIssue] pyright[reportUnknownMemberType] pyright[reportUnknownVariableType]
    _ = service.list_training_runs  # E: mypy[attr-defined] pyright[reportAttributeAccessIssue] pyright[reportUnknownMemberType] pyright[reportUnknownVariableType]
    _ = (await training.optim_step(ta.AdamParams())).metrics  # E: mypy[attr-defined] pyright[reportAttributeAccessIssue] pyright[reportUnknownMemberType] pyright[reportUnknownVariableType]


async def a_loss_nobody_knows(training: ta.TrainingClient, data: list[ta.Datum]) -> None:
    """Loss names are a closed list."""
    await training.forward_backward(data, "crossentropy")  # E: mypy[arg-type] pyright[reportArgumentType]


async def a_loss_of_another_package(training: ta.TrainingClient, data: list[ta.Datum]) -> None:
    """What gives a pair of numbers and metrics has to be bridged."""

    def loss_fn(_: object, logprobs: object) -> tuple[float, dict[str, float]]:
        return 0.0, {}

    await training.forward_backward_custom(data, loss_fn)  # E: mypy[arg-type] pyright[reportArgumentType]


async def a_subscription_taken_for_another(service: ta.ServiceClient) -> None:
    """Who asks for one kind of event has no other."""
    events: EventChannel[SessionRenewed] = service.ref.subscribe(ModelRestored)  # E: mypy[arg-type] pyright[reportAssignmentType]
    print(events)
