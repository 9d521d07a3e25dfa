"""How a service is reached. The one place that reads the environment."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, TypeAlias, TypeGuard, cast

import attrs
import httpx

from tinker_actors.errors import ConfigError
from tinker_actors.protocol.capability import (
    KNOWN,
    TINKER_SERVICE,
    Capability,
    CapabilityRecord,
    TrainingBody,
)
from tinker_actors.protocol.credential import check_api_key
from tinker_actors.protocol.retry import DedupeMode
from tinker_actors.transport.credential_file import credentials_path
from tinker_actors.transport.options import Hooks
from tinker_actors.transport.proxy import ProxyRules, ProxyTarget

__all__ = [
    "TINKER_SERVICE",
    "Config",
    "Environment",
    "check_api_key",
    "check_base_url",
    "normal_url",
]

_MIB = 2**20
_LAST_PORT = 2**16 - 1


def check_base_url(field: str, value: str) -> str:
    """Return a base URL without its last slash.

    Raises:
        ConfigError: it is not an http or https URL with a host, or it has parts that could not be used. A user and a
            password in it are not shown.
    """
    try:
        url = httpx.URL(value)
    except (httpx.InvalidURL, TypeError) as error:
        shown = "..." if "@" in str(value) else repr(value)  # before an @ there may be a password
        raise ConfigError(f"{field} = {shown}: not a URL") from error
    if url.userinfo:
        shown = str(url.copy_with(userinfo=b"..."))
        raise ConfigError(
            f"{field} = {shown!r}: must not hold a user or a password; they would be shown in messages"
        )
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError(f"{field} = {value!r}: must start with http:// or https:// and name a host")
    if url.port is not None and not 0 < url.port <= _LAST_PORT:
        raise ConfigError(f"{field} = {value!r}: the port must be in 1 to {_LAST_PORT}")
    if url.query or url.fragment or any(sign.isspace() for sign in value):
        raise ConfigError(f"{field} = {value!r}: must have no query, no fragment and no spaces")
    return value.rstrip("/")


def _base_url(value: str) -> str:
    return check_base_url("base_url", value)


def _proxy(value: ProxyRules | str | None) -> ProxyRules:
    """Return the rules for a proxy that was named.

    Raises:
        ConfigError: not a proxy that we can use.
    """
    if value is None or isinstance(value, ProxyRules):
        return value or ProxyRules()
    if not isinstance(cast("object", value), str):
        raise ConfigError("proxy: must be a URL, ProxyRules or None")  # its value may hold a password
    return ProxyRules.of(ProxyTarget.parse("proxy", value))


def normal_url(base_url: str) -> str:
    """Return a base URL as it is compared: lower-case scheme and host, no default port, no last slash."""
    lower = str(httpx.URL(base_url))  # httpx knows the default port of a scheme in lower case only
    return str(httpx.URL(lower)).rstrip("/")


@attrs.frozen(kw_only=True)
class Config:
    """How a service is reached and used.

    Attributes:
        base_url: where it is.
        api_key: the secret; never shown.
        credential_command: a command for the shell that prints a key, where there is none, or where the service wants
            it; never shown.
        project_id: the project that the session belongs to.
        capability: what the service can do: a record, or the name of a known service; None goes by the URL and by what
            the service says of itself.
        dedupe: what the service does with a repeated number; None takes what the service says of itself.
        training_body: the form gradient requests go out in; None goes by the service.
        session_timeout: seconds that the service lets a session live without a beat; None takes what it says of
            itself. A run that stood still for longer than 0.8 of it, or of 300 s if nobody knows, is restored.
        noise: how far log probabilities are apart, in the mean, between two runs on the service that should be the
            same; a run that compares results with earlier ones allows for it. None is 0: it computes the same twice.
        check_optimizer: in a run, where no earlier result tells whether a restored model got its optimizer, find out
            by taking a step without it on a second model, which takes a slot of the service for some moments.
        telemetry: send telemetry; None means: only to the embedded service and to the Tinker service.
        user_metadata: stored with the session.
        tags: stored with the session.
        heartbeat: beat from a thread of its own, or from the loop (for virtual time).
        heartbeat_period: seconds between beats.
        heartbeat_warn_after: seconds without a beat after which a warning is given.
        max_block: seconds the loop may stand still before the beats stop.
        connect_timeout: seconds to open a connection.
        max_samples: samples in flight at once; fewer if the service says so.
        sampling_actors: actors that share them.
        promise_timeout: seconds to wait for the result of one request; None waits for as long as it takes, but for
            services that are known to put off for ever what they have forgotten (`CapabilityRecord.patience`).
        batch_polls: wait for all samples of a sampling session by one poll; None goes by the service.
        replay_bytes: bytes of batches kept for a restore since the last checkpoint.
        outage_timeout: seconds a service may be out of reach before what waits for it fails; None waits as long as it
            takes.
        grace: seconds the work under way gets when the service is left early.
        headers: sent with every request, in place of ours of the same name; never shown.
        query: sent with every request.
        timeout: seconds for a whole exchange, where the endpoint sets no time of its own; None is no limit.
        max_retries: further attempts of a call, where the endpoint has no number of its own.
        strict: refuse answers with fields we do not know; off, they are ignored.
        pool: our own connections, or those of httpx.
        proxy: a proxy for everything (`http://host:port`), or rules that choose one; None goes without. Never shown.
        ssl_context: whom to trust; None trusts the usual authorities.
        hooks: functions that see each attempt before it is sent; for heartbeats, in the heartbeat's thread.
        auth: a way of httpx's to authenticate, beside the key; never shown. Used in the heartbeat's thread as well.

    Raises:
        ConfigError: what is no URL, or a setting of another type or out of its range.
    """

    base_url: str = attrs.field(converter=_base_url)
    api_key: str | None = attrs.field(default=None, repr=False)
    credential_command: str | None = attrs.field(default=None, repr=False)
    project_id: str | None = None
    capability: Capability | None = None
    dedupe: DedupeMode | None = None
    training_body: TrainingBody | None = None
    session_timeout: float | None = None
    noise: float | None = None
    check_optimizer: bool = True
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
    promise_timeout: float | None = None
    batch_polls: bool | None = None
    replay_bytes: int = 256 * _MIB
    outage_timeout: float | None = None
    grace: float = 30.0
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    query: Mapping[str, object] = attrs.field(factory=dict)
    timeout: float | None = 60.0
    max_retries: int = 10
    strict: bool = False
    pool: Literal["own", "stock"] = "own"
    proxy: ProxyRules = attrs.field(default=None, converter=_proxy, repr=False)
    ssl_context: ssl.SSLContext | None = attrs.field(default=None, repr=False)
    hooks: Hooks | None = None
    auth: httpx.Auth | None = attrs.field(default=None, repr=False)

    def __attrs_post_init__(self) -> None:
        for name, (good, why) in _RULES.items():
            value = getattr(self, name)
            if not good(value):
                raise ConfigError(f"{name} = {value!r}: must be {why}")
        if self.credential_command is not None and not _is_text(
            self.credential_command
        ):  # it may hold a secret
            raise ConfigError("credential_command: must be a command for the shell, or None")
        if not _is_metadata(self.headers):  # the values may be secrets, so they are not shown
            raise ConfigError("headers: must be a mapping of strings to strings")


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_tags(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(tag, str) for tag in value)


def _is_metadata(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(part, str) for pair in value.items() for part in pair
    )


_Rule: TypeAlias = tuple[Callable[[object], bool], str]
_ABOVE_0: _Rule = (lambda value: _is_number(value) and value > 0, "a number of seconds above 0")
_COUNT: _Rule = (_is_count, "an integer, at least 1")
_RULES: Mapping[str, _Rule] = {
    "project_id": (lambda value: value is None or _is_text(value), "a text that is not empty, or None"),
    "capability": (
        lambda value: value is None or isinstance(value, CapabilityRecord) or value in tuple(KNOWN),
        f"a CapabilityRecord, None, or one of {', '.join(KNOWN)}",
    ),
    "dedupe": (
        lambda value: value in (None, "replay", "reject", "none"),
        "'replay', 'reject', 'none' or None",
    ),
    "training_body": (lambda value: value in (None, "json", "protobuf"), "'json', 'protobuf' or None"),
    "session_timeout": (
        lambda value: value is None or (_is_number(value) and value > 0),
        "a number of seconds above 0, or None",
    ),
    "noise": (
        lambda value: value is None or (_is_number(value) and 0 <= value < 1),
        "a number from 0 to below 1, or None",
    ),
    "check_optimizer": (lambda value: isinstance(value, bool), "True or False"),
    "telemetry": (lambda value: value is None or isinstance(value, bool), "True, False or None"),
    "user_metadata": (_is_metadata, "a mapping of strings to strings"),
    "tags": (_is_tags, "a list of strings"),
    "heartbeat": (lambda value: value in ("thread", "loop"), "'thread' or 'loop'"),
    "heartbeat_period": _ABOVE_0,
    "heartbeat_warn_after": _ABOVE_0,
    "max_block": _ABOVE_0,
    "connect_timeout": _ABOVE_0,
    "max_samples": _COUNT,
    "sampling_actors": _COUNT,
    "promise_timeout": (
        lambda value: value is None or (_is_number(value) and value > 0),
        "a number of seconds above 0, or None",
    ),
    "batch_polls": (lambda value: value is None or isinstance(value, bool), "True, False or None"),
    "replay_bytes": (lambda value: _is_count(value) or value == 0, "an integer that is not negative"),
    "outage_timeout": (
        lambda value: value is None or (_is_number(value) and value >= 0),
        "a number of seconds, at least 0, or None",
    ),
    "grace": (lambda value: _is_number(value) and value >= 0, "a number of seconds, at least 0"),
    "query": (lambda value: isinstance(value, Mapping), "a mapping"),
    "timeout": (
        lambda value: value is None or (_is_number(value) and value > 0),
        "a number of seconds above 0, or None for no limit",
    ),
    "max_retries": (
        lambda value: (value == 0 and value is not False) or _is_count(value),
        "an integer that is not negative",
    ),
    "strict": (lambda value: isinstance(value, bool), "True or False"),
    "pool": (lambda value: value in ("own", "stock"), "'own' or 'stock'"),
    "ssl_context": (
        lambda value: value is None or isinstance(value, ssl.SSLContext),
        "an ssl.SSLContext or None",
    ),
    "hooks": (lambda value: value is None or isinstance(value, Hooks), "Hooks or None"),
    "auth": (lambda value: value is None or isinstance(value, httpx.Auth), "an httpx.Auth or None"),
}


# tinker 0.38.0 lib/telemetry.py
_YES = frozenset({"1", "true", "yes", "on"})


@attrs.frozen(kw_only=True)
class Environment:
    """What the environment says; empty counts as unset.

    Attributes:
        base_url: `TINKER_BASE_URL`.
        api_key: `TINKER_API_KEY`.
        embedded: `TINKER_ACTORS_EMBEDDED`.
        credential_command: `TINKER_CREDENTIAL_CMD`.
        project_id: `TINKER_PROJECT_ID`.
        tags: `TINKER_TAGS`, cut at commas.
        telemetry: `TINKER_TELEMETRY`; None if it is not set.
        access: the headers that `CLOUDFLARE_ACCESS_CLIENT_ID` and `CLOUDFLARE_ACCESS_CLIENT_SECRET` stand for.
        credentials_path: where keys are stored.
    """

    base_url: str | None = None
    api_key: str | None = attrs.field(default=None, repr=False)
    embedded: str | None = None
    credential_command: str | None = attrs.field(default=None, repr=False)
    project_id: str | None = None
    tags: tuple[str, ...] = ()
    telemetry: bool | None = None
    access: Mapping[str, str] = attrs.field(factory=dict[str, str], repr=False)
    credentials_path: Path | None = None

    @classmethod
    def read(cls, values: Mapping[str, str]) -> Environment:
        """Read the variables; nothing else in the package reads any."""
        telemetry = values.get("TINKER_TELEMETRY") or None
        tags = (tag.strip() for tag in values.get("TINKER_TAGS", "").split(","))
        access = {
            "CF-Access-Client-Id": values.get("CLOUDFLARE_ACCESS_CLIENT_ID"),
            "CF-Access-Client-Secret": values.get("CLOUDFLARE_ACCESS_CLIENT_SECRET"),
        }
        return cls(
            base_url=values.get("TINKER_BASE_URL") or None,
            api_key=values.get("TINKER_API_KEY") or None,
            embedded=values.get("TINKER_ACTORS_EMBEDDED") or None,
            credential_command=values.get("TINKER_CREDENTIAL_CMD") or None,
            project_id=values.get("TINKER_PROJECT_ID") or None,
            tags=tuple(tag for tag in tags if tag),
            telemetry=None if telemetry is None else telemetry.lower() in _YES,
            access={name: value for name, value in access.items() if value},
            credentials_path=credentials_path(values),
        )
