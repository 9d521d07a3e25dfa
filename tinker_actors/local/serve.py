"""The embedded service on a socket, by hypercorn's trio worker."""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from hypercorn.config import Config, Sockets
from hypercorn.trio.run import worker_serve
from hypercorn.utils import wrap_app

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
    with await _listen(host, port) as listening:
        server = _Server(service, listening)
        async with service.running(), trio.open_nursery() as nursery:
            nursery.start_soon(server.run, name="hypercorn")
            try:
                task_status.started(await server.url())
                await trio.sleep_forever()
            finally:
                server.stop()


async def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Bound here, not by hypercorn, which leaks it when that fails."""
    try:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as exc:
        raise ConfigError(f"cannot listen on {host}:{port}: {exc}") from exc
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listening.bind(address)
        listening.setblocking(False)
        listening.listen()
    except OSError as exc:
        listening.close()
        raise ConfigError(f"cannot listen on {host}:{port}: {exc}") from exc
    return listening


class _Server:
    """Hypercorn, with an orderly end: cancelled from outside, it would cut its connections."""

    def __init__(self, service: EmbeddedService, listening: socket.socket) -> None:
        self._service = service
        self._sockets = Sockets([], [listening], [])
        self._config = Config()
        self._config.errorlog = _log
        self._config.graceful_timeout = GRACE
        self._bound = trio.Event()
        self._urls: list[str] = []
        self._stop = trio.Event()
        self._tasks = trio.CancelScope(shield=True)

    async def run(self) -> None:
        """Serve until `stop`. Checkpoints."""
        app = wrap_app(self._app, self._config.wsgi_max_body_size, "asgi")
        with self._tasks:
            await worker_serve(
                app, self._config, sockets=self._sockets, shutdown_trigger=self._stop.wait, task_status=self
            )
        await trio.lowlevel.checkpoint_if_cancelled()

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
