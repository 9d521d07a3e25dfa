"""Where checkpoints can be downloaded: two routes, and the one endpoint of the table that leads there.

One answers with the address of a download, and the download's address carries a signature instead of the API key, so
that it can be handed on. A checkpoint never changes, so its archive has a tag that names its bytes, and parts of it
can be asked for; who asks for a part of something else gets the whole.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final, Self, TypeAlias

import trio
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from tinker_actors.protocol.archive import requested_part

from .archive import part_of, tar_chunks, tar_size
from .engine import Engine
from .listing import path_of
from .refusal import refusal
from .store import CheckpointPath

__all__ = ["archive_routes"]

_Serve: TypeAlias = Callable[[Request], Awaitable[Response]]
_LIFE: Final = 3600.0  # seconds an address is said to hold; it holds for as long as the service does


def archive_routes(
    engine: Engine,
    check_key: Callable[[Request], None],
    check_loop: Callable[[], None],
    answering: Callable[[str, _Serve], _Serve],
) -> Mapping[str, Route]:
    """Return the routes by the names of their endpoints; the second one has none.

    Args:
        engine: the service.
        check_key: refuses a request without the key.
        check_loop: refuses a request in another loop.
        answering: turns what a function raises into an answer.
    """
    secret = secrets.token_bytes(32)

    def signature(path: CheckpointPath) -> str:
        return hmac.new(secret, str(path).encode(), hashlib.sha256).hexdigest()

    async def locate(request: Request) -> Response:
        check_key(request)
        check_loop()
        path = path_of(request.path_params)
        await engine.compute.call(lambda: engine.store.check_exists(path, engine.date()))
        url = request.url_for("download", **request.path_params)
        expires = datetime.fromtimestamp(engine.date() + _LIFE, UTC)
        return RedirectResponse(
            url.include_query_params(signature=signature(path)),
            302,
            {"expires": format_datetime(expires, usegmt=True)},
        )

    async def download(request: Request) -> Response:
        check_loop()
        path = path_of(request.path_params)
        if not hmac.compare_digest(request.query_params.get("signature", ""), signature(path)):
            raise refusal(403, "the signature is missing or wrong")
        files = await engine.compute.call(lambda: engine.store.load(path, engine.date()))
        return _archive(files, request.headers)

    ask = "/api/v1/training_runs/{training_run_id}/checkpoints/{kind}/{name}/archive"
    get = "/api/v1/archives/{training_run_id}/{kind}/{name}"
    return {
        "get_checkpoint_archive_url": Route(ask, answering("archive", locate), methods=["GET"]),
        "": Route(get, answering("download", download), methods=["GET"], name="download"),
    }


def _archive(files: Mapping[str, bytes], asked: Mapping[str, str]) -> Response:
    """Answer with the archive of the files, or with the part that was asked for."""
    size, tag = tar_size(files), f'"{_digest(files)}"'
    part = requested_part(asked.get("range"), size)
    if asked.get("if-range", tag) != tag:
        part = None
    headers = {"accept-ranges": "bytes", "etag": tag}
    if part is None:
        headers["content-length"] = str(size)
        return StreamingResponse(_Chunks(tar_chunks(files)), 200, headers, "application/x-tar")
    if not part:
        return Response(status_code=416, headers=headers | {"content-range": f"bytes */{size}"})
    headers |= {
        "content-range": f"bytes {part.start}-{part.stop - 1}/{size}",
        "content-length": str(len(part)),
    }
    return StreamingResponse(_Chunks(part_of(tar_chunks(files), part)), 206, headers, "application/x-tar")


def _digest(files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(b"%s\0%d\0" % (name.encode(), len(files[name])))
        digest.update(files[name])
    return digest.hexdigest()[:32]


class _Chunks:
    """An iterator as an asynchronous one."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        try:
            return next(self._chunks)
        except StopIteration as end:
            raise StopAsyncIteration from end
