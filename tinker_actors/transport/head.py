"""The head of a request: where it goes, and the bytes that say so."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import httpx

__all__ = ["Headers", "Origin", "begin_head", "compose_head", "end_head"]

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]

_DEFAULT_PORTS = {"http": 80, "https": 443}
_WITH_BODY = frozenset({b"POST", b"PUT", b"PATCH"})
_HEAD = re.compile(
    rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ [\x21-\x7e]+ HTTP/1\.1\r\n"
    rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+: [\t\x20-\x7e\x80-\xff]*\r\n)+\r\n"
)
_FIELDS = re.compile(rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+: [\t\x20-\x7e\x80-\xff]*\r\n)*")


class Origin(NamedTuple):
    """Where connections lead: the service, or wherever a redirect points."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: httpx.URL) -> Origin:
        """Return the origin of a URL.

        Raises:
            httpx.UnsupportedProtocol: it is neither http nor https, or names no host.
        """
        if url.scheme not in _DEFAULT_PORTS or not url.host:
            raise httpx.UnsupportedProtocol(
                f"{url.scheme}://{url.host}: must be http or https and name a host"
            )
        host = url.raw_host.decode("ascii").strip("[]")
        return cls(url.scheme, host, url.port or _DEFAULT_PORTS[url.scheme])

    @property
    def netloc(self) -> bytes:
        """Host and port as the Host header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _DEFAULT_PORTS.get(self.scheme) else f":{self.port}"
        return f"{host}{port}".encode("ascii")

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc.decode('ascii')}"


def compose_head(
    origin: Origin, method: bytes, target: bytes, headers: Headers, body_length: int | None
) -> bytes:
    """Return the head of a request.

    The headers are written as they are given; Host is added if it is missing, and so is Content-Length.

    Args:
        origin: where it goes.
        method: in capitals.
        target: path and query.
        headers: in their order.
        body_length: bytes of the body; None if the headers say how it ends.

    Raises:
        httpx.LocalProtocolError: a part that must not stand in a head, or a length that is not the body's.
    """
    lines = [b"%b %b HTTP/1.1" % (method, target)]
    lines += [name + b": " + value for name, value in headers]
    lowered = b"\r\n".join(lines).lower() + b"\r\n"
    if b"\r\nhost:" not in lowered:
        lines.insert(1, b"Host: " + origin.netloc)
    if body_length is not None and b"\r\ncontent-length: %d\r\n" % body_length not in lowered:
        if b"\r\ncontent-length:" in lowered or b"\r\ntransfer-encoding:" in lowered:
            raise httpx.LocalProtocolError(f"the headers do not fit a body of {body_length} bytes")
        if body_length or method in _WITH_BODY:
            lines.append(b"Content-Length: %d" % body_length)
    head = b"\r\n".join(lines) + b"\r\n\r\n"
    if head.count(b"\n") != len(lines) + 1 or _HEAD.fullmatch(head) is None:
        raise httpx.LocalProtocolError("the method, the target or a header has characters that HTTP forbids")
    return head


def begin_head(origin: Origin, method: bytes, target: bytes, headers: Headers) -> bytes:
    """Return the begin of a head that many requests share; `end_head` ends it. Errors: those of `compose_head`."""
    return compose_head(origin, method, target, headers, None)[: -len(b"\r\n")]


def end_head(begun: bytes, headers: Headers) -> bytes:
    """Return a whole head: what `begin_head` gave, and the headers that belong to this request alone.

    Host and the length of the body must be among them, or in the begin.

    Raises:
        httpx.LocalProtocolError: a part that must not stand in a head.
    """
    fields = b"".join([b"%b: %b\r\n" % field for field in headers])
    if fields.count(b"\n") != len(headers) or _FIELDS.fullmatch(fields) is None:
        raise httpx.LocalProtocolError("a header has characters that HTTP forbids")
    return b"%b%b\r\n" % (begun, fields)
