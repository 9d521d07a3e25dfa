"""A transport that answers by a script, and calls through it."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import trio

from tinker_actors.transport.config import Config
from tinker_actors.transport.opening import open_transport
from tinker_actors.transport.options import RequestOptions
from tinker_actors.wire.endpoints import (
    GET_INFO,
)
from tinker_actors.wire.model import GetInfoRequest
from tinker_actors.wire.optimizer import AdamParams, OptimStepRequest
from tinker_actors.wire.service import Empty

INFO = {"model_id": "m", "model_data": {}}
STEP = OptimStepRequest(AdamParams(), "m", 1)


class Script(httpx.AsyncBaseTransport):
    """Answers by a function of the attempt's number; notes what came and when."""

    def __init__(self, answer: Callable[[int], httpx.Response | Exception | None]) -> None:
        self.answer = answer
        self.requests: list[httpx.Request] = []
        self.times: list[float] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.times.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        answer = self.answer(len(self.requests) - 1)
        if answer is None:
            await trio.sleep_forever()
        if isinstance(answer, Exception):
            raise answer
        assert answer is not None
        return answer


class Pieces(httpx.AsyncByteStream):
    """A body that comes in pieces."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = iter(pieces)
        self.taken = 0
        self.closed = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        for piece in self.pieces:
            self.taken += 1
            return piece
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed = True


def config(**settings: Any) -> Config:
    """Make a config for the script."""
    return Config(base_url="http://script/base", **settings)


async def call(script: Script, endpoint: Any, request: Any, **settings: Any) -> Any:
    """Make one call through a script."""
    async with open_transport(config(**settings), rng=random.Random(0), through=script) as transport:
        return await transport.call(endpoint, request)


async def calls(
    script: Script, *options: RequestOptions, endpoint: Any = GET_INFO, **settings: Any
) -> list[Any]:
    """Make a call for each of some options, over one transport."""
    async with open_transport(config(**settings), rng=random.Random(0), through=script) as transport:
        request = GetInfoRequest("m") if endpoint is GET_INFO else Empty()
        return [await transport.call(endpoint, request, options=one) for one in options]
