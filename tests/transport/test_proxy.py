"""Proxies: which one, and the way through it."""

from __future__ import annotations

import base64
import ssl
from contextlib import suppress
from typing import Any

import httpx
import pytest
import trio
import trustme

from tinker_actors.errors import ConfigError
from tinker_actors.transport.head import Origin
from tinker_actors.transport.pool import ConnectionPool
from tinker_actors.transport.proxy import NoProxy, ProxyRules, ProxyTarget

ORIGIN = Origin("https", "service.example", 443)
SECRET = "pass word"


# ------------------------------------------------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("value", "origin"),
    [
        ("http://proxy:3128", Origin("http", "proxy", 3128)),
        ("http://proxy", Origin("http", "proxy", 80)),
        ("https://proxy", Origin("https", "proxy", 443)),
        ("proxy:3128", Origin("http", "proxy", 3128)),
        ("HTTP://[::1]:3128/", Origin("http", "::1", 3128)),
    ],
)
def test_a_proxy_is_a_url(value: str, origin: Origin) -> None:
    """Scheme and port have defaults; without a user there is no authorization."""
    assert ProxyTarget.parse("proxy", value) == ProxyTarget(origin=origin)


@pytest.mark.lesson("D23")
def test_user_and_password_become_a_header_that_is_not_shown() -> None:
    """They may be percent-encoded; neither repr nor an error has them."""
    target = ProxyTarget.parse("proxy", "http://me:pass%20word@proxy:3128")
    assert target.authorization == b"Basic " + base64.b64encode(b"me:pass word")
    assert target.origin == Origin("http", "proxy", 3128)
    shown = repr(target) + repr(ProxyRules.of(target))
    assert "pass" not in shown
    assert base64.b64encode(b"me:pass word").decode() not in shown


@pytest.mark.parametrize(
    "value",
    [
        "socks5://me:hunter2@proxy:1080",
        "socks5h://proxy",
        "ftp://proxy",
        "http://me:hunter2@",
        "http://me:hunter2@proxy:port",
        "http://",
        "",
        "http://me:hunter2@pro xy\x00",
    ],
)
def test_other_proxies_are_an_error_of_the_configuration(value: str) -> None:
    """The setting is named, a password is not; what kind was asked for is."""
    with pytest.raises(ConfigError, match="HTTPS_PROXY") as caught:
        ProxyTarget.parse("HTTPS_PROXY", value)
    assert "hunter2" not in str(caught.value)
    if value.startswith("socks"):
        assert "SOCKS is not supported" in str(caught.value)


ENTRIES: list[tuple[str, Origin, bool]] = [
    ("service.example", ORIGIN, True),
    ("SERVICE.example", ORIGIN, True),
    ("example", ORIGIN, True),
    (".example", ORIGIN, True),
    ("*.example", ORIGIN, True),
    ("*", ORIGIN, True),
    ("ice.example", ORIGIN, False),
    ("service.example.org", ORIGIN, False),
    ("other, service.example", ORIGIN, True),
    ("service.example:443", ORIGIN, True),
    ("service.example:8443", ORIGIN, False),
    ("https://service.example", ORIGIN, True),
    ("service.example", Origin("https", "Service.Example.", 443), True),
    ("", ORIGIN, False),
    (" , ,", ORIGIN, False),
    (".", ORIGIN, False),
    ("10.0.0.0/8", Origin("http", "10.1.2.3", 80), True),
    ("10.0.0.0/8", Origin("http", "11.1.2.3", 80), False),
    ("10.1.2.3", Origin("http", "10.1.2.3", 80), True),
    ("10.1.2.3:80", Origin("http", "10.1.2.3", 80), True),
    ("10.1.2.3:81", Origin("http", "10.1.2.3", 80), False),
    ("fd00::/8", Origin("http", "fd12::1", 80), True),
    ("[fd12::1]", Origin("http", "fd12::1", 80), True),
    ("[fd12::1]:81", Origin("http", "fd12::1", 80), False),
    ("fd12::1", Origin("http", "fd12::1", 80), True),
    ("example", Origin("http", "10.1.2.3", 80), False),
    ("10.0.0.0/8", ORIGIN, False),
]


@pytest.mark.parametrize(("value", "origin", "direct"), ENTRIES)
def test_what_is_reached_directly(value: str, origin: Origin, direct: bool) -> None:
    """Hosts with what lies below them, addresses, networks, ports, and everything."""
    assert NoProxy.parse(value).covers(origin) is direct


def test_the_environment_names_proxies_by_scheme() -> None:
    """Small letters go first, ALL_PROXY fills in, NO_PROXY takes out, and this machine is always reached directly."""
    values = {
        "https_proxy": "http://small:1",
        "HTTPS_PROXY": "http://large:2",
        "ALL_PROXY": "http://all:3",
        "NO_PROXY": "inside.example",
    }
    rules = ProxyRules.read(values)

    def chosen(scheme: str, host: str) -> str | None:
        target = rules.choose(Origin(scheme, host, 443))
        return None if target is None else target.origin.host

    assert chosen("https", "service.example") == "small"
    assert chosen("http", "service.example") == "all"
    assert chosen("https", "a.inside.example") is None
    assert [chosen("https", host) for host in ("localhost", "127.0.0.1", "127.9.9.9", "::1")] == [None] * 4
    named = ProxyRules.of(ProxyTarget.parse("proxy", "http://named"))
    assert named.choose(Origin("http", "localhost", 80)) == named.http
    assert ProxyRules.read({}) == ProxyRules()
    assert ProxyRules.read({"HTTP_PROXY": ""}) == ProxyRules()
    assert ProxyRules.read({"HTTP_PROXY": "http://a"}).http is not None
    assert ProxyRules.read({"HTTP_PROXY": "http://a", "REQUEST_METHOD": "GET"}).http is None
    with pytest.raises(ConfigError, match="ALL_PROXY"):
        ProxyRules.read({"ALL_PROXY": "socks5://a"})


# ------------------------------------------------------------------------------------------------------------- the way


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """An authority for the service and the proxy."""
    return trustme.CA()


def contexts(authority: trustme.CA, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Make the context of a server and one of a client that trusts it."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


class Proxy:
    """A proxy whose every way leads to one service."""

    def __init__(self, service: Origin, expected: bytes | None = None) -> None:
        self.service = service
        self.expected = expected
        self.heads: list[bytes] = []

    async def __call__(self, peer: Any) -> None:
        head, _ = await peer.request()
        self.heads.append(head)
        if self.expected is not None and b"Proxy-Authorization: " + self.expected not in head:
            await peer.answer(status="407 Proxy Authentication Required")
            return
        async with await trio.open_tcp_stream(self.service.host, self.service.port) as beyond:
            await peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pump, peer.stream, beyond, nursery)
                nursery.start_soon(self._pump, beyond, peer.stream, nursery)

    async def _pump(self, source: Any, sink: Any, nursery: trio.Nursery) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in source:
                await sink.send_all(data)
        nursery.cancel_scope.cancel(reason="one side has closed")


async def ask(pool: ConnectionPool, origin: Origin = ORIGIN) -> Any:
    """Make one exchange."""
    return await pool.exchange(origin, b"POST", b"/x", [], b"hello", timeout=5)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_service_is_reached_through_a_proxy(
    loopback: Any, authority: trustme.CA, scheme: str
) -> None:
    """The proxy hears host, port and its password, and nothing of the request; the connection is used again."""
    server, client = contexts(authority, "service.example")
    proxy_server, _ = contexts(authority, "127.0.0.1")
    async with loopback(tls=server) as service:
        proxy = Proxy(service, b"Basic " + base64.b64encode(b"me:pass word"))
        async with loopback(proxy, proxy_server if scheme == "https" else None) as place:
            url = f"{scheme}://me:pass%20word@127.0.0.1:{place.port}"
            pool = ConnectionPool(limit=2, ssl_context=client, proxy=ProxyTarget.parse("proxy", url))
            async with pool, httpx.AsyncClient(transport=pool) as http:
                assert (await ask(pool)).body == b"hello"
                assert (await http.post("https://service.example/x", content=b"hi")).content == b"hi"
                assert pool.statistics() == (2, 0, 0, 1)
    (head,) = proxy.heads
    assert head.startswith(b"CONNECT service.example:443 HTTP/1.1\r\nHost: service.example:443\r\n")
    assert b"/x" not in head


async def test_a_clear_service_goes_the_same_way(loopback: Any) -> None:
    """Http goes through CONNECT as well, to its own port, also by an IPv6 address."""
    async with loopback() as service:
        proxy = Proxy(service)
        async with loopback(proxy) as place:
            target = ProxyTarget(origin=place)
            async with ConnectionPool(
                limit=2, ssl_context=ssl.create_default_context(), proxy=target
            ) as pool:
                assert (await ask(pool, Origin("http", "service.example", 80))).body == b"hello"
                assert (await ask(pool, Origin("http", "fd00::1", 8000))).body == b"hello"
                assert (await ask(pool, Origin("http", "fd00::1", 80))).body == b"hello"
    asked = [head.split()[1] for head in proxy.heads]
    assert asked == [b"service.example:80", b"[fd00::1]:8000", b"[fd00::1]:80"]


async def no_http(peer: Any) -> None:
    """Answer as no proxy does."""
    await peer.request()
    await peer.send(b"SOCKS?\r\n\r\n")


async def hang_up(peer: Any) -> None:
    """Close without an answer."""
    await peer.request()


async def forbid(peer: Any) -> None:
    """Refuse, with a page."""
    await peer.request()
    await peer.answer(b"<html>", status="403 Forbidden")


async def ask_for_password(peer: Any) -> None:
    """Want another password."""
    await peer.request()
    await peer.answer(status="407 Proxy Authentication Required")


@pytest.mark.parametrize(
    ("handler", "text"),
    [
        (no_http, "did not open a way"),
        (hang_up, "did not open a way"),
        (forbid, "refused the way to https://service.example: 403"),
        (ask_for_password, r"407 \(are its user and password right\?\)"),
    ],
)
async def test_a_proxy_that_does_not_open_the_way(loopback: Any, handler: Any, text: str) -> None:
    """The error is the proxy's, names both places and not the password; nothing of the request was written."""
    async with loopback(handler) as place:
        target = ProxyTarget.parse("proxy", f"http://me:hunter2@127.0.0.1:{place.port}")
        async with ConnectionPool(limit=2, ssl_context=ssl.create_default_context(), proxy=target) as pool:
            with pytest.raises(httpx.ProxyError, match=text) as caught:
                await ask(pool)
            assert str(place) in str(caught.value)
            assert "hunter2" not in str(caught.value)
            assert pool.statistics() == (2, 0, 0, 0)


async def test_a_proxy_that_is_not_there_is_named_as_the_proxy() -> None:
    """Who reads the error knows that the URL of the service is not what is wrong."""
    target = ProxyTarget.parse("proxy", "http://me:hunter2@127.0.0.1:1")
    async with ConnectionPool(limit=2, ssl_context=ssl.create_default_context(), proxy=target) as pool:
        with pytest.raises(
            httpx.ConnectError, match=r"^no connection to the proxy http://127\.0\.0\.1:1: "
        ) as caught:
            await ask(pool)
        assert "hunter2" not in str(caught.value)


async def test_a_proxy_that_never_answers_is_a_connect_timeout(autojump_clock: Any, net: Any) -> None:
    """Its answer counts as opening the connection, and has that limit."""

    async def silent(peer: Any) -> None:
        await peer.everything()

    net.handler = silent
    target = ProxyTarget.parse("proxy", "http://proxy:3128")
    pool = net.pool(connect_timeout=5, proxy=target)
    with pytest.raises(httpx.ConnectTimeout):
        await pool.exchange(ORIGIN, b"GET", b"/", [], b"", timeout=60)
    assert trio.current_time() == 5
    assert net.dialled == [("proxy", 3128)]
    assert net.wires[0].closed


async def test_rules_choose_for_each_origin(net: Any) -> None:
    """What they name is reached directly, with the same pool."""
    rules = ProxyRules.read({"ALL_PROXY": "http://proxy:3128", "NO_PROXY": "inside"})

    async def serve(peer: Any) -> None:
        while (request := await peer.request()) is not None:
            head, body = request
            await (
                peer.send(b"HTTP/1.1 200 OK\r\n\r\n") if head.startswith(b"CONNECT") else peer.answer(body)
            )

    net.handler = serve
    pool = net.pool(proxy=rules)
    for host in ("inside", "outside", "localhost"):
        assert (await ask(pool, Origin("http", host, 80))).body == b"hello"
    assert net.dialled == [("inside", 80), ("proxy", 3128), ("localhost", 80)]


@pytest.mark.parametrize("late", [False, True])
async def test_cancelled_on_the_way_everything_comes_back(
    autojump_clock: Any, net: Any, cancelled_at: Any, authority: trustme.CA, late: bool
) -> None:
    """Wherever a caller is cancelled, in the proxy's answer or in the handshake of TLS, nothing is lost."""
    server, client = contexts(authority, "service.example")

    async def serve(peer: Any) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        peer.stream = trio.SSLStream(peer.stream, server, server_side=True, https_compatible=True)
        while (request := await peer.request()) is not None:
            await peer.answer(request[1])

    net.handler = serve
    step, fired = 0, True
    while fired:
        net.wires.clear()
        target = ProxyTarget.parse("proxy", "http://proxy:3128")
        pool = net.pool(limit=1, ssl_context=client, proxy=target)
        fired = await cancelled_at(step, lambda pool=pool: ask(pool), late=late)
        assert pool.statistics()[:3] == (1, 0, 0)
        assert sum(not wire.closed for wire in net.wires) == pool.statistics().idle
        assert (await ask(pool)).body == b"hello"
        await pool.aclose()
        step += 1
    assert step > 5
