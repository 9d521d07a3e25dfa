"""A service that keeps what goes out and answers as a test says, and a RestClient on it."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import trio

from tinker_actors.actors.rest import RestClient
from tinker_actors.transport.config import Config
from tinker_actors.transport.http import open_transport


class Recorder(httpx.AsyncBaseTransport):
    """Keeps what goes out, and answers as a test says.

    Attributes:
        sent: method, path with query, and body of each request, but for those for flags.
        answers: what is said, by method and path without query: a JSON value, a response, or a function of the request.
        flags: what the service says of itself; None says that there is no such call.
    """

    def __init__(self, answers: dict[str, Any] | None = None, flags: dict[str, Any] | None = None) -> None:
        self.sent: list[tuple[str, str, Any]] = []
        self.headers: list[httpx.Headers] = []
        self.answers = answers or {}
        self.flags = flags
        self.asked_for_flags = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        path, body = request.url.path, await request.aread()
        if path == "/api/v1/client/config":
            self.asked_for_flags += 1
            return httpx.Response(
                404 if self.flags is None else 200, json=self.flags or {"detail": "Not Found"}
            )
        self.headers.append(request.headers)
        self.sent.append((request.method, request.url.raw_path.decode(), json.loads(body) if body else None))
        answer = self.answers.get(f"{request.method} {path}", {})
        if callable(answer):
            answer = answer(request)
        return answer if isinstance(answer, httpx.Response) else httpx.Response(200, json=answer)


@contextlib.asynccontextmanager
async def rest_on(recorder: Recorder, **settings: Any) -> AsyncIterator[RestClient]:
    """Open a client alone."""
    config = Config(base_url="http://stub", **settings)
    async with open_transport(config, rng=random.Random(0), through=recorder) as transport:
        yield RestClient(transport)


Call = Callable[[RestClient], Awaitable[object]]
