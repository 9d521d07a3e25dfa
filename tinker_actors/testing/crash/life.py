"""One life of a process: what it has of its own, and what it shares with those before and after it."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import trio

from tinker_actors.actors.service_client import ServiceClient, open_client
from tinker_actors.testing.service.reply import ServedRequest
from tinker_actors.testing.service.route import find_route
from tinker_actors.testing.service.service import ScriptedService
from tinker_actors.testing.service.transport import ScriptedTransport
from tinker_actors.transport.config import Config

from .files import Files
from .point import Fuse

__all__ = ["Ended", "Life"]


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

    Args:
        seed: of the client's chance, which is another one in each life.
    """

    def __init__(
        self, number: int, directory: Path, service: ScriptedService, fuse: Fuse, *, seed: int = 0
    ) -> None:
        self.number = number
        self.directory = directory
        self.service = service
        self.files = Files(directory, fuse)
        self.fuse = fuse
        self._rng = random.Random(1000 * seed + number)

    @contextlib.asynccontextmanager
    async def open_service(self, **settings: Any) -> AsyncIterator[ServiceClient]:
        """Open a client on the service.

        Args:
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
        ) as client:
            yield client

    def _watch(self, moment: Any, request: ServedRequest) -> None:
        route = find_route(request.method, request.path)
        self.fuse.reach(moment, request.path if isinstance(route, int) else route[0])
