"""Proxies: which one a connection goes through, and the way through it.

All traffic goes through a proxy by CONNECT, so that of what is encrypted it sees host and port alone. The way to the
proxy may be clear (http://) or TLS (https://). SOCKS is refused when the configuration is made.

Which proxy: the one that the configuration names, for everything; else what `HTTPS_PROXY`, `HTTP_PROXY` and `ALL_PROXY`
say, read once when the configuration is made. What `NO_PROXY` names, and this machine, is then reached directly.
"""

from __future__ import annotations

import base64
import ipaddress
import urllib.parse
from collections.abc import Iterable, Mapping

import attrs
import httpx
import trio

from tinker_actors.errors import ConfigError
from tinker_actors.transport.connection import Connection
from tinker_actors.transport.head import Origin, compose_head

__all__ = ["NoProxy", "ProxyRules", "ProxyTarget", "open_tunnel"]


@attrs.frozen(kw_only=True)
class ProxyTarget:
    """One proxy.

    Attributes:
        origin: where it is.
        authorization: the value of its Proxy-Authorization header; never shown.
    """

    origin: Origin
    authorization: bytes | None = attrs.field(default=None, repr=False)

    @classmethod
    def parse(cls, field: str, value: str) -> ProxyTarget:
        """Read a proxy's URL; one without a scheme is http.

        Args:
            field: the name of the setting, for messages.
            value: `http://user:password@host:port` and the like.

        Raises:
            ConfigError: not a URL, or a proxy of a kind that we do not speak to. A password is not shown.
        """
        scheme, host, port, userinfo = _parts(field, value)
        if scheme not in ("http", "https"):
            raise ConfigError(
                f"{field} = {scheme}://{host}: must be an http:// or https:// proxy; SOCKS is not supported"
            )
        if not host:
            raise ConfigError(f"{field}: must name a host")
        authorization = None
        if userinfo:
            user, _, password = (urllib.parse.unquote_to_bytes(part) for part in userinfo.partition(":"))
            authorization = b"Basic " + base64.b64encode(user + b":" + password)
        default = 443 if scheme == "https" else 80
        return cls(origin=Origin(scheme, host, port or default), authorization=authorization)


def _parts(field: str, value: str) -> tuple[str, str, int | None, str]:
    try:
        url = httpx.URL(value if "://" in value else f"http://{value}")
        return url.scheme, url.raw_host.decode("ascii").strip("[]"), url.port, url.userinfo.decode("ascii")
    except (httpx.InvalidURL, TypeError, UnicodeError) as error:
        text = str(value)
        shown = "..." if "@" in text else repr(text)
        raise ConfigError(f"{field} = {shown}: not the URL of a proxy") from error


@attrs.frozen
class NoProxy:
    """What is reached directly, as `NO_PROXY` names it.

    An entry is a host, which also stands for what lies below it (`example.com`, `.example.com` and `*.example.com` are
    the same), an address, a network (`10.0.0.0/8`), each with a port or without, or `*` for everything.
    """

    entries: tuple[str, ...] = ()

    @classmethod
    def parse(cls, value: str) -> NoProxy:
        """Read a list with commas between its entries."""
        return cls(tuple(entry for part in value.split(",") if (entry := part.strip().lower())))

    def covers(self, origin: Origin) -> bool:
        """Tell whether an origin is reached directly."""
        return any(_matches(entry, origin) for entry in self.entries)


def _matches(entry: str, origin: Origin) -> bool:
    if entry == "*":
        return True
    address = _address(origin.host)
    name, port = _split_port(entry)
    if port is not None and port != origin.port:
        return False
    if address is not None:
        try:
            return address in ipaddress.ip_network(name, strict=False)  # an address is a network of one
        except ValueError:
            return False
    domain = name.removeprefix("*").removeprefix(".")
    host = origin.host.lower().rstrip(".")
    return bool(domain) and (host == domain or host.endswith("." + domain))


def _split_port(entry: str) -> tuple[str, int | None]:
    entry = entry.partition("://")[2] or entry  # some write a scheme; it says nothing here
    if entry.startswith("["):
        name, _, port = entry[1:].partition("]")
        port = port.removeprefix(":")
    elif entry.count(":") == 1:
        name, _, port = entry.partition(":")
    else:
        name, port = entry, ""
    return name, int(port) if port.isdecimal() else None


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _is_this_machine(host: str) -> bool:
    address = _address(host)
    return address.is_loopback if address is not None else host.lower().rstrip(".") == "localhost"


@attrs.frozen(kw_only=True)
class ProxyRules:
    """Which proxy an origin is reached through.

    Attributes:
        http: for http:// origins.
        https: for https:// origins.
        no_proxy: what is reached directly.
        spare_this_machine: whether loopback addresses are reached directly.
    """

    http: ProxyTarget | None = None
    https: ProxyTarget | None = None
    no_proxy: NoProxy = NoProxy()
    spare_this_machine: bool = True

    @classmethod
    def of(cls, target: ProxyTarget) -> ProxyRules:
        """Return the rules of a proxy that was named for everything."""
        return cls(http=target, https=target, spare_this_machine=False)

    @classmethod
    def read(cls, values: Mapping[str, str]) -> ProxyRules:
        """Read `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`; names in small letters go first.

        `HTTP_PROXY` in capitals is not read where a web server has set `REQUEST_METHOD`: there, anybody who sends a
        header named Proxy could set it.

        Raises:
            ConfigError: a proxy that cannot be used.
        """
        cgi = "REQUEST_METHOD" in values
        http = _first(values, ["http_proxy"] if cgi else ["http_proxy", "HTTP_PROXY"])
        https = _first(values, ["https_proxy", "HTTPS_PROXY"])
        everything = _first(values, ["all_proxy", "ALL_PROXY"])
        _, no_proxy = _first(values, ["no_proxy", "NO_PROXY"]) or ("", "")
        return cls(
            http=_parse(http or everything),
            https=_parse(https or everything),
            no_proxy=NoProxy.parse(no_proxy),
        )

    def choose(self, origin: Origin) -> ProxyTarget | None:
        """Return the proxy for an origin, None to reach it directly."""
        target = self.https if origin.scheme == "https" else self.http
        if target is None or self.no_proxy.covers(origin):
            return None
        return None if self.spare_this_machine and _is_this_machine(origin.host) else target


def _first(values: Mapping[str, str], names: Iterable[str]) -> tuple[str, str] | None:
    return next(((name, values[name]) for name in names if values.get(name)), None)


def _parse(named: tuple[str, str] | None) -> ProxyTarget | None:
    return None if named is None else ProxyTarget.parse(*named)


async def open_tunnel(stream: trio.abc.Stream, proxy: ProxyTarget, origin: Origin) -> None:
    """Ask a proxy to connect a stream to an origin. Checkpoints.

    Raises:
        httpx.ProxyError: it refused, or did not answer as a proxy.
    """
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    target = f"{host}:{origin.port}".encode("ascii")
    headers = [(b"Host", target)]
    if proxy.authorization is not None:
        headers.append((b"Proxy-Authorization", proxy.authorization))
    connection = Connection(stream)
    head = compose_head(origin, b"CONNECT", target, headers, None)
    try:
        response = await connection.request(b"CONNECT", head, b"")
    except httpx.TransportError as error:
        raise httpx.ProxyError(f"the proxy {proxy.origin} did not open a way to {origin}: {error}") from error
    if not 200 <= response.status < 300:
        hint = " (are its user and password right?)" if response.status == 407 else ""
        raise httpx.ProxyError(
            f"the proxy {proxy.origin} refused the way to {origin}: {response.status}{hint}"
        )
