"""The two ways through the transport: the same bytes, whatever is called."""

from __future__ import annotations

import contextlib
import random
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import trio

from tests.transport.calls import CALLS
from tests.transport.test_calls import client_of
from tests.transport.test_pool_loopback import answer, read_request, serving
from tinker_actors.errors import APIError
from tinker_actors.transport.build import Job
from tinker_actors.transport.config import Config
from tinker_actors.transport.exchange import HttpTransport
from tinker_actors.transport.reply import Reply
from tinker_actors.transport.request import WireRequest
from tinker_actors.transport.ways import Lanes, Ways


class ByClient(HttpTransport):
    """Sends everything by httpx's client."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._may_go_direct = False


class Direct(HttpTransport):
    """Sends nothing by httpx's client."""

    async def _send_by_client(self, job: Job, lane: Ways, request: WireRequest) -> Reply:
        return await lane.direct(request)


# Nothing here is encrypted, and reading certificates takes time.
CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
WAYS: tuple[type[HttpTransport], ...] = (ByClient, Direct)


class Heard:
    """A server that notes the bytes of each request.

    Attributes:
        requests: heads and bodies, as they came.
    """

    def __init__(self, body: bytes) -> None:
        self.requests: list[bytes] = []
        self._answer = answer(body, extra=b"Content-Type: application/json\r\n")

    async def handle(self, stream: trio.SocketStream) -> None:
        """Serve one connection."""
        while request := await read_request(stream):
            self.requests.append(request)
            await stream.send_all(self._answer)


@contextlib.asynccontextmanager
async def opened(way: type[HttpTransport], heard: Heard, **settings: Any) -> AsyncIterator[Any]:
    """Open a client that goes one way to a server on loopback."""
    async with serving(heard.handle) as origin:
        config = Config(base_url=f"{origin}/base", api_key="tml-key", ssl_context=CONTEXT, **settings)
        lanes = Lanes(config, None)
        try:
            yield client_of(way(config, lanes, random.Random(7), lambda: datetime(2026, 11, 20, tzinfo=UTC)))
        finally:
            await lanes.aclose()


async def heard_of(way: type[HttpTransport], name: str, **settings: Any) -> list[bytes]:
    """Make one call and return what the server heard, the port taken out."""
    heard = Heard(b"{}")
    async with opened(way, heard, **settings) as client:
        with contextlib.suppress(APIError):
            await CALLS[name](client)
    return [without_port(request) for request in heard.requests]


def without_port(request: bytes) -> bytes:
    """Return a request without the number that its server happened to have."""
    head, _, body = request.partition(b"\r\n\r\n")
    lines = [b"host" if line.lower().startswith(b"host:") else line for line in head.split(b"\r\n")]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@pytest.mark.requirement("R97")
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("body", ["json", "protobuf"])
async def test_both_ways_send_the_same_bytes(name: str, body: str) -> None:
    """Head and body are the same to the last byte, in either form that a body of training may have."""
    by_client, direct = [await heard_of(way, name, training_body=body) for way in WAYS]
    assert len(direct) == 1
    assert by_client == direct
