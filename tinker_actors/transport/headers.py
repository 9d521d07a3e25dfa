"""Which headers a request carries.

Layers lie over each other, the later over the earlier, without regard to case:

    defaults < platform < credentials < the client's own < those of the call

What changes with every send (the idempotency key, the number of the attempt, the length of the body) comes after
them, so that everything before can be made once and kept. A layer above may set the first two itself.
"""

from __future__ import annotations

import functools
import platform
import random
import sys
from collections.abc import Mapping
from typing import TypeAlias

import attrs

from tinker_actors.errors import InputError
from tinker_actors.transport.options import Omit
from tinker_actors.version import __version__

__all__ = [
    "FOREIGN",
    "IDEMPOTENCY",
    "RETRY_COUNT",
    "HeaderPlan",
    "RawHeaders",
    "default_headers",
    "idempotency_key",
    "merge_headers",
    "platform_headers",
    "secrets_in",
    "shown_headers",
    "without_secrets",
]

RawHeaders: TypeAlias = list[tuple[bytes, bytes]]

IDEMPOTENCY = "x-idempotency-key"
RETRY_COUNT = "x-stainless-retry-count"
_SECRET = frozenset(
    {
        b"x-api-key",
        b"authorization",
        b"proxy-authorization",
        b"cookie",
        b"set-cookie",
        b"cf-access-client-secret",
        b"x-tinker-weights-access-token",
    }
)
_SHORTEST_SECRET = 6  # characters
# What may go to another origin: it says nothing about who we are.
FOREIGN = frozenset(
    {"accept", "accept-encoding", "user-agent", "content-type", "content-encoding", "range", "if-range"}
)
_FRAMING = frozenset({"content-length", "transfer-encoding"})  # of the connection, not of the caller


def default_headers(accept: str, encodings: str) -> dict[str, str]:
    """Return the layer below all others, but for what describes a body."""
    return {"accept": accept, "accept-encoding": encodings, "user-agent": f"tinker_actors/{__version__}"}


@functools.cache
def platform_headers() -> Mapping[str, str]:
    """Return what the service is told about where we run. Names and words: tinker 0.38.0 _base_client.py."""
    return {
        "x-stainless-package-version": __version__,
        "x-stainless-os": _system(platform.system()),
        "x-stainless-arch": _architecture(platform.machine()),
        "x-stainless-runtime": platform.python_implementation(),
        "x-stainless-runtime-version": platform.python_version(),
        "x-stainless-async": "async:trio",
    }


def _system(name: str) -> str:
    return {"Darwin": "MacOS", "": "Unknown"}.get(name, name)


def _architecture(name: str) -> str:
    known = {
        "x86_64": "x64",
        "amd64": "x64",
        "aarch64": "arm64",
        "arm64": "arm64",
        "arm": "arm",
        "": "unknown",
    }
    machine = name.lower()
    if machine in known:
        return known[machine]
    return f"other:{machine}" if sys.maxsize > 2**32 else "x32"


def idempotency_key(rng: random.Random) -> str:
    """Draw the key that all attempts of one call carry."""
    drawn = f"{rng.getrandbits(128):032x}"
    # A random UUID (RFC 9562, 5.4), written here because the class of that name takes five times as long.
    variant = "89ab"[int(drawn[16], 16) & 3]
    return (
        f"tinker-actors-retry-{drawn[:8]}-{drawn[8:12]}-4{drawn[13:16]}-{variant}{drawn[17:20]}-{drawn[20:]}"
    )


def merge_headers(*layers: Mapping[str, str | Omit]) -> dict[str, str]:
    """Lay layers over each other; names become lower case, and `OMIT` takes one away.

    Raises:
        InputError: a name or a value that HTTP cannot carry. The value is not shown.
    """
    merged: dict[str, str] = {}
    for layer in layers:
        for name, value in layer.items():
            lower = name.lower()
            if isinstance(value, Omit):
                merged.pop(lower, None)
            elif lower not in _FRAMING:
                merged[lower] = _checked(lower, value)
    return merged


def _checked(name: str, value: str) -> str:
    if not name.isascii() or not name or any(sign in _NOT_IN_NAMES or ord(sign) < 33 for sign in name):
        raise InputError(f"headers[{name!r}]", name, "is not the name of a header")
    if not value.isascii() or not (value.isprintable() or value.replace("\t", "").isprintable()):
        raise InputError(
            f"headers[{name!r}]", f"({len(value)} characters)", "must be printable ASCII on one line"
        )
    return value.strip()


_NOT_IN_NAMES = frozenset('()<>@,;:\\"/[]?={}\x7f')


@attrs.frozen(eq=False)
class HeaderPlan:
    """The headers of one kind of request, but for what changes with every send.

    Attributes:
        fixed: what goes out each time.
        keyed: a key is to be drawn for each call.
        counted: the number of the attempt is to be told.
    """

    fixed: tuple[tuple[bytes, bytes], ...]
    keyed: bool
    counted: bool

    @classmethod
    def of(cls, host: str, layers: Mapping[str, str], *, keyed: bool, counted: bool) -> HeaderPlan:
        """Make a plan of merged layers; the host goes first, unless a layer names one."""
        ordered = {"host": host, **layers}
        fixed = tuple((name.encode("ascii"), value.encode("ascii")) for name, value in ordered.items())
        return cls(fixed, keyed and IDEMPOTENCY not in layers, counted and RETRY_COUNT not in layers)

    def headers(self, key: bytes | None, attempt: int, length: int | None) -> RawHeaders:
        """Return the headers of one send.

        Args:
            key: of the call; None sends none.
            attempt: 0 for the first.
            length: of the body; None where the method has none.
        """
        headers = [*self.fixed]
        if key is not None and self.keyed:
            headers.append((b"x-idempotency-key", key))
        if self.counted:
            headers.append((b"x-stainless-retry-count", b"%d" % attempt))
        if length is not None:
            headers.append((b"content-length", b"%d" % length))
        return headers


def secrets_in(headers: RawHeaders) -> list[str]:
    """Return the values of headers that are secrets; of `authorization` what follows the scheme."""
    values = [
        value.decode("latin-1").rpartition(" ")[2] for name, value in headers if name.lower() in _SECRET
    ]
    return [
        value for value in values if len(value) >= _SHORTEST_SECRET
    ]  # or every second word would be masked


def without_secrets(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers but for those that are secrets."""
    return {name: value for name, value in headers.items() if name.lower().encode() not in _SECRET}


def shown_headers(headers: RawHeaders) -> RawHeaders:
    """Return headers as they may be shown: secrets are masked."""
    return [(name, b"***" if name.lower() in _SECRET else value) for name, value in headers]
