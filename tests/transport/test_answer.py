"""The head of a response: what is read without h11 is what h11 reads."""

from __future__ import annotations

import random

import h11
import pytest

from tinker_actors.transport.answer import AnswerHead, read_plain

PLAIN = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Two: a,  b\r\nX-\x21: \xe9t\xe9\r\n"
    b"content-LENGTH: 5\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\nhello"
)


def by_h11(data: bytes) -> tuple[AnswerHead, int, bytes] | None:
    """Read a head with h11 as `read_plain` does; None if it is refused, in pieces, or has no length."""
    parser = h11.Connection(h11.CLIENT)
    parser.send(h11.Request(method=b"POST", target=b"*", headers=[(b"host", b"-")]))
    parser.receive_data(data)
    try:
        event = parser.next_event()
    except h11.RemoteProtocolError:
        return None
    if not isinstance(event, h11.Response):
        return None
    head = AnswerHead.of(event)
    fields = dict(head.headers)
    if b"content-length" not in fields or b"transfer-encoding" in fields:
        return None
    return head, int(fields[b"content-length"]), parser.trailing_data[0]


def test_a_plain_head_is_read() -> None:
    """Status, words, fields in their order with both spellings, length and the start of the body."""
    found = read_plain(PLAIN)
    assert found is not None
    assert found == by_h11(PLAIN)
    head, length, begun = found
    assert (head.status, head.reason, head.version) == (200, b"OK", b"1.1")
    assert head.headers[3] == (b"content-length", b"5")
    assert head.raw_headers[3] == (b"content-LENGTH", b"5")
    assert (length, begun) == (5, b"hello")


@pytest.mark.parametrize(
    "change",
    [
        (b"HTTP/1.1", b"HTTP/1.0"),
        (b"200 OK", b"100 Continue"),
        (b"200 OK", b"204 No Content"),
        (b"200 OK", b"304 Not Modified"),
        (b"X-Two: a", b"Transfer-Encoding: chunked\r\nX-Two: a"),
        (b"X-Two: a", b"Content-Length: 5\r\nX-Two: a"),
        (b"X-Two: a", b"Content-Length: 6\r\nX-Two: a"),
        (b"LENGTH: 5", b"LENGTH: 5, 5"),
        (b"LENGTH: 5", b"LENGTH: +5"),
        (b"LENGTH: 5", b"LENGTH: -5"),
        (b"LENGTH: 5", b"LENGTH: 5555555555555555"),
        (b"content-LENGTH: 5\r\n", b""),
        (b"a,  b\r\n", b"a,\r\n  b\r\n"),
        (b"a,  b\r\n", b"a,  b\n"),
        (b"a,  b\r\n", b"\r\n"),
        (b"a,  b", b"a\tb"),
        (b"a,  b", b"a\x00b"),
        (b"X-Two:", b"X-Two :"),
        (b"\r\n\r\nhello", b"\r\n"),
    ],
)
def test_another_head_is_left_to_h11(change: tuple[bytes, bytes]) -> None:
    """Whatever is not quite plain does not match, be it allowed or not."""
    assert change[0] in PLAIN
    assert read_plain(PLAIN.replace(*change, 1)) is None


def test_what_is_read_is_what_h11_reads() -> None:
    """Of thousands of damaged heads, none is read that h11 refuses, and none is read otherwise."""
    rng = random.Random(11)
    read = 0
    for _ in range(8000):
        data = bytearray(PLAIN)
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(len(data))
            kind = rng.randrange(3)
            if kind == 0:
                data[place] = rng.choice(b"\r\n\t :,\x00\x0b\x0c\x1c\x7f\x80\x85\xa0\xff09aZ-_")
            elif kind == 1:
                del data[place : place + rng.randint(1, 4)]
            else:
                data[place:place] = data[place : place + rng.randint(1, 12)]
        found = read_plain(bytes(data))
        if found is not None:
            read += 1
            assert found == by_h11(bytes(data)), bytes(data)
    assert read > 2000
