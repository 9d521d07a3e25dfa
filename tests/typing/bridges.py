"""What calls between loops give: the types of the functions that are called; checked, never run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import assert_type

import tinker_actors as ta


async def step(action: int, *, hard: bool = False) -> str:
    """Stand for an environment's step, in asyncio."""
    return f"{action} {hard}"


async def main(name: str) -> int:
    """Stand for a main function, in trio."""
    assert_type(await ta.aio(step, 3, hard=True), str)
    return len(name)


async def numbers() -> AsyncIterator[int]:
    """Stand for an iterator of trio."""
    yield 1


def programs() -> None:
    """What main gives, comes out."""
    assert_type(ta.run(main, "name", asyncio=True), int)
    assert_type(asyncio.run(ta.run_guest(main, "name")), int)


async def environment(sampling: ta.SamplingClient, prompt: ta.ModelInput) -> None:
    """The methods of clients keep their types on the way from asyncio."""
    reply = await ta.from_aio(sampling.sample, prompt, num_samples=1, sampling_params=ta.SamplingParams())
    assert_type(reply, ta.SampleResponse)


def script(batch: list[ta.Datum]) -> None:
    """So they do through a portal."""
    with ta.open_portal() as portal:
        assert_type(portal, ta.Portal)
        service = portal.open(ta.open_service("local"))
        assert_type(service, ta.ServiceClient)
        training = portal.call(service.create_lora_training_client, "model", rank=8)
        assert_type(training, ta.TrainingClient)
        pending = portal.call(training.forward_backward, batch, "cross_entropy")
        assert_type(portal.result(pending), ta.ForwardBackwardOutput)
        assert_type(portal.submit(step, 3).result(), str)
        assert_type(portal.iterate(numbers()), Iterator[int])


async def cell(portal: ta.Portal, batch: list[ta.Datum]) -> None:
    """And from asyncio."""
    service = await portal.aopen(ta.open_service("local"))
    training = await portal.acall(service.create_lora_training_client, "model", rank=8)
    pending = await portal.acall(training.forward_backward, batch, "cross_entropy")
    assert_type(await portal.aresult(pending), ta.ForwardBackwardOutput)
