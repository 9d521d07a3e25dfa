"""The head of a request: complete, in order, and with nothing smuggled into it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tinker_actors.transport.head import Origin, begin_head, compose_head, end_head

ORIGIN = Origin("http", "server", 80)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (ORIGIN, b"server"),
        (Origin("http", "server", 8000), b"server:8000"),
        (Origin("https", "server", 443), b"server"),
        (Origin("https", "::1", 80), b"[::1]:80"),
    ],
)
def test_a_head_is_completed(origin: Origin, host: bytes) -> None:
    """Host comes first and Content-Length last if they are missing; the rest stays as it was given."""
    head = compose_head(origin, b"POST", b"/a?b=c", [(b"X-Two", b"2"), (b"x-one", b"")], 5)
    assert head == (
        b"POST /a?b=c HTTP/1.1\r\nHost: " + host + b"\r\nX-Two: 2\r\nx-one: \r\nContent-Length: 5\r\n\r\n"
    )


def test_a_complete_head_stays_as_it_is() -> None:
    """Given names and order are kept, whatever their case; a GET without a body has no length."""
    given = [(b"content-LENGTH", b"5"), (b"HOST", b"h")]
    assert (
        compose_head(ORIGIN, b"POST", b"/", given, 5)
        == b"POST / HTTP/1.1\r\ncontent-LENGTH: 5\r\nHOST: h\r\n\r\n"
    )
    assert compose_head(ORIGIN, b"GET", b"/", [], 0) == b"GET / HTTP/1.1\r\nHost: server\r\n\r\n"
    assert b"Content-Length: 0" in compose_head(ORIGIN, b"POST", b"/", [], 0)
    chunked = [(b"Transfer-Encoding", b"chunked")]
    assert b"Length" not in compose_head(ORIGIN, b"POST", b"/", chunked, None)


@pytest.mark.parametrize(
    ("method", "target", "headers"),
    [
        (b"GE T", b"/", []),
        (b"GET", b"/a b", []),
        (b"GET", b"/\r\nX: y", []),
        (b"GET", b"", []),
        (b"GET", b"/", [(b"a b", b"c")]),
        (b"GET", b"/", [(b"", b"c")]),
        (b"GET", b"/", [(b"a", b"b\r\nInjected: yes")]),
        (b"GET", b"/", [(b"a: b\r\nc", b"d")]),
        (b"GET", b"/", [(b"a", b"b\nc")]),
        (b"GET", b"/", [(b"a", b"b\x00")]),
        (b"GET", b"/", [(b"a", b"b\x7f")]),
        (b"POST", b"/", [(b"Content-Length", b"4")]),
        (b"POST", b"/", [(b"Transfer-Encoding", b"chunked")]),
    ],
)
async def test_what_must_not_be_in_a_head_is_refused(
    net: Any, method: bytes, target: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    """Nothing can smuggle a line into a head, and a length is the body's; no connection is opened."""
    pool = net.pool()
    with pytest.raises(httpx.LocalProtocolError):
        await pool.exchange(ORIGIN, method, target, headers, b"abc", timeout=5)
    assert net.dialled == []
    assert pool.statistics().in_use == 0


@pytest.mark.parametrize(
    ("url", "origin", "shown"),
    [
        ("http://server/x", ORIGIN, "http://server"),
        ("https://Server:8443", Origin("https", "server", 8443), "https://server:8443"),
        ("https://[::1]:90/", Origin("https", "::1", 90), "https://[::1]:90"),
        (
            "http://b\u00fccher.example",
            Origin("http", "xn--bcher-kva.example", 80),
            "http://xn--bcher-kva.example",
        ),
    ],
)
def test_an_origin_is_a_part_of_a_url(url: str, origin: Origin, shown: str) -> None:
    """Scheme, host as it is looked up, and port; it is shown as in a URL."""
    assert Origin.of(httpx.URL(url)) == origin
    assert str(origin) == shown


@pytest.mark.parametrize("url", ["ftp://server", "/path", "http:///path"])
def test_other_urls_have_no_origin(url: str) -> None:
    """Only http and https are spoken, and to a host."""
    with pytest.raises(httpx.UnsupportedProtocol):
        Origin.of(httpx.URL(url))


def test_a_head_in_two_pieces_is_the_head_in_one() -> None:
    """What many requests share and what is a request's own come to the same bytes as all of it together."""
    shared = [(b"host", b"example.org"), (b"accept", b"*/*")]
    own = [(b"x-try", b"0"), (b"content-length", b"3")]
    begun = begin_head(ORIGIN, b"POST", b"/path", shared)
    assert end_head(begun, own) == compose_head(ORIGIN, b"POST", b"/path", [*shared, *own], 3)
    assert end_head(begun, []) == begun + b"\r\n"


@pytest.mark.parametrize("field", [(b"x", b"1\r\ny: 2"), (b"x\n", b"1"), (b"x", b"\x00"), (b"", b"1")])
def test_the_end_of_a_head_is_checked_as_its_begin(field: tuple[bytes, bytes]) -> None:
    """Nothing that HTTP forbids gets into a head by its second piece, or its first."""
    begun = begin_head(ORIGIN, b"POST", b"/path", [(b"host", b"example.org")])
    with pytest.raises(httpx.LocalProtocolError):
        end_head(begun, [field])
    with pytest.raises(httpx.LocalProtocolError):
        begin_head(ORIGIN, b"POST", b"/path", [field])
