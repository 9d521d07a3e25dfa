"""A model on a journal that keeps everything, as a run has it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import attrs
import httpx
import trio

from tests.actors.disk import DiskJournal
from tests.actors.scripted import ADAM, MODEL, MODES, batch, lineage, open_over
from tinker_actors.actors.lineage import Lineage
from tinker_actors.actors.service_client import ServiceClient
from tinker_actors.actors.training_client import TrainingClient
from tinker_actors.protocol.creation import lora_config
from tinker_actors.protocol.journal import Decision
from tinker_actors.testing import ScriptedService, ScriptedTransport, ServiceFaults

PLAIN = ServiceFaults()


@attrs.frozen
class Opened:
    """A model, its service and its journal."""

    training: TrainingClient
    service: ScriptedService
    journal: DiskJournal
    events: Any
    client: ServiceClient
    wire: Wire

    def interrupt(self, endpoint: str, trap: Callable[[], object], *, answered: bool = False) -> None:
        """Have the next request to an endpoint refused, or its answer lost, and something done at that moment."""
        self.wire.traps[endpoint] = (trap, answered)

    @property
    def trained(self) -> list[tuple[str, object]]:
        """What is in the model."""
        return lineage(self.service, self.training.model_id)

    async def train(self, token: int) -> Any:
        """Decide a step whose batch is its number."""
        return await self.training.train(batch(token), "cross_entropy", ADAM, decision=decision(token))

    async def lose_model(self) -> None:
        """Lose the model, and wait until it is there again."""
        old = self.training.model_id
        self.service.lose_model(old, trio.current_time())
        await (await self.training.forward(batch(9), "cross_entropy"))
        await trio.sleep(60.0)
        assert self.training.model_id != old


def decision(step: int) -> Decision:
    """Return what is decided with a step."""
    return Decision(step=step, after=b'{"step": %d}' % step)


class Wire(ScriptedTransport):
    """The way to a service, on which a request may meet its restart: it is refused, or carried out in vain."""

    def __init__(self, service: ScriptedService) -> None:
        super().__init__(service)
        self.traps: dict[str, tuple[Callable[[], object], bool]] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        trap, answered = self.traps.pop(request.url.path.rpartition("/")[2], (None, False))
        if trap is None:
            return await super().handle_async_request(request)
        if answered:
            await super().handle_async_request(request)
        trap()
        await trio.lowlevel.checkpoint()
        raise httpx.ReadError("connection reset") if answered else httpx.ConnectError("connection refused")


@contextlib.asynccontextmanager
async def opened(
    faults: ServiceFaults = PLAIN,
    mode: str = "replay",
    *,
    in_run: bool = False,
    chunk: int | None = None,
    noise: float | None = None,
    check_optimizer: bool = True,
    **more: object,
) -> AsyncIterator[Opened]:
    """Open a model on a journal that keeps everything."""
    journal = DiskJournal()
    flags = more if chunk is None else {"fwdbwd_max_chunk_len": chunk, **more}
    scripted = ScriptedService(faults, dialect=MODES[mode], flags=flags)
    wire = Wire(scripted)
    async with open_over(wire, noise=noise, check_optimizer=check_optimizer) as service:
        shape = lora_config(8, 1, True, True, True, draw=lambda: 1)
        events = service.subscribe()
        training = await service.start_lineage(Lineage(MODEL, shape, journal, {}, in_run=in_run))
        yield Opened(training, scripted, journal, events, service, wire)
