"""`open_service` and its like: choose the backend, start it if it is the embedded one, and yield the client.

Which backend: an explicit argument; else a base URL (argument, then `TINKER_BASE_URL`); else a key, or a command that
prints one (arguments, then `TINKER_API_KEY`, then `TINKER_CREDENTIAL_CMD`), means the Tinker service; else the embedded
one. `TINKER_ACTORS_EMBEDDED=never` forbids the embedded one. One line on stderr says which was chosen and why.

Keys that are stored in the user's home go to the Tinker service only, and do not choose it by themselves: nobody finds
a programme on a paid service because of a file.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import random
import ssl
import sys
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Literal, NoReturn, TypedDict, Unpack

import attrs
import httpx

from tinker_actors.actors.admin import AdminClient
from tinker_actors.actors.rest import RestClient
from tinker_actors.actors.service_client import ServiceClient, open_client
from tinker_actors.errors import ConfigError
from tinker_actors.protocol.capability import TINKER_SERVICE, Capability, TrainingBody, record_for
from tinker_actors.protocol.credential import Credential, Secret, choose_credential
from tinker_actors.protocol.retry import DedupeMode
from tinker_actors.transport.config import (
    Config,
    Environment,
    check_base_url,
)
from tinker_actors.transport.credential_file import load_credentials
from tinker_actors.transport.http import HttpTransport, open_transport
from tinker_actors.transport.inprocess import InProcessTransport
from tinker_actors.transport.options import Hooks
from tinker_actors.transport.proxy import ProxyRules
from tinker_actors.transport.tls import Trust, make_ssl_context

if TYPE_CHECKING:
    from tinker_actors.local.service import EmbeddedService

__all__ = [
    "Backend",
    "Settings",
    "choose_backend",
    "open_admin_client",
    "open_rest_client",
    "open_service",
]

_EMBEDDED_URL = "http://embedded"


class Settings(TypedDict, total=False):
    """The settings of `Config` that `open_service` takes by name."""

    credential_command: str | None
    project_id: str | None
    capability: Capability | None
    dedupe: DedupeMode | None
    training_body: TrainingBody | None
    telemetry: bool | None
    user_metadata: Mapping[str, str]
    tags: tuple[str, ...]
    heartbeat: Literal["thread", "loop"]
    heartbeat_period: float
    heartbeat_warn_after: float
    max_block: float
    connect_timeout: float
    max_samples: int
    sampling_actors: int
    promise_timeout: float | None
    batch_polls: bool | None
    replay_bytes: int
    outage_timeout: float | None
    grace: float
    headers: Mapping[str, str]
    query: Mapping[str, object]
    timeout: float | None
    max_retries: int
    strict: bool
    pool: Literal["own", "stock"]
    proxy: ProxyRules | str | None
    ssl_context: ssl.SSLContext | None
    hooks: Hooks | None
    auth: httpx.Auth | None


@attrs.frozen
class Backend:
    """What was chosen.

    Attributes:
        base_url: where it is; None is the embedded service.
        api_key: the secret.
        why: the reason, for the user.
        credential_command: prints the secret.
    """

    base_url: str | None
    api_key: str | None = attrs.field(repr=False)
    why: str
    credential_command: str | None = attrs.field(default=None, repr=False)

    @property
    def line(self) -> str:
        """One line that says which backend it is and why."""
        what = "the embedded service" if self.base_url is None else self.base_url
        return f"tinker_actors: using {what}, because {self.why}"


def choose_backend(
    backend: str | None,
    base_url: str | None,
    api_key: str | None,
    environment: Environment,
    command: str | None = None,
) -> Backend:
    """Choose the backend; see the module.

    Args:
        backend: `local`, `tinker`, or a base URL.
        base_url: where the service is.
        api_key: the key for it.
        environment: what the environment says.
        command: prints the key.

    Raises:
        ConfigError: arguments that contradict each other, what is no URL, or no backend at all.
        InputError: a key that does not look like one.
        CredentialError: the stored keys cannot be read.
    """
    if backend is not None and base_url is not None:
        raise ConfigError(f"backend = {backend!r} and base_url = {base_url!r}: give one of them")
    if backend == "local":
        return _embedded("backend='local' was given", environment)
    credential = choose_credential(
        argument=api_key,
        variable=None if command else environment.api_key,  # an argument wins over the environment
        command=command or environment.credential_command,
        command_origin="credential_command" if command else "TINKER_CREDENTIAL_CMD",
    )
    if backend is not None and backend != "tinker" and "://" not in str(backend):
        _refuse_backend(backend)
    for name, url in (
        ("backend", TINKER_SERVICE if backend == "tinker" else backend),
        ("base_url", base_url),
        ("TINKER_BASE_URL", environment.base_url),
    ):
        if url is not None:
            return _remote(check_base_url(name, url), f"{name} is set", credential, command, environment)
    if credential is not None:
        return _remote(TINKER_SERVICE, f"{credential.origin} is set", credential, command, environment)
    return _embedded("neither TINKER_BASE_URL nor TINKER_API_KEY is set", environment)


def _refuse_backend(backend: object) -> NoReturn:
    if str(backend).startswith(("tml-", "eyJ")):  # it is not shown
        raise ConfigError("backend: a key is given as api_key")
    raise ConfigError(f"backend = {backend!r}: must be 'local', 'tinker' or a URL")


def _remote(
    url: str, why: str, credential: Credential | None, command: str | None, environment: Environment
) -> Backend:
    if (
        credential is None
        and record_for(url).service == "tinker"
        and environment.credentials_path is not None
    ):
        stored = load_credentials(environment.credentials_path).default_key
        credential = choose_credential(stored=stored)
    key = credential.value if isinstance(credential, Secret) else None
    return Backend(url, key, why, command or environment.credential_command)


def _embedded(why: str, environment: Environment) -> Backend:
    if environment.embedded == "never":
        raise ConfigError(f"TINKER_ACTORS_EMBEDDED = 'never' forbids the embedded service, yet {why}")
    if environment.embedded is not None:
        raise ConfigError(
            f"TINKER_ACTORS_EMBEDDED = {environment.embedded!r}: the only value it takes is 'never'"
        )
    return Backend(None, None, why)


@contextlib.asynccontextmanager
async def open_service(
    backend: str | None = None,
    *,
    base_url: str | None = None,
    api_key: str | None = None,
    seed: int | None = None,
    embedded: EmbeddedService | None = None,
    **settings: Unpack[Settings],
) -> AsyncIterator[ServiceClient]:
    """Open a Tinker service; leaving it means that everything it started has ended.

    If the body returns, everything that was put in line runs to its end first. If it raises or is cancelled,
    what has not begun is refused with `ServiceClosing`, what was sent is waited for up to `grace` seconds, and
    the body's own exception leaves as it is.

    Args:
        backend: `"local"` for the embedded service, `"tinker"` for the Tinker service, or a base URL; None chooses,
            see the module.
        base_url: where the service is.
        api_key: the key for it.
        seed: makes delays and drawn seeds repeatable.
        embedded: the embedded service to use, made by the caller; only with `backend="local"` or none.
        **settings: as the attributes of `tinker_actors.Config`, such as `outage_timeout=600` or `telemetry=False`.

    Raises:
        ConfigError: arguments that contradict each other, or no backend.
        InputError: a key that does not look like one.
        TypeError: a setting that does not exist; the message names one that is spelt alike.
        APIConnectionError: the service cannot be reached; the message names the URL.
        TinkerError: the service refused.
        UnobservedFailure: the body returned, and an operation had failed that nobody awaited.
    """
    _check_names("open_service", settings)
    chosen, settings = _choose(backend, base_url, api_key, embedded, settings)
    rng = random.Random(seed)
    opened = (
        _open_remote(chosen, rng, settings)
        if chosen.base_url is not None
        else _open_embedded(embedded, chosen, rng, settings)
    )
    async with opened as client:
        yield client


@contextlib.asynccontextmanager
async def open_rest_client(
    backend: str | None = None,
    *,
    base_url: str | None = None,
    api_key: str | None = None,
    seed: int | None = None,
    embedded: EmbeddedService | None = None,
    **settings: Unpack[Settings],
) -> AsyncIterator[RestClient]:
    """Open a client of what is kept on a service, without a session; leaving it closes its connections.

    Nothing is sent before its first call. Arguments and errors: as `open_service`, which has one as `service.rest`.
    The embedded service keeps what lies in the directory of its store, and nothing else when it has ended.
    """
    _check_names("open_rest_client", settings)
    chosen, settings = _choose(backend, base_url, api_key, embedded, settings)
    async with _open_transport(chosen, random.Random(seed), embedded, settings) as transport:
        yield RestClient(transport)


@contextlib.asynccontextmanager
async def open_admin_client(
    backend: str | None = None,
    *,
    base_url: str | None = None,
    api_key: str | None = None,
    seed: int | None = None,
    embedded: EmbeddedService | None = None,
    **settings: Unpack[Settings],
) -> AsyncIterator[AdminClient]:
    """Open a client for administrators, without a session; leaving it closes its connections.

    Nothing is sent before its first call. Arguments and errors: as `open_service`, which has one as `service.admin`.
    """
    _check_names("open_admin_client", settings)
    chosen, settings = _choose(backend, base_url, api_key, embedded, settings)
    async with _open_transport(chosen, random.Random(seed), embedded, settings) as transport:
        yield AdminClient(transport)


def _choose(
    backend: str | None,
    base_url: str | None,
    api_key: str | None,
    embedded: EmbeddedService | None,
    settings: Settings,
) -> tuple[Backend, Settings]:
    """Choose the backend, say so on stderr, and return it with all settings for it."""
    environment = Environment.read(os.environ)
    chosen = choose_backend(
        "local" if embedded is not None and backend is None and base_url is None else backend,
        base_url,
        api_key,
        environment,
        settings.pop("credential_command", None),
    )
    if embedded is not None and chosen.base_url is not None:
        raise ConfigError(f"embedded was given, but the backend is {chosen.base_url!r}")
    sys.stderr.write(chosen.line + "\n")
    if chosen.base_url is None:
        return chosen, _common_settings(environment) | settings
    return chosen, _remote_settings(environment, settings)


def _check_names(function: str, settings: Settings) -> None:
    """Refuse a setting that is none in the words of Python, and say which one may have been meant."""
    for name in settings:
        if name not in Settings.__annotations__:
            near = difflib.get_close_matches(name, Settings.__annotations__, n=1)
            meant = f"; did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}{meant}")


def _common_settings(environment: Environment) -> Settings:
    """Return what the environment says for any backend."""
    common: Settings = {}
    if environment.tags:
        common["tags"] = environment.tags
    if environment.telemetry is not None:
        common["telemetry"] = environment.telemetry
    return common


def _remote_settings(environment: Environment, settings: Settings) -> Settings:
    """Return the settings of a remote backend: what the environment says, and over it what was given."""
    merged = _common_settings(environment) | settings
    if environment.project_id is not None and "project_id" not in settings:
        merged["project_id"] = environment.project_id
    if environment.access:
        merged["headers"] = {**environment.access, **settings.get("headers", {})}
    return merged


def _remote_config(chosen: Backend, settings: Settings) -> Config:
    # Read here, as everything of the environment is: when the configuration is made, and only if nothing was given.
    if settings.get("proxy") is None:
        settings["proxy"] = ProxyRules.read(os.environ)
    if settings.get("ssl_context") is None:
        settings["ssl_context"] = make_ssl_context(Trust.read(os.environ))
    return Config(base_url=chosen.base_url or "", api_key=chosen.api_key, **settings)


def _embedded_service(embedded: EmbeddedService | None, rng: random.Random) -> EmbeddedService:
    from tinker_actors.local.service import (
        EmbeddedService,
    )  # numpy and the model load only when they are used

    return EmbeddedService(seed=rng.getrandbits(31)) if embedded is None else embedded


@contextlib.asynccontextmanager
async def _open_transport(
    chosen: Backend, rng: random.Random, embedded: EmbeddedService | None, settings: Settings
) -> AsyncIterator[HttpTransport]:
    """Open what makes calls, and nothing that runs above it."""
    if chosen.base_url is not None:
        async with open_transport(_remote_config(chosen, settings), rng=rng) as transport:
            yield transport
        return
    service = _embedded_service(embedded, rng)
    config = Config(base_url=_EMBEDDED_URL, **settings)
    async with (
        InProcessTransport(service.app) as through,
        open_transport(config, rng=rng, through=through) as transport,
    ):
        yield transport


def _open_remote(
    chosen: Backend, rng: random.Random, settings: Settings
) -> contextlib.AbstractAsyncContextManager[ServiceClient]:
    config = _remote_config(chosen, settings)
    return open_client(config, rng=rng, backend=config.base_url, chosen=chosen.line)


@contextlib.asynccontextmanager
async def _open_embedded(
    embedded: EmbeddedService | None, chosen: Backend, rng: random.Random, settings: Settings
) -> AsyncIterator[ServiceClient]:
    service = _embedded_service(embedded, rng)
    defaults: Settings = {"telemetry": True}
    config = Config(base_url=_EMBEDDED_URL, **(defaults | settings))
    async with (
        InProcessTransport(service.app) as transport,
        open_client(
            config,
            rng=rng,
            backend="local",
            chosen=chosen.line,
            through=transport,
            beat_through=lambda: InProcessTransport(service.app, lifespan=False),
        ) as client,
    ):
        yield client
