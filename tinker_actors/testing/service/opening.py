"""A client on a scripted service, for tests of code that uses clients."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import TypedDict, Unpack

import trio

from tinker_actors.actors.service_client import ServiceClient, open_client
from tinker_actors.transport.config import Config

from .dialect import ServiceDialect
from .fault import ServiceFaults
from .service import ScriptedService
from .transport import ScriptedTransport

__all__ = ["ServiceOptions", "open_scripted_service"]


class ServiceOptions(TypedDict, total=False):
    """What else a `ScriptedService` takes."""

    dialect: ServiceDialect
    token_lifetime: float | None
    flags: Mapping[str, object]
    dynamic_flags: Mapping[str, object]
    epoch: datetime


@contextlib.asynccontextmanager
async def open_scripted_service(
    faults: ServiceFaults | None = None,
    *,
    seed: int = 0,
    config: Config | None = None,
    **options: Unpack[ServiceOptions],
) -> AsyncIterator[tuple[ServiceClient, ScriptedService]]:
    """Open a client on a scripted service, in memory, on any clock.

    Args:
        faults: what is to go wrong.
        seed: chance of the service and of the client.
        config: how the client is to behave; by default with heartbeats from the loop, so that they run on virtual
            time, and without telemetry.
        options: what else the service takes.

    Raises:
        UnobservedFailure: the body returned, and an operation had failed that nobody awaited.
        TinkerError: the service refused, as planned.
    """
    service = ScriptedService(faults, seed=seed, **options)
    if config is None:
        config = Config(base_url="http://scripted", heartbeat="loop", telemetry=False)
    through = ScriptedTransport(service)

    @contextlib.asynccontextmanager
    async def borrowed() -> AsyncIterator[ScriptedTransport]:
        await trio.lowlevel.checkpoint()
        yield through

    async with open_client(
        config,
        rng=random.Random(seed),
        backend=config.base_url,
        chosen="tinker_actors: using a scripted service, because a test opened one",
        through=through,
        beat_through=borrowed,
    ) as client:
        yield client, service
