"""One request as it goes out, whichever way it takes."""

from __future__ import annotations

import attrs
import httpx

from tinker_actors.transport.head import end_head
from tinker_actors.transport.headers import RawHeaders, shown_headers
from tinker_actors.transport.url import Place

__all__ = ["WireRequest"]


@attrs.frozen
class WireRequest:
    """A request, finished.

    Attributes:
        method: in capitals.
        place: where it goes.
        headers: in the order to write them, Host and the length of the body among them.
        body: its bytes.
        timeout: seconds for the whole exchange; None is no limit.
        begun: the begin of its head, as bytes, that it shares with others; None if nobody has made it.
        shared: how many of the headers are in it.
    """

    method: str
    place: Place
    headers: RawHeaders = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)
    timeout: float | None
    begun: bytes | None = attrs.field(default=None, repr=False)
    shared: int = 0

    def head(self) -> bytes | None:
        """Return its whole head as bytes, if its begin is there."""
        return None if self.begun is None else end_head(self.begun, self.headers[self.shared :])

    def as_httpx(self, connect_timeout: float) -> httpx.Request:
        """Return it as httpx's object, with nothing added.

        Args:
            connect_timeout: seconds to open a connection.
        """
        timeouts = {
            "connect": connect_timeout,
            "read": self.timeout,
            "write": self.timeout,
            "pool": self.timeout,
        }
        extensions: dict[str, object] = {"timeout": timeouts}
        if self.place.sni is not None:
            extensions["sni_hostname"] = self.place.sni
        return httpx.Request(
            self.method,
            self.place.url,
            headers=self.headers,
            content=self.body or None,
            extensions=extensions,
        )

    def shown(self) -> httpx.Request:
        """Return it as it may be shown: secrets are masked."""
        return httpx.Request(
            self.method, self.place.url, headers=shown_headers(self.headers), content=self.body or None
        )
