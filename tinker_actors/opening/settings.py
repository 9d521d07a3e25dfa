"""The settings that are taken by name, what the environment adds to them, and the configuration they make."""

from __future__ import annotations

import difflib
import os
import ssl
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, TypedDict

import httpx

from tinker_actors.errors import ConfigError
from tinker_actors.opening.backend import Backend, choose_backend
from tinker_actors.protocol.capability import Capability, TrainingBody
from tinker_actors.protocol.retry import DedupeMode
from tinker_actors.transport.config import Config, Environment
from tinker_actors.transport.options import Hooks
from tinker_actors.transport.proxy import ProxyRules
from tinker_actors.transport.tls import Trust, make_ssl_context

if TYPE_CHECKING:
    from tinker_actors.local.service import EmbeddedService

__all__ = ["Settings", "check_names", "choose", "remote_config"]


class Settings(TypedDict, total=False):
    """The settings of `Config` that `open_service` takes by name."""

    credential_command: str | None
    project_id: str | None
    capability: Capability | None
    dedupe: DedupeMode | None
    training_body: TrainingBody | None
    session_timeout: float | None
    noise: float | None
    check_optimizer: bool
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


def choose(
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


def check_names(function: str, settings: Settings) -> None:
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


def remote_config(chosen: Backend, settings: Settings) -> Config:
    """Return the configuration of a remote backend."""
    # Read here, as everything of the environment is: when the configuration is made, and only if nothing was given.
    if settings.get("proxy") is None:
        settings["proxy"] = ProxyRules.read(os.environ)
    if settings.get("ssl_context") is None:
        settings["ssl_context"] = make_ssl_context(Trust.read(os.environ))
    return Config(base_url=chosen.base_url or "", api_key=chosen.api_key, **settings)
