"""Archives to download: what is in them, and hosts that give them badly."""

from __future__ import annotations

import contextlib
import gzip
import io
import random
import re
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Self

import attrs
import httpx
import trio

from tinker_actors.actors.rest import RestClient
from tinker_actors.transport.config import Config
from tinker_actors.transport.http import open_transport

FILES = {"adapter_config.json": b"{}", "deep/er/adapter_model.safetensors": bytes(range(256)) * 40}


def tar_of(files: dict[str, bytes], *members: tarfile.TarInfo, compress: bool = False) -> bytes:
    """Return a tar archive of files, and of members without a content."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for member in members:
            tar.addfile(member)
    return gzip.compress(out.getvalue(), mtime=0) if compress else out.getvalue()


def member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    """Return a member that is no file."""
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    return info


class Pieces(httpx.AsyncByteStream):
    """A body that comes in pieces, and may break off."""

    def __init__(self, pieces: Iterator[bytes], error: Exception | None) -> None:
        self._pieces = pieces
        self._error = error

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        for piece in self._pieces:
            return piece
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration


@attrs.define(eq=False)
class Host(httpx.AsyncBaseTransport):
    """A service and the host of its archives, in memory.

    Attributes:
        content: the archive.
        cuts: after how many bytes of a body each answer breaks off; None, and when all are used up, is whole.
        ranges: it gives parts.
        etag: the archive's tag; None gives none.
        chunked: it does not say how long a body is.
        locating: what it says, in turn, to who asks where the archive is, before it says so.
        fetching: what it says, in turn, to who asks for the archive, before it gives it.
        asked: the paths and `range` of what was asked for.
        headers: what came along to the archive's host.
        encoding: the bodies of the archive's host are compressed so.
    """

    content: bytes
    cuts: list[int | None] = attrs.field(factory=list)
    ranges: bool = True
    etag: str | None = '"one"'
    chunked: bool = False
    locating: list[httpx.Response] = attrs.field(factory=list)
    fetching: list[httpx.Response] = attrs.field(factory=list)
    asked: list[tuple[str, str | None]] = attrs.field(factory=list)
    headers: list[httpx.Headers] = attrs.field(factory=list)
    encoding: str | None = None
    before: Callable[[], None] = lambda: None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        if request.url.path == "/api/v1/client/config":
            return httpx.Response(404)
        if request.url.host == "stub":
            self.asked.append(("locate", None))
            if self.locating:
                return self.locating.pop(0)
            return httpx.Response(302, headers={"location": "https://archives.example/a?signature=hush"})
        self.asked.append(("fetch", request.headers.get("range")))
        self.headers.append(request.headers)
        self.before()
        if self.fetching:
            return self.fetching.pop(0)
        return self._part(request)

    def _part(self, request: httpx.Request) -> httpx.Response:
        found = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
        wanted = self.ranges and found is not None
        if wanted and request.headers.get("if-range", self.etag) != self.etag:
            wanted = False
        start = int(found[1]) if found is not None and wanted else 0
        size = len(self.content)
        headers = {} if self.etag is None else {"etag": self.etag}
        if wanted and start >= size:
            return httpx.Response(416, headers={"content-range": f"bytes */{size}"})
        if wanted:
            headers["content-range"] = f"bytes {start}-{size - 1}/{size}"
        if not self.chunked:
            headers["content-length"] = str(size - start)
        body = self.content[start:]
        if self.encoding == "gzip":
            body = gzip.compress(body)
            headers |= {"content-encoding": "gzip", "content-length": str(len(body))}
        cut = self.cuts.pop(0) if self.cuts else None
        error = None if cut is None else httpx.ReadError("the connection broke")
        body = body if cut is None else body[:cut]
        pieces = iter([body[at : at + 700] for at in range(0, len(body), 700)])
        return httpx.Response(206 if wanted else 200, headers=headers, stream=Pieces(pieces, error))


# --------------------------------------------------------------------------------------------- over a socket


@attrs.define(eq=False)
class LoopbackHost:
    """A host of one large archive on a loopback socket, which it makes as it goes.

    Attributes:
        size: bytes of the one file in it.
        cut: the first answer breaks off after so many bytes.
        ranges: it gives parts.
        requests: the heads of what was asked.
    """

    size: int
    cut: int | None = None
    ranges: bool = True
    requests: list[str] = attrs.field(factory=list)

    @property
    def total(self) -> int:
        """Bytes of the archive."""
        blocks = 1 + -(-self.size // tarfile.BLOCKSIZE) + 2
        return -(-blocks * tarfile.BLOCKSIZE // tarfile.RECORDSIZE) * tarfile.RECORDSIZE

    def content(self, start: int) -> Iterator[bytes]:
        """Yield the archive from an offset on."""
        at = 0
        for piece in self._pieces():
            if at + len(piece) > start:
                yield piece[max(start - at, 0) :]
            at += len(piece)

    def _pieces(self) -> Iterator[bytes]:
        info = tarfile.TarInfo("model.safetensors")
        info.size = self.size
        head = info.tobuf(tarfile.USTAR_FORMAT)
        yield head
        yield from self.file()
        yield bytes(self.total - len(head) - self.size)

    def file(self) -> Iterator[bytes]:
        """Yield the file's content: each 64 KiB begin with their number."""
        for at in range(0, self.size, 65_536):
            yield (b"%16d" % at + bytes(range(256)) * 256)[: min(65_536, self.size - at)]

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        """Serve the service and its archive; yields the base URL."""
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(self._listen)
            port = listeners[0].socket.getsockname()[1]
            yield f"http://127.0.0.1:{port}"
            nursery.cancel_scope.cancel()

    async def _listen(self, task_status: Any) -> None:
        await trio.serve_tcp(self._answer, 0, host="127.0.0.1", task_status=task_status)

    async def _answer(self, stream: trio.SocketStream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            piece = await stream.receive_some()
            if not piece:
                return
            head += piece
        text = head.decode("latin-1")
        with contextlib.suppress(trio.BrokenResourceError):
            await self._send(stream, text)
            await stream.send_eof()
        await stream.aclose()

    async def _send(self, stream: trio.SocketStream, text: str) -> None:
        target = text.split(" ", 2)[1]
        if target.startswith("/api/v1/"):
            status = "302 Found\r\nlocation: /archive" if target.endswith("/archive") else "404 Not Found"
            await stream.send_all(
                f"HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode()
            )
            return
        self.requests.append(text)
        found = re.search(r"\r\nrange: bytes=(\d+)-", text, re.IGNORECASE)
        start = int(found[1]) if found is not None and self.ranges else 0
        status = f"206 Partial Content\r\ncontent-range: bytes {start}-{self.total - 1}/{self.total}"
        lines = [
            f"HTTP/1.1 {status if start else '200 OK'}",
            f"content-length: {self.total - start}",
            'etag: "one"',
            "connection: close",
        ]
        await stream.send_all("\r\n".join([*lines, "", ""]).encode())
        cut, self.cut = self.cut, None
        sent = 0
        for piece in self.content(start):
            await stream.send_all(piece)
            sent += len(piece)
            if cut is not None and sent >= cut:
                return


@contextlib.asynccontextmanager
async def rest_on(host: Host, **settings: Any) -> AsyncIterator[RestClient]:
    """Open a client of a host in memory."""
    config = Config(base_url="http://stub", api_key="tml-hush", **settings)
    async with open_transport(config, rng=random.Random(0), through=host) as transport:
        yield RestClient(transport)


def left(folder: Path) -> list[str]:
    """Return the names of what is in a directory."""
    return sorted(entry.name for entry in folder.iterdir())
