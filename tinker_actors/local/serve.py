"""The embedded service on a socket, by hypercorn's trio worker."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import hypercorn.trio
import trio
from hypercorn.config import Config

from tinker_actors.errors import ConfigError

from .service import EmbeddedService

__all__ = ["serve"]

GRACE = 2.0  # seconds that requests in flight have when the server stops
_log = logging.getLogger(__name__)


async def serve(
    service: EmbeddedService,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled. Checkpoints.

    Then no connection is taken any more, polls are answered at once, other requests in flight have two
    seconds, and every socket is closed.

    Args:
        service: which must not have been open before.
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        task_status: told the URL, such as `http://127.0.0.1:8000`, once connections are taken.

    Raises:
        ConfigError: the address cannot be listened on.
    """
    server = _Server(service, host, port)
    async with service.running(), trio.open_nursery() as nursery:
        nursery.start_soon(server.run, name=f"server on {host}:{port}")
        try:
            task_status.started(await server.url())
            await trio.sleep_forever()
        finally:
            server.stop()


class _Server:
    """Hypercorn, with an orderly end: cancelled from outside, it would cut its connections."""

    def __init__(self, service: EmbeddedService, host: str, port: int) -> None:
        self._service = service
        self._config = Config()
        self._config.bind = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}"]
        self._config.errorlog = _log
        self._config.graceful_timeout = GRACE
        self._bound = trio.Event()
        self._urls: list[str] = []
        self._stop = trio.Event()
        self._tasks = trio.CancelScope(shield=True)

    async def run(self) -> None:
        """Serve until `stop`. Checkpoints."""
        try:
            with self._tasks:
                await hypercorn.trio.serve(
                    self._app, self._config, shutdown_trigger=self._stop.wait, task_status=self, mode="asgi"
                )
        except* OSError as group:
            raise ConfigError(f"cannot listen on {self._config.bind[0]}: {_first(group)}") from group

    def started(self, value: list[str] | None = None) -> None:
        """Hear from hypercorn which addresses it listens on."""
        self._urls = value or []
        self._bound.set()

    async def url(self) -> str:
        """Return the bound address once there is one. Checkpoints."""
        await self._bound.wait()
        return self._urls[0]

    def stop(self) -> None:
        """End in order, within the grace period."""
        self._service.stop_holding()
        self._stop.set()
        self._tasks.deadline = trio.current_time() + 2 * GRACE

    async def _app(
        self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        if scope["type"] != "lifespan":
            await self._service.app(scope, receive, send)
            return
        # The service is opened around hypercorn, which would go on serving after a failed lifespan.
        for step in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{step}.complete"})


def _first(group: BaseExceptionGroup[OSError]) -> BaseException:
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first
