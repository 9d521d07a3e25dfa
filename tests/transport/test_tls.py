"""TLS on loopback, with an authority of our own."""

from __future__ import annotations

import shutil
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import trustme

from tinker_actors.errors import ConfigError
from tinker_actors.transport.head import Origin
from tinker_actors.transport.pool import ConnectionPool
from tinker_actors.transport.tls import Trust, make_ssl_context


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """An authority that nobody trusts yet."""
    return trustme.CA()


@pytest.fixture(scope="module")
def bundle(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its certificate in a file."""
    path = tmp_path_factory.mktemp("tls") / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


def server_context(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    """Make the context of a server with these names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def pool_for(bundle: Path | None) -> ConnectionPool:
    """Make a pool that trusts the authority in a file, or only those of certifi."""
    context = make_ssl_context(Trust(file=str(bundle)) if bundle else None)
    return ConnectionPool(limit=2, ssl_context=context)


async def ask(pool: ConnectionPool, origin: Origin, body: bytes = b"hello", sni: str | None = None) -> Any:
    """Make one exchange."""
    return await pool.exchange(origin, b"POST", b"/x", [], body, timeout=10, sni=sni)


@pytest.mark.parametrize("size", [5, 100_000, 3_000_000])
async def test_an_encrypted_connection_is_used_again(
    loopback: Any, authority: Any, bundle: Path, size: int
) -> None:
    """The server is known by its address, speaks HTTP/1.1, and the tickets of TLS 1.3 do not look like an answer."""
    agreed: list[Any] = []

    async def serve(peer: Any) -> None:
        while (request := await peer.request()) is not None:
            await peer.answer(request[1])
            agreed.append((peer, peer.stream.selected_alpn_protocol()))

    tls = server_context(authority, "127.0.0.1")
    async with loopback(serve, tls) as origin, pool_for(bundle) as pool:
        body = b"x" * size
        for _ in range(3):
            assert (await ask(pool, origin, body)).body == body
        async with httpx.AsyncClient(transport=pool) as client:
            assert (await client.post(f"{origin}/x", content=body)).content == body
    assert len(set(agreed)) == 1
    assert agreed[0][1] == "http/1.1"


async def test_an_encrypted_connection_that_was_closed_is_not_used(
    loopback: Any, authority: Any, bundle: Path
) -> None:
    """A goodbye, or an answer that nobody asked for, is found before the next request and costs a new connection."""
    peers: list[Any] = []

    async def serve(peer: Any) -> None:
        peers.append(peer)
        request = await peer.request()
        await peer.answer(request[1])
        if len(peers) == 2:
            await peer.answer(b"wrong")
        await peer.close()

    tls = server_context(authority, "127.0.0.1")
    async with loopback(serve, tls) as origin, pool_for(bundle) as pool:
        for number in range(4):
            assert (await ask(pool, origin, b"%d" % number)).body == b"%d" % number
            await trio.sleep(0.02)  # until the goodbye is here
    assert len(peers) == 4


async def test_an_unknown_authority_is_refused(loopback: Any, authority: Any) -> None:
    """The error says so, and what would make it known; nothing was written."""
    async with loopback(tls=server_context(authority, "127.0.0.1")) as origin, pool_for(None) as pool:
        with pytest.raises(
            httpx.ConnectError, match=r"certificate is not accepted: .*SSL_CERT_FILE"
        ) as caught:
            await ask(pool, origin)
        assert str(origin) in str(caught.value)
        assert pool.statistics() == (2, 0, 0, 0)


async def test_another_name_is_refused(loopback: Any, authority: Any, bundle: Path) -> None:
    """A certificate for somebody else is not accepted, although its authority is known."""
    async with (
        loopback(tls=server_context(authority, "elsewhere.example")) as origin,
        pool_for(bundle) as pool,
    ):
        with pytest.raises(httpx.ConnectError, match=r"not valid for '127\.0\.0\.1'"):
            await ask(pool, origin)


@pytest.mark.requirement("R50")
async def test_the_name_for_tls_may_be_another(loopback: Any, authority: Any, bundle: Path) -> None:
    """A host with an underscore is asked for by a name without one, which is what its certificate is for."""
    heard: list[str | None] = []
    context = server_context(authority, "my-host.example")
    context.sni_callback = lambda _, name, __: heard.append(name)
    async with loopback(tls=context) as loop:

        async def connect(host: str, port: int) -> trio.abc.Stream:
            assert (host, port) == ("my_host.example", 443)
            return await trio.open_tcp_stream(loop.host, loop.port)

        context = make_ssl_context(Trust(file=str(bundle)))
        pool = ConnectionPool(limit=2, ssl_context=context, connect=connect)
        origin = Origin("https", "my_host.example", 443)
        async with httpx.AsyncClient(transport=pool) as client:
            assert (await ask(pool, origin, sni="my-host.example")).body == b"hello"
            extensions = {"sni_hostname": "my-host.example"}
            url = "https://my_host.example/"
            assert (await client.post(url, content=b"x", extensions=extensions)).content == b"x"
        assert heard == ["my-host.example"]


async def test_a_server_that_speaks_no_tls_is_named(loopback: Any, bundle: Path) -> None:
    """Https to a port that speaks something else is an error before anything of the request is written."""

    async def clear(peer: Any) -> None:
        await peer.stream.receive_some()
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async def closing(peer: Any) -> None:
        await peer.stream.receive_some()

    for handler in (clear, closing):
        async with loopback(handler) as origin, pool_for(bundle) as pool:
            with pytest.raises(httpx.ConnectError, match=r"TLS with https://127\.0\.0\.1:\d+ failed: \w+"):
                await ask(pool, origin._replace(scheme="https"))


async def test_a_refusal_in_the_middle_of_an_encrypted_request_is_heard(
    loopback: Any, authority: Any, bundle: Path
) -> None:
    """Also over TLS, where an interrupted write ends the reading: the answer is read before."""

    async def serve(peer: Any) -> None:
        await peer.until(b"x" * 100)
        await peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 100000\r\n\r\n")
        await peer.send(b"y" * 100_000)
        await trio.sleep_forever()

    tls = server_context(authority, "127.0.0.1")
    async with loopback(serve, tls) as origin, pool_for(bundle) as pool:
        reply = await ask(pool, origin, b"x" * 20_000_000)
        assert (reply.status, len(reply.body)) == (413, 100_000)
        assert pool.statistics() == (2, 0, 0, 0)


# ------------------------------------------------------------------------------------------------------- configuration


def test_the_environment_says_whom_to_trust() -> None:
    """Both variables are read; empty ones count as unset."""
    values = {"SSL_CERT_FILE": "/a", "SSL_CERT_DIR": "/b"}
    assert Trust.read(values) == Trust(file="/a", directory="/b")
    assert Trust.read({"SSL_CERT_FILE": "", "SSL_CERT_DIR": ""}) == Trust() == Trust.read({})


async def test_a_directory_of_certificates_serves_as_well(
    loopback: Any, authority: Any, bundle: Path, tmp_path: Path
) -> None:
    """`SSL_CERT_DIR` holds one certificate in each file, named by its hash."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("names of such files are made by openssl")
    command = [openssl, "x509", "-in", str(bundle), "-noout", "-subject_hash"]
    done = await trio.run_process(command, capture_stdout=True)
    shutil.copy(bundle, tmp_path / f"{done.stdout.decode().strip()}.0")
    context = make_ssl_context(Trust.read({"SSL_CERT_DIR": str(tmp_path)}))
    tls = server_context(authority, "127.0.0.1")
    async with loopback(tls=tls) as origin, ConnectionPool(limit=1, ssl_context=context) as pool:
        assert (await ask(pool, origin)).status == 200


@pytest.mark.lesson("D45")
def test_without_the_environment_certifi_is_trusted() -> None:
    """There are authorities, names are checked, and certificates are required."""
    context = make_ssl_context()
    assert context.cert_store_stats()["x509_ca"] > 50
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_certificates_that_cannot_be_read_are_an_error_of_the_configuration(
    tmp_path: Path, content: str | None
) -> None:
    """The error names the variable and the path."""
    path = tmp_path / "missing.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=r"SSL_CERT_FILE = '.*missing\.pem'"):
        make_ssl_context(Trust(file=str(path)))
