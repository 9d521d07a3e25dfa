"""A complete answer: its bytes, what they say, and the error of a status."""

from __future__ import annotations

import contextlib
import logging
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import cast

import attrs
import httpx
import orjson

from tinker_actors.errors import APIResponseValidationError, APIStatusError, DecodeError, status_error_class
from tinker_actors.protocol.failure import printable
from tinker_actors.protocol.retry import parse_retry_after
from tinker_actors.transport.headers import RawHeaders
from tinker_actors.wire.codec import JsonValue
from tinker_actors.wire.compression import decompress
from tinker_actors.wire.payload import JSON, Payload

__all__ = ["Reply", "as_answer", "log_deprecation", "status_error"]

MAX_BODY_BYTES = 2**30  # after decompression; the largest results have tens of megabytes
_SHOWN_BODY = 2000  # characters of a body that an error's text holds

_LOG = logging.getLogger("tinker_actors.transport")


@attrs.define(eq=False)
class Reply:
    """An answer.

    Attributes:
        status: HTTP status.
        headers: names in lower case.
        raw: the body as it came.
        live: the same answer while its body is not read yet; `raw` is empty then.
    """

    status: int
    headers: RawHeaders = attrs.field(repr=False)
    raw: bytes = attrs.field(default=b"", repr=False)
    live: httpx.Response | None = None
    _fields: dict[bytes, bytes] | None = attrs.field(default=None, init=False, repr=False)

    def header(self, name: bytes) -> str | None:
        """Return a header by its lower-case name; of several the first."""
        if self._fields is None:  # about five are asked for, of every answer
            self._fields = dict(reversed(self.headers))
        value = self._fields.get(name)
        return None if value is None else value.decode("latin-1")

    @property
    def content_type(self) -> str:
        """The header, or an empty text."""
        return self.header(b"content-type") or ""

    def content(self) -> bytes:
        """Return the body without its compression.

        Raises:
            DecodeError: it is not what it says, or becomes too large.
        """
        encoding = self.header(b"content-encoding")
        return self.raw if encoding is None else decompress(self.raw, encoding, limit=MAX_BODY_BYTES)

    def payload(self) -> Payload:
        """Return the body with its type.

        Raises:
            APIResponseValidationError: it cannot be decompressed.
        """
        try:
            return Payload(self.content_type, self.content())
        except DecodeError as error:
            raise APIResponseValidationError(str(error), error.problems) from error

    def retry_after(self, now: datetime) -> float | None:
        """Return the seconds the service asked to wait."""
        return parse_retry_after(self.header(b"retry-after-ms"), self.header(b"retry-after"), now)

    @property
    def should_retry(self) -> bool | None:
        """What the service said about trying again; None if nothing.

        A 400 without a body is no word of the service's: what stands before it turned the request away, and a new
        connection may help (tinker 0.38.0 lib/internal_client_holder.py).
        """
        said = {"true": True, "false": False}.get(self.header(b"x-should-retry") or "")
        if said is not None or self.status != 400:
            return said
        without_body = (self.header(b"content-length") or "0") == "0" and not self.raw
        return True if without_body and self.live is None else None

    def as_httpx(self, request: httpx.Request) -> httpx.Response:
        """Return the same as httpx's object."""
        if self.live is not None:
            return self.live
        try:
            content = self.content()
        except DecodeError:
            content = self.raw
        encodings = [header for header in self.headers if header[0] == b"content-encoding"]
        headers = [header for header in self.headers if header[0] != b"content-encoding"]
        response = httpx.Response(self.status, headers=headers, content=content, request=request)
        for name, value in encodings:  # only now: httpx would undo them again, and without a limit
            response.headers[name.decode()] = value.decode("latin-1")
        return response

    def without(self, secret: str | None) -> Reply:
        """Return the same with a secret masked, should the service repeat it in its body, compressed or not."""
        try:
            content = self.content()
        except DecodeError:
            return self  # nobody will read it either
        if not secret or secret.encode() not in content:
            return self
        raw = content.replace(secret.encode(), b"***")
        framing = (b"content-length", b"content-encoding")
        headers = [header for header in self.headers if header[0] not in framing]
        return Reply(self.status, headers, raw)


def status_error(what: str, reply: Reply, request: httpx.Request, now: datetime) -> APIStatusError:
    """Make the error of an answer's status."""
    body = body_of(reply)
    text = str(body)
    if len(text) > _SHOWN_BODY:
        text = f"{text[:_SHOWN_BODY]}…"
    status = reply.status
    error = status_error_class(status)(
        f"{what}: Error code: {status} - {printable(text) or 'no body'}",
        status_code=status,
        body=body,
        retry_after=reply.retry_after(now),
        should_retry=reply.should_retry,
        retryable=status in (408, 429) or status >= 500,
    )
    error.request = request
    error.response = reply.as_httpx(request)
    return error


def body_of(reply: Reply) -> JsonValue:
    """Return the JSON value of an answer, else its text; of one that cannot be decompressed, that it cannot be."""
    try:
        content = reply.content()
    except DecodeError as error:
        return f"the body cannot be decompressed: {error}"
    try:
        return cast("JsonValue", orjson.loads(content))
    except orjson.JSONDecodeError:
        return content.decode(errors="replace")


def log_deprecation(what: str, reply: Reply, told: set[str]) -> None:
    """Log what a service says about the end of a call, once for each call."""
    note = reply.header(b"x-deprecation-note")
    if note is None or what in told:
        return
    told.add(what)
    error = reply.header(b"x-deprecation-level") == "error"
    _LOG.log(logging.ERROR if error else logging.WARNING, "%s: %s", what, note)


def as_answer(reply: Reply, location: str) -> Reply:
    """Return an answer whose body says where a redirect leads and until when."""
    content = {"url": location}
    with contextlib.suppress(ValueError, TypeError):
        content["expires"] = parsedate_to_datetime(reply.header(b"expires") or "").isoformat()
    return Reply(200, [(b"content-type", JSON.encode())], orjson.dumps(content))
