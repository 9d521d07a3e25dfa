"""Processes that are killed and come back, on one scripted service: each is a client that leaves without a word."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Literal

import attrs
import httpx
import trio

from tests.actors.disk import DiskJournal
from tests.actors.scripted import ADAM, MODEL, MODES, batch, lineage, open_over
from tinker_actors.actors.lineage import Lineage
from tinker_actors.actors.service_client import ServiceClient
from tinker_actors.actors.session import Adoption
from tinker_actors.actors.training_client import TrainingClient
from tinker_actors.protocol.creation import lora_config
from tinker_actors.protocol.journal import Decision
from tinker_actors.protocol.reattach import Resumption
from tinker_actors.testing import ScriptedService, ScriptedTransport, ServiceFaults

When = Literal["before", "after"]
QUIET = ("session_heartbeat", "client/config", "client_dynamic_config", "client/dynamic_config")
GOOD = Resumption(same_machine=True, gap=1.0, session_limit=100.0)


@attrs.define
class Process:
    """One process: what it has open."""

    training: TrainingClient
    client: ServiceClient
    journal: DiskJournal
    lineage: Lineage
    events: Any


class _Wire(httpx.AsyncBaseTransport):
    """The way of one process to the service, which ends at a request."""

    def __init__(self, world: World, kill: tuple[int, When] | None) -> None:
        self._inner = ScriptedTransport(world.service)
        self._world = world
        self._kill = kill
        self.count = 0
        self.dead = False
        self.scope: trio.CancelScope | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.dead:
            await trio.lowlevel.checkpoint()
            raise httpx.ConnectError("the process is dead")
        name = request.url.path.removeprefix("/api/v1/")
        if name in QUIET:
            return await self._inner.handle_async_request(request)
        self.count += 1
        kill = self._kill
        if kill == (self.count, "before"):
            self.die()
            await trio.sleep_forever()
        response = await self._inner.handle_async_request(request)
        if kill == (self.count, "after"):
            self.die()
            await trio.sleep_forever()
        return response

    def die(self) -> None:
        """Leave nothing behind but what is on the disk."""
        self.dead = True
        self._world.journal = self._world.open_journal.reopened()
        if self.scope is not None:
            self.scope.cancel()


class World:
    """A service and a disk.

    Attributes:
        journal: what is on the disk, as the latest process has left it.
        open_journal: what the present process has open.
        killed: the latest process was killed.
        requests: how many requests it made.
    """

    def __init__(self, mode: str = "replay", faults: ServiceFaults | None = None, **changes: Any) -> None:
        self.service = ScriptedService(faults, dialect=attrs.evolve(MODES[mode], **changes))
        self.journal = DiskJournal()
        self.open_journal = self.journal
        self.incarnation = 0
        self.killed = False
        self.requests = 0
        self.resumption: Resumption | None = GOOD
        self.model_id = ""

    @property
    def trained(self) -> list[tuple[str, object]]:
        """What is in the latest model."""
        return lineage(self.service, self.model_id)

    async def process(
        self, body: Callable[[Process], Awaitable[None]], kill: tuple[int, When] | None = None
    ) -> bool:
        """Run a process; whether it came to its end."""
        wire = _Wire(self, kill)
        self.killed = False
        with trio.CancelScope() as wire.scope:
            async with self._opened(wire) as process:
                await body(process)
                if not wire.dead:
                    self.journal = process.journal
                    self.model_id = process.training.model_id
        self.killed = wire.dead
        self.requests = wire.count
        return not wire.dead

    async def leave_by_kill(self, body: Callable[[Process], Awaitable[None]]) -> None:
        """Run a process that is killed when its body ends."""
        wire = _Wire(self, None)
        with trio.CancelScope() as wire.scope:
            async with self._opened(wire) as process:
                await body(process)
                self.model_id = process.training.model_id
                wire.die()
                await trio.sleep_forever()

    @contextlib.asynccontextmanager
    async def _opened(self, wire: _Wire) -> AsyncIterator[Process]:
        journal = self.open_journal = self.journal.reopened()
        model = journal.model
        adoption = Adoption(
            session_id="" if model is None else model.session_id, first_number=10_000 * self.incarnation
        )
        self.incarnation += 1
        async with open_over(wire, seed=self.incarnation, adoption=adoption, grace=0.001) as client:
            shape = lora_config(8, 1, True, True, True, draw=lambda: 1)
            events = client.subscribe()
            model_lineage = Lineage(MODEL, shape, journal, {}, in_run=True, resumption=self.resumption)
            training = await client.start_lineage(model_lineage)
            yield Process(training, client, journal, model_lineage, events)


def decision(step: int) -> Decision:
    """Return what is decided with a step."""
    return Decision(step=step, after=b"%d" % (step + 1))


async def train(process: Process, step: int) -> Any:
    """Decide a step whose batch is its number."""
    return await process.training.train(batch(step), "cross_entropy", ADAM, decision=decision(step))


def loop(steps: int, *, save_after: tuple[int, ...] = ()) -> Callable[[Process], Awaitable[None]]:
    """Return a user's loop: so many steps from the first that is not decided, with saves after some of them."""

    async def body(process: Process) -> None:
        trained = None
        for step in range(len(process.journal.decisions), steps):
            trained = await train(process, step)
            if step in save_after:
                await process.training.save_state(f"after-{step}")
        if trained is not None:
            await trained.optim
        await (await process.training.forward(batch(0), "cross_entropy"))

    return body
