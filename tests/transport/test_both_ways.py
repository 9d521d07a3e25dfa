"""The two ways through the transport: the same bytes, whatever is called."""

from __future__ import annotations

import contextlib
import random
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.transport.calls import CALLS
from tinker_actors.errors import APIResponseValidationError
from tinker_actors.transport.build import Job
from tinker_actors.transport.client import AsyncTinker
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


@contextlib.asynccontextmanager
async def opened(way: type[HttpTransport], base_url: str, body: Any) -> AsyncIterator[AsyncTinker]:
    """Open a client that goes one way to a server."""
    config = Config(base_url=base_url, api_key="tml-key", ssl_context=CONTEXT, training_body=body)
    lanes = Lanes(config, None)
    try:
        yield AsyncTinker(way(config, lanes, random.Random(7), lambda: datetime(2026, 11, 20, tzinfo=UTC)))
    finally:
        await lanes.aclose()


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("body", ["json", "protobuf"])
async def test_both_ways_send_the_same_bytes(loopback: Any, name: str, body: Any) -> None:
    """Head and body are the same to the last byte, in either form that a body of training may have."""
    heard: list[tuple[bytes, bytes]] = []

    async def serve(peer: Any) -> None:
        while (request := await peer.request()) is not None:
            heard.append(request)
            await peer.answer(b"{}", extra=b"Content-Type: application/json\r\n")

    async with loopback(serve) as origin:
        for way in WAYS:
            async with opened(way, f"{origin}/base", body) as client:
                with contextlib.suppress(APIResponseValidationError):
                    await CALLS[name](client)
    by_client, direct = heard
    assert by_client == direct
