"""Processes that are gone without a word, and services that live on: what tests of resuming a run have in common."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Any

import attrs
import httpx
import trio

from tests.actors.scripted import ADAM, batch, lineage, open_over
from tests.runs.loop import NEVER
from tinker_actors import Retention, Run
from tinker_actors.journal.opening import open_journal
from tinker_actors.protocol.reattach import Resumption
from tinker_actors.protocol.run_identity import BACKEND, Identity, is_moved
from tinker_actors.runs.living import RunPlan, identify, living_run
from tinker_actors.runs.succession import adoption_of
from tinker_actors.testing import ScriptedService, ScriptedTransport
from tinker_actors.wire.model import LoraConfig

IDENTITY = Identity(base_model="scripted/model", lora=LoraConfig(rank=8, seed=1))


class Wire(httpx.AsyncBaseTransport):
    """The way of one process to the service; when that is dead, nothing goes out any more."""

    def __init__(self, service: ScriptedService) -> None:
        self._inner = ScriptedTransport(service)
        self.dead = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.dead:
            await trio.lowlevel.checkpoint()
            raise httpx.ConnectError("the process is dead")
        return await self._inner.handle_async_request(request)


@attrs.define(eq=False)
class World:
    """A service, and the directory of a run on it.

    Attributes:
        service: the service.
        folder: the directory.
        gap: seconds that pass between two processes, as far as the next one is told.
        backend: what the service is called.
        accept: what may differ.
        settings: for the configuration of its clients.
        model_id: of the latest process.
    """

    service: ScriptedService
    folder: Path
    gap: float = 1.0
    backend: str = "http://scripted"
    accept: Collection[str] = ()
    settings: dict[str, Any] = attrs.field(factory=dict[str, Any])
    model_id: str = ""

    @contextlib.asynccontextmanager
    async def process(self, wire: Wire) -> AsyncIterator[Run]:
        """Open the run in a process of its own."""
        plan = RunPlan(
            directory=self.folder,
            accept=self.accept,
            checkpoints=NEVER,
            retention=Retention(),
            user_metadata={},
            optimizer=None,
            signals=False,
            backend=self.backend,
        )
        journal = open_journal(self.folder, inline=True)
        async with contextlib.aclosing(journal):
            moved = is_moved(journal.facts.get(BACKEND), self.backend, self.accept)
            resumption = Resumption(
                same_machine=True, gap=self.gap, session_limit=100.0, same_backend=not moved
            )
            adoption = adoption_of(journal, moved=moved)
            settings = {"grace": 0.001} | self.settings
            async with open_over(wire, seed=journal.incarnation, adoption=adoption, **settings) as service:
                identity = await identify(journal, IDENTITY, (), seed_given=True)
                async with living_run(service, journal, identity, plan, resumption) as run:
                    self.model_id = run.training.model_id
                    yield run

    async def live(self, total: int, *, killed: bool, save_at: Collection[int] = ()) -> Any:
        """Train up to a step, and be killed there, or end in good order; return where it went on.

        Args:
            total: how many steps the run is to have.
            killed: the process ends without a word.
            save_at: steps before which a checkpoint is saved.
        """
        wire, resumed = Wire(self.service), None
        with trio.CancelScope() as scope:
            async with self.process(wire) as run:
                async for step in run.steps(total, ahead=99):
                    if step.index in save_at:
                        await run.checkpoint()
                    await step.train(batch(step.index), "cross_entropy", ADAM, after=step.index)
                resumed = run.resumed
                if killed:
                    wire.dead = True
                    scope.cancel()
                    await trio.sleep_forever()
        return resumed

    @property
    def trained(self) -> Any:
        """What is in the latest model."""
        return lineage(self.service, self.model_id)
