"""What tests on scripted services share: opening one in a mode, batches, and what became part of a model."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import attrs
import httpx
import trio

from tinker_actors.actors.service_client import ServiceClient, open_client
from tinker_actors.actors.session import Adoption
from tinker_actors.testing import ScriptedService, ServiceDialect, ServiceFaults, open_scripted_service
from tinker_actors.transport.config import Config
from tinker_actors.types import AdamParams, Datum, ModelInput, SamplingParams

MODEL = "scripted/model"
ADAM = AdamParams(learning_rate=1e-3)
GREEDY = SamplingParams(max_tokens=2)
PROMPT = ModelInput.from_ints([1, 2, 3])
MODES = {
    "replay": ServiceDialect(),
    "reject": ServiceDialect(dedupe="reject", early_numbers="refuse"),
    "none": ServiceDialect(dedupe="none", early_numbers="run"),
}


def batch(*tokens: int) -> list[Datum]:
    """Make a batch with one datum for each token."""
    return [
        Datum(ModelInput.from_ints([token, token]), {"target_tokens": [token, 1], "weights": [1.0, 1.0]})
        for token in tokens
    ]


def open_mode(
    mode: str, faults: ServiceFaults | None = None, *, chunk: int | None = None, **changes: Any
) -> contextlib.AbstractAsyncContextManager[Any]:
    """Open a client on a service of a mode; `chunk` datums go into one request."""
    flags = {} if chunk is None else {"fwdbwd_max_chunk_len": chunk}
    settings = {name: changes.pop(name) for name in list(changes) if name in _SETTINGS}
    config = Config(base_url="http://scripted", heartbeat="loop", telemetry=False, **settings)
    dialect = attrs.evolve(MODES[mode], **changes)
    return open_scripted_service(faults, dialect=dialect, flags=flags, config=config)


def open_over(
    wire: httpx.AsyncBaseTransport, *, seed: int = 0, adoption: Adoption | None = None, **settings: Any
) -> contextlib.AbstractAsyncContextManager[ServiceClient]:
    """Open a client all of whose requests go one way, its beats too."""

    @contextlib.asynccontextmanager
    async def borrowed() -> AsyncIterator[httpx.AsyncBaseTransport]:
        yield wire

    return open_client(
        Config(base_url="http://scripted", heartbeat="loop", telemetry=False, **settings),
        rng=random.Random(seed),
        backend="scripted",
        chosen="a test",
        through=wire,
        beat_through=borrowed,
        adoption=adoption,
    )


_SETTINGS = {field.name for field in attrs.fields(Config)}


def lineage(scripted: ScriptedService, model_id: str) -> list[tuple[str, object]]:
    """Return what became part of a model: tokens of gradients, and steps, in order."""
    return [
        ("step", "") if one.endpoint == "optim_step" else ("gradient", _tokens(one.content))
        for one in scripted.trained[model_id]
    ]


def _tokens(content: Any) -> tuple[int, ...]:
    return tuple(datum["model_input"]["chunks"][0]["tokens"][0] for datum in content["data"])


def steps(*batches: int) -> list[tuple[str, object]]:
    """Return the lineage of steps of one batch of one datum each."""
    return [part for token in batches for part in (("gradient", (token,)), ("step", ""))]


def heard(events: Any, *kinds: type) -> list[Any]:
    """Return the events of some kinds so far."""
    found = []
    with contextlib.suppress(trio.WouldBlock):
        while True:
            found.append(events.receive_nowait())
    return [event for event in found if isinstance(event, kinds)]
