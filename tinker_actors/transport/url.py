"""Where a request goes: what is relative goes below the base URL, what is absolute goes where it says."""

from __future__ import annotations

import re

import attrs
import httpx

from tinker_actors.errors import InputError
from tinker_actors.transport.head import Origin

__all__ = ["Place", "Places"]

_PORTS = {"http": 80, "https": 443}
_ABSOLUTE = re.compile("[a-zA-Z][a-zA-Z0-9+.-]*://")  # ids have colons as well


@attrs.frozen
class Place:
    """Where one request goes.

    Attributes:
        origin: scheme, host and port.
        host: what the `host` header says.
        target: path and query, as they are written.
        ours: it is the origin of the base URL, which may see our key.
        sni: the name to ask for in TLS, where the host cannot be it.
    """

    origin: Origin
    host: str
    target: bytes
    ours: bool = True
    sni: str | None = None

    @property
    def url(self) -> httpx.URL:
        """The same as one URL."""
        port = None if self.origin.port == _PORTS[self.origin.scheme] else self.origin.port
        return httpx.URL(scheme=self.origin.scheme, host=self.origin.host, port=port, raw_path=self.target)


class Places:
    """The places below and beside one base URL.

    Args:
        base_url: what `check_base_url` has let through.

    Attributes:
        base_url: with a slash at its end.
    """

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url.rstrip("/") + "/"
        url = httpx.URL(self.base_url)
        self._root = _place(url, url.raw_path, ours=True)
        self._prefix = url.raw_path  # ends with a slash

    def below(self, target: str, query: str = "") -> Place:
        """Return the place of a target that is already escaped, below the base URL."""
        tail = f"{target.lstrip('/')}?{query}" if query else target.lstrip("/")
        return attrs.evolve(self._root, target=self._prefix + tail.encode("ascii"))

    def find(self, url: str, query: str = "") -> Place:
        """Return the place a caller names.

        Args:
            url: relative, with or without a slash before it; or absolute.
            query: added to what the URL has already.

        Raises:
            InputError: not a URL, or not one of HTTP.
        """
        absolute = _ABSOLUTE.match(url) is not None
        try:
            parsed = httpx.URL(url if absolute else self.base_url + url.lstrip("/"))
        except httpx.InvalidURL as error:
            raise InputError("url", url, "is not a URL") from error
        if parsed.scheme not in _PORTS or not parsed.host:
            raise InputError(
                "url", url, "must be relative, or start with http:// or https:// and name a host"
            )
        target = parsed.raw_path
        if query:
            target += (b"&" if parsed.query else b"?") + query.encode("ascii")
        if not absolute:
            return attrs.evolve(self._root, target=target)
        return _place(parsed, target, ours=Origin.of(parsed) == self._root.origin)


def _place(url: httpx.URL, target: bytes, *, ours: bool) -> Place:
    # tinker 0.38.0 _base_client.py: many TLS servers and all certificates refuse a name with an underscore.
    sni = url.host.replace("_", "-") if "_" in url.host else None
    return Place(Origin.of(url), url.netloc.decode("ascii"), target, ours, sni)
