"""How a service is reached. The one place that reads the environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import attrs
import httpx

from tinker_actors.errors import ConfigError, InputError
from tinker_actors.protocol.retry import DedupeMode
from tinker_actors.version import __version__

__all__ = ["TINKER_SERVICE", "Config", "Environment", "check_api_key", "check_base_url", "request_headers"]

TINKER_SERVICE = "https://tinker.thinkingmachines.dev/services/tinker-prod"  # tinker 0.38.0 lib/base_url.py

_MIB = 2**20


def check_base_url(field: str, value: str) -> str:
    """Return a base URL without its last slash.

    Raises:
        ConfigError: it is not an http or https URL with a host.
    """
    try:
        url = httpx.URL(value)
    except (httpx.InvalidURL, TypeError) as error:
        raise ConfigError(f"{field} = {value!r}: not a URL") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError(f"{field} = {value!r}: must start with http:// or https:// and name a host")
    return value.rstrip("/")


def check_api_key(field: str, value: str) -> str:
    """Return an API key.

    Raises:
        InputError: it does not look like one. The key itself is not shown.
    """
    if not value.startswith(("tml-", "eyJ")) or not value.isascii() or any(c.isspace() for c in value):
        masked = f"{value[:4]}… ({len(value)} characters)" if len(value) > 8 else f"({len(value)} characters)"
        raise InputError(
            field, masked, "an API key starts with 'tml-', a token with 'eyJ'; neither has spaces"
        )
    return value


@attrs.frozen(kw_only=True)
class Config:
    """How a service is reached and used.

    Attributes:
        base_url: where it is.
        api_key: the secret; never shown.
        dedupe: what the service does with a repeated number; None takes what the service says of itself.
        telemetry: send telemetry; None means: only to the embedded service and to the Tinker service.
        user_metadata: stored with the session.
        tags: stored with the session.
        heartbeat: beat from a thread of its own, or from the loop (for virtual time).
        heartbeat_period: seconds between beats.
        heartbeat_warn_after: seconds without a beat after which a warning is given.
        max_block: seconds the loop may stand still before the beats stop.
        connect_timeout: seconds to open a connection.
        max_samples: samples in flight at once.
        sampling_actors: actors that share them.
        replay_bytes: bytes of batches kept for a restore since the last checkpoint.
        grace: seconds the work under way gets when the service is left early.
    """

    base_url: str
    api_key: str | None = attrs.field(default=None, repr=False)
    dedupe: DedupeMode | None = None
    telemetry: bool | None = None
    user_metadata: Mapping[str, str] = attrs.field(factory=dict)
    tags: tuple[str, ...] = ()
    heartbeat: Literal["thread", "loop"] = "thread"
    heartbeat_period: float = 10.0
    heartbeat_warn_after: float = 120.0
    max_block: float = 900.0
    connect_timeout: float = 5.0
    max_samples: int = 400
    sampling_actors: int = 8
    replay_bytes: int = 256 * _MIB
    grace: float = 30.0


@attrs.frozen(kw_only=True)
class Environment:
    """What the environment says; empty counts as unset."""

    base_url: str | None
    api_key: str | None = attrs.field(repr=False)
    embedded: str | None

    @classmethod
    def read(cls, values: Mapping[str, str]) -> Environment:
        """Read `TINKER_BASE_URL`, `TINKER_API_KEY` and `TINKER_ACTORS_EMBEDDED`."""
        return cls(
            base_url=values.get("TINKER_BASE_URL") or None,
            api_key=values.get("TINKER_API_KEY") or None,
            embedded=values.get("TINKER_ACTORS_EMBEDDED") or None,
        )


def request_headers(config: Config) -> dict[str, str]:
    """Return the headers that every request carries."""
    headers = {
        "accept": "application/json",
        "user-agent": f"tinker_actors/{__version__}",
    }
    if config.api_key is not None:
        headers["x-api-key"] = config.api_key
    return headers
