"""A whole answer, for callers who want more than its value."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast

import httpx
import trio

from tinker_actors.errors import APIResponseValidationError, DecodeError, StreamAlreadyConsumed
from tinker_actors.transport.parsing import as_json, parse
from tinker_actors.transport.reply import Reply
from tinker_actors.transport.ways import BROKEN, LiveBody, translated
from tinker_actors.wire.payload import Payload

__all__ = ["APIResponse", "BinaryAPIResponse"]

T = TypeVar("T")
K = TypeVar("K")
P = TypeVar("P")


class _Ready(Generic[P]):
    """Goes through what is there already. A checkpoint for each piece."""

    def __init__(self, pieces: list[P]) -> None:
        self._pieces = iter(pieces)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> P:
        await trio.lowlevel.checkpoint()
        for piece in self._pieces:
            return piece
        raise StopAsyncIteration


class _Going(Generic[P]):
    """Goes through what is still coming, and translates errors. It may be left before its end."""

    def __init__(
        self, pieces: AsyncIterator[P], border: Callable[[], contextlib.AbstractContextManager[None]]
    ) -> None:
        self._pieces = pieces
        self._border = border

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> P:
        with self._border():
            return await anext(self._pieces)

    async def finish(self) -> None:
        """Go to the end of a body that has been made to end."""
        with contextlib.suppress(
            httpx.HTTPError, httpx.StreamError, RuntimeError
        ):  # another task is in there
            while True:
                try:
                    await anext(self._pieces)
                except StopAsyncIteration:
                    return


class APIResponse(Generic[T]):
    """An answer: its head, and its body as bytes, text, lines or values.

    A response of the view `raw` is read already; one of the view `stream` holds its connection until it is read to the
    end or closed, so it belongs into `async with`. The body of the latter can be gone through once.

    Attributes:
        http_response: httpx's object; secrets are masked in the request it came from.
        retries_taken: attempts that failed before this answer.
    """

    def __init__(
        self,
        http_response: httpx.Response,
        *,
        kind: type[T],
        what: str,
        strict: bool = False,
        retries_taken: int = 0,
    ) -> None:
        self.http_response = http_response
        self.retries_taken = retries_taken
        self._kind: Any = kind
        self._what = what
        self._strict = strict
        self._parsed: dict[Any, Any] = {}
        self._live = not http_response.is_closed
        self._under_way: list[_Going[Any]] = []
        if self._live:
            self._keep_raw(http_response)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} [{self.status_code}] {self._what}>"

    @property
    def status_code(self) -> int:
        """The HTTP status."""
        return self.http_response.status_code

    @property
    def headers(self) -> httpx.Headers:
        """The headers of the answer."""
        return self.http_response.headers

    @property
    def url(self) -> httpx.URL:
        """Where the answer came from, after redirects."""
        return self.http_response.url

    @property
    def method(self) -> str:
        """The method of the request."""
        return self.http_response.request.method

    @property
    def is_closed(self) -> bool:
        """Whether the connection has been given back."""
        return self.http_response.is_closed

    async def parse(self, to: type[K] | None = None) -> T | K:
        """Return the body's value; the same object for the same type. Checkpoints.

        Args:
            to: the type to read it as; None for that of the call.

        Raises:
            APIResponseValidationError: it is of another shape.
            APIConnectionError: the connection broke.
            StreamAlreadyConsumed: the body was gone through in another way.
        """
        kind: Any = self._kind if to is None else to
        payload = await self._payload()
        if kind not in self._parsed:
            self._parsed[kind] = self._value(kind, payload)
        return cast("T | K", self._parsed[kind])

    def _value(self, kind: Any, payload: Payload) -> object:
        if kind is httpx.Response:
            return self.http_response
        try:
            return cast("object", parse(kind, payload, strict=self._strict, what=self._what))
        except APIResponseValidationError as error:
            error.request, error.response = self.http_response.request, self.http_response
            raise

    async def _payload(self) -> Payload:
        content = await self.read()
        return Payload(self.headers.get("content-type", ""), content)

    async def read(self) -> bytes:
        """Return the body. Checkpoints. Errors: as `parse`."""
        await trio.lowlevel.checkpoint()
        if self._live:
            await self._read()
        return self.http_response.content

    async def _read(self) -> None:
        """Read a body that is still coming; like every other it is decompressed within a limit."""
        response = self.http_response
        if response.is_stream_consumed or response.is_closed:
            raise StreamAlreadyConsumed(f"{self._what}: the body has been read or closed")
        stream = response.stream
        assert isinstance(stream, httpx.AsyncByteStream)
        with self._border():
            raw = b"".join([piece async for piece in stream])
        await self.close()
        reply = Reply(
            response.status_code, [(name.lower(), value) for name, value in response.headers.raw], raw
        )
        try:
            reply.payload()
        except APIResponseValidationError as error:
            raise APIResponseValidationError(f"{self._what}: {error}", error.problems) from error
        self.http_response = reply.as_httpx(response.request)
        self._live = False

    async def text(self) -> str:
        """Return the body as text, in the character set it names. Checkpoints. Errors: as `parse`."""
        await self.read()
        return self.http_response.text

    async def json(self) -> object:
        """Return the body's JSON value. Checkpoints. Errors: as `parse`."""
        payload = await self._payload()
        try:
            return as_json(payload)
        except DecodeError as error:
            raise APIResponseValidationError(f"{self._what}: {error}", error.problems) from error

    def iter_bytes(self, chunk_size: int | None = None) -> AsyncIterator[bytes]:
        """Go through the body as it comes, decompressed. Errors: as `parse`."""
        if self._live:
            return self._go(self.http_response.aiter_bytes(chunk_size))
        content = self.http_response.content
        size = chunk_size or max(len(content), 1)
        return _Ready([content[at : at + size] for at in range(0, len(content), size)])

    def iter_raw(self) -> AsyncIterator[bytes]:
        """Go through the body as it comes, compressed if it is; of a view `stream` only. Errors: as `parse`."""
        return self._go(self.http_response.aiter_raw())

    def iter_text(self, chunk_size: int | None = None) -> AsyncIterator[str]:
        """Go through the body's text as it comes. Errors: as `parse`."""
        if self._live:
            return self._go(self.http_response.aiter_text(chunk_size))
        text = self.http_response.text
        size = chunk_size or max(len(text), 1)
        return _Ready([text[at : at + size] for at in range(0, len(text), size)])

    def iter_lines(self) -> AsyncIterator[str]:
        """Go through the body's lines, without their ends. Errors: as `parse`."""
        if self._live:
            return self._go(self.http_response.aiter_lines())
        return _Ready(self.http_response.text.splitlines())

    def _go(self, pieces: AsyncIterator[P]) -> AsyncIterator[P]:
        going = _Going(pieces, self._border)
        self._under_way.append(going)
        return going

    def _keep_raw(self, response: httpx.Response) -> None:
        """Have the lowest of httpx's generators at hand: garbage in a compressed body makes those above it lose it."""
        under_way = self._under_way

        def aiter_raw(chunk_size: int | None = None) -> AsyncIterator[bytes]:
            raw = httpx.Response.aiter_raw(response, chunk_size)
            under_way.append(_Going(raw, contextlib.nullcontext))
            return raw

        response.aiter_raw = aiter_raw  # type: ignore[method-assign]

    async def close(self) -> None:
        """Give the connection back; what was not read is lost. Checkpoints."""
        body = self.http_response.extensions.get("body")
        with trio.CancelScope(shield=True):
            if isinstance(body, LiveBody):
                body.end()
                for going in self._under_way:
                    await going.finish()
            await self.http_response.aclose()
        await trio.lowlevel.checkpoint()

    async def __aenter__(self) -> Self:
        await trio.lowlevel.checkpoint()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()  # noqa: ASYNC102 - it is shielded, and does not wait for the other side

    @contextlib.contextmanager
    def _border(self) -> Iterator[None]:
        try:
            yield
        except (httpx.StreamConsumed, httpx.StreamClosed) as error:
            raise StreamAlreadyConsumed(f"{self._what}: the body has been read or closed") from error
        except httpx.DecodingError as error:
            raise APIResponseValidationError(f"{self._what}: {error}", [str(error)]) from error
        except BROKEN as error:
            where = str(self.url.copy_with(query=None))  # a signed address is a key
            raise translated(error, self._what, where) from error


class BinaryAPIResponse(APIResponse[bytes]):
    """An answer whose body is a file."""

    async def write_to_file(self, path: str | os.PathLike[str]) -> None:
        """Write the body to a file, piece by piece; the file appears when it is whole. Checkpoints.

        Raises:
            OSError: it cannot be written.
            APIConnectionError: the connection broke.
            StreamAlreadyConsumed: the body was gone through before.
        """
        target = trio.Path(path)
        partial = target.with_name(f".{target.name[:50]}.{secrets.token_hex(8)}.partial")
        try:
            async with await partial.open("xb") as file:
                async for chunk in self.iter_bytes():
                    await file.write(chunk)
            await partial.replace(target)
        except BaseException:
            with trio.CancelScope(shield=True):
                await partial.unlink(missing_ok=True)
            raise
