"""Who says who we are: what an `HttpTransport` needs of credentials, and a key that never changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

__all__ = ["Authority", "KeyOnly"]


class Authority(Protocol):
    """Says who we are."""

    @property
    def ready(self) -> Mapping[str, str] | None:
        """The headers that say it, if they are at hand and good for as long as one likes; else None."""
        ...

    async def headers(self) -> Mapping[str, str]:
        """Return the headers that say it."""
        ...

    async def rejected(self, sent: Mapping[str, str]) -> bool:
        """Take into account that the service refused these headers; return whether there are others now."""
        ...

    def learn(self, *, exchange: bool, command: bool = False) -> None:
        """Take into account what the service says of its keys; see `Credentials`."""
        ...

    @property
    def latest(self) -> Mapping[str, str]:
        """The headers that went out last."""
        ...


class KeyOnly:
    """A key that is what it is. Nothing here waits."""

    def __init__(self, api_key: str | None) -> None:
        self._headers = {} if api_key is None else {"x-api-key": api_key}

    @property
    def ready(self) -> Mapping[str, str]:
        """The key's header."""
        return self._headers

    async def headers(self) -> Mapping[str, str]:
        """Return the key's header."""
        return self._headers

    async def rejected(self, sent: Mapping[str, str]) -> bool:  # noqa: ARG002 - there is no other
        """Return that there is no other."""
        return False

    def learn(self, *, exchange: bool, command: bool = False) -> None:
        """Stay as it is."""

    @property
    def latest(self) -> Mapping[str, str]:
        """The key's header."""
        return self._headers
