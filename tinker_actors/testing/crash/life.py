"""One life of a process: what it has of its own, and what it shares with those before and after it."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Collection, Mapping
from pathlib import Path
from typing import Any, TypedDict, Unpack

import attrs
import trio

from tinker_actors.actors.service_client import ServiceClient, open_client
from tinker_actors.actors.session import Adoption
from tinker_actors.journal.opening import open_journal
from tinker_actors.protocol.checkpoint_policy import CheckpointPolicy
from tinker_actors.protocol.creation import lora_config
from tinker_actors.protocol.retention import Retention
from tinker_actors.protocol.run_identity import Identity, check_mine
from tinker_actors.runs.living import RunPlan, identify, living_run
from tinker_actors.runs.run import Run
from tinker_actors.runs.succession import adoption_of, resumption_of
from tinker_actors.testing.service.body import read_body
from tinker_actors.testing.service.reply import ServedRequest
from tinker_actors.testing.service.route import find_route
from tinker_actors.testing.service.service import ScriptedService
from tinker_actors.testing.service.transport import ScriptedTransport
from tinker_actors.transport.config import Config

from .audit import Audit
from .disk import CrashDisk
from .files import Files
from .point import Fuse

__all__ = ["Ended", "Life", "RunOptions"]


class RunOptions(TypedDict, total=False):
    """What of the arguments of `open_run` a run has here."""

    base_model: str
    rank: int
    seed: int | None
    loss: str | None
    identity: Mapping[str, object] | None
    accept: Collection[str]
    checkpoints: CheckpointPolicy
    retention: Retention
    journal_max_bytes: int


@attrs.frozen
class Ended:
    """What a life came to that was not ended.

    Attributes:
        model_id: the id its model has on the service.
        loop_state: where its loop stands.
    """

    model_id: str
    loop_state: object = None


class Life:
    """One life of a process that trains.

    Attributes:
        number: which it is, from 1.
        directory: a directory that outlives it.
        service: the service, which outlives it too.
        files: writes files of the loop's own in `directory`, so that it can crash there.
        fuse: ends it.
        audit: sees to what must hold at every moment.

    Args:
        seed: of the client's chance, which is another one in each life.
    """

    def __init__(
        self,
        number: int,
        directory: Path,
        service: ScriptedService,
        fuse: Fuse,
        audit: Audit,
        *,
        seed: int = 0,
    ) -> None:
        self.number = number
        self.directory = directory
        self.service = service
        self.files = Files(directory, fuse)
        self.fuse = fuse
        self.audit = audit
        self._rng = random.Random(1000 * seed + number)

    @contextlib.asynccontextmanager
    async def open_service(
        self, *, adoption: Adoption | None = None, **settings: Any
    ) -> AsyncIterator[ServiceClient]:
        """Open a client on the service.

        Args:
            adoption: what an earlier life has left and this one is to go on with.
            settings: as the attributes of `tinker_actors.Config`; by default without telemetry, and with heartbeats
                from the loop, so that they run on virtual time.
        """
        through = ScriptedTransport(self.service, self._watch)

        @contextlib.asynccontextmanager
        async def borrowed() -> AsyncIterator[ScriptedTransport]:
            await trio.lowlevel.checkpoint()
            yield through

        usual: dict[str, Any] = {"base_url": "http://scripted", "heartbeat": "loop", "telemetry": False}
        config = Config(**(usual | settings))
        async with open_client(
            config,
            rng=self._rng,
            backend=config.base_url,
            chosen="tinker_actors: using a scripted service, to crash on it",
            through=through,
            beat_through=borrowed,
            adoption=adoption,
        ) as client:
            yield client

    @contextlib.asynccontextmanager
    async def open_run(self, **options: Unpack[RunOptions]) -> AsyncIterator[Run]:
        """Open the run in `directory`, as `tinker_actors.open_run` does.

        Args:
            options: arguments of `open_run`; the base model is one of the service's if none is given.
        """
        seed, directory = options.get("seed"), self.directory / "run"
        given = Identity(
            base_model=options.get("base_model", "scripted/model"),
            lora=lora_config(
                options.get("rank", 32), seed, True, True, True, draw=lambda: self._rng.getrandbits(31)
            ),
            loss=options.get("loss"),
            mine=check_mine(options.get("identity")),
        )
        plan = RunPlan(
            directory=directory,
            accept=options.get("accept", ()),
            checkpoints=options.get("checkpoints", CheckpointPolicy()),
            retention=options.get("retention", Retention()),
            user_metadata={},
            optimizer=None,
            signals=False,
        )
        disk = CrashDisk(self.fuse, self.audit)
        try:
            journal = open_journal(
                directory,
                max_bytes=options.get("journal_max_bytes", 1 << 30),
                inline=True,
                disk=disk,
                now=trio.current_time,
            )
            async with contextlib.AsyncExitStack() as stack:
                stack.push_async_callback(journal.aclose)
                whole = await identify(journal, given, plan.accept, seed_given=seed is not None)
                adoption = adoption_of(journal)
                service = await stack.enter_async_context(self.open_service(adoption=adoption))
                resumption = resumption_of(journal)
                yield await stack.enter_async_context(living_run(service, journal, whole, plan, resumption))
        finally:
            disk.abandon()

    def _watch(self, moment: Any, request: ServedRequest) -> None:
        route = find_route(request.method, request.path)
        endpoint = request.path if isinstance(route, int) else route[0]
        self.fuse.reach(moment, endpoint)
        if moment == "request":
            served = attrs.evolve(request, endpoint=endpoint)
            self.audit.sends(endpoint, lambda: read_body(served, self.service.dialect))
