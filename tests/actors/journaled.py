"""A model on a journal that keeps everything, as a run has it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import attrs

from tests.actors.disk import DiskJournal
from tests.actors.scripted import ADAM, MODEL, batch, lineage, open_mode
from tinker_actors.actors.lineage import Lineage
from tinker_actors.actors.training_client import TrainingClient
from tinker_actors.protocol.creation import lora_config
from tinker_actors.protocol.journal import Decision
from tinker_actors.testing import ScriptedService, ServiceFaults

PLAIN = ServiceFaults()


@attrs.frozen
class Opened:
    """A model, its service and its journal."""

    training: TrainingClient
    service: ScriptedService
    journal: DiskJournal
    events: Any

    @property
    def trained(self) -> list[tuple[str, object]]:
        """What is in the model."""
        return lineage(self.service, self.training.model_id)

    async def train(self, token: int) -> Any:
        """Decide a step whose batch is its number."""
        return await self.training.train(batch(token), "cross_entropy", ADAM, decision=decision(token))


def decision(step: int) -> Decision:
    """Return what is decided with a step."""
    return Decision(step=step, after=b'{"step": %d}' % step)


@contextlib.asynccontextmanager
async def opened(
    faults: ServiceFaults = PLAIN, mode: str = "replay", *, in_run: bool = False, chunk: int | None = None
) -> AsyncIterator[Opened]:
    """Open a model on a journal that keeps everything."""
    journal = DiskJournal()
    async with open_mode(mode, faults, chunk=chunk) as (service, scripted):
        shape = lora_config(8, 1, True, True, True, draw=lambda: 1)
        events = service.subscribe()
        training = await service.start_lineage(Lineage(MODEL, shape, journal, {}, in_run=in_run))
        yield Opened(training, scripted, journal, events)
