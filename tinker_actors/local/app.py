"""The ASGI application of the embedded service: routes, decoding, and errors as answers.

The table of endpoints is walked, so what a client calls and what the service serves cannot differ; a call without
a handler is answered with 404, and is told that there is no route for it.
A body may be compressed, and is read in the form its content type names: JSON, which is decoded strictly (an unknown
field is an error), or protobuf where the table says so. Results of training and sampling are answered
in protobuf to who accepts it, and in JSON to everybody else. Whether a request repeats another is told by its bytes,
decompressed. Errors become answers here and nowhere else:

    DecodeError          422 {"detail", "problems"}
    another form         415 {"detail"}
    InputError           400 {"detail", "field"}
    APIStatusError       its own status {"detail"}, and Retry-After if it says when to come again
    anything else        500 {"detail"}, and the log has the traceback

Beside the endpoints there are the routes of checkpoint archives (`download`).
"""

from __future__ import annotations

import hashlib
import hmac
import inspect
import logging
import math
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import orjson
import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from tinker_actors.errors import APIStatusError, ConfigError, DecodeError, InputError
from tinker_actors.wire import protobuf
from tinker_actors.wire.codec import decode, encode
from tinker_actors.wire.compression import ENCODINGS, decompress, encodings
from tinker_actors.wire.endpoint import Endpoint
from tinker_actors.wire.endpoints import ENDPOINTS
from tinker_actors.wire.payload import JSON, PROTOBUF
from tinker_actors.wire.service import Empty

from .call import Call, Reply
from .download import archive_routes
from .engine import Engine
from .handler import ANY_LOOP, HANDLERS
from .refusal import refusal

__all__ = ["build_app"]

MAX_BODY = 256 * 1024 * 1024  # bytes of a request, decompressed; a chunk of training has 5 MB

_log = logging.getLogger(__name__)


def build_app(engine: Engine, *, api_key: str | None = None) -> Starlette:
    """Return the application around an engine; its lifespan is the engine's.

    Args:
        engine: the service.
        api_key: what requests must carry in `x-api-key`; None asks for none.
    """
    gate = _Gate(engine, api_key)
    archives = archive_routes(engine, gate.check_key, gate.check_loop, answering)
    routes = [gate.route(endpoint) for endpoint in ENDPOINTS if endpoint.name not in archives]

    def lifespan(_: Starlette) -> AbstractAsyncContextManager[None]:
        return engine.running()

    return Starlette(
        routes=[*routes, *archives.values()],
        exception_handlers={HTTPException: _http_exception},
        lifespan=lifespan,
    )


class _Gate:
    """What every request passes on its way in and out."""

    def __init__(self, engine: Engine, api_key: str | None) -> None:
        self._engine = engine
        self._api_key = None if api_key is None else api_key.encode()

    def route(self, endpoint: Endpoint[Any, Any]) -> Route:
        """Return the route of an endpoint."""
        handler = HANDLERS.get(endpoint.name)

        async def serve(request: Request) -> Response:
            self.check_key(request)
            if endpoint.name not in ANY_LOOP:
                self.check_loop()
            if handler is None:
                raise refusal(404, f"the embedded service has no route for {endpoint.name}")
            reply = handler(self._engine, await _call(endpoint, request))
            if inspect.isawaitable(reply):
                reply = await reply
            return _response(endpoint, request.headers.get("accept", ""), reply)

        path = endpoint.path.replace("{checkpoint_id}", "{kind}/{name}")
        return Route(path, answering(endpoint.name, serve), methods=[endpoint.method])

    def check_key(self, request: Request) -> None:
        """Make sure that a request carries the key.

        Raises:
            AuthenticationError: it does not.
        """
        if self._api_key is None:
            return
        if not hmac.compare_digest(request.headers.get("x-api-key", "").encode(), self._api_key):
            raise refusal(401, "x-api-key is missing or wrong")

    def check_loop(self) -> None:
        """Make sure that the service is open and that this is its loop.

        Raises:
            InternalServerError: it is not.
        """
        if not self._engine.is_own_loop():
            raise refusal(503, "the embedded service is not open, or not in this thread's loop")


def answering(
    name: str, serve: Callable[[Request], Awaitable[Response]]
) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint that turns what `serve` raises into an answer."""

    async def endpoint(request: Request) -> Response:
        try:
            return await serve(request)
        except Exception as exc:  # noqa: BLE001 - a service goes on whatever a request did to it
            return _error_response(name, exc)  # noqa: ASYNC910 - sending the answer checkpoints

    return endpoint


async def _call(endpoint: Endpoint[Any, Any], request: Request) -> Call[Any]:
    body = await request.body()
    body = _decompressed(body, request.headers.get("content-encoding", ""))
    payload = _decoded(endpoint, body, request.headers.get("content-type", ""))
    digest = hashlib.sha256(endpoint.name.encode() + b"\0" + body).digest()

    async def disconnected() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    return Call(payload, digest, request.path_params, disconnected, request.query_params)


def _decompressed(body: bytes, encoding: str) -> bytes:
    """Undo a body's compression.

    Raises:
        DecodeError: it is not what it says, or too large.
        APIStatusError: an encoding that is not known here.
    """
    if not ENCODINGS.issuperset(encodings(encoding)):
        raise refusal(415, f"content encoding {encoding!r} is not supported")
    try:
        return decompress(body, encoding, limit=MAX_BODY)
    except ConfigError as error:
        raise refusal(415, str(error)) from error


def _decoded(endpoint: Endpoint[Any, Any], body: bytes, content_type: str) -> object:
    """Read a body.

    Raises:
        DecodeError: it is not what the endpoint takes.
        APIStatusError: a form that the endpoint does not take.
    """
    if endpoint.request is Empty:
        return Empty()
    form = content_type.partition(";")[0].strip().lower()
    if form in {"", JSON}:
        return decode(endpoint.request, body, strict=True)
    if form != PROTOBUF or endpoint.sends != "either":
        raise refusal(415, f"{endpoint.name} does not take {content_type!r}")
    return protobuf.decode_training(body)  # no other body has two forms


def _response(endpoint: Endpoint[Any, Any], accept: str, reply: object) -> Response:
    """Write an answer: in protobuf if it has that form and the caller accepts it, else in JSON."""
    if isinstance(reply, Reply):
        return Response(encode(reply.body), reply.status, media_type=JSON)
    accepted = {form.partition(";")[0].strip().lower() for form in accept.split(",")}
    if endpoint.accepts == "either" and PROTOBUF in accepted and type(reply) in protobuf.MESSAGES:
        return Response(protobuf.encode(reply), media_type=PROTOBUF)
    return Response(encode(reply), media_type=JSON)


def _error_response(name: str, exc: Exception) -> Response:
    match exc:
        case DecodeError():
            return _json(422, {"detail": str(exc), "problems": list(exc.problems)})
        case InputError():
            return _json(400, {"detail": str(exc), "field": exc.field})
        case APIStatusError():
            after = exc.retry_after
            headers = {} if after is None else {"retry-after": str(math.ceil(after))}
            return _json(exc.status_code, {"detail": str(exc)}, headers)
        case ClientDisconnect():
            return Response(status_code=400)  # nobody reads it
        case _:
            _log.error("%s failed", name, exc_info=exc)
            return _json(500, {"detail": f"{name} failed: {exc!r}"})


def _json(status: int, body: object, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(body), status, headers, JSON)


async def _http_exception(_: Request, exc: Exception) -> Response:
    await trio.lowlevel.checkpoint()
    assert isinstance(exc, HTTPException)
    return _json(exc.status_code, {"detail": exc.detail}, dict(exc.headers or {}))
