"""The head of a response.

Nearly all heads that come are of one plain shape: HTTP/1.1, a final status, fields of one line, one Content-Length.
One regular expression reads those, in a quarter of the time that h11 takes; it matches a strict part of what h11
accepts and gives the same. Everything else (1xx, chunks, HTTP/1.0, folded lines, no length or two, a head in pieces,
garbage) does not match, and is h11's to read or to refuse.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import h11

__all__ = ["BODILESS", "AnswerHead", "read_plain"]

BODILESS = frozenset({204, 304})  # RFC 9110 section 6.4.1

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PLAIN = re.compile(
    rb"HTTP/1\.1 ([2-5][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?"
    rb"((?:\r\n"
    + _TOKEN
    + rb": [\x21-\x7e\x80-\xff](?:[\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)+)\r\n\r\n"
)
_FIELD = re.compile(rb"(" + _TOKEN + rb"): ([^\r]+)")
_LENGTH = re.compile(rb"\r\ncontent-length: ([0-9]{1,15})\r\n")


class AnswerHead(NamedTuple):
    """The head of a final response.

    Attributes:
        status: its code.
        reason: the words behind it.
        version: of HTTP, as `b"1.1"`.
        headers: in the order they came, names in lower case.
        raw_headers: the same, names as they came.
    """

    status: int
    reason: bytes
    version: bytes
    headers: list[tuple[bytes, bytes]]
    raw_headers: list[tuple[bytes, bytes]]

    @classmethod
    def of(cls, event: h11.Response) -> AnswerHead:
        """Return what h11 has read."""
        headers = event.headers
        return cls(event.status_code, event.reason, event.http_version, list(headers), headers.raw_items())


def read_plain(data: bytes) -> tuple[AnswerHead, int, bytes] | None:
    """Read a head that is plain and complete.

    Returns:
        The head, the length of its body, and what came behind it. None if h11 is to read it.
    """
    match = _PLAIN.match(data)
    if match is None:
        return None
    status, reason, fields = match.groups()
    lowered = fields.lower() + b"\r\n"
    length = _LENGTH.search(lowered)
    if length is None or lowered.count(b"\r\ncontent-length:") != 1 or b"\r\ntransfer-encoding:" in lowered:
        return None
    code = int(status)
    if code in BODILESS:
        return None
    raw = _FIELD.findall(fields)
    headers = [(name.lower(), value) for name, value in raw]
    return AnswerHead(code, reason or b"", b"1.1", headers, raw), int(length[1]), data[match.end() :]
